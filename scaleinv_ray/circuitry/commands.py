"""What the command line asks of circuits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from transformers.utils.logging import disable_progress_bar

from scaleinv_ray.circuitry.effects.interventions import ABLATIONS, Ablation
from scaleinv_ray.circuitry.effects.measuring import Asked
from scaleinv_ray.circuitry.folders import Drawing, circuits_of
from scaleinv_ray.inputs.paths import check_folder
from scaleinv_ray.inputs.wording import shown


class Request(NamedTuple):
    """Options as typed; see the command's help."""

    model: Path
    probe: str
    metric: str | None
    nodes: str
    ablation: str
    edges: bool
    budget: str | None
    sequences: int
    length: int
    null: bool
    out: Path | None


def command(request: Request, *, as_json: bool) -> Iterator[str]:
    """Measures, writes circuits.json where a folder is named, and says what there is to see.

    Args:
        request: options as typed.
        as_json: one line of JSON instead of a table.

    Yields:
        Lines for the terminal.

    Raises:
        ValueError: for an option out of range, or what cannot be measured.
    """
    if request.ablation not in ABLATIONS:
        raise ValueError(f"ablation: got {shown(request.ablation)}, allowed {ABLATIONS}")
    if request.out is not None:
        check_folder("out", str(request.out))
    asked = Asked(
        metric=request.metric,
        nodes=tuple(request.nodes.split(",")),
        ablation=cast("Ablation", request.ablation),
        edges=request.edges,
        budget=_budget(request.budget),
    )
    disable_progress_bar()  # of loading, in the way of the table
    drawing = Drawing(request.probe, request.sequences, request.length)
    said: list[str] = []
    found = circuits_of(request.model, drawing, asked, untrained=request.null, say=said.append)
    text = json.dumps(found.as_json())
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
        (request.out / "circuits.json").write_text(text + "\n", encoding="utf-8")
    yield from [text] if as_json else [*found.lines(), *said]
    if request.out is not None and not as_json:
        yield f"written: {request.out / 'circuits.json'}"


def _budget(text: str | None) -> float | None:
    """Forwards of `200f`; a clock is no budget, as machines differ."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)f?", text)
    if match is None:
        raise ValueError(f"budget: got {shown(text)}, allowed a number of forwards, as 200f")
    return float(match[1])
