"""One checkpoint in one call: measured, set beside its twins, assessed against a series."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from scaleinv_ray.conclude.assessment.conformal import needed
from scaleinv_ray.conclude.assessment.paired import Change, changes
from scaleinv_ray.inspection.asking import (
    TWINS,
    Asked,
    Saved,
    ask,
    ask_parent,
    at_hand,
    on_tokens,
)
from scaleinv_ray.inspection.findings import (
    Assessment,
    Line,
    Refusal,
    assessed,
    by_place,
    lines_of,
    sentences,
    with_intervals,
)
from scaleinv_ray.inspection.reference import Reference, Settings, of_series, packaged
from scaleinv_ray.inspection.working import measured
from scaleinv_ray.plugins.loading import use

BUDGET_S = 60.0
LEVEL = 0.1
"""Of false alarms: with the twelve models of the demo no card can promise less than 1 in 13."""


@dataclass(frozen=True)
class Inspection:
    """What was found in one model.

    Attributes:
        model: its name.
        step: of training, None where nothing says.
        n_params: its parameters.
        lines: its values, by family.
        refused: what has no value, and why.
        left_out: invariant -> why it was not measured.
        assessment: beside the series.
        level: of false alarms that an alarm may have.
        seconds: it took.
        parent: name of the model that it is compared with in pairs, None without one.
        changes: against the parent, the surest first.
    """

    model: str
    step: int | None
    n_params: int
    lines: tuple[Line, ...]
    refused: tuple[Refusal, ...]
    left_out: Mapping[str, str]
    assessment: Assessment
    level: float
    seconds: float
    parent: str | None = None
    changes: tuple[Change, ...] = ()

    @property
    def changed(self) -> tuple[Change, ...]:
        """What differs from the parent at a false discovery rate of the level."""
        return tuple(change for change in self.changes if change.q <= self.level)

    @property
    def paired(self) -> str:
        """One line: what has changed since the parent; empty without one."""
        if self.parent is None:
            return ""
        if not self.changes:
            return f"beside its parent {self.parent}: cannot say, nothing measured keeps replicates"
        of = f"{len(self.changed)} of {len(self.changes)} quantities"
        return (
            f"beside its parent {self.parent}, on the same sequences and tensors: {of} changed "
            f"(false discovery rate {self.level:g})"
        )

    @property
    def sentences(self) -> dict[str, str]:
        """One sentence a family."""
        return sentences(self.lines)

    @property
    def verdict(self) -> str:
        """One line: what the card says at the level, and how often it would be wrong."""
        found = self.assessment
        if found.card is None:
            return f"cannot say: {found.impossible}"
        card = found.card
        said = card.verdict(self.level)
        rate = f"smallest possible {card.least_p:.3g} with {card.num_ranked} {card.ranked}"
        if said == "cannot say":
            return f"cannot say: p = {card.whole.p:.3g}, {rate}; {self.level:g} needs " + str(
                needed(self.level)
            )
        where = f"; most at {card.whole.worst}" if said == "out of family" else ""
        return (
            f"{said}: p = {card.whole.p:.3g} ({rate}){where}; an alarm at p <= {self.level:g} is "
            f"raised for at most {self.level:.0%} of healthy models"
        )

    @property
    def is_out(self) -> bool:
        """Whether the card raises an alarm at the level."""
        card = self.assessment.card
        return card is not None and card.verdict(self.level) == "out of family"

    @property
    def at_loss(self) -> str:
        """One line: whether it is out of the family of models of its size that predict as well."""
        found = self.assessment.at_loss
        if found is None:
            return f"cannot say: {self.assessment.no_loss or self.assessment.impossible}"
        said = "out of family" if found.rank.p <= self.level else "in family"
        return (
            f"{said}: p = {found.rank.p:.3g} (smallest possible {1 / (found.num_models + 1):.3g}); "
            f"furthest {found.rank.worst}, t = {found.t:+.1f}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """The values as rows, for a table."""
        return [_row(line) for line in self.lines]

    def to_json(self) -> str:
        """Everything, as JSON."""
        found, card = self.assessment, self.assessment.card
        return json.dumps(
            {
                "model": self.model,
                "step": self.step,
                "n_params": self.n_params,
                "seconds": round(self.seconds, 1),
                "values": self.rows(),
                "refused": [{**r.at._asdict(), "reason": r.reason} for r in self.refused],
                "left_out": dict(self.left_out),
                "sentences": self.sentences,
                "card": {
                    "series": found.reference.name,
                    "provenance": found.reference.provenance,
                    "verdict": self.verdict,
                    "level": self.level,
                    "p": card and card.whole.p,
                    "least_p": card and card.least_p,
                    "ranked": card and card.ranked,
                    "num_ranked": card and card.num_ranked,
                    "p_beyond_behaviour": found.p_beyond_behaviour,
                    "p_given_loss": found.at_loss and found.at_loss.rank.p,
                    "given_loss": self.at_loss,
                    "families": card and {name: rank.p for name, rank in card.groups.items()},
                    "notes": list(found.notes),
                },
                "parent": self.parent
                and {
                    "name": self.parent,
                    "verdict": self.paired,
                    "changes": [_finite(change) for change in self.changes],
                },
            },
            indent=1,
            allow_nan=False,
        )

    def __repr__(self) -> str:
        families = ", ".join(self.sentences)
        return (
            f"<Inspection of {self.model} ({self.n_params:,} parameters): {len(self.lines)} values "
            f"of {families}; beside {self.assessment.reference.name}: "
            f"{self.verdict.partition(':')[0]}>"
        )

    def _repr_html_(self) -> str:
        from scaleinv_ray.inspection.printing import as_html

        return as_html(self)


def _finite(change: Change) -> dict[str, Any]:
    """As JSON has it: without infinity."""
    return change._asdict() | {"t": change.t if math.isfinite(change.t) else None}


def _row(line: Line) -> dict[str, Any]:
    interval = line.interval
    return {
        "family": line.family,
        **line.at._asdict(),
        "value": line.value.value,
        "stderr": line.value.stderr,
        "untrained": line.untrained and line.untrained.value,
        "untrained_stderr": line.untrained and line.untrained.stderr,
        "z_untrained": line.z_untrained,
        "shuffled": line.shuffled and line.shuffled.value,
        "shuffled_stderr": line.shuffled and line.shuffled.stderr,
        "z_shuffled": line.z_shuffled,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "outside": interval and interval.outside,
        "control": line.control,
    }


def _check_ranges(budget_s: float, level: float) -> None:
    for name, got, most in (("budget", budget_s, 1e6), ("level", level, 0.5)):
        if not 0 < got <= most:
            raise ValueError(f"{name}: got {got:g}, allowed: more than 0, at most {most:g}")


def _settings(
    reference: Reference, probes: Sequence[Any] | None, tokens: str | Path | None
) -> Settings:
    """The series' own, with other probes or ids where they were given."""
    settings = reference.settings
    if probes is not None:
        settings = replace(settings, probes=tuple(probes))
    return settings if tokens is None else on_tokens(settings, tokens)


def inspect(
    model: str | Path | Saved,
    *,
    tokenizer: Saved | None = None,
    against: str | Reference | None = None,
    parent: str | Path | Saved | None = None,
    revision: str | None = None,
    probes: Sequence[Any] | None = None,
    tokens: str | Path | None = None,
    budget_s: float = BUDGET_S,
    level: float = LEVEL,
    plugins: Sequence[str] = (),
    twins: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Inspection:
    """Measures one checkpoint and sets it beside its untrained and shuffled twin and a series.

    It is measured as the series was; what the series has not is measured too, as far as the time
    goes.

    Args:
        model: a folder (of several steps the last), `organisation/name` of the hub, or a model of
            transformers in memory.
        tokenizer: of a model in memory; without one its weights alone are measured.
        against: URI of a run folder or of a table of measurements, or a reference; the packaged
            series of the demo by default.
        parent: the model that it was made of (fine-tuned, rounded, pruned): both are measured, and
            their differences judged pair by pair.
        revision: of a model of the hub.
        probes: instead of the series'; values on them stand beside the twins alone.
        tokens: file of ids (.npy [sequences, length], or .parquet with a column `input_ids`)
            instead of the probes: for a model whose vocabulary has no text.
        budget_s: seconds on one core; what would take longer is left out, and said to be.
        level: rate of false alarms that an alarm may have.
        plugins: files and modules with invariants of one's own, which come first.
        twins: whether the untrained and the shuffled model are measured beside it: the card and
            the parent do without.
        say: is told what is being done.

    Returns:
        What was found.

    Raises:
        ValueError: for a model, a parent or a series that cannot be read or compared, and numbers
            out of range.
    """
    _check_ranges(budget_s, level)
    began = time.perf_counter()
    own = use(plugins)
    reference = _reference(against)
    settings = _settings(reference, probes, tokens)
    with at_hand(model, tokenizer=tokenizer, revision=revision) as source:
        variants = ("trained", *TWINS) if twins else ("trained",)
        # a parent is one model more
        share = 1.0 if parent is None else len(variants) / (len(variants) + 1)
        budget = budget_s * share
        asked = ask(source, settings, budget_s=budget, variants=variants, plugins=own)
        rows = measured(asked, say)
        since = None if parent is None else _since(parent, tokenizer, asked, rows, say)
    lines, refused = lines_of(rows)
    c = asked.plan.units[0].checkpoint
    known = {c.weights_digest} | ({since.weights} if since else set())
    found, lines = _beside_series(lines, reference, asked, known)
    seconds = time.perf_counter() - began
    return Inspection(
        c.model,
        c.step,
        c.n_params,
        tuple(lines),
        tuple(refused),
        asked.left_out,
        found,
        level,
        seconds,
        since and since.parent,
        since.changes if since else (),
    )


def _beside_series(
    lines: list[Line], reference: Reference, asked: Asked, known: set[str]
) -> tuple[Assessment, list[Line]]:
    """The card of the series, and the lines with its intervals where it has any.

    Args:
        known: digests of weights that vouch for nobody: the model's own and its parent's.
    """
    unit = asked.plan.units[0]
    found = assessed(
        lines,
        reference,
        n_params=unit.checkpoint.n_params,
        weights=known,
        tokenizer=asked.plan.tokenizer_of(unit),
        tokens={probe: of.digest for (probe, _), of in asked.plan.tokens.items()},
    )
    return found, lines if found.card is None else with_intervals(lines, found.card)


class _Since(NamedTuple):
    """Name of the parent, digest of its weights, and what has changed since."""

    parent: str
    weights: str
    changes: tuple[Change, ...]


def _since(
    parent: str | Path | Saved,
    tokenizer: Saved | None,
    asked: Asked,
    rows: Sequence[Mapping[str, Any]],
    say: Callable[[str], None],
) -> _Since:
    with at_hand(parent, tokenizer=tokenizer, revision=None, field="parent") as source:
        beside = ask_parent(source, asked)
        say(f"parent {beside.plan.units[0].checkpoint.model}")
        theirs = by_place(measured(beside, say))
    c = beside.plan.units[0].checkpoint
    return _Since(c.model, c.weights_digest, tuple(changes(by_place(rows), theirs)))


def _reference(against: str | Reference | None) -> Reference:
    if against is None:
        return packaged()
    return against if isinstance(against, Reference) else of_series(against)
