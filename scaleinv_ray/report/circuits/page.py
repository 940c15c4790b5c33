"""One HTML file on the circuits of one model, or of several side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from scaleinv_ray.report.assembly import facts, filled, resource, scripts
from scaleinv_ray.report.circuits.lead import lead
from scaleinv_ray.report.circuits.skeleton import PAGE
from scaleinv_ray.report.pack import as_json

SCRIPTS = (
    "board/core", "circuits/drawing", "circuits/effects", "circuits/graph", "circuits/curves",
    "circuits/analyses", "circuits/texts", "circuits/start",
)  # fmt: skip
"""In the order in which they run; the last starts the page."""


def circuits_page(found: Sequence[Mapping[str, Any]]) -> str:
    """The page; it loads nothing.

    Args:
        found: of each model what `Circuits.as_json` gives; each analysis is drawn where it is
            there, one that was refused is a line with its reason.

    Raises:
        ValueError: without a model.
    """
    if not found:
        raise ValueError("models: got none, allowed one or more")
    names = ", ".join(dict.fromkeys(model["model"] for model in found))
    title = f"Circuits of {names}: {found[0]['probe']}"
    data = {"verdicts": {"rows": 0, "columns": {}}, "meanings": [], "circuits": list(found)}
    parts = {
        "TITLE": html.escape(title),
        "SUMMARY": _summary(found),
        "FACTS": _facts(found),
        "STYLE": resource("board/page.css") + resource("circuits/circuits.css"),
        "DATA": as_json(data),
        "SCRIPT": scripts(SCRIPTS),
    }
    return filled(PAGE, parts)


def _summary(found: Sequence[Mapping[str, Any]]) -> str:
    said = []
    for n, model in enumerate(found):
        sentences = lead(model)[: None if len(found) == 1 else 2]
        first, *others = (html.escape(sentence) for sentence in sentences)
        said.append(f"<p{'' if n else ' class=lead'}>{first}</p>")
        said += [f"<p>{sentence}</p>" for sentence in others]
    return "".join(said)


def _facts(found: Sequence[Mapping[str, Any]]) -> str:
    one = found[0]
    return facts({
        "probe": f"{one['probe']}, {one['sequences']} pairs",
        "metric": one["metric"].replace("_", " "),
        "replaced by": one["ablation"].replace("_", " "),
        "estimator": one["estimator"]["method"],
        "cost": " + ".join(f"{model['forwards']:.0f}" for model in found) + " forwards",
    })
