"""From rows to values per size and seed: means over layers, roles and heads; what to compare.

A place is one (series, probe, family, invariant, quantity, site, depth bin). A replicate is one
(model, seed). All sums run in sorted order, so that the order of rows changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

THIRD = 1 / 3 + 1e-9
TWO_THIRDS = 2 / 3 + 1e-9
NO_STEP = -1


class Place(NamedTuple):
    """What is judged: the key columns of a verdict before step and comparison."""

    series: str
    probe: str | None
    family: str
    invariant: str
    quantity: str
    site: str | None
    depth_bin: str


class Replicate(NamedTuple):
    """A model of one size and seed."""

    n_params: int
    model: str
    seed: int | None


@dataclass(frozen=True)
class Value:
    """The quantity in one unit, averaged over the rows of a place.

    Attributes:
        value: mean over rows.
        stderr: sqrt(sum stderr^2) / rows, rows being independent; None where one is unknown.
        train_tokens: tokens seen at this step.
        eval_loss: held-out loss at this step.
    """

    value: float
    stderr: float | None
    train_tokens: int | None
    eval_loss: float | None


@dataclass(slots=True)
class _Rows:
    """The rows of one unit at one place."""

    train_tokens: int | None
    eval_loss: float | None
    values: list[float] = field(default_factory=list)
    stderrs: list[float] = field(default_factory=list)

    def add(self, value: float, stderr: float | None) -> None:
        self.values.append(value)
        if stderr is not None:
            self.stderrs.append(stderr)

    def mean(self) -> Value:
        n = len(self.values)
        known = len(self.stderrs) == n
        stderr = math.hypot(*self.stderrs) / n if known else None
        return Value(math.fsum(self.values) / n, stderr, self.train_tokens, self.eval_loss)


_WHERE = (
    "series",
    "probe",
    "family",
    "invariant",
    "quantity",
    "site",
    "role",
    "depth",
)
_UNIT = ("variant", "n_params", "model", "seed", "step")
_Cells = dict[tuple[Any, ...], _Rows]
Runs = dict[Replicate, dict[int, Value]]
"""Replicate -> step -> value."""


@dataclass
class Group:
    """Everything measured at one place.

    Attributes:
        place: the place.
        runs: variant -> replicate -> step -> value.
    """

    place: Place
    runs: dict[str, Runs]


@dataclass(frozen=True)
class Comparison:
    """Values to be judged together.

    Attributes:
        name: equal_steps, equal_tokens or equal_loss.
        step: the step where it is one for all, else None.
        note: what else has to be said of it.
        trained: values of the trained models.
        nulls: variant -> values of that null.
    """

    name: str
    step: int | None
    note: str
    trained: dict[Replicate, Value]
    nulls: dict[str, dict[Replicate, Value]]


def depth_bin_of(depth: float | None) -> str | None:
    """Third of the depth: early up to 1/3, middle up to 2/3, late; None without a depth.

    Args:
        depth: relative depth, 0 to 1.

    Returns:
        Name of the third.

    >>> [depth_bin_of(d) for d in (0.0, 1 / 3, 0.5, 2 / 3, 1.0, None)]
    ['early', 'early', 'middle', 'middle', 'late', None]
    """
    if depth is None:
        return None
    return "early" if depth <= THIRD else "middle" if depth <= TWO_THIRDS else "late"


def gather(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Rows of measurements to values per place, variant, replicate and step, in one pass.

    Rows that were refused or failed, and rows that compare two units, are left out. A row without
    a site (a weight) counts under its role as site, and under `all` with all roles together. Every
    row counts in depth bin `all`, and in the third in which its depth lies.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`.

    Returns:
        The groups, sorted by place.

    Raises:
        ValueError: where one place mixes protocols, versions of the invariant or parameters: these
            numbers are not comparable.
    """
    found: dict[Place, _Cells] = {}
    # rows differ in few combinations of the columns that decide where they count
    counted_in: dict[tuple[Any, ...], list[_Cells]] = {}
    basis: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        if row["status"] != "ok" or row["unit_b"] is not None or row["value"] is None:
            continue
        _check_basis(basis, row)
        where = tuple([row[name] for name in _WHERE])
        if where not in counted_in:
            counted_in[where] = [found.setdefault(place, {}) for place in _places(row)]
        unit = tuple([row[name] for name in _UNIT])
        for cells in counted_in[where]:
            if unit not in cells:
                cells[unit] = _Rows(row["train_tokens"], row["eval_loss"])
            cells[unit].add(row["value"], row["stderr"])
    return [_group(place, found[place]) for place in sorted(found, key=_sortable)]


def _check_basis(basis: dict[tuple[Any, ...], tuple[Any, ...]], row: Mapping[str, Any]) -> None:
    what = (row["series"], row["probe"], row["invariant"], row["quantity"])
    have = (row["protocol"], row["version"], row["params"])
    first = basis.setdefault(what, have)
    if first != have:
        names = ("protocol", "version", "params")
        at = next(i for i in range(3) if first[i] != have[i])
        raise ValueError(
            f"{names[at]}: got {have[at]!r} beside {first[at]!r} for {row['invariant']} "
            f"{row['quantity']}, allowed one throughout"
        )


def _places(row: Mapping[str, Any]) -> Iterator[Place]:
    site, role = row["site"], row["role"]
    sites = [site] if site is not None or role is None else [role, "all"]
    third = depth_bin_of(row["depth"])
    bins = ["all"] if third is None else ["all", third]
    for name in sites:
        for depth_bin in bins:
            yield Place(
                row["series"],
                row["probe"],
                row["family"],
                row["invariant"],
                row["quantity"],
                name,
                depth_bin,
            )


def _group(place: Place, cells: _Cells) -> Group:
    runs: dict[str, Runs] = {}
    for (variant, n_params, model, seed, step), rows in cells.items():
        steps = runs.setdefault(variant, {}).setdefault(Replicate(n_params, model, seed), {})
        steps[NO_STEP if step is None else step] = rows.mean()
    return Group(place, runs)


def _sortable(parts: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    return tuple((part is not None, "" if part is None else part) for part in parts)


def in_order(values: Iterable[Replicate]) -> list[Replicate]:
    """Replicates by size, model and seed."""
    return sorted(values, key=_sortable)


def comparisons(group: Group) -> list[Comparison]:
    """The trained models at equal steps, at equal tokens where that differs, and at equal loss.

    equal_steps: the last step that all trained models have. equal_tokens: the last number of
    training tokens that all have, left out where the models at that step agree in tokens anyway.
    equal_loss: each model interpolated linearly in held-out loss, between the first two successive
    checkpoints that enclose the lowest level that all models reach; left out where a model has no
    such checkpoints (never extrapolated). Nulls are those of the judged step, else the latest.

    Args:
        group: what was measured at one place.

    Returns:
        The comparisons that can be made; none without a trained model.
    """
    trained = group.runs.get("trained", {})
    if not trained:
        return []
    made = [_at_equal_steps(trained), _at_equal_tokens(trained), _at_equal_loss(trained)]
    return [
        Comparison(name, step, note, values, _nulls(group, values, step))
        for name, step, note, values in (m for m in made if m is not None)
    ]


_Made = tuple[str, int | None, str, dict[Replicate, Value]]


def _last_common_step(trained: Runs) -> int | None:
    common = set.intersection(*(set(steps) for steps in trained.values()))
    return max(common, default=None)


def _at_equal_steps(trained: Runs) -> _Made | None:
    step = _last_common_step(trained)
    if step is None:
        return None
    values = {replicate: steps[step] for replicate, steps in trained.items()}
    return "equal_steps", None if step == NO_STEP else step, "", values


def _at_equal_tokens(trained: Runs) -> _Made | None:
    by_tokens = [
        {v.train_tokens: (step, v) for step, v in steps.items() if v.train_tokens is not None}
        for steps in trained.values()
    ]
    common = set.intersection(*(set(values) for values in by_tokens))
    tokens = max(common, default=None)
    if tokens is None:
        return None
    steps = {values[tokens][0] for values in by_tokens}
    if steps == {_last_common_step(trained)}:
        return None
    values = {r: found[tokens][1] for r, found in zip(trained, by_tokens, strict=True)}
    return "equal_tokens", steps.pop() if len(steps) == 1 else None, f"at {tokens} tokens", values


def _at_equal_loss(trained: Runs) -> _Made | None:
    curves = {
        replicate: [steps[s] for s in sorted(steps) if steps[s].eval_loss is not None]
        for replicate, steps in trained.items()
    }
    if not all(curves.values()):
        return None
    level = max(min(_loss(v) for v in curve) for curve in curves.values())
    values = {replicate: _interpolated(curve, level) for replicate, curve in curves.items()}
    reached = {replicate: value for replicate, value in values.items() if value is not None}
    if len(reached) < len(values):
        return None
    return "equal_loss", None, f"at held-out loss {level:.4g}", reached


def _loss(value: Value) -> float:
    assert value.eval_loss is not None
    return value.eval_loss


def _interpolated(curve: list[Value], level: float) -> Value | None:
    for value in curve:
        if _loss(value) == level:
            return value
    for above, below in zip(curve, curve[1:], strict=False):
        if _loss(above) > level > _loss(below):
            share = (_loss(above) - level) / (_loss(above) - _loss(below))
            mixed = above.value + share * (below.value - above.value)
            return Value(mixed, _mixed_stderr(above, below, share), None, level)
    return None


def _mixed_stderr(above: Value, below: Value, share: float) -> float | None:
    if above.stderr is None or below.stderr is None:
        return None
    return math.hypot((1 - share) * above.stderr, share * below.stderr)


def _nulls(
    group: Group, trained: Mapping[Replicate, Value], step: int | None
) -> dict[str, dict[Replicate, Value]]:
    """Of every null the values at the trained sizes, at the judged step where it was measured."""
    sizes = {replicate.n_params for replicate in trained}
    return {
        variant: {
            replicate: steps[step] if step in steps else steps[max(steps)]
            for replicate, steps in runs.items()
            if replicate.n_params in sizes
        }
        for variant, runs in sorted(group.runs.items())
        if variant != "trained"
    }
