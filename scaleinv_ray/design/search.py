"""The search for a design: bracketing in one dimension, else a tree-structured Parzen estimator.

Seeds are the noise, and every point has its own: what many points say together is better known than
what one says, and the luckiest of them is not the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from scaleinv_ray.design.closed_forms import UnreachableError
from scaleinv_ray.design.space import Choices, Interval, Point, Space

NEAR = 0.2
"""Share of the margin within which a search stops."""
WINDOW = 0.35
"""Points are fitted whose |ln(mean / target)| is below it."""
LEAST_NEAR = 5
BEYOND = 0.1
"""Share of the interval."""
BATCH = 4


@dataclass(frozen=True)
class Scored:
    """A point that was measured.

    Attributes:
        point: of the space.
        off: ln(mean / target) of each target; none where a measurement failed.
        stderr: of each, over seeds.
        margin: of each.
        error: why it failed.
    """

    point: Point
    off: tuple[float, ...]
    stderr: tuple[float, ...]
    margin: tuple[float, ...]
    error: str | None = None

    @classmethod
    def of(
        cls,
        point: Point,
        values: Sequence[Sequence[float]],
        *,
        target: Sequence[float],
        margin: Sequence[float],
    ) -> Scored:
        """The score of values [seed][target], two seeds or more."""
        value_ST = np.asarray(values, dtype=np.float64)
        if not (value_ST > 0).all():
            error = f"got {value_ST.min():.3g}, values beside a target above zero are above zero"
            return cls(point, (), (), tuple(margin), error)
        log_ST = np.log(value_ST / np.asarray(target))
        stderr_T = log_ST.std(axis=0, ddof=1) / math.sqrt(len(log_ST))
        mean = tuple(log_ST.mean(axis=0).tolist())
        return cls(point, mean, tuple(stderr_T.tolist()), tuple(margin))

    @property
    def distance(self) -> float:
        """Largest |off| over its margin; infinite where a measurement failed."""
        pairs = zip(self.off, self.margin, strict=True) if self.error is None else ()
        return max((abs(off) / margin for off, margin in pairs), default=math.inf)

    @property
    def passes(self) -> bool:
        """Whether the means are within the margins."""
        return self.distance < 1

    @property
    def agrees(self) -> bool:
        """Whether the means are within the margins, and off by no more than two errors."""
        if not self.passes:
            return False
        pairs = zip(self.off, self.stderr, strict=True)
        return all(abs(off) <= 2 * stderr for off, stderr in pairs)


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    Attributes:
        measured: points measured here, in order.
        point: the one chosen; None where all failed.
    """

    measured: list[Scored]
    point: Point | None


Measure = Callable[[Sequence[Point]], list[Scored]]


def best_of(scored: Sequence[Scored]) -> Scored | None:
    """The nearest that was measured; None where all failed."""
    return min((s for s in scored if s.error is None), key=lambda s: s.distance, default=None)


def search(space: Space, known: Sequence[Scored], measure: Measure, *, budget: int) -> Found:
    """Measures points until one is well within all margins, or the budget is spent.

    One interval and one target: the target is enclosed, and then a curve through all that was
    measured near it says where it is crossed, with an error. Else the nearest point is chosen.

    Args:
        space: what may be chosen.
        known: what was measured already: beginnings.
        measure: measures points.
        budget: points it may still measure.

    Returns:
        Found.

    Raises:
        UnreachableError: where one interval is searched and both ends lie on one side.
    """
    [(name, only), *more] = space.items()
    if not more and isinstance(only, Interval) and all(len(s.margin) == 1 for s in known):
        return _bracketed(name, only, known, measure, budget)
    if not more and isinstance(only, Choices) and len(only.values) <= budget:
        seen = {s.point[name] for s in known}
        new = measure([{name: value} for value in only.values if value not in seen])
    else:
        new = _estimated(space, known, measure, budget)
    best = best_of([*known, *new])
    return Found(new, best.point if best else None)


def _bracketed(
    name: str, interval: Interval, known: Sequence[Scored], measure: Measure, budget: int
) -> Found:
    """Regula falsi until there are points enough near the target, then the root of a fit."""
    new: list[Scored] = []

    def add(*shares: float) -> None:
        new.extend(measure([{name: interval.at(share)} for share in shares]))

    def line() -> list[tuple[float, Scored]]:
        held = [s for s in (*known, *new) if s.error is None]
        return sorted(
            ((interval.share(float(s.point[name])), s) for s in held), key=lambda at: at[0]
        )

    if _enclosing(line()) is None and budget >= 2:
        add(0.0, 1.0)
    while True:
        ends = _enclosing(line())
        if ends is None:
            raise UnreachableError(_told(name, [*known, *new]))
        (low, below), (high, above) = ends
        slope = (above.off[0] - below.off[0]) / (high - low)
        share = low - below.off[0] / slope if slope else (low + high) / 2
        near = [(at, s.off[0], s.stderr[0]) for at, s in line() if abs(s.off[0]) < WINDOW]
        if len(near) >= LEAST_NEAR:
            share, stderr = _root(near)
            if near[0][0] <= share <= near[-1][0] and stderr < NEAR * below.margin[0]:
                break
        if len(new) >= budget:
            break
        # on either side in turn, about a margin away by the slope of the whole: points that lie at
        # one place say nothing of where a curve is zero
        (first, start), *_, (last, end) = line()
        rise = abs(end.off[0] - start.off[0]) / (last - first)
        aside = min(below.margin[0] / rise, 0.1) if rise else 0.1
        add(min(max(share + aside * (1 + len(new) / 4) * (-1) ** len(new), 0.0), 1.0))
    return Found(new, {name: interval.at(min(max(share, 0.0), 1.0))})


def _enclosing(
    line: Sequence[tuple[float, Scored]],
) -> tuple[tuple[float, Scored], tuple[float, Scored]] | None:
    """The nearest neighbours that lie on either side of the target."""
    crossing = [(a, b) for a, b in pairwise(line) if a[0] < b[0] and a[1].off[0] * b[1].off[0] <= 0]
    return min(crossing, key=lambda ab: ab[0][1].distance + ab[1][1].distance, default=None)


def _root(near: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Where a parabola through noisy points is zero, and the error of its value there.

    Of its roots that which is nearest to a line's; the line's own where it has none there; no
    farther than `BEYOND` from the points.

    Args:
        near: (share, off, stderr) of each.

    Returns:
        Share of the interval, and the standard error of off: of the scatter round the parabola, or
        of the seeds where that is more.
    """
    share_N, off_N, stderr_N = np.array(near).T
    low, high = share_N.min() - BEYOND, share_N.max() + BEYOND
    centre = float(share_N.mean())
    design_NC = np.vander(share_N - centre, 3)
    slope, level = np.linalg.lstsq(design_NC[:, 1:], off_N)[0].tolist()
    share = float(np.clip(centre - level / slope, low, high)) if slope else centre
    curve_C = np.linalg.lstsq(design_NC, off_N)[0]
    real = [centre + float(r.real) for r in np.roots(curve_C) if not r.imag]
    share = min((r for r in real if low <= r <= high), key=lambda r: abs(r - share), default=share)
    residual_N = off_N - design_NC @ curve_C
    scatter = float(residual_N @ residual_N) / (len(near) - 3)
    at_C = np.vander([share - centre], 3)[0]
    leverage = float(at_C @ np.linalg.pinv(design_NC.T @ design_NC) @ at_C)
    return share, math.sqrt(max(scatter, float((stderr_N**2).mean())) * leverage)


def _told(name: str, scored: Sequence[Scored]) -> str:
    line = sorted((s for s in scored if s.error is None), key=lambda s: float(s.point[name]))
    if not line:
        return f"{name}: no point could be measured ({scored[-1].error if scored else 'no budget'})"
    at = ", ".join(
        f"{math.exp(s.off[0]):.3g} of the target at {float(s.point[name]):.3g}"
        for s in (line[0], line[-1])
    )
    return f"{name}: got {at}; allowed: an interval whose ends lie on both sides of the target"


def _estimated(
    space: Space, known: Sequence[Scored], measure: Measure, budget: int
) -> list[Scored]:
    """Optuna's TPE (Bergstra et al. 2011), with what is known as its first trials."""
    optuna = _optuna()
    distributions = {name: _distribution(optuna, of) for name, of in space.items()}
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=5, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    for one in known:
        if one.error is None and set(one.point) == set(space):
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(one.point), distributions=distributions, value=one.distance
                )
            )
    new: list[Scored] = []
    while len(new) < budget:
        count = min(BATCH, budget - len(new))
        trials = [study.ask(distributions) for _ in range(count)]
        measured = measure([trial.params for trial in trials])
        for trial, one in zip(trials, measured, strict=True):
            if one.error is None:
                study.tell(trial, one.distance)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        new += measured
        best = best_of(measured)
        if best is not None and best.distance < NEAR:
            break
    return new


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "over: got several dimensions, which are searched by optuna; it is not installed: "
            "pip install 'scaleinv-ray[design]', or name one dimension"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, of: Interval | Choices) -> Any:
    if isinstance(of, Interval):
        return optuna.distributions.FloatDistribution(of.low, of.high, log=of.log)
    return optuna.distributions.CategoricalDistribution(of.values)
