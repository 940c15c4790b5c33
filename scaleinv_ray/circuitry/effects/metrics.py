"""What an effect is an effect on: one value a sequence, read at the answer positions alone.

Shape suffixes: C sets of components, S sequences, T tokens, P answer positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch

from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.probes.corrupted.pairs import Pairs
from scaleinv_ray.protocols import RankedMetric

RANKED: tuple[RankedMetric, ...] = get_args(RankedMetric)
"""Metrics by which components are ranked; accuracy is reported beside them."""
_PerPosition = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Metric:
    """A metric bound to its sequences.

    Attributes:
        name: out of `RANKED`, or accuracy.
        positions_SP: whose logits are read.
        of_logits: logits [C, S, P, V] -> [C, S, P]; computed in float32 or above.
    """

    name: str
    positions_SP: torch.Tensor
    of_logits: _PerPosition

    def __call__(self, anatomy: Anatomy, stream_CSTD: torch.Tensor) -> torch.Tensor:
        """Values [C, S] of the stream after the last block, means over the answer positions."""
        logits = anatomy.logits(at_positions(stream_CSTD, self.positions_SP))
        return self.of_logits(logits.to(torch.promote_types(logits.dtype, torch.float32))).mean(-1)


def at_positions(stream_CSTD: torch.Tensor, positions_SP: torch.Tensor) -> torch.Tensor:
    """The rows that are read, [C, S, P, D]."""
    rows_S1 = torch.arange(len(positions_SP), device=stream_CSTD.device)[:, None]
    return stream_CSTD[:, rows_S1, positions_SP]


def check_metric(name: str, pairs: Pairs, *, ranked: bool = True) -> None:
    """Refuses a metric that the pairs have no answers for.

    Args:
        ranked: components are to be ranked by it.

    Raises:
        ValueError: unknown; accuracy where it ranks; equal answers, or no sets of right and wrong.
    """
    allowed = RANKED if ranked else (*RANKED, "accuracy")
    if name not in allowed:
        why = " (accuracy is reported, never ranked by)" if name == "accuracy" else ""
        raise ValueError(f"metric: got {shown(name)}, allowed {', '.join(allowed)}{why}")
    pairs.check_metric(name)


def metric_of(
    name: str, pairs: Pairs, *, device: torch.device, clean_SPV: torch.Tensor | None = None
) -> Metric:
    """A metric for these pairs.

    logit_diff: logit of A's answer minus that of B's. prob_diff: probability of the right tokens
    minus that of the wrong ones. loss: nats of A's answer. kl: of the clean run against the
    patched one. accuracy: A's answer has the largest logit.

    Args:
        clean_SPV: logits of the clean run, for kl.

    Raises:
        ValueError: as `check_metric`.
    """
    check_metric(name, pairs, ranked=False)
    positions_SP = torch.from_numpy(pairs.positions_SP).to(device)
    a_SP1 = torch.from_numpy(pairs.answer_A_SP).to(device)[..., None]
    b_SP1 = torch.from_numpy(pairs.answer_B_SP).to(device)[..., None]

    def at(values: torch.Tensor, answer_SP1: torch.Tensor) -> torch.Tensor:
        return values.gather(-1, answer_SP1.expand(len(values), -1, -1, -1))[..., 0]

    def sets(pairs: Pairs) -> torch.Tensor:
        assert pairs.right_SV is not None and pairs.wrong_SV is not None, "checked"
        sign_SV = pairs.right_SV.astype("float64") - pairs.wrong_SV
        return torch.from_numpy(sign_SV)[:, None].to(device)

    def kl(logits: torch.Tensor) -> torch.Tensor:
        assert clean_SPV is not None, "kl needs the clean run"
        clean = clean_SPV.log_softmax(-1)
        return (clean.exp() * (clean - logits.log_softmax(-1))).sum(-1)

    found: dict[str, _PerPosition] = {
        "logit_diff": lambda logits: at(logits, a_SP1) - at(logits, b_SP1),
        "loss": lambda logits: -at(logits.log_softmax(-1), a_SP1),
        "accuracy": lambda logits: (logits.argmax(-1) == a_SP1[..., 0]).to(logits.dtype),
        "prob_diff": lambda logits: (logits.softmax(-1) * sets(pairs).to(logits.dtype)).sum(-1),
        "kl": kl,
    }
    return Metric(name, positions_SP, found[name])
