"""How well a part of the edges does what the model does, and whether the right ones are found.

Shape suffixes: K fractions of edges, E edges, H sequences that have not ranked them.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.circuits.spread import jackknifed

FRACTIONS: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of edges that are kept (MIB, 2504.13151)."""


class CircuitMetrics(NamedTuple):
    """Areas of the curve of faithfulness.

    Attributes:
        cpr: area under f(k); the larger, the more of the performance few edges recover.
        cmd: area between f(k) and 1; 0 of a circuit that does what the model does.
    """

    cpr: float
    cmd: float


def circuit_metrics(fraction_K: np.ndarray, faithfulness_K: np.ndarray) -> CircuitMetrics:
    """CPR and CMD as MIB defines them: trapezia over the share of edges that is kept.

    Args:
        fraction_K: ascending, of edges.
        faithfulness_K: f = (m(kept alone) - m(B)) / (m(A) - m(B)).

    Returns:
        Both areas.

    Raises:
        ValueError: where fractions do not ascend.

    >>> circuit_metrics(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    CircuitMetrics(cpr=1.0, cmd=0.0)
    """
    if len(fraction_K) < 2 or (np.diff(fraction_K) <= 0).any():
        raise ValueError(f"fractions: got {list(fraction_K)!r:.80}, allowed ascending ones")
    cpr = float(np.trapezoid(faithfulness_K, fraction_K))
    return CircuitMetrics(cpr, float(np.trapezoid(np.abs(1 - faithfulness_K), fraction_K)))


def faithfulness(alone_KH: np.ndarray, clean_H: np.ndarray, corrupted_H: np.ndarray) -> np.ndarray:
    """F = (m(kept alone) - m(B)) / (m(A) - m(B)), means over sequences before the ratio.

    Args:
        alone_KH: m of circuits, all other edges carrying B.
        clean_H: m(A).
        corrupted_H: m(B).

    Returns:
        f [K].

    Raises:
        Refused: where m(A) - m(B) is less than two of its standard errors.

    >>> faithfulness(np.array([[1.0, 2.0]]), np.array([3.0, 3.0]), np.zeros(2)).tolist()
    [0.5]
    """
    gap_H = clean_H - corrupted_H
    stderr = gap_H.std(ddof=1) / np.sqrt(len(gap_H)) if len(gap_H) > 1 else np.inf
    if len(gap_H) < 2 or gap_H.mean() == 0 or abs(gap_H.mean()) < 2 * stderr:
        raise Refused(
            f"m(A) - m(B): got {gap_H.mean():.3g} +- {stderr:.2g}, allowed >= 2 errors (there is "
            "nothing for a circuit to keep)"
        )
    found: np.ndarray = (alone_KH.mean(axis=1) - corrupted_H.mean()) / gap_H.mean()
    return found


class Areas(NamedTuple):
    """CPR and CMD with errors.

    Attributes:
        cpr: as in `CircuitMetrics`.
        cmd: as in `CircuitMetrics`.
    """

    cpr: Estimate
    cmd: Estimate


def areas(
    fraction_K: np.ndarray, alone_KH: np.ndarray, clean_H: np.ndarray, corrupted_H: np.ndarray
) -> Areas:
    """`circuit_metrics` of f, from f(0) = 0 on; errors by delete-one jackknife over sequences.

    Args:
        fraction_K: ascending, of edges.
        alone_KH: m of circuits, all other edges carrying B; sequences that have not ranked them.
        clean_H: m(A).
        corrupted_H: m(B).

    Returns:
        Both areas; no error with two sequences.

    Raises:
        ValueError: where fractions do not ascend.
        Refused: as `faithfulness`.
    """
    faithfulness(alone_KH, clean_H, corrupted_H)
    held = np.vstack([alone_KH, clean_H, corrupted_H])

    def of(name: str, x: np.ndarray) -> float:
        mean = x.mean(axis=1)
        f_K = (mean[:-2] - mean[-1]) / (mean[-2] - mean[-1])
        return float(
            getattr(circuit_metrics(np.append(0.0, fraction_K), np.append(0.0, f_K)), name)
        )

    return Areas(*(jackknifed(partial(of, name), held) for name in Areas._fields))


def random_areas(
    fraction_K: np.ndarray, alone_DKF: np.ndarray, clean_H: np.ndarray, corrupted_H: np.ndarray
) -> CircuitMetrics:
    """What random edge sets of the same sizes have: medians over draws, the trivial values.

    Args:
        fraction_K: ascending, of edges.
        alone_DKF: m of random sets on the first of the sequences, a draw each.
        clean_H: m(A).
        corrupted_H: m(B).

    Returns:
        Both areas.

    Raises:
        Refused: without draws, and as `faithfulness`.
    """
    if not len(alone_DKF):
        raise Refused("random edges: got no draws")
    first = slice(0, alone_DKF.shape[2])
    found_D2 = [
        circuit_metrics(np.append(0.0, fraction_K), np.append(0.0, f_K))
        for f_K in (faithfulness(x_KF, clean_H[first], corrupted_H[first]) for x_KF in alone_DKF)
    ]
    return CircuitMetrics(*np.median(found_D2, axis=0).tolist())


def precision_at(score_E: np.ndarray, true_E: np.ndarray) -> float:
    """Share of true edges among as many of the largest |scores|; random: their share of all.

    Args:
        score_E: of each edge, of any sign.
        true_E: bool.

    Returns:
        Between 0 and 1.

    >>> precision_at(np.array([3.0, -2.0, 0.1]), np.array([True, True, False]))
    1.0
    """
    top = np.argsort(-np.abs(score_E), kind="stable")[: int(true_E.sum())]
    return float(true_E[top].mean())


def auroc(score_E: np.ndarray, true_E: np.ndarray) -> float:
    """Probability that a true edge has a larger |score| than another one; random: 1/2.

    Args:
        score_E: of each edge, of any sign.
        true_E: bool.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: where all edges are true, or none.
    """
    if true_E.all() or not true_E.any():
        raise ValueError("edges: got all or none of them true, allowed some of both")
    statistic = stats.mannwhitneyu(np.abs(score_E[true_E]), np.abs(score_E[~true_E])).statistic
    return float(statistic / (true_E.sum() * (~true_E).sum()))
