"""Disjoint subsamples of a cloud at a fixed number of points, their Gaussian nulls, their means.

Shape suffixes: T rows, P points of a subsample, D width, S subsamples, G grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigvalsh

from scaleinv_ray.contract import Curve, Refused
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.clouds import DistinctRows, distinct_rows
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import disjoint_subsamples


def check_at_least(name: str, got: int, least: int) -> None:
    """Raises a ValueError that names a parameter below its least value."""
    if got < least:
        raise ValueError(f"{name}: got {got}, allowed >= {least}")


class Subsamples(NamedTuple):
    """Disjoint random parts of the distinct rows of a cloud.

    Attributes:
        parts: x_PD of every part, centred over the whole cloud, the rows in the order of the
            record.
        distinct: all distinct rows.
    """

    parts: list[np.ndarray]
    distinct: DistinctRows


def distinct_subsamples(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int,
    num_subsamples: int,
    unit_norm: bool = False,
) -> Subsamples:
    """Draws parts of `num_points` distinct rows; no topological summary is free of their number.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the parts.
        num_points: P, rows of a part.
        num_subsamples: parts wanted; as many as the rows allow are drawn.
        unit_norm: rows, once centred, are divided by their norms.

    Returns:
        At least one part.

    Raises:
        ValueError: where no part is wanted.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    check_at_least("num_subsamples", num_subsamples, 1)
    distinct = distinct_rows(cloud, unit_norm=unit_norm)
    draws = disjoint_subsamples(len(distinct.x_TD), size=num_points, count=num_subsamples, rng=rng)
    if not draws:
        raise Refused(
            f"distinct rows: got {len(distinct.x_TD)} of {len(cloud.x_TD)}, needs num_points "
            f"{num_points} (clouds of other numbers of points are not comparable)"
        )
    return Subsamples([distinct.x_TD[draw] for draw in draws], distinct)


def gaussian_clouds(
    x_TD: np.ndarray, *, rng: np.random.Generator, num_points: int, count: int
) -> list[np.ndarray]:
    """Gaussian clouds with the covariance of a cloud, up to a rotation.

    Coordinate i is sqrt(lambda_i) g with lambda the eigenvalues of the covariance, descending:
    distances of Gaussian points depend on nothing else, and turning the cloud changes no draw.

    Args:
        x_TD: rows.
        rng: of the normal numbers.
        num_points: points of a cloud.
        count: clouds.

    Returns:
        The clouds, of min(T, D) coordinates.

    >>> x_TD = np.array([[1.0, 0.0], [-1.0, 0.0]] * 50)
    >>> cloud, = gaussian_clouds(x_TD, rng=np.random.default_rng(0), num_points=9, count=1)
    >>> bool(np.all(cloud[:, 1] == 0))
    True
    """
    num_rows, width = x_TD.shape
    x_TD = x_TD - x_TD.mean(axis=0)
    gram = x_TD @ x_TD.T if num_rows < width else x_TD.T @ x_TD
    scale_D = np.sqrt(np.maximum(eigvalsh(gram)[::-1], 0) / max(num_rows - 1, 1))
    return [rng.standard_normal((num_points, len(scale_D))) * scale_D for _ in range(count)]


def means_over_subsamples(
    rows: Sequence[Mapping[str, float | None]],
) -> dict[str, Estimate | Refused]:
    """Mean of every number over the subsamples.

    Args:
        rows: the numbers of every subsample under the same names, None where one has no value.

    Returns:
        The means with their errors; a name that lacks a value in some subsample is refused, a mean
        over the others would be selected.
    """
    values: dict[str, Estimate | Refused] = {}
    for name in rows[0]:
        numbers = [number for row in rows if (number := row[name]) is not None]
        if len(numbers) < len(rows):
            few = len(rows) - len(numbers)
            values[name] = Refused(f"{name}: too few bars in {few} of {len(rows)} subsamples")
        else:
            values[name] = mean_of(numbers, "subsamples")
    return values


def mean_curve(x_G: np.ndarray, y_SG: np.ndarray) -> Curve:
    """Mean of a curve over the subsamples; with one of them its error is unknown.

    Args:
        x_G: grid.
        y_SG: one curve a subsample.

    Returns:
        The mean with its standard error (ddof = 1).
    """
    num_subsamples = len(y_SG)
    if num_subsamples == 1:
        return Curve(x_G, np.asarray(y_SG[0], dtype=np.float64))
    stderr_G = np.std(y_SG, axis=0, ddof=1) / math.sqrt(num_subsamples)
    return Curve(x_G, np.mean(y_SG, axis=0), stderr_G)
