"""Drift over a run: shapes, refusals, order of steps."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.conserved import drift
from scaleinv_ray.records import WeightMatrix

RNG = np.random.default_rng(0)


def _path(*scales: float) -> list[WeightMatrix]:
    w_OI = np.random.default_rng(1).normal(size=(3, 4))
    return [WeightMatrix(w_OI=c * w_OI) for c in scales]


def test_the_first_step_is_the_reference() -> None:
    forth = drift(_path(1.0, 4.0, 2.0), rng=RNG)
    back = drift(_path(2.0, 4.0, 1.0), rng=RNG)
    values = [
        [v.value for v in m.values.values() if isinstance(v, Estimate)] for m in (forth, back)
    ]
    np.testing.assert_allclose(values, [[3.0, 1.0, 2.0], [1.0, 0.5, 0.5]])
    np.testing.assert_allclose(forth.curves["drift"].y, [0.0, 3.0, 1.0])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (_path(1.0), "two or more"),
        ([*_path(1.0), WeightMatrix(w_OI=np.ones((2, 2)))], "of one"),
        (_path(0.0, 1.0), "zeros at the first step"),
        (_path(1.0, np.inf), "not finite"),
    ],
)
def test_refusals(path: list[WeightMatrix], text: str) -> None:
    with pytest.raises(Refused, match=text):
        drift(path, rng=RNG)
