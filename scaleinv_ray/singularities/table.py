"""Measured learning coefficients of a run beside the dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.matching import Match, match

INVARIANT, QUANTITY = "degeneracy.learning_coefficient", "lambda"
LABELS = ("series", "model", "seed", "step", "variant", "probe", "site", "layer")
SAYS_NOTHING = 0.5
"""Coverage above which nearly any coefficient would match something."""


def matches_table(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every accepted learning coefficient with the entries that it allows, if any.

    The coefficient alone is compared, of any multiplicity: the dictionary holds isolated
    singularities, whose coefficients are of order one, so that of a network with many regular
    directions 'no match' is the usual and right answer.

    Args:
        rows: with the columns of tables.MEASUREMENTS; values with status ok are read.

    Returns:
        Rows of tables.MATCHES: outcome (one, several, no match, refused), names of the candidates
        kept with what they predict and their probabilities (most likely first), and a reason.
    """
    out = []
    for row in rows:
        if (row["invariant"], row["quantity"], row["status"]) != (INVARIANT, QUANTITY, "ok"):
            continue
        label = {name: row[name] for name in LABELS}
        found: Match | Refused
        try:
            found = match(row["value"], row["stderr"])
        except Refused as refusal:
            found = refusal
        out.append(label | {"value": row["value"], "stderr": row["stderr"]} | _outcome(found))
    return sorted(out, key=lambda r: tuple(str(r[name]) for name in LABELS))


def _outcome(found: Match | Refused) -> dict[str, Any]:
    if isinstance(found, Refused):
        nothing: dict[str, list[Any]] = {"names": [], "predicted": [], "probability": []}
        numbers = {"no_match_probability": None, "coverage": None}
        return {"outcome": "refused", **nothing, **numbers, "reason": str(found)}
    reason = None
    if not found.candidates and found.nearest:
        nearest = found.nearest[0]
        reason = f"nearest {nearest.names[0]}, {nearest.llc}, p {nearest.p:.2g}"
    elif found.coverage > SAYS_NOTHING:
        reason = f"{found.coverage:.0%} of all values up to twice this one would match something"
    return {
        "outcome": found.outcome.value,
        "names": [", ".join(c.names) for c in found.candidates],
        "predicted": [float(c.llc) for c in found.candidates],
        "probability": [c.probability for c in found.candidates],
        "no_match_probability": found.no_match_probability,
        "coverage": found.coverage,
        "reason": reason,
    }
