"""What a series can conclude is known from its plan."""

from dataclasses import dataclass, replace

import pytest

from scaleinv_ray.plan import Plan, Unit
from scaleinv_ray.records import Protocol
from scaleinv_ray.runs.starting.reach import reach_lines


@dataclass(frozen=True)
class _Checkpoint:
    model: str
    n_params: int
    seed: int


def plan_of(sizes: dict[int, int], nulls: dict[int, int] | None = None) -> Plan:
    """A plan of models by parameters and number of seeds, and of their untrained twins."""
    units = [
        Unit("s", _Checkpoint(f"m{n}-s{seed}", n, seed), variant)  # type: ignore[arg-type]
        for variant, of in (("trained", sizes), ("random_init", nulls or {}))
        for n, seeds in of.items()
        for seed in range(seeds)
    ]
    return replace(EMPTY, units=tuple(units))


EMPTY = Plan("s", Protocol(), (), (), {}, ())


def test_one_seed_of_four_sizes_is_undetermined_throughout() -> None:
    (line,) = reach_lines(plan_of({10**6 * 4**k: 1 for k in range(4)}))
    assert line == (
        "verdicts: all will be undetermined: one seed at 4 of 4 sizes, needs 2 (3 wanted)"
    )


def test_a_model_alone_is_inspected() -> None:
    (line,) = reach_lines(plan_of({10**6: 1}))
    assert "1 sizes, needs 4" in line
    assert line.endswith("a model alone is looked at with `scaleinv inspect`")


def test_without_untrained_twins_nothing_is_called_learned() -> None:
    sizes = {10**6 * 4**k: 3 for k in range(4)}
    reached, nulls = reach_lines(plan_of(sizes))
    assert reached == "verdicts: can be reached: 4 sizes of 2 seeds or more"
    assert "random_init has no models (variants, null_steps)" in nulls
    assert reach_lines(plan_of(sizes, sizes)) == [reached]


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_seeds_are_few(seeds: int) -> None:
    sizes = {10**6 * 4**k: seeds for k in range(4)}
    (line,) = reach_lines(plan_of(sizes, sizes))
    assert ("with 3 more are decided" in line) == (seeds == 2)
