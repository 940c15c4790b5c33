"""Which settings of sampled chains may be believed, and what a ladder of them says together.

Shape suffixes: N settings, C chains, S draws. Rules and thresholds are stated once, here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.soundness import LARGEST, sound
from scaleinv_ray.invariants.degeneracy.chain_diagnostics import (
    chain_mean,
    effective_sample_size,
    geweke_z,
    rank_rhat,
    split_rhat,
)
from scaleinv_ray.protocols import FEWEST_KEPT
from scaleinv_ray.records import Chains

RHAT_OK, RHAT_WARN = 1.02, 1.05
LEAST_ESS = 100.0
MOST_MCSE = 0.02
"""Relative to the value."""
MOST_GEWEKE = 2.0
VIRIAL_OK = (0.95, 1.10)
"""Of the virial ratio, relative to what stationary chains have at this step."""
MOST_SENSITIVE = 0.05
"""|d ln lambda / d ln gamma| and |d ln lambda / d ln nbeta|, and the bias that a step may cause."""
MOST_EXCESS = 0.1
"""Nats of mean excess log-loss that still are a neighbourhood."""


class Grade(IntEnum):
    """How far a setting can be believed; the largest of its reasons.

    A `conditional` number is a mean over independent chains that belongs to their step, localiser
    and length, not to the minimum; a `void` one is nothing of the kind.
    """

    OK = 0
    WARN = 1
    CONDITIONAL = 2
    VOID = 3

    @property
    def verdict(self) -> str:
        """In the words of the tables: ok, warn or reject."""
        return ("ok", "warn", "reject", "reject")[self]


class Doubt(NamedTuple):
    """Why a setting is not simply ok."""

    grade: Grade
    text: str


@dataclass(frozen=True)
class Setting:
    """One pair (nbeta, gamma) after judgement.

    Attributes:
        index: in the record.
        nbeta: inverse temperature.
        gamma: strength of the localiser.
        step: eps.
        kept: indices of the chains that stayed finite.
        llc: nbeta * mean of the paired excess loss, None where it cannot be computed.
        virial: virial ratio over its stationary value, None where not recorded.
        numbers: diagnostics by name, those that there are.
        reasons: everything held against it.
    """

    index: int
    nbeta: float
    gamma: float
    step: float
    kept: tuple[int, ...]
    llc: Estimate | None
    virial: Estimate | None
    numbers: dict[str, float]
    reasons: tuple[Doubt, ...]

    @property
    def grade(self) -> Grade:
        """The worst of its reasons."""
        return max((r.grade for r in self.reasons), default=Grade.OK)

    def usable(self) -> bool:
        """Whether it has a positive value that is not rejected."""
        return self.llc is not None and self.llc.value > 0 and self.grade <= Grade.WARN


def judged_settings(chains: Chains) -> list[Setting]:
    """Every setting of a record with its value, its diagnostics and what is held against it.

    Draws before `burn_in` are not looked at. A chain with a draw that is not finite is left out and
    named. Otherwise, by setting:

    - warn: split R-hat > 1.02 (rank-normalised R-hat is reported beside it), ESS < 100,
      MCSE / |lambda| > 2 %, Geweke |z| >= 2, a chain left out, one chain only, no virial ratio,
      eps nbeta h_max / 4 + heating > 5 % (it bounds the relative bias of the worst direction);
    - conditional: split R-hat > 1.05; virial ratio over its stationary value 1 + eps E|drift|^2 / 4
      (1 for a Metropolis sampler) outside .95-1.10 by two errors (nearer: warn), of all chains or
      of those from w0 or the dispersed ones apart; lambda / nbeta > 0.1 nats of a log-likelihood;
    - void: lambda < -2 MCSE, no minimum; more than half of the chains left out; a chain that does
      not move; parameters not restored.

    Args:
        chains: a record.

    Returns:
        A setting for each, in the order of the record.

    Raises:
        Refused: for ladders that are not positive, shapes that differ, a burn-in that leaves fewer
            than 8 draws, and a squared error whose noise is not stated.
    """
    sound(chains)
    _check(chains)
    return [_judged(chains, n) for n in range(len(chains.nbeta_N))]


def ladder(settings: Sequence[Setting]) -> list[Setting]:
    """The setting with the middle gamma (the lower of two) at every nbeta, nbeta ascending."""
    by_nbeta: dict[float, list[Setting]] = {}
    for setting in settings:
        by_nbeta.setdefault(setting.nbeta, []).append(setting)
    middle = []
    for nbeta in sorted(by_nbeta):
        at = sorted(by_nbeta[nbeta], key=lambda s: (s.gamma, s.step))
        middle.append(at[(len(at) - 1) // 2])
    return middle


def chosen(rungs: Sequence[Setting]) -> Setting:
    """The largest nbeta that is not rejected; of rejected ones the least bad, then the largest."""
    return max(rungs, key=lambda s: (-max(s.grade, Grade.WARN), s.llc is not None, s.nbeta))


def with_value(rungs: Sequence[Setting]) -> Setting:
    """The setting that stands for a record, if it has a value.

    Args:
        rungs: the ladder.

    Returns:
        As `chosen`.

    Raises:
        Refused: where no chain of it gives a value.
    """
    main = chosen(rungs)
    if main.llc is None:
        raise Refused(f"no setting has a value: {briefly(main.reasons)}")
    return main


def said(reasons: Sequence[Doubt]) -> str:
    """The reasons, worst first."""
    return "; ".join(r.text for r in sorted(reasons, key=lambda r: -r.grade))


def briefly(reasons: Sequence[Doubt]) -> str:
    """The three worst reasons, and how many there are besides."""
    worst = sorted(reasons, key=lambda r: -r.grade)
    more = len(worst) - 3
    return said(worst[:3]) + (f"; {more} more" if more > 0 else "")


def excess_draws(chains: Chains, setting: Setting, *, first: int) -> np.ndarray:
    """Paired excess loss of the chains kept from draw `first` on, in float64 [C, S]."""
    return _excess(chains, setting.index, setting.kept, first)


def _excess(chains: Chains, n: int, kept: Sequence[int], first: int) -> np.ndarray:
    drawn = (list(kept), slice(first, None))
    loss_CS = np.asarray(chains.loss_NCS[n], dtype=np.float64)[drawn]
    with np.errstate(invalid="ignore"):  # burn-in may hold anything; what is not finite stays so
        return loss_CS - np.asarray(chains.base_loss_NCS[n], dtype=np.float64)[drawn]


def _check(chains: Chains) -> None:
    for name in ("nbeta_N", "gamma_N", "step_N"):
        value_N = getattr(chains, name)
        if (value_N < 0 if name == "gamma_N" else value_N <= 0).any():
            raise Refused(f"{name}: got {value_N.tolist()}, allowed finite and positive")
    num_draws = chains.loss_NCS.shape[2]
    if not 0 <= chains.burn_in <= num_draws - FEWEST_KEPT:
        allowed = f"0..{num_draws - FEWEST_KEPT} of {num_draws}"
        raise Refused(f"burn_in: got {chains.burn_in}, allowed {allowed}")
    for name in ("dim", "num_samples", "batch"):
        if getattr(chains, name) < 1:
            raise Refused(f"{name}: got {getattr(chains, name)}, allowed integers >= 1")
    noise = chains.noise
    stated = noise is not None and math.isfinite(noise) and noise > 0
    if chains.loss_kind == "squared_error" and not stated:
        raise Refused(f"noise: got {noise}, a squared error needs the variance of its noise")


def _judged(chains: Chains, n: int) -> Setting:
    nbeta, gamma, step = (
        float(ladder_N[n]) for ladder_N in (chains.nbeta_N, chains.gamma_N, chains.step_N)
    )
    kept, reasons = _finite_chains(chains, n)
    numbers = _heating(chains, n)
    llc: Estimate | None = None
    virial: Estimate | None = None
    if kept:
        scaled_CS = nbeta * _excess(chains, n, kept, chains.burn_in)
        try:
            numbers |= _diagnostics(scaled_CS)
            llc = chain_mean(scaled_CS)
        except Refused as refusal:
            reasons.append(Doubt(Grade.VOID, f"loss_NCS: {refusal}"))
        virial = _virial(chains, n, kept)
    if llc is not None:
        numbers["mcse"] = (llc.stderr or 0.0) / max(abs(llc.value), np.finfo(float).tiny)
        reasons += [*_mixing(numbers), *_equilibrium(virial), *_place(chains, nbeta, llc)]
        reasons += _one_sided(chains, n, kept)
    reasons += _bias(numbers)
    if not chains.restored:
        reasons.append(Doubt(Grade.VOID, "the parameters did not equal w0 after sampling"))
    return Setting(n, nbeta, gamma, step, kept, llc, virial, numbers, tuple(reasons))


def _finite_chains(chains: Chains, n: int) -> tuple[tuple[int, ...], list[Doubt]]:
    fields = (chains.loss_NCS, chains.base_loss_NCS, chains.virial_NCS, chains.drift_NCS)
    drawn = [
        np.asarray(x_NCS[n, :, chains.burn_in :], dtype=np.float64)
        for x_NCS in fields
        if x_NCS is not None
    ]
    finite_C = np.all([(np.abs(x_CS) <= LARGEST).all(axis=1) for x_CS in drawn], axis=0)
    reasons = [
        Doubt(Grade.WARN, f"chain {c} of {_named(chains, n)} is not finite")
        for c in np.flatnonzero(~finite_C)
    ]
    if finite_C.sum() * 2 < len(finite_C):
        lost = f"{np.count_nonzero(~finite_C)} of {len(finite_C)} chains diverged"
        reasons.append(Doubt(Grade.VOID, lost))
    elif len(finite_C) < 2:
        reasons.append(Doubt(Grade.WARN, "one chain only"))
    return tuple(map(int, np.flatnonzero(finite_C))), reasons


def _named(chains: Chains, n: int) -> str:
    return f"setting nbeta={chains.nbeta_N[n]:.4g} gamma={chains.gamma_N[n]:.4g}"


def _diagnostics(scaled_CS: np.ndarray) -> dict[str, float]:
    return {
        "rhat": split_rhat(scaled_CS),
        "rhat_rank": rank_rhat(scaled_CS),
        "ess": effective_sample_size(scaled_CS),
        "geweke": geweke_z(scaled_CS),
    }


def _heating(chains: Chains, n: int) -> dict[str, float]:
    """What finite step and minibatch do, as shares of the variance in the worst direction."""
    found = {}
    if chains.heating_N is not None and math.isfinite(chains.heating_N[n]):
        found["heating"] = float(chains.heating_N[n])
    if chains.largest_curvature is not None:
        reach = float(chains.step_N[n] * chains.nbeta_N[n] * chains.largest_curvature)
        found["reach"] = reach
        found["discretisation"] = 0.0 if chains.sampler == "mala" else reach / 4
    if chains.acceptance_NC is not None:
        found["acceptance"] = float(np.mean(chains.acceptance_NC[n]))
    return found


def _virial(chains: Chains, n: int, kept: Sequence[int]) -> Estimate | None:
    if chains.virial_NCS is None:
        return None
    drawn = (list(kept), slice(chains.burn_in, None))
    try:
        found = chain_mean(np.asarray(chains.virial_NCS[n], dtype=np.float64)[drawn])
    except Refused:  # a number that never changes was not measured on a moving chain
        return None
    stationary = 1.0
    if chains.sampler != "mala" and chains.drift_NCS is not None:
        drift_CS = np.asarray(chains.drift_NCS[n], dtype=np.float64)[drawn]
        stationary += float(chains.step_N[n]) * float(drift_CS.mean()) / 4
    return _times(found, 1 / stationary)


def _times(estimate: Estimate, factor: float) -> Estimate:
    stderr = None if estimate.stderr is None else estimate.stderr * abs(factor)
    samples = tuple(factor * x for x in estimate.samples or ()) or None
    return Estimate(estimate.value * factor, stderr, estimate.n, estimate.error_kind, samples)


def _mixing(numbers: dict[str, float]) -> list[Doubt]:
    rhat, ess, mcse, z = (numbers[name] for name in ("rhat", "ess", "mcse", "geweke"))
    reasons = []
    if not rhat <= RHAT_OK:
        grade = Grade.WARN if rhat <= RHAT_WARN else Grade.CONDITIONAL
        reasons.append(Doubt(grade, f"split R-hat {rhat:.3f} > {RHAT_OK}"))
    if not ess >= LEAST_ESS:
        reasons.append(Doubt(Grade.WARN, f"ESS {ess:.0f} < {LEAST_ESS:.0f}"))
    if not mcse <= MOST_MCSE:
        reasons.append(Doubt(Grade.WARN, f"MCSE {mcse:.1%} of the value > {MOST_MCSE:.0%}"))
    if not abs(z) < MOST_GEWEKE:
        reasons.append(Doubt(Grade.WARN, f"Geweke z {z:.1f}"))
    return reasons


def _equilibrium(virial: Estimate | None) -> list[Doubt]:
    if virial is None:
        return [Doubt(Grade.WARN, "no virial ratio: equilibration is not known")]
    low, high = VIRIAL_OK
    if low <= virial.value <= high:
        return []
    slack = 2 * (virial.stderr or 0.0)
    grade = Grade.WARN if low - slack <= virial.value <= high + slack else Grade.CONDITIONAL
    said = "not equilibrated" if virial.value < low else "driven above equilibrium"
    said = said if grade is Grade.CONDITIONAL else "equilibrium not resolved"
    return [Doubt(grade, f"{said}: virial ratio {virial.value:.3f} of its stationary value")]


def _one_sided(chains: Chains, n: int, kept: Sequence[int]) -> list[Doubt]:
    """Chains from w0 that are still inside, or dispersed ones still outside: means may cancel."""
    if chains.dispersed_C is None:
        return []
    reasons = []
    for start, name in ((0, "at w0"), (1, "dispersed")):
        mine = [c for c in kept if chains.dispersed_C[c] == start]
        if 0 < len(mine) < len(kept):
            found = _equilibrium(_virial(chains, n, mine))
            away = [r for r in found if r.grade is Grade.CONDITIONAL]
            reasons += [Doubt(r.grade, f"chains started {name}: {r.text}") for r in away]
    return reasons


def _place(chains: Chains, nbeta: float, llc: Estimate) -> list[Doubt]:
    reasons = []
    if llc.value < -2 * (llc.stderr or 0.0):
        lowest = chains.lowest_curvature
        seen = "not recorded" if lowest is None else f"{lowest:.3g}"
        reasons.append(Doubt(Grade.VOID, f"not a local minimum (lowest curvature {seen})"))
    excess = llc.value / nbeta
    if chains.loss_kind == "log_likelihood" and excess > MOST_EXCESS:
        far = f"not local: mean excess {excess:.3g} > {MOST_EXCESS} nats"
        reasons.append(Doubt(Grade.CONDITIONAL, far))
    return reasons


def _bias(numbers: dict[str, float]) -> list[Doubt]:
    bias = numbers.get("heating", 0.0) + numbers.get("discretisation", 0.0)
    if bias <= MOST_SENSITIVE:
        return []
    return [Doubt(Grade.WARN, f"step and minibatch may add {bias:.1%} > {MOST_SENSITIVE:.0%}")]
