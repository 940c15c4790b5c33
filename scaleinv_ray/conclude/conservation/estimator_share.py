"""How much of the scatter over seeds is the estimator's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleinv_ray.conclude.aggregation.values import Value


def estimator_share(
    values: Sequence[Sequence[Value]],
    *,
    seed_variance: float | None,
    unit: float | None,
    on_probe: bool,
) -> float | None:
    """Variance within models over that over seeds: of models on one probe, what they do not share.

    Models read the same sequences: an error common to the seeds of a size cancels between them and
    is no part of their variance. Of the deviations block by block the mean over seeds is left out.

    Args:
        values: for each size those of its seeds.
        seed_variance: over seeds, pooled, on the judged scale.
        unit: of that scale; without one it is the logarithm.
        on_probe: whether models read sequences; weights have no error in common.

    Returns:
        The share, near 1 where the estimator alone makes seeds differ; None where it is not known:
        without blocks, and of weights where the error is that of a fit. That of a tail exponent
        takes eigenvalues for independent, which repel each other: it came out at 3.4 times the
        variance over seeds (median of 60 places; largest 61).
    """
    if not seed_variance:
        return None
    if not on_probe:
        found = [value for seeds in values for value in seeds]
        errors = [e / _scale(v, unit) for v in found if (e := _scatter(v)) is not None]
        if len(errors) < len(found):
            return None
        return sum(error**2 for error in errors) / len(errors) / seed_variance
    squares, free = 0.0, 0
    for seeds in values:
        known = [v.deviations / _scale(v, unit) for v in seeds if v.deviations is not None]
        if len(known) < len(seeds) or len({len(d) for d in known}) != 1:
            return None
        squares += float(((known - np.mean(known, axis=0)) ** 2).sum())
        free += len(known) - 1
    return squares / free / seed_variance if free else None


def _scatter(value: Value) -> float | None:
    """The error of a value where it is exact or that of replicates, not of a fit."""
    return value.stderr if value.stderr == 0 or value.deviations is not None else None


def _scale(value: Value, unit: float | None) -> float:
    return unit or abs(value.value)
