"""Runs in which a reader sees some writers as they were in another run: path patching, circuits.

Shape suffixes: C sets of edges, S sequences, T tokens, D width, H heads, K width of a head,
W writers, R readers, B = C * S rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from scaleinv_ray.circuitry.surgery.anatomy import Anatomy, Projection
from scaleinv_ray.circuitry.surgery.components import Graph
from scaleinv_ray.circuitry.surgery.reruns import State, Surgery, on_heads, on_mlp


def written(anatomy: Anatomy, state: State) -> torch.Tensor:
    """What every writer adds to the stream, [W, S, T, D]."""
    parts = [state.stream[0][None]]
    for layer in range(anatomy.graph.layers):
        parts.append(_written_by_heads(anatomy, layer, state.heads[layer]))
        if state.mlps:
            parts.append(state.mlps[layer][None] * anatomy.architecture.residual_multiplier)
    return torch.cat(parts)


def _written_by_heads(anatomy: Anatomy, layer: int, z_STHK: torch.Tensor) -> torch.Tensor:
    return torch.einsum("sthk,hkd->hstd", z_STHK, anatomy.written_HKD(layer))


def swapped_edges(
    surgery: Surgery, clean: State, donor: State, masks_CWR: np.ndarray
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Runs in which, along every edge of a set, the reader sees the donor's writer.

    Along all other edges it sees what this run computes, so that changes go on downstream.

    Args:
        surgery: of a model whose heads add up.
        clean: the run that is changed.
        donor: whose writers are seen along the edges of a set.
        masks_CWR: bool, an edge set each; pairs that are no edges are not read.

    Yields:
        Indices of some sets and the stream that the logits read, [those sets, S, T, D].
    """
    surgery.anatomy.check_edges()
    readers, edges_WR = surgery.anatomy.graph.readers, surgery.anatomy.graph.edges_WR
    layers_R = np.array([reader.layer for reader in readers])
    any_CR = (masks_CWR & edges_WR).any(axis=1)
    starts_C = np.where(any_CR, layers_R, surgery.anatomy.graph.layers).min(axis=1)
    donor_WSTD, clean_WSTD = (written(surgery.anatomy, state) for state in (donor, clean))
    rows = max(1, surgery.max_rows // len(clean.stream[0]))
    for start in np.unique(starts_C):
        of_C = np.flatnonzero(starts_C == start)
        for chunk in np.split(of_C, range(rows, len(of_C), rows)):
            mask = torch.from_numpy(masks_CWR[chunk] & edges_WR).to(donor_WSTD)
            run = _Run(surgery, mask, donor_WSTD, clean_WSTD, int(start))
            yield chunk, run.stream(clean.stream[start])


@dataclass
class _Run:
    """One batch; `now` holds what its writers have given so far, [C, S, T, D] each."""

    surgery: Surgery
    mask_CWR: torch.Tensor
    donor_WSTD: torch.Tensor
    clean_WSTD: torch.Tensor
    start: int
    now: list[torch.Tensor] = field(default_factory=list)

    @property
    def graph(self) -> Graph:
        return self.surgery.anatomy.graph

    @torch.no_grad()
    def stream(self, x_STD: torch.Tensor) -> torch.Tensor:
        """The stream that the logits read, [C, S, T, D]."""
        anatomy, graph, sets = self.surgery.anatomy, self.graph, len(self.mask_CWR)
        known = 1 + self.start * (graph.heads + graph.mlps)
        self.now = [u.expand(sets, *u.shape) for u in self.clean_WSTD[:known]]
        with self.surgery.hooked(x_STD.shape[1]) as handles:
            for layer in range(self.start, graph.layers):
                handles.append(on_heads(anatomy, layer, partial(self._keep_heads, layer)))
                if graph.mlps:
                    pre = partial(self._mlp_reads, layer)
                    handles.append(anatomy.mlp_norm(layer).register_forward_pre_hook(pre))
                    tokens = x_STD.shape[1]
                    handles.append(on_mlp(anatomy, layer, self._keep_mlp, tokens))
            for layer, x in self.surgery.blocks_from(x_STD.repeat(sets, 1, 1), self.start):
                if layer < graph.layers:
                    self._attention_reads(layer, x, handles)
        return x.unflatten(0, (sets, -1)) + self._moved([len(graph.readers) - 1])[0]

    def _moved(self, readers: list[int]) -> torch.Tensor:
        """Donor minus this run, over the writers that each reader sees as the donor's.

        Args:
            readers: that can see the same writers.

        Returns:
            [R, C, S, T, D].
        """
        seen = self.graph.written_before(self.graph.readers[readers[0]])
        mask_CRW = self.mask_CWR[:, :seen, readers].mT
        used = mask_CRW.flatten(0, 1).any(dim=0).nonzero().flatten().tolist()
        if not used:
            return torch.zeros_like(self.now[0]).expand(len(readers), *self.now[0].shape)
        moved_CWSTD = torch.stack([self.donor_WSTD[w] - self.now[w] for w in used], dim=1)
        seen_CRN = mask_CRW[..., used] @ moved_CWSTD.flatten(2)
        return seen_CRN.unflatten(2, self.now[0].shape[1:]).transpose(0, 1)

    def _first_reader(self, layer: int) -> int:
        return layer * (self.graph.heads + 2 * self.graph.groups + self.graph.mlps)

    def _attention_reads(self, layer: int, x_BTD: torch.Tensor, handles: list[Any]) -> None:
        """Hooks that give each query, key and value of a layer its own view of the stream."""
        first = self._first_reader(layer)
        counts = {"q": self.graph.heads, "k": self.graph.groups, "v": self.graph.groups}
        all_of = [(role, n) for role, count in counts.items() for n in range(count)]
        moved = [n for n in range(len(all_of)) if self.mask_CWR[:, :, first + n].any()]
        own: dict[str, list[tuple[int, torch.Tensor]]] = {role: [] for role in counts}
        if moved:
            views_RBTD = x_BTD + self._moved([first + n for n in moved]).flatten(1, 2)
            for (role, n), view_BTD in zip((all_of[n] for n in moved), views_RBTD, strict=True):
                own[role].append((n, view_BTD))
        for projection in self.surgery.anatomy.projections(layer):
            hook = partial(self._reproject, layer, projection, own)
            handles.append(projection.module.register_forward_hook(hook))

    def _reproject(
        self,
        layer: int,
        projection: Projection,
        own: dict[str, list[tuple[int, torch.Tensor]]],
        _module: nn.Module,
        _args: Any,
        y: torch.Tensor,
    ) -> torch.Tensor:
        y = y.clone()
        norm = self.surgery.anatomy.attention_norm(layer)
        for role, view in projection.views(y).items():
            for head, x_BTD in own[role]:
                w_IK = projection.weight[role][:, head]
                view[:, :, head] = norm(x_BTD) @ w_IK
                if projection.bias:
                    view[:, :, head] += projection.bias[role][head]
        return y

    def _mlp_reads(self, layer: int, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
        reader = self._first_reader(layer + 1) - 1
        if not self.mask_CWR[:, :, reader].any():
            return None
        return (args[0] + self._moved([reader])[0].reshape(args[0].shape), *args[1:])

    def _keep_heads(self, layer: int, z_BTHK: torch.Tensor) -> torch.Tensor:
        u_HBTD = _written_by_heads(self.surgery.anatomy, layer, z_BTHK)
        self.now += [u.unflatten(0, (len(self.mask_CWR), -1)) for u in u_HBTD]
        return z_BTHK

    def _keep_mlp(self, y_BTD: torch.Tensor) -> torch.Tensor:
        u = y_BTD * self.surgery.anatomy.architecture.residual_multiplier
        self.now.append(u.unflatten(0, (len(self.mask_CWR), -1)))
        return y_BTD
