"""Whether the heads of two models are the same ones: matched by signature, against untrained pairs.

Shape suffixes: A, B heads of two models, F features of a signature, M matched pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate

NEAR = 0.05
"""A pair counts as matched where only this share of the pairs of untrained models is nearer: the
trivial value of the matched fraction."""


@dataclass(frozen=True)
class Match:
    """Heads of two models, the fewer ones all matched.

    Attributes:
        pairs_M2: indices of head and head, nearest first.
        distance_M: of each, over the mean distance of all pairs of the two models.
        cost_ratio: mean of them, what a matching at random has being 1; trivial is what untrained
            pairs have, not 1.
        null_ratios: of the untrained pairs.
        fraction: share of the pairs nearer than all but `NEAR` of those of untrained models.
    """

    pairs_M2: np.ndarray
    distance_M: np.ndarray
    cost_ratio: float
    null_ratios: tuple[float, ...]
    fraction: Estimate

    @property
    def p(self) -> float:
        """Share of the pairs of models, this one among them, that match at least as well."""
        better = sum(ratio <= self.cost_ratio for ratio in self.null_ratios)
        return (1 + better) / (1 + len(self.null_ratios))


def match(
    a_AF: np.ndarray, b_BF: np.ndarray, nulls: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Match:
    """Matches heads one to one at the least sum of distances, and judges it by untrained pairs.

    Features are brought to variance 1 over the heads of both models; distances are Euclidean, over
    the mean one of the two models, since trained heads differ more than untrained ones. Shuffled
    columns are no null: features of a head hang together in untrained models too, and two of those
    match better than shuffled ones nearly always.

    Args:
        a_AF: a signature a row, without depth.
        b_BF: of the other model.
        nulls: the same of pairs of untrained models of the same two sizes; 19 are needed for a p of
            .05, and no model should be in two of them: pairs that share one are no replicates.

    Returns:
        The matching. Fractions and ratios of other pairs of sizes are not comparable: where the
        models are of one size every head has to find a partner, else the fewer ones have a choice.

    Raises:
        ValueError: for other features or sizes in the nulls, or without nulls.
        Refused: with fewer than two heads in a model, or where all heads are alike.
    """
    if not nulls:
        raise ValueError("nulls: got none, allowed pairs of untrained models of the same sizes")
    for null in nulls:
        if (got := tuple(x.shape for x in null)) != (a_AF.shape, b_BF.shape):
            raise ValueError(f"nulls: got {got}, allowed {a_AF.shape} and {b_BF.shape}")
    pairs_M2, distance_M = _matched(a_AF, b_BF)
    by_chance = [_matched(*null)[1] for null in nulls]
    near = float(np.quantile(np.concatenate(by_chance), NEAR))
    order_M = np.argsort(distance_M, kind="stable")
    fraction = Estimate(float((distance_M < near).mean()), None, len(distance_M), "none")
    return Match(
        pairs_M2[order_M], distance_M[order_M], float(distance_M.mean()),
        tuple(float(d.mean()) for d in by_chance), fraction,
    )  # fmt: skip


def _matched(a_AF: np.ndarray, b_BF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if min(len(a_AF), len(b_BF)) < 2:
        raise Refused(f"heads: got {len(a_AF)} and {len(b_BF)}, allowed >= 2 in each model")
    sd_F = np.concatenate([a_AF, b_BF]).std(axis=0)
    used_F = sd_F > 0
    distance_AB = cdist(a_AF[:, used_F] / sd_F[used_F], b_BF[:, used_F] / sd_F[used_F])
    mean = float(distance_AB.mean())
    if mean == 0:
        raise Refused("signatures: got heads that are all alike")
    a_M, b_M = linear_sum_assignment(distance_AB)
    return np.stack([a_M, b_M], axis=1), distance_AB[a_M, b_M] / mean
