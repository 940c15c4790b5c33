"""Conserved in training: how far a matrix moves over a run. Suffixes: S steps, O, I."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import exact
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import WeightMatrix


@invariant(
    quantities={
        "max_drift": Quantity(
            law="none",
            unit=1.0,
            meaning="Largest distance of a matrix from its first step, over the norm it had there",
        ),
        "final_drift": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "Distance of a matrix at the last step from the first, over the norm it had there"
            ),
        ),
        "decay_ratio": Quantity(
            law="constant",
            meaning=(
                "Norm of a matrix at the last step over that at the first; 1 where nothing is lost"
            ),
        ),
    },
    symmetries=("rotation", "scale", "permutation", "transpose"),
    curves={"drift": "Distance from the first checkpoint, over its norm; number of the checkpoint"},
)
def drift(steps: Sequence[WeightMatrix], *, rng: np.random.Generator) -> Measured:
    """Relative drift of a matrix from its first step, and what is left of its norm.

    max_drift = max_s ||W_s - W_0||_F / ||W_0||_F, final_drift the same at the last step, and
    decay_ratio = ||W_S||_F / ||W_0||_F. Of the balancedness W_{l+1}^T W_{l+1} - W_l W_l^T of a
    deep linear net the drift vanishes with the learning rate under gradient descent (Du, Hu & Lee
    2018; arXiv 2307.00144), and decay_ratio is exp(-2 lambda T) with weight decay lambda, T the
    sum of learning rates. Of plain weights it says how far training has moved them. In between two
    recorded steps the drift may have been larger.

    Args:
        steps: the matrix at two steps or more, in order.
        rng: not drawn from.

    Returns:
        The quantities, exact. Curve `drift`: ||W_s - W_0||_F / ||W_0||_F by index of the step.

    Raises:
        Refused: under two steps, for shapes that differ, values that are not finite, and a first
            matrix of zeros.

    >>> path = [WeightMatrix(w_OI=np.eye(2) * c) for c in (1.0, 1.5, 0.5)]
    >>> found = drift(path, rng=np.random.default_rng(0)).values
    >>> [found[q].value for q in ("max_drift", "final_drift", "decay_ratio")]
    [0.5, 0.5, 0.5]
    """
    sound(*steps)
    shapes = {step.w_OI.shape for step in steps}
    if len(steps) < 2 or len(shapes) > 1:
        raise Refused(f"steps: got {len(steps)} of shapes {shapes}, allowed two or more of one")
    w_SOI = np.stack([np.asarray(step.w_OI, dtype=np.float64) for step in steps])
    start = float(np.linalg.norm(w_SOI[0]))
    if start == 0:
        raise Refused("w_OI: got zeros at the first step, relative drift needs a norm")
    drift_S = np.linalg.norm(w_SOI - w_SOI[0], axis=(1, 2)) / start
    count = len(steps)
    values = {
        "max_drift": exact(drift_S.max(), n=count),
        "final_drift": exact(drift_S[-1], n=count),
        "decay_ratio": exact(float(np.linalg.norm(w_SOI[-1])) / start, n=count),
    }
    return Measured(values, curves={"drift": Curve(np.arange(float(count)), drift_S)})
