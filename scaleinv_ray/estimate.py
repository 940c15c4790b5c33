"""One number with its error: what every invariant returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

ErrorKind = Literal[
    "exact", "sequences", "subsamples", "probes", "chains", "jackknife", "fit", "none"
]
ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error, and what the error was taken over.

    Attributes:
        value: the estimate; finite.
        stderr: one standard error; 0 only where the value is exact, None where it is unknown.
        n: number of replicates behind `stderr` (or of data behind the value where there are none).
        error_kind: what the replicates are.
        samples: the replicate values themselves, where they are worth keeping.
    """

    value: float
    stderr: float | None
    n: int
    error_kind: ErrorKind
    samples: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value: got {self.value}, must be finite (raise Refused instead)")
        if self.error_kind not in ERROR_KINDS:
            raise ValueError(f"error_kind: got {self.error_kind!r}, allowed {ERROR_KINDS}")
        if self.stderr is not None and not (math.isfinite(self.stderr) and self.stderr >= 0):
            raise ValueError(f"stderr: got {self.stderr}, must be finite and >= 0, or None")
        if (self.error_kind == "none") != (self.stderr is None):
            raise ValueError("stderr is None exactly where error_kind is 'none'")
        if self.error_kind == "exact" and self.stderr != 0:
            raise ValueError(f"stderr: got {self.stderr}, an exact value has 0")

    def __str__(self) -> str:
        error = f" ± {self.stderr:.2g}" if self.stderr else ""
        return f"{self.value:.4g}{error}"


def exact(value: float, *, n: int = 1) -> Estimate:
    """An estimate without error: the value is a deterministic function of the whole record."""
    return Estimate(float(value), 0.0, n, "exact")


def unknown(value: float, *, n: int) -> Estimate:
    """An estimate whose error is not known."""
    return Estimate(float(value), None, n, "none")


def mean_of(samples: Sequence[float] | np.ndarray, error_kind: ErrorKind) -> Estimate:
    """Mean of independent replicates with its standard error (ddof = 1).

    Args:
        samples: one value a replicate, at least one.
        error_kind: what the replicates are.

    Returns:
        The mean; with a single replicate the error is unknown, not zero.

    Raises:
        ValueError: without replicates.

    >>> mean_of([1.0, 2.0, 3.0], "subsamples").value
    2.0
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        raise ValueError("samples: got none, needs at least one replicate")
    if values.size == 1:
        return Estimate(float(values[0]), None, 1, "none", (float(values[0]),))
    stderr = float(values.std(ddof=1) / math.sqrt(values.size))
    return Estimate(float(values.mean()), stderr, values.size, error_kind, tuple(values.tolist()))
