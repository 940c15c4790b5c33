"""A verdict's reason in a line; the whole of it stands in the table of verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_LETTERS = 120
_FORMS = {
    "power": "A power law",
    "log": "A logarithm",
    "offset_power": "A power law with an offset",
}


def brief(row: Mapping[str, Any]) -> str:
    """Why the verdict is what it is.

    Args:
        row: of `VerdictRow`.

    Returns:
        At most 120 characters without names of columns or classes; empty where the row has no
        reason.
    """
    if not row["reason"]:
        return ""
    claim = "; refutes the claim" if _is_refuted(row) else ""
    text = _because(row)
    room = MOST_LETTERS - len(claim)
    return (text if len(text) <= room else f"{text[: room - 2].rstrip()} …") + claim


def _is_refuted(row: Mapping[str, Any]) -> bool:
    """Whether the verdict is against what was claimed in advance."""
    if row["law"] == "constant":
        return row["verdict"] in {"scales", "not_conserved"}
    return row["law"] == "power_law" and str(row["verdict"]).startswith("conserved")


def _because(row: Mapping[str, Any]) -> str:
    verdict, whole = str(row["verdict"]), str(row["reason"])
    if not row["n_models"]:
        why = whole.partition("dropped: ")[2] or whole
        return f"No value: {why.partition(' (')[0]}"
    change = _change(row)
    if verdict == "conserved_exact":
        return "All values are equal"
    if verdict.startswith("conserved") and change:
        drift = ", and a slope within them is certain" if verdict == "conserved_drifting" else ""
        return f"Changes of {change} or more are excluded{drift}"
    if verdict == "scales" and row["form"]:
        form = _FORMS.get(row["form"], "A law")
        return f"{form} fits and predicts the largest size from the others"
    if verdict == "not_conserved" and row["heterogeneity_p"] is not None:
        return f"Sizes differ (p = {row['heterogeneity_p']:.2g}) and no law holds"
    few = whole.partition(";")[0]
    if "needs" in few or not change:
        return few[:1].upper() + few[1:]
    return f"Changes up to {change} are not excluded, and none is established"


def _change(row: Mapping[str, Any]) -> str:
    """The change that the seeds do not exclude, as the quantity is judged."""
    change = row["certified_change"]
    if change is None:
        return ""
    return f"{100 * change:.3g} %" if row["unit"] is None else f"{change * row['unit']:.3g}"
