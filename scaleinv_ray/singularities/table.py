"""Measured learning coefficients of a run beside the dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypedDict

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.matching import Match, match

INVARIANT, QUANTITY = "degeneracy.learning_coefficient", "lambda"
NUM_LABELS = 8
"""Columns at the head of a row that say of which measurement it is."""
SAYS_NOTHING = 0.5
"""Coverage above which nearly any coefficient would match something."""


class MatchRow(TypedDict):
    """Learning coefficients beside the dictionary of known singularities."""

    series: str
    model: str
    seed: int | None
    step: int | None
    variant: str
    probe: str | None
    site: str | None
    layer: int | None
    value: Annotated[float, "learning coefficient"]
    stderr: float | None
    outcome: Annotated[str, "one, several, no match or refused"]
    names: Annotated[list[str], "entries that it allows, most likely first"]
    predicted: Annotated[list[float], "their coefficients"]
    probability: Annotated[list[float], "their probabilities"]
    no_match_probability: Annotated[float | None, "that it is none of the dictionary"]
    coverage: Annotated[float | None, "share of all values that would match something"]
    by_chance: Annotated[
        float | None, "entries that a value up to twice this one matches by chance"
    ]
    reason: str | None


def matches_table(rows: Iterable[Mapping[str, Any]]) -> list[MatchRow]:
    """Every accepted learning coefficient with the entries that it allows, if any.

    The coefficient alone is compared, of any multiplicity: the dictionary holds isolated
    singularities, whose coefficients are of order one, so that of a network with many regular
    directions 'no match' is the usual and right answer.

    Args:
        rows: with the columns of tables.MEASUREMENTS; values with status ok are read.

    Returns:
        Their rows, by model and place.
    """
    out: list[MatchRow] = []
    for row in rows:
        if (row["invariant"], row["quantity"], row["status"]) != (INVARIANT, QUANTITY, "ok"):
            continue
        refused = _refused(row)
        try:
            out.append(_matched(refused, match(row["value"], row["stderr"])))
        except Refused as refusal:
            out.append({**refused, "reason": str(refusal)})
    return sorted(out, key=lambda row: [str(value) for value in row.values()][:NUM_LABELS])


def _refused(row: Mapping[str, Any]) -> MatchRow:
    return {
        "series": row["series"],
        "model": row["model"],
        "seed": row["seed"],
        "step": row["step"],
        "variant": row["variant"],
        "probe": row["probe"],
        "site": row["site"],
        "layer": row["layer"],
        "value": row["value"],
        "stderr": row["stderr"],
        "outcome": "refused",
        "names": [],
        "predicted": [],
        "probability": [],
        "no_match_probability": None,
        "coverage": None,
        "by_chance": None,
        "reason": None,
    }


def _matched(row: MatchRow, found: Match) -> MatchRow:
    reason = None
    if not found.candidates and found.nearest:
        nearest = found.nearest[0]
        reason = f"nearest {nearest.names[0]}, {nearest.llc}, p {nearest.p:.2g}"
    elif found.coverage > SAYS_NOTHING:
        reason = f"{found.coverage:.0%} of all values up to twice this one would match something"
    return {
        **row,
        "outcome": found.outcome.value,
        "names": [", ".join(c.names) for c in found.candidates],
        "predicted": [float(c.llc) for c in found.candidates],
        "probability": [c.probability for c in found.candidates],
        "no_match_probability": found.no_match_probability,
        "coverage": found.coverage,
        "by_chance": found.by_chance,
        "reason": reason,
    }
