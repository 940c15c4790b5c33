"""Samples of the two-dimensional Ising model at any temperature, for tests."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

CRITICAL_TEMPERATURE = 2 / np.log(1 + np.sqrt(2))


def sample_ising(
    size: int, temperature: float, *, num_chains: int, num_sweeps: int, rng: np.random.Generator
) -> np.ndarray:
    """Spins int8 [num_chains, num_sweeps, size * size] on a periodic square lattice.

    Cluster updates (Swendsen & Wang 1987; Wolff's move flips one of these clusters at a time):
    equal neighbours are joined with probability 1 - exp(-2 / T), each cluster takes a random
    sign. All chains are one graph, hence one call a sweep. Sixty sweeps are thrown away first.
    """
    site = np.arange(num_chains * size * size).reshape(num_chains, size, size)
    neighbours = [np.roll(site, -1, axis).ravel() for axis in (1, 2)]
    spin = np.ones(site.size, dtype=np.int8)
    sweeps = []
    for _ in range(60 + num_sweeps):
        joined = [
            (spin == spin[other]) & (rng.random(spin.size) < -np.expm1(-2 / temperature))
            for other in neighbours
        ]
        row = np.concatenate([np.flatnonzero(on) for on in joined])
        column = np.concatenate([other[on] for other, on in zip(neighbours, joined, strict=True)])
        graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(spin.size,) * 2)
        count, cluster = connected_components(graph, directed=False)
        spin = rng.choice(np.array([-1, 1], dtype=np.int8), count)[cluster]
        sweeps.append(spin.reshape(num_chains, -1))
    return np.stack(sweeps[60:], axis=1)
