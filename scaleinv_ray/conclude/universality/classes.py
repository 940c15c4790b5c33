"""From measured critical exponents to universality classes of sizes, variants and architectures.

Shape suffixes: G systems, E exponents, S replicates.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy as np
from scipy import stats

from scaleinv_ray.conclude.aggregation.cells import TRAINED, by_size, gather, in_order
from scaleinv_ray.conclude.aggregation.matched_checkpoints import Replicate
from scaleinv_ray.conclude.aggregation.places import Place
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.values import Value, comparisons
from scaleinv_ray.conclude.conservation.hypothesis_tests import moments
from scaleinv_ray.conclude.universality.agreement import (
    LARGE_QUALITY,
    Classes,
    own_covariances,
    pooled_covariances,
    universality_classes,
)
from scaleinv_ray.conclude.universality.curves import Family, Line, gather_curves, pair_qualities
from scaleinv_ray.contract import Quantity

INVARIANT = "renormalization.critical_exponents"
EXPONENTS = ("alpha_tilde", "mu", "beta_tilde", "z_tilde")
SCALING_FUNCTIONS = ("variance_flow", "cluster_spectrum")


# called, not written as a class: `class` is a column
ClassRow = TypedDict(
    "ClassRow",
    {
        "series": str | None,
        "probe": str | None,
        "family": str,
        "invariant": str,
        "site": str | None,
        "depth_bin": str,
        "step": int | None,
        "comparison": Annotated[str, "sizes, the name of a null, or architectures"],
        "n_params": Annotated[int | None, "size that is compared with its null"],
        "outcome": Annotated[str, "of all systems compared"],
        "class": Annotated[int, "number of the class, 0 the largest"],
        "members": Annotated[list[str], "systems of the class"],
        "exponents": Annotated[list[str], "exponents that all systems have"],
        "centre": Annotated[list[float], "mean exponents of the members"],
        "margins": Annotated[list[float], "changes of the exponents that count as none"],
        "distance": Annotated[float | None, "Mahalanobis distance of the farthest pair inside"],
        "width": Annotated[float | None, "the same in margins"],
        "apart": Annotated[float | None, "distance of the nearest system outside"],
        "p": Annotated[float | None, "of the nearest system outside being inside"],
        "quality": Annotated[float | None, "largest S of the scaling functions of a pair"],
        "n_systems": Annotated[int, "systems compared"],
        "n_classes": Annotated[int, "classes found"],
        "n_seeds": Annotated[int, "replicates of the system with the fewest"],
        "reason": str,
    },
)
ClassRow.__doc__ = "Classes of systems whose exponents agree and whose scaling functions collapse."


class _Where(NamedTuple):
    series: str
    probe: str | None
    family: str
    invariant: str
    site: str | None
    depth_bin: str


@dataclass
class _Vectors:
    """What was measured at one place: variant -> replicate -> exponent -> value."""

    of: dict[str, dict[Replicate, dict[str, float]]] = field(default_factory=dict)
    step: int | None = None

    def add(self, variant: str, exponent: str, values: Mapping[Replicate, Value]) -> None:
        """Adds one exponent of one variant."""
        held = self.of.setdefault(variant, {})
        for replicate, value in values.items():
            held.setdefault(replicate, {})[exponent] = value.value


@dataclass
class _Question:
    """Systems to be compared: name -> exponents of its replicates, and their curves."""

    comparison: str
    n_params: int | None
    values: dict[str, list[dict[str, float]]]
    lines: dict[str, dict[str, list[Line]]]


def classes_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Mapping[tuple[str, str], Quantity],
    curve_rows: Iterable[Mapping[str, Any]] = (),
    margin: float = 0.10,
) -> list[ClassRow]:
    """Universality classes at every place: of the sizes, of trained and null, of architectures.

    Comparison `sizes`: is the whole trained series in one class? The name of a null: is the trained
    model of a size in the class of that null? `architectures`: the systems are series and
    architecture, the replicates their models of every size (so that what varies with size counts
    as error); series is null there. Replicates are seeds. Errors are pooled over systems, unless
    variances differ as in `evidence.moments`. Exponents that not every model has are left out.
    S is the larger one of the curves variance_flow and cluster_spectrum; it is large beyond 4, or
    beyond what curves whose points err together would reach in one of twenty such tables.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`.
        quantities: (invariant, quantity) -> what is claimed of it, for the margins.
        curve_rows: with the columns of `tables.CURVES`.
        margin: for exponents that declare none.

    Returns:
        One row a class: outcome for all systems compared, class (0 the largest), its members,
        their mean exponents, the margins, distance (Mahalanobis) and width (in margins) of its
        farthest pair, apart and p of the nearest system outside, quality (largest S of a pair),
        n_seeds the replicates of the system with the fewest.
    """
    table = Rows.of(rows)
    vectors = _vectors(
        table.where(table.among(("invariant", "quantity"), {(INVARIANT, e) for e in EXPONENTS}))
    )
    families = gather_curves(
        r for r in curve_rows if r["invariant"] == INVARIANT and r["curve"] in SCALING_FUNCTIONS
    )
    claims = {e: quantities.get((INVARIANT, e), Quantity(law="none")) for e in EXPONENTS}
    out: list[ClassRow] = []
    for where, found in vectors.items():
        for question in _questions(where, found, families):
            out += _rows(where, found.step, question, claims, margin)
    for where, question in _across(vectors):
        out += _rows(where, None, question, claims, margin)
    return out


def _vectors(rows: Rows) -> dict[_Where, _Vectors]:
    vectors: dict[_Where, _Vectors] = defaultdict(_Vectors)
    for group in gather(rows):
        place = group.place
        where = _Where(*[getattr(place, name) for name in _Where._fields])
        for comparison in comparisons(group):
            if comparison.is_main:
                vectors[where].step = comparison.step
                vectors[where].add(TRAINED, place.quantity, comparison.trained)
                for variant, values in comparison.nulls.items():
                    vectors[where].add(variant, place.quantity, values)
    return vectors


def _questions(
    where: _Where, found: _Vectors, families: Mapping[tuple[Place, str], Family]
) -> Iterator[_Question]:
    sizes = {variant: by_size(held) for variant, held in found.of.items()}
    lines = {
        (variant, name): _lines(where, variant, name, found.step, families)
        for variant in found.of
        for name in SCALING_FUNCTIONS
    }
    trained = sizes.get(TRAINED, {})
    named = {f"{n:,}": n for n in trained}
    curves = {
        c: {g: lines[TRAINED, c].get(n, []) for g, n in named.items()} for c in SCALING_FUNCTIONS
    }
    yield _Question("sizes", None, {g: trained[n] for g, n in named.items()}, curves)
    for variant in sorted(set(sizes) - {TRAINED}):
        for n in sorted(set(trained) & set(sizes[variant])):
            pair = (TRAINED, variant)
            curves = {c: {g: lines[g, c].get(n, []) for g in pair} for c in SCALING_FUNCTIONS}
            yield _Question(variant, n, {g: sizes[g][n] for g in pair}, curves)


def _lines(
    where: _Where,
    variant: str,
    curve: str,
    step: int | None,
    families: Mapping[tuple[Place, str], Family],
) -> dict[int, list[Line]]:
    place = Place(*where[:4], curve, *where[4:])
    family = families.get((place, variant))
    return {} if family is None else by_size(family.means(step))


def _across(vectors: Mapping[_Where, _Vectors]) -> Iterator[tuple[_Where, _Question]]:
    systems: dict[_Where, dict[str, list[dict[str, float]]]] = {}
    for where, found in vectors.items():
        held = found.of.get(TRAINED, {})
        for replicate in in_order(held):
            name = f"{where.series}/{replicate.architecture}"
            of = systems.setdefault(where._replace(series=""), {})
            of.setdefault(name, []).append(held[replicate])
    for where, of in systems.items():
        if len(of) > 1:
            yield where, _Question("architectures", None, of, {})


def _rows(
    where: _Where,
    step: int | None,
    question: _Question,
    claims: Mapping[str, Quantity],
    margin: float,
) -> list[ClassRow]:
    names = list(question.values)
    whole = [v for of in question.values.values() for v in of]
    exponents = [e for e in EXPONENTS if whole and all(e in v for v in whole)]
    empty = _empty(where, step, question, exponents)
    sample = [np.array([[v[e] for e in exponents] for v in question.values[g]]) for g in names]
    if len(names) < 2 or not exponents or sum(len(v_SE) - 1 for v_SE in sample) < 1:
        return [empty]
    mean_GE = np.array([v_SE.mean(axis=0) for v_SE in sample])
    margin_E = np.array([
        _margin(claims[e], margin, float(np.abs(mean_GE[:, i]).mean()))
        for i, e in enumerate(exponents)
    ])
    pooled = not _unequal(sample)
    covariance_GEE, df = (pooled_covariances if pooled else own_covariances)(sample)
    qualities = _qualities(question.lines)
    large = _large(len(names), sum(len(v_SE) - 1 for v_SE in sample))
    classes = universality_classes(
        mean_GE,
        covariance_GEE,
        names,
        margin_E=margin_E,
        df=df,
        qualities=qualities,
        large_quality=large,
    )
    said = [] if pooled else ["variances differ between systems and are not pooled"]
    said += [] if qualities else ["without scaling functions"]
    if max(qualities.values(), default=0.0) > large:
        said.append(f"scaling functions differ: S up to {max(qualities.values()):.3g}")
    said += [f"without {e}" for e in EXPONENTS if e not in exponents]
    centres = dict(zip(names, mean_GE, strict=True))
    common: ClassRow = {**empty, "margins": margin_E.tolist(), "reason": "; ".join(said)}
    return [_class_row(common, classes, i, centres) for i in range(len(classes.classes))]


def _margin(claim: Quantity, margin: float, level: float) -> float:
    own = margin if claim.margin is None else claim.margin
    return own * claim.unit if claim.unit is not None else math.log1p(own) * level


def _unequal(sample: Sequence[np.ndarray]) -> bool:
    """Whether the variance of any exponent differs between systems; False where it is unknown."""
    if min(len(v_SE) for v_SE in sample) < 2:
        return False
    most = max(len(v_SE) for v_SE in sample)
    padded = [
        np.pad(v_SE, ((0, most - len(v_SE)), (0, 0)), constant_values=np.nan) for v_SE in sample
    ]
    return bool(moments(np.array(padded).transpose(2, 0, 1)).unequal_B.any())


def _qualities(lines: Mapping[str, Mapping[str, list[Line]]]) -> dict[tuple[str, str], float]:
    worst: dict[tuple[str, str], float] = {}
    for of in lines.values():
        for pair, quality in pair_qualities({g: seeds for g, seeds in of.items() if seeds}).items():
            worst[pair] = max(quality, worst.get(pair, 0.0))
    return worst


def _large(num_systems: int, df: int) -> float:
    if df <= 2:
        return LARGE_QUALITY
    num_tests = num_systems * (num_systems - 1) / 2 * len(SCALING_FUNCTIONS)
    return max(LARGE_QUALITY, (df - 2) / df * float(stats.f.isf(0.05 / num_tests, 1, df)))


def _class_row(
    common: ClassRow, classes: Classes, index: int, centres: Mapping[str, np.ndarray]
) -> ClassRow:
    members = classes.classes[index]
    outside = [t for pair, t in classes.pairs.items() if len(set(pair) & set(members)) == 1]
    nearest = min(outside, key=lambda t: t.distance, default=None)
    qualities = [
        t.quality
        for pair, t in classes.pairs.items()
        if set(pair) & set(members) and t.quality is not None
    ]
    finite = nearest is not None and math.isfinite(nearest.distance)
    return {
        **common,
        "n_classes": len(classes.classes),
        "outcome": classes.outcome.value,
        "class": index,
        "members": list(members),
        "centre": np.mean([centres[g] for g in members], axis=0).tolist(),
        "distance": classes.distance(members) if len(members) > 1 else None,
        "width": classes.width(members),
        "apart": nearest.distance if nearest is not None and finite else None,
        "p": None if nearest is None else nearest.p,
        "quality": max(qualities, default=None),
    }


def _empty(where: _Where, step: int | None, question: _Question, exponents: list[str]) -> ClassRow:
    """The row of systems that cannot be compared: all in one class."""
    return {
        "series": where.series or None,
        "probe": where.probe,
        "family": where.family,
        "invariant": where.invariant,
        "site": where.site,
        "depth_bin": where.depth_bin,
        "step": step,
        "comparison": question.comparison,
        "n_params": question.n_params,
        "outcome": "undetermined",
        "class": 0,
        "members": list(question.values),
        "exponents": exponents,
        "centre": [],
        "margins": [],
        "distance": None,
        "width": None,
        "apart": None,
        "p": None,
        "quality": None,
        "n_systems": len(question.values),
        "n_classes": 1,
        "n_seeds": min((len(of) for of in question.values.values()), default=0),
        "reason": "needs two systems, an exponent of all and two replicates",
    }
