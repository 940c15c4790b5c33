"""Landmarks of a cloud, and how far the diagram of the landmarks may be from that of the cloud.

Shape suffixes: P points, D width, L landmarks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scaleinv_ray.invariants.topology.nearest import GrowingSet


class Landmarks(NamedTuple):
    """Points that cover a cloud.

    Attributes:
        index_L: the landmarks, in the order in which they were chosen.
        cover_radius: largest distance r of a point to its nearest landmark. Births and deaths of
            the Rips filtration of the landmarks are within 2 r of the cloud's, in the bottleneck
            distance (Chazal, de Silva & Oudot 2014, theorem 5.2).
    """

    index_L: np.ndarray
    cover_radius: float


def farthest_points(x_PD: np.ndarray, *, count: int, start: int = 0) -> Landmarks:
    """Farthest-point landmarks: each is the point farthest from those before (Gonzalez 1985).

    The cover radius is at most twice the least possible with so many points. Distances are those
    of float64 (`GrowingSet`); of equally far points any one is taken.

    Args:
        x_PD: points, finite.
        count: landmarks wanted, 1..P.
        start: the first of them.

    Returns:
        The landmarks with their cover radius.

    Raises:
        ValueError: where count or start are out of range, or x_PD is no matrix of finite numbers.

    >>> found = farthest_points(np.array([[0.0], [1.0], [5.0], [9.0]]), count=2)
    >>> found.index_L.tolist(), found.cover_radius
    ([0, 3], 4.0)
    """
    if not 1 <= count <= len(x_PD):
        raise ValueError(f"count: got {count}, allowed 1..{len(x_PD)} (points)")
    if not 0 <= start < len(x_PD):
        raise ValueError(f"start: got {start}, allowed 0..{len(x_PD) - 1}")
    cover = GrowingSet(x_PD)
    index_L = np.empty(count, dtype=np.intp)
    place = start
    for order in range(count):
        index_L[order] = cover.index_R[place]
        cover.admit(place)
        if order < count - 1:
            place = int(cover.square_R.argmax())
    return Landmarks(index_L, float(cover.lengths(cover.square_R.max(initial=0))))
