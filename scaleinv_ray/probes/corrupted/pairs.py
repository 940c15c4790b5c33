"""Clean and corrupted sequences, row by row, and where their answers are.

Shape suffixes: S sequences, T tokens, P answer positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pairs:
    """Sequences A and the same ones corrupted, B.

    Attributes:
        tokens_A_ST: clean.
        tokens_B_ST: corrupted; of equal length, with the answers at equal positions.
        positions_SP: positions whose logits are read: the answer follows them.
        answer_A_SP: what follows in A.
        answer_B_SP: what would follow in B.
        metric: that suits the probe.
        acceptance: share of the drawn pairs that could be used.
        right_SV: tokens that are right, where that is no single one.
        wrong_SV: tokens that are wrong.
    """

    tokens_A_ST: np.ndarray
    tokens_B_ST: np.ndarray
    positions_SP: np.ndarray
    answer_A_SP: np.ndarray
    answer_B_SP: np.ndarray
    metric: str = "logit_diff"
    acceptance: float = 1.0
    right_SV: np.ndarray | None = None
    wrong_SV: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks.

        Raises:
            ValueError: for no whole numbers [S, T]; A and B of unequal shape; positions outside the
                sequence or answers of another shape; A equal to B.
        """
        for name in ("tokens_A", "tokens_B", "positions", "answer_A", "answer_B"):
            x = getattr(self, f"{name}_{'ST' if name.startswith('tokens') else 'SP'}")
            if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer) or x.size == 0:
                raise ValueError(
                    f"{name}: got {x.dtype} {x.shape}, allowed whole numbers in two dimensions"
                )
        a, b = self.tokens_A_ST.shape, self.tokens_B_ST.shape
        if a != b:
            raise ValueError(f"tokens_B: got {b}, allowed {a} as tokens_A (paired row by row)")
        shape = self.positions_SP.shape
        if not shape == self.answer_A_SP.shape == self.answer_B_SP.shape or shape[0] != a[0]:
            shapes = (shape, self.answer_A_SP.shape, self.answer_B_SP.shape)
            raise ValueError(
                f"positions, answer_A, answer_B: got {shapes}, allowed equal shapes, {a[0]} rows"
            )
        if self.positions_SP.min() < 0 or self.positions_SP.max() >= a[1]:
            got = f"{self.positions_SP.min()}..{self.positions_SP.max()}"
            raise ValueError(f"positions: got {got}, allowed 0..{a[1] - 1}")
        if (self.tokens_A_ST == self.tokens_B_ST).all():
            raise ValueError("tokens_B: got the tokens of A, allowed others (nothing is corrupted)")

    def check_tokens(self, vocab_size: int, pad_id: int | None = None) -> None:
        """Refuses ids that a model does not have, and padding.

        Args:
            pad_id: a token that pads and does nothing else; None where there is none.

        Raises:
            ValueError: naming the field.
        """
        for name, x in (
            ("tokens_A", self.tokens_A_ST),
            ("tokens_B", self.tokens_B_ST),
            ("answer_A", self.answer_A_SP),
            ("answer_B", self.answer_B_SP),
        ):
            if x.min() < 0 or x.max() >= vocab_size:
                got = f"{x.min()}..{x.max()}"
                raise ValueError(f"{name}: got token ids {got}, allowed 0..{vocab_size - 1}")
            if pad_id is not None and (count := int((x == pad_id).sum())):
                raise ValueError(
                    f"{name}: got {count} times the padding token {pad_id}, allowed sequences of "
                    "equal length without padding"
                )

    def check_rows(self) -> None:
        """Refuses pairs that are none, and one pair many times, whose error would be 0.

        Raises:
            ValueError: naming the field.
        """
        same = int((self.tokens_A_ST == self.tokens_B_ST).all(axis=1).sum())
        if same:
            raise ValueError(
                f"tokens_B: got {same} of {len(self.tokens_A_ST)} rows equal to those of A, "
                "allowed others (nothing is corrupted)"
            )
        both = np.concatenate([self.tokens_A_ST, self.tokens_B_ST], axis=1)
        if len(both) > 1 and (both == both[0]).all():
            raise ValueError(
                f"tokens_A: got one pair {len(both)} times, allowed different ones: copies have no "
                "error"
            )

    def check_metric(self, name: str) -> None:
        """Refuses a metric that there are no answers for.

        Args:
            name: logit_diff, prob_diff, loss or kl.

        Raises:
            ValueError: for answers that are equal, or no sets of right and wrong tokens.
        """
        same = int((self.answer_A_SP == self.answer_B_SP).sum())
        if name == "logit_diff" and same:
            raise ValueError(
                f"answers: got {same} of {self.answer_A_SP.size} equal in A and B, allowed "
                "different ones for logit_diff; or metric loss or kl"
            )
        if name == "prob_diff" and self.right_SV is None:
            raise ValueError(
                "metric: got 'prob_diff' of a probe without sets of right and wrong tokens; "
                "allowed logit_diff, loss, kl"
            )

    def after(self, beginning: tuple[int, ...]) -> Pairs:
        """The same pairs behind tokens that stand before every text."""
        if not beginning:
            return self
        first = np.tile(np.array(beginning), (len(self.tokens_A_ST), 1))
        return replace(
            self,
            tokens_A_ST=np.concatenate([first, self.tokens_A_ST], axis=1),
            tokens_B_ST=np.concatenate([first, self.tokens_B_ST], axis=1),
            positions_SP=self.positions_SP + len(beginning),
        )

    def some(self, rows: slice) -> Pairs:
        """Some of the sequences."""
        given: dict[str, Any] = {
            field.name: value[rows]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return replace(self, **given)
