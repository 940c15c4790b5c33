"""The volume of small loss by subset simulation.

Levels halve the prior volume: a population uniform in {K < eps} keeps its better half, which
defines the next eps, is doubled, and moved at random inside (Au and Beck 2001; the unbiased step of
log V is that of nested sampling, Skilling 2006). Depth costs the logarithm of the volume only.

Shape suffixes: B independent blocks of particles, L levels, P particles of a block, N variables,
S moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import digamma

from scaleinv_ray.contract import Refused

_SCALES = 8
"""Bins of the logarithm of the step size, from sqrt(eps) to the size of the cube."""
_EXPLORE = 0.25
"""Share of proposals that keeps trying every size of step and kind of direction."""
_TINY = 1e-150
"""Losses below it count as it where ratios are taken."""
_SETTLED = 10
"""Last levels over which thresholds must still fall as the largest exponent demands."""
_SHORT = 6
"""Levels up to which nothing is asked of their fall: nobody fits a law to so few."""


@dataclass(frozen=True)
class StateDensity:
    """Levels of a subset simulation.

    Attributes:
        log_eps_BL: log of the threshold of every level, in each block.
        log_volume_L: log of the prior volume below it, the prior having volume 1; the expectation
            is exact, and independent errors of the blocks accumulate.
        log_k_BLP: log K of the particles, at least the smallest loss asked for. Level 0 is uniform
            in the whole prior, level l below threshold l - 1; threshold l was read off it.
        acceptance_L: share of the moves accepted before each level but the first.
    """

    log_eps_BL: np.ndarray
    log_volume_L: np.ndarray
    log_k_BLP: np.ndarray
    acceptance_L: np.ndarray


class _Particles(NamedTuple):
    w_BPN: np.ndarray
    k_BP: np.ndarray


def subset_simulation(
    potential: Callable[[np.ndarray], np.ndarray],
    num_variables: int,
    *,
    rng: np.random.Generator,
    num_particles: int = 2000,
    num_blocks: int = 20,
    num_moves: int = 20,
    smallest_volume: float = 1e-16,
    smallest_loss: float = 1e-28,
    in_corner: bool = False,
) -> StateDensity:
    """Thresholds eps whose volumes {K < eps} are 1/2, 1/4, .. of a uniform prior on [-1, 1]^N.

    Blocks never exchange particles: their spread is the error, correlation of the moves included. A
    move is a normal step along one axis or in all of them, its size log-uniform over bins between
    sqrt(eps) - below which no K with a Hessian of order 1 has structure - and 1. Between levels the
    bins are weighted by the squared change of log K that they brought about.

    Args:
        potential: K >= 0 of points w_..N, with a zero inside the cube.
        num_blocks: at least 2.
        num_moves: of every particle at every level.
        smallest_loss: or where the median threshold is here: well above the rounding of K.
        in_corner: K has a gradient at its zero, as |w1| + |w2|: steps go down to eps, and llc may
            reach num_variables instead of half of it.

    Returns:
        Thresholds, volumes and particles.

    Raises:
        ValueError: for a K that is negative or not finite, or fewer than 8 particles a block.
        Refused: where the thresholds stop falling: K has no zero inside the cube; and where there
            is no level, as for a K that vanishes on half of the cube.

    >>> found = subset_simulation(lambda w: w[..., 0] ** 2, 1, rng=np.random.default_rng(0))
    >>> exact = 0.5 * found.log_eps_BL  # V(eps) = sqrt(eps)
    >>> bool(np.abs(exact.mean(axis=0) - found.log_volume_L).max() < 0.6)
    True
    """
    size, degree = num_particles // num_blocks, 1 if in_corner else 2
    if num_blocks < 2 or size < 8:
        raise ValueError(f"num_particles: got {size} in each of {num_blocks} blocks, needs 8, 2")
    kept = size // 2
    step = float(digamma(kept + 1) - digamma(size + 1))  # mean log volume of an order statistic
    w_BPN = rng.uniform(-1, 1, (num_blocks, size, num_variables))
    now = _Particles(w_BPN, _checked(potential(w_BPN)))
    proposal = np.full(2 * _SCALES, 0.5 / _SCALES)
    thresholds: list[np.ndarray] = []
    levels: list[np.ndarray] = []
    acceptance: list[float] = []
    move = partial(_moved, potential, degree=degree, num_moves=num_moves, rng=rng)
    while True:
        order_BP = np.argsort(now.k_BP, axis=1)
        k_BP = np.take_along_axis(now.k_BP, order_BP, axis=1)
        levels.append(k_BP)
        eps_B = k_BP[:, kept]
        volume = math.exp(step * (len(thresholds) + 1))
        if volume < smallest_volume or np.median(eps_B) < smallest_loss or eps_B.min() <= 0:
            break
        thresholds.append(eps_B)
        clone_P = np.arange(size) % kept
        w_BPN = np.take_along_axis(now.w_BPN, order_BP[:, clone_P, None], axis=1)
        now = _Particles(w_BPN, k_BP[:, clone_P])
        now, kind_SBP, gain_SBP = move(now, eps_B, proposal=proposal)
        acceptance.append(float((gain_SBP >= 0).mean()))
        proposal = _adapted(kind_SBP, np.maximum(gain_SBP, 0.0))
    if not thresholds:
        ends = f"smallest_loss {smallest_loss:.3g}, smallest_volume {smallest_volume:.3g}"
        raise Refused(f"no level: half of the cube has K <= {np.median(eps_B):.3g} ({ends})")
    _require_zero(thresholds, num_variables / degree)
    return StateDensity(
        log_eps_BL=np.log(np.array(thresholds).T.reshape(num_blocks, -1)),
        log_volume_L=step * np.arange(1, len(thresholds) + 1),
        log_k_BLP=np.log(np.maximum(np.stack(levels, axis=1), smallest_loss)),
        acceptance_L=np.array(acceptance),
    )


def _require_zero(thresholds: list[np.ndarray], largest: float) -> None:
    # An analytic K with a zero has llc <= N / 2, and <= N in a corner: `largest`. So halving the
    # volume divides eps by at least 2^(1 / largest); half of that, in the logarithm, over the last
    # levels leaves room for noise.
    last = np.log(np.median(np.array(thresholds[-_SETTLED - 1 :]), axis=1))
    fall = float(last[0] - last[-1]) / max(len(last) - 1, 1)
    if len(last) > _SHORT and fall < math.log(2) / (2 * largest):
        raise Refused(
            f"K stays near {math.exp(last[-1]):.2g}: it has no zero inside the cube, "
            "or one with a gradient (in_corner)"
        )


def _checked(k_BP: np.ndarray) -> np.ndarray:
    if not np.isfinite(k_BP).all() or k_BP.min() < 0:
        raise ValueError("potential: got negative or non-finite values, must be >= 0 on the cube")
    return k_BP


def _moved(
    potential: Callable[[np.ndarray], np.ndarray],
    now: _Particles,
    eps_B: np.ndarray,
    *,
    degree: int,
    proposal: np.ndarray,
    num_moves: int,
    rng: np.random.Generator,
) -> tuple[_Particles, np.ndarray, np.ndarray]:
    """Moves all particles inside {K < eps}; also the kind and the gain of every proposal."""
    # The gain is the squared change of log K, at most 1; -1 where the proposal was refused.
    w_BPN, k_BP = now
    finest_B = np.minimum(eps_B, 1.0) ** (1 / degree)
    shape = (num_moves, *w_BPN.shape)
    kind_SBP, step_SBPN = _steps(finest_B, shape, proposal=proposal, rng=rng)
    gain_SBP = np.empty(kind_SBP.shape)
    for step_BPN, gain_BP in zip(step_SBPN, gain_SBP, strict=True):
        next_BPN = w_BPN + step_BPN
        inside_BP = np.abs(next_BPN).max(axis=-1) <= 1
        next_BPN = np.where(inside_BP[..., None], next_BPN, w_BPN)
        next_BP = _checked(potential(next_BPN))
        accepted_BP = inside_BP & (next_BP < eps_B[:, None])
        change_BP = np.log(np.maximum(next_BP, _TINY) / np.maximum(k_BP, _TINY))
        gain_BP[...] = np.where(accepted_BP, np.minimum(change_BP**2, 1.0), -1.0)
        w_BPN = np.where(accepted_BP[..., None], next_BPN, w_BPN)
        k_BP = np.where(accepted_BP, next_BP, k_BP)
    return _Particles(w_BPN, k_BP), kind_SBP, gain_SBP


def _steps(
    finest_B: np.ndarray,
    shape: tuple[int, ...],
    *,
    proposal: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Kinds of proposals (along one axis or in all; bin of the size) and the steps themselves."""
    *lead, num_variables = shape
    edges = np.cumsum(proposal)
    kind_SBP = np.searchsorted(edges[:-1], rng.random(lead) * edges[-1], side="right")
    share_SBP = (kind_SBP % _SCALES + rng.random(lead)) / _SCALES
    scale_SBP = np.exp(np.log(finest_B)[:, None] * share_SBP)
    step_SBPN = rng.standard_normal(shape) * scale_SBP[..., None]
    axis_SBP = rng.integers(num_variables, size=lead)
    other_SBPN = axis_SBP[..., None] != np.arange(num_variables)
    step_SBPN[(kind_SBP < _SCALES)[..., None] & other_SBPN] = 0.0
    return kind_SBP, step_SBPN


def _adapted(kind_SBP: np.ndarray, gain_SBP: np.ndarray) -> np.ndarray:
    """Probabilities of the kinds for the next level: in proportion to what they gained."""
    gain = np.bincount(kind_SBP.ravel(), gain_SBP.ravel(), minlength=2 * _SCALES)
    even = np.full(2 * _SCALES, 1 / (2 * _SCALES))
    return even if not gain.any() else _EXPLORE * even + (1 - _EXPLORE) * gain / gain.sum()
