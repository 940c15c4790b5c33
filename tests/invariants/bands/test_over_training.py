"""Bands over a run: what is refused, what is said, and what the steps are for."""

import dataclasses

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.bands import ggn_bands, hessian_bands
from scaleinv_ray.records import Lanczos

DIM = 64


def _record(step: int | None, top: float, vector: int = 0) -> Lanczos:
    """A bulk of 20 nodes and one converged eigenvalue along a unit vector."""
    rng = np.random.default_rng(0)
    bulk_RK = np.sort(-np.cos(np.pi * (np.arange(20) + rng.uniform(size=(4, 20))) / 20))
    sketch_RKM = rng.normal(size=(4, 21, DIM)).astype(np.float32)
    sketch_RKM[:, -1] = np.eye(DIM)[vector]
    return Lanczos(
        nodes_RK=np.hstack([bulk_RK, np.full((4, 1), top)]),
        weights_RK=np.hstack([np.full((4, 20), 0.98 / 20), np.full((4, 1), 0.02)]),
        sketch_RKM=sketch_RKM, dim=DIM, step=step,
    )  # fmt: skip


RUN = [_record(step, 10 * (1 + step) ** 0.3) for step in (0, 9, 99)]


def _of(records: list[Lanczos]):
    return hessian_bands(records, rng=np.random.default_rng(0))


def test_the_top_band_grows_as_a_power() -> None:
    found = _of(RUN)
    values = {name: v.value for name, v in found.values.items() if isinstance(v, Estimate)}
    assert values["top_band_growth"] == pytest.approx(0.3)
    assert (values["num_bands"], values["num_tracks"], values["num_requests"]) == (1, 1, 0)
    assert values["band_weight"] == pytest.approx(0.02)
    np.testing.assert_array_equal(found.curves["band_1"].x, [0, 9, 99])


def test_a_lost_band_asks_for_a_checkpoint() -> None:
    found = _of([RUN[0], _record(9, 20.0, vector=1), RUN[2]])
    assert found.values["num_requests"].value == 2
    assert found.flags["requests"] == (
        "step 0..9: overlap 0.00, try 2; step 9..99: overlap 0.00, try 31"
    )
    assert isinstance(found.values["top_band_growth"], Refused)


def test_without_steps_positions_are_named_and_growth_refused() -> None:
    found = _of([dataclasses.replace(r, step=None) for r in [RUN[0], _record(9, 20.0, vector=1)]])
    assert found.flags["requests"] == "checkpoint 0..1: overlap 0.00"
    assert "needs the steps" in str(found.values["top_band_growth"])
    np.testing.assert_array_equal(found.curves["band_1"].x, [1.0])


def test_without_sketches_nothing_is_followed() -> None:
    found = _of([RUN[0], dataclasses.replace(RUN[1], sketch_RKM=None)])
    assert found.values["num_bands"].value == 1
    for name in ("num_tracks", "num_avoided_crossings", "num_requests", "top_band_growth"):
        assert "needs one number" in str(found.values[name])
    assert not found.curves


@pytest.mark.parametrize(
    ("records", "text"),
    [
        (RUN[:1], "needs two of one size"),
        ([RUN[0], dataclasses.replace(RUN[1], dim=65)], r"sizes \[64, 65\]"),
        ([RUN[0], dataclasses.replace(RUN[1], operator="ggn")], "allowed 'hessian'"),
        ([RUN[0], dataclasses.replace(RUN[1], nodes_RK=np.zeros((4, 21)))], "vanishes"),
        ([RUN[1], RUN[0]], r"step: got \[9, 0\], allowed ascending"),
        ([RUN[1], RUN[1]], r"step: got \[9, 9\], allowed ascending"),
    ],
)
def test_refusals(records: list[Lanczos], text: str) -> None:
    with pytest.raises(Refused, match=text):
        _of(records)


def test_the_operator_is_its_own() -> None:
    with pytest.raises(Refused, match="allowed 'ggn'"):
        ggn_bands(RUN, rng=np.random.default_rng(0))
    moved = [dataclasses.replace(r, operator="ggn") for r in RUN]
    assert ggn_bands(moved, rng=np.random.default_rng(0)).values["num_tracks"].value == 1
