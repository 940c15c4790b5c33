"""Exact least-squares search of a curve over a list of shapes, with an exact test of the search.

Shape suffixes: K checkpoints, D shapes, C base functions, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NUM_DRAWS = 4000
PARALLEL = 1e-9
"""A shape with less than this share outside the base functions is one of them."""


class BestShape(NamedTuple):
    """The best shape.

    Attributes:
        shape: its index.
        f: drop of the residual sum of squares over (residual sum of squares / df).
        rss: residual sum of squares with the shape.
        base_rss: without it.
    """

    shape: int
    f: float
    rss: float
    base_rss: float


@dataclass(frozen=True)
class Shapes:
    """Shapes that may be added to base functions, one at a time.

    Attributes:
        base_KC: base functions, orthonormal.
        direction_DK: each shape outside the base functions, of unit length.
        kept_D: index of each in the list it came from.
        df: checkpoints minus fitted numbers, those that pick the shape included.
    """

    base_KC: np.ndarray
    direction_DK: np.ndarray
    kept_D: np.ndarray
    df: int


def shapes_of(base_KC: np.ndarray, shape_DK: np.ndarray, *, picked_by: int) -> Shapes:
    """Prepares a search.

    Args:
        base_KC: base functions at the checkpoints.
        shape_DK: shapes at the checkpoints; those within the base functions are left out.
        picked_by: numbers that pick a shape (a position, a width).

    Raises:
        ValueError: where no shape or no degree of freedom is left.
    """
    base_KC = np.linalg.qr(base_KC)[0]
    outside_DK = shape_DK - (shape_DK @ base_KC) @ base_KC.T
    length_D = np.linalg.norm(outside_DK, axis=1)
    kept_D = np.flatnonzero(length_D > PARALLEL * np.linalg.norm(shape_DK, axis=1))
    df = len(base_KC) - base_KC.shape[1] - 1 - picked_by
    if df < 1 or not len(kept_D):
        raise ValueError(f"checkpoints: got {len(base_KC)}, needs {len(base_KC) - df + 1}")
    return Shapes(base_KC, outside_DK[kept_D] / length_D[kept_D, None], kept_D, df)


def rss_by_shape(shapes: Shapes, y_K: np.ndarray) -> tuple[float, np.ndarray]:
    """Residual sum of squares without a shape, and with each [D]."""
    residual_K = y_K - shapes.base_KC @ (shapes.base_KC.T @ y_K)
    base_rss = float(residual_K @ residual_K)
    return base_rss, np.maximum(base_rss - (shapes.direction_DK @ residual_K) ** 2, 0.0)


def best_shape(shapes: Shapes, y_K: np.ndarray) -> BestShape:
    """The shape that leaves the least residual.

    Returns:
        The match; f is inf where nothing is left, 0 where nothing was there.
    """
    base_rss, rss_D = rss_by_shape(shapes, y_K)
    at = int(rss_D.argmin())
    rss = float(rss_D[at])
    # rounding: a curve that the base describes has no shape to find
    floor = 1e-24 * max(float(y_K @ y_K), 1e-300)
    if base_rss <= floor:
        return BestShape(int(shapes.kept_D[at]), 0.0, base_rss, base_rss)
    f = (base_rss - rss) * shapes.df / rss if rss > floor else np.inf
    return BestShape(int(shapes.kept_D[at]), float(f), rss, base_rss)


def best_shapes(shapes: Shapes, y_BK: np.ndarray) -> np.ndarray:
    """Index [B] of the best shape of each of many curves."""
    residual_BK = y_BK - (y_BK @ shapes.base_KC) @ shapes.base_KC.T
    found: np.ndarray = shapes.kept_D[((residual_BK @ shapes.direction_DK.T) ** 2).argmax(axis=1)]
    return found


def null_of_search(shapes: Shapes, rng: np.random.Generator) -> np.ndarray:
    """F of the best shape when there is none, under independent Gaussian errors.

    The largest of many F is no F: its distribution depends on checkpoints and shapes only, and is
    drawn.

    Returns:
        4000 values, ascending.
    """
    z_BK = rng.normal(size=(NUM_DRAWS, len(shapes.base_KC)))
    z_BK -= (z_BK @ shapes.base_KC) @ shapes.base_KC.T
    total_B = (z_BK**2).sum(axis=1)
    drop_B = ((z_BK @ shapes.direction_DK.T) ** 2).max(axis=1)
    return np.sort(drop_B * shapes.df / np.maximum(total_B - drop_B, 1e-300))


def search_p(null_B: np.ndarray, f: float) -> float:
    """Monte Carlo p of a search: (1 + draws with F as large) / (1 + draws)."""
    larger = len(null_B) - int(np.searchsorted(null_B, f, side="left"))
    return (1 + larger) / (1 + len(null_B))
