"""Learning coefficients from chains around a minimum.

A learning coefficient lambda is what the loss of draws from the localised posterior exceeds that of
the minimum by, in units of the temperature: half the number of parameters that matter. A value that
is rejected (`chain_verdict` has the rules) is refused with the number in the reason.
Shape suffixes: N settings, K of them in a fit, C chains, S draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, exact
from scaleinv_ray.invariants.degeneracy.chain_verdict import (
    MOST_SENSITIVE,
    Doubt,
    Grade,
    Setting,
    briefly,
    excess_draws,
    judged_settings,
    ladder,
    said,
    with_value,
)
from scaleinv_ray.invariants.degeneracy.temperature_slope import (
    LEAST_OFFSET,
    log_slope,
    multiplicity_fit,
)
from scaleinv_ray.records import Chains


@invariant(
    quantities={
        "lambda": Quantity(
            law="power_law",
            meaning=(
                "Local learning coefficient: effective dimension of the minimum; half the "
                "parameters if regular"
            ),
        ),
        "lambda_per_parameter": Quantity(
            law="none",
            unit=1.0,
            meaning="Twice the learning coefficient per parameter; 1 where nothing is degenerate",
        ),
        "lambda_m1": Quantity(
            law="power_law",
            meaning="Learning coefficient fitted over temperatures with multiplicity 1",
        ),
        "lambda_m2": Quantity(
            law="power_law",
            meaning="Learning coefficient fitted over temperatures with multiplicity 2",
        ),
        # to be compared at equal settings alone, which a verdict over sizes does not look at
        "lambda_hat_t": Quantity(
            law="power_law",
            control=True,
            meaning=(
                "Learning coefficient at a finite number of steps; comparable at equal settings "
                "only"
            ),
        ),
        "gamma_sensitivity": Quantity(
            law="none",
            unit=1.0,
            control=True,
            meaning=(
                "d ln(learning coefficient) / d ln(localisation); 0 where the prior does not matter"
            ),
        ),
        "nbeta_slope": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "d ln(learning coefficient) / d ln(inverse temperature); above 0 hints at "
                "multiplicity"
            ),
        ),
        "virial": Quantity(
            law="none",
            unit=1.0,
            control=True,
            meaning=(
                "Spread of the chains over its stationary value; below 1 flat directions have not "
                "relaxed"
            ),
        ),
        "heating": Quantity(
            law="none",
            unit=1.0,
            control=True,
            meaning=(
                "Heating of the chain by minibatch noise; small against 1 where the sampler can be "
                "trusted"
            ),
        ),
    },
    curves={
        "lambda_of_nbeta": "Learning coefficient; inverse temperature n beta",
        "lambda_hat_t_of_nbeta": "Conditional learning coefficient; inverse temperature n beta",
        "trace": "Loss above the start, mean over chains; draw",
    },
)
def learning_coefficient(chains: Chains, *, rng: np.random.Generator) -> Measured:
    """Local learning coefficient, its bracket in the multiplicity, and whether to believe it.

    lambda_hat = nbeta * mean over draws after burn-in of (loss - base_loss), both on the same batch
    (Lau et al. 2023, eq. 10; Watanabe 2013). d / 2 for a regular minimum in d parameters. Every
    setting is judged by itself (`chain_verdict.judged_settings`); every nbeta is
    represented by its middle gamma, and the record by the largest nbeta not rejected.

    lambda: at that setting; refused, with the number in the reason, where the verdict is reject,
    also for |d ln lambda / d ln gamma| >= 0.05, and for chains that are not equilibrated.
    lambda_per_parameter = 2 lambda / d: 1 where nothing is degenerate.
    lambda_m1, lambda_m2: lambda of lambda - (m - 1) / (log nbeta + b) fitted to the accepted ladder
    with m = 1 and m = 2. A language model's m is between them or above; it is never reported.
    lambda_hat_t: the same number as lambda, and also where it is only conditional (chains that
    disagree or are not equilibrated, not local, or moved by the localiser): then it is
    lambda_hat(T), to be compared at equal `comparable_at` alone. Refused where it is void: a
    negative value, chains that diverged, parameters not restored.
    gamma_sensitivity: d ln lambda / d ln gamma at equal nbeta. nbeta_slope: d ln lambda / d ln
    nbeta over the ladder, for m > 1 about (m - 1) / (lambda (log nbeta + b)^2); warned of from 0.05
    on, and where it is above zero by two errors and lambda_m2 exceeds lambda by 5 % (with too few
    nbeta for that fit: where lambda < 10, so that m = 2 may hide as much). virial:
    E[(w - w0).(nbeta g + gamma (w - w0))] / d over its stationary value 1 + eps E|drift|^2 / 4:
    below 1 flat directions have not relaxed, which R-hat cannot see. heating:
    eps nbeta^2 lambda_max(C) / (4 m).

    Args:
        chains: draws around one minimum, at one setting or more.
        rng: not drawn from.

    Returns:
        The quantities; errors of lambda over chains and draws. Curves: `lambda_of_nbeta` (settings
        not rejected), `lambda_hat_t_of_nbeta` (all that have a value), `trace` (nbeta * excess by
        draw, burn-in included, mean over the chains kept). Flags: verdict (ok, warn, reject),
        reasons, name (lambda or lambda_hat(T)), verdict_of_nbeta (of each point of
        `lambda_hat_t_of_nbeta`), num_chains, num_draws, rhat, rhat_rank, ess, mcse (relative),
        geweke, acceptance, discretisation, sampler, nbeta, gamma, step, dispersed (chains that
        started away from w0), comparable_at, lowest_curvature, noise.

    Raises:
        Refused: for ladders that are not positive, shapes that differ, a burn-in that leaves fewer
            than 8 draws, a squared error without its noise, and where no chain stayed finite.

    >>> rng = np.random.default_rng(0)
    >>> loss_NCS = 6.0 + rng.gamma(3.0, 1 / 1000.0, size=(1, 4, 4000))
    >>> record = Chains(nbeta_N=np.array([1000.0]), gamma_N=np.zeros(1), step_N=np.full(1, 1e-4),
    ...     loss_NCS=loss_NCS, base_loss_NCS=np.full((1, 4, 4000), 6.0), dim=6, num_samples=10_000,
    ...     batch=32, burn_in=0)
    >>> found = learning_coefficient(record, rng=rng)
    >>> abs(found.values["lambda"].value - 6 / 2) < 0.06, found.flags["verdict"]
    (True, 'warn')
    """
    settings = judged_settings(chains)
    rungs = ladder(settings)
    main = with_value(rungs)
    across, sensitivity = _sensitivity(settings)
    slope = _slope(rungs)
    logarithm = _fit(rungs, across, multiplicity=2)
    across += _steep(slope, main.llc, logarithm)
    reasons = (*main.reasons, *across)
    grade = max((r.grade for r in reasons), default=Grade.OK)
    believed = _unless(main.llc, grade, Grade.WARN, reasons)
    values: dict[str, Estimate | Refused] = {
        "lambda": believed,
        "lambda_per_parameter": _times(believed, 2 / chains.dim),
        "lambda_m1": _fit(rungs, across, multiplicity=1),
        "lambda_m2": logarithm,
        "lambda_hat_t": _unless(main.llc, grade, Grade.CONDITIONAL, reasons),
        "gamma_sensitivity": sensitivity,
        "nbeta_slope": slope,
        "virial": main.virial or Refused("virial: needs virial_NCS of chains that move"),
        "heating": _heating(main),
    }
    curves = _curves(chains, rungs, main)
    if all(r.grade <= Grade.WARN for r in across):
        curves |= _ladder_curve("lambda_of_nbeta", [s for s in rungs if s.grade <= Grade.WARN])
    return Measured(values, curves=curves, flags=_flags(chains, rungs, main, reasons))


def _unless(
    llc: Estimate | None, grade: Grade, worst: Grade, reasons: Sequence[Doubt]
) -> Estimate | Refused:
    if llc is None:
        return Refused(f"no value: {briefly(reasons)}")
    if grade > worst:
        return Refused(
            f"got {llc.value:.4g} +- {llc.stderr or 0:.2g}, rejected: {briefly(reasons)}"
        )
    return llc


def _times(estimate: Estimate | Refused, factor: float) -> Estimate | Refused:
    if isinstance(estimate, Refused):
        return estimate
    stderr = None if estimate.stderr is None else estimate.stderr * factor
    return Estimate(estimate.value * factor, stderr, estimate.n, estimate.error_kind)


def _columns(settings: Sequence[Setting]) -> tuple[np.ndarray, ...]:
    """nbeta, gamma, value and error of settings that have them."""
    rows = [(s.nbeta, s.gamma, s.llc.value, s.llc.stderr) for s in settings if s.llc is not None]
    return tuple(np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def _sensitivity(settings: Sequence[Setting]) -> tuple[list[Doubt], Estimate | Refused]:
    """Log slope of lambda in gamma at equal nbeta, and what is held against it."""
    if not any(s.gamma for s in settings):
        return [], Refused("gamma_sensitivity: needs a localiser")
    if len({(s.nbeta, s.gamma) for s in settings}) == len({s.nbeta for s in settings}):
        unknown = Doubt(Grade.WARN, "one gamma at each nbeta: the localiser's part is not known")
        return [unknown], Refused("gamma_sensitivity: needs two values of gamma at one nbeta")
    nbeta_K, gamma_K, value_K, stderr_K = _columns([s for s in settings if s.usable() and s.gamma])
    try:
        found = log_slope(gamma_K, value_K, stderr_K, nbeta_K)
    except Refused:
        few = "gamma_sensitivity: no two values of gamma accepted at one nbeta"
        return [Doubt(Grade.WARN, few)], Refused(few)
    if abs(found.value) < MOST_SENSITIVE:
        return [], found
    resolved = abs(found.value) - 2 * (found.stderr or 0.0) >= MOST_SENSITIVE
    text = f"d ln lambda / d ln gamma = {found.value:.3f}, allowed below {MOST_SENSITIVE}"
    return [Doubt(Grade.CONDITIONAL if resolved else Grade.WARN, text)], found


def _slope(rungs: Sequence[Setting]) -> Estimate | Refused:
    if len(rungs) < 2:
        return Refused("nbeta_slope: needs two values of nbeta")
    nbeta_K, _, value_K, stderr_K = _columns([s for s in rungs if s.usable()])
    try:
        return log_slope(nbeta_K, value_K, stderr_K, np.zeros(len(nbeta_K)))
    except Refused:
        return Refused(f"nbeta_slope: {len(nbeta_K)} of {len(rungs)} nbeta accepted")


def _steep(
    slope: Estimate | Refused, llc: Estimate | None, logarithm: Estimate | Refused
) -> list[Doubt]:
    """Whether a multiplicity above 1 may hide more than the margin of lambda."""
    value = 0.0 if llc is None else llc.value
    # without a fit, what m = 2 takes away at the least log nbeta + b
    hidden = logarithm.value - value if isinstance(logarithm, Estimate) else 1 / LEAST_OFFSET
    matters = hidden > MOST_SENSITIVE * value
    if isinstance(slope, Refused):
        unseen = "under two nbeta accepted: m = 2 may hide more than 5 %"
        return [Doubt(Grade.WARN, unseen)] if matters else []
    grows = slope.value > 2 * (slope.stderr or 0.0) and matters
    if abs(slope.value) < MOST_SENSITIVE and not grows:
        return []
    text = f"d ln lambda / d ln nbeta = {slope.value:.3f}: read the bracket in m"
    return [Doubt(Grade.WARN, text)]


def _fit(
    rungs: Sequence[Setting], across: Sequence[Doubt], *, multiplicity: int
) -> Estimate | Refused:
    name = f"lambda_m{multiplicity}"
    least = 2 + (multiplicity > 1)
    if len(rungs) < least:
        return Refused(f"{name}: needs {least} values of nbeta")
    if any(r.grade > Grade.WARN for r in across):
        return Refused(f"rejected: {briefly(across)}")
    nbeta_K, _, value_K, stderr_K = _columns([s for s in rungs if s.grade <= Grade.WARN])
    try:
        return multiplicity_fit(nbeta_K, value_K, stderr_K, multiplicity=multiplicity)
    except Refused:
        return Refused(f"{name}: {len(nbeta_K)} of {len(rungs)} nbeta accepted")


def _heating(main: Setting) -> Estimate | Refused:
    if "heating" not in main.numbers:
        return Refused("heating: needs heating_N")
    return exact(main.numbers["heating"])


def _curves(chains: Chains, rungs: Sequence[Setting], main: Setting) -> dict[str, Curve]:
    trace_CS = main.nbeta * excess_draws(chains, main, first=0)
    shown_S = np.flatnonzero(np.isfinite(trace_CS).all(axis=0))
    trace_CS, count = trace_CS[:, shown_S], len(trace_CS)
    stderr_S = trace_CS.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else None
    trace = Curve(shown_S.astype(float), trace_CS.mean(axis=0), stderr_S)
    return {"trace": trace} | _ladder_curve("lambda_hat_t_of_nbeta", rungs)


def _ladder_curve(name: str, rungs: Sequence[Setting]) -> dict[str, Curve]:
    nbeta_K, _, value_K, stderr_K = _columns(rungs)
    return {name: Curve(nbeta_K, value_K, stderr_K)} if len(nbeta_K) else {}


def _flags(
    chains: Chains, rungs: Sequence[Setting], main: Setting, reasons: Sequence[Doubt]
) -> dict[str, float | int | str]:
    grade = max((r.grade for r in reasons), default=Grade.OK)
    draws = chains.loss_NCS.shape[2]
    reach = main.numbers.get("reach")
    locality = main.gamma * main.step / reach if reach else None
    flags: dict[str, float | int | str] = {
        "verdict": grade.verdict,
        "reasons": said(reasons),
        "name": "lambda" if grade <= Grade.WARN else f"lambda_hat({draws})",
        "verdict_of_nbeta": ",".join(s.grade.verdict for s in rungs if s.llc is not None),
        "num_chains": len(main.kept),
        "num_draws": len(main.kept) * (draws - chains.burn_in),
        "sampler": chains.sampler,
        "nbeta": main.nbeta,
        "gamma": main.gamma,
        "step": main.step,
    }
    shown = ("rhat", "rhat_rank", "ess", "mcse", "geweke", "acceptance", "discretisation")
    flags |= {name: main.numbers[name] for name in shown if name in main.numbers}
    if locality is not None:
        flags["comparable_at"] = (
            f"eps h_max nbeta {reach:.3g}, gamma / (h_max nbeta) {locality:.3g}, {draws} steps"
        )
    if chains.dispersed_C is not None:
        flags["dispersed"] = int(np.count_nonzero(chains.dispersed_C[list(main.kept)]))
    optional = {"lowest_curvature": chains.lowest_curvature, "noise": chains.noise}
    return flags | {name: value for name, value in optional.items() if value is not None}
