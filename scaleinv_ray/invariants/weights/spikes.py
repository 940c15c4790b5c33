"""Spikes above the random bulk of a weight matrix's spectrum: learned directions.

Shape suffixes: O outputs, I inputs; M = min(O, I) eigenvalues of w w^T (or w^T w).
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import exact
from scaleinv_ray.invariants.common.covariance import (
    gram_eigenvalues,
    without_zeros,
)
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.weights.marchenko_pastur import bulk_edge
from scaleinv_ray.invariants.weights.tails import MIN_EIGENVALUES, rounding_floor
from scaleinv_ray.records import WeightMatrix

SPIKE_WIDTHS = 3.0
"""Tracy-Widom widths above the edge from which an eigenvalue counts as a spike.

Measured false spikes a Gaussian matrix: .003 at 16 x 64 and 64 x 200, .011 at 64 x 64.
"""


@invariant(
    quantities={
        "spikes": Quantity(
            law="integer",
            unit=1.0,
            meaning="Number of eigenvalues of W W^T above the edge of the random bulk",
        ),
        "edge_ratio": Quantity(
            law="none",
            meaning=(
                "Largest eigenvalue of W W^T over the edge of the random bulk; above 1 a learned "
                "direction"
            ),
        ),
    },
    symmetries=("rotation", "permutation", "transpose", "scale"),
    version=2,
)
def weight_spikes(matrix: WeightMatrix, *, rng: np.random.Generator) -> Measured:
    """Eigenvalues of w w^T above the edge of the Marchenko-Pastur bulk: learned directions.

    With q = M / N and s^2 = median lambda / median of the law (= N sigma_w^2 for independent
    entries; the median hardly sees the spikes) the edge is s^2 (1 + sqrt q)^2, and its
    Tracy-Widom width s^2 / N (sqrt N + sqrt M) (1 / sqrt N + 1 / sqrt M)^(1/3) (Johnstone, Ann.
    Stat. 29:295, 2001). A spike exceeds the edge by more than 3 widths. A signal of strength
    theta > sqrt q in the population covariance 1 + theta stands at (1 + theta)(1 + q / theta)
    (Baik, Ben Arous & Peche, 2005); a weaker one is not seen.

    Args:
        matrix: w_OI, any real dtype.
        rng: unused, nothing is random.

    Returns:
        spikes, their number, and edge_ratio = lambda_max / edge; both exact functions of w.
        Flags: edge, width, bulk_scale (s^2), ratio (q), zero_rows_columns (dropped first).

    Raises:
        Refused: not a finite matrix, fewer than 5 eigenvalues, or rank below M / 2.

    >>> w = np.random.default_rng(0).standard_normal((100, 400))
    >>> w[0] *= 3.0
    >>> weight_spikes(WeightMatrix(w_OI=w), rng=np.random.default_rng(0)).values["spikes"].value
    1.0
    """
    sound(matrix)
    filled_OI, dropped = without_zeros(matrix.w_OI)
    lambda_M = gram_eigenvalues(filled_OI)
    num_small, num_large = len(lambda_M), max(filled_OI.shape)
    if num_small < MIN_EIGENVALUES:
        raise Refused(f"spectrum: {num_small} eigenvalues, a bulk needs {MIN_EIGENVALUES}")
    if np.median(lambda_M) <= rounding_floor(lambda_M, num_large):
        raise Refused("spectrum: rank below half the smaller dimension, there is no bulk")
    bulk = bulk_edge(lambda_M, num_large)
    spikes = int((lambda_M > bulk.edge + SPIKE_WIDTHS * bulk.width).sum())
    return Measured(
        {
            "spikes": exact(spikes, n=num_small),
            "edge_ratio": exact(float(lambda_M[-1]) / bulk.edge, n=num_small),
        },
        flags={
            "edge": bulk.edge,
            "width": bulk.width,
            "bulk_scale": bulk.scale,
            "ratio": num_small / num_large,
            "zero_rows_columns": dropped,
        },
    )
