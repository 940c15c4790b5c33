"""Bands over training: groups of eigenvalues that stand apart, followed by their subspaces.

Shape suffixes: S checkpoints, R probe vectors, K nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import stats

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, exact, mean_of, unknown
from scaleinv_ray.invariants.bands.discovery import Band, GapNull, find_bands
from scaleinv_ray.invariants.bands.tracks import Track, Tracks, track_bands
from scaleinv_ray.invariants.common.quadrature import checked_quadrature, curved_size
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Lanczos

NUM_CURVES = 8
QUANTITIES = {
    "num_bands": Quantity(
        law="integer",
        unit=1.0,
        meaning="Number of groups of eigenvalues set apart from the bulk at the last checkpoint",
    ),
    "band_weight": Quantity(
        law="none", unit=1.0, meaning="Share of all eigenvalues that lie in bands"
    ),
    "num_tracks": Quantity(
        law="integer", unit=1.0, meaning="Number of bands told apart over the run"
    ),
    "num_avoided_crossings": Quantity(
        law="integer",
        unit=1.0,
        meaning="Number of places where two bands met and only their joint subspace went on",
    ),
    "num_requests": Quantity(
        law="integer",
        unit=1.0,
        control=True,
        meaning="Number of intervals between checkpoints in which a band could not be followed",
    ),
    "top_band_growth": Quantity(
        law="constant",
        unit=1.0,
        meaning="Growth of the largest band: d ln(eigenvalue) / d ln(1 + step); constant at 0",
    ),
}
CURVES = {f"band_{i}": "Eigenvalue of the band; training step" for i in range(1, NUM_CURVES + 1)}


@invariant(quantities=QUANTITIES, scheme="hessian", curves=CURVES)
def hessian_bands(
    lanczos_S: Sequence[Lanczos],
    *,
    rng: np.random.Generator,
    flat: float = 1e-3,
    num_null: int = 40,
) -> Measured:
    """Bands of the Hessian over a run: how many, how they grow, where they meet.

    A band is a maximal group of Ritz values whose distance from all others is more than three times
    its width and wider than random symmetric matrices leave (`discovery.find_bands`); the bulk,
    which holds the median of the density of states, is none. Bands of successive checkpoints are
    assigned by squared overlap of their sketched subspaces and |d log lambda|
    (`tracks.track_bands`).
    num_bands: at the last checkpoint; band_weight: the share of all eigenvalues in them (it varies
    with the probe vectors; times dim it is a number of eigenvalues);
    num_tracks: bands told apart over the run;
    num_avoided_crossings: places where two bands met and only their joint subspace goes on;
    num_requests: intervals in which a band could not be followed and a checkpoint in between would
    tell (flag `requests`, as 'step 30..100: overlap 0.41, try 55');
    top_band_growth = d ln|lambda| / d ln(1 + step) along the track of the largest band at the end,
    by least squares.

    Args:
        lanczos_S: the operator at two checkpoints or more, in order, with sketches, from the same
            probe vectors and hash.
        rng: draws the null.
        flat: relative size below which an eigenvalue counts as flat, in (0, 1): the null has as
            many eigenvalues as are not (their median over the run), and logarithms end there.
        num_null: null matrices.

    Returns:
        The quantities; those about tracks are refused without sketches, top_band_growth too
        without steps, or where the top band is at fewer than three checkpoints. Curves `band_1` to
        `band_8`: mean eigenvalue of the longest and largest tracks by step (by position without
        steps), its error over probe vectors. Flags: requests, crossings, num_probes.

    Raises:
        Refused: for fewer than two checkpoints, another operator or other sizes, values that are
            not finite, weights that are no probabilities, an operator that vanishes, and steps that
            do not ascend.
        ValueError: with flat outside (0, 1), or without a null.
    """
    sound(*lanczos_S)
    return _measured(lanczos_S, "hessian", rng=rng, flat=flat, num_null=num_null)


@invariant(quantities=QUANTITIES, scheme="ggn", curves=CURVES)
def ggn_bands(
    lanczos_S: Sequence[Lanczos],
    *,
    rng: np.random.Generator,
    flat: float = 1e-3,
    num_null: int = 40,
) -> Measured:
    """Bands of the Gauss-Newton operator over a run: how many, how they grow, where they meet.

    As `hessian_bands`, the null a Marchenko-Pastur matrix X X^T with a square X, which has the
    widest gaps among those.

    Args:
        lanczos_S: as of `hessian_bands`.
        rng: draws the null.
        flat: as of `hessian_bands`.
        num_null: null matrices.

    Returns:
        As `hessian_bands`.

    Raises:
        Refused: as `hessian_bands`.
        ValueError: as `hessian_bands`.
    """
    sound(*lanczos_S)
    return _measured(lanczos_S, "ggn", rng=rng, flat=flat, num_null=num_null)


def _measured(
    lanczos_S: Sequence[Lanczos],
    operator: str,
    *,
    rng: np.random.Generator,
    flat: float,
    num_null: int,
) -> Measured:
    if len(lanczos_S) < 2 or len({record.dim for record in lanczos_S}) > 1:
        sizes = sorted({record.dim for record in lanczos_S})
        raise Refused(f"lanczos_S: got {len(lanczos_S)} of sizes {sizes}, needs two of one size")
    checked_S = [
        checked_quadrature(record, operator, flat=flat, num_null=num_null) for record in lanczos_S
    ]
    sizes_S = [curved_size(*nodes, dim=lanczos_S[0].dim, flat=flat) for nodes in checked_S]
    size = round(float(np.median(sizes_S)))
    null = GapNull(size, positive=operator == "ggn", num_null=num_null, rng=rng)
    bands_S = [
        find_bands(*nodes, dim=record.dim, null=null, sketch_RKM=record.sketch_RKM)
        for record, nodes in zip(lanczos_S, checked_S, strict=True)
    ]
    modulus = max(float(np.abs(n[w > 0]).max()) for n, w in checked_S)
    values: dict[str, Estimate | Refused] = {
        "num_bands": exact(len(bands_S[-1])),
        "band_weight": _outside(bands_S[-1], len(lanczos_S[-1].nodes_RK)),
    }
    flags: dict[str, float | int | str] = {"num_probes": len(lanczos_S[-1].nodes_RK)}
    lacking = _lacking(lanczos_S)
    if lacking is not None:
        followed = [name for name in QUANTITIES if name not in values]
        return Measured(values | dict.fromkeys(followed, lacking), flags=flags)
    steps = _steps(lanczos_S)
    found = track_bands(bands_S, floor=flat * modulus, steps=steps)
    values |= _followed(found, steps, last=len(lanczos_S) - 1)
    return Measured(values, curves=_curves(found, steps), flags=flags | _told(found, steps))


def _lacking(lanczos_S: Sequence[Lanczos]) -> Refused | None:
    shapes = {None if r.sketch_RKM is None else r.sketch_RKM.shape[2] for r in lanczos_S}
    if None in shapes or len(shapes) > 1:
        return Refused(f"sketch_RKM: got {sorted(map(str, shapes))} buckets, needs one number")
    return None


def _steps(lanczos_S: Sequence[Lanczos]) -> list[int] | None:
    steps = [record.step for record in lanczos_S]
    known = [step for step in steps if step is not None]
    if len(known) < len(steps):
        return None
    if any(a >= b for a, b in pairwise(known)):
        raise Refused(f"step: got {known}, allowed ascending steps, each once")
    return known


def _outside(bands: Sequence[Band], num_probes: int) -> Estimate:
    weight_R = np.sum([band.weight_R for band in bands], axis=0) if bands else np.zeros(num_probes)
    return mean_of(weight_R, "probes")


def _followed(
    found: Tracks, steps: Sequence[int] | None, *, last: int
) -> dict[str, Estimate | Refused]:
    return {
        "num_tracks": exact(len(found.tracks)),
        "num_avoided_crossings": exact(len(found.crossings)),
        "num_requests": exact(len(found.requests)),
        "top_band_growth": _growth(found, steps, last=last),
    }


def _growth(found: Tracks, steps: Sequence[int] | None, *, last: int) -> Estimate | Refused:
    ending = [track for track in found.tracks if track.last == last]
    if steps is None:
        return Refused("step: got None, growth over training needs the steps")
    if not ending:
        return Refused("num_bands: got 0 at the last checkpoint, growth needs one")
    top = max(ending, key=lambda track: abs(track.bands[-1].centre))
    size = np.abs([band.centre for band in top.bands])
    if len(size) < 3 or not size.all():
        return Refused(f"top band: got {len(size)} checkpoints, growth needs 3 and no zero")
    line = stats.linregress(np.log1p(_x(top, steps)), np.log(size))
    if not math.isfinite(line.stderr):
        return unknown(line.slope, n=len(size))
    return Estimate(float(line.slope), float(line.stderr), len(size), "fit")


def _x(track: Track, steps: Sequence[int] | None) -> np.ndarray:
    at = np.arange(track.first, track.last + 1)
    return (at if steps is None else np.asarray(steps)[at]).astype(np.float64)


def _curves(found: Tracks, steps: Sequence[int] | None) -> dict[str, Curve]:
    curves = {}
    for name, track in zip(CURVES, found.tracks, strict=False):
        errors = [band.centre_stderr for band in track.bands]
        known = [error for error in errors if error is not None]
        curves[name] = Curve(
            _x(track, steps),
            np.array([band.centre for band in track.bands]),
            np.array(known) if len(known) == len(errors) else None,
        )
    return curves


def _told(found: Tracks, steps: Sequence[int] | None) -> dict[str, float | int | str]:
    def between(before: int) -> str:
        if steps is None:
            return f"checkpoint {before}..{before + 1}"
        return f"step {steps[before]}..{steps[before + 1]}"

    requests = "; ".join(
        f"{between(r.before)}: overlap {r.overlap:.2f}" + (f", try {r.step}" if r.step else "")
        for r in found.requests
    )
    crossings = "; ".join(between(crossing.before) for crossing in found.crossings)
    told = {"requests": requests, "crossings": crossings}
    return {name: text for name, text in told.items() if text}
