"""A norm as the affine map that it is while its scale is held.

Shape suffixes: D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class FrozenNorm(NamedTuple):
    """What a norm does to a part of its input: u -> gain (u - mean u) + bias, bias counted once.

    Attributes:
        gain: [.., D], the norm's weight times the scale of each row.
        bias_D: of a LayerNorm, else zeros.
        centred: the mean is taken off first.
    """

    gain: torch.Tensor
    bias_D: torch.Tensor
    centred: bool

    def back(self, direction: torch.Tensor) -> torch.Tensor:
        """The direction before the norm whose product with u is that of `direction` behind it."""
        found = self.gain * direction
        return found - found.mean(-1, keepdim=True) if self.centred else found


@torch.no_grad()
def frozen(norm: nn.Module | None, x: torch.Tensor) -> FrozenNorm:
    """The map of a norm at x, in float64.

    LayerNorm and RMSNorm are told apart, and their weights found, by what they do to a constant
    row: stock classes keep the weight as w or as 1 + w. The scale is fitted to the norm's own
    output, so that neither its epsilon nor the precision it computes in has to be known.

    Args:
        norm: None or an identity gives the identity.
        x: [.., D], what goes through it.
    """
    x64 = x.double()
    if norm is None or isinstance(norm, nn.Identity):
        return FrozenNorm(torch.ones_like(x64), x64.new_zeros(x.shape[-1]), False)
    ones = torch.ones_like(x.flatten(0, -2)[:1])
    bias_D = norm(torch.zeros_like(ones))[0].double()
    gain_D = norm(ones)[0].double() - bias_D
    centred = not bool(gain_D.any())
    if centred:
        weight = getattr(norm, "weight", None)
        gain_D = torch.ones_like(gain_D) if weight is None else weight.double()
        x64 = x64 - x64.mean(-1, keepdim=True)
    unscaled = gain_D * x64
    scale = ((norm(x).double() - bias_D) * unscaled).sum(-1) / unscaled.square().sum(-1)
    return FrozenNorm(scale[..., None] * gain_D, bias_D, centred)
