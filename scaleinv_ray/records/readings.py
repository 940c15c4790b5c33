"""The record of readings: what linear maps read of a stream, and what rules say of decisions.

Shape suffixes: L places in the depth (embedding first, after the last block last), S and U
sequences with a row of their target, K numbers of leaves, H sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaleinv_ray.records import Record


@dataclass(frozen=True, kw_only=True)
class Readings(Record):
    """Shares of rows of held-out sequences that are read, or decided, right.

    Attributes:
        previous_LS: the token before, by a linear probe; None where the sequences have too few.
        previous_control_LS: labels drawn at random for what stood before, in the same shares.
        repeated_LU: whether the token stood in the sequence before; None as above.
        repeated_control_LU: its control labels.
        leaves_K: of trees on features of token ids.
        agreed_KH: decisions of the model that a tree makes too.
        majority_H: those that are the most frequent decision elsewhere.
        previous_chance: share of the most frequent label.
        repeated_chance: the same.
        decisions: how many the trees are fitted to.
    """

    arrays: ClassVar[tuple[str, ...]] = (
        "agreed_KH",
        "leaves_K",
        "majority_H",
        "previous_LS",
        "previous_control_LS",
        "repeated_LU",
        "repeated_control_LU",
    )
    leaves_K: np.ndarray
    agreed_KH: np.ndarray
    majority_H: np.ndarray
    previous_LS: np.ndarray | None = None
    previous_control_LS: np.ndarray | None = None
    repeated_LU: np.ndarray | None = None
    repeated_control_LU: np.ndarray | None = None
    previous_chance: float | None = None
    repeated_chance: float | None = None
    decisions: int | None = None

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record, and what is beside the arrays."""
        own = ("previous_chance", "repeated_chance", "decisions")
        return super().labels() | {name: getattr(self, name) for name in own}
