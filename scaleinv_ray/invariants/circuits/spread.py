"""How effects are spread over components: few or many, early or late, additive or not.

Shape suffixes: N components, S sequences (the replicates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.resample import jackknife

GAUSSIAN_PARTICIPATION = 2 / np.pi
"""(sum |e|)^2 / (n sum e^2) of Gaussian effects: what no structure at all gives."""
HALF_NORMAL_N90 = 0.646
"""Share of components that hold 90 % of the sum of |e| of Gaussian effects."""
LEAST_SIGNAL = 0.5
"""Share of sum e^2 that must be more than sampling noise."""


def signal_share(effect_NS: np.ndarray) -> float:
    """1 - sum se^2 / sum e^2: the share of squared effects that sampling does not explain.

    Args:
        effect_NS: of each component on each sequence.

    Returns:
        At most 1; below 0 where there is less than sampling would give.

    Raises:
        Refused: with fewer than two sequences, or where no effect differs from zero.
    """
    if effect_NS.shape[1] < 2:
        raise Refused(f"effects: got {effect_NS.shape[1]} sequence, allowed >= 2 for an error")
    mean_N = effect_NS.mean(axis=1)
    total = float((mean_N**2).sum())
    if total == 0:
        raise Refused("effects: got zeros alone")
    noise = float((effect_NS.var(axis=1, ddof=1) / effect_NS.shape[1]).sum())
    return 1 - noise / total


def check_signal(effect_NS: np.ndarray) -> None:
    """Refuses effects that are mostly sampling noise.

    Raises:
        Refused: where `signal_share` is below a half.
    """
    share = signal_share(effect_NS)
    if share < LEAST_SIGNAL:
        raise Refused(
            f"effects: got a signal share of {share:.2f}, allowed >= {LEAST_SIGNAL}: noise alone "
            "looks like Gaussian effects; take more sequences"
        )


def magnitudes(effect_NS: np.ndarray) -> np.ndarray:
    """|e| of each component, its noise taken out: the root of e^2 by split halves, at least 0.

    The mean of e1 e2 over all pairs of different sequences is mean^2 - se^2; what is below 0 is
    noise alone. It is continuous in the sequences, so that the jackknife holds, and what is left of
    a component without effect is half a standard error on average.

    Args:
        effect_NS: of each component on each sequence, two or more.

    Returns:
        One number a component.

    >>> magnitudes(np.array([[1.0, 1.0], [-2.0, -2.0], [1.0, -1.0]])).tolist()
    [1.0, 2.0, 0.0]
    """
    mean_N = effect_NS.mean(axis=1)
    noise_N = effect_NS.var(axis=1, ddof=1) / effect_NS.shape[1]
    return np.asarray(np.sqrt(np.maximum(mean_N**2 - noise_N, 0)))


def ranked(effect_NS: np.ndarray) -> np.ndarray:
    """`magnitudes`, the largest first."""
    return np.sort(magnitudes(effect_NS))[::-1]


def size_holding(along_N: np.ndarray, share: float = 0.9) -> float:
    """How many of a ranking hold a share of what all do; the last one counts in part.

    Args:
        along_N: what the first one, the first two, .., all do.
        share: of the last of these.

    Returns:
        The number, between 0 and N.

    Raises:
        Refused: where all together do nothing.

    >>> size_holding(np.array([8.0, 10.0]))
    1.5
    """
    if along_N[-1] == 0:
        raise Refused("effects: got 0 of all components together")
    reached_N = along_N / along_N[-1]
    at = int((reached_N >= share * (1 - 1e-12)).argmax())
    before = reached_N[at - 1] if at else 0.0
    return float(at + np.clip((share - before) / (reached_N[at] - before), 0, 1))


def size_between(size_K: np.ndarray, along_K: np.ndarray, share: float = 0.9) -> float:
    """`size_holding` of a ranking of which some sizes were run; between them, straight lines.

    Args:
        size_K: ascending; the last one is all.
        along_K: what the first of each size do.
        share: of the last of these.

    Returns:
        The number, between 0 and the last size.

    Raises:
        Refused: as `size_holding`.

    >>> size_between(np.array([1, 3]), np.array([6.0, 10.0]))
    2.5
    """
    return size_holding(np.interp(np.arange(1, size_K[-1] + 1), size_K, along_K), share)


def participation(effect_NS: np.ndarray) -> Estimate:
    """How many components share the effect: (sum |e|)^2 / sum e^2, between 1 and N.

    What sampling noise adds is taken out: sum se^2 off sum e^2; and |e| is the mean of each
    sequence times the sign of all others, which is 0 for a component without effect. What then lies
    outside 1..N is 1 or N. Trivial value: 2/pi of N.

    Args:
        effect_NS: of each component on each sequence.

    Returns:
        The number; its error by delete-one jackknife over sequences.

    Raises:
        Refused: as `check_signal`.

    >>> participation(np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])).value
    2.0
    """
    check_signal(effect_NS)

    def of(x_NS: np.ndarray) -> float:
        mean_N = x_NS.mean(axis=1)
        noise = x_NS.var(axis=1, ddof=1).sum() / x_NS.shape[1]
        squares = max((mean_N**2).sum() - noise, 1e-300)
        others_NS = np.sign(x_NS.sum(axis=1, keepdims=True) - x_NS)
        total = max(float((others_NS * x_NS).mean(axis=1).sum()), 0.0)
        return float(np.clip(total**2 / squares, 1, len(x_NS)))

    return jackknifed(of, effect_NS)


def n90(effect_NS: np.ndarray) -> Estimate:
    """The smallest number of components that hold 90 % of the sum of |e|, ranked by |e|.

    The sum is that of `ranked`, free of what noise adds. Trivial value, of Gaussian effects: .646
    of N.

    Args:
        effect_NS: of each component on each sequence.

    Returns:
        The number; the error is that of `size_holding`, by delete-one jackknife over sequences: a
        whole number hardly ever changes with one sequence.

    Raises:
        Refused: as `check_signal`.
    """
    check_signal(effect_NS)
    found = jackknifed(lambda x_NS: size_holding(ranked(x_NS).cumsum()), effect_NS)
    return replace(found, value=float(np.ceil(found.value - 1e-9)))


class SortedEffects(NamedTuple):
    """Sorted effects beside those of no structure.

    Attributes:
        rank_N: rank / n, from the middle of each step.
        effect_N: |e| over the largest one, largest first.
        half_normal_N: the same of Gaussian effects.
        exponent: b in |e| ~ rank^-b, over the upper half of the ranks.
        trivial_exponent: of the half-normal on the same ranks.
    """

    rank_N: np.ndarray
    effect_N: np.ndarray
    half_normal_N: np.ndarray
    exponent: float
    trivial_exponent: float


def sorted_effects(effect_NS: np.ndarray) -> SortedEffects:
    """The curve of |e| against rank / n, its exponent, and both of the half-normal.

    Args:
        effect_NS: of each component on each sequence.

    Returns:
        Both curves and exponents.

    Raises:
        Refused: as `check_signal`; with fewer than four components.
    """
    check_signal(effect_NS)
    n = len(effect_NS)
    if n < 4:
        raise Refused(f"effects: got {n} components, allowed >= 4 for a curve")
    effect_N = ranked(effect_NS)
    rank_N = (np.arange(n) + 0.5) / n
    half_N = stats.halfnorm.ppf(1 - rank_N)
    return SortedEffects(
        rank_N,
        effect_N / effect_N[0],
        half_N / half_N[0],
        curve_exponent(effect_N),
        curve_exponent(half_N),
    )


def curve_exponent(curve_N: np.ndarray) -> float:
    """The exponent b of |e| ~ rank^-b, by least squares of logarithms over the larger half.

    Args:
        curve_N: largest first.

    Returns:
        The exponent.

    Raises:
        Refused: where fewer than two of these are above 0.
    """
    n = len(curve_N)
    rank_N, upper_N = (np.arange(n) + 0.5) / n, curve_N[: max(2, n // 2)]
    above = np.flatnonzero(upper_N > 0)
    if len(above) < 2:
        raise Refused(f"effects: got {len(above)} above 0 in the upper half, allowed >= 2")
    return float(-np.polyfit(np.log(rank_N[above]), np.log(upper_N[above]), 1)[0])


class DepthProfile(NamedTuple):
    """Where in the depth the effect lies; a uniform profile has centre .5 of the middle of layers.

    Attributes:
        share_L: of sum |e| in each layer.
        centre: mean of relative depth (layer + 1/2) / L, weighted by |e|.
        width: its standard deviation.
        spread: the same with its error.
    """

    share_L: np.ndarray
    centre: Estimate
    width: float
    spread: Estimate


def depth_profile(effect_NS: np.ndarray, layer_N: np.ndarray, num_layers: int) -> DepthProfile:
    """The profile of |e| over relative depth.

    Args:
        effect_NS: of each component on each sequence.
        layer_N: of each component.
        num_layers: of the model.

    Returns:
        Shares of layers, centre and width.

    Raises:
        Refused: as `check_signal`.
    """
    check_signal(effect_NS)
    depth_N = (np.asarray(layer_N) + 0.5) / num_layers

    def centre(x_NS: np.ndarray) -> float:
        return float(np.average(depth_N, weights=magnitudes(x_NS)))

    def width(x_NS: np.ndarray) -> float:
        weight_N = magnitudes(x_NS)
        middle = np.average(depth_N, weights=weight_N)
        return float(np.sqrt(np.average((depth_N - middle) ** 2, weights=weight_N)))

    weight_N = magnitudes(effect_NS)
    share_L = np.bincount(layer_N, weights=weight_N, minlength=num_layers) / weight_N.sum()
    spread = jackknifed(width, effect_NS)
    return DepthProfile(share_L, jackknifed(centre, effect_NS), spread.value, spread)


def redundancy(effect_NS: np.ndarray, all_S: np.ndarray) -> Estimate:
    """Sum of single effects over the effect of all of them together; 1 where effects add up.

    Args:
        effect_NS: of each component alone.
        all_S: of all together.

    Returns:
        The ratio; its error by delete-one jackknife over sequences.

    Raises:
        Refused: where the joint effect is less than two of its standard errors.
    """
    stderr = all_S.std(ddof=1) / np.sqrt(len(all_S)) if len(all_S) > 1 else np.inf
    if abs(all_S.mean()) <= 2 * stderr or len(all_S) < 2:
        raise Refused(
            f"effect of all together: got {all_S.mean():.3g} +- {stderr:.2g}, allowed >= 2 errors"
        )
    both = np.vstack([effect_NS, all_S])
    return jackknifed(lambda x: float(x[:-1].mean(axis=1).sum() / x[-1].mean()), both)


def jackknifed(of: Callable[[np.ndarray], float], x_NS: np.ndarray) -> Estimate:
    """A function of values on sequences, [.., S], with its delete-one error."""
    count = x_NS.shape[1]
    if count < 3:  # without one there would be a single sequence, which has no variance
        return Estimate(of(x_NS), None, count, "none")
    found = jackknife(lambda keep: of(x_NS[:, keep]), count)
    return replace(found, samples=None)
