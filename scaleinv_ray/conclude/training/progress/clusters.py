"""k-means of many data sets at once, and how well a partition predicts runs that it never saw.

Shape suffixes: B data sets, E events, D dimensions, R restarts, K clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_ROUNDS = 50
RESTARTS = 8


class Partition(NamedTuple):
    """The best partition found of each data set.

    Attributes:
        within_B: sum of squared distances to the centres.
        label_BE: cluster of every event.
    """

    within_B: np.ndarray
    label_BE: np.ndarray


def k_means(
    x_BED: np.ndarray, k: int, *, rng: np.random.Generator, restarts: int = RESTARTS
) -> Partition:
    """Lloyd's algorithm from k-means++ centres (Arthur & Vassilvitskii 2007), the best of restarts.

    Args:
        x_BED: data sets of as many events.
        k: clusters, at most as many as events.

    Returns:
        Partition.

    >>> x_BED = np.array([[[0.0], [0.1], [5.0], [5.1]]])
    >>> found = k_means(x_BED, 2, rng=np.random.default_rng(0))
    >>> round(float(found.within_B[0]), 9), len(set(found.label_BE[0, :2].tolist()))
    (0.01, 1)
    """
    num_sets, num_events, size = x_BED.shape
    centre_BRKD = _first_centres(x_BED, k, restarts, rng)
    label_BER = np.full((num_sets, num_events, restarts), -1)
    for _ in range(MAX_ROUNDS):
        flat_BCD = centre_BRKD.reshape(num_sets, restarts * k, size)
        product_BERK = (x_BED @ flat_BCD.swapaxes(1, 2)).reshape(num_sets, num_events, restarts, k)
        # squared distance less |x|^2, which all centres have in common
        distance_BERK = (centre_BRKD**2).sum(-1)[:, None] - 2.0 * product_BERK
        before, label_BER = label_BER, distance_BERK.argmin(-1)
        if (label_BER == before).all():
            break
        member_BERK = (label_BER[..., None] == np.arange(k)).astype(np.float64)
        sum_BCD = member_BERK.reshape(num_sets, num_events, -1).swapaxes(1, 2) @ x_BED
        count_BRK1 = member_BERK.sum(1)[..., None]
        mean_BRKD = sum_BCD.reshape(centre_BRKD.shape) / np.maximum(count_BRK1, 1.0)
        centre_BRKD = np.where(count_BRK1 > 0, mean_BRKD, centre_BRKD)
    within_BR = distance_BERK.min(-1).sum(1) + (x_BED**2).sum((1, 2))[:, None]
    best_B = within_BR.argmin(1)
    at = np.arange(num_sets)
    return Partition(np.maximum(within_BR[at, best_B], 0.0), label_BER[at, :, best_B])


def _first_centres(
    x_BED: np.ndarray, k: int, restarts: int, rng: np.random.Generator
) -> np.ndarray:
    """Events drawn one after the other, each ~ its squared distance to those drawn before it."""
    num_sets, num_events, size = x_BED.shape
    set_B1 = np.arange(num_sets)[:, None]
    centre_BRKD = np.empty((num_sets, restarts, k, size))
    centre_BRKD[:, :, 0] = x_BED[set_B1, rng.integers(num_events, size=(num_sets, restarts))]
    near_BRE = np.full((num_sets, restarts, num_events), np.inf)
    for j in range(1, k):
        last_BRD = centre_BRKD[:, :, j - 1]
        distance_BRE = (x_BED**2).sum(-1)[:, None] - 2.0 * last_BRD @ x_BED.swapaxes(1, 2)
        distance_BRE += (last_BRD**2).sum(-1)[..., None]
        near_BRE = np.minimum(near_BRE, np.maximum(distance_BRE, 0.0))
        sum_BRE = near_BRE.cumsum(-1)
        drawn_BR1 = rng.random((num_sets, restarts, 1)) * sum_BRE[..., -1:]
        event_BR = np.minimum((sum_BRE < drawn_BR1).sum(-1), num_events - 1)
        centre_BRKD[:, :, j] = x_BED[set_B1, event_BR]
    return centre_BRKD


def prediction_strength(
    x_ED: np.ndarray, k: int, fold_E: np.ndarray, *, rng: np.random.Generator
) -> float:
    """Prediction strength over held-out folds (Tibshirani & Walther 2005, equation 2.1).

    A fold is clustered alone, and the other folds alone; of each cluster of the fold the share of
    pairs counts that the centres of the others keep together. The least over clusters, the mean
    over folds.

    Args:
        fold_E: fold of each, as its seed.

    Returns:
        The strength, a fold with fewer events than clusters counting 0.

    >>> x_ED, fold_E = np.array([[0.0], [5.0], [0.1], [5.1]]), np.array([0, 0, 1, 1])
    >>> prediction_strength(x_ED, 2, fold_E, rng=np.random.default_rng(0))
    1.0
    """
    shares = []
    for fold in np.unique(fold_E):
        rest_ED, own_ED = x_ED[fold_E != fold], x_ED[fold_E == fold]
        if min(len(rest_ED), len(own_ED)) < k:
            shares.append(0.0)
            continue
        rest_E = k_means(rest_ED[None], k, rng=rng).label_BE[0]
        own_E = k_means(own_ED[None], k, rng=rng).label_BE[0]
        centre_KD = np.stack([rest_ED[rest_E == j].mean(0) for j in np.unique(rest_E)])
        given_E = ((own_ED[:, None] - centre_KD) ** 2).sum(-1).argmin(1)
        shares.append(min(map(_kept, (given_E[own_E == j] for j in np.unique(own_E)))))
    return float(np.mean(shares))


def _kept(given_E: np.ndarray) -> float:
    """Share of the pairs of a cluster that have one label."""
    size = len(given_E)
    if size < 2:
        return 1.0
    count_K = np.bincount(given_E)
    return float((count_K * (count_K - 1)).sum() / (size * (size - 1)))
