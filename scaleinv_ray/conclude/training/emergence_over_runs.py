"""From measurements and capabilities over checkpoints to rows: does one announce the other?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import numpy as np

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Place, gather
from scaleinv_ray.conclude.aggregation.evaluations import short_name
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP, Replicate
from scaleinv_ray.conclude.aggregation.places import AtPlace, at_place
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.tokenizers import several_tokenizers
from scaleinv_ray.conclude.training.discoveries import Question, asked_columns, asked_of
from scaleinv_ray.conclude.training.emergence import (
    ALPHA,
    Association,
    HeldOutOnset,
    Lead,
    association,
    held_out_onset,
    lead_of,
    reached_level,
)
from scaleinv_ray.conclude.training.onsets import Onset, OnsetFinder
from scaleinv_ray.conclude.training.transitions import run_values, scaled
from scaleinv_ray.contract import Quantity


class EmergenceRow(AtPlace):
    """Whether a quantity announces a capability; onsets, leads and predictions in ln tokens."""

    task: str
    metric: str
    n_runs: int
    n_sizes: int
    correlation: Annotated[float | None, "of the onsets, within sizes"]
    p: Annotated[float | None, "of no association, one-sided"]
    q: float | None
    n_asked: int | None
    by_chance: float | None
    least_p: Annotated[float, "least p that the permutations can reach"]
    p_given_loss: Annotated[float | None, "p with the held-out loss partialled out"]
    lead: Annotated[float | None, "by how much the quantity changes first"]
    lead_low: Annotated[float | None, "lower end of its 95 % interval"]
    lead_high: Annotated[float | None, "upper end of it"]
    spacing: Annotated[float | None, "of the checkpoints, median over runs"]
    predicted: Annotated[float | None, "onset at the largest size, from the smaller ones"]
    predicted_low: Annotated[float | None, "lower end of its 90 % interval"]
    predicted_high: Annotated[float | None, "upper end of it"]
    observed: Annotated[float | None, "onset observed there"]
    naive_error: Annotated[float | None, "error of the better of two guesses"]
    outcome: str
    reason: str


class Emergence(StrEnum):
    """What is established of an invariant and a capability."""

    PREDICTS = "predicts"
    ASSOCIATED = "associated"
    NOT_ESTABLISHED = "not_established"
    REFUSED = "refused"


class _Run(NamedTuple):
    """A run with both onsets, and its held-out loss over ln tokens where it is known."""

    size: int
    invariant: Onset
    capability: Onset
    loss: list[tuple[float, float]]


class _Name(NamedTuple):
    model: str
    seed: int | None


@dataclass(frozen=True)
class _Facts:
    """Tokens and losses of the trained runs: (series, replicate) -> step -> value.

    No losses of series with several tokenizers: they are in nats a token.
    """

    tokens: dict[tuple[str, Replicate], dict[int, float]]
    loss: dict[tuple[str, Replicate], dict[int, float]]


def emergence_table(
    rows: Iterable[Mapping[str, Any]],
    capability_rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Mapping[tuple[str, str], Quantity],
    rng: np.random.Generator,
) -> list[EmergenceRow]:
    """Whether quantities announce capabilities, over the runs (models and seeds) that have both.

    Runs are joined by the last part of the model's name, and the seed where the row of the
    capability has one; checkpoints by tokens, never by steps. Onsets are those of `OnsetFinder`
    (of ln|I| where a run has one sign and no unit is declared). Loss is partialled out as the
    held-out loss of each run where the capability sets in (the mean t_C of its size). 'predicts'
    needs an association (p <= .05) and a lead whose interval lies above zero and above the spacing
    of the checkpoints; 'associated' needs the first only.

    Many pairs are asked. `q` is the Benjamini-Yekutieli value of p over all pairs that could be
    tested, the whole depth apart from its thirds, without controls: one-sided tests of the same
    runs depend on each other with either sign (of two quantities that move against each other one
    is early where the other is late), and Benjamini-Hochberg asks for positive dependence.
    `by_chance` is how many of these `n_asked` would be associated by chance, with the levels that
    the permutations can reach; no outcome depends on either.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`.
        capability_rows: with model, tokens, task, metric and value, and optionally seed.
        quantities: (invariant, quantity) -> what is claimed of it, for the unit.

    Returns:
        One row a place and capability: correlation, p and p_given_loss, least_p; lead, lead_low,
        lead_high and spacing in ln tokens (spacing: of the checkpoints, median over runs); the
        mean t_C of the largest size predicted from the others, its 90 % interval, what was observed
        and the smaller naive error; q, n_asked and by_chance; outcome and reason. Pairs without any
        common run have none.

    Raises:
        ValueError: where a capability of a model without seed would count for several runs.
    """
    measured = Rows.of(rows)
    facts = _facts(measured)
    finder = OnsetFinder(rng)
    capabilities = _capability_onsets(capability_rows, finder)
    out: list[EmergenceRow] = []
    for group in gather(measured):
        place = group.place
        claim = quantities.get((place.invariant, place.quantity), Quantity(law="none"))
        onsets = {
            replicate: _invariant_onset(values, facts, (place.series, replicate), claim, finder)
            for replicate, values in run_values(group).items()
        }
        for (task, metric), of in capabilities.items():
            runs, lacking = _joined(onsets, of, facts, place.series)
            if runs or lacking:
                out.append(_row(place, (task, metric), runs, lacking, rng))
    return _with_q(out, quantities)


def _with_q(
    rows: list[EmergenceRow], quantities: Mapping[tuple[str, str], Quantity]
) -> list[EmergenceRow]:
    tests: dict[Hashable, Question] = {}
    for i, row in enumerate(rows):
        claim = quantities.get((row["invariant"], row["quantity"]), Quantity(law="none"))
        if row["p"] is not None and not claim.control:
            # a depth and its thirds ask the same question again
            family = (row["series"], row["depth_bin"] == "all")
            tests[i] = Question(row["p"], reached_level(row["least_p"]), family)
    found = asked_of(tests, method="by")
    return [{**row, **asked_columns(found.get(i))} for i, row in enumerate(rows)]


def _facts(rows: Rows) -> _Facts:
    several = several_tokenizers(rows)
    tokens: dict[tuple[str, Replicate], dict[int, float]] = defaultdict(dict)
    loss: dict[tuple[str, Replicate], dict[int, float]] = defaultdict(dict)
    trained = rows.where(
        rows.equal(variant=TRAINED) & ~rows.known("unit_b") & rows.known("train_tokens")
    )
    names = ("series", *Replicate._fields, "step", "train_tokens", "eval_loss")
    for series, *replicate, step, train_tokens, eval_loss in trained.distinct(names)[1]:
        of, at = (series, Replicate(*replicate)), NO_STEP if step is None else step
        tokens[of][at] = float(train_tokens)
        if eval_loss is not None and series not in several:
            loss[of][at] = float(eval_loss)
    return _Facts(tokens, loss)


def _capability_onsets(
    rows: Iterable[Mapping[str, Any]], finder: OnsetFinder
) -> dict[tuple[str, str], dict[_Name, Onset | str]]:
    curves: dict[tuple[str, str], dict[_Name, dict[float, float]]] = {}
    for row in rows:
        if row["value"] is None or row["tokens"] is None:
            continue
        of = curves.setdefault((row["task"], row["metric"]), {})
        curve = of.setdefault(_Name(short_name(row["model"]), row.get("seed")), {})
        curve[float(row["tokens"])] = row["value"]
    return {
        what: {name: _onset(curve, finder) for name, curve in of.items()}
        for what, of in sorted(curves.items())
    }


def _onset(curve: Mapping[float, float], finder: OnsetFinder) -> Onset | str:
    if not any(tokens > 0 for tokens in curve):
        return "no checkpoint with tokens"
    return finder.find(list(curve), list(curve.values()))


def _invariant_onset(
    values: Mapping[int, float],
    facts: _Facts,
    of: tuple[str, Replicate],
    claim: Quantity,
    finder: OnsetFinder,
) -> Onset | str:
    tokens = facts.tokens.get(of, {})
    steps = [step for step in values if step in tokens]
    y = scaled([values[step] for step in steps], claim.unit)
    return _onset({tokens[step]: v for step, v in zip(steps, y, strict=True)}, finder)


def _joined(
    onsets: Mapping[Replicate, Onset | str],
    capability: Mapping[_Name, Onset | str],
    facts: _Facts,
    series: str,
) -> tuple[list[_Run], list[str]]:
    runs: list[_Run] = []
    lacking: list[str] = []
    used: set[_Name] = set()
    for replicate, invariant in onsets.items():
        name = _Name(short_name(replicate.model), replicate.seed)
        name = name if name in capability else _Name(name.model, None)
        if name not in capability:
            continue
        if name in used:
            raise ValueError(f"model: got {name.model} for several seeds, allowed one run each")
        used.add(name)
        found = capability[name]
        if isinstance(invariant, str) or isinstance(found, str):
            why = f"invariant: {invariant}" if isinstance(invariant, str) else f"{found}"
            lacking.append(why)
            continue
        of = (series, replicate)
        tokens = facts.tokens.get(of, {})
        loss = [(np.log(tokens[s]), v) for s, v in facts.loss.get(of, {}).items() if tokens[s] > 0]
        runs.append(_Run(replicate.n_params, invariant, found, sorted(loss)))
    return runs, lacking


class _Found(NamedTuple):
    tied: Association
    given: Association | None
    lead: Lead | None
    held: HeldOutOnset | None


def _found(runs: list[_Run], rng: np.random.Generator) -> _Found:
    size_R = [run.size for run in runs]
    early_R, late_R = [r.invariant.t for r in runs], [r.capability.t for r in runs]
    tied = association(size_R, early_R, late_R, rng=rng)
    if len(runs) < 2:
        return _Found(tied, None, None, None)
    lead = lead_of(
        size_R,
        [r.invariant.draws_B for r in runs],
        [r.capability.draws_B for r in runs],
        onset_R=early_R,
        capability_R=late_R,
        rng=rng,
    )
    held = held_out_onset(size_R, early_R, late_R)
    loss_R = _losses_at_onset(runs)
    given = None
    if loss_R is not None:
        given = association(size_R, early_R, late_R, rng=rng, given_R=loss_R)
    return _Found(tied, given, lead, held)


def _row(
    place: Place,
    capability: tuple[str, str],
    runs: list[_Run],
    lacking: list[str],
    rng: np.random.Generator,
) -> EmergenceRow:
    tied, given, lead, held = _found(runs, rng)
    spacing = _spacing(runs)
    said = [tied.reason] if tied.reason else []
    said += [f"{len(lacking)} runs without onset ({lacking[0]})"] if lacking else []
    task, metric = capability
    return {
        **at_place(place),
        "task": task,
        "metric": metric,
        "n_runs": len(runs),
        "n_sizes": len({run.size for run in runs}),
        "correlation": tied.correlation,
        "p": tied.p,
        **asked_columns(None),  # among all rows
        "least_p": tied.least_p,
        "p_given_loss": given.p if given else None,
        "lead": lead.lead if lead else None,
        "lead_low": lead.low if lead else None,
        "lead_high": lead.high if lead else None,
        "spacing": spacing,
        "predicted": held.predicted if held else None,
        "predicted_low": held.low if held else None,
        "predicted_high": held.high if held else None,
        "observed": held.observed if held else None,
        "naive_error": _naive_error(held) if held else None,
        "outcome": _outcome(tied, lead, spacing).value,
        "reason": "; ".join(said),
    }


def _spacing(runs: list[_Run]) -> float | None:
    wider = [max(r.invariant.spacing, r.capability.spacing) for r in runs]
    return float(np.median(wider)) if wider else None


def _losses_at_onset(runs: list[_Run]) -> list[float] | None:
    """Held-out loss of each run at the mean t_C of its size; None where it was not measured."""
    mean_of = {
        size: float(np.mean([r.capability.t for r in runs if r.size == size]))
        for size in {r.size for r in runs}
    }
    out = []
    for run in runs:
        at, x = mean_of[run.size], [t for t, _ in run.loss]
        if not x or not x[0] <= at <= x[-1]:
            return None
        out.append(float(np.interp(at, x, [v for _, v in run.loss])))
    return out


def _outcome(tied: Association, lead: Lead | None, spacing: float | None) -> Emergence:
    if tied.p is None:
        return Emergence.REFUSED
    if tied.p > ALPHA:
        return Emergence.NOT_ESTABLISHED
    leads = lead is not None and spacing is not None and lead.low > max(spacing, 0.0)
    return Emergence.PREDICTS if leads else Emergence.ASSOCIATED


def _naive_error(held: HeldOutOnset) -> float:
    return min(abs(held.naive_last - held.observed), abs(held.naive_mean - held.observed))
