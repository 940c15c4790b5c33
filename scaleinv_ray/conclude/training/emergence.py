"""Do runs in which an invariant changes early learn a capability early? Statistics over runs.

Curves over the checkpoints of one run all change with training, and correlate whatever they are
(false positives .57 to 1 at .05). Runs are the replicates here, compared within their size.

Shape suffixes: R runs, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

LEAST_RUNS = 5
ALPHA = 0.05
MOST_EXACT = 200_000
NUM_DRAWS = 9999
LEVEL = 0.90


@dataclass(frozen=True)
class Association:
    """Onsets associated over runs within sizes.

    Attributes:
        correlation: within sizes, None where one of the two does not vary.
        p: one-sided (early goes with early), None where refused.
        least_p: the smallest that the permutations allow, 1 / prod m_s!.
        reason: why refused, else empty.
    """

    correlation: float | None
    p: float | None
    least_p: float
    reason: str


@dataclass(frozen=True)
class Lead:
    """How long before the capability the invariant changes, in ln tokens.

    Attributes:
        lead: mean over runs of t_C - t_I.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    lead: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOutOnset:
    """Mean onset at the largest size, predicted from the runs of the others.

    Attributes:
        predicted: from t_I, by a line through the runs of the other sizes.
        low: lower end of the 90 % interval of a mean over as many runs.
        high: upper end.
        observed: mean over its runs.
        naive_last: mean at the next smaller size.
        naive_mean: mean over all other runs.
    """

    predicted: float
    low: float
    high: float
    observed: float
    naive_last: float
    naive_mean: float


def association(
    size_R: Sequence[int],
    onset_R: Sequence[float],
    capability_R: Sequence[float],
    *,
    rng: np.random.Generator,
    given_R: Sequence[float] | None = None,
) -> Association:
    """Whether runs with an early onset of the invariant have one of the capability, within sizes.

    The statistic is the sum over sizes of the products of both onsets, centred within sizes; its
    distribution that over all permutations of the runs within their sizes, exactly (where there
    are more than 200,000, 9,999 draws). With `given`, both are replaced by the residuals of
    their regression on it within sizes (Kennedy 1995); p is then approximate.

    Args:
        size_R: size of each run.
        onset_R: t_I of each run.
        capability_R: t_C of each run.
        given_R: what is to be partialled out, as the onset of the loss.

    Returns:
        The association; refused with fewer than five runs and where the least p exceeds .05.

    Raises:
        ValueError: for lengths that differ.

    >>> sizes = [1, 1, 1, 2, 2, 2]
    >>> found = association(sizes, [1, 2, 3, 4, 5, 6], [1, 2, 3, 1, 2, 3],
    ...                     rng=np.random.default_rng(0))
    >>> round(found.correlation, 9), round(found.p * 36)
    (1.0, 1)
    """
    if not len(size_R) == len(onset_R) == len(capability_R):
        raise ValueError(f"size_R: got {len(size_R)} runs, allowed {len(onset_R)}")
    size = np.asarray(size_R)
    counts = np.unique(size, return_counts=True)[1]
    least_p = 1.0 / math.prod(math.factorial(int(m)) for m in counts)
    if len(size) < LEAST_RUNS:
        return Association(None, None, least_p, f"{len(size)} runs, needs {LEAST_RUNS}")
    if least_p > ALPHA:
        return Association(None, None, least_p, f"least p is {least_p:.2g}, needs <= {ALPHA}")
    a_R, b_R = _centred(size, np.asarray(onset_R)), _centred(size, np.asarray(capability_R))
    if given_R is not None:
        g_R = _centred(size, np.asarray(given_R))
        a_R, b_R = _without(a_R, g_R), _without(b_R, g_R)
    scale = float(np.linalg.norm(a_R) * np.linalg.norm(b_R))
    if scale <= 1e-12:
        return Association(None, None, least_p, "an onset does not vary within sizes")
    null_B = _permuted(size, a_R, b_R, rng)
    seen = float(a_R @ b_R)
    # rounding: the permutation that was observed is among them
    as_large = int((null_B >= seen - 1e-9 * scale).sum())
    p = as_large / len(null_B) if len(null_B) != NUM_DRAWS else (1 + as_large) / (1 + NUM_DRAWS)
    return Association(seen / scale, p, least_p, "")


def reached_level(least_p: float) -> float:
    """The chance of p <= .05 where nothing is associated: permutations are counted in whole ones.

    Args:
        least_p: of `association`, 1 / prod m_s!.

    Returns:
        The largest multiple of it up to .05 (of one draw, where permutations are drawn).

    >>> round(36 * reached_level(1 / 36), 9)
    1.0
    """
    orders = round(1 / least_p)
    count = orders if orders <= MOST_EXACT else NUM_DRAWS + 1
    return math.floor(ALPHA * count + 1e-9) / count


def lead_of(
    size_R: Sequence[int],
    onset_RB: Sequence[np.ndarray],
    capability_RB: Sequence[np.ndarray],
    *,
    onset_R: Sequence[float],
    capability_R: Sequence[float],
    rng: np.random.Generator,
) -> Lead:
    """Mean lead t_C - t_I with a paired bootstrap of the runs within sizes.

    A draw takes runs with replacement within each size, and of each run a draw of both onsets. The
    interval of the resampled means is widened by sqrt(m / (m - 1)) t / z for m runs (five runs
    resampled know too little of their own spread).

    Args:
        size_R: size of each run.
        onset_RB: draws of t_I of each run.
        capability_RB: draws of t_C of each run.
        onset_R: t_I of each run.
        capability_R: t_C of each run.

    Returns:
        The lead with its 95 % interval.

    Raises:
        ValueError: for fewer than two runs.
    """
    num_runs = len(onset_R)
    if num_runs < 2:
        raise ValueError(f"runs: got {num_runs}, allowed 2 or more")
    size = np.asarray(size_R)
    lead = float(np.mean(np.asarray(capability_R) - np.asarray(onset_R)))
    total_B = np.zeros(NUM_DRAWS)
    alone = bool((np.unique(size, return_counts=True)[1] < 2).any())
    for runs in [np.arange(num_runs)] if alone else _strata(size):
        picked = rng.choice(runs, size=(NUM_DRAWS, len(runs)))
        for column in picked.T:
            for run in runs.tolist():
                mine = np.flatnonzero(column == run)
                late = rng.choice(capability_RB[run], size=len(mine))
                total_B[mine] += late - rng.choice(onset_RB[run], size=len(mine))
    mean_B = total_B / num_runs
    free = num_runs - (1 if alone else len(_strata(size)))
    wider = math.sqrt(num_runs / free) * float(stats.t.ppf(0.975, free) / stats.norm.ppf(0.975))
    low, high = np.quantile(mean_B, [0.025, 0.975]).tolist()
    centre = float(mean_B.mean())
    return Lead(lead, lead - wider * (centre - low), lead + wider * (high - centre))


def held_out_onset(
    size_R: Sequence[int], onset_R: Sequence[float], capability_R: Sequence[float]
) -> HeldOutOnset | None:
    """Predicts t_C of the largest size from t_I, by the runs of the other sizes.

    Args:
        size_R: size of each run.
        onset_R: t_I of each run.
        capability_R: t_C of each run.

    Returns:
        The prediction; None with fewer than three sizes or four runs to fit, or where t_I does not
        vary over these.
    """
    size, x_R, y_R = np.asarray(size_R), np.asarray(onset_R), np.asarray(capability_R)
    largest = size == size.max()
    rest_R, x, y = size[~largest], x_R[~largest], y_R[~largest]
    if len(set(rest_R.tolist())) < 2 or len(x) < 4 or np.ptp(x) == 0:
        return None
    slope, level = np.polyfit(x, y, 1).tolist()
    at = float(x_R[largest].mean())
    free = len(x) - 2
    variance = float(((y - level - slope * x) ** 2).sum()) / free
    leverage = (
        1 / int(largest.sum()) + 1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    )
    half = float(stats.t.ppf(0.5 + LEVEL / 2, free)) * math.sqrt(variance * float(leverage))
    predicted = level + slope * at
    return HeldOutOnset(
        predicted=predicted,
        low=predicted - half,
        high=predicted + half,
        observed=float(y_R[largest].mean()),
        naive_last=float(y[rest_R == rest_R.max()].mean()),
        naive_mean=float(y.mean()),
    )


def _strata(size_R: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(size_R == s) for s in np.unique(size_R)]


def _centred(size_R: np.ndarray, t_R: np.ndarray) -> np.ndarray:
    out_R = t_R.astype(np.float64)
    for runs in _strata(size_R):
        out_R[runs] -= out_R[runs].mean()
    return out_R


def _without(t_R: np.ndarray, given_R: np.ndarray) -> np.ndarray:
    square = float(given_R @ given_R)
    return t_R - given_R * (float(given_R @ t_R) / square) if square > 0 else t_R


def _permuted(
    size_R: np.ndarray, a_R: np.ndarray, b_R: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The statistic under all permutations within sizes, or under draws of them."""
    strata = _strata(size_R)
    if math.prod(math.factorial(len(runs)) for runs in strata) > MOST_EXACT:
        total_B = np.zeros(NUM_DRAWS)
        for runs in strata:
            shuffled = rng.permuted(np.tile(b_R[runs], (NUM_DRAWS, 1)), axis=1)
            total_B += shuffled @ a_R[runs]
        return total_B
    sums = np.zeros(1)
    for runs in strata:
        orders = np.array(list(permutations(range(len(runs)))))
        sums = np.add.outer(sums, b_R[runs][orders] @ a_R[runs]).ravel()
    return sums
