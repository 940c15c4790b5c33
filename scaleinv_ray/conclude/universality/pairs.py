"""Pairs of models: what two sizes share, against two seeds of one size and against chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
from scipy import stats

from scaleinv_ray.conclude.aggregation.places import AtPlace, Place, at_place, places_of
from scaleinv_ray.conclude.aggregation.rows import Rows

FLOORS = ("_permuted", "_floor")
"""Endings of the quantity that holds the same number for permuted rows."""
LEVEL = 0.95


class PairRow(AtPlace):
    """What pairs of models of two sizes share, between their ceiling and their floor."""

    step: int | None
    variant: str
    model_a: Annotated[str, "models of the smaller size"]
    model_b: Annotated[str, "models of the larger size"]
    n_params_a: Annotated[int, "parameters of the smaller models"]
    n_params_b: Annotated[int, "parameters of the larger models"]
    value: Annotated[float | None, "mean over pairs"]
    stderr: float | None
    ceiling: Annotated[float | None, "mean over pairs of two seeds of one size"]
    ceiling_low: Annotated[float | None, "lower end of its 95 % interval"]
    ceiling_high: Annotated[float | None, "upper end of it"]
    floor: Annotated[float | None, "the same number by chance"]
    relative: Annotated[float | None, "0 at the floor, 1 as alike as two seeds of one size"]
    n_pairs: Annotated[int, "pairs that the value is the mean of"]
    reason: str


class _Model(NamedTuple):
    n_params: int
    model: str
    seed: int | None


@dataclass
class _Found:
    """The rows of one pair at a place."""

    values: list[float] = field(default_factory=list)
    stderrs: list[float | None] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class _Where(NamedTuple):
    place: Place
    step: int | None
    variant: str


_Pair = tuple[_Model, _Model]
_Means = dict[_Pair, float]


class _Ceiling(NamedTuple):
    value: float | None
    low: float | None
    high: float | None


def ceiling_table(rows: Iterable[Mapping[str, Any]]) -> list[PairRow]:
    """Quantities of pairs of models of two sizes, between their ceiling and their floor.

    The ceiling is the mean over pairs of two seeds of one size, both of the sizes compared: two
    models of different size can hardly be more alike than two runs of one. The floor is the
    control of the same pair, `<name>_permuted` (rows out of register) or `<name>_floor` (of a
    distance: what sampling alone does). relative = (value - floor) / (ceiling - floor): 1 as alike
    as seeds are, 0 at the floor. Pairs of several seeds are averaged; their stderr is that over
    pairs without a model in common, with a single pair that of its rows.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`; only those with unit_b count, whose sizes
            are found among all rows (`unit` is `series/model/step/seed/variant`).

    Returns:
        One row a place, step, variant and pair of sizes: model_a (the smaller) and model_b in
        words, value, stderr, ceiling with its 95 % interval (jackknife
        over models; null with one pair of a size only), floor,
        relative (null where ceiling and floor do not differ), n_pairs, reason. Rows of pairs that
        were refused count in the reason.

    Raises:
        ValueError: where the size of a second unit is in no row.
    """
    table = Rows.of(rows)
    sizes = table.distinct(("unit", "n_params"))[1]
    size_of = {unit: n_params for unit, n_params in sizes if n_params is not None}
    found: dict[_Where, dict[_Pair, _Found]] = defaultdict(lambda: defaultdict(_Found))
    for row in table.where(table.known("unit_b")):
        first = _Model(row["n_params"], row["model"], row["seed"])
        second = _second(row["unit_b"], size_of)
        pair = (first, second) if first.n_params <= second.n_params else (second, first)
        for place in places_of(row):
            _add(found[_Where(place, row["step"], row["variant"])][pair], row)
    floors = {_above_floor(where): pairs for where, pairs in found.items() if _is_floor(where)}
    wanted = [where for where in found if not _is_floor(where)]
    out: list[PairRow] = []
    for where in sorted(wanted, key=lambda w: [str(part) for part in (*w.place, *w[1:])]):
        out += _rows(where, found[where], floors.get(where, {}))
    return out


def _is_floor(where: _Where) -> bool:
    return where.place.quantity.endswith(FLOORS)


def _above_floor(where: _Where) -> _Where:
    """Where the quantity stands that this is the floor of."""
    name = where.place.quantity
    for ending in FLOORS:
        name = name.removesuffix(ending)
    return where._replace(place=where.place._replace(quantity=name))


def _second(unit: str, size_of: Mapping[str, int]) -> _Model:
    if unit not in size_of:
        raise ValueError(f"unit_b: got {unit!r}, allowed units that have rows of their own")
    # a model's name may hold slashes, a series' name may not
    _, *model, _, seed, _ = unit.split("/")
    return _Model(size_of[unit], "/".join(model), None if seed == "None" else int(seed))


def _add(found: _Found, row: Mapping[str, Any]) -> None:
    if row["status"] == "ok" and row["value"] is not None:
        found.values.append(row["value"])
        found.stderrs.append(row["stderr"])
    else:
        found.errors.append(row["error"] or row["status"])


def _rows(
    where: _Where, pairs: Mapping[_Pair, _Found], floors: Mapping[_Pair, _Found]
) -> list[PairRow]:
    same: dict[int, _Means] = defaultdict(dict)
    across: dict[tuple[int, int], list[_Pair]] = defaultdict(list)
    for pair, found in sorted(pairs.items(), key=lambda item: str(item[0])):
        sizes = (pair[0].n_params, pair[1].n_params)
        if sizes[0] != sizes[1]:
            across[sizes].append(pair)
        elif found.values and not found.errors:
            same[sizes[0]][pair] = math.fsum(found.values) / len(found.values)
    return [_row(where, sizes, pairs, floors, same) for sizes in sorted(across)]


def _row(
    where: _Where,
    sizes: tuple[int, int],
    pairs: Mapping[_Pair, _Found],
    floors: Mapping[_Pair, _Found],
    same: Mapping[int, _Means],
) -> PairRow:
    mine = {p: f for p, f in pairs.items() if (p[0].n_params, p[1].n_params) == sizes}
    whole = {p: f for p, f in mine.items() if f.values and not f.errors}
    refused = sorted({error for f in mine.values() for error in f.errors})
    value, stderr = _mean(whole)
    floor, _ = _mean({p: floors[p] for p in whole if p in floors and floors[p].values})
    ceiling = _ceiling({p: v for size in sizes for p, v in same.get(size, {}).items()})
    said = (
        [f"{len(mine) - len(whole)} of {len(mine)} pairs dropped: {refused[0]}"] if refused else []
    )
    said += ["no pair of seeds of one size"] if ceiling.value is None else []
    said += ["no permuted control"] if floor is None and value is not None else []
    return {
        **at_place(where.place),
        "step": where.step,
        "variant": where.variant,
        "model_a": _names_of({p[0] for p in mine}),
        "model_b": _names_of({p[1] for p in mine}),
        "n_params_a": sizes[0],
        "n_params_b": sizes[1],
        "value": value,
        "stderr": stderr,
        "ceiling": ceiling.value,
        "ceiling_low": ceiling.low,
        "ceiling_high": ceiling.high,
        "floor": floor,
        "relative": _relative(value, floor, ceiling.value),
        "n_pairs": len(whole),
        "reason": "; ".join(said),
    }


def _mean(pairs: Mapping[_Pair, _Found]) -> tuple[float | None, float | None]:
    """Mean over pairs and its error: over pairs without a model in common, else within the pair."""
    if not pairs:
        return None, None
    means = [math.fsum(f.values) / len(f.values) for f in pairs.values()]
    value = math.fsum(means) / len(means)
    models = [model for pair in pairs for model in pair]
    if len(means) == 1:
        (found,) = pairs.values()
        known = [e for e in found.stderrs if e is not None]
        # layers share their sequences: the mean of their errors is a bound
        return value, float(np.mean(known)) if len(known) == len(found.stderrs) else None
    if len(set(models)) < len(models):
        return value, None
    return value, float(np.std(means, ddof=1) / math.sqrt(len(means)))


def _ceiling(values: Mapping[_Pair, float]) -> _Ceiling:
    """Mean over pairs of seeds; pairs share models, so models are left out one by one."""
    if not values:
        return _Ceiling(None, None, None)
    models = sorted({model for pair in values for model in pair}, key=str)
    mean = math.fsum(values.values()) / len(values)
    without = [[v for pair, v in values.items() if model not in pair] for model in models]
    if not all(without):
        return _Ceiling(mean, None, None)
    left_out = np.array([math.fsum(rest) / len(rest) for rest in without])
    spread = float(((left_out - left_out.mean()) ** 2).sum())
    stderr = math.sqrt((len(models) - 1) / len(models) * spread)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(models) - 1)) * stderr
    return _Ceiling(mean, mean - half, mean + half)


def _relative(value: float | None, floor: float | None, ceiling: float | None) -> float | None:
    if value is None or floor is None or ceiling is None or ceiling == floor:
        return None
    return (value - floor) / (ceiling - floor)


def _names_of(models: set[_Model]) -> str:
    return ", ".join(sorted({m.model for m in models}))
