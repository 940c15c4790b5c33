"""The search for a design: bracketing in one dimension, else a tree-structured Parzen estimator.

Seeds are the noise: a point is measured with the same few seeds each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from scaleinv_ray.design.closed_forms import UnreachableError
from scaleinv_ray.design.space import Choices, Interval, Point, Space

NEAR = 0.2
"""Share of the margin within which a search stops."""
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

    @property
    def distance(self) -> float:
        """Largest |off| over its margin; infinite where a measurement failed."""
        pairs = zip(self.off, self.margin, strict=True) if self.error is None else ()
        return max((abs(off) / margin for off, margin in pairs), default=math.inf)

    @property
    def passes(self) -> bool:
        """Whether the means are within the margins."""
        return self.distance < 1


Measure = Callable[[Sequence[Point]], list[Scored]]


def best_of(scored: Sequence[Scored]) -> Scored | None:
    """The nearest that was measured; None where all failed."""
    return min((s for s in scored if s.error is None), key=lambda s: s.distance, default=None)


def search(space: Space, known: Sequence[Scored], measure: Measure, *, budget: int) -> list[Scored]:
    """Measures points until one is well within all margins, or the budget is spent.

    Args:
        space: what may be chosen.
        known: what was measured already: beginnings.
        measure: measures points.
        budget: points it may still measure.

    Returns:
        What was measured here, in order.

    Raises:
        UnreachableError: where one dimension is searched and both ends lie on one side.
    """
    found = best_of(known)
    if found is not None and found.distance < NEAR:
        return []
    [(name, only), *more] = space.items()
    if not more and isinstance(only, Interval) and all(len(s.margin) == 1 for s in known):
        return _bracketed(name, only, known, measure, budget)
    if not more and isinstance(only, Choices) and len(only.values) <= budget:
        seen = {s.point[name] for s in known}
        return measure([{name: value} for value in only.values if value not in seen])
    return _estimated(space, known, measure, budget)


def _bracketed(
    name: str, interval: Interval, known: Sequence[Scored], measure: Measure, budget: int
) -> list[Scored]:
    """Regula falsi between the nearest points on either side of the target."""
    new: list[Scored] = []

    def add(*shares: float) -> None:
        new.extend(measure([{name: interval.at(share)} for share in shares]))

    def bracket() -> tuple[Scored, Scored] | None:
        line = sorted(
            (s for s in (*known, *new) if s.error is None), key=lambda s: float(s.point[name])
        )
        crossing = [(a, b) for a, b in pairwise(line) if a.off[0] * b.off[0] <= 0]
        return min(crossing, key=lambda ab: ab[0].distance + ab[1].distance, default=None)

    if bracket() is None and budget >= 2:
        add(0.0, 1.0)
    while len(new) < budget:
        ends = bracket()
        if ends is None:
            raise UnreachableError(_told(name, [*known, *new]))
        best = best_of([*known, *new])
        if best is not None and best.distance < NEAR:
            break
        low, high = (interval.share(float(end.point[name])) for end in ends)
        if high - low < 1e-3:  # nearer than seeds can tell
            break
        share = ends[0].off[0] / (ends[0].off[0] - ends[1].off[0])
        # a step at either end would leave the bracket as it is
        add(low + (high - low) * min(max(share, 0.1), 0.9))
    return new


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
