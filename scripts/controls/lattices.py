"""C7: collapse of site percolation and of the Ising model in two dimensions, exponents exact.

P_inf(p, L) = L^(-beta/nu) f((p - p_c) L^(1/nu)), p_c = .592746, nu = 4/3, beta/nu = 5/48;
<|m|>(T, L) = L^(-1/8) g((T - T_c) L). Both are fed to `universality.collapse`, which does not
know the exponents. With y N^-b against x N^-a: a = -1/nu, b = -beta/nu.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _records import Check, main
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scaleinv_ray.conclude.universality.collapse import ScalingCurve, collapse_quality, rescaling

P_C = 0.592746
T_C = 2 / math.log(1 + math.sqrt(2))
POINTS = 15
SITES = 2**18
BINS = 20


def largest_cluster(size: int, p: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Share of sites in the largest cluster of each of `count` periodic lattices size x size.

    Periodic, because clusters at an open edge are thinner: over sizes 16 to 64 open lattices gave
    beta/nu .152 for .104.
    """
    at_once = max(1, SITES // size**2)
    parts = [min(at_once, count - done) for done in range(0, count, at_once)]
    return np.concatenate([_largest(size, p, part, rng) for part in parts])


def _largest(size: int, p: float, count: int, rng: np.random.Generator) -> np.ndarray:
    full = rng.random((count, size, size)) < p
    site = np.arange(full.size).reshape(full.shape)
    here, other = [], []
    for axis in (1, 2):
        joined = full & np.roll(full, -1, axis)
        here.append(site[joined])
        other.append(np.roll(site, -1, axis)[joined])
    pairs = (np.concatenate(here), np.concatenate(other))
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(full.size,) * 2)
    num, cluster = connected_components(graph, directed=False)
    sizes = np.bincount(cluster, minlength=num)
    return sizes[cluster.reshape(count, -1)].max(axis=1) / size**2


def magnetisation(
    size: int, temperature: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean |m| of BINS independent periodic lattices, over `count` cluster updates each.

    Equal neighbours are joined with probability 1 - exp(-2 / T), and every cluster takes a random
    sign (Swendsen & Wang 1987). A tenth more updates, 30 at least, are thrown away first.
    """
    site = np.arange(BINS * size * size).reshape(BINS, size, size)
    other = np.concatenate([np.roll(site, -1, axis).ravel() for axis in (1, 2)])
    here = np.tile(site.ravel(), 2)
    spin = np.ones(site.size, dtype=np.int8)
    thrown, total = max(30, count // 10), np.zeros(BINS)
    for update in range(thrown + count):
        on = (spin[here] == spin[other]) & (rng.random(len(here)) < -np.expm1(-2 / temperature))
        pairs = (np.ones(on.sum(), np.int8), (here[on], other[on]))
        num, cluster = connected_components(
            coo_array(pairs, shape=(spin.size,) * 2), directed=False
        )
        spin = rng.choice(np.array([-1, 1], dtype=np.int8), num)[cluster]
        if update >= thrown:
            total += np.abs(spin.reshape(BINS, -1).mean(axis=1))
    return total / count


def curves(
    sample: Callable[..., np.ndarray], sizes: tuple[int, ...], *, centre: float, exponent: float,
    reach: float, count: int,
) -> list[ScalingCurve]:  # fmt: skip
    """Curves around the critical point, over the same range of the scaling variable.

    Only the range is chosen by the exponent; the collapse is free to find another one.
    """
    made = []
    for size in sizes:
        x_P = np.linspace(-reach, reach, POINTS) * size**-exponent
        rng = np.random.default_rng([size, count])
        drawn = [sample(size, centre + x, count, rng) for x in x_P]
        mean_P = np.array([d.mean() for d in drawn])
        stderr_P = np.array([d.std(ddof=1) / math.sqrt(len(d)) for d in drawn])
        made.append(ScalingCurve(float(size), x_P, mean_P, stderr_P))
    return made


def checks(
    name: str, made: list[ScalingCurve], exact: tuple[float, float], *, quick: bool
) -> list[Check]:
    """The exponents found, and the quality of collapse at the exact ones and without rescaling."""
    found = rescaling(made)
    if found is None:
        raise RuntimeError(f"{name}: curves overlap nowhere")
    one_over_nu, beta_over_nu = exact
    at_exact = collapse_quality(made, exponent_x=-one_over_nu, exponent_y=-beta_over_nu)
    as_they_are = collapse_quality(made)
    # lattices of 16 to 128: sampling and corrections to scaling leave 1/nu open by 3 to 5 percent
    relative, absolute = (0.2, 0.03) if quick else (0.08, 0.01)
    return [
        Check(f"C7 {name}: 1/nu over the exact one", -found.exponent_x / one_over_nu,
              1 - relative, 1 + relative),
        Check(f"C7 {name}: beta/nu less the exact one", -found.exponent_y - beta_over_nu,
              -absolute, absolute),
        # above one: straight lines between points, and corrections to scaling at small sizes
        Check(f"C7 {name}: S at the exact exponents", at_exact or math.inf, 0.0, 6.0),
        Check(f"C7 {name}: S without rescaling", as_they_are or math.inf, 20.0, math.inf),
    ]  # fmt: skip


def control(folder: Path, quick: bool) -> list[Check]:
    """The figures of C7; nothing is written to the folder."""
    del folder
    sizes = (16, 32, 64) if quick else (32, 64, 128)
    percolation = curves(
        largest_cluster, sizes, centre=P_C, exponent=0.75, reach=0.8, count=400 if quick else 1000
    )
    sizes = (8, 16, 32) if quick else (16, 32, 64)
    ising = curves(
        magnetisation, sizes, centre=T_C, exponent=1.0, reach=1.5, count=60 if quick else 150
    )
    return [
        *checks("percolation", percolation, (0.75, 5 / 48), quick=quick),
        *checks("Ising", ising, (1.0, 0.125), quick=quick),
    ]


if __name__ == "__main__":
    main("lattices", control)
