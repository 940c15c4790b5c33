"""How many kinds of progress there are: clusters of directions against surrogates with fewer.

The seeds of a size share what its intervals are like, so that any split of a tight kind is found
again in held-out seeds: replication alone counts too many. Surrogates have random effects for the
cells (size and interval) besides those of the seeds.

Shape suffixes: B surrogates, E events, D dimensions, K kinds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scaleinv_ray.conclude.training.progress.clusters import k_means, prediction_strength
from scaleinv_ray.conclude.training.progress.surrogates import surrogates, unit

NUM_SURROGATES = 19
MOST_KINDS = 6
LEAST_STRENGTH = 0.8
"""Tibshirani & Walther (2005), section 3: of data with clusters .8 or .9 and more."""
LEAST_CELLS = 6


class Kinds(NamedTuple):
    """Kinds of progress.

    Attributes:
        label_E: kind of each event, 0 the one with most of them.
        strength: prediction strength over held-out seeds; None of a single kind.
        p: of a single kind, the least being 1 / 20.
    """

    label_E: np.ndarray
    strength: float | None
    p: float

    @property
    def number(self) -> int:
        """How many."""
        return int(self.label_E.max()) + 1


def number_of_kinds(
    x_ED: np.ndarray, seed_E: np.ndarray, cell_E: np.ndarray, *, rng: np.random.Generator
) -> Kinds:
    """Clusters the directions of events, and says how many kinds can be claimed.

    Events are scaled to norm 1 and projected on as many principal components as kinds can span.
    For j = 1, 2, .. the k-means sums of squares W_k are compared with those of 19 surrogates that
    have j kinds: the same centres, and round them Gaussian effects of cells and of seeds with the
    covariances of the residuals. There are two such sets, with the effects of the directions and
    with those of the changes as they are: on a sphere effects are not Gaussian where a few of them
    are large (without the second set 17 % of such data without kinds had two). The statistic is
    the least over k > j of ln (W_k / W_j), standardised over data and surrogates (three kinds at
    equal angles are no two). While the data beat all surrogates of both (level .05) j goes on. Of
    the numbers reached the largest is claimed whose prediction strength over held-out seeds is .8
    or more.

    Args:
        x_ED: changes in units of the scatter of seeds.
        seed_E: seed of each event's run.
        cell_E: size and interval of each event, as an integer.

    Returns:
        Kinds.

    Raises:
        ValueError: for one seed alone, fewer than six cells, or an event that does not move.
    """
    _check(x_ED, seed_E, cell_E)
    # surrogates lie in the span of the events
    x_ED = x_ED @ np.linalg.svd(x_ED, full_matrices=False)[2].T
    most = min(MOST_KINDS, len(np.unique(cell_E)) - 1)
    score_ED = _components(unit(x_ED)[None], most - 1)[0]
    found = [k_means(score_ED[None], k, rng=rng, restarts=32) for k in range(1, most + 1)]
    within_K = np.array([partition.within_B[0] for partition in found])
    p, reached = 1.0, 1
    for j in range(1, most):
        label_E, worst = found[j - 1].label_BE[0], 0.0
        for events_ED in (unit(x_ED), x_ED):
            drawn_BED = surrogates(events_ED, label_E, cell_E, count=NUM_SURROGATES, rng=rng)
            null_BK = _within(_components(drawn_BED, most - 1), most, rng)
            worst = max(worst, _p_of(within_K, null_BK, j))
        p = worst if j == 1 else p
        if worst > 1 / (1 + NUM_SURROGATES):
            break
        reached = j + 1
    for k in range(reached, 1, -1):
        strength = prediction_strength(score_ED, k, seed_E, rng=rng)
        if strength >= LEAST_STRENGTH:
            return Kinds(_by_size(found[k - 1].label_BE[0]), strength, p)
    return Kinds(np.zeros(len(x_ED), dtype=np.int64), None, p)


def _check(x_ED: np.ndarray, seed_E: np.ndarray, cell_E: np.ndarray) -> None:
    if len(np.unique(seed_E)) < 2:
        raise ValueError("seeds: got 1, allowed 2 or more: kinds are to be found again in others")
    if (num_cells := len(np.unique(cell_E))) < LEAST_CELLS:
        raise ValueError(
            f"sizes x intervals: got {num_cells}, allowed {LEAST_CELLS} or more: they are the "
            "replicates of a kind"
        )
    if not np.isfinite(x_ED).all() or not (x_ED != 0).any(axis=1).all():
        raise ValueError("changes: got an event that is not finite or does not move at all")


def _by_size(label_E: np.ndarray) -> np.ndarray:
    """The same kinds, 0 the largest."""
    order = np.argsort(-np.bincount(label_E), kind="stable")
    return np.argsort(order)[label_E]


def _components(x_BED: np.ndarray, count: int) -> np.ndarray:
    """Scores on the leading principal components of each data set."""
    centred_BED = x_BED - x_BED.mean(1, keepdims=True)
    _, vectors_BDD = np.linalg.eigh(centred_BED.swapaxes(1, 2) @ centred_BED)
    leading: np.ndarray = centred_BED @ vectors_BDD[..., -count:]
    return leading


def _within(x_BED: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Sums of squares within 1..most clusters, [B, K]."""
    return np.stack([k_means(x_BED, k, rng=rng).within_B for k in range(1, most + 1)], axis=1)


def _p_of(within_K: np.ndarray, null_BK: np.ndarray, j: int) -> float:
    """P of j kinds: how many surrogates fall as far with more than j clusters."""
    all_BK = np.log(np.maximum(np.vstack([within_K, null_BK]), 1e-300))
    fall_BK = all_BK[:, j:] - all_BK[:, j - 1 : j]
    scale_K = np.maximum(fall_BK.std(axis=0), 1e-12)
    least_B = ((fall_BK - fall_BK.mean(axis=0)) / scale_K).min(axis=1)
    return float((1 + (least_B[1:] <= least_B[0]).sum()) / (1 + NUM_SURROGATES))
