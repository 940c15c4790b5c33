"""Which units a measurement of several reads together: pairs of models, steps of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations

from scaleinv_ray.plan.units import Unit


def pairs_of(units: Iterable[Unit]) -> list[tuple[Unit, ...]]:
    """Pairs of models that paired invariants compare, smaller model first.

    Of the trained and the untrained units at the last step: the same seed at two sizes, and two
    seeds of the same size (the ceiling against which the others are read). Both must read the same
    tokens.

    Args:
        units: of the whole run.

    Returns:
        The pairs.
    """
    last: dict[tuple[str, int, str], Unit] = {}
    for unit in units:
        if unit.variant in {"trained", "random_init"}:
            at = (unit.checkpoint.model, unit.checkpoint.seed, unit.variant)
            held = last.get(at)
            if held is None or step_of(held) <= step_of(unit):
                last[at] = unit
    ordered = sorted(last.values(), key=lambda u: (u.checkpoint.n_params, u.checkpoint.model))
    return [pair for pair in combinations(ordered, 2) if _comparable(*pair)]


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


def _comparable(first: Unit, second: Unit) -> bool:
    a, b = first.checkpoint, second.checkpoint
    same_tokens = a.tokenizer_digest == b.tokenizer_digest
    same_size = (a.n_params, a.architecture) == (b.n_params, b.architecture)
    return same_tokens and first.variant == second.variant and same_size != (a.seed == b.seed)
