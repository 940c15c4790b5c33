"""Is a model out of the family of a series, given how well it predicts?

A damaged model shows in its loss first, and an early checkpoint differs in everything. What a
quantity says beyond that is its distance from models of that size *at that loss*.

Shape suffixes: S checkpoints, N models, F quantities, R rows (checkpoints of models), C regressors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaleinv_ray.conclude.assessment.conformal import MOST, Rank

NEAREST = 3
"""Checkpoints of every model that are read: over more, a quantity is no line in the loss."""
_LEAST_FREE = 6
"""Rows more than regressors: of fewer the scatter is not known."""


@dataclass(frozen=True)
class AtLosses:
    """Values of a series over training, and of a candidate.

    Attributes:
        names: of the quantities, the losses not among them.
        n_params_N: parameters of the models of the series.
        loss_SN: their losses.
        values_SNF: their values on the judged scale.
        n_params: parameters of the candidate.
        loss: its loss.
        values_F: its values.
    """

    names: Sequence[str]
    n_params_N: np.ndarray
    loss_SN: np.ndarray
    values_SNF: np.ndarray
    n_params: float
    loss: float
    values_F: np.ndarray


class GivenLoss(NamedTuple):
    """What is said of a model of its size and loss.

    Attributes:
        rank: p value, and the quantity that is furthest out.
        t: distance of that quantity in standard errors of the prediction.
        num_models: models that it is ranked among.
    """

    rank: Rank
    t: float
    num_models: int


def given_loss(given: AtLosses) -> GivenLoss:
    """The candidate among models of its size and loss.

    Of every model the three checkpoints with losses nearest to the candidate's are read. Each
    quantity is regressed on (1, ln N, loss) over them; the score is the largest |t| of a new point,
    t = residual / (s sqrt(1 + h)). Every model is scored by its checkpoint that is nearest, with
    all of its own left out; p = (1 + models that score as high) / (1 + models), conformal (Vovk,
    Gammerman & Shafer 2005, ch. 2).

    Args:
        given: finite values.

    Returns:
        The rank.

    Raises:
        ValueError: without quantities, for a size or a loss beyond those of the series, and for too
            few models to know the scatter.
    """
    if not given.names:
        raise ValueError("quantities: got none beside the loss, allowed at least one")
    for what, value, known in (
        ("size", given.n_params, given.n_params_N),
        ("loss", given.loss, given.loss_SN),
    ):
        if not known.min() <= value <= known.max():
            raise ValueError(
                f"{what}: got {value:.4g}, the series has {known.min():.4g}..{known.max():.4g}"
            )
    num_models = len(given.n_params_N)
    order_SN = np.argsort(np.abs(given.loss_SN - given.loss), axis=0, kind="stable")[:NEAREST]
    model_R = np.tile(np.arange(num_models), len(order_SN))
    step_R = order_SN.ravel()
    x_RC = _regressors(given.n_params_N[model_R], given.loss_SN[step_R, model_R])
    y_RF = given.values_SNF[step_R, model_R]
    if len(y_RF) - len(order_SN) < x_RC.shape[1] + _LEAST_FREE:
        raise ValueError(f"series: got {num_models} models, too few to know their scatter")
    scores = []
    for model in range(num_models):
        rest_R = model_R != model
        # the nearest checkpoints of all models are the first rows
        scores.append(np.abs(_t(x_RC[rest_R], y_RF[rest_R], x_RC[model], y_RF[model])).max())
    x_C = _regressors(np.array([given.n_params]), np.array([given.loss]))[0]
    t_F = _t(x_RC, y_RF, x_C, given.values_F)
    worst = int(np.abs(t_F).argmax())
    above = sum(score >= abs(t_F[worst]) for score in scores)
    rank = Rank((1 + above) / (1 + num_models), given.names[worst])
    return GivenLoss(rank, float(t_F[worst]), num_models)


def _regressors(n_params_R: np.ndarray, loss_R: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(loss_R)), np.log(n_params_R), loss_R], axis=1)


def _t(x_RC: np.ndarray, y_RF: np.ndarray, x_C: np.ndarray, y_F: np.ndarray) -> np.ndarray:
    """Residuals of a new point over their standard error; at most `MOST`."""
    pseudo_CR = np.linalg.pinv(x_RC)
    coefficients_CF = pseudo_CR @ y_RF
    residual_RF = y_RF - x_RC @ coefficients_CF
    free = len(x_RC) - x_RC.shape[1]
    leverage = float(((x_C @ pseudo_CR) ** 2).sum())
    stderr_F = np.sqrt((residual_RF**2).sum(axis=0) / free) * math.sqrt(1 + leverage)
    away_F = y_F - x_C @ coefficients_CF
    with np.errstate(divide="ignore", invalid="ignore"):
        t_F = np.where(away_F == 0, 0.0, away_F / stderr_F)
    clipped: np.ndarray = np.clip(t_F, -MOST, MOST)
    return clipped
