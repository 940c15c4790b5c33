"""Order of a transition: a step of finite width or a power law, and whether it sharpens with size.

Shape suffixes: K checkpoints, W widths, C middles, D shapes, R runs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
from scipy import special, stats

from scaleinv_ray.conclude.aggregation.cells import Place, gather
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP, Replicate
from scaleinv_ray.conclude.aggregation.places import AtPlace, at_place, place_of
from scaleinv_ray.conclude.training.change_points import Shapes, best_shape, rss_by_shape, shapes_of
from scaleinv_ray.conclude.training.discoveries import Question, asked_columns, asked_of
from scaleinv_ray.conclude.training.transitions import (
    ProgressKind,
    TransitionRow,
    run_values,
    scaled,
)
from scaleinv_ray.contract import Quantity

LEAST_CHECKPOINTS = 7
"""Five numbers of a sigmoid with its noise, and two to tell it from a power law."""
DECISIVE = 6.0
"""Difference of BIC that counts as strong (Kass & Raftery, JASA 90:773, 1995)."""
LEVEL = 0.95
PER_GAP = 8
NUM_WIDTHS = 40
NUM_FINE = 60
ROUNDING = 1 + 1e-9
NUM_POWERS = 61
LARGEST_POWER = 3.0
LEAST_SIZES = 3


class OrderRow(AtPlace):
    """Order of transitions: whether they sharpen with the size of the model."""

    n_runs: int
    n_sizes: int
    n_sigmoid: Annotated[int, "runs that are sigmoids"]
    n_power_law: Annotated[int, "runs that are power laws"]
    bic: Annotated[float, "of the power law minus that of the sigmoid, median over runs"]
    middle: Annotated[float | None, "step at the middle of the sigmoid, median"]
    width: Annotated[float | None, "width of the sigmoid in ln(1 + step), median"]
    slope: Annotated[float | None, "d ln width / d ln n_params"]
    slope_low: Annotated[float | None, "lower end of its 95 % interval"]
    slope_high: Annotated[float | None, "upper end of it"]
    p: Annotated[float | None, "of no slope"]
    q: float | None
    n_asked: int | None
    by_chance: float | None
    outcome: str
    reason: str


class ProgressForm(StrEnum):
    """How a quantity changes over a run."""

    SIGMOID = "sigmoid"
    POWER_LAW = "power_law"
    UNDETERMINED = "undetermined"


class Sharpening(StrEnum):
    """What the width does with the size of the model."""

    SHARPENS = "sharpens"
    KEEPS = "keeps its width"
    WIDENS = "widens"
    UNRESOLVED = "sharper than the checkpoints"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Order:
    """Sigmoid against power law in one run.

    Attributes:
        form: which of the two, undetermined where BIC differs by less than 6.
        bic: of the power law minus that of the sigmoid.
        middle: step at the middle of the sigmoid.
        width: w of the sigmoid, in ln(1 + step).
        width_low: lower end of its 95 % interval; 0 where it may be narrower than a quarter of the
            narrowest gap between checkpoints.
        width_high: upper end, inf where it may be wider than the run.
    """

    form: ProgressForm
    bic: float
    middle: float
    width: float
    width_low: float
    width_high: float


class FiniteSize(NamedTuple):
    """How the width changes with size.

    Attributes:
        slope: d ln w / d ln n_params.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided, of no slope.
    """

    slope: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class _Sigmoids:
    """Sigmoids on a grid of middles and widths."""

    shapes: Shapes
    middle_D: np.ndarray
    width_D: np.ndarray

    @classmethod
    def on(cls, x_K: np.ndarray, middle_C: np.ndarray, width_W: np.ndarray) -> _Sigmoids:
        middle_D, width_D = (g.ravel() for g in np.meshgrid(middle_C, width_W, indexing="ij"))
        sigmoid_DK = special.expit((x_K - middle_D[:, None]) / width_D[:, None])
        shapes = shapes_of(np.ones((len(x_K), 1)), sigmoid_DK, picked_by=2)
        return cls(shapes, middle_D[shapes.kept_D], width_D[shapes.kept_D])

    def inside(self, y_K: np.ndarray) -> np.ndarray:
        """Which of them leave a residual within F(1, df) of the least."""
        _, rss_D = rss_by_shape(self.shapes, y_K)
        free = self.shapes.df
        # rounding: a form that is exact
        least = max(float(rss_D.min()), 1e-24 * float(y_K @ y_K))
        inside_D: np.ndarray = rss_D <= least * (1 + float(special.fdtri(1, free, LEVEL)) / free)
        return inside_D


@dataclass(frozen=True)
class _Search:
    sigmoids: _Sigmoids
    powers: Shapes


class OrderFinder:
    """Fits both forms; what depends on the checkpoints alone is kept between runs."""

    def __init__(self) -> None:
        self._known: dict[tuple[float, ...], _Search] = {}

    def find(self, steps: Sequence[float], values: Sequence[float]) -> Order:
        """Sigmoid against power law in one run.

        Over x = ln(1 + step) the curves a + b / (1 + exp(-(x - c) / w)) and a + b (1 + step)^k (the
        logarithm at k = 0) are fitted by exact search, c and w or k on a grid, a and b by least
        squares; BIC = K ln(rss / K) + m ln K with m = 4 and 3. The interval of w holds the widths
        whose residual at their best c is within F(1, K - 4) of the least, on a second, finer grid
        around those of the first.

        Args:
            steps: of the checkpoints, distinct, >= 0, in any order.
            values: of the quantity, on the scale to be judged.

        Raises:
            ValueError: under seven checkpoints, for steps that repeat or are negative, and values
                that are not finite or all equal.

        >>> steps = [2**i - 1 for i in range(14)]
        >>> found = OrderFinder().find(steps, [1 / (1 + math.exp(-2 * (i - 6))) for i in range(14)])
        >>> found.form.value, round(found.width / math.log(2), 1)
        ('sigmoid', 0.5)
        """
        step_K, y_K = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        distinct = len(set(step_K.tolist())) == len(step_K) == len(y_K)
        if not distinct or (step_K < 0).any() or len(step_K) < LEAST_CHECKPOINTS:
            raise ValueError(f"steps: got {list(steps)}, allowed {LEAST_CHECKPOINTS} distinct ones")
        if not np.isfinite(y_K).all() or np.ptp(y_K) == 0:
            raise ValueError("values: got NaN, infinity or a constant, allowed finite numbers")
        order = np.argsort(step_K)
        x_K, y_K = np.log1p(step_K[order]), y_K[order]
        search = self._search(x_K)
        fine = _zoomed(x_K, y_K, search.sigmoids)
        sigmoid, power = best_shape(fine.shapes, y_K), best_shape(search.powers, y_K)
        at = int(np.searchsorted(fine.shapes.kept_D, sigmoid.shape))
        floor = 1e-24 * float(y_K @ y_K)  # rounding: a form that is exact
        bic = len(x_K) * math.log(max(power.rss, floor) / max(sigmoid.rss, floor))
        bic -= math.log(len(x_K))  # the sigmoid has a number more
        form = ProgressForm.UNDETERMINED
        if abs(bic) >= DECISIVE:
            form = ProgressForm.SIGMOID if bic > 0 else ProgressForm.POWER_LAW
        within_D = fine.width_D[fine.inside(y_K)]
        low, high = float(within_D.min()), float(within_D.max())
        narrowest, widest = _range(x_K)
        return Order(
            form,
            bic,
            middle=float(np.expm1(fine.middle_D[at])),
            width=float(fine.width_D[at]),
            width_low=0.0 if low <= narrowest * ROUNDING else low,
            width_high=math.inf if high >= widest / ROUNDING else high,
        )

    def _search(self, x_K: np.ndarray) -> _Search:
        key = tuple(x_K.tolist())
        if key not in self._known:
            self._known[key] = _prepared(x_K)
        return self._known[key]


def finite_size(n_params_R: Sequence[int], width_R: Sequence[float]) -> FiniteSize:
    """Whether the width in ln(1 + step) shrinks with size: a line through ln w over ln n_params.

    Mean widths of the sizes are fitted, so that the error is that between sizes; with one run for
    every size it is that between runs. In a finite system a first-order transition is rounded and
    sharpens as a power of its size; a crossover keeps its width.

    Args:
        n_params_R: size of each run.
        width_R: width of each run, > 0.

    Returns:
        The slope.

    Raises:
        ValueError: under three sizes, or for widths that are not above zero.

    >>> found = finite_size([10, 100, 1000, 10_000], [1.0, 0.51, 0.24, 0.125])
    >>> round(found.slope, 1), found.high < 0
    (-0.3, True)
    """
    size_R, ln_w_R = np.asarray(n_params_R), np.asarray(width_R, dtype=np.float64)
    if (ln_w_R <= 0).any():
        raise ValueError(f"width_R: got {ln_w_R.min()}, allowed numbers > 0")
    sizes = np.unique(size_R)
    if len(sizes) < LEAST_SIZES:
        raise ValueError(f"n_params_R: got {len(sizes)} sizes, needs {LEAST_SIZES}")
    ln_w_R = np.log(ln_w_R)
    mean_C = [ln_w_R[size_R == size].mean() for size in sizes]
    line = stats.linregress(np.log(sizes), mean_C)
    slope, half = float(line.slope), float(stats.t.ppf(0.5 + LEVEL / 2, len(sizes) - 2))
    half *= float(line.stderr)
    return FiniteSize(slope, slope - half, slope + half, float(line.pvalue))


def order_table(
    transitions: Iterable[TransitionRow],
    rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Mapping[tuple[str, str], Quantity],
) -> list[OrderRow]:
    """Order of the transitions of every quantity at every place where a run has one.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`, from which they were found.
        quantities: what is claimed of every quantity, for the unit.

    Returns:
        Rows by place. All runs of the place with seven checkpoints count (those alone
        that are sharp enough to be a transition would be a choice by width); width and middle are
        medians over those that are sigmoids. The slope is that of the sigmoids whose width the
        checkpoints resolve; the reason counts the others. `q` is the Benjamini-Yekutieli value of
        the slope over all places asked, the whole depth apart from its thirds, without controls.
    """
    moving = {ProgressKind.BREAK.value, ProgressKind.JUMP.value}
    moved = {place_of(row) for row in transitions if row["kind"] in moving}
    finder = OrderFinder()
    out: list[OrderRow] = []
    for group in gather(rows) if moved else ():
        if group.place not in moved:
            continue
        claim = quantities.get((group.place.invariant, group.place.quantity))
        found: dict[Replicate, Order] = {}
        for replicate, curve in run_values(group).items():
            steps = [step for step in curve if step != NO_STEP]
            y = scaled([curve[step] for step in steps], claim.unit if claim else None)
            if len(steps) >= LEAST_CHECKPOINTS and np.ptp(y) > 0:
                found[replicate] = finder.find(steps, y)
        if found:
            out.append(_row(group.place, found))
    tests: dict[Hashable, Question] = {
        i: Question(row["p"], 1 - LEVEL, (row["series"], row["depth_bin"] == "all"))
        for i, row in enumerate(out)
        if row["p"] is not None and not _is_control(quantities, row)
    }
    asked = asked_of(tests, method="by")
    return [{**row, **asked_columns(asked.get(i))} for i, row in enumerate(out)]


def _is_control(quantities: Mapping[tuple[str, str], Quantity], row: OrderRow) -> bool:
    claim = quantities.get((row["invariant"], row["quantity"]))
    return claim is not None and claim.control


def _row(place: Place, found: Mapping[Replicate, Order]) -> OrderRow:
    sigmoids = {run: order for run, order in found.items() if order.form is ProgressForm.SIGMOID}
    sharpening, size, reason = _sharpening(sigmoids)
    return {
        **at_place(place),
        "n_runs": len(found),
        "n_sizes": len({run.n_params for run in found}),
        "n_sigmoid": len(sigmoids),
        "n_power_law": sum(order.form is ProgressForm.POWER_LAW for order in found.values()),
        "bic": float(np.median([order.bic for order in found.values()])),
        "middle": float(np.median([o.middle for o in sigmoids.values()])) if sigmoids else None,
        "width": float(np.median([o.width for o in sigmoids.values()])) if sigmoids else None,
        "slope": size.slope if size else None,
        "slope_low": size.low if size else None,
        "slope_high": size.high if size else None,
        "p": size.p if size else None,
        **asked_columns(None),  # among all rows
        "outcome": sharpening.value,
        "reason": reason,
    }


def _sharpening(
    sigmoids: Mapping[Replicate, Order],
) -> tuple[Sharpening, FiniteSize | None, str]:
    resolved = {run: order for run, order in sigmoids.items() if order.width_low > 0}
    sizes = {run.n_params for run in resolved}
    lost = len(sigmoids) - len(resolved)
    below = f"{lost} of {len(sigmoids)} widths below the checkpoints'" if lost else ""
    if 2 * len(resolved) < len(sigmoids):
        return Sharpening.UNRESOLVED, None, below
    without = f"without {below}" if below else ""
    if len(sizes) < LEAST_SIZES:
        few = f"sigmoids of {len(sizes)} sizes, needs {LEAST_SIZES}"
        return Sharpening.UNDETERMINED, None, "; ".join(filter(None, (few, without)))
    size = finite_size([run.n_params for run in resolved], [o.width for o in resolved.values()])
    if size.high < 0:
        return Sharpening.SHARPENS, size, without
    if size.low > 0:
        return Sharpening.WIDENS, size, without
    return Sharpening.KEEPS, size, "; ".join(filter(None, ("no slope established", without)))


def _prepared(x_K: np.ndarray) -> _Search:
    gaps = [np.linspace(a, b, PER_GAP, endpoint=False) for a, b in pairwise(x_K)]
    middle_C = np.append(np.concatenate(gaps), x_K[-1])
    power_D = np.linspace(-LARGEST_POWER, LARGEST_POWER, NUM_POWERS)
    # expm1 / k goes to the logarithm at 0
    power_DK = np.array([np.expm1(k * x_K) / k if abs(k) > 1e-9 else x_K for k in power_D])
    return _Search(
        _Sigmoids.on(x_K, middle_C, np.geomspace(*_range(x_K), NUM_WIDTHS)),
        shapes_of(np.ones((len(x_K), 1)), power_DK, picked_by=1),
    )


def _range(x_K: np.ndarray) -> tuple[float, float]:
    """Widths that checkpoints can tell: a quarter of the narrowest gap to half of the run."""
    return float(np.diff(x_K).min()) / 4, float(np.ptp(x_K)) / 2


def _zoomed(x_K: np.ndarray, y_K: np.ndarray, coarse: _Sigmoids) -> _Sigmoids:
    """A finer grid over the sigmoids that fit as well as the best one."""
    inside_D = coarse.inside(y_K)
    middle_D, width_D = coarse.middle_D[inside_D], coarse.width_D[inside_D]
    narrowest, widest = _range(x_K)
    step = (widest / narrowest) ** (1 / (NUM_WIDTHS - 1))
    gap = float(np.diff(x_K).max()) / PER_GAP
    middle_C = np.linspace(
        max(middle_D.min() - gap, x_K[0]), min(middle_D.max() + gap, x_K[-1]), NUM_FINE
    )
    width_W = np.geomspace(
        max(width_D.min() / step, narrowest), min(width_D.max() * step, widest), NUM_FINE
    )
    return _Sigmoids.on(x_K, middle_C, width_W)
