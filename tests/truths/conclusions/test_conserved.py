"""What training conserves exactly: balancedness of a deep linear net under gradient flow."""

import numpy as np
import pytest

from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.conserved import drift
from scaleinv_ray.records import WeightMatrix


def _balance(rate: float, *, decay: float = 0.0, time: float = 4.0) -> list[WeightMatrix]:
    """B^T B - A A^T of y = B A x, loss ||B A - M||^2 / 2, along gradient descent."""
    rng = np.random.default_rng(0)
    a, b, m = (0.5 * rng.normal(size=(6, 6)) for _ in range(3))
    path = []
    for _ in range(round(time / rate) + 1):
        path.append(WeightMatrix(w_OI=b.T @ b - a @ a.T))
        error = b @ a - m
        a, b = a - rate * (b.T @ error + decay * a), b - rate * (error @ a.T + decay * b)
    return path


def _value(path: list[WeightMatrix], quantity: str) -> float:
    estimate = drift(path, rng=np.random.default_rng(0)).values[quantity]
    assert isinstance(estimate, Estimate)
    return estimate.value


def test_the_drift_of_balancedness_is_proportional_to_the_learning_rate() -> None:
    coarse, fine = (_value(_balance(rate), "max_drift") for rate in (0.02, 0.01))
    assert 0 < fine < 0.05
    assert coarse / fine == pytest.approx(2.0, rel=0.05)  # second order in the rate beside


def test_weight_decay_alone_shrinks_it_by_exp_minus_two_lambda_t() -> None:
    found = [_value(_balance(r, decay=0.05, time=10.0), "decay_ratio") for r in (0.02, 0.01)]
    limit = 2 * found[1] - found[0]  # the error is linear in the rate
    assert limit == pytest.approx(np.exp(-2 * 0.05 * 10.0), rel=2e-3)
