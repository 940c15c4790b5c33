"""Effects of edges: all by EAP-IG, the largest exactly, and what circuits of few edges can do.

Shape suffixes: C sets, D draws, E edges, K sizes, S sequences, H of them held out, F the first of
these, W writers, R readers, M components with the embedding and the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scaleinv_ray.circuitry.effects.estimators import Scores
from scaleinv_ray.circuitry.effects.interventions import Experiment, edge_values
from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.circuitry.surgery.components import Component, Graph
from scaleinv_ray.invariants.circuits import FRACTIONS
from scaleinv_ray.records.effects import held_out

EXACT = 12
"""Edges, the largest by the estimator, whose effect is measured exactly."""
_FEW = 8
"""Sequences of random edge sets."""
RUNS = EXACT + len(FRACTIONS) + 4.0
"""Forwards at most of the exact ones, of the curve of faithfulness, and of its ends."""


@dataclass(frozen=True)
class Faithfulness:
    """What circuits of few edges do, all others carrying B.

    Attributes:
        kept_K: shares of edges kept.
        alone_KH: m of the first edges of the ranking kept alone.
        random_DKF: m of random edge sets of the same sizes.
    """

    kept_K: np.ndarray
    alone_KH: np.ndarray
    random_DKF: np.ndarray


def with_edges(
    experiment: Experiment, found: Effects, scores: Scores, *, budget: float | None, draws: int,
    seed: int,
) -> Effects:  # fmt: skip
    """Effects with those of edges.

    Args:
        experiment: by resampling.
        found: of components.
        scores: of all edges.
        budget: forwards in all; what it leaves goes to the random sets, None is enough for them.
        draws: random edge sets of each size.
        seed: of the draws.
    """
    graph = experiment.anatomy.graph
    assert scores.edges_WRS is not None, "asked for"
    where_E2 = np.argwhere(graph.edges_WR)
    score_ES = scores.edges_WRS[where_E2[:, 0], where_E2[:, 1]]
    order = np.argsort(-np.abs(score_ES[:, ::2].mean(axis=1)), kind="stable")
    top = order[:EXACT]
    masks_CWR = np.zeros((len(top), *graph.edges_WR.shape), dtype=bool)
    masks_CWR[(np.arange(len(top)), *where_E2[top].T)] = True
    parts = [edge_values(experiment.surgery, rows, masks_CWR) for rows in experiment.batches]
    left = np.inf
    if budget is not None:
        left = budget - (RUNS - EXACT) - experiment.surgery.forwards(experiment.sequences)
    sets = draws * len(FRACTIONS) / experiment.sequences
    few = int(min(_FEW, left / sets)) if draws else 0
    curve = faithfulness(
        experiment, where_E2[order], draws=draws if few > 0 else 0, few=few,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return replace(
        found,
        edges=tuple(graph.edge_name(*where_E2[e]) for e in top),
        edge_ES=np.concatenate(parts, axis=1) - found.clean_S,
        edge_estimate_ES=score_ES[top],
        num_edges=len(where_E2),
        scored=tuple(graph.edge_name(*where_E2[e]) for e in order),
        score_E=score_ES[order].mean(axis=1),
        kept_K=curve.kept_K,
        alone_KH=curve.alone_KH,
        random_alone_DKF=curve.random_DKF,
        between_MMS=between_components(graph, scores.edges_WRS),
    )


def faithfulness(
    experiment: Experiment, ranked_E2: np.ndarray, *, draws: int, few: int,
    rng: np.random.Generator,
) -> Faithfulness:  # fmt: skip
    """F of circuits that keep the first edges of a ranking, all others from B.

    Args:
        experiment: by resampling; sequences held out from rankings are read.
        ranked_E2: indices of writer and reader, best first.
        draws: random orders of the edges, whose first ones are kept instead.
        few: sequences, at most, on which they are run.
        rng: draws them.

    Returns:
        The curve; an empty one where A and B are answered alike, so that there is nothing to keep.
    """
    held = replace(experiment, pairs=experiment.pairs.some(held_out(experiment.sequences)))
    count = len(ranked_E2)
    sizes = sorted({max(1, round(f * count)) for f in FRACTIONS})
    alone_KH = _alone(held, ranked_E2, sizes)
    some = replace(held, pairs=held.pairs.some(slice(0, max(few, 1))))
    drawn = [_alone(some, ranked_E2[rng.permutation(count)], sizes[:-1]) for _ in range(draws)]
    # all edges kept are the clean run: nothing is drawn there
    clean_F = some.values(some.anatomy.graph.masks([[]]))
    random_DKF = np.array([[*alone_KF, *clean_F] for alone_KF in drawn])
    return Faithfulness(
        np.array(sizes) / count, alone_KH, random_DKF.reshape(draws, len(sizes), some.sequences)
    )


def _alone(held: Experiment, ranked_E2: np.ndarray, sizes: list[int]) -> np.ndarray:
    """M of the first edges of an order, all others carrying B, [K, S]."""
    graph = held.anatomy.graph
    masks_KWR = np.repeat(graph.edges_WR[None], len(sizes), axis=0)
    for n, size in enumerate(sizes):
        masks_KWR[n, ranked_E2[:size, 0], ranked_E2[:size, 1]] = False
    parts = [edge_values(held.surgery, rows, masks_KWR) for rows in held.batches]
    return np.concatenate(parts, axis=1)


def between_components(graph: Graph, edges_WRS: np.ndarray) -> np.ndarray:
    """Effects between components [M, M, S]: |q|, |k| and |v| of a head as they add up.

    A key or value that several query heads share is shared out among them evenly. The sign of an
    edge is that of its mean over sequences, so that noise of a sequence does not become size.

    Args:
        graph: of the model.
        edges_WRS: of each writer on each reader.
    """
    number = {writer: n for n, writer in enumerate(graph.writers)}
    count, shared = len(graph.writers) + 1, graph.heads // graph.groups
    found_MMS = np.zeros((count, count, edges_WRS.shape[2]))
    towards_WRS = edges_WRS * np.sign(edges_WRS.mean(axis=2, keepdims=True))
    for r, reader in enumerate(graph.readers):
        if reader.role == "logits":
            ends = [count - 1]
        elif reader.role == "m":
            ends = [number[Component("mlp", reader.layer)]]
        else:
            many = 1 if reader.role == "q" else shared
            heads = range(reader.head * many, reader.head * many + many)
            ends = [number[Component("head", reader.layer, head)] for head in heads]
        for end in ends:
            seen = graph.written_before(reader)
            found_MMS[:seen, end] += towards_WRS[:seen, r] / len(ends)
    return found_MMS
