"""Which singularities of the dictionary a measured learning coefficient allows, if any."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
from scipy.stats import norm

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.dictionary import singularities
from scaleinv_ray.singularities.entry import Singularity


class MatchOutcome(StrEnum):
    """What a match comes to."""

    ONE = "one"
    SEVERAL = "several"
    NO_MATCH = "no match"


@dataclass(frozen=True)
class Candidate:
    """Entries that no quantity given can tell apart.

    Attributes:
        names: of the entries.
        llc: what they predict.
        log_likelihood: of the measured llc, normal with its stderr.
        p: two-sided, that a true entry comes out as far off.
        probability: with prior 1/2 on no match and the rest even over the candidates.
    """

    names: tuple[str, ...]
    llc: Fraction
    log_likelihood: float
    p: float
    probability: float


@dataclass(frozen=True)
class Match:
    """Result of looking up.

    Attributes:
        outcome: no match where every candidate has p below the level.
        candidates: the ones kept, most likely first.
        nearest: the most likely ones at all, kept or not, at most five.
        no_match_probability: with the density of llc even between 0 and twice the measured one.
        coverage: share of that range that would match something: near 1, a match says nothing.
        by_chance: entries that a value drawn evenly from that range would match on average.
    """

    outcome: MatchOutcome
    candidates: tuple[Candidate, ...]
    nearest: tuple[Candidate, ...]
    no_match_probability: float
    coverage: float
    by_chance: float


def match(
    llc: float,
    stderr: float | None,
    *,
    multiplicity: Collection[int] | None = None,
    zero_modes: int | None = None,
    symmetry_dimension: int | None = None,
    hessian_rank: int | None = None,
    level: float = 0.05,
    entries: Iterable[Singularity] | None = None,
) -> Match:
    """Entries whose learning coefficient agrees with a measured one.

    What is given and known of an entry must agree; what is not known of it is not held against it.
    With `hessian_rank` R, entries are completed by regular directions (splitting lemma): an entry
    of rank R' <= R predicts llc + (R - R') / 2; entries of unknown or higher rank are left out.

    Args:
        stderr: its standard error, systematic part included.
        multiplicity: those allowed ((1, 2) for a bracket); None for any.
        zero_modes: of the Hessian of K.
        symmetry_dimension: of the group of linear symmetries of K.
        hessian_rank: number of directions that are not zero modes.
        level: an entry is dropped where p is below.
        entries: the dictionary by default.

    Returns:
        The match, possibly none.

    Raises:
        ValueError: for an llc that is not finite, or a level outside (0, 1).
        Refused: without a positive stderr.

    >>> found = match(0.292, 0.002, multiplicity=(1,), symmetry_dimension=0)
    >>> found.outcome, found.candidates[0].names
    (<MatchOutcome.ONE: 'one'>, ('(D_7+)^2', '(D_7-)^2', '(E_6)^2'))
    >>> match(0.45, 0.002).outcome
    <MatchOutcome.NO_MATCH: 'no match'>
    """
    if not math.isfinite(llc):
        raise ValueError(f"llc: got {llc}, must be finite")
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, allowed between 0 and 1")
    if stderr is None or not (math.isfinite(stderr) and stderr > 0):
        raise Refused(f"stderr {stderr}: without an error nothing can be matched")
    names_of: dict[Fraction, list[str]] = {}
    for entry in singularities() if entries is None else entries:
        predicted = _completed(entry, hessian_rank)
        if (
            predicted is not None
            and (multiplicity is None or entry.coefficient.multiplicity in multiplicity)
            and _agrees(zero_modes, entry.zero_modes)
            and _agrees(symmetry_dimension, entry.symmetry_dimension)
        ):
            names_of.setdefault(predicted, []).append(entry.name)
    return _weighed(llc, stderr, names_of, level)


def _weighed(llc: float, stderr: float, names_of: dict[Fraction, list[str]], level: float) -> Match:
    if not names_of:
        return Match(MatchOutcome.NO_MATCH, (), (), 1.0, 0.0, 0.0)
    predicted = sorted(names_of)
    z = (llc - np.array([float(value) for value in predicted])) / stderr
    log_likelihood = norm.logpdf(z) - math.log(stderr)
    p = 2 * norm.sf(np.abs(z))
    width = 2 * max(llc, stderr)
    log_prior = np.r_[np.full(len(z), -math.log(len(z))), 0.0]
    log_mass = np.r_[log_likelihood, -math.log(width)] + log_prior
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    ranked = [
        Candidate(
            tuple(names_of[predicted[i]]),
            predicted[i],
            *map(float, (log_likelihood[i], p[i], mass[i])),
        )
        for i in np.argsort(-log_likelihood, kind="stable")
    ]
    kept = tuple(candidate for candidate in ranked if candidate.p >= level)
    outcome = (MatchOutcome.NO_MATCH, MatchOutcome.ONE, MatchOutcome.SEVERAL)[min(len(kept), 2)]
    reach = float(norm.isf(level / 2)) * stderr
    covered = _covered(predicted, reach, width)
    chance = sum(len(names_of[v]) * _covered([v], reach, width) for v in predicted)
    return Match(outcome, kept, tuple(ranked[:5]), float(mass[-1]), covered, chance)


def _completed(entry: Singularity, hessian_rank: int | None) -> Fraction | None:
    if hessian_rank is None:
        return entry.coefficient.llc
    if entry.zero_modes is None:
        return None
    missing = hessian_rank - (entry.num_variables - entry.zero_modes)
    return None if missing < 0 else entry.coefficient.llc + Fraction(missing, 2)


def _agrees(measured: int | None, known: int | None) -> bool:
    return measured is None or known is None or measured == known


def _covered(predicted: list[Fraction], reach: float, width: float) -> float:
    """Share of [0, width] within reach of a prediction."""
    total, end = 0.0, 0.0
    for value in map(float, predicted):
        low, high = max(value - reach, end), min(value + reach, width)
        total += max(high - low, 0.0)
        end = max(end, high)
    return total / width
