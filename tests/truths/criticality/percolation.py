"""Site percolation on the periodic square lattice, for tests."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

CRITICAL_PROBABILITY = 0.592746  # Jacobsen, J. Phys. A 48:454003 (2015)
INVERSE_NU = 3 / 4
BETA_OVER_NU = 5 / 48


def largest_clusters(opens_SYX: np.ndarray, probability: float) -> np.ndarray:
    """Sites in the largest cluster of each lattice, int [S].

    Args:
        opens_SYX: uniform numbers; a site is open where its own is below `probability`, so that
            the same numbers at several probabilities give nested configurations.
        probability: of a site to be open.
    """
    open_SYX = opens_SYX < probability
    site = np.arange(open_SYX.size).reshape(open_SYX.shape)
    rows, columns = [], []
    for axis in (1, 2):
        joined = open_SYX & np.roll(open_SYX, -1, axis)
        rows.append(site[joined])
        columns.append(np.roll(site, -1, axis)[joined])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(site.size,) * 2)
    cluster = connected_components(graph, directed=False)[1]
    count = np.bincount(cluster, weights=open_SYX.ravel())
    return count[cluster].reshape(len(opens_SYX), -1).max(axis=1).astype(np.int64)
