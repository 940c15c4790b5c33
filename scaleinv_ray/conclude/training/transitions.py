"""Transitions over training: breaks of slope and jumps of level in single runs.

Shape suffixes: K checkpoints, D positions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, TypedDict

import numpy as np
from scipy import special

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Group, gather, in_order
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP, Replicate
from scaleinv_ray.conclude.aggregation.places import Place, at_place, is_pooled
from scaleinv_ray.conclude.aggregation.values import whole_over_training
from scaleinv_ray.conclude.conservation.fits import TIED
from scaleinv_ray.conclude.training.change_points import (
    BestShape,
    Shapes,
    best_shape,
    null_of_search,
    rss_by_shape,
    search_p,
    shapes_of,
)
from scaleinv_ray.conclude.training.discoveries import Asked, Question, asked_columns, asked_of
from scaleinv_ray.contract import Quantity

LEAST_CHECKPOINTS = 6
ALPHA = 0.05
LEVEL = 0.95
PER_GAP = 8
"""Positions of a break tried between two checkpoints."""


class TransitionRow(TypedDict):
    """Breaks of slope and jumps of level over the training of single runs."""

    series: str
    model: str
    seed: int | None
    probe: str | None
    family: str
    invariant: str
    quantity: str
    site: str | None
    depth_bin: str
    kind: Annotated[str, "break (of slope), jump (of level), none or undetermined"]
    step: Annotated[float | None, "where; none without a transition"]
    step_low: Annotated[float | None, "last checkpoint before its 95 % interval"]
    step_high: Annotated[float | None, "first checkpoint after it"]
    slope_before: Annotated[float | None, "slope before, per unit of ln(1 + step)"]
    slope_after: Annotated[float | None, "slope after it"]
    p: Annotated[float | None, "p of a single line, given that positions were searched"]
    q: Annotated[float | None, "false discovery rate of the claim that the curve has any"]
    n_asked: Annotated[int | None, "curves searched"]
    by_chance: Annotated[float | None, "of these, how many would have a transition by chance"]
    n_seeds: Annotated[int, "seeds of the model's size that were searched here, this one too"]
    n_agree: Annotated[int | None, "of them, how many have the same kind in an interval that meets"]
    reason: str


class ProgressKind(StrEnum):
    """What happens in a run."""

    BREAK = "break"
    JUMP = "jump"
    NONE = "none"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Transition:
    """A transition of one run, or that there is none.

    Attributes:
        kind: break (of slope), jump (of level), none, or undetermined (too few checkpoints).
        step: where; None without a transition.
        step_low: last checkpoint before the 95 % interval.
        step_high: first checkpoint after it.
        slope_before: per unit of ln(1 + step).
        slope_after: the same; equal for a jump.
        height: change of level at a jump, None otherwise.
        p: of a single line, given that positions were searched.
        claim_p: of no transition in the whole curve: p of the search over all of it, 1 where that
            is no line but as well a smooth curve; None where it was not searched.
        reason: in words.
    """

    kind: ProgressKind
    step: float | None = None
    step_low: float | None = None
    step_high: float | None = None
    slope_before: float | None = None
    slope_after: float | None = None
    height: float | None = None
    p: float | None = None
    claim_p: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Search:
    """Breaks and jumps over given checkpoints.

    Attributes:
        shapes: prepared.
        shape_DK: as functions of the checkpoint.
        position_D: x of each.
        jump_D: whether it is a jump.
        null_B: distribution of F without a transition.
    """

    shapes: Shapes
    shape_DK: np.ndarray
    position_D: np.ndarray
    jump_D: np.ndarray
    null_B: np.ndarray


class TransitionFinder:
    """Finds transitions; what depends on the checkpoints alone is kept between runs."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._known: dict[tuple[float, ...], _Search] = {}

    def find(self, steps: Sequence[float], values: Sequence[float]) -> list[Transition]:
        """Transitions of one run, first to last.

        Over x = ln(1 + step) a line with one break (a + b x + c (x - t)+) or one jump
        (a + b x + c [x > t]) is fitted by exact search over t, with two checkpoints on either
        side at least. A transition is claimed where the F of the best beats the line at .05 (its
        distribution under a line and independent errors, searching included, is drawn), and a
        smooth curve with as many numbers (a cubic) by an AICc of 4. Then the parts on either side
        that have six checkpoints are searched the same way. The interval holds all t whose
        residual is within F(1, K - 4) of the best, widened to the enclosing checkpoints.

        Args:
            steps: of the checkpoints, distinct, >= 0.
            values: of the quantity, on the scale to be judged.

        Returns:
            The transitions; one of kind none or undetermined where there are none.

        Raises:
            ValueError: for steps that repeat or are negative, and values that are not finite.

        >>> steps = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
        >>> jump = [0.1, 0.0, 0.1, 0.0, 0.1, 5.0, 5.1, 5.0, 5.1, 5.0]
        >>> [found] = TransitionFinder(np.random.default_rng(0)).find(steps, jump)
        >>> found.kind.value, found.step_low, found.step_high
        ('jump', 15.0, 31.0)
        """
        step_K, y_K = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if len(step_K) != len(y_K) or len(set(step_K.tolist())) < len(step_K) or (step_K < 0).any():
            raise ValueError(f"steps: got {list(steps)}, allowed distinct steps, as many as values")
        if not np.isfinite(y_K).all():
            raise ValueError("values: got NaN or infinity, allowed finite numbers")
        order = np.argsort(step_K)
        step_K, y_K = step_K[order], y_K[order]
        if len(step_K) < LEAST_CHECKPOINTS:
            reason = f"{len(step_K)} checkpoints, needs {LEAST_CHECKPOINTS}"
            return [Transition(ProgressKind.UNDETERMINED, reason=reason)]
        first = self._first(step_K, y_K)
        smooth = first.step is None and first.p is not None and first.p < ALPHA
        claim_p = 1.0 if smooth else first.p
        found = [first, *self._parts(first, step_K, y_K)]
        return [replace(t, claim_p=claim_p) for t in sorted(found, key=lambda t: t.step or 0.0)]

    def _parts(
        self, found: Transition, step_K: np.ndarray, y_K: np.ndarray
    ) -> Iterator[Transition]:
        """Further transitions on either side of one."""
        if found.step is None:
            return
        before_K, after_K = step_K <= found.step, step_K >= found.step
        for part_K in (before_K, after_K):
            if part_K.sum() < LEAST_CHECKPOINTS:
                continue
            other = self._first(step_K[part_K], y_K[part_K])
            if other.step is not None:
                yield other
                yield from self._parts(other, step_K[part_K], y_K[part_K])

    def _first(self, step_K: np.ndarray, y_K: np.ndarray) -> Transition:
        """The most significant transition of a stretch, or none."""
        search = self._search(step_K)
        match = best_shape(search.shapes, y_K)
        p = search_p(search.null_B, match.f)
        x_K = np.log1p(step_K)
        if p >= ALPHA:
            slope = float(np.polyfit(x_K, y_K, 1)[0])
            reason = "a line on ln(1 + step) fits"
            return Transition(
                ProgressKind.NONE, slope_before=slope, slope_after=slope, p=p, reason=reason
            )
        if not _beats_a_smooth_curve(x_K, y_K, match):
            return Transition(
                ProgressKind.NONE, p=p, reason="no line, but a smooth curve fits as well"
            )
        return _described(search, step_K, y_K, match, p)

    def _search(self, step_K: np.ndarray) -> _Search:
        key = tuple(step_K.tolist())
        if key not in self._known:
            self._known[key] = _prepared(np.log1p(step_K), self._rng)
        return self._known[key]


def transitions_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Mapping[tuple[str, str], Quantity],
    rng: np.random.Generator,
) -> list[TransitionRow]:
    """Transitions of every run (model and seed) in every quantity at every place.

    Without single roles and thirds of the depth where a quantity is judged pooled. Values are those
    of the verdicts (means over layers, roles and heads), as ln|I| where a run
    has one sign and no unit is declared, else over the unit (or as they are).

    Many curves are searched. `q` is the Benjamini-Hochberg value of the claim that a curve has a
    transition at all (`Transition.claim_p`), over all curves searched, the whole depth apart from
    its thirds, without controls. All rows of a curve carry it: further transitions were searched
    only after the first. `n_agree` of the `n_seeds` of a size have a transition of that kind whose
    interval has a step in common with this one's; it is no test. The statistic is even in the
    errors of a curve, so curves of one run depend positively whichever sign their errors have in
    common, and runs are independent.
    `by_chance` is how many of the `n_asked` curves would have a transition by chance, at most: of
    lines some are left to the smooth curve. No kind depends on either.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`.
        quantities: (invariant, quantity) -> what is claimed of it, for the unit.

    Returns:
        Rows: one a transition, one of kind none or undetermined for runs
        without. The height of a jump stands in the reason.
    """
    finder = TransitionFinder(rng)
    found: list[tuple[Place, Replicate, Transition, int]] = []
    tests: dict[Hashable, Question] = {}
    for group in gather(rows):
        place = group.place
        claim = quantities.get((place.invariant, place.quantity), Quantity(law="none"))
        if claim.pooled and not is_pooled(place):
            continue
        for replicate, curve in run_values(group).items():
            steps = [step for step in curve if step != NO_STEP]
            if not steps:
                continue
            y = scaled([curve[step] for step in steps], claim.unit)
            curve_at, transitions = len(found), finder.find(steps, y)
            if (p := transitions[0].claim_p) is not None and not claim.control:
                # a depth and its thirds ask the same question again
                tests[curve_at] = Question(p, ALPHA, (place.series, place.depth_bin == "all"))
            found += [(place, replicate, transition, curve_at) for transition in transitions]
    asked = asked_of(tests, method="bh")
    of_size: dict[tuple[Place, int], dict[Replicate, list[Transition]]] = {}
    for at, run, moved, _ in found:
        of_size.setdefault((at, run.n_params), {}).setdefault(run, []).append(moved)
    return [
        _row(at, run, moved, asked.get(curve), of_size[at, run.n_params].values())
        for at, run, moved, curve in found
    ]


def run_values(group: Group) -> dict[Replicate, dict[int, float]]:
    """Values of every trained run at every checkpoint where it has all rows of the place.

    Args:
        group: what was measured at one place.

    Returns:
        Replicate -> step -> value, steps ascending.
    """
    trained = group.cells.get(TRAINED, {})
    whole = whole_over_training(group)
    return {
        replicate: {
            step: whole.mean(replicate.build, cell, independent=True)[0]
            for step, cell in sorted(trained[replicate].items())
            if not whole.lacking(replicate.build, cell)
        }
        for replicate in in_order(trained)
    }


def scaled(values: Sequence[float], unit: float | None) -> list[float]:
    """Values over a declared unit; without one ln|value| where all have one sign."""
    y = np.asarray(values, dtype=np.float64)
    if unit is None and ((y > 0).all() or (y < 0).all()):
        y = np.log(np.abs(y))
    return (y / (unit or 1.0)).tolist()


def _prepared(x_K: np.ndarray, rng: np.random.Generator) -> _Search:
    gaps = [np.linspace(a, b, PER_GAP, endpoint=False) for a, b in pairwise(x_K[1:-1])]
    break_D = np.append(np.concatenate(gaps), x_K[-2])
    jump_D = (x_K[1:-2] + x_K[2:-1]) / 2
    shape_DK = np.concatenate([
        np.maximum(x_K - break_D[:, None], 0.0),
        (x_K > jump_D[:, None]).astype(np.float64),
    ])
    base_KC = np.stack([np.ones_like(x_K), x_K], axis=1)
    shapes = shapes_of(base_KC, shape_DK, picked_by=1)
    is_jump = np.repeat([False, True], [len(break_D), len(jump_D)])
    position_D = np.concatenate([break_D, jump_D])
    return _Search(shapes, shape_DK, position_D, is_jump, null_of_search(shapes, rng))


def _beats_a_smooth_curve(x_K: np.ndarray, y_K: np.ndarray, match: BestShape) -> bool:
    """Whether AICc prefers the broken line to a cubic, both of four numbers."""
    z_K = (x_K - x_K.mean()) / np.ptp(x_K)
    design_KC = np.vander(z_K, 4)
    residual_K = y_K - design_KC @ np.linalg.lstsq(design_KC, y_K)[0]
    smooth = float(residual_K @ residual_K)
    return smooth > match.rss * math.exp(TIED / len(x_K))


def _described(
    search: _Search, step_K: np.ndarray, y_K: np.ndarray, match: BestShape, p: float
) -> Transition:
    x_K, at = np.log1p(step_K), match.shape
    jumps = bool(search.jump_D[at])
    design_KC = np.stack([np.ones_like(x_K), x_K, search.shape_DK[at]], axis=1)
    _, slope, change = np.linalg.lstsq(design_KC, y_K)[0].tolist()
    free = search.shapes.df
    _, rss_D = rss_by_shape(search.shapes, y_K)
    bound = match.rss * (1 + float(special.fdtri(1, free, LEVEL)) / free)
    kept_D = search.shapes.kept_D[(rss_D <= bound) | (search.shapes.kept_D == at)]
    inside_D = search.position_D[kept_D[search.jump_D[kept_D] == jumps]]
    # rounding: a position at a checkpoint is that checkpoint
    low = step_K[np.searchsorted(x_K, inside_D.min() + 1e-9, side="right") - 1]
    high = step_K[np.searchsorted(x_K, inside_D.max() - 1e-9, side="left")]
    what = f"the level changes by {change:.3g}" if jumps else f"the slope changes by {change:.3g}"
    return Transition(
        kind=ProgressKind.JUMP if jumps else ProgressKind.BREAK,
        step=float(np.expm1(search.position_D[at])),
        step_low=float(low),
        step_high=float(high),
        slope_before=slope,
        slope_after=slope if jumps else slope + change,
        height=change if jumps else None,
        p=p,
        reason=what,
    )


def _row(
    place: Place,
    replicate: Replicate,
    found: Transition,
    asked: Asked | None,
    of_seeds: Collection[Sequence[Transition]],
) -> TransitionRow:
    agree = sum(any(_meets(found, other) for other in seed) for seed in of_seeds)
    return {
        **at_place(place),
        "model": replicate.model,
        "seed": replicate.seed,
        "kind": found.kind.value,
        "step": found.step,
        "step_low": found.step_low,
        "step_high": found.step_high,
        "slope_before": found.slope_before,
        "slope_after": found.slope_after,
        "p": found.p,
        "reason": found.reason,
        **asked_columns(asked),
        "n_seeds": len(of_seeds),
        "n_agree": agree if found.step is not None else None,
    }


def _meets(one: Transition, other: Transition) -> bool:
    """Whether two transitions of a kind may be at the same step."""
    if one.kind is not other.kind or one.step is None or other.step is None:
        return False
    assert one.step_low is not None and one.step_high is not None, "a transition has an interval"
    assert other.step_low is not None and other.step_high is not None, "a transition has one"
    return one.step_low < other.step_high and other.step_low < one.step_high
