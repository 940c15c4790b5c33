"""How well a part of the edges does what the model does, and whether the right ones are found.

Shape suffixes: K fractions of edges, E edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

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
