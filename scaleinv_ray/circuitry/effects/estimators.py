"""Effects by gradients: nodes (AtP) and edges (EAP), at one point or along a path (IG).

The sign is that of an ablation: what putting B's value in adds to the metric of A. Gradients of
readers are taken at the outputs of the stock q, k and v projections, split per head, brought back
through the projection's weights and the norm before it; no copy of the stream per head is made.

Shape suffixes: S sequences, T tokens, D width, H heads, K width of a head, W writers, R readers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import nn

from scaleinv_ray.circuitry.effects.interventions import Experiment, Rows
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy, Projection
from scaleinv_ray.circuitry.surgery.edge_runs import written
from scaleinv_ray.circuitry.surgery.reruns import Edit, State, on_heads, on_mlp
from scaleinv_ray.inputs.wording import shown

Method = Literal["gradient", "ig"]
METHODS: tuple[str, ...] = get_args(Method)
End = Literal["clean", "corrupted"]
COMPLETE = 0.02
"""Largest error of the sum of the embedding's scores, of m(B) - m(A)."""
FIRST_NODES, MOST_NODES = 5, 160


class Scores(NamedTuple):
    """Estimated effects.

    Attributes:
        nodes_WS: of each writer.
        edges_WRS: of each writer on each reader; None where they were not asked for.
        points: where gradients were taken.
        error: of completeness, for ig; None else.
    """

    nodes_WS: np.ndarray
    edges_WRS: np.ndarray | None
    points: int
    error: float | None


def estimate(
    experiment: Experiment,
    *,
    method: Method = "gradient",
    end: End = "clean",
    edges: bool = False,
    most: float = np.inf,
) -> Scores:
    """Scores of all writers, and of all edges.

    gradient: (c_B - c_A) . grad m, at A or B (Nanda 2023; Syed et al. 2310.10348). ig: the gradient
    averaged over embeddings between B and A at Gauss-Legendre points, doubled until the embedding's
    scores sum to m(B) - m(A) (Hanna et al. 2403.17806).

    Args:
        experiment: by resampling; other donors have no run to take gradients along.
        end: where gradient is taken.
        edges: scores of edges too.
        most: forwards that ig may take as its points double.

    Raises:
        ValueError: for kl with its gradient at the clean run, where it is zero; another ablation
            than resampling; edges of a model that has none; an ig that does not become complete,
            or not for these forwards.
    """
    check_estimate(experiment, method=method, end=end, edges=edges)
    found = [_of_rows(experiment, rows, method, end, edges, most) for rows in experiment.batches]
    parts = [scores.edges_WRS for scores in found if scores.edges_WRS is not None]
    errors = [scores.error for scores in found if scores.error is not None]
    return Scores(
        np.concatenate([scores.nodes_WS for scores in found], axis=-1),
        np.concatenate(parts, axis=-1) if parts else None,
        max(scores.points for scores in found),
        max(errors) if errors else None,
    )


def check_estimate(
    experiment: Experiment, *, method: str, end: str = "clean", edges: bool = False
) -> None:
    """Refuses combinations that cannot work; see `estimate`."""
    if method not in METHODS:
        raise ValueError(f"method: got {shown(method)}, allowed {METHODS}")
    if end not in get_args(End):
        raise ValueError(f"end: got {shown(end)}, allowed {get_args(End)}")
    if method == "gradient" and end == "clean" and experiment.metric == "kl":
        raise ValueError(
            "method: got 'gradient' at the clean run of metric 'kl', where its gradient is zero; "
            "allowed: ig, the corrupted end, or exact"
        )
    if experiment.ablation != "resample":
        raise ValueError(
            f"ablation: got {experiment.ablation!r} with edges, allowed resample (gradients are "
            "taken between the runs on A and B)"
        )
    if edges:
        experiment.anatomy.check_edges()


def _of_rows(
    experiment: Experiment, rows: Rows, method: str, end: str, edges: bool, most: float
) -> Scores:
    moved_WSTD = None
    if edges:
        moved_WSTD = written(experiment.anatomy, rows.corrupted)
        moved_WSTD -= written(experiment.anatomy, rows.clean)
    at = partial(_scores_at, experiment, rows, moved_WSTD)
    if method == "gradient":
        state = rows.clean if end == "clean" else rows.corrupted
        nodes, found = at(state.stream[0])
        return Scores(nodes, found, 1, None)
    with torch.no_grad():
        m_A, m_B = (
            rows.metric(experiment.anatomy, state.stream[-1][None])[0].double().cpu().numpy()
            for state in (rows.clean, rows.corrupted)
        )
    return _integrated(rows, at, m_B - m_A, most)


_At = Callable[[torch.Tensor], tuple[np.ndarray, np.ndarray | None]]


def _integrated(rows: Rows, at: _At, gap_S: np.ndarray, most: float) -> Scores:
    points, error, spent = FIRST_NODES, np.inf, 0.0
    a, b = rows.clean.stream[0], rows.corrupted.stream[0]
    # a point is a pass forward and one back; of some rows and of all they are as many forwards
    while points <= MOST_NODES and spent + 2 * points <= most:
        spent += 2 * points
        x_P, weight_P = np.polynomial.legendre.leggauss(points)
        nodes, edges = 0.0, None
        for x, weight in zip((x_P + 1) / 2, weight_P / 2, strict=True):
            of_nodes, of_edges = at(b + float(x) * (a - b))
            nodes = nodes + weight * of_nodes
            if of_edges is not None:
                edges = weight * of_edges + (0.0 if edges is None else edges)
        assert isinstance(nodes, np.ndarray), "there is at least one point"
        error = float(np.abs(nodes[0] - gap_S).sum() / max(np.abs(gap_S).sum(), 1e-300))
        if error <= COMPLETE:
            return Scores(nodes, edges, points, error)
        points *= 2
    if points <= MOST_NODES:
        so_far = f"incomplete by {error:.1%} at {points // 2} points" if spent else "not begun"
        raise ValueError(
            f"budget: got {most:.0f} forwards left for integrated gradients, allowed >= "
            f"{spent + 2 * points:.0f} ({so_far}, allowed {COMPLETE:.0%} of m(B) - m(A))"
        )
    raise ValueError(
        f"method: got 'ig', incomplete by {error:.1%} of m(B) - m(A) at {points // 2} points, "
        f"allowed {COMPLETE:.0%}; exact effects remain"
    )


@dataclass(frozen=True)
class _Tape:
    """Tensors of one run whose gradients are wanted.

    Attributes:
        state: embedding, heads and MLPs; stream before each block.
        projected: layer -> outputs of its projections.
        read: what MLPs and logits read.
    """

    state: State
    projected: list[list[torch.Tensor]]
    read: list[torch.Tensor]


def _scores_at(
    experiment: Experiment, rows: Rows, moved_WSTD: torch.Tensor | None, x_STD: torch.Tensor
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores of nodes [W, S]; of edges [W, R, S] where it is known what moves along them."""
    tape = _run(experiment, rows, x_STD)
    with torch.enable_grad():
        m_S = rows.metric(experiment.anatomy, tape.read[-1][None])[0]
    experiment.surgery.work += experiment.anatomy.graph.layers * len(x_STD)  # the way back
    wanted = [tape.state.stream[0], *tape.state.heads, *tape.state.mlps]
    more = [*(y for layer in tape.projected for y in layer), *tape.read]
    if moved_WSTD is None:
        more = []
    grads = list(torch.autograd.grad(m_S.sum(), [*wanted, *more]))
    nodes = _nodes(rows, grads[: len(wanted)], experiment.anatomy)
    if moved_WSTD is None:
        return nodes, None
    return nodes, _edges(experiment.anatomy, moved_WSTD, tape, grads[len(wanted) :])


def _run(experiment: Experiment, rows: Rows, x_STD: torch.Tensor) -> _Tape:
    """Runs the model from its embedding, with the graph of autograd."""
    anatomy, graph = experiment.anatomy, experiment.anatomy.graph
    tape = _Tape(State([], [], []), [[] for _ in range(graph.layers)], [])
    x = x_STD.detach().clone().requires_grad_()

    def kept(where: list[torch.Tensor]) -> Edit:
        def edit(y: torch.Tensor) -> torch.Tensor:
            y = y.clone()  # a tensor of its own: gradients of others do not reach it
            where.append(y)
            return y

        return edit

    def on_output(edit: Edit, _module: nn.Module, _args: object, y: torch.Tensor) -> torch.Tensor:
        return edit(y)

    def on_input(edit: Edit, _module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (edit(args[0]),)

    with experiment.surgery.hooked(x.shape[1]) as handles, torch.enable_grad():
        for layer in range(graph.layers):
            handles.append(on_heads(anatomy, layer, kept(tape.state.heads)))
            for projection in anatomy.projections(layer):
                hook = partial(on_output, kept(tape.projected[layer]))
                handles.append(projection.module.register_forward_hook(hook))
            if graph.mlps:
                handles.append(on_mlp(anatomy, layer, kept(tape.state.mlps), x.shape[1]))
                pre = partial(on_input, kept(tape.read))
                handles.append(anatomy.mlp_norm(layer).register_forward_pre_hook(pre))
        tape.state.stream.extend(y for _, y in experiment.surgery.blocks_from(x, 0))
    with torch.enable_grad():
        tape.read.append(tape.state.stream[-1].clone())
    return tape


def _nodes(rows: Rows, grads: list[torch.Tensor], anatomy: Anatomy) -> np.ndarray:
    """(B - A) . gradient of each writer, [W, S]."""
    a, b, layers = rows.clean, rows.corrupted, anatomy.graph.layers
    found = [((b.stream[0] - a.stream[0]) * grads[0]).flatten(1).sum(1)[None]]
    for layer in range(layers):
        moved = (b.heads[layer] - a.heads[layer]) * grads[1 + layer]
        found.append(moved.sum((1, 3)).T)
        if a.mlps:
            moved = (b.mlps[layer] - a.mlps[layer]) * grads[1 + layers + layer]
            found.append(moved.flatten(1).sum(1)[None])
    return torch.cat(found).double().cpu().numpy()


def _edges(
    anatomy: Anatomy, moved_WSTD: torch.Tensor, tape: _Tape, grads: list[torch.Tensor]
) -> np.ndarray:
    """(u_B - u_A) . gradient of each reader, [W, R, S]; zero where there is no edge."""
    graph, left = anatomy.graph, list(grads)
    of_projected = [[left.pop(0) for _ in layer] for layer in tape.projected]
    readers_RSTD: list[torch.Tensor] = []  # those that see the same writers
    for layer in range(graph.layers):
        projections = anatomy.projections(layer)
        x = tape.state.stream[layer].detach()
        norm = anatomy.attention_norm(layer)
        readers_RSTD.append(_through_norm(norm, x, projections, of_projected[layer]))
        if graph.mlps:
            readers_RSTD.append(left.pop(0).reshape(1, *x.shape))
    readers_RSTD.append(left.pop(0)[None])
    scores = np.zeros((len(graph.writers), len(graph.readers), moved_WSTD.shape[1]))
    first = 0
    for g_RSTD in readers_RSTD:
        seen = graph.written_before(graph.readers[first])
        among = slice(first, first + len(g_RSTD))
        scores[:seen, among] = _dots(moved_WSTD[:seen], g_RSTD).double().cpu().numpy()
        first = among.stop
    return scores


def _dots(x_WSTD: torch.Tensor, y_RSTD: torch.Tensor) -> torch.Tensor:
    """Of every x with every y, sequence by sequence: [W, R, S]."""
    x_SWN, y_SRN = (z.flatten(2).transpose(0, 1) for z in (x_WSTD, y_RSTD))
    return (x_SWN @ y_SRN.mT).permute(1, 2, 0)


def _through_norm(
    norm: nn.Module, x_STD: torch.Tensor, projections: list[Projection], grads: list[torch.Tensor]
) -> torch.Tensor:
    """Gradients of all q, then all k, then all v at the stream, [R, S, T, D]."""
    by_role: dict[str, torch.Tensor] = {}
    for projection, grad in zip(projections, grads, strict=True):
        for role, g in projection.views(grad).items():
            by_role[role] = torch.einsum("sthk,ihk->hsti", g, projection.weight[role])
    g_RSTD = torch.cat([by_role[role] for role in "qkv"])
    with torch.enable_grad():
        # a norm acts on every row alone: the rows of all readers go through it at once
        wide = x_STD.expand(g_RSTD.shape).clone().requires_grad_()
        (back,) = torch.autograd.grad(norm(wide), wide, g_RSTD)
    return back
