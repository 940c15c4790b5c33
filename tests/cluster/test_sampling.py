"""Chains over actors: the settings of one process, each sampled by one actor."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.posterior.chains import chain_records
from scaleinv_ray.capture.toy_models import Task, quadratic_task
from scaleinv_ray.cluster.sampling import joined, sharded_chains
from scaleinv_ray.records import Chains

LADDER = [30.0, 100.0]
ASKED: dict[str, Any] = {"num_chains": 16, "num_steps": 400, "burn_in": 150}


def make() -> Task:
    """Six equal directions: a Gaussian posterior, lambda 3."""
    return quadratic_task(
        torch.ones(6), num_samples=64, spread=0.1, generator=torch.Generator().manual_seed(0)
    )


def alone(**asked: Any) -> Chains:
    (found,) = chain_records(*make(), generator=torch.Generator().manual_seed(1), **asked)
    return found


@pytest.fixture(scope="module")
def sharded(ray_session: None) -> Iterator[Chains]:
    yield sharded_chains(
        make, num_workers=2, seed=1, nbetas=LADDER, labels={"probe": "quadratic"}, **ASKED
    )


@pytest.mark.ray
def test_settings_are_those_of_one_process(sharded: Chains) -> None:
    whole = alone(nbetas=LADDER, num_steps=2, burn_in=1)
    np.testing.assert_allclose(sharded.nbeta_N, whole.nbeta_N)
    np.testing.assert_allclose(sharded.gamma_N, whole.gamma_N, rtol=1e-5)
    np.testing.assert_allclose(sharded.step_N, whole.step_N, rtol=0.02)  # noise is estimated
    assert sharded.loss_NCS.shape == (6, 16, 400)
    assert sharded.probe == "quadratic"
    assert sharded.restored


@pytest.mark.ray
def test_every_setting_has_chains_of_its_own(sharded: Chains) -> None:
    means_NC = (sharded.loss_NCS - sharded.base_loss_NCS)[:, :, 150:].mean(axis=2)
    assert len(np.unique(means_NC)) == means_NC.size
    found_N = sharded.nbeta_N * means_NC.mean(axis=1)
    stderr_N = sharded.nbeta_N * means_NC.std(axis=1, ddof=1) / 4
    # steps are a few per cent hot, localisers hold back a per cent at the most
    assert np.all(np.abs(found_N - 3.0) < 4 * stderr_N + 0.05 * 3.0)


@pytest.mark.ray
def test_more_actors_than_settings(ray_session: None) -> None:
    found = sharded_chains(
        make, num_workers=2, seed=0, nbetas=[30.0], gamma_factors=[1.0], num_steps=20, burn_in=10
    )
    assert found.loss_NCS.shape == (1, 8, 20)


def test_parts_are_put_together_in_order() -> None:
    parts = [alone(nbetas=[b], num_steps=4, burn_in=1, observed={"own": make().data})
             for b in LADDER]  # fmt: skip
    whole = joined(parts)
    np.testing.assert_array_equal(whole.nbeta_N, np.repeat(LADDER, 3))
    np.testing.assert_array_equal(whole.loss_NCS[3:], parts[1].loss_NCS)
    assert whole.observed_QNCS is not None and parts[1].observed_QNCS is not None
    np.testing.assert_array_equal(whole.observed_QNCS[:, 3:], parts[1].observed_QNCS)
    np.testing.assert_array_equal(whole.dispersed_C, parts[0].dispersed_C)


@pytest.mark.ray
def test_what_a_worker_refuses_is_refused(ray_session: None) -> None:
    with pytest.raises(ValueError, match="batch_size: got 1, allowed 2 or more"):
        sharded_chains(make, num_workers=1, seed=0, batch_size=1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_workers": 0}, "num_workers: got 0"),
        ({"num_workers": 1, "sampler": "rmsprop_sgld"}, "sampler: got 'rmsprop_sgld'"),
        ({"num_workers": 1, "blocks": {"a": ["w"], "b": ["w"]}}, r"blocks: got \['a', 'b'\]"),
    ],
)
def test_refusals(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sharded_chains(make, seed=0, **asked)
