"""Which units a measurement of several reads together: pairs of models, steps of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import combinations, product

from scaleinv_ray.plan.units import Unit

MOST_PAIRS = 250_000
"""Pairs of models in a plan: each is a measurement of every paired invariant at every probe."""


def pairs_of(units: Iterable[Unit]) -> list[tuple[Unit, ...]]:
    """Pairs of models that paired invariants compare, smaller model first.

    Of the trained and the untrained units at the last step: the same seed at two sizes, and two
    seeds of the same size (the ceiling against which the others are read). Both must read the same
    tokens. Of R seeds at each of K sizes there are K R (K + R - 2) / 2, of either variant.

    Raises:
        ValueError: where there are more than `MOST_PAIRS`.
    """
    last: dict[tuple[str, int, str], Unit] = {}
    for unit in units:
        if unit.variant in {"trained", "random_init"}:
            at = (unit.checkpoint.model, unit.checkpoint.seed, unit.variant)
            held = last.get(at)
            if held is None or step_of(held) <= step_of(unit):
                last[at] = unit
    ordered = sorted(last.values(), key=lambda u: (u.checkpoint.n_params, u.checkpoint.model))
    groups = _comparable(ordered)
    count = sum(len(a) * len(b) for a, b in groups)
    if count > MOST_PAIRS:
        raise ValueError(
            f"models: got {count:,} pairs of equal seed or equal size, allowed {MOST_PAIRS:,}; "
            "name fewer models or seeds, or invariants that read no pairs"
        )
    found = sorted(tuple(sorted(pair)) for a, b in groups for pair in product(a, b))
    return [tuple(ordered[i] for i in pair) for pair in found]


def trajectories_of(units: Iterable[Unit]) -> list[tuple[Unit, ...]]:
    """The steps of every run of which there are two or more, the last step first.

    The measurement belongs to the last step; the others follow in order.

    Args:
        units: of the whole run; trained ones are taken.

    Returns:
        One tuple a run.
    """
    runs: dict[tuple[str, int], list[Unit]] = defaultdict(list)
    for unit in units:
        if unit.variant == "trained" and unit.checkpoint.step is not None:
            runs[unit.checkpoint.model, unit.checkpoint.seed].append(unit)
    ordered = [sorted(run, key=step_of) for run in runs.values() if len(run) > 1]
    return [(run[-1], *run[:-1]) for run in ordered]


def step_of(unit: Unit) -> int:
    """Its step; -1 where nothing says."""
    return -1 if unit.checkpoint.step is None else unit.checkpoint.step


def _comparable(units: Iterable[Unit]) -> list[tuple[list[int], list[int]]]:
    """Groups of units whose members pair with each other: equal in seed or in size, not in both."""
    equal: dict[tuple[Hashable, Hashable, Hashable], list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        c = unit.checkpoint
        tokens, size = (unit.variant, c.tokenization), (c.n_params, c.architecture)
        equal[tokens, size, c.seed].append(index)
    sharing: dict[Hashable, list[list[int]]] = defaultdict(list)
    for (read, n, seed), group in equal.items():
        sharing[read, "size", n].append(group)
        sharing[read, "seed", seed].append(group)
    return [pair for groups in sharing.values() for pair in combinations(groups, 2)]
