"""Holomorphy: poles and residues of a transformer.

A layer is not holomorphic; the resolvent R(z) = (z - A)^-1 of its Jacobian A is, and its poles and
residues are eigenvalues and projectors. So is the Stieltjes transform of a spectrum, and the
resolvent of the linear map that best takes a layer's rows to the next's.

Shape suffixes: T positions or rows (of different sequences), D width, E width without the
structural modes, N null matrices, V rows of the vocabulary, M eigenvalues, B blocks or resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.holomorphy import quantities
from scaleinv_ray.invariants.holomorphy.dynamic_modes import HeldOut, depth_blocks, held_out_modes
from scaleinv_ray.invariants.holomorphy.resolvents import (
    MAX_NULLS,
    deflated_jacobians,
    frobenius,
    ginibre_spectra,
    residue_norms,
    spectra,
)
from scaleinv_ray.invariants.holomorphy.spectral_poles import (
    SpectralPoles,
    covariance_spectra,
    pole_values,
    spectral_poles,
    weight_spectra,
)
from scaleinv_ray.invariants.holomorphy.transfer_function import both_ends, logit_medians
from scaleinv_ray.records import DepthStack, Jacobians, Moments, WeightMatrix
from scaleinv_ray.resample import jackknife

NEAR_CIRCLE = 1e-3
RADIUS_GRID = np.linspace(0.0, 2.0, 41)
NUM_BLOCKS = 10
"""Resamples of a weight matrix: a pole may be missing from one of them."""
DEPTH_BLOCKS = 8


@invariant(
    quantities=quantities.RESOLVENT_COUNTS,
    symmetries=("rotation", "permutation"),
    version=2,
    curves={
        "radial_count": "Share of eigenvalues nearer to zero; distance from zero",
        "poles": "Imaginary part of an eigenvalue; real part",
    },
    planned={"near_radius": 0.1},
)
def resolvent_counts(
    jacobians: Jacobians, *, rng: np.random.Generator, near_radius: float
) -> Measured:
    """Fractions of the poles of a layer's resolvent in disks, and its departure from normality.

    Of the eigenvalues lambda of A = d resid_out / d resid_in, without the structural ones:
    count_inside_unit = f(|lambda| < 1) = (1 / 2 pi i D) contour-integral tr (z - A)^-1 dz;
    count_inside_inner, _outer = f(|lambda| < 1 -+ near_radius) and count_ring the difference;
    count_near_one = f(|lambda - 1| < near_radius); spectral_radius = max |lambda|;
    henrici = sqrt(||A||_F^2 - sum |lambda|^2) / ||A||_F (Henrici 1962; 0 for a normal matrix);
    *_null = the same count of I + G, G a real Ginibre matrix with ||G||_F = ||A - I||_F.
    Values are means over positions, of nulls over up to eight draws of G. A near-identity map
    straddles |z| = 1 and has count_inside_unit of about 1/2 trivially: read it against the null.

    Structural eigenvalues lie at 1 for any weights: A 1 = 1 where a LayerNorm follows
    (`removes_mean`) and A h = h up to the norm's epsilon in a parallel block. They are projected
    out first. Counts of a defective matrix exist like any other and are not refused.

    Args:
        jacobians: j_TDD; h_TD where the residual is parallel.
        rng: source of the null's Ginibre matrices.
        near_radius: radius of the disk around 1 and half the width of the ring.

    Returns:
        Quantities with errors over positions; curves `radial_count` (fraction with |lambda| < x)
        and `poles` (eigenvalues at the first position, real and imaginary part); flags: number
        of structural modes and their residual, and eigenvalues (of all positions) within 1e-3 of
        each circle.

    Raises:
        Refused: where values are not finite, or a structural mode is none.
    """
    deflated = deflated_jacobians(jacobians)
    j_TEE = deflated.j_TEE
    pole_TE = spectra(j_TEE).pole_TD
    distance_T = frobenius(j_TEE - np.eye(j_TEE.shape[-1]))
    ginibre_NE = ginibre_spectra(j_TEE, rng).pole_TD
    inside_TR = (abs(pole_TE)[:, None, :] < RADIUS_GRID[:, None]).mean(axis=2)
    null_N = [_counts(1 + distance_T[:, None] * pole_E, near_radius) for pole_E in ginibre_NE]
    sample_T = {
        **_counts(pole_TE, near_radius),
        "spectral_radius": abs(pole_TE).max(axis=1),
        "henrici": _henrici(j_TEE, pole_TE),
        **{
            f"{name}_null": np.array([null[name].mean() for null in null_N])
            for name in ("count_inside_unit", "count_ring", "count_near_one")
        },
    }
    first = pole_TE[0][np.lexsort((pole_TE[0].imag, pole_TE[0].real))]
    inner, outer = 1 - near_radius, 1 + near_radius
    to_ring_TE = np.minimum(abs(abs(pole_TE) - inner), abs(abs(pole_TE) - outer))
    return Measured(
        {name: mean_of(sample, "sequences") for name, sample in sample_T.items()},
        curves={
            "radial_count": _curve(RADIUS_GRID, [mean_of(x, "sequences") for x in inside_TR.T]),
            "poles": Curve(first.real, first.imag),
        },
        flags=deflated.flags
        | {
            "at_unit_circle": int((abs(abs(pole_TE) - 1) < NEAR_CIRCLE).sum()),
            "at_near_circle": int((abs(abs(pole_TE - 1) - near_radius) < NEAR_CIRCLE).sum()),
            "at_ring_circles": int((to_ring_TE < NEAR_CIRCLE).sum()),
        },
    )


@invariant(
    quantities=quantities.RESIDUE_OVERLAP,
    symmetries=("rotation", "permutation"),
    version=2,
)
def residue_overlap(jacobians: Jacobians, *, rng: np.random.Generator) -> Measured:
    """Median norm of the residues of a layer's resolvent, over the width: its non-normality.

    The median of O_i / D (`residue_norms`: O = 1 for a normal matrix, of the order of D for a
    Ginibre matrix) over the eigenvalues of a position, complex and real ones apart (real ones
    have an infinite mean), then the mean over positions. Structural modes are projected out
    first; D counts what is left. *_null: the same of I + G, G a real Ginibre matrix of any norm.

    Args:
        jacobians: j_TDD; at least 60 positions are wanted (one 192-wide Ginibre matrix's median
            has a standard deviation of .12).
        rng: source of the null's matrices.

    Returns:
        Quantities with errors over the positions that have such eigenvalues, or refusals.

    Raises:
        Refused: where values are not finite, a structural mode is none, or a matrix is defective
            or has repeated eigenvalues.
    """
    deflated = deflated_jacobians(jacobians)
    found = residue_norms(deflated.j_TEE)
    null = ginibre_spectra(deflated.j_TEE, rng)
    real_TE, null_real_TE = found.pole_TD.imag == 0, null.pole_TD.imag == 0
    values = {
        "overlap_complex": _median(found.overlap_TD, ~real_TE),
        "overlap_real": _median(found.overlap_TD, real_TE),
        "overlap_complex_null": _median(null.overlap_TD, ~null_real_TE),
        "overlap_real_null": _median(null.overlap_TD, null_real_TE),
    }
    return Measured(values, flags=deflated.flags | {"real_fraction": float(real_TE.mean())})


@invariant(
    quantities=quantities.LOGIT_RESIDUES,
    symmetries=("rotation", "permutation", "similarity"),
)
def logit_residues(jacobians: Jacobians, *, rng: np.random.Generator) -> Measured:
    """Residues of a layer's resolvent between embeddings and the unembedding.

    H_uv(z) = u^T (z - A)^-1 v = sum_i r_i / (z - lambda_i), r_i = (u . x_i)(y_i . v), with v the
    embedding of the token at the position, u a row of the unembedding, and sum_i r_i = u . v.
    participation = (sum |r|)^2 / (D sum |r|^2). Of the pole lambda of the largest |r|:
    leading_share = |r| / sum |r_i|; leading_residue = |r| / |u . v|, above 1 where residues cancel;
    leading_real, _imag (modulus), _abs; leading_distance = |lambda - 1|, and _scaled over the root
    mean square of |lambda_i - 1|. Each is the median over u at a position, then the mean over
    positions. *_null: of a real Ginibre matrix and Gaussian u, v, at up to 8 positions.
    Structural modes are projected out of A, u and v first; D counts what is left. Without them
    nothing changes under a change of basis, A -> S^-1 A S, v -> S^-1 v, u -> S^T u.

    Args:
        jacobians: j_TDD, e_TD, u_VD; h_TD where the residual is parallel.
        rng: source of the null.

    Returns:
        Quantities with errors over positions; flag zero_readers: rows of u that are zero, left out.

    Raises:
        Refused: without e_TD or u_VD, not finite, a structural mode is none, or defective.
    """
    deflated = deflated_jacobians(jacobians)
    u_VD, e_TD, dropped = both_ends(jacobians)
    rows = [
        logit_medians(j_EE, u_VD @ rest_DE, e_D @ rest_DE)
        for j_EE, e_D, rest_DE in zip(deflated.j_TEE, e_TD, deflated.rest_TDE, strict=True)
    ]
    size = deflated.j_TEE.shape[-1]
    shapes = (size, size), (len(u_VD), size), (size,)
    null = [
        logit_medians(*(rng.standard_normal(shape) for shape in shapes)) for _ in rows[:MAX_NULLS]
    ]
    estimates = {name: _mean([row[name] for row in rows]) for name in rows[0]}
    for name in ("participation", "leading_share"):
        estimates[f"{name}_null"] = _mean([row[name] for row in null])
    return Measured(estimates, flags=deflated.flags | {"zero_readers": dropped})


@invariant(
    quantities=quantities.SPECTRAL_POLES,
    symmetries=("rotation", "permutation", "transpose", "scale"),
    version=2,
)
def stieltjes_poles(weights: WeightMatrix, *, rng: np.random.Generator) -> Measured:
    """Isolated poles and branch points of the Stieltjes transform of a weight matrix.

    m(z) = (1/M) tr (X - z)^-1, X = w w^T over its median eigenvalue, M the smaller side, is fitted
    by a rational function off the spectrum (`isolated_poles`). isolated_poles counts the poles
    that are single eigenvalues, residue -1/M (spikes); leading_over_edge is the largest of them
    over the upper edge; leading_weight its -M residue (1 exactly: a check of the fit); edge_upper
    and edge_lower are the branch points of the bulk's m (`branch_points`), refused where there is
    none (a square matrix has no lower one); residue_sum is over all poles (-1 exactly: a check).

    Args:
        weights: w_OI, smaller side at least 16 without rows and columns of zeros.
        rng: of the turned basis whose ten blocks are left out in turn (`turned_resamples`).

    Returns:
        The quantities, errors by the jackknife; flags: of the fit its poles, spurious poles,
        whether it reached its tolerance; zero_rows_columns, dropped.

    Raises:
        Refused: no matrix, too small, not finite, or half of the eigenvalues zero.
    """
    sound(weights)
    lambda_M, resampled, dropped = weight_spectra(weights.w_OI, NUM_BLOCKS, rng=rng)
    measured = _poles_measured(spectral_poles(lambda_M, resampled))
    return replace(measured, flags={**measured.flags, "zero_rows_columns": dropped})


@invariant(
    quantities=quantities.SPECTRAL_POLES,
    symmetries=("rotation", "permutation", "scale", "translation"),
)
def covariance_poles(moments: Moments, *, rng: np.random.Generator) -> Measured:
    """Isolated poles and branch points of the Stieltjes transform of an activation covariance.

    As `stieltjes_poles`, of the covariance of activations about their mean; where a LayerNorm
    follows, the all-ones direction is projected out. The resamples leave out a block each.

    Args:
        moments: at least 8 blocks of sequences, at least 50 tokens a dimension.
        rng: not used; nothing is drawn.

    Returns:
        As `stieltjes_poles`.

    Raises:
        Refused: too few blocks or tokens, not finite, too narrow, or half of the eigenvalues zero.
    """
    sound(moments)
    whole_D, left_out_BD = covariance_spectra(moments)
    return _poles_measured(spectral_poles(whole_D, left_out_BD))


@invariant(
    quantities=quantities.DEPTH_MODES,
    symmetries=("rotation", "permutation", "scale", "translation"),
    curves={"moduli": "Modulus of an eigenvalue of the step in depth; its rank"},
    planned={"rank": 10, "near_radius": 0.1},
)
def depth_modes(
    stack: DepthStack, *, rng: np.random.Generator, rank: int, near_radius: float
) -> Measured:
    """Modes of the linear map over depth, and how well it predicts against the identity.

    Exact dynamic mode decomposition of x_{l+1} = A x_l + b_l, one A for all layers, on the `rank`
    leading principal directions of the pooled rows (`fit_modes`): spectral_radius, and the
    fractions of the eigenvalues with |lambda| < 1 and |lambda - 1| < near_radius.
    prediction_error = sqrt(sum |x_{l+1} - A x_l - b_l|^2 / sum |x_{l+1}|^2) on held-out sequences,
    about the mean of each depth; identity_error is that of A = 1, error_ratio the two divided:
    near 1 the stream is carried through and the modes say little. Noise pulls them towards 0.

    Args:
        stack: x_LTD, at least 3 layers and 50 rows for each dimension of the subspace; where a
            LayerNorm follows, the mean over units is taken off.
        rng: not used; nothing is drawn.
        rank: dimensions of the subspace, the same at every width.
        near_radius: radius of the disk around 1.

    Returns:
        Quantities with jackknife errors over blocks of sequences; curve `moduli`: |lambda| by
        rank; flag `energy`: share of the variance in the subspace.

    Raises:
        Refused: too few layers, sequences or directions, or not finite.
    """
    sound(stack)
    blocks = depth_blocks(stack, num_blocks=DEPTH_BLOCKS, rank=rank)
    found = held_out_modes(blocks, rank=rank)

    def estimate(statistic: Callable[[HeldOut], float]) -> Estimate:
        return jackknife(lambda kept: statistic(found[tuple(kept)]), DEPTH_BLOCKS)

    def modulus(index: int) -> Estimate:
        return estimate(lambda held: float(abs(held.eigenvalue_R[index])))

    whole = found[tuple(range(DEPTH_BLOCKS))]
    if not whole.identity_error > 0:
        raise Refused("x_LTD: does not change over depth")
    moduli = [modulus(r) for r in range(rank)]
    values: dict[str, Estimate | Refused] = {
        "error_ratio": estimate(lambda held: held.error / held.identity_error),
        "prediction_error": estimate(lambda held: held.error),
        "identity_error": estimate(lambda held: held.identity_error),
        "spectral_radius": moduli[0],
        "inside_unit": estimate(lambda held: float((abs(held.eigenvalue_R) < 1).mean())),
        "near_one": estimate(lambda held: float((abs(held.eigenvalue_R - 1) < near_radius).mean())),
    }
    curve = _curve(np.arange(1.0, rank + 1), moduli)
    return Measured(values, curves={"moduli": curve}, flags={"energy": whole.energy})


def _counts(pole_TE: np.ndarray, near_radius: float) -> dict[str, np.ndarray]:
    modulus_TE = abs(pole_TE)
    inner_T = (modulus_TE < 1 - near_radius).mean(axis=1)
    outer_T = (modulus_TE < 1 + near_radius).mean(axis=1)
    return {
        "count_inside_unit": (modulus_TE < 1).mean(axis=1),
        "count_inside_inner": inner_T,
        "count_inside_outer": outer_T,
        "count_ring": outer_T - inner_T,
        "count_near_one": (abs(pole_TE - 1) < near_radius).mean(axis=1),
    }


def _henrici(j_TEE: np.ndarray, pole_TE: np.ndarray) -> np.ndarray:
    squared_T = frobenius(j_TEE) ** 2
    excess_T = squared_T - (abs(pole_TE) ** 2).sum(axis=1)
    return np.sqrt(np.maximum(excess_T, 0) / np.where(squared_T > 0, squared_T, 1))


def _curve(x: np.ndarray, estimates: Sequence[Estimate]) -> Curve:
    errors = [e.stderr for e in estimates if e.stderr is not None]
    known = np.array(errors) if len(errors) == len(estimates) else None
    return Curve(x, np.array([e.value for e in estimates]), known)


def _median(overlap_TE: np.ndarray, chosen_TE: np.ndarray) -> Estimate | Refused:
    medians = [
        float(np.median(overlap_E[chosen_E])) / len(overlap_E)
        for overlap_E, chosen_E in zip(overlap_TE, chosen_TE, strict=True)
        if chosen_E.any()
    ]
    return mean_of(medians, "sequences") if medians else Refused("no such eigenvalues")


def _mean(samples: Sequence[float]) -> Estimate | Refused:
    if not np.isfinite(samples).all():
        return Refused("not finite at some position (u . v = 0, or A = 1)")
    return mean_of(samples, "sequences")


def _poles_measured(found: SpectralPoles) -> Measured:
    fit = found.isolated
    flags = {"fit_poles": fit.num_poles, "spurious_poles": fit.num_spurious}
    return Measured(pole_values(found), flags=flags | {"converged": int(fit.converged)})
