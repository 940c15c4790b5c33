"""What was found in one model: its values beside its twins and beside a series, and in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.value_rows import value_rows
from scaleinv_ray.conclude.aggregation.values import Value
from scaleinv_ray.conclude.assessment.conformal import Card, Interval, Quantities, assess
from scaleinv_ray.conclude.assessment.given_loss import AtLosses, GivenLoss, given_loss
from scaleinv_ray.conclude.assessment.paired import Placed
from scaleinv_ray.conclude.concluding import JUDGED
from scaleinv_ray.contract import REGISTRY, Quantity
from scaleinv_ray.inspection.reference import At, Reference

APART = 4.0
"""|z| from which a value is said to stand apart from a twin's."""
BEHAVIOUR = "behaviour"


class Refusal(NamedTuple):
    """A quantity without a value, and why."""

    at: At
    reason: str


@dataclass(frozen=True)
class Line:
    """A quantity of the model at a place.

    Attributes:
        at: the place.
        family: of the invariant.
        value: of the model.
        untrained: of the model before training, None where there is none.
        shuffled: of the model with the entries of its weights mixed.
        control: it is there to be read beside another quantity.
        interval: of the series at this size, None where it has none.
    """

    at: At
    family: str
    value: Value
    untrained: Value | None
    shuffled: Value | None
    control: bool = False
    interval: Interval | None = None

    @property
    def z_untrained(self) -> float | None:
        """Distance from the untrained twin in standard errors of the difference."""
        return _z(self.value, self.untrained)

    @property
    def z_shuffled(self) -> float | None:
        """Distance from the shuffled twin."""
        return _z(self.value, self.shuffled)

    @property
    def brief(self) -> bool:
        """Whether it stands in the table: of weights all roles together, not each."""
        return self.at.probe is not None or self.at.site == "all"


@dataclass(frozen=True)
class Assessment:
    """The model beside a series.

    Attributes:
        reference: the series.
        card: None where it cannot be made.
        impossible: why not.
        notes: what was left out of it.
        p_beyond_behaviour: of all quantities but the losses, which alone see most; None without.
        at_loss: what is said given its size and loss; None where nothing can be.
        no_loss: why not.
    """

    reference: Reference
    card: Card | None
    impossible: str
    notes: tuple[str, ...]
    p_beyond_behaviour: float | None = None
    at_loss: GivenLoss | None = None
    no_loss: str = ""


def lines_of(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Line], list[Refusal]]:
    """The values of a model and its twins, and what has none.

    Args:
        rows: of tables.MEASUREMENTS, of one model.

    Returns:
        Lines by family, and refusals of the trained model.
    """
    table = Rows.of([{name: row[name] for name in JUDGED} for row in rows])
    found: dict[At, dict[str, Any]] = {}
    for row in value_rows(table):
        if row["depth_bin"] == "all" and row["comparison"] == "equal_steps":
            at = At(row["invariant"], row["quantity"], row["site"], row["probe"])
            found.setdefault(at, {})[row["variant"]] = row
    lines, refused = [], []
    for at, of in found.items():
        trained = _value(of.get("trained"))
        if trained is None:
            refused.append(Refusal(at, (of.get("trained") or {}).get("reason") or "not measured"))
            continue
        spec = REGISTRY[at.invariant]
        lines.append(
            Line(
                at,
                spec.family,
                trained,
                _value(of.get("random_init")),
                _value(of.get("shuffled_weights")),
                spec.quantities[at.quantity].control,
            )
        )
    return sorted(lines, key=lambda line: (line.family, line.at[:2])), refused


def by_place(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[Hashable, Placed]]:
    """The values of a trained model, quantity by quantity, at each layer, head or tensor.

    Args:
        rows: of tables.MEASUREMENTS, of one model.

    Returns:
        Quantity in words -> place -> value; all weights of the blocks together, controls left out.
    """
    found: dict[str, dict[Hashable, Placed]] = {}
    for row in rows:
        is_kept = row["status"] == "ok" and row["variant"] == "trained"
        of_blocks = row["probe"] is not None or row["layer"] is not None
        if not (is_kept and of_blocks):
            continue
        at = At(row["invariant"], row["quantity"], row["site"], row["probe"])
        if _claimed(at).control:
            continue
        samples = row["samples"] and tuple(row["samples"])
        placed = Placed(row["value"], samples, row["error_kind"] == "jackknife")
        found.setdefault(named(at), {})[row["layer"], row["role"], row["head"]] = placed
    return found


def assessed(
    lines: Sequence[Line],
    reference: Reference,
    *,
    n_params: int,
    weights: Collection[str],
    tokenizer: str | None,
    tokens: Mapping[str, str],
) -> Assessment:
    """The model beside a series, of which it is left out where it is one of it.

    Args:
        lines: of the model.
        n_params: its parameters.
        weights: digests of its weights, and of its parent's, which would vouch for it.
        tokenizer: name of its tokenizer.
        tokens: probe -> digest of its tokens.

    Returns:
        The assessment; why there is none where the series says nothing of this size.
    """
    others = [i for i, m in enumerate(reference.members) if m.weights not in weights]
    notes = []
    if len(others) < len(reference.members):
        notes.append("the model, or its parent, is one of the series and was left out of it")
    same_tokens = tokenizer is None or set(reference.tokenizers) <= {tokenizer}
    if not same_tokens:
        notes.append("another tokenizer than the series': values in nats a token are left out")
    known = reference.tokens.items() if same_tokens else ()
    other = {probe for probe, of in known if tokens.get(probe, of[0]) not in of}
    if other:
        notes.append(f"other text than the series': values on {', '.join(sorted(other))} left out")
    chosen = [
        line
        for line in lines
        if _comparable(line, reference, same_tokens=same_tokens)
        and line.at.probe not in other
        and all(reference.values[line.at][i] is not None for i in others)
    ]
    if not chosen:
        why = "no quantity in common with the series" if lines else "nothing of it was measured"
        return Assessment(reference, None, why, tuple(notes))
    try:
        card = _card(chosen, reference, others, n_params)
    except ValueError as error:
        return Assessment(reference, None, str(error), tuple(notes))
    beyond = [line for line in chosen if line.family != BEHAVIOUR]
    p = _card(beyond, reference, others, n_params).whole.p if beyond else None
    said = Assessment(reference, card, "", tuple(notes), p)
    try:
        return replace(said, at_loss=_given_loss(lines, beyond, reference, others, n_params))
    except ValueError as error:
        return replace(said, no_loss=str(error))


def _given_loss(
    lines: Sequence[Line],
    beyond: Sequence[Line],
    reference: Reference,
    others: Sequence[int],
    n_params: int,
) -> GivenLoss:
    """The model among those of its size and loss, by the checkpoints of the series."""
    steps = [*reference.earlier, reference.values]

    def over(line: Line) -> np.ndarray | None:
        values_SN = [[of.get(line.at, [None] * (i + 1))[i] for i in others] for of in steps]
        found = np.array(values_SN, dtype=np.float64)
        return found if np.isfinite(found).all() else None

    losses = [line for line in lines if _claimed(line.at).nats == "mean_per_token"]
    known = [(line, loss_SN) for line in losses if (loss_SN := over(line)) is not None]
    if not known:
        raise ValueError("the loss of the model, or of the series over training, is not known")
    named_values = [
        (named(line.at), *_judged(values_SN, line.value.value, _claimed(line.at).unit))
        for line in beyond
        if line.brief and (values_SN := over(line)) is not None
    ]
    if not named_values:
        raise ValueError("no quantity beside the loss is known of the series over training")
    (line, loss_SN), *_ = known
    return given_loss(
        AtLosses(
            names=[name for name, _, _ in named_values],
            n_params_N=np.array([reference.members[i].n_params for i in others], dtype=np.float64),
            loss_SN=loss_SN,
            values_SNF=np
            .array([of for _, of, _ in named_values])
            .reshape(-1, *loss_SN.shape)
            .transpose(1, 2, 0),
            n_params=float(n_params),
            loss=line.value.value,
            values_F=np.array([value for _, _, value in named_values]),
        )
    )


def _judged(values_SN: np.ndarray, value: float, unit: float | None) -> tuple[np.ndarray, float]:
    """On the scale on which they are judged: ln|value| where all have one sign and no unit."""
    if unit is None and (values_SN * value > 0).all():
        return np.log(np.abs(values_SN)), math.log(abs(value))
    return values_SN, value


def with_intervals(lines: Sequence[Line], card: Card) -> list[Line]:
    """The lines, each with the interval of the series where it has one."""
    known = {interval.name: interval for interval in card.intervals}
    return [replace(line, interval=known.get(named(line.at))) for line in lines]


def named(at: At) -> str:
    """A place as text.

    >>> named(At("weights.weight_tail", "alpha", "query", None))
    'weights.weight_tail alpha at query'
    """
    site = f" at {at.site}" if at.site else ""
    return f"{at.invariant} {at.quantity}{site}{f' on {at.probe}' if at.probe else ''}"


def _card(
    chosen: Sequence[Line], reference: Reference, others: Sequence[int], n_params: int
) -> Card:
    """The card of some quantities beside some models of the series."""
    values_NF = np.empty((len(others), len(chosen)))
    for f, line in enumerate(chosen):
        of = reference.values[line.at]
        values_NF[:, f] = [of[i] for i in others]
    given = Quantities(
        names=[named(line.at) for line in chosen],
        n_params_N=np.array([reference.members[i].n_params for i in others], dtype=np.float64),
        values_NF=values_NF,
        n_params=float(n_params),
        values_F=np.array([line.value.value for line in chosen]),
        units=[_claimed(line.at).unit for line in chosen],
    )
    return assess(given, [line.family for line in chosen])


def _claimed(at: At) -> Quantity:
    return REGISTRY[at.invariant].quantities[at.quantity]


def _comparable(line: Line, reference: Reference, *, same_tokens: bool) -> bool:
    at = line.at
    if line.control or at not in reference.values:
        return False
    if reference.versions.get(at.invariant) != REGISTRY[at.invariant].version:
        return False
    return same_tokens or _claimed(at).nats == "no"


def _value(row: Mapping[str, Any] | None) -> Value | None:
    if row is None or row["value"] is None:
        return None
    return Value(row["value"], row["stderr"])


def _z(value: Value, beside: Value | None) -> float | None:
    if beside is None or value.stderr is None or beside.stderr is None:
        return None
    error = math.hypot(value.stderr, beside.stderr)
    return (value.value - beside.value) / error if error > 0 else None


def sentences(lines: Sequence[Line]) -> dict[str, str]:
    """One sentence a family: how much stands apart from the untrained twin, and what most."""
    return {
        family: _sentence([of for of in lines if of.family == family and not of.control])
        for family in dict.fromkeys(of.family for of in lines)
    }


def _sentence(mine: Sequence[Line]) -> str:
    brief = [of for of in mine if of.brief]
    known = [of for of in brief if of.z_untrained is not None]
    if not known:
        return f"{len(brief)} values; without their errors nothing is said beside the twins"
    apart = [of for of in known if abs(of.z_untrained or 0.0) > APART]
    most = max(known, key=lambda of: abs(of.z_untrained or 0.0))
    assert most.untrained is not None, "a z has a twin"
    on = f" on {most.at.probe}" if most.at.probe else ""
    far = (
        f"{most.at.quantity}{on} {most.value.value:.3g}, untrained {most.untrained.value:.3g} "
        f"(z = {most.z_untrained:+.1f})"
    )
    if not apart:
        return f"none of {len(known)} stands apart from the untrained twin; furthest {far}"
    return (
        f"{len(apart)} of {len(known)} stand apart from the untrained twin "
        f"(|z| > {APART:g}); furthest {far}"
    )


def commonest(refused: Iterable[Refusal]) -> list[str]:
    """Reasons, each with how often it was met, the most frequent first."""
    counts = Counter(of.reason for of in refused)
    return [f"{n} x {reason}" for reason, n in counts.most_common()]
