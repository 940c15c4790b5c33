"""The parts of a model that are cut or patched, what reads them, and how they are called.

Shape suffixes: W writers (= components), R readers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from scaleinv_ray.inputs.wording import shown

Kind = Literal["embed", "head", "mlp"]
Role = Literal["q", "k", "v", "m", "logits"]


class Component(NamedTuple):
    """Something that writes to the residual stream.

    Attributes:
        kind: embed (tokens and learned positions), a head before its output projection, or an MLP.
        layer: of the block; -1 of the embedding.
        head: of heads, else 0.
    """

    kind: Kind
    layer: int
    head: int = 0

    def __str__(self) -> str:
        """As in `embed`, `h1.3`, `m1`."""
        names = {"embed": "embed", "mlp": f"m{self.layer}", "head": f"h{self.layer}.{self.head}"}
        return names[self.kind]


class Reader(NamedTuple):
    """Something that reads the residual stream.

    Attributes:
        role: query, key or value of a head, input of an MLP, or the logits.
        layer: of the block; the number of blocks for the logits.
        head: a query head of q, a key/value head of k and v.
    """

    role: Role
    layer: int
    head: int = 0

    def __str__(self) -> str:
        """As in `q1.3`, `m1`, `logits`."""
        if self.role == "logits":
            return "logits"
        return f"m{self.layer}" if self.role == "m" else f"{self.role}{self.layer}.{self.head}"


@dataclass(frozen=True)
class Graph:
    """All writers and readers of a model, in the order in which they are computed.

    Attributes:
        layers: number of blocks.
        heads: query heads of a block.
        groups: key/value heads of a block.
        mlps: whether blocks have an MLP.
        parallel: attention and MLP of a block read the same input.
    """

    layers: int
    heads: int
    groups: int
    mlps: bool
    parallel: bool

    @cached_property
    def writers(self) -> tuple[Component, ...]:
        """Embedding, then of each block its heads and its MLP."""
        found = [Component("embed", -1)]
        for layer in range(self.layers):
            found += [Component("head", layer, head) for head in range(self.heads)]
            found += [Component("mlp", layer)] * self.mlps
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Of each block its q, k, v and its MLP; then the logits."""
        found = []
        for layer in range(self.layers):
            found += [Reader("q", layer, head) for head in range(self.heads)]
            for role in ("k", "v"):
                found += [Reader(role, layer, group) for group in range(self.groups)]
            found += [Reader("m", layer)] * self.mlps
        return (*found, Reader("logits", self.layers))

    def written_before(self, reader: Reader) -> int:
        """How many writers, in order, a reader can see."""
        if reader.role == "logits":
            return len(self.writers)
        before = 1 + reader.layer * (self.heads + self.mlps)
        return before + self.heads * (reader.role == "m" and not self.parallel)

    @cached_property
    def edges_WR(self) -> np.ndarray:
        """Which writer reaches which reader directly: bool [W, R]."""
        seen_R = np.array([self.written_before(reader) for reader in self.readers])
        return np.arange(len(self.writers))[:, None] < seen_R

    def edge_name(self, writer: int, reader: int) -> str:
        """As in `h0.0->k1.0`."""
        return f"{self.writers[writer]}->{self.readers[reader]}"

    def named(self, names: Iterable[str]) -> list[int]:
        """Indices of components.

        Args:
            names: as in `embed`, `h1.3`, `m1`.

        Raises:
            ValueError: for one that the model does not have.
        """
        known = {str(writer): n for n, writer in enumerate(self.writers)}
        found = []
        for name in names:
            if name not in known:
                last = f"h0.0..h{self.layers - 1}.{self.heads - 1}"
                mlps = f", m0..m{self.layers - 1}" if self.mlps else " (no MLPs)"
                raise ValueError(f"components: got {shown(name)}, allowed embed, {last}{mlps}")
            found.append(known[name])
        return found

    def of_kinds(self, kinds: Collection[str]) -> list[int]:
        """Indices of the components of some kinds.

        Args:
            kinds: out of embed, heads, mlp.

        Raises:
            ValueError: for another name, or where nothing is left.
        """
        names: dict[str, Kind] = {"embed": "embed", "heads": "head", "mlp": "mlp"}
        if unknown := sorted(set(kinds) - names.keys()):
            raise ValueError(f"nodes: got {shown(unknown)}, allowed {', '.join(names)}")
        wanted = {names[kind] for kind in kinds}
        found = [n for n, writer in enumerate(self.writers) if writer.kind in wanted]
        if not found:
            raise ValueError(f"nodes: got {sorted(kinds)} of a model that has none of them")
        return found

    def masks(self, sets: Iterable[Iterable[int]]) -> np.ndarray:
        """Sets of components as rows of bool [sets, W]."""
        rows = [np.isin(np.arange(len(self.writers)), list(members)) for members in sets]
        return np.array(rows, dtype=bool).reshape(-1, len(self.writers))
