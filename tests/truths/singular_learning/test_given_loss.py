"""A model among those of its size and loss: an early checkpoint is in, a damaged one is out."""

import math

import numpy as np
import pytest

from scaleinv_ray.conclude.assessment.given_loss import AtLosses, given_loss

SIZES_M = np.repeat([1e5, 2e5, 4e5, 8e5], 5)
LOSS_S = np.array([4.0, 3.6, 3.3, 3.1, 3.0])
LEVEL = 0.1


def drawn(rng, n_params_M, num=20, spread=0.05):
    """Losses and values of models: lines in ln N and the loss, with a scatter of each model."""
    loss_SM = LOSS_S[:, None] - 0.1 * np.log(n_params_M / 1e5)
    loss_SM = loss_SM + 0.01 * rng.normal(size=loss_SM.shape)
    slope_F = np.linspace(-1, 1, num)
    mean_SMF = loss_SM[..., None] * slope_F + np.log(n_params_M)[:, None] * slope_F[::-1]
    own_MF = spread * rng.standard_t(4, (len(n_params_M), num))
    return loss_SM, mean_SMF + own_MF + 0.01 * rng.normal(size=mean_SMF.shape)


def candidate_of(rng, *, step=2, shift=0.0):
    loss_SM, values_SMF = drawn(rng, np.append(SIZES_M, 4e5))
    values_F = values_SMF[step, -1].copy()
    values_F[7] += shift
    return AtLosses(
        names=[f"q{f}" for f in range(values_F.size)],
        n_params_N=SIZES_M,
        loss_SN=loss_SM[:, :-1],
        values_SNF=values_SMF[:, :-1],
        n_params=4e5,
        loss=float(loss_SM[step, -1]),
        values_F=values_F,
    )


@pytest.mark.parametrize("step", [1, 2, 3])
def test_healthy_models_of_any_checkpoint_alarm_at_most_at_the_level(step):
    rng, trials = np.random.default_rng(step), 200
    alarms = sum(given_loss(candidate_of(rng, step=step)).rank.p <= LEVEL for _ in range(trials))
    assert alarms / trials <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / trials)


def test_what_is_out_at_its_loss_is_named():
    found = given_loss(candidate_of(np.random.default_rng(0), shift=2.0))
    assert (found.rank.worst, found.num_models) == ("q7", 20)
    assert found.rank.p == pytest.approx(1 / 21)
    assert found.t > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": 5.0}, r"^loss: got 5, the series has 2.7"),
        ({"n_params": 1e7}, r"^size: got 1e\+07, the series has 1e\+05..8e\+05"),
        ({"names": []}, "^quantities: got none"),
    ],
)
def test_refusals(change, message):
    given = vars(candidate_of(np.random.default_rng(1))) | change
    with pytest.raises(ValueError, match=message):
        given_loss(AtLosses(**given))


def test_few_models_are_refused():
    given = candidate_of(np.random.default_rng(1))
    few = {
        "n_params_N": given.n_params_N[[0, 19]],
        "loss_SN": given.loss_SN[:, [0, 19]],
        "values_SNF": given.values_SNF[:, [0, 19]],
    }
    with pytest.raises(ValueError, match="^series: got 2 models, too few"):
        given_loss(AtLosses(**vars(given) | few))
