"""Two-dimensional site percolation: the simulation finds the exact p_c, nu and beta."""

import numpy as np
import pytest

from tests.truths.criticality.percolation import (
    BETA_OVER_NU,
    CRITICAL_PROBABILITY,
    INVERSE_NU,
    largest_clusters,
)

LATTICES = {16: 3000, 32: 1500, 64: 600}
SCALED = np.linspace(-0.3, 0.3, 3)  # (p - p_c) L^(1/nu)


@pytest.fixture(scope="module")
def largest() -> dict[int, np.ndarray]:
    """Sites of the largest cluster, [p, lattice], at equal scaled distances from p_c."""
    found = {}
    for size, count in LATTICES.items():
        opens = np.random.default_rng(size).random((count, size, size))
        chunks = np.array_split(opens, max(1, opens.size // 2**20))
        found[size] = np.array([
            np.concatenate([largest_clusters(chunk, p) for chunk in chunks])
            for p in CRITICAL_PROBABILITY + SCALED * size**-INVERSE_NU
        ])
    return found


def test_largest_cluster_by_hand() -> None:
    closed = 2.0
    lattice = np.full((2, 4, 4), closed)
    lattice[0, 0, :] = 0.1  # a row: its ends touch around the lattice
    lattice[0, 3, 2] = 0.1  # above that row, around the other way
    lattice[0, 2, 0] = 0.1
    lattice[1, 1, 1] = lattice[1, 2, 2] = 0.1  # diagonal neighbours do not touch
    assert largest_clusters(lattice, 0.5).tolist() == [5, 1]
    assert largest_clusters(lattice, 0.0).tolist() == [0, 0]


def test_fractal_dimension_of_the_largest_cluster(largest) -> None:
    mean = [largest[size][1].mean() for size in LATTICES]
    dimension = np.polyfit(np.log(list(LATTICES)), np.log(mean), 1)[0]
    assert dimension == pytest.approx(2 - BETA_OVER_NU, rel=0.01)  # statistical error .003


def test_moment_ratios_cross_at_the_critical_point(largest) -> None:
    distance = np.linspace(-0.02, 0.02, 401)
    ratio = {}
    for size in (16, 64):
        sites = largest[size].astype(float)
        moments = (sites**2).mean(axis=1) / sites.mean(axis=1) ** 2
        ratio[size] = np.polyval(np.polyfit(SCALED * size**-INVERSE_NU, moments, 2), distance)
    inside = np.abs(distance) < SCALED[-1] * 16**-INVERSE_NU
    crossing = distance[inside][np.abs(ratio[16] - ratio[64])[inside].argmin()]
    # over seeds -.003 to .003
    assert CRITICAL_PROBABILITY + crossing == pytest.approx(CRITICAL_PROBABILITY, rel=0.01)


def spread(largest: dict[int, np.ndarray], beta_over_nu: float) -> float:
    """Mean squared distance of the scaled curves of the sizes from their mean, in errors."""
    scaled, stderr = [], []
    for size, sites in largest.items():
        unit = size ** (2 - beta_over_nu)
        scaled.append(sites.mean(axis=1) / unit)
        stderr.append(sites.std(axis=1, ddof=1) / np.sqrt(sites.shape[1]) / unit)
    deviation = np.array(scaled) - np.mean(scaled, axis=0)
    return float(((deviation / np.array(stderr)) ** 2).mean() * len(scaled) / (len(scaled) - 1))


def test_curves_collapse_with_the_exact_exponents_only(largest) -> None:
    assert spread(largest, BETA_OVER_NU) < 4  # 1 but for corrections to scaling
    assert spread(largest, 1 / 8) > 6  # the Ising model's beta / nu
    # the curve's slope: growth of d ln s / d p between the sizes is 1/nu
    slopes = {
        size: np.polyfit(SCALED * size**-INVERSE_NU, np.log(sites.mean(axis=1)), 2)[1]
        for size, sites in largest.items()
    }
    assert np.log(slopes[64] / slopes[16]) / np.log(4) == pytest.approx(INVERSE_NU, rel=0.1)
