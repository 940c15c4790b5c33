"""From the table of measurements to the tables of verdicts and predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import pandas as pd
from scipy import stats

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Group, by_size, gather
from scaleinv_ray.conclude.aggregation.completeness import CHOICES, FAILURES
from scaleinv_ray.conclude.aggregation.matched_checkpoints import COMPARISONS, Replicate
from scaleinv_ray.conclude.aggregation.places import AtPlace, at_place, is_pooled
from scaleinv_ray.conclude.aggregation.values import Comparison, Value
from scaleinv_ray.conclude.aggregation.values import comparisons as compared
from scaleinv_ray.conclude.conservation.estimator_share import estimator_share
from scaleinv_ray.conclude.conservation.hypothesis_tests import moments
from scaleinv_ray.conclude.conservation.judging import judge
from scaleinv_ray.conclude.conservation.nulls import NullComparison, compare_with_null
from scaleinv_ray.conclude.conservation.prediction import (
    LEAST_FITTED,
    Forecast,
    Prediction,
    PredictionRow,
    forecast,
    line_of,
    rolling,
)
from scaleinv_ray.conclude.conservation.value_scale import series_of
from scaleinv_ray.conclude.conservation.verdict import Verdict, VerdictRow, Verdicts
from scaleinv_ray.contract import Quantity
from scaleinv_ray.records import VARIANTS

UNTRAINED = "random_init"
"""The null that gives the class; the others are reported in the reason."""
NULLS = tuple(variant for variant in VARIANTS if variant != TRAINED)


@dataclass(frozen=True)
class _Sample:
    """Values by size and seed, sizes ascending."""

    n_params: list[int]
    values: list[list[float]]
    found: list[list[Value]]
    models: list[list[str]]


def judge_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Mapping[tuple[str, str], Quantity],
    margin: float = 0.10,
    comparisons: Collection[str] = COMPARISONS,
    by_role: bool = False,
) -> tuple[list[VerdictRow], list[PredictionRow]]:
    """Judges every quantity at every place of a run, and predicts every size from the smaller ones.

    Args:
        rows: measurements, with the columns of `tables.MEASUREMENTS`.
        quantities: (invariant, quantity) -> what is claimed of it in advance.
        margin: relative change that counts as conserved for quantities that declare none.
        comparisons: those wanted, out of equal_steps, equal_tokens, equal_loss and final.
        by_role: whether quantities that are judged pooled are judged role by role, too.

    Returns:
        Verdicts and predictions. n_models counts sizes, n_seeds the
        seeds of the size with the fewest, n_refused the models dropped because a row of the place
        was refused or failed. A place without any value is in one row: not asked (the config does
        not ask for it), refused, or undetermined (an error, or no models). `q` is the
        Benjamini-Hochberg value of the test that carries the verdict (equivalence, slope,
        heterogeneity), within that test, the family of invariants, the comparison, and the whole
        depth apart from its thirds, without controls; it changes no verdict. Errors of
        predictions are on the judged scale (ln, or units). estimator_share is the mean squared
        error within models / variance over seeds, without what models share that read the same
        sequences; none where no blocks of sequences are kept, or where the error is that of a fit.

    Raises:
        ValueError: where one place mixes protocols, versions or parameters, and for comparisons
            that do not exist.
    """
    _check_comparisons(comparisons)
    judged: list[tuple[VerdictRow, Verdict]] = []
    predictions: list[PredictionRow] = []
    for group in gather(rows):
        quantity = _claimed(quantities, group, margin)
        if quantity.pooled and not (by_role or is_pooled(group.place)):
            continue
        for comparison in compared(group):
            if not comparison.is_among(comparisons) or not _is_reported(group, comparison):
                continue
            key = _key(group, comparison)
            sample = _sample(comparison.trained)
            verdict = _verdict(sample, comparison, quantity)
            judged.append((_row(key, sample, comparison, verdict, quantity), verdict))
            predictions += _predictions(key, sample, verdict, quantity)
    return _with_q(judged), predictions


def predict_named(
    rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Mapping[tuple[str, str], Quantity],
    n_params: int,
    model: str,
    margin: float = 0.10,
    comparisons: Collection[str] = COMPARISONS,
) -> list[PredictionRow]:
    """Predicts a larger model, whether it exists or not, from those measured.

    Args:
        rows: measurements, with the columns of `tables.MEASUREMENTS`.
        quantities: (invariant, quantity) -> what is claimed of it in advance.
        n_params: total parameters of the model, more than of any that is measured.
        margin: relative change that counts as conserved for quantities that declare none.
        comparisons: those wanted, out of equal_steps, equal_tokens, equal_loss and final.

    Returns:
        Rows with nothing observed: by the straight line on the judged
        scale, and by the form of the verdict where that is another (the constant where conserved).
        Places with fewer than three sizes, with a size as large, or with values that cannot be
        judged, have none.

    Raises:
        ValueError: as in `judge_table`.
    """
    _check_comparisons(comparisons)
    out: list[PredictionRow] = []
    for group in gather(rows):
        quantity = _claimed(quantities, group, margin)
        for comparison in compared(group):
            sample = _sample(comparison.trained)
            if not comparison.is_among(comparisons) or len(sample.n_params) < LEAST_FITTED:
                continue
            if n_params <= max(sample.n_params):
                continue  # it exists by now: a held-out size stands beside what was observed
            form = _verdict(sample, comparison, quantity).form
            try:
                series = series_of(sample.n_params, sample.values, unit=quantity.unit)
            except ValueError:
                continue  # of both signs: its verdict says so
            key = _key(group, comparison)
            given = moments(series.y_KS[None])
            for name in dict.fromkeys([line_of(series), form or line_of(series)]):
                found = forecast(series, given, float(n_params), form=name)
                out.append(_prediction(key, model, found))
    return out


class _Key(AtPlace):
    step: int | None
    comparison: str


def _key(group: Group, comparison: Comparison) -> _Key:
    return {**at_place(group.place), "step": comparison.step, "comparison": comparison.name}


def _check_comparisons(comparisons: Collection[str]) -> None:
    if unknown := sorted(set(comparisons) - set(COMPARISONS)):
        raise ValueError(f"comparisons: got {unknown}, allowed {COMPARISONS}")


def _claimed(
    quantities: Mapping[tuple[str, str], Quantity], group: Group, margin: float
) -> Quantity:
    """What is claimed of a quantity, with the run's margin where it declares none."""
    place = group.place
    declared = quantities.get((place.invariant, place.quantity), Quantity(law="none"))
    # counts differ by whole numbers: one is their scale, and zero has no logarithm
    unit = 1.0 if declared.unit is None and declared.law == "integer" else declared.unit
    own = declared.margin if declared.margin is not None else margin
    return replace(declared, margin=own, unit=unit)


def _is_reported(group: Group, comparison: Comparison) -> bool:
    """A place without values has one row only: of the main comparison, over the whole depth."""
    if comparison.trained:
        return True
    return group.place.depth_bin == "all" and bool(comparison.is_main or comparison.impossible)


def _sample(values: Mapping[Replicate, Value]) -> _Sample:
    sizes = by_size({replicate: replicate for replicate in values})
    seeds = list(sizes.values())
    return _Sample(
        n_params=list(sizes),
        values=[[values[r].value for r in size] for size in seeds],
        found=[[values[r] for r in size] for size in seeds],
        models=[sorted({r.model for r in size}) for size in seeds],
    )


def _verdict(sample: _Sample, comparison: Comparison, quantity: Quantity) -> Verdict:
    assert quantity.margin is not None
    if not comparison.trained:
        reason = comparison.impossible or "no model has a value"
        return Verdict(_without_value(comparison.refused.values()), reason, quantity.margin, None)
    try:
        return judge(sample.n_params, sample.values, margin=quantity.margin, unit=quantity.unit)
    except ValueError as error:
        return Verdict(
            verdict=Verdicts.UNDETERMINED,
            reason=str(error),
            margin=quantity.margin,
            conservation_error=None,
            num_sizes=len(sample.n_params),
            num_seeds=min(len(seeds) for seeds in sample.values),
        )


def _without_value(reasons: Collection[str]) -> Verdicts:
    """Undetermined where measuring may help: no models, or an error."""
    if not reasons or any(FAILURES.match(reason) for reason in reasons):
        return Verdicts.UNDETERMINED
    chosen = all(CHOICES.search(reason) for reason in reasons)
    return Verdicts.NOT_ASKED if chosen else Verdicts.REFUSED


def _row(
    key: _Key, sample: _Sample, comparison: Comparison, verdict: Verdict, quantity: Quantity
) -> VerdictRow:
    """The verdict with its claim, the nulls, and the reason with what qualifies it."""
    made: dict[str, NullComparison] = {}
    for variant in NULLS:
        null = _sample(comparison.nulls.get(variant, {}))
        if sample.n_params and null.n_params == sample.n_params:
            made[variant] = compare_with_null(
                sample.n_params, sample.values, null.values, verdict=verdict, unit=quantity.unit
            )
    said = [verdict.reason, *comparison.notes, *_caveats(verdict)]
    said += [f"{name.replace('_', ' ')}: {_null_text(found)}" for name, found in made.items()]
    said += [*comparison.null_notes, _contradiction(verdict, quantity)]
    return {
        **key,
        "law": quantity.law,
        "control": quantity.control,
        "unit": quantity.unit,
        "margin": verdict.margin,
        "conservation_error": verdict.conservation_error,
        "certified_change": verdict.certified_change,
        "verdict": verdict.verdict.value,
        "form": verdict.form,
        "exponent": verdict.exponent,
        "exponent_low": verdict.exponent_low,
        "exponent_high": verdict.exponent_high,
        "slope_p": verdict.slope_p,
        "heterogeneity_p": verdict.heterogeneity_p,
        "q": None,  # of all verdicts together
        "I2": verdict.i2,
        "lack_of_fit_p": verdict.lack_of_fit_p,
        "held_out_error": verdict.held_out_error,
        "naive_error": verdict.naive_error,
        "estimator_share": estimator_share(
            sample.found,
            seed_variance=verdict.seed_variance,
            unit=quantity.unit,
            on_probe=key["probe"] is not None,
        ),
        **_beside(made.get(UNTRAINED)),
        "fragile": None if verdict.stable is None else not verdict.stable,
        "seeds_needed": verdict.seeds_needed,
        "n_models": verdict.num_sizes,
        "n_seeds": verdict.num_seeds,
        "n_refused": len(comparison.refused),
        "reason": "; ".join(part for part in said if part),
    }


class _BesideNull(TypedDict):
    null_class: str | None
    null_verdict: str | None
    slope_beyond_null: float | None
    slope_beyond_null_low: float | None
    slope_beyond_null_high: float | None
    null_seeds_needed: int | None
    rho: float | None


def _beside(found: NullComparison | None) -> _BesideNull:
    slope = found.slope if found else None
    return {
        "null_class": found.null_class.value if found else None,
        "null_verdict": found.null_verdict.value if found and found.null_verdict else None,
        "slope_beyond_null": slope.value if slope else None,
        "slope_beyond_null_low": slope.value - slope.half_width if slope else None,
        "slope_beyond_null_high": slope.value + slope.half_width if slope else None,
        "null_seeds_needed": found.seeds_needed if found else None,
        "rho": found.rho if found else None,
    }


def _contradiction(verdict: Verdict, quantity: Quantity) -> str:
    changes = verdict.verdict in {Verdicts.SCALES, Verdicts.NOT_CONSERVED}
    against = changes if quantity.law == "constant" else verdict.verdict.is_conserved
    claims = quantity.law in {"constant", "power_law"}
    return f"claimed in advance: {quantity.law.replace('_', ' ')}" if claims and against else ""


def _null_text(found: NullComparison) -> str:
    seeds = "" if found.seeds_needed is None else f", {found.seeds_needed} seeds needed"
    kind = found.null_class.value.removeprefix("null_")
    return f"{kind} ({found.reason}{seeds})"


def _caveats(verdict: Verdict) -> list[str]:
    said = []
    if verdict.unequal_variances:
        said.append("variances over seeds differ between sizes and are not pooled over pairs")
    if verdict.stable is False:
        others = Counter(v.words for v in verdict.left_out if v != verdict.verdict)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(others.items()))
        said.append(f"with one of {len(verdict.left_out)} seeds left out: {counts}")
    return said


def _predictions(
    key: _Key, sample: _Sample, verdict: Verdict, quantity: Quantity
) -> list[PredictionRow]:
    """The straight line on the judged scale, and beside it the form of the verdict's law."""
    if verdict.prediction is None and verdict.verdict is not Verdicts.CONSERVED_EXACT:
        return []
    series = series_of(sample.n_params, sample.values, unit=quantity.unit)
    given = moments(series.y_KS[None])
    found = rolling(series, given, form=line_of(series))
    if verdict.form not in {None, "constant", line_of(series)}:
        found += rolling(series, given, form=str(verdict.form))
    return [_prediction(key, ", ".join(sample.models[len(p.fitted_on)]), p) for p in found]


def _prediction(key: _Key, model: str, found: Forecast) -> PredictionRow:
    seen = found if isinstance(found, Prediction) else None
    return {
        **key,
        "model": model,
        "n_params": int(found.n_params),
        "form": found.form,
        "fitted_on": [int(n) for n in found.fitted_on],
        "predicted": found.predicted,
        "low": found.low,
        "high": found.high,
        "level": found.level,
        "observed": seen.observed if seen else None,
        "observed_stderr": seen.observed_stderr if seen else None,
        "error": seen.error if seen else None,
        "naive_last_error": seen.naive_last_error if seen else None,
        "naive_mean_error": seen.naive_mean_error if seen else None,
        "covered": seen.covered if seen else None,
    }


_FAMILY = ["test", "family", "comparison", "whole_depth"]
"""Tests are counted together where these agree: equal steps and equal loss, a depth and its thirds
ask the same question again."""


def _with_q(judged: Sequence[tuple[VerdictRow, Verdict]]) -> list[VerdictRow]:
    """Adds `q`: Benjamini-Hochberg within each test and each family of hypotheses."""
    asked = [
        (i, name, row["family"], row["comparison"], row["depth_bin"] == "all", p)
        for i, (row, verdict) in enumerate(judged)
        for name, p in (
            ("equivalence", verdict.tost_p),
            ("heterogeneity", verdict.heterogeneity_p),
            ("slope", verdict.slope_p),
        )
        if p is not None and not row["control"]
    ]
    table = pd.DataFrame(asked, columns=["row", *_FAMILY, "p"])
    for _, tests in table.groupby(_FAMILY):
        q_N = stats.false_discovery_control(tests["p"])
        for i, name, q in zip(tests["row"], tests["test"], q_N, strict=True):
            row, verdict = judged[i]
            if name == _deciding_test(verdict.verdict):
                row["q"] = float(q)
    return [row for row, _ in judged]


def _deciding_test(verdict: Verdicts) -> str | None:
    if verdict.is_conserved:
        return "equivalence"
    return {Verdicts.SCALES: "slope", Verdicts.NOT_CONSERVED: "heterogeneity"}.get(verdict)
