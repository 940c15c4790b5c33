"""Holomorphy: poles and residues of the resolvents of a transformer's layer Jacobians.

A layer is not holomorphic; the resolvent R(z) = (z - A)^-1 of its Jacobian A is, and its poles and
residues are eigenvalues and projectors.

Shape suffixes: T positions (each of another sequence), D width, E width without the structural
modes.
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.records import Jacobians

MAX_STRUCTURAL_RESIDUAL = 0.05
"""||A v - v|| / ||v|| of a structural mode: exact for all-ones, 3e-4 for h, 1e-2 in bfloat16."""
NEAR_CIRCLE = 1e-3
MAX_OVERLAP = 1e12
"""Two eigenvalues of a Jordan block come out sqrt(eps) apart, their overlap as 1/eps."""
RADIUS_GRID = np.linspace(0.0, 2.0, 41)


def contour_count(a_DD: np.ndarray, *, center: complex, radius: float, nodes: int = 256) -> float:
    """Number of eigenvalues inside a circle by the contour integral of the resolvent's trace.

    (1 / 2 pi i) contour-integral tr (z - A)^-1 dz with the trapezoid rule, which gives
    sum_i 1 / (1 - w_i^nodes), w_i = (lambda_i - center) / radius: an integer but for eigenvalues
    close to the circle (Trefethen & Weideman, SIAM Rev. 56:385, 2014). A cross-check of
    `resolvent_counts`, which takes eigenvalues.

    Args:
        a_DD: square matrix.
        center: centre of the circle.
        radius: its radius.
        nodes: nodes of the trapezoid rule.

    Returns:
        The real part of the integral.

    >>> round(contour_count(np.diag([0.5, 1.0, 3.0]), center=0.0, radius=2.0), 12)
    2.0
    """
    offset = radius * np.exp(2j * np.pi * np.arange(nodes) / nodes)
    shifted = (center + offset)[:, None, None] * np.eye(len(a_DD)) - a_DD
    trace = np.trace(np.linalg.inv(shifted), axis1=1, axis2=2)
    return float((offset * trace).mean().real)


def deflate(j_DD: np.ndarray, modes_DM: np.ndarray) -> np.ndarray:
    """Compression of A to the orthogonal complement of right eigenvectors.

    As these span an invariant subspace, A is block triangular in a basis that begins with them,
    and the compression has exactly the other eigenvalues.

    Args:
        j_DD: the matrix.
        modes_DM: its structural right eigenvectors, linearly independent columns.

    Returns:
        A matrix of size D - M.

    >>> deflate(np.array([[0.5, 0.5], [0.25, 0.75]]), np.ones((2, 1))).round(12).tolist()
    [[0.25]]
    """
    basis_DD, _ = np.linalg.qr(modes_DM, mode="complete")
    rest_DE = basis_DD[:, modes_DM.shape[1] :]
    return rest_DE.T @ j_DD @ rest_DE


def residue_norms(a_TDD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poles of the resolvents of matrices and the squared norms of their residues.

    The residue of (z - A)^-1 at lambda_i is the projector P_i = x_i y_i^H / (y_i^H x_i), and
    O_i = ||P_i||_F^2 = ||x_i||^2 ||y_i||^2 / |y_i^H x_i|^2 (Chalker & Mehlig, PRL 81:3367, 1998).

    Args:
        a_TDD: square matrices, real or complex.

    Returns:
        Eigenvalues [T, D] and O [T, D].

    Raises:
        Refused: with a defective matrix: a pole of order 2 has no residue of rank 1.

    >>> residue_norms(np.array([[[1.0, 1.0], [0.0, 2.0]]]))[1].round(9).tolist()
    [[2.0, 2.0]]
    """
    pole_TD, right_TDD = np.linalg.eig(a_TDD)
    try:
        left_TDD = np.linalg.inv(right_TDD)
    except np.linalg.LinAlgError:
        raise Refused("defective: eigenvectors are linearly dependent") from None
    overlap_TD = (abs(left_TDD) ** 2).sum(axis=2) * (abs(right_TDD) ** 2).sum(axis=1)
    if not overlap_TD.max() < MAX_OVERLAP:
        raise Refused(f"defective: overlap {overlap_TD.max():.1e}, allowed < {MAX_OVERLAP:g}")
    return pole_TD, overlap_TD


@invariant(
    quantities={
        "count_inside_unit": Quantity(law="constant", margin=0.10, unit=0.5),
        "count_near_one": Quantity(law="constant", margin=0.10, unit=0.1),
        "spectral_radius": Quantity(law="constant", margin=0.10),
        "henrici": Quantity(law="constant", margin=0.10, unit=0.5),
        "count_inside_unit_null": Quantity(law="none", unit=0.5, control=True),
        "count_near_one_null": Quantity(law="none", unit=0.1, control=True),
    },
    symmetries=("rotation", "permutation"),
    curves=("radial_count", "poles"),
    planned={"near_radius": 0.1},
)
def resolvent_counts(
    jacobians: Jacobians, *, rng: np.random.Generator, near_radius: float
) -> Measured:
    """Fractions of the poles of a layer's resolvent in disks, and its departure from normality.

    Of the eigenvalues lambda of A = d resid_out / d resid_in, without the structural ones:
    count_inside_unit = f(|lambda| < 1) = (1 / 2 pi i D) contour-integral tr (z - A)^-1 dz;
    count_near_one = f(|lambda - 1| < near_radius); spectral_radius = max |lambda|;
    henrici = sqrt(||A||_F^2 - sum |lambda|^2) / ||A||_F (Henrici 1962; 0 for a normal matrix);
    *_null = the same count of I + G, G a real Ginibre matrix with ||G||_F = ||A - I||_F.
    Values are means over positions. A near-identity map straddles |z| = 1 and has
    count_inside_unit of about 1/2 trivially: read it against the null.

    Structural eigenvalues lie at 1 for any weights: A 1 = 1 where a LayerNorm follows
    (`removes_mean`) and A h = h up to the norm's epsilon in a parallel block. They are projected
    out first. Counts of a defective matrix exist like any other and are not refused.

    Args:
        jacobians: j_TDD; h_TD where the residual is parallel.
        rng: source of the null's Ginibre matrices.
        near_radius: radius of the disk around 1.

    Returns:
        Quantities with errors over positions; curves `radial_count` (fraction with |lambda| < x)
        and `poles` (eigenvalues at the first position, real and imaginary part); flags: number
        of structural modes and their residual, and eigenvalues (of all positions) within 1e-3 of
        each circle.

    Raises:
        Refused: where values are not finite, or a structural mode is none.
    """
    j_TEE, flags = _deflated(jacobians)
    size = j_TEE.shape[-1]
    pole_TE = np.linalg.eigvals(j_TEE).astype(complex)
    distance_T = np.linalg.norm(j_TEE - np.eye(size), axis=(1, 2))
    ginibre_TEE = rng.standard_normal(j_TEE.shape)
    ginibre_TEE *= (distance_T / np.linalg.norm(ginibre_TEE, axis=(1, 2)))[:, None, None]
    null_TE = np.linalg.eigvals(np.eye(size) + ginibre_TEE)
    inside_TR = (abs(pole_TE)[:, None, :] < RADIUS_GRID[:, None]).mean(axis=2)
    radial_R = [mean_of(inside_T, "sequences") for inside_T in inside_TR.T]
    sample_T = {
        "count_inside_unit": (abs(pole_TE) < 1).mean(axis=1),
        "count_near_one": (abs(pole_TE - 1) < near_radius).mean(axis=1),
        "spectral_radius": abs(pole_TE).max(axis=1),
        "henrici": _henrici(j_TEE, pole_TE),
        "count_inside_unit_null": (abs(null_TE) < 1).mean(axis=1),
        "count_near_one_null": (abs(null_TE - 1) < near_radius).mean(axis=1),
    }
    first = pole_TE[0][np.lexsort((pole_TE[0].imag, pole_TE[0].real))]
    return Measured(
        {name: mean_of(sample, "sequences") for name, sample in sample_T.items()},
        curves={
            "radial_count": Curve(
                RADIUS_GRID, np.array([e.value for e in radial_R]), _stderr(radial_R)
            ),
            "poles": Curve(first.real, first.imag),
        },
        flags=flags
        | {
            "at_unit_circle": int((abs(abs(pole_TE) - 1) < NEAR_CIRCLE).sum()),
            "at_near_circle": int((abs(abs(pole_TE - 1) - near_radius) < NEAR_CIRCLE).sum()),
        },
    )


@invariant(
    quantities={
        "overlap_complex": Quantity(law="constant", margin=0.10),
        "overlap_real": Quantity(law="constant", margin=0.10),
    },
    symmetries=("rotation", "permutation"),
)
def residue_overlap(jacobians: Jacobians, *, rng: np.random.Generator) -> Measured:
    """Median norm of the residues of a layer's resolvent, over the width: its non-normality.

    The median of O_i / D (`residue_norms`: O = 1 for a normal matrix, of the order of D for a
    Ginibre matrix) over the eigenvalues of a position, complex and real ones apart (real ones
    have an infinite mean), then the mean over positions. Structural modes are projected out
    first; D counts what is left.

    Args:
        jacobians: j_TDD; at least 60 positions are wanted (one 192-wide Ginibre matrix's median
            has a standard deviation of .12).
        rng: not used; nothing is drawn.

    Returns:
        Quantities with errors over the positions that have such eigenvalues; refused where none
        has.

    Raises:
        Refused: where values are not finite, a structural mode is none, or a matrix is defective.
    """
    j_TEE, flags = _deflated(jacobians)
    pole_TE, overlap_TE = residue_norms(j_TEE)
    is_real_TE = np.imag(pole_TE) == 0
    values = {
        "overlap_complex": _median(overlap_TE, ~is_real_TE),
        "overlap_real": _median(overlap_TE, is_real_TE),
    }
    return Measured(values, flags=flags | {"real_fraction": float(is_real_TE.mean())})


def _deflated(jacobians: Jacobians) -> tuple[np.ndarray, dict[str, float | int]]:
    """Jacobians without their structural modes, float64, and how many and how exact these are."""
    j_TDD = jacobians.j_TDD.astype(np.float64, copy=False)
    if not np.isfinite(j_TDD).all():
        raise Refused(f"j_TDD: got {np.count_nonzero(~np.isfinite(j_TDD))} values not finite")
    num_positions, size, _ = j_TDD.shape
    modes = []
    if jacobians.removes_mean:
        modes.append(np.ones((num_positions, size)))
    if jacobians.parallel_residual and jacobians.h_TD is not None:
        modes.append(jacobians.h_TD.astype(np.float64))
    if not modes:
        return j_TDD, {"structural_modes": 0}
    modes_TDM = np.stack(modes, axis=2)
    image_TDM = j_TDD @ modes_TDM
    residual = np.linalg.norm(image_TDM - modes_TDM, axis=1) / np.linalg.norm(modes_TDM, axis=1)
    if not residual.max() < MAX_STRUCTURAL_RESIDUAL:
        raise Refused(
            f"structural mode: got |A v - v| / |v| = {residual.max():.2g}, "
            f"allowed < {MAX_STRUCTURAL_RESIDUAL} (all-ones where removes_mean, h where parallel)"
        )
    flags = {"structural_modes": len(modes), "structural_residual": float(residual.max())}
    return np.array([deflate(j, m) for j, m in zip(j_TDD, modes_TDM, strict=True)]), flags


def _henrici(j_TEE: np.ndarray, pole_TE: np.ndarray) -> np.ndarray:
    squared_T = (j_TEE**2).sum(axis=(1, 2))
    excess_T = squared_T - (abs(pole_TE) ** 2).sum(axis=1)
    return np.sqrt(np.maximum(excess_T, 0) / np.where(squared_T > 0, squared_T, 1))


def _stderr(estimates: list[Estimate]) -> np.ndarray | None:
    errors = [e.stderr for e in estimates if e.stderr is not None]
    return np.array(errors) if len(errors) == len(estimates) else None


def _median(overlap_TE: np.ndarray, chosen_TE: np.ndarray) -> Estimate | Refused:
    medians = [
        float(np.median(overlap_E[chosen_E])) / len(overlap_E)
        for overlap_E, chosen_E in zip(overlap_TE, chosen_TE, strict=True)
        if chosen_E.any()
    ]
    return mean_of(medians, "sequences") if medians else Refused("no such eigenvalues")
