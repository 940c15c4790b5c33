"""Renormalisation: critical exponents of activations under phenomenological coarse-graining.

Units are paired by correlation and summed, again and again; exponents say how the statistics of
the sums grow with the cluster size K, flows how they move with the units, the modes and depth.

Shape suffixes: T tokens, N units, C clusters, K cluster sizes (or units in a cluster), B blocks of
sequences, R replicates (all blocks, then all but one), S sequences, P positions, L depths, J sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.block_replicates import (
    MIN_TOKENS_PER_UNIT,
    MIN_UNITS,
    alive_in_replicates,
    block_covariances,
    curve_of,
    estimate_of,
    living_units,
    replicates,
    sequence_parts,
    stream_rows,
)
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.renormalization import quantities
from scaleinv_ray.invariants.renormalization.depth_exponents import depth_exponents, ranked_units
from scaleinv_ray.invariants.renormalization.momentum_space import projected_kurtosis
from scaleinv_ray.invariants.renormalization.scaling_exponents import (
    MIN_EIGENVALUE,
    largest_cluster,
    mean_exponents,
    memory_exponents,
    scaling,
    silence_exponents,
    slope,
)
from scaleinv_ray.invariants.renormalization.surrogates import surrogate_covariances
from scaleinv_ray.records import Activations, DepthStack
from scaleinv_ray.resample import sequence_blocks


@invariant(
    quantities=quantities.CRITICAL_EXPONENTS,
    symmetries=("permutation", "scale", "mean_shift"),
    scheme="stream",
    curves={
        "variance_flow": "Variance of a cluster, over that of one unit; units in a cluster",
        "cluster_spectrum": "Eigenvalue within a cluster; its rank over the units of a cluster",
    },
    planned={"skip_positions": 1},
    version=3,
)
def critical_exponents(
    stream: Activations,
    *,
    rng: np.random.Generator,
    skip_positions: int,
    num_blocks: int = 8,
    num_factors: int = 10,
) -> Measured:
    """Critical exponents of a stream under greedy coarse-graining of its units.

    With X^(K) the sum over a cluster of K units, K = 1, 2, .., N/4, clusters found by pairing the
    most correlated (Meshulam, Gauthier, Brody, Tank & Bialek, PRL 123:178103, 2019):
    alpha_tilde: mean_i Var X_i^(K) ~ K^alpha_tilde (independent 1, fully correlated 2);
    mu: eigenvalues of the correlation inside a cluster ~ (K/r)^mu, 1 < r < 0.4 K, the mean over
    K = 16, .., N/4 (8 where N < 64);
    beta_tilde: -ln P(all units of a cluster exactly zero) ~ K^beta_tilde (independent 1);
    z_tilde: tau_c ~ K^z_tilde, tau_c the position lag at which the autocorrelation of X^(K) about
    the mean of its position falls to 1/e (the same law for every unit, independently: 0);
    consistency = alpha_tilde - 1 - mu, 0 for an infinite translation-invariant critical system.
    Beside them, of the same number of units and tokens:
    *_rotated: after one random rotation (exponents of residual sites depend on the basis);
    *_permuted: every unit's rows permuted independently (nothing joint is left);
    *_latent: Gaussian rows of a model of a few latent factors, without any criticality, fitted to
    the covariance (`factor_model`; the very same covariance would have the same exponents);
    consistency_surrogate: `consistency` of a translation-invariant field on a ring with the same
    eigenvalues of the correlation, what finite N leaves of 0 (-.1 to -.5).
    Constant units are left out, at the same cluster sizes, and counted in `dead_units`. Where the
    record `removes_mean`, every row's mean over the others is taken out.

    Args:
        stream: x_TD with N = D sampled units, whole sequences, T/N >= 50.
        rng: source of the rotation and the surrogates; one of each serves all replicates.
        skip_positions: positions at the start of each sequence to leave out (attention sinks at
            the first token, of 100x the norm, would be the only correlation: Sun et al. 2024,
            arXiv 2402.17762).
        num_blocks: blocks of sequences of the delete-one jackknife, at most the sequences.
            Clusters are found anew in each replicate (for z_tilde kept): errors are 1 to 2.5
            times the spread over streams, as pairing jumps; with clusters kept, down to .2 times.
        num_factors: of the latent-factor surrogate; ten slow latents imitate a critical system.

    Returns:
        The exponents with jackknife errors (of permuted and latent rows: over blocks of those);
        curves `variance_flow` (variance over that of one unit, against K) and `cluster_spectrum`
        (lambda_r against r/K at the largest K); flags.

    Raises:
        Refused: values not finite, under 32 units or 50 tokens a unit, over a quarter constant.
    """
    x_TN, rows_B = stream_rows(stream, skip_positions=skip_positions, num_blocks=num_blocks)
    covariance_RNN = block_covariances(x_TN, rows_B)
    variance_RN = np.diagonal(covariance_RNN, axis1=1, axis2=2)
    alive_N = alive_in_replicates(x_TN, rows_B) & (variance_RN > 0).all(axis=0)
    unit_N = living_units(variance_RN[0], alive_N)
    covariance_RNN = covariance_RNN[:, unit_N[:, None], unit_N]
    largest = largest_cluster(x_TN.shape[1])
    own = scaling(covariance_RNN, largest=largest)
    nulls = surrogate_covariances(
        x_TN[:, unit_N], rows_B, covariance_RNN, num_factors=num_factors, rng=rng
    )
    null = {name: scaling(c_RNN, largest=largest) for name, c_RNN in nulls.items()}
    ring = null.pop("ring")
    keep_R, top_RCK = replicates(len(rows_B)), unit_N[own.cluster_RCK]
    result_R: dict[str, np.ndarray | Refused] = {
        "alpha_tilde": own.alpha_R,
        "mu": own.mu_R,
        "beta_tilde": silence_exponents(x_TN, rows_B, keep_R, top_RCK),
        "z_tilde": _memory(stream, x_TN, rows_B, top_RCK[0]),
        "consistency": own.alpha_R - 1 - own.mu_R,
        "consistency_surrogate": ring.alpha_R - 1 - ring.mu_R,
        **{f"alpha_tilde_{name}": found.alpha_R for name, found in null.items()},
        **{f"mu_{name}": found.mu_R for name, found in null.items()},
    }
    size_K, share_K = 2.0 ** np.arange(len(own.variance_RK[0])), np.arange(1, largest + 1) / largest
    curves = {
        "variance_flow": curve_of(size_K, own.variance_RK),
        "cluster_spectrum": curve_of(share_K, own.spectrum_RK),
    }
    flags = {"num_units": len(unit_N), "dead_units": x_TN.shape[1] - len(unit_N)}
    return Measured(_values(result_R, rows_B), curves=curves, flags=flags)


@invariant(
    quantities=quantities.SIZE_FLOW,
    symmetries=("permutation", "scale", "translation", "mean_shift"),
    scheme="stream",
    curves={
        "alpha_by_size": "Exponent of the variance; number of units",
        "mu_by_size": "Exponent of the spectrum; number of units",
    },
    planned={"skip_positions": 1},
    version=2,
)
def size_flow(
    stream: Activations,
    *,
    rng: np.random.Generator,
    skip_positions: int,
    num_halvings: int = 2,
    num_draws: int = 4,
    num_blocks: int = 8,
) -> Measured:
    """Exponents against the number of units, by sub-sampling: what a larger N would change.

    alpha_tilde and mu (`critical_exponents`) of N, N/2, N/4, .. units, each with clusters up to a
    quarter of its own units: at N / 2^j the units fall at random into 2^j disjoint subsets and the
    sequences into 2^j disjoint parts, a part a subset, so that T/N is the same at every size (the
    noise of correlations is a part of mu); means over subsets and draws. alpha_size_slope and
    mu_size_slope are d alpha_tilde / d ln N and d mu / d ln N, by least squares.

    Args:
        stream: x_TD with N = D sampled units, whole sequences, T/N >= 50.
        rng: source of the subsets.
        skip_positions: positions at the start of each sequence to leave out.
        num_halvings: sizes below N; the smallest has 32 units or more.
        num_draws: random divisions at each size below N.
        num_blocks: blocks of sequences of the delete-one jackknife; every block has a sequence
            in each part.

    Returns:
        Slopes and the values at the smallest N, with jackknife errors; curves against N.

    Raises:
        Refused: as `critical_exponents`; too few units or sequences for the halvings; units
            constant in a part count as constant.
        ValueError: num_halvings or num_draws below 1.
    """
    sound(stream)
    if num_halvings < 1 or num_draws < 1:
        raise ValueError(f"num_halvings, num_draws: got {num_halvings}, {num_draws}, allowed >= 1")
    num_units, num_parts = stream.x_TD.shape[1], 2**num_halvings
    if num_units < MIN_UNITS * num_parts:
        least = MIN_UNITS * num_parts
        raise Refused(f"units: got {num_units}, {num_halvings} halvings need {least}")
    rank_T = np.unique(stream.sequence_T, return_inverse=True)[1]
    num_blocks = min(num_blocks, int(rank_T.max() + 1) // num_parts)
    if num_blocks < 1:
        raise Refused(f"sequences: got {rank_T.max() + 1}, allowed >= {num_parts} (one a part)")
    x_TN, rows_B = stream_rows(stream, skip_positions=skip_positions, num_blocks=num_blocks)
    parts_J = [sequence_parts(rows_B, rank_T, 2**j) for j in range(num_halvings + 1)]
    alive_N = np.all([alive_in_replicates(x_TN, part) for part in parts_J[-1]], axis=0)
    unit_N = living_units(x_TN.var(axis=0, dtype=np.float64), alive_N)
    largest = largest_cluster(num_units)
    order_N = [rng.permutation(unit_N) for _ in range(num_draws)]
    found = [
        mean_exponents(x_TN, parts, order_N[: None if j else 1], largest=largest >> j)
        for j, parts in enumerate(parts_J)
    ]
    size_J = num_units / 2.0 ** np.arange(num_halvings + 1)
    alpha_RJ, mu_RJ = np.stack(found, axis=2)
    result_R: dict[str, np.ndarray | Refused] = {
        "alpha_size_slope": slope(np.log(size_J), alpha_RJ),
        "mu_size_slope": slope(np.log(size_J), mu_RJ),
        "alpha_tilde_smallest": alpha_RJ[:, -1],
        "mu_smallest": mu_RJ[:, -1],
    }
    curves = _finite_curves(size_J, alpha_by_size=alpha_RJ, mu_by_size=mu_RJ)
    flags = {"num_units": len(unit_N), "dead_units": num_units - len(unit_N)}
    return Measured(_values(result_R, rows_B), curves=curves, flags=flags)


@invariant(
    quantities=quantities.KURTOSIS_FLOW,
    symmetries=("permutation", "scale", "translation", "mean_shift"),
    scheme="stream",
    curves={"kurtosis_flow": "Kurtosis of a coarse mode; share of the modes kept"},
    planned={"skip_positions": 1},
    version=2,
)
def kurtosis_flow(
    stream: Activations,
    *,
    rng: np.random.Generator,
    skip_positions: int,
    num_halvings: int = 5,
    num_blocks: int = 8,
) -> Measured:
    """Kurtosis of the units under coarse-graining in momentum space.

    Units are projected on the K leading eigenvectors of their correlation and back, K = N, N/2,
    N/4, ..; kurtosis(K) is the mean over units of <phi^4> / <phi^2>^2 (Bradde & Bialek, J. Stat.
    Phys. 167:462, 2017; Meshulam et al., PRL 123:178103, 2019). It flows to 3 at a Gaussian fixed
    point, as sums of many independent units do; a plateau off 3 is a non-Gaussian one.
    kurtosis_full is at K = N, kurtosis_coarse at the smallest K, kurtosis_slope d ln kurtosis /
    d ln K. Without `removes_mean` the scale of every single unit drops out too.

    Args:
        stream: x_TD with N = D sampled units, whole sequences, T/N >= 50.
        rng: not used, nothing is random.
        skip_positions: positions at the start of each sequence to leave out.
        num_halvings: levels below K = N.
        num_blocks: blocks of sequences of the delete-one jackknife, eigenvectors anew in each:
            1 to 2 times the spread over streams, .6 where tails are heavy (a fourth moment).

    Returns:
        Values with jackknife errors; curve `kurtosis_flow` against K/N.

    Raises:
        Refused: as `critical_exponents`; fewer than 2^num_halvings units that vary.
        ValueError: num_halvings below 1.
    """
    del rng
    if num_halvings < 1:
        raise ValueError(f"num_halvings: got {num_halvings}, allowed >= 1")
    x_TN, rows_B = stream_rows(stream, skip_positions=skip_positions, num_blocks=num_blocks)
    unit_N = living_units(x_TN.var(axis=0, dtype=np.float64), alive_in_replicates(x_TN, rows_B))
    size_K = len(unit_N) >> np.arange(num_halvings + 1)
    if size_K[-1] == 0:
        raise Refused(f"units that vary: got {len(unit_N)}, needs {2**num_halvings}")
    x_TN = x_TN[:, unit_N]
    kurtosis_RK = np.array([
        projected_kurtosis(x_TN[np.concatenate([rows_B[b] for b in keep])], size_K)
        for keep in replicates(len(rows_B))
    ])
    result_R: dict[str, np.ndarray | Refused] = {
        "kurtosis_full": kurtosis_RK[:, 0],
        "kurtosis_coarse": kurtosis_RK[:, -1],
        "kurtosis_slope": slope(np.log(size_K), np.log(kurtosis_RK)),
    }
    return Measured(
        _values(result_R, rows_B),
        curves={"kurtosis_flow": curve_of(size_K / len(unit_N), kurtosis_RK)},
        flags={"num_units": len(unit_N), "dead_units": stream.x_TD.shape[1] - len(unit_N)},
    )


@invariant(
    quantities=quantities.DEPTH_FLOW,
    symmetries=("permutation", "scale", "translation", "mean_shift"),
    curves={
        "alpha_by_depth": "Exponent of the variance; depth l / L",
        "mu_by_depth": "Exponent of the spectrum; depth l / L",
        "participation_by_depth": "Participation ratio over the width; depth l / L",
    },
    version=2,
)
def depth_flow(
    stack: DepthStack, *, rng: np.random.Generator, num_units: int = 128, num_blocks: int = 8
) -> Measured:
    """Flow of the exponents and of the covariance spectrum over depth, depth as RG time.

    On the same sampled units at every depth l/L: alpha_tilde and mu (`critical_exponents`), and
    the participation ratio of the covariance, (sum l)^2 / sum l^2 over N, 1 for equal independent
    units. *_change is the value at depth 1 minus that at depth 0 (participation: of the
    logarithm), *_slope the least-squares slope against l/L. Where the record `removes_mean`, every
    row's mean over units that vary is taken out. Exponents at residual sites depend on the basis.

    Args:
        stack: x_LTD, rows of one position, depth 0 = embeddings.
        rng: source of the units, drawn by rank of variance (no names of units enter).
        num_units: units sampled, at most D, T/N >= 50: the same at every width.
        num_blocks: blocks of sequences of the delete-one jackknife.

    Returns:
        Changes and slopes with jackknife errors; curves over l/L.

    Raises:
        Refused: with values not finite, fewer than two depths, fewer than `num_units` units that
            vary at every depth, or under 50 rows a unit.
        ValueError: num_units below 32.
    """
    sound(stack)
    num_levels, num_rows, width = stack.x_LTD.shape
    if num_units < MIN_UNITS:
        raise ValueError(f"num_units: got {num_units}, allowed >= {MIN_UNITS}")
    if num_levels < 2:
        raise Refused(f"depths: got {num_levels}, allowed >= 2")
    if num_rows < MIN_TOKENS_PER_UNIT * num_units:
        raise Refused(f"rows per unit: got {num_rows}/{num_units}, needs {MIN_TOKENS_PER_UNIT}")
    rows_B = sequence_blocks(stack.sequence_T, min(num_blocks, len(np.unique(stack.sequence_T))))
    ranked_N = ranked_units(stack, rows_B)
    if len(ranked_N) < num_units:
        raise Refused(f"units always varying: got {len(ranked_N)} of {width}, needs {num_units}")
    unit_N = ranked_N[np.sort(rng.choice(len(ranked_N), num_units, replace=False))]
    alpha_RL, mu_RL, share_RL = depth_exponents(stack, unit_N, rows_B)
    depth_L = np.linspace(0, 1, num_levels)
    result_R: dict[str, np.ndarray | Refused] = {
        "alpha_change": alpha_RL[:, -1] - alpha_RL[:, 0],
        "mu_change": mu_RL[:, -1] - mu_RL[:, 0],
        "alpha_depth_slope": slope(depth_L, alpha_RL),
        "mu_depth_slope": slope(depth_L, mu_RL),
        "participation_change": np.log(share_RL[:, -1] / share_RL[:, 0]),
    }
    by_depth = {"alpha_by_depth": alpha_RL, "mu_by_depth": mu_RL}
    curves = _finite_curves(depth_L, **by_depth, participation_by_depth=share_RL)
    return Measured(_values(result_R, rows_B), curves=curves, flags={"num_units": num_units})


def _memory(
    stream: Activations, x_TN: np.ndarray, rows_B: list[np.ndarray], top_CK: np.ndarray
) -> np.ndarray | Refused:
    """z_tilde of every replicate, with one set of clusters."""
    rows = np.concatenate(rows_B)
    position_T, num_sequences = stream.position_T[rows], len(np.unique(stream.sequence_T[rows]))
    num_positions = len(rows) // num_sequences
    grid_T = np.tile(position_T[0] + np.arange(num_positions), num_sequences)
    if not np.array_equal(position_T, grid_T):
        return Refused("positions: need to be the same, without gaps, in every sequence")
    x_NSP = x_TN[np.ix_(rows, top_CK.ravel())].T.reshape(-1, num_sequences, num_positions)
    block_S = np.repeat(np.arange(len(rows_B)), [len(block) // num_positions for block in rows_B])
    member_SB = np.equal.outer(block_S, np.arange(len(rows_B)))
    return memory_exponents(x_NSP, member_SB, replicates(len(rows_B)), num_clusters=len(top_CK))


def _values(
    result_R: Mapping[str, np.ndarray | Refused], rows_B: list[np.ndarray]
) -> dict[str, Estimate | Refused]:
    """Jackknife estimates; mu is nan where eigenvalues vanish."""
    copies = Refused(f"eigenvalues inside clusters below {MIN_EIGENVALUE:g}: units are copies")
    num_rows = sum(len(rows) for rows in rows_B)
    return {
        name: copies
        if isinstance(values, np.ndarray) and np.isnan(values).any()
        else estimate_of(values, n=num_rows)
        for name, values in result_R.items()
    }


def _finite_curves(x: np.ndarray, **y_R: np.ndarray) -> dict[str, Curve]:
    return {name: curve_of(x, y) for name, y in y_R.items() if np.isfinite(y).all()}
