"""One checkpoint in one call: measured, set beside its twins, assessed against a series."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.conclude.assessment.conformal import needed
from scaleinv_ray.inspection.asking import Saved, ask, at_hand, of_tokens, read_tokens
from scaleinv_ray.inspection.findings import (
    Assessment,
    Line,
    Refusal,
    assessed,
    lines_of,
    sentences,
    with_intervals,
)
from scaleinv_ray.inspection.reference import Reference, of_run, packaged
from scaleinv_ray.inspection.working import measured

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
                    "families": card and {name: rank.p for name, rank in card.groups.items()},
                    "notes": list(found.notes),
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


def inspect(
    model: str | Path | Saved,
    *,
    tokenizer: Saved | None = None,
    against: str | Reference | None = None,
    revision: str | None = None,
    probes: Sequence[Any] | None = None,
    tokens: str | np.ndarray | None = None,
    budget_s: float = BUDGET_S,
    level: float = LEVEL,
    say: Callable[[str], None] = lambda text: None,
) -> Inspection:
    """Measures one checkpoint and sets it beside its untrained and shuffled twin and a series.

    It is measured as the series was; what the series has not is measured too, as far as the time
    goes.

    Args:
        model: a folder (of several steps the last), `organisation/name` of the hub, or a model of
            transformers in memory.
        tokenizer: of a model in memory; without one its weights alone are measured.
        against: URI of a run folder, or a reference; the packaged series of the demo by default.
        revision: of a model of the hub.
        probes: instead of the series'; values on them stand beside the twins alone.
        tokens: ids [sequences, length], or a file of them, instead of the probes: for a model whose
            vocabulary has no text.
        budget_s: seconds on one core; what would take longer is left out, and said to be.
        level: rate of false alarms that an alarm may have.
        say: is told what is being done.

    Returns:
        What was found.

    Raises:
        ValueError: for a model or a series that cannot be read, and numbers out of range.
    """
    for name, got, most in (("budget", budget_s, 1e6), ("level", level, 0.5)):
        if not 0 < got <= most:
            raise ValueError(f"{name}: got {got:g}, allowed: more than 0, at most {most:g}")
    began = time.perf_counter()
    reference = _reference(against)
    settings = reference.settings
    if probes is not None:
        settings = replace(settings, probes=tuple(probes))
    tokens_ST = read_tokens(tokens) if isinstance(tokens, str) else tokens
    if tokens_ST is not None:
        settings = of_tokens(settings, tokens_ST)
    with at_hand(model, tokenizer=tokenizer, revision=revision) as source:
        asked = ask(source, settings, budget_s=budget_s, tokens_ST=tokens_ST)
        lines, refused = lines_of(measured(asked, say))
    unit = asked.plan.units[0]
    c = unit.checkpoint
    found = assessed(
        lines,
        reference,
        n_params=c.n_params,
        weights=c.weights_digest,
        tokenizer=asked.plan.tokenizer_of(unit),
    )
    if found.card is not None:
        lines = with_intervals(lines, found.card)
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
    )


def _reference(against: str | Reference | None) -> Reference:
    if against is None:
        return packaged()
    return against if isinstance(against, Reference) else of_run(against)
