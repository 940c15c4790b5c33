"""How well a part of the edges does what the model does, and whether the right ones are found.

Shape suffixes: K fractions of edges, E edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
