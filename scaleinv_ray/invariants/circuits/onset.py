"""When in training a circuit comes.

Shape suffixes: N components, S sequences, T checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.circuits.quantities import top_of
from scaleinv_ray.invariants.circuits.spread import jackknifed
from scaleinv_ray.invariants.circuits.task import of_circuit
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Effects


@invariant(
    quantities={
        "onset_step": Quantity(
            law="constant",
            meaning=(
                "Step at which the largest effect passes half of its final size; "
                "in tokens by those of a step"
            ),
        ),
    },
    curves={"top_effect": "Largest effect, in units of the metric; step"},
)
def onset(steps: Sequence[Effects], *, rng: np.random.Generator) -> Measured:
    """When in training the largest effect passes half of its final size.

    Between checkpoints it is interpolated over ln(1 + step); where it passes more than once, the
    last passage from below counts, after which it stays above.

    Args:
        steps: the effects of one run at its checkpoints, in order.
        rng: not used, nothing is drawn.

    Returns:
        The step, its error by delete-one jackknife over sequences, to which the gap between
        checkpoints is added as that of a uniform distribution. Curve `top_effect`.

    Raises:
        Refused: without steps, where the last checkpoint does not do the task or its largest
            effect is within two of its errors, and where the first one is past half already.
    """
    at_T = np.array([-1 if e.step is None else e.step for e in steps])
    if len(steps) < 3 or (np.diff(at_T) <= 0).any() or at_T[0] < 0:
        raise Refused(f"steps: got {at_T.tolist()!s:.60}, allowed three or more that ascend")
    sound(*steps)
    last = steps[-1]
    of_circuit(last)
    top = jackknifed(top_of, last.effect_NS)
    if top.stderr is None or top.value < 2 * top.stderr:
        raise Refused(f"top_effect: got {top} at the last step, allowed >= 2 of its errors")
    x_TNS = np.stack([e.effect_NS for e in steps])
    time_T = np.log1p(at_T)

    def passed(y_TNS: np.ndarray) -> float:
        top_T = np.array([top_of(y_NS) for y_NS in y_TNS])
        return _last_passage(time_T, top_T)

    found = jackknifed(lambda y_TNxS: passed(_apart(y_TNxS, len(steps))), np.concatenate(x_TNS))
    gap = _gap(time_T, found.value)
    step = float(np.expm1(found.value))
    error = (1 + step) * float(np.hypot(found.stderr or 0.0, gap / np.sqrt(12)))
    curve = [jackknifed(top_of, x_NS) for x_NS in x_TNS]
    drawn = Curve(
        at_T.astype(float),
        np.array([e.value for e in curve]),
        np.array([np.nan if e.stderr is None else e.stderr for e in curve]),
    )
    return Measured(
        {"onset_step": Estimate(step, error, found.n, "jackknife")}, curves={"top_effect": drawn}
    )


def _apart(y_MS: np.ndarray, num_steps: int) -> np.ndarray:
    return y_MS.reshape(num_steps, -1, y_MS.shape[1])


def _last_passage(time_T: np.ndarray, top_T: np.ndarray) -> float:
    half = top_T[-1] / 2
    below = np.flatnonzero(top_T < half)
    if not len(below):
        raise Refused(
            f"steps: got the first one, {np.expm1(time_T[0]):.0f}, past half of the final effect; "
            "allowed an earlier checkpoint"
        )
    at = int(below[-1])
    part = (half - top_T[at]) / (top_T[at + 1] - top_T[at])
    return float(time_T[at] + part * (time_T[at + 1] - time_T[at]))


def _gap(time_T: np.ndarray, time: float) -> float:
    at = int(np.clip(np.searchsorted(time_T, time), 1, len(time_T) - 1))
    return float(time_T[at] - time_T[at - 1])
