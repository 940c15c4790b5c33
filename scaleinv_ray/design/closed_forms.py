"""What theory says of a model before it is made, and where it says nothing.

Mean field of a pre-LayerNorm block with an MLP of ratio r = 4: W_in ~ N(0, s1^2), W_out ~
N(0, s2^2), variance v of the stream, z ~ N(0, 1) and q^2 = D s1^2 v / (v + eps). Of attention only
its variance counts, D^2 s1^2 s2^2 over the positions that it averages over.

    chi - 1 = r D s2^2 D s1^2 E[gelu'(q z)^2] / (v + eps) * (1 + 1 / D)
    v_next - v = r D s2^2 E[gelu(q z)^2]

The factor 1 + 1 / D: a LayerNorm has no gain along the stream (D - 2 of D - 1 directions are left),
and E[1 / v] = (1 + 2 / D) / E[v] of a Gaussian embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

MOST_Q = 1.0
"""Above it the derivative of the softmax, ~ (s_q s_k D)^2, is not small: at q = 2 the formula gives
2.9 where 4.2 is measured."""
MOST_ATTENTION = 0.05
"""Share of the stream's variance that attention may add in a block."""
RATIO = 4
TRACY_WIDOM_MEAN = -1.2065336
"""Of the orthogonal ensemble."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(96)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


class NoFormulaError(ValueError):
    """Theory says nothing here: only a measurement does."""


class UnreachableError(ValueError):
    """No model of the space has the value."""


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """An untrained model, as the formulas need it.

    Attributes:
        width: D.
        depth: blocks.
        std_in: of matrices that read the stream.
        std_out: of matrices that write to it.
        variance: v of the embedding, in one dimension.
        parallel: attention and MLP read the same stream.
        eps: of the norms.
        attended: positions that attention averages over, those with the same token counted as one.
    """

    width: int
    depth: int
    std_in: float
    std_out: float
    variance: float
    parallel: bool
    eps: float = 1e-5
    attended: float = 20.0


def initialised(architecture: str, *, width: int, depth: int, init_scale: float) -> Initialised:
    """The rules of `ladder.architectures` as standard deviations.

    Raises:
        NoFormulaError: for an architecture whose MLP is gated, or that has none.

    >>> model = initialised("gpt2", width=128, depth=4, init_scale=1.0)
    >>> round(model.variance, 6), round(model.std_out * 8**0.5, 6)
    (0.0008, 0.02)
    """
    if architecture == "gpt2":
        std_in, std_out, variance = 0.02, 0.02 / math.sqrt(2 * depth), 2 * 0.02**2
    elif architecture == "gpt_neox":
        std_in = math.sqrt(2 / (5 * width))
        std_out, variance = 2 / (depth * math.sqrt(width)), std_in**2
    else:
        raise NoFormulaError(
            f"architecture: got {architecture}, the formula is one of gpt2 and gpt_neox "
            "(an MLP of two matrices with gelu): only a measurement decides"
        )
    return Initialised(
        width=width,
        depth=depth,
        std_in=init_scale * std_in,
        std_out=init_scale * std_out,
        variance=variance,
        parallel=architecture == "gpt_neox",
    )


def chi_of_layers(model: Initialised) -> list[float]:
    """Of every block the chi of an untrained model (`stability.order_chaos`).

    Raises:
        NoFormulaError: for q > 1, and where attention is not small beside the stream.

    >>> model = Initialised(width=128, depth=1, std_in=0.5 / 128**0.5, std_out=0.5 / 128**0.5,
    ...                     variance=1.0, parallel=True, eps=0.0)
    >>> round(chi_of_layers(model)[0], 3)
    1.09
    """
    v, found = model.variance, []
    gain = RATIO * model.width * model.std_out**2
    for layer in range(model.depth):
        gain_in = model.width * model.std_in**2
        q = math.sqrt(gain_in * v / (v + model.eps))
        attention = model.width**2 * model.std_in**2 * model.std_out**2 / model.attended
        if q > MOST_Q or attention > MOST_ATTENTION * v:
            share = f"attention {attention / v:.1%} of the stream"
            raise NoFormulaError(
                f"layer {layer}: got q = {q:.2f}, {share}; the formula holds for q <= {MOST_Q:g} "
                f"and {MOST_ATTENTION:.0%}: only a measurement decides"
            )
        read = v if model.parallel else v + attention
        stretch = gain_in * _mean(_slope, q) / (read + model.eps)
        found.append(1.0 + gain * stretch * (1.0 + 1.0 / model.width))
        v += gain * _mean(_gelu, q) + attention
    return found


def stable_rank(rows: int, columns: int) -> float:
    """Stable rank ||W||_F^2 / ||W||_2^2 of an untrained Gaussian matrix, whatever its scale.

    The largest eigenvalue of W W^T lies at the Marchenko-Pastur edge (sqrt n + sqrt m)^2, so that
    the stable rank of a square matrix is n / 4; of finite ones it lies below the edge by the mean
    of the Tracy-Widom law (Johnstone 2001, theorem 1.1), which is 3 % at n = 128.

    >>> round(stable_rank(10**8, 10**8) / 10**8, 4), round(stable_rank(128, 128), 1)
    (0.25, 33.1)
    """
    root_n, root_m = math.sqrt(rows - 1), math.sqrt(columns)
    edge = (root_n + root_m) ** 2
    width = (root_n + root_m) * (1 / root_n + 1 / root_m) ** (1 / 3)
    return rows * columns / (edge + TRACY_WIDOM_MEAN * width)


def sharpness(lr: float) -> float:
    """Largest eigenvalue of the Hessian at which full-batch gradient descent settles: 2 / lr.

    The edge of stability (Cohen et al. 2021): of a model that is trained long enough on a target
    that is hard enough.

    >>> sharpness(0.1)
    20.0
    """
    return 2.0 / lr


def check_chi(value: float) -> None:
    """Refuses what no pre-LayerNorm residual block has.

    Raises:
        UnreachableError: for a value of 1 or less.
    """
    if value <= 1:
        raise UnreachableError(
            f"target.value: got chi = {value:g}, allowed > 1: a pre-LayerNorm block adds to the "
            "stream, so chi - 1 = 4 D^2 s1^2 s2^2 E[gelu'^2] / v > 0, which falls as 1 / layer and "
            "vanishes at no finite depth"
        )


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * special.ndtr(x)


def _slope(x: np.ndarray) -> np.ndarray:
    return special.ndtr(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def _mean(of: Callable[[np.ndarray], np.ndarray], q: float) -> float:
    """E[of(q z)^2]."""
    return float(_WEIGHTS @ of(q * _NODES) ** 2)
