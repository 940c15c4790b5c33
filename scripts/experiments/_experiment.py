"""What the experiments share: their folder, their records, the table, the last line."""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch

from scaleinv_ray.checkpoints import write_records_manifest
from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.records import Record
from scaleinv_ray.store import write_records

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an experiment has found.

    Attributes:
        rows: of the table.
        figures: name -> figure, written as HTML.
        summary: of the last line: JSON values; `holds` says whether all is as expected.
    """

    rows: Sequence[Row]
    figures: Mapping[str, go.Figure]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Net:
    """A net whose records are kept.

    Attributes:
        name: of its folder and in the series.
        seed: of its weights.
        num_params: in all.
        num_layers: blocks, or layers.
        width: of the stream, or of the widest layer.
        variant: trained or a null.
    """

    name: str
    seed: int
    num_params: int
    num_layers: int
    width: int
    variant: str = "trained"


def write_net(
    folder: Path,
    net: Net,
    steps: Mapping[int, Sequence[tuple[str, str | None, Sequence[Record]]]],
    *,
    facts: Mapping[int, Mapping[str, float | int | None]] | None = None,
) -> Path:
    """Writes the records of a net at every step, as `{records: folder}` of a config reads them.

    Args:
        folder: of all nets of the experiment.
        net: what the records are of.
        steps: step -> (kind, probe, records).
        facts: step -> train_tokens and eval_loss, where they are known.

    Returns:
        The folder of the net.
    """
    root = folder / net.name
    units = []
    for step, kinds in steps.items():
        captures = []
        for kind, probe, records in kinds:
            file = f"{kind}-{probe or 'all'}-{step}.arrow"
            write_records(root / file, list(records), kind=kind, facts={})
            captures.append({"kind": kind, "probe": probe, "file": file})
        known = {"train_tokens": None, "eval_loss": None} | dict((facts or {}).get(step, {}))
        unit = {"seed": net.seed, "step": step, "variant": net.variant, "captures": captures}
        units.append(unit | known)
    write_records_manifest(
        root, units=units, model=net.name, architecture="experiment", n_params=net.num_params,
        n_layers=net.num_layers, d_model=net.width,
    )  # fmt: skip
    return root


def value(measured: Measured, quantity: str) -> tuple[float | None, float | None]:
    """Value and error of a quantity, None where it is refused or unknown."""
    found = measured.values[quantity]
    return (None, None) if isinstance(found, Refused) else (found.value, found.stderr)


def in_processes(function: Callable[..., Any], arguments: Iterable[tuple], workers: int) -> list:
    """Results of the calls in order, each in a process with one thread.

    Args:
        function: of a module.
        arguments: of every call.
        workers: processes at a time; 1 stays in this one.

    Returns:
        What the calls gave.
    """
    listed = list(arguments)
    if workers == 1:
        return [function(*a) for a in listed]
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        return list(pool.map(function, *zip(*listed, strict=True)))


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns; numbers to four digits, None as a dash."""
    if not rows:
        return "(no rows)"
    names = list(rows[0])
    cells = [names] + [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(content: Any) -> str:
    if content is None:
        return "-"
    return f"{content:.4g}" if isinstance(content, float) else str(content)


def main(name: str, experiment: Callable[[Path, bool, int], Outcome]) -> None:
    """Runs an experiment from the command line; exit status 1 where it is not as expected.

    Args:
        name: of the experiment and its folder.
        experiment: takes a folder, whether to be quick, and the number of processes.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/experiments") / name)
    parser.add_argument("--quick", action="store_true", help="a short check, not the result")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    outcome = experiment(options.out, options.quick, options.workers)
    text = table(outcome.rows)
    (options.out / "table.txt").write_text(text + "\n")
    for title, figure in outcome.figures.items():
        figure.write_html(options.out / f"{title}.html", include_plotlyjs="cdn")
    summary = {"experiment": name, "quick": options.quick, **outcome.summary}
    result = {"summary": summary, "rows": [dict(row) for row in outcome.rows]}
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    print(json.dumps(summary))
    sys.exit(not summary["holds"])
