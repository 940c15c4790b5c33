"""What the command line asks of circuits."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from scaleinv_ray.circuitry.analysed import named
from scaleinv_ray.circuitry.effects.interventions import ABLATIONS, Ablation
from scaleinv_ray.circuitry.effects.measuring import Asked, Watch
from scaleinv_ray.circuitry.folders import Drawing, circuits_of, existing
from scaleinv_ray.circuitry.same_heads import same_heads
from scaleinv_ray.circuitry.summary import Circuits
from scaleinv_ray.circuitry.writing import written
from scaleinv_ray.inputs.paths import absolute, check_writable
from scaleinv_ray.inputs.wording import clipped, nearest, shown
from scaleinv_ray.protocols import NODES


class Request(NamedTuple):
    """Options as typed; see the command's help."""

    models: list[Path]
    probe: str
    metric: str | None
    nodes: str
    ablation: str
    edges: bool
    budget: str | None
    sequences: int
    length: int
    null: bool
    analyses: str
    step: int | None
    steps: int | None
    out: str | None


def command(request: Request, *, as_json: bool) -> Iterator[str]:
    """Measures, writes data and page where a folder is named, and says what there is to see.

    Args:
        request: options as typed.
        as_json: one line of JSON instead of a table; of several models a list.

    Yields:
        Lines for the terminal.

    Raises:
        ValueError: for an option out of range, or what cannot be measured.
    """
    if request.ablation not in ABLATIONS:
        got = f"{shown(request.ablation)}{nearest(request.ablation, ABLATIONS)}"
        raise ValueError(f"ablation: got {got}, allowed {', '.join(ABLATIONS)}")
    models, names = _told_apart(request.models), _analyses(request)
    asked = Asked(
        metric=request.metric,
        nodes=_nodes(request.nodes),
        ablation=cast("Ablation", request.ablation),
        edges=request.edges,
        budget=_budget(request.budget),
    )
    disable_progress_bar()  # of loading, in the way of the table
    drawing = Drawing(request.probe, request.sequences, request.length)
    measured = []
    for model in models:
        circuits, said = _measured(model, request, drawing, asked, names, quiet=as_json)
        if apart := models[model]:
            circuits = replace(circuits, name=apart)
        measured.append(circuits)
        yield from [] if as_json else [*circuits.lines(), *said, ""]
    found = [circuits.as_json() for circuits in measured]
    with progress("matching heads", quiet=as_json or len(models) < 2):
        matched = same_heads(list(models), measured, drawing, untrained=request.null)
    if matched:
        found[0]["matched"] = [heads.as_json() for heads in matched]
    for heads in matched:
        yield from [] if as_json else [*heads.lines(), ""]
    if as_json:
        yield json.dumps(found[0] if len(found) == 1 else found, allow_nan=False)
    if request.out is not None:
        files = [f"written: {file}" for file in written(Path(absolute(request.out)), found)]
        yield from [] if as_json else files


def _analyses(request: Request) -> tuple[str, ...]:
    names = named(request.analyses)
    if request.out is None:
        return names
    check_writable("out", request.out)
    return tuple(dict.fromkeys(("positions", *names)))  # a part of every page


def _nodes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(NODES) or len(set(names)) < len(names):
        raise ValueError(
            f"nodes: got {shown(text)}, allowed one or more of {', '.join(NODES)}, each once, with "
            "commas between"
        )
    return names


def _told_apart(models: list[Path]) -> dict[Path, str]:
    """Models, each with the end of its path that no other one has; empty where its name will do.

    Raises:
        ValueError: for one that is named twice, or is not there.
    """
    whole = [existing(model).absolute().resolve() for model in models]
    twice = [str(m) for m, path in zip(models, whole, strict=True) if whole.count(path) > 1]
    if twice:
        raise ValueError(f"models: got {shown(twice[0])} more than once, allowed: each once")
    return dict(zip(models, (_end(path, whole) for path in whole), strict=True))


def _end(path: Path, of: list[Path]) -> str:
    def ends(many: int) -> list[tuple[str, ...]]:
        return [other.parts[-many:] for other in of]

    many = next(n for n in range(1, 1 + len(path.parts)) if ends(n).count(path.parts[-n:]) == 1)
    return "" if many == 1 else "/".join(path.parts[-many:])


def _measured(
    model: Path, request: Request, drawing: Drawing, asked: Asked, names: tuple[str, ...], *,
    quiet: bool,
) -> tuple[Circuits, list[str]]:  # fmt: skip
    said: list[str] = []
    try:
        with progress(model.name, quiet=quiet) as watch:
            circuits = circuits_of(
                model, drawing, asked, untrained=request.null, analyses=names, step=request.step,
                steps=request.steps, say=said.append, watch=watch,
            )  # fmt: skip
    except ValueError as error:
        if len(request.models) == 1:
            raise
        raise ValueError(f"{clipped(model, 60)}: {error}") from error
    return circuits, said


@contextmanager
def progress(name: str, *, quiet: bool) -> Generator[Watch]:
    """A line on stderr that says how far it is, gone when all is done; none where no one looks.

    Args:
        name: at its beginning.
        quiet: never one.
    """
    disabled = True if quiet else None  # None: where stderr is no terminal
    form = "{desc} [{elapsed}]"
    with tqdm(desc=name, bar_format=form, leave=False, disable=disabled, mininterval=0.5) as bar:
        doing_now = ""

        def watch(doing: str, forwards: float) -> None:
            nonlocal doing_now
            ran = f", {forwards:.0f} forwards" if forwards else ""
            bar.set_description_str(f"{name}: {doing}{ran}", refresh=doing != doing_now)
            doing_now = doing
            bar.update()

        yield watch


def _budget(text: str | None) -> float | None:
    """Forwards of `200f`; a clock is no budget, as machines differ."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)f?", text)
    if match is None:
        raise ValueError(f"budget: got {shown(text)}, allowed a number of forwards, as 200f")
    return float(match[1])
