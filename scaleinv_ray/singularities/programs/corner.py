"""Error syndromes of a program by enumeration, and the exact coefficient of their ideal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.coefficient import LearningCoefficient
from scaleinv_ray.singularities.exact.newton import monomial_threshold
from scaleinv_ray.singularities.programs.machine import Program, run

Syndrome = tuple[int, ...]
"""Numbers of the wrong outcomes that occur, sorted; twice where the same one occurs twice."""
_NONE = Fraction(0)
_MOST = 200_000
"""Partial syndromes of one input; more are refused rather than waited for."""


@dataclass(frozen=True)
class Germ:
    """The singularity of a program in its space of noisy codes.

    Attributes:
        generators: minimal syndromes, fewest failures first; variables are wrong outcomes.
        paths: of each, the paths that fail so and end wrong, averaged over the inputs: its
            coefficient in K under log loss.
        num_variables: d, wrong outcomes of all rules.
        log_loss: coefficient of K = mean of -ln p(right output).
        squared_loss: of K = mean of (1 - p)^2: half of it.
        order: k of P(wrong) ~ c eta^k, where every wrong outcome has probability eta.
        constant: c, averaged over the inputs.
        num_linear: wrong outcomes that alone change an output: rank of the gradient.
        num_free: wrong outcomes that occur in no generator.
        outputs: of the inputs, in order: the function that is computed.
    """

    generators: tuple[Syndrome, ...]
    paths: tuple[Fraction, ...]
    num_variables: int
    log_loss: LearningCoefficient
    squared_loss: LearningCoefficient
    order: int
    constant: Fraction
    num_linear: int
    num_free: int
    outputs: tuple[Hashable, ...]


def germ(program: Program, inputs: Sequence[Any]) -> Germ:
    """Germ of a program at its corner, exact.

    The coefficient is compared between programs of one code space only. It says what the loss near
    the corner is; the prior is even on the simplices.

    Args:
        program: all rules at their right outcomes.
        inputs: those that the loss is the mean over.

    Raises:
        ValueError: without inputs.
        Refused: where no failure changes any output (K = 0 around the corner), and where an input
            has more than 200000 partial syndromes.

    >>> from scaleinv_ray.singularities.programs.circuit import Circuit, Gate
    >>> three = tuple(Gate("copy", (0,), i) for i in range(3))
    >>> vote = Circuit(1, (*three, Gate("majority", (1, 2, 3), None)), (4,))
    >>> found = germ(vote, [(0,), (1,)])
    >>> found.generators, str(found.log_loss.llc), found.order, found.constant
    (((0, 1), (0, 2), (1, 2)), '3/2', 2, Fraction(3, 1))
    """
    if not inputs:
        raise ValueError("inputs: got none, needs at least one")
    names = _variables(program)
    generators: set[Syndrome] = set()
    for given in inputs:
        generators = _minimal(generators | _syndromes(program, given, names, generators))
    if not generators:
        raise Refused("no failure of a rule changes an output: the loss is 0 around this program")
    ordered = tuple(sorted(generators, key=lambda s: (len(s), s)))
    exponents_MN = np.array([np.bincount(s, minlength=len(names)) for s in ordered])
    log_loss = monomial_threshold(exponents_MN)
    order = len(ordered[0])
    counts = sum((_paths(program, given, ordered) for given in inputs), Counter[Syndrome]())
    paths = tuple(Fraction(counts[s], len(inputs)) for s in ordered)
    return Germ(
        generators=ordered,
        paths=paths,
        num_variables=len(names),
        log_loss=log_loss,
        squared_loss=LearningCoefficient(log_loss.llc / 2, log_loss.multiplicity),
        order=order,
        constant=sum((c for c, s in zip(paths, ordered, strict=True) if len(s) == order), _NONE),
        num_linear=sum(len(s) == 1 for s in ordered),
        num_free=int((~exponents_MN.any(axis=0)).sum()),
        outputs=tuple(run(program, given) for given in inputs),
    )


def labels(program: Program) -> list[tuple[int, int]]:
    """Rule and wrong outcome of every variable."""
    return list(_variables(program))


def _variables(program: Program) -> dict[tuple[int, int], int]:
    wrong = (
        (rule, outcome)
        for rule, num in enumerate(program.num_outcomes)
        for outcome in range(num)
        if outcome != program.chosen[rule]
    )
    return {key: i for i, key in enumerate(wrong)}


def _syndromes(
    program: Program, given: Any, names: dict[tuple[int, int], int], known: Iterable[Syndrome]
) -> set[Syndrome]:
    """Minimal syndromes of an input beside those known, all configurations step by step."""
    right, divisors = run(program, given), [Counter(s) for s in known]
    reached: dict[Hashable, set[Syndrome]] = {program.start(given): {()}}
    wrong: set[Syndrome] = set()
    while reached:
        following: dict[Hashable, set[Syndrome]] = {}
        for configuration, syndromes in reached.items():
            rule = program.rule(configuration)
            if rule is None:
                wrong |= syndromes if program.output(configuration) != right else set()
                continue
            for outcome in range(program.num_outcomes[rule]):
                failed = names.get((rule, outcome))
                new = {s if failed is None else tuple(sorted((*s, failed))) for s in syndromes}
                after = program.after(configuration, outcome)
                kept = {s for s in new if failed is None or not _above(s, divisors)}
                following.setdefault(after, set()).update(kept)
        reached = {c: _minimal(found) for c, found in following.items() if found}
        if sum(map(len, reached.values())) > _MOST:
            raise Refused(f"more than {_MOST} partial syndromes of one input")
    return _minimal(wrong)


def _minimal(syndromes: set[Syndrome]) -> set[Syndrome]:
    """Those that no other one divides."""
    kept: list[Counter[int]] = []
    found: set[Syndrome] = set()
    for syndrome in sorted(syndromes, key=len):
        if not _above(syndrome, kept):
            kept.append(Counter(syndrome))
            found.add(syndrome)
    return found


def _above(syndrome: Syndrome, divisors: Iterable[Counter[int]]) -> bool:
    """Whether one of the divisors divides it."""
    counts = Counter(syndrome)
    return any(divisor <= counts for divisor in divisors)


def _paths(program: Program, given: Any, generators: Iterable[Syndrome]) -> Counter[Syndrome]:
    """Paths that end in a wrong output and whose failures are those of a generator."""
    right = run(program, given)
    names, found = _variables(program), Counter[Syndrome]()
    parts = {part for s in generators for k in range(len(s) + 1) for part in combinations(s, k)}
    reached: Counter[tuple[Hashable, Syndrome]] = Counter({(program.start(given), ()): 1})
    while reached:
        following: Counter[tuple[Hashable, Syndrome]] = Counter()
        for (configuration, failures), paths in reached.items():
            rule = program.rule(configuration)
            if rule is None:
                if program.output(configuration) != right:
                    found[failures] += paths
                continue
            for outcome in range(program.num_outcomes[rule]):
                failed = names.get((rule, outcome))
                now = failures if failed is None else tuple(sorted((*failures, failed)))
                if now in parts:
                    following[program.after(configuration, outcome), now] += paths
        reached = following
    return found
