"""Tokens that drive a unit: gradient ascent on embeddings, projected to tokens at every step.

Shape suffixes: B rows, T tokens, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from scaleinv_ray.circuitry.attribution.units import Readings
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery

STEPS = 32
_STRIDE = 0.5
"""Of a typical distance between two tokens, what the position with the largest gradient moves."""
_BLOCK = 1 << 24
"""Distances held at once."""


class Reached(NamedTuple):
    """Tokens of a row and the value there.

    Attributes:
        tokens_T: of the row.
        at: the position whose value it is.
        value: of a forward pass on these tokens.
    """

    tokens_T: torch.Tensor
    at: int
    value: float


@dataclass(frozen=True)
class Embedding:
    """What each token and each position adds to the stream before block 0.

    Attributes:
        tokens_VD: of the tokens, with what position 0 adds.
        positions_TD: of the positions, less that of the first.
        allowed_V: tokens that may be chosen.
    """

    tokens_VD: torch.Tensor
    positions_TD: torch.Tensor
    allowed_V: torch.Tensor

    @classmethod
    def of(cls, surgery: Surgery, length: int) -> Embedding:
        """Of a model; its special tokens are not to be chosen."""
        config = surgery.anatomy.model.config
        tokens_VD = surgery.embedded(torch.arange(config.vocab_size)[:, None])[:, 0]
        row_TD = surgery.embedded(torch.zeros(1, length, dtype=torch.long))[0]
        allowed_V = torch.ones(len(tokens_VD), dtype=torch.bool, device=tokens_VD.device)
        allowed_V[[i for i in special_ids(surgery.anatomy) if i < len(allowed_V)]] = False
        return cls(tokens_VD, row_TD - row_TD[0], allowed_V)

    def at(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """The stream before block 0, [B, T, D]."""
        return self.tokens_VD[tokens_BT] + self.positions_TD

    def nearest(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """The tokens whose embeddings are nearest, [B, T]."""
        middle_D = self.tokens_VD.mean(0)  # large parts that all share would drown differences
        rows = (x_BTD - self.positions_TD - middle_D).flatten(0, 1)
        from_VD = self.tokens_VD - middle_D
        half_V = (from_VD.square().sum(-1) / 2).masked_fill(~self.allowed_V, torch.inf)
        blocks = rows.split(max(1, _BLOCK // len(from_VD)))
        found = [(half_V - some @ from_VD.T).argmin(-1) for some in blocks]
        return torch.cat(found).unflatten(0, x_BTD.shape[:2])

    @property
    def spacing(self) -> float:
        """Distance of two tokens, root mean square."""
        return float((2 * self.tokens_VD[self.allowed_V].var(0).sum()).sqrt())


def special_ids(anatomy: Anatomy) -> list[int]:
    """Tokens that begin, end and pad."""
    config = anatomy.model.config
    found = []
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = getattr(config, name, None)
        found += given if isinstance(given, list) else [] if given is None else [given]
    return sorted(set(found))


def climb(
    readings: Readings, embedding: Embedding, tokens_BT: torch.Tensor, at_B: torch.Tensor,
    fixed: int, steps: int = STEPS,
) -> Reached:  # fmt: skip
    """The largest value of a unit that is met on the way up from some rows.

    The gradient is taken at the embeddings of tokens and moves embeddings that are kept apart,
    whose nearest tokens are the next ones (Wen et al. 2023, 2302.03668). So every value on the way
    is one of tokens, none of embeddings that no token has. The starts are on the way.

    Args:
        readings: of one unit.
        embedding: of the model.
        tokens_BT: where to start.
        at_B: position of the row whose value is to grow; tokens up to it change.
        fixed: tokens at the beginning that stay.
        steps: gradients taken.

    Returns:
        The best tokens, their value read by a forward pass of their own.
    """
    rows_B, length = torch.arange(len(tokens_BT)), tokens_BT.shape[1]
    steps_T = torch.arange(length)
    free_BT = (steps_T >= fixed) & (steps_T <= at_B[:, None])
    free_BT = free_BT.to(embedding.tokens_VD.device)
    tokens_BT = tokens_BT.to(embedding.tokens_VD.device)
    x_BTD, stride = embedding.at(tokens_BT), _STRIDE * embedding.spacing
    best_B, best_BT = torch.full((len(tokens_BT),), -torch.inf), tokens_BT.clone()
    for _ in range(steps + 1):
        here = embedding.at(tokens_BT).requires_grad_()
        with torch.enable_grad():
            value_B = readings.of(here, tokens_BT)[0][rows_B, at_B]
        (grad_BTD,) = torch.autograd.grad(value_B.sum(), here)
        better_B = value_B.detach().cpu() > best_B
        best_B = torch.where(better_B, value_B.detach().cpu(), best_B)
        best_BT[better_B] = tokens_BT[better_B]
        grad_BTD = grad_BTD * free_BT[..., None]
        largest_B = grad_BTD.norm(dim=-1).amax(-1)
        if not largest_B.any():
            break  # flat: a unit that is off has no way up
        x_BTD = x_BTD + stride * grad_BTD / largest_B.clamp_min(1e-30)[:, None, None]
        tokens_BT = torch.where(free_BT, embedding.nearest(x_BTD), tokens_BT)
    return max(
        (_read(readings, best_BT[b], int(at_B[b])) for b in rows_B), key=lambda found: found.value
    )


def _read(readings: Readings, tokens_T: torch.Tensor, at: int) -> Reached:
    """Of one row alone, as anyone can read it again."""
    return Reached(tokens_T.cpu(), at, float(readings.of_tokens(tokens_T[None])[0][0, at]))
