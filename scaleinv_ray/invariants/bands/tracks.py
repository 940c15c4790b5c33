"""Which band is which over the checkpoints of a run: overlaps, assignment, avoided crossings.

Shape suffixes: S checkpoints, A and B bands at two of them, D basis vectors of a band, M buckets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from scaleinv_ray.invariants.bands.discovery import Band

ALIKE = 0.5
"""Squared overlap below which a band is no longer the same one."""
ALIKE_PAIR = 0.75
"""The same of two bands together: a pair of which one is lost and one is kept has a half."""


class Request(NamedTuple):
    """A checkpoint that is asked for.

    Attributes:
        before: position of the checkpoint before it.
        overlap: the smallest of the bands that could not be followed from there.
        step: where to look, the geometric mean of 1 + step; None where steps are unknown.
    """

    before: int
    overlap: float
    step: int | None


class Crossing(NamedTuple):
    """Two bands that go on together: as one band, or as two of which neither is one of them.

    Attributes:
        before: position of the checkpoint before it.
        bands: indices of the two bands there.
    """

    before: int
    bands: tuple[int, int]


@dataclass
class Track:
    """A band followed over checkpoints.

    Attributes:
        first: position of its first checkpoint; the others follow without a hole.
        bands: one for each checkpoint.
    """

    first: int
    bands: list[Band]

    @property
    def last(self) -> int:
        """Position of its last checkpoint."""
        return self.first + len(self.bands) - 1


@dataclass
class Tracks:
    """What became of all bands.

    Attributes:
        tracks: those that live longest first, of these the largest at their end first.
        requests: checkpoints in between that would tell which band is which.
        crossings: avoided crossings that were passed.
    """

    tracks: list[Track] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)


class Overlaps(NamedTuple):
    """Squared overlaps of subspaces, the sum of cos^2 of their principal angles.

    Attributes:
        shared_AB: ||Q_a Q_b^T||_F^2; a sketch with M buckets adds about (product of the
            dimensions) / M.
        equal_AB: the same over the larger dimension, 1 for equal subspaces.
        inside_AB: the same over the smaller dimension, 1 where one holds the other.
    """

    shared_AB: np.ndarray
    equal_AB: np.ndarray
    inside_AB: np.ndarray


def overlaps(bands_A: Sequence[Band], bands_B: Sequence[Band]) -> Overlaps:
    """Overlaps of all bands of two checkpoints.

    Args:
        bands_A: of one checkpoint.
        bands_B: of another one, sketched by the same hash.

    Returns:
        The overlaps.

    Raises:
        ValueError: for bands without subspaces.
    """
    size_A = np.array([len(_basis(band)) for band in bands_A])
    size_B = np.array([len(_basis(band)) for band in bands_B])
    q_AM = np.concatenate([_basis(band) for band in bands_A])
    q_BM = np.concatenate([_basis(band) for band in bands_B])
    rows = np.add.reduceat((q_AM @ q_BM.T) ** 2, _starts(size_A), axis=0)
    shared_AB = np.add.reduceat(rows, _starts(size_B), axis=1)
    return Overlaps(
        shared_AB,
        shared_AB / np.maximum.outer(size_A, size_B),
        shared_AB / np.minimum.outer(size_A, size_B),
    )


def track_bands(
    bands_S: Sequence[Sequence[Band]], *, floor: float, steps: Sequence[int] | None = None
) -> Tracks:
    """Which band is which over checkpoints.

    From one checkpoint to the next bands are assigned (linear_sum_assignment) by least
    sum of (1 - overlap) + |d log lambda|, the logarithm smooth through zero: asinh(lambda / 2
    floor), overlap over the larger dimension. An assigned pair is one band where half or more of
    the smaller subspace is inside the larger. Below a half which is which is not defined at these
    checkpoints: one in between is asked for, if there are steps in between. Two such bands whose
    joint subspace goes on (an overlap of .75) have met in an avoided crossing: they are followed on
    by their eigenvalues and flagged. A band that has gone into another one (half of it is inside)
    is merged with it: its track ends, and the two are flagged. Other tracks end unflagged.

    Args:
        bands_S: bands of every checkpoint, with subspaces.
        floor: eigenvalue below which logarithms mean nothing, > 0.
        steps: of the checkpoints, ascending; None where they are not known.

    Returns:
        Tracks, requests and crossings.

    Raises:
        ValueError: for bands without subspaces, a floor of zero, and steps that do not ascend.
    """
    if floor <= 0:
        raise ValueError(f"floor: got {floor}, allowed numbers > 0")
    if steps is not None and (
        len(steps) != len(bands_S) or any(a >= b for a, b in pairwise(steps))
    ):
        raise ValueError(f"steps: got {list(steps)}, allowed {len(bands_S)} ascending")
    found = Tracks()
    alive = [Track(0, [band]) for band in (bands_S[0] if bands_S else [])]
    found.tracks += alive
    for before, (bands_A, bands_B) in enumerate(pairwise(bands_S)):
        passage = _passage(bands_A, bands_B, floor) if bands_A and bands_B else _Passage()
        found.crossings += [Crossing(before, pair) for pair in passage.met]
        if passage.lost:
            found.requests += _request(before, min(passage.lost), steps)
        earlier = {b: alive[a] for a, b in passage.kept}
        alive = [earlier.get(b) or Track(before + 1, []) for b in range(len(bands_B))]
        for track, band in zip(alive, bands_B, strict=True):
            track.bands.append(band)
        found.tracks += [track for track in alive if track.first == before + 1]
    found.tracks.sort(key=lambda t: (-t.last, -len(t.bands), -abs(t.bands[-1].centre)))
    return found


class _Passage(NamedTuple):
    """From one checkpoint to the next: (a, b) of the tracks kept, pairs that met, overlaps lost."""

    kept: list[tuple[int, int]] = []
    met: list[tuple[int, int]] = []
    lost: list[float] = []


def _passage(bands_A: Sequence[Band], bands_B: Sequence[Band], floor: float) -> _Passage:
    of = overlaps(bands_A, bands_B)
    links = _assigned(bands_A, bands_B, floor, of)
    kept = [link for link in links if of.inside_AB[link] >= ALIKE]
    broken = [link for link in links if of.inside_AB[link] < ALIKE]
    exchanged = _exchanged(broken, of, bands_A, bands_B)
    source, target = {b: a for a, b in kept}, {a: b for a, b in kept}
    merged = {
        a: source[into]
        for a in range(len(bands_A))
        if a not in target
        and (into := int(of.inside_AB[a].argmax())) in source
        and of.inside_AB[a, into] >= ALIKE
    }
    split = {
        b
        for b in range(len(bands_B))
        if b not in source
        and (out_of := int(of.inside_AB[:, b].argmax())) in target
        and of.inside_AB[out_of, b] >= ALIKE
    }
    return _Passage(
        kept + [link for pair in exchanged for link in pair],
        [(one[0], other[0]) for one, other in exchanged]
        + [(into, a) for a, into in merged.items()],
        [float(of.inside_AB[a, b]) for a, b in broken if a not in merged and b not in split],
    )


def _assigned(
    bands_A: Sequence[Band], bands_B: Sequence[Band], floor: float, of: Overlaps
) -> list[tuple[int, int]]:
    log_A, log_B = (
        np.arcsinh(np.array([band.centre for band in bands]) / (2 * floor))
        for bands in (bands_A, bands_B)
    )
    cost_AB = 1.0 - of.equal_AB + np.abs(np.subtract.outer(log_A, log_B))
    at_A, at_B = linear_sum_assignment(cost_AB)
    return list(zip(at_A.tolist(), at_B.tolist(), strict=True))


def _exchanged(
    broken: Sequence[tuple[int, int]],
    of: Overlaps,
    bands_A: Sequence[Band],
    bands_B: Sequence[Band],
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of broken links whose joint subspace goes on, the surest first, each link once."""
    possible = []
    for one, other in combinations(broken, 2):
        at_A, at_B = [one[0], other[0]], [one[1], other[1]]
        size = max(
            sum(len(_basis(bands_A[a])) for a in at_A), sum(len(_basis(bands_B[b])) for b in at_B)
        )
        possible.append((float(of.shared_AB[np.ix_(at_A, at_B)].sum()) / size, one, other))
    taken: set[tuple[int, int]] = set()
    pairs = []
    for joint, one, other in sorted(possible, key=lambda found: -found[0]):
        if joint >= ALIKE_PAIR and not taken & {one, other}:
            taken |= {one, other}
            pairs.append((one, other))
    return pairs


def _request(before: int, overlap: float, steps: Sequence[int] | None) -> list[Request]:
    if steps is None:
        return [Request(before, overlap, None)]
    first, last = steps[before], steps[before + 1]
    if last - first < 2:
        return []
    middle = round(math.sqrt((1 + first) * (1 + last)) - 1)
    return [Request(before, overlap, min(max(middle, first + 1), last - 1))]


def _basis(band: Band) -> np.ndarray:
    if band.subspace_DM is None:
        raise ValueError("subspace_DM: got None, bands are followed by their subspaces")
    return band.subspace_DM


def _starts(size_A: np.ndarray) -> np.ndarray:
    starts: np.ndarray = np.concatenate([[0], np.cumsum(size_A)[:-1]])
    return starts
