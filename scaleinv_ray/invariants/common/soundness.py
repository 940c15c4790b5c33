"""What every invariant asks of a record before it computes: real numbers in matching shapes.

The capitals at the end of an array's name are its axes (`x_TD`: T rows of D units), so the names
say which shapes have to agree.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.records import Record, WeightMatrix

LARGEST, SMALLEST = 1e40, 1e-40
"""Of the largest entry of an array that is not zero: models store 1.2e-38 to 3.4e38, and fourth
powers of what lies between stay finite and positive."""


def sound(*records: Record, powers: bool = True) -> None:
    """Refuses records whose arrays nothing can be computed of.

    Args:
        records: one, the two of a pair, or the steps of a run.
        powers: whether powers of the entries are formed as they are, which bounds their size;
            clouds are divided by their largest entry first.

    Raises:
        Refused: without a record; where an array is missing, is no array of real numbers, has
            other axes than its name says, an axis of another length than its neighbours', no
            entries, entries that are not finite, or a size whose powers leave double precision.

    >>> sound(WeightMatrix(w_OI=np.full((3, 2), 1e160)))
    Traceback (most recent call last):
    ...
    scaleinv_ray.contract.Refused: w_OI: got entries up to 1e+160, allowed 0 or 1e-40..1e+40
    """
    if not records:
        raise Refused("records: got none, allowed one or more")
    for record in records:
        if isinstance(record, WeightMatrix) and record.odd:
            raise Refused(record.odd)
        lengths: dict[str, int] = {}
        for name in record.arrays:
            values = getattr(record, name)
            if values is None and _may_be_absent(record, name):
                continue
            _check_array(name, values)
            _check_axes(name, values, lengths)
            if not name.endswith("NCS"):  # draws of chains: those that diverge are told apart later
                _check_size(name, values, bounded=powers)


def _may_be_absent(record: Record, name: str) -> bool:
    return getattr(type(record), name, ...) is None


def _check_array(name: str, values: Any) -> None:
    kind = values.dtype.kind if isinstance(values, np.ndarray) else None
    if kind is None or kind not in "fiu":
        got = type(values).__name__ if kind is None else values.dtype
        raise Refused(f"{name}: got {got}, allowed an array of real numbers")


def _check_axes(name: str, values: np.ndarray, lengths: dict[str, int]) -> None:
    axes = re.sub("[^A-Z]", "", name.rpartition("_")[2])
    if values.ndim != len(axes):
        raise Refused(f"{name}: got shape {values.shape}, allowed {len(axes)} axes ({axes})")
    if values.size == 0:
        raise Refused(f"{name}: got shape {values.shape}, an empty array")
    for axis, length in zip(axes, values.shape, strict=True):
        if lengths.setdefault(axis, length) != length:
            raise Refused(
                f"{name}: got shape {values.shape}, axis {axis} is {lengths[axis]} elsewhere"
            )


def _check_size(name: str, values: np.ndarray, *, bounded: bool) -> None:
    low, high = float(values.min()), float(values.max())  # NaN where there is any
    largest = max(-low, high)
    if not np.isfinite(low) or not np.isfinite(high):
        count = np.count_nonzero(~np.isfinite(values))
        raise Refused(f"{name}: got {count} of {values.size} entries not finite")
    if bounded and largest and not SMALLEST <= largest <= LARGEST:
        raise Refused(
            f"{name}: got entries up to {largest:.3g}, allowed 0 or {SMALLEST:g}..{LARGEST:g}"
        )
