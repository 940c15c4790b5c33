"""Effects of edges: all by EAP-IG, the largest exactly, and what circuits of few edges can do.

Shape suffixes: C sets, D draws, E edges, K sizes, S sequences, W writers, R readers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scaleinv_ray.circuitry.effects.estimators import estimate
from scaleinv_ray.circuitry.effects.interventions import Experiment, edge_values
from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.invariants.circuits import FRACTIONS

EXACT = 12
"""Edges, the largest by the estimator, whose effect is measured exactly."""
_FEW = 8
"""Sequences of random edge sets."""
_RUNS = len(FRACTIONS) + 4.0
"""Forwards of the curve of faithfulness, on half of the sequences, and of its ends."""


@dataclass(frozen=True)
class Faithfulness:
    """What circuits of few edges do, all others carrying B.

    Attributes:
        kept_K: shares of edges kept.
        faithful_K: (m(kept) - m(B)) / (m(A) - m(B)) of the first edges of the ranking.
        random_DK: of random edge sets of the same sizes, a draw a row.
    """

    kept_K: np.ndarray
    faithful_K: np.ndarray
    random_DK: np.ndarray


def with_edges(
    experiment: Experiment, found: Effects, *, budget: float | None, draws: int, seed: int
) -> Effects:
    """Effects with those of edges.

    Args:
        experiment: by resampling.
        found: of components.
        budget: forwards in all; what it leaves goes to the random sets, None is enough for them.
        draws: random edge sets of each size.
        seed: of the draws.

    Raises:
        ValueError: as `estimators.estimate` of edges.
    """
    graph = experiment.anatomy.graph
    scores = estimate(experiment, method="ig", edges=True)
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
        left = budget - _RUNS - experiment.surgery.forwards(experiment.sequences)
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
        faithful_K=curve.faithful_K,
        random_DK=curve.random_DK,
    )


def faithfulness(
    experiment: Experiment, ranked_E2: np.ndarray, *, draws: int, few: int,
    rng: np.random.Generator,
) -> Faithfulness:  # fmt: skip
    """F of circuits that keep the first edges of a ranking, all others from B.

    Args:
        experiment: by resampling; odd sequences are read where there are two or more.
        ranked_E2: indices of writer and reader, best first.
        draws: random orders of the edges, whose first ones are kept instead.
        few: sequences, at most, on which they are run.
        rng: draws them.

    Returns:
        The curve; an empty one where A and B are answered alike, so that there is nothing to keep.
    """
    held = _odd(experiment)
    count = len(ranked_E2)
    sizes = sorted({max(1, round(f * count)) for f in FRACTIONS})
    faithful_K = _kept(held, ranked_E2, sizes)
    if np.isnan(faithful_K).any():
        return Faithfulness(np.empty(0), np.empty(0), np.empty((0, 0)))
    some = replace(held, pairs=held.pairs.some(slice(0, max(few, 1))))
    drawn = [_kept(some, ranked_E2[rng.permutation(count)], sizes[:-1]) for _ in range(draws)]
    # all edges kept are the clean run: nothing is drawn there
    random_DK = np.array([[*row, 1.0] for row in drawn]).reshape(draws, len(sizes))
    return Faithfulness(np.array(sizes) / count, faithful_K, random_DK)


def _odd(experiment: Experiment) -> Experiment:
    if experiment.sequences < 2:
        return experiment
    return replace(experiment, pairs=experiment.pairs.some(slice(1, None, 2)))


def _kept(held: Experiment, ranked_E2: np.ndarray, sizes: list[int]) -> np.ndarray:
    """F of the first edges of an order; nan where A and B are answered alike."""
    graph = held.anatomy.graph
    masks_CWR = np.repeat(graph.edges_WR[None], len(sizes), axis=0)
    for n, size in enumerate(sizes):
        masks_CWR[n, ranked_E2[:size, 0], ranked_E2[:size, 1]] = False
    parts = [edge_values(held.surgery, rows, masks_CWR) for rows in held.batches]
    kept_CS = np.concatenate(parts, axis=1)
    none_CW = graph.masks([[]])
    clean, corrupted = (held.values(none_CW, denoise=end)[0].mean() for end in (False, True))
    gap = clean - corrupted
    if gap == 0:
        return np.full(len(sizes), np.nan)
    found: np.ndarray = (kept_CS.mean(axis=1) - corrupted) / gap
    return found
