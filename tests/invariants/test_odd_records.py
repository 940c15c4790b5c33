"""Whatever a record holds, an invariant answers with finite numbers or refuses: nothing else."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scaleinv_ray.invariants
from scaleinv_ray.contract import REGISTRY, Invariant, Measured, Refused
from scaleinv_ray.estimate import Estimate
from tests.invariants.odd_records import odd
from tests.invariants.test_contract import SMALL, make, partner

assert scaleinv_ray.invariants
ALL = [pytest.param(spec, id=name) for name, spec in sorted(REGISTRY.items())]
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
MOST_LETTERS = 300


def _arguments(spec: Invariant, data: st.DataObject) -> tuple[Any, ...]:
    good = make(spec, np.random.default_rng(1))
    if spec.signature == "one":
        return (data.draw(odd(good)),)
    if spec.signature == "pair":
        pair = [data.draw(odd(good)), partner(good)]
        return tuple(pair if data.draw(st.booleans()) else pair[::-1])
    steps = [
        data.draw(st.one_of(st.just(good), odd(good))) for _ in range(data.draw(st.integers(0, 4)))
    ]
    return (steps,)


def _check(measured: Measured, spec: Invariant) -> None:
    assert set(measured.values) == set(spec.quantities)
    for name, value in measured.values.items():
        if isinstance(value, Estimate):
            assert math.isfinite(value.value), name
            assert value.stderr is None or 0 <= value.stderr < math.inf, name
        else:
            assert 0 < len(str(value)) <= MOST_LETTERS, name
    for name, curve in measured.curves.items():
        assert np.isfinite(curve.y).all(), name


def _finite_or_refused(spec: Invariant, data: st.DataObject) -> None:
    arguments = _arguments(spec, data)
    parameters = dict(spec.parameters) | SMALL.get(spec.name, {})
    try:
        measured = spec.function(*arguments, rng=np.random.default_rng(3), **parameters)
    except Refused as refusal:
        assert 0 < len(str(refusal)) <= MOST_LETTERS
    else:
        _check(measured, spec)


@pytest.mark.parametrize("spec", ALL)
@settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=QUIET
)
@given(data=st.data())
def test_an_odd_record_is_measured_or_refused(spec: Invariant, data: st.DataObject) -> None:
    _finite_or_refused(spec, data)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ALL)
@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=QUIET,
)
@given(data=st.data())
def test_many_odd_records_are_measured_or_refused(spec: Invariant, data: st.DataObject) -> None:
    _finite_or_refused(spec, data)
