"""Units that a maximum is looked for: neurons of MLPs, heads by what they write.

Shape suffixes: B rows, T tokens, K width of a head or units of an MLP, D width, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from scaleinv_ray.circuitry.attribution.norms import frozen
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Edit, Surgery, on_heads
from scaleinv_ray.inputs.wording import shown

Kind = Literal["neuron", "norm", "next"]
_NAMES = re.compile(r"(?:m(?P<mlp>\d+)|h(?P<head>\d+))\.(?P<index>\d+)(?P<next>>next)?")


@dataclass(frozen=True)
class Unit:
    """A number that a model computes at every token.

    Attributes:
        kind: neuron, an MLP's after its nonlinearity (and gate); norm, of what a head writes to the
            stream; next, what a head writes along W_U[next token] - mean of W_U, the final norm's
            weight in between but not its scale.
        layer: of the block.
        index: of the neuron or head.
    """

    kind: Kind
    layer: int
    index: int

    def __str__(self) -> str:
        """As in `m1.37`, `h1.0`, `h1.0>next`."""
        letter = "m" if self.kind == "neuron" else "h"
        return f"{letter}{self.layer}.{self.index}" + ">next" * (self.kind == "next")


def named(anatomy: Anatomy, name: str) -> Unit:
    """The unit of a name.

    Args:
        name: as in `m1.37`, a neuron; `h1.0`, the norm of a head's output; `h1.0>next`, how much
            it is for the token that comes next.

    Raises:
        ValueError: for another name, or a unit that the model does not have.
    """
    match = _NAMES.fullmatch(name)
    graph = anatomy.graph
    if match is not None and not (match["mlp"] and (match["next"] or not graph.mlps)):
        kind: Kind = "neuron" if match["mlp"] else "next" if match["next"] else "norm"
        unit = Unit(kind, int(match["mlp"] or match["head"]), int(match["index"]))
        inside = unit.layer < graph.layers
        if inside and unit.index < (width(anatomy, unit.layer) if match["mlp"] else graph.heads):
            return unit
    neurons = f"m0.0..m{graph.layers - 1}.{width(anatomy, 0) - 1}, " if graph.mlps else ""
    heads = f"h0.0..h{graph.layers - 1}.{graph.heads - 1}"
    raise ValueError(f"units: got {shown(name)}, allowed {neurons}{heads}, and h0.0>next")


def width(anatomy: Anatomy, layer: int) -> int:
    """Neurons of an MLP."""
    weight = getattr(_down(anatomy, layer), "weight", None)
    assert weight is not None, "a projection has a weight"
    return weight.numel() // anatomy.model.config.hidden_size


def on_neurons(anatomy: Anatomy, layer: int, edit: Edit, tokens: int) -> Any:
    """Puts `edit` before the down projection of an MLP; the handle removes it."""

    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        # OPT's MLP sees all tokens of a batch as rows
        h_BTK = args[0].reshape(-1, tokens, args[0].shape[-1])
        return (edit(h_BTK).reshape(args[0].shape), *args[1:])

    return _down(anatomy, layer).register_forward_pre_hook(hook, prepend=True)


def _down(anatomy: Anatomy, layer: int) -> nn.Module:
    path = anatomy.architecture.down_projection
    assert path is not None, "asked of a model without MLPs"
    return anatomy.blocks[layer].get_submodule(path)


@dataclass(frozen=True)
class Readings:
    """Reads units off runs that end behind the last of them.

    Attributes:
        surgery: of the model.
        units: whose values are read.
    """

    surgery: Surgery
    units: Sequence[Unit]

    def of(self, x_BTD: torch.Tensor, tokens_BT: torch.Tensor) -> list[torch.Tensor]:
        """Values [B, T] of each unit.

        Args:
            x_BTD: embeddings.
            tokens_BT: what `next` looks its token up in; the last position has none: -inf.
        """
        anatomy, length = self.surgery.anatomy, x_BTD.shape[1]
        kept: dict[int, torch.Tensor] = {}

        def keep(n: int, x: torch.Tensor) -> torch.Tensor:
            kept[n] = x
            return x

        deepest = max(unit.layer for unit in self.units)
        with self.surgery.hooked(length) as handles:
            for n, unit in enumerate(self.units):
                edit = partial(keep, n)
                neuron = unit.kind == "neuron"
                handles.append(
                    on_neurons(anatomy, unit.layer, edit, length)
                    if neuron
                    else on_heads(anatomy, unit.layer, edit)
                )
            for layer, _ in self.surgery.blocks_from(x_BTD, 0):
                if layer > deepest:
                    break
        return [self._value(unit, kept[n], tokens_BT) for n, unit in enumerate(self.units)]

    def of_tokens(self, tokens_BT: torch.Tensor) -> list[torch.Tensor]:
        """Values [B, T] of each unit, of tokens."""
        with torch.no_grad():
            return self.of(self.surgery.embedded(tokens_BT), tokens_BT)

    def _value(self, unit: Unit, x: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
        if unit.kind == "neuron":
            return x[..., unit.index]
        u_BTD = x[:, :, unit.index] @ self.surgery.anatomy.written_HKD(unit.layer)[unit.index]
        if unit.kind == "norm":
            return u_BTD.norm(dim=-1)
        to_BTD = _towards(self.surgery.anatomy, tokens_BT[:, 1:], u_BTD)
        value_BT = (u_BTD[:, :-1] * to_BTD).sum(-1)
        return nn.functional.pad(value_BT, (0, 1), value=-torch.inf)


@torch.no_grad()
def _towards(anatomy: Anatomy, tokens_BT: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The direction in the stream that is for a token, against the mean of all."""
    facts = anatomy.architecture
    head: Any = anatomy.model.get_submodule(facts.head)
    to_BTD = head.weight[tokens_BT.to(head.weight.device)] - head.weight.mean(0)
    body = anatomy.model.get_submodule(facts.blocks.rpartition(".")[0])
    last: Any = getattr(body, "project_out", None)
    to_BTD = to_BTD if last is None else to_BTD @ last.weight
    norm = None if facts.final_norm is None else anatomy.model.get_submodule(facts.final_norm)
    # a row of variance 1 has scale 1: what is left is the norm's weight
    row = torch.tensor([1.0, -1.0]).repeat(like.shape[-1])[: like.shape[-1]].to(like)
    return frozen(norm, row[None]).back(to_BTD.double()).to(like)
