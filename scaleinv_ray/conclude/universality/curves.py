"""From rows of curves to the quality of their collapse over model size.

Shape suffixes: P points, S seeds, C sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy as np

from scaleinv_ray.conclude.aggregation.cells import by_size, in_order
from scaleinv_ray.conclude.aggregation.completeness import Location, whole_replicates
from scaleinv_ray.conclude.aggregation.matched_checkpoints import (
    NO_COMMON_STEP,
    NO_STEP,
    Replicate,
    last_common_step,
    step_or_none,
)
from scaleinv_ray.conclude.aggregation.places import Place, places_of
from scaleinv_ray.conclude.universality.collapse import (
    ScalingCurve,
    collapse_quality,
    mean_curve_errors,
    rescaling,
    supercollapse,
)

LEAST_POINTS = 3
LEAST_DEGREES = 2
MOST_RESCALED = 32
"""Points of a curve that the search for exponents uses."""


class CollapseRow(TypedDict):
    """Whether the curves of different sizes fall onto one."""

    series: str
    probe: str | None
    family: str
    invariant: str
    curve: str
    site: str | None
    depth_bin: str
    step: int | None
    variant: str
    S: Annotated[float | None, "mean squared distance of the curves in units of their errors"]
    S_rescaled: Annotated[float | None, "the same at the best exponents of x N^-a, y N^-b"]
    exponent_x: Annotated[float | None, "the exponent a"]
    exponent_x_low: Annotated[float | None, "lower end of its 95 % interval"]
    exponent_x_high: Annotated[float | None, "upper end of it"]
    exponent_y: Annotated[float | None, "the exponent b"]
    exponent_y_low: Annotated[float | None, "lower end of its 95 % interval"]
    exponent_y_high: Annotated[float | None, "upper end of it"]
    supercollapse: Annotated[float | None, "spread between sizes over the noise of seeds"]
    n_models: int
    n_seeds: int
    reason: str


class NoCollapse(ValueError):
    """Why curves cannot be compared; becomes the reason of a row."""


class Line(NamedTuple):
    """A curve: x, y, and the standard error of y where it is known."""

    x_P: np.ndarray
    y_P: np.ndarray
    stderr_P: np.ndarray | None


Lines = dict[Location, Line]


@dataclass
class _Sizes:
    """What is compared: curves on one grid, sizes ascending.

    Attributes:
        n_params: the sizes.
        x_P: the grid.
        sample_CSP: curves of the seeds of each size.
        within_C: standard errors of the mean curves from errors within models, None if unknown.
    """

    n_params: list[int]
    x_P: np.ndarray
    sample_CSP: list[np.ndarray]
    within_C: list[np.ndarray] | None


@dataclass
class Family:
    """All curves of one place and variant: replicate -> step -> location -> curve."""

    lines: dict[Replicate, dict[int, Lines]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], line: Line) -> None:
        """Adds the curve of a row."""
        replicate = Replicate(*[row[name] for name in Replicate._fields])
        step = NO_STEP if row["step"] is None else row["step"]
        location = Location(*[row[name] for name in Location._fields])
        steps = self.lines.setdefault(replicate, {})
        steps.setdefault(step, {})[location] = line

    def last_step(self) -> int | None:
        """The last step that all replicates have (`last_common_step`)."""
        return last_common_step([list(steps) for steps in self.lines.values()])

    def means(self, step: int | None) -> dict[Replicate, Line]:
        """Of each replicate the mean over locations, without those that lack one of their build.

        Args:
            step: of all; None for the last one of each.

        Returns:
            The means.
        """
        found = {
            replicate: steps.get(max(steps) if step is None else step, {})
            for replicate, steps in self.lines.items()
        }
        return {
            replicate: _mean([found[replicate][at] for at in sorted(found[replicate], key=str)])
            for replicate in in_order(whole_replicates(found))
        }


def collapse_table(
    rows: Iterable[Mapping[str, Any]], *, rescale: bool = False
) -> list[CollapseRow]:
    """Quality of collapse over model size of every curve, at every place and in every variant.

    The curves of a model are averaged over the layers, roles and heads of the place, those of a
    size over its seeds; models that lack one of the locations of their size are left out. Each
    variant is compared at the last step that all its models have, else at the last one of each.
    Curves on different grids are read at the points of the shortest one inside the range that all
    share. Errors are those over seeds (`mean_curve_errors`); with too few seeds those within
    models.

    Args:
        rows: with the columns of `tables.CURVES`; those of two units are left out.
        rescale: search the exponents of the best collapse, too (.2 s a curve).

    Returns:
        Rows: place, step and variant; S, S_rescaled at exponents x and y with their intervals
        (null where they leave [-2, 2]); supercollapse; n_models counts sizes, n_seeds the seeds of
        the size with the fewest; reason what is missing or has to be said.
    """
    families = gather_curves(rows)
    order = sorted(families, key=lambda at: (*((p is not None, p or "") for p in at[0]), at[1]))
    return [_row(*at, families[at], rescale=rescale) for at in order]


def gather_curves(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Place, str], Family]:
    """Rows of curves by place (the curve's name as quantity) and variant.

    Args:
        rows: with the columns of `tables.CURVES`; those of two units are left out.

    Returns:
        (place, variant) -> its curves.
    """
    families: dict[tuple[Place, str], Family] = {}
    for row in rows:
        if row["unit_b"] is None and row["n_params"] is not None:
            line = _line_of(row)
            for place in places_of({**row, "quantity": row["curve"]}):
                families.setdefault((place, row["variant"]), Family()).add(row, line)
    return families


def _line_of(row: Mapping[str, Any]) -> Line:
    x_P, y_P = (np.asarray(row[name], dtype=np.float64) for name in ("x", "y"))
    stderr = row["y_stderr"]
    return Line(x_P, y_P, None if stderr is None else np.asarray(stderr, dtype=np.float64))


def pair_qualities(systems: Mapping[str, Sequence[Line]]) -> dict[tuple[str, str], float]:
    """S of every pair of systems, with errors over the replicates of all of them.

    Args:
        systems: name -> the curves of its replicates.

    Returns:
        (name, name) -> S, in the order of the names; nothing where curves cannot be compared
        (fewer than three degrees of freedom, no common grid, no spread).
    """
    names = list(systems)
    try:
        sizes = _on_one_grid(dict(enumerate(systems.values())))
        if _degrees(sizes) <= LEAST_DEGREES:
            return {}
        # sizes play no part where nothing is rescaled
        curves = [curve._replace(size=1.0) for curve in _with_errors(sizes)]
    except NoCollapse:
        return {}
    out = {}
    for (i, one), (j, other) in combinations(enumerate(curves), 2):
        quality = collapse_quality([one, other])
        if quality is not None:
            out[names[i], names[j]] = quality
    return out


def _row(place: Place, variant: str, family: Family, *, rescale: bool) -> CollapseRow:
    step = family.last_step()
    empty = _empty(place, variant, family)
    empty["step"] = step_or_none(step)
    try:
        whole = family.means(step)
        means = by_size(whole)
        sizes = _on_one_grid(means)
        curves = _with_errors(sizes)
    except NoCollapse as error:
        return {**empty, "reason": str(error)}
    dropped = len(family.lines) - len(whole)
    said = [NO_COMMON_STEP] if step is None else []
    said += [f"{dropped} models dropped: a location is missing"] if dropped else []
    if len({len(line.x_P) for seeds in means.values() for line in seeds}) > 1:
        said.append("grids differ between models")
    best = rescaling([_thinned(c) for c in curves]) if rescale and len(curves) >= 3 else None
    return {
        **empty,
        "S": collapse_quality(curves),
        "S_rescaled": best.quality if best else None,
        "exponent_x": best.exponent_x if best else None,
        "exponent_x_low": best.x_low if best else None,
        "exponent_x_high": best.x_high if best else None,
        "exponent_y": best.exponent_y if best else None,
        "exponent_y_low": best.y_low if best else None,
        "exponent_y_high": best.y_high if best else None,
        "supercollapse": supercollapse(sizes.sample_CSP),
        "n_models": len(curves),
        "n_seeds": min(len(y) for y in sizes.sample_CSP),
        "reason": "; ".join([*_seeds_said(sizes), *said]),
    }


def _empty(place: Place, variant: str, family: Family) -> CollapseRow:
    """The row of curves that are not compared, but for the reason."""
    return {
        "series": place.series,
        "probe": place.probe,
        "family": place.family,
        "invariant": place.invariant,
        "curve": place.quantity,
        "site": place.site,
        "depth_bin": place.depth_bin,
        "step": None,
        "variant": variant,
        "S": None,
        "S_rescaled": None,
        "exponent_x": None,
        "exponent_x_low": None,
        "exponent_x_high": None,
        "exponent_y": None,
        "exponent_y_low": None,
        "exponent_y_high": None,
        "supercollapse": None,
        "n_models": len({r.n_params for r in family.lines}),
        "n_seeds": 0,
        "reason": "",
    }


def _seeds_said(sizes: _Sizes) -> list[str]:
    return (
        [] if _degrees(sizes) > LEAST_DEGREES else ["too few seeds: errors are those within models"]
    )


def _degrees(sizes: _Sizes) -> int:
    return sum(len(y_SP) - 1 for y_SP in sizes.sample_CSP)


def _mean(lines: Sequence[Line]) -> Line:
    x_P = _common_grid(lines)
    errors = [np.interp(x_P, e.x_P, e.stderr_P) for e in lines if e.stderr_P is not None]
    y_P = np.mean([np.interp(x_P, line.x_P, line.y_P) for line in lines], axis=0)
    # layers share their sequences: the mean of their errors is a bound
    return Line(x_P, y_P, np.mean(errors, axis=0) if len(errors) == len(lines) else None)


def _common_grid(lines: Sequence[Line]) -> np.ndarray:
    first = min(lines, key=lambda line: len(line.x_P)).x_P
    for line in lines:
        finite = all(np.isfinite(values).all() for values in line if values is not None)
        if not (finite and len(line.x_P) and (np.diff(line.x_P) > 0).all()):
            raise NoCollapse("no function: x does not ascend, or a number is not finite")
    low, high = max(line.x_P[0] for line in lines), min(line.x_P[-1] for line in lines)
    grid_P = first[(low <= first) & (first <= high)]
    if len(grid_P) < LEAST_POINTS:
        raise NoCollapse(f"{len(grid_P)} points in common, needs {LEAST_POINTS}")
    return grid_P


def _on_one_grid(means: Mapping[int, Sequence[Line]]) -> _Sizes:
    if len(means) < 2:
        raise NoCollapse(f"{len(means)} sizes, needs 2")
    every = [line for seeds in means.values() for line in seeds]
    x_P = _common_grid(every)
    within = None
    if all(line.stderr_P is not None for line in every):
        within = [
            np.sqrt(np.mean([np.interp(x_P, e.x_P, _known(e)) ** 2 for e in means[n]], axis=0))
            / np.sqrt(len(means[n]))
            for n in sorted(means)
        ]
    sample = [
        np.array([np.interp(x_P, line.x_P, line.y_P) for line in means[n]]) for n in sorted(means)
    ]
    return _Sizes(sorted(means), x_P, sample, within)


def _known(line: Line) -> np.ndarray:
    assert line.stderr_P is not None
    return line.stderr_P


def _with_errors(sizes: _Sizes) -> list[ScalingCurve]:
    errors = sizes.within_C
    if _degrees(sizes) > LEAST_DEGREES:
        errors = mean_curve_errors(sizes.sample_CSP)
    if errors is None:
        raise NoCollapse("no errors: too few seeds, and none within models")
    if not all(stderr_P.any() for stderr_P in errors):
        raise NoCollapse("all errors are zero")
    means = [y_SP.mean(axis=0) for y_SP in sizes.sample_CSP]
    return [
        ScalingCurve(float(n), sizes.x_P, y_P, stderr_P)
        for n, y_P, stderr_P in zip(sizes.n_params, means, errors, strict=True)
    ]


def _thinned(curve: ScalingCurve) -> ScalingCurve:
    every = -(-len(curve.x_P) // MOST_RESCALED)
    return ScalingCurve(curve.size, *[values[::every] for values in curve[1:]])
