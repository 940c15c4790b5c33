"""Susceptibilities and Bayesian influences: how losses move together around a minimum.

Shape suffixes: C chains, S draws, Q other probes, V variables, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.block_replicates import curve_of, estimate_of, replicates
from scaleinv_ray.invariants.common.soundness import LARGEST
from scaleinv_ray.invariants.degeneracy.chain_verdict import (
    Grade,
    Setting,
    briefly,
    excess_draws,
    judged_settings,
    ladder,
    said,
    with_value,
)
from scaleinv_ray.invariants.degeneracy.welford import Welford, merge
from scaleinv_ray.records import Chains

LEAST_REPLICATES = 8
"""Chains, or parts of chains, over which the error of a covariance is taken."""
MOST_NOISE = 0.5
"""Share of the sum of squares that may be noise where the shape of a response is described."""
MOST_ADDED = 0.1
"""Share of tr R^2 that noise may make."""


@invariant(
    quantities={
        "susceptibility_self": Quantity(
            law="power_law",
            nats="per_token",
            meaning="Response of the loss to more weight on its own data, nats; below 0 it falls",
        ),
        "susceptibility_rms": Quantity(
            law="power_law",
            nats="per_token",
            meaning=(
                "Root mean square response of the losses of all probes to more of the data, nats"
            ),
        ),
        "susceptibility_participation": Quantity(
            law="none",
            unit=1.0,
            meaning="Share of the probes that answer to more of the data; 1 where all do alike",
        ),
        "susceptibility_entropy": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "Entropy of the responses over ln of the number of probes; 1 where all answer alike"
            ),
        ),
    },
    curves={
        "susceptibilities": "Susceptibility; number of the pair",
        "susceptibilities_t": "Conditional susceptibility; number of the pair",
    },
)
def susceptibilities(chains: Chains, *, rng: np.random.Generator) -> Measured:
    """How the posterior around the minimum answers to more of other data.

    chi_q = -nbeta Cov(excess loss of probe q, excess loss of the sampled data) over the draws after
    burn-in, nats: the change of the mean loss of q per relative change of the weight of the sampled
    data (Baker, Wang, Hoogland & Murfet 2025). Negative where both fall together. The batch that
    gives the sampled loss is independent of the fixed ones of the probes, so its noise widens the
    error and does not enter chi. Restricted to a component where the chains are.

    susceptibility_self: chi of the record's own probe, among those observed; -lambda / nbeta at a
    regular minimum. susceptibility_rms: sqrt(mean_q chi_q^2). susceptibility_participation:
    (sum chi^2)^2 / (Q sum chi^4), the share of probes that answer. susceptibility_entropy:
    -sum p ln p / ln Q with p = |chi_q| / sum |chi|. Of the setting that `learning_coefficient`
    takes, and refused where that setting is rejected by itself (how lambda depends on gamma is not
    looked at); the last three where more than half of sum chi^2 is noise.

    Args:
        chains: with observed_QNCS and its names.
        rng: not drawn from.

    Returns:
        The quantities, errors by a jackknife over chains (parts of chains under 8). Curve
        `susceptibilities`: chi_q by index of the probe, in the order of the flag `probes`, named
        `susceptibilities_t` where rejected. Flags: probes, verdict, reasons, nbeta, gamma,
        noise_share, num_replicates.

    Raises:
        Refused: without observed probes, for names or shapes that do not fit, and as
            `learning_coefficient`.
    """
    main = with_value(ladder(judged_settings(chains)))
    names = _observed_names(chains)
    covariance_RVV = _covariances(chains, main)
    count = len(covariance_RVV) - 1
    chi_RQ = -main.nbeta * covariance_RVV[:, 0, 1:]
    noise = _noise(chi_RQ)
    own: Estimate | Refused = Refused(
        "susceptibility_self: needs the own probe among those observed"
    )
    if chains.probe in names:
        own = estimate_of(chi_RQ[:, names.index(chains.probe)], n=count)
    few = Refused("susceptibility_entropy: needs two probes or more")
    values: dict[str, Estimate | Refused] = {
        "susceptibility_self": own,
        "susceptibility_rms": _of_shape(lambda x: np.sqrt((x**2).mean(axis=1)), chi_RQ, noise),
        "susceptibility_participation": _of_shape(_participation, chi_RQ, noise),
        "susceptibility_entropy": few if len(names) < 2 else _of_shape(_entropy, chi_RQ, noise),
    }
    return _measured("susceptibilities", values, chi_RQ, names, main, noise)


@invariant(
    quantities={
        "influence_self": Quantity(
            law="power_law",
            nats="per_token",
            meaning=(
                "Variance of a probe's loss in the posterior times the inverse temperature, nats"
            ),
        ),
        "influence_correlation": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "Mean correlation of the probes' losses in the posterior; 1 where all share "
                "directions"
            ),
        ),
        "influence_rank": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "Effective share of independent probes in the posterior; 1 where none has to do "
                "with another"
            ),
        ),
    },
    curves={
        "influences": "Influence; number of the pair",
        "influences_t": "Conditional influence; number of the pair",
    },
)
def bayesian_influences(chains: Chains, *, rng: np.random.Generator) -> Measured:
    """How the losses of probes move each other in the posterior around the minimum.

    BIF_qp = -nbeta Cov(excess loss of q, excess loss of p) over the draws after burn-in, nats: the
    change of the mean loss of q where probe p is added to the sampled data, per weight relative to
    theirs (local Bayesian influence function, Kreer et al. 2025, of probes as wholes). The batches
    of the probes are fixed, so no noise of batches enters. With quadratic losses it is
    -tr(H_q S H_p S) nbeta / 2, S the covariance of the parameters: no inverse is taken.

    influence_self: mean_q nbeta Var(loss of q). influence_correlation: mean over pairs of
    Cov_qp / sqrt(Var_q Var_p), 1 where all probes stand on the same directions. influence_rank:
    tr(R)^2 / (Q tr R^2) of the matrix R of these correlations, 1 where none has to do with another
    and 1 / Q where all are one; refused where a tenth of tr R^2 is noise. Setting and verdict as of
    `susceptibilities`.

    Args:
        chains: with observed_QNCS and its names.
        rng: not drawn from.

    Returns:
        The quantities, errors by a jackknife over chains (parts of chains under 8). Curve
        `influences`: BIF_qp by q * Q + p, in the order of the flag `probes`, named `influences_t`
        where rejected. Flags as of `susceptibilities`.

    Raises:
        Refused: with fewer than two observed probes, where the loss of one does not move, for names
            or shapes that do not fit, and as `learning_coefficient`.
    """
    main = with_value(ladder(judged_settings(chains)))
    names = _observed_names(chains)
    if len(names) < 2:
        raise Refused(f"observed: got {len(names)} probe, needs 2 or more")
    covariance_RVV = _covariances(chains, main)
    count = len(covariance_RVV) - 1
    covariance_RQQ = covariance_RVV[:, 1:, 1:]
    variance_RQ = np.einsum("rqq->rq", covariance_RQQ)
    if not (variance_RQ > 0).all():
        still = [names[q] for q in np.flatnonzero((variance_RQ <= 0).any(axis=0))]
        raise Refused(f"observed: the loss of {', '.join(still)} does not move")
    size_RQ = np.sqrt(variance_RQ)
    correlation_RQQ = covariance_RQQ / (size_RQ[:, :, None] * size_RQ[:, None, :])
    pair_RK = correlation_RQQ[:, *np.triu_indices(len(names), k=1)]
    square_R = len(names) + 2 * (pair_RK**2).sum(axis=1)  # tr R^2; tr R = Q
    added = 2 * _variance(pair_RK) / square_R[0]  # by noise, on average
    rank: Estimate | Refused = Refused(
        f"influence_rank: {added:.0%} of tr R^2 is noise, allowed {MOST_ADDED:.0%}"
    )
    if added <= MOST_ADDED:
        rank = estimate_of(len(names) / square_R, n=count)
    values: dict[str, Estimate | Refused] = {
        "influence_self": estimate_of(main.nbeta * variance_RQ.mean(axis=1), n=count),
        "influence_correlation": estimate_of(pair_RK.mean(axis=1), n=count),
        "influence_rank": rank,
    }
    flat_RK = -main.nbeta * covariance_RQQ.reshape(len(covariance_RQQ), -1)
    return _measured("influences", values, flat_RK, names, main, _noise(flat_RK))


def _measured(
    curve: str, values: dict[str, Estimate | Refused], y_RK: np.ndarray, names: list[str],
    main: Setting, noise: float,
) -> Measured:  # fmt: skip
    """With what is said of the setting; refused where it is rejected by itself."""
    if main.grade > Grade.WARN:
        curve += "_t"
        values = dict.fromkeys(values, Refused(f"rejected: {briefly(main.reasons)}"))
    flags: dict[str, float | int | str] = {
        "probes": ",".join(names),
        "verdict": main.grade.verdict,
        "reasons": said(main.reasons),
        "nbeta": main.nbeta,
        "gamma": main.gamma,
        "noise_share": noise,
        "num_replicates": len(y_RK) - 1,
    }
    index_K = np.arange(float(y_RK.shape[1]))
    return Measured(values, curves={curve: curve_of(index_K, y_RK)}, flags=flags)


def _noise(x_RK: np.ndarray) -> float:
    """Share of the sum of squares that is noise."""
    total = float((x_RK[0] ** 2).sum())
    return _variance(x_RK) / total if total > 0 else 1.0


def _variance(x_RK: np.ndarray) -> float:
    """Sum of the variances, by the jackknife."""
    return float((len(x_RK) - 2) * x_RK[1:].var(axis=0).sum())


def _of_shape(
    statistic: Callable[[np.ndarray], np.ndarray], x_RK: np.ndarray, noise: float
) -> Estimate | Refused:
    if noise > MOST_NOISE:
        return Refused(f"{noise:.0%} of the sum of squares is noise, allowed {MOST_NOISE:.0%}")
    return estimate_of(statistic(x_RK), n=len(x_RK) - 1)


def _observed_names(chains: Chains) -> list[str]:
    if chains.observed_QNCS is None or not chains.observed:
        raise Refused("observed_QNCS: needs observed probes and their names")
    names = chains.observed.split(",")
    shape = (len(names), *chains.loss_NCS.shape)
    if chains.observed_QNCS.shape != shape:
        raise Refused(f"observed_QNCS: got shape {chains.observed_QNCS.shape}, allowed {shape}")
    return names


def _covariances(chains: Chains, main: Setting) -> np.ndarray:
    """Of the sampled loss (first) and those observed, of all draws and without each part."""
    assert chains.observed_QNCS is not None
    kept = np.asarray(chains.observed_QNCS[:, main.index], dtype=np.float64)[:, list(main.kept)]
    sampled_CS = excess_draws(chains, main, first=chains.burn_in)
    x_VCS = np.concatenate([sampled_CS[None], kept[:, :, chains.burn_in :]])
    if not (np.abs(x_VCS) <= LARGEST).all():
        raise Refused("observed_QNCS: got values that are not finite in chains that are")
    pieces = -(-LEAST_REPLICATES // x_VCS.shape[1])
    parts = [
        Welford.of(part_VS.T)
        for c in range(x_VCS.shape[1])
        for part_VS in np.array_split(x_VCS[:, c], pieces, axis=1)
    ]
    merged = [merge(parts[i] for i in keep) for keep in replicates(len(parts))]
    return np.array([m.covariance() for m in merged])


def _participation(chi_RQ: np.ndarray) -> np.ndarray:
    square_RQ = chi_RQ**2
    return square_RQ.sum(axis=1) ** 2 / (chi_RQ.shape[1] * (square_RQ**2).sum(axis=1))


def _entropy(chi_RQ: np.ndarray) -> np.ndarray:
    share_RQ = np.abs(chi_RQ) / np.abs(chi_RQ).sum(axis=1, keepdims=True)
    log_RQ = np.log(np.where(share_RQ > 0, share_RQ, 1.0))
    return -(share_RQ * log_RQ).sum(axis=1) / np.log(chi_RQ.shape[1])
