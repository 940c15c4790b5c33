"""What the controls share: folders of records of small nets, the run over them, the comparison."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import scaleinv_ray
from scaleinv_ray import tables
from scaleinv_ray.checkpoints import write_records_manifest
from scaleinv_ray.records import Record
from scaleinv_ray.store import write_records

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Check:
    """One figure of a control.

    Attributes:
        what: it is.
        found: measured.
        low: least value expected.
        high: largest value expected.
    """

    what: str
    found: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the figure lies where it was expected."""
        return self.low <= self.found <= self.high


def write_net(
    folder: Path,
    *,
    width: int,
    seed: int,
    num_params: int,
    num_layers: int,
    kind: str,
    steps: Mapping[int, Sequence[Record]],
) -> dict[str, str]:
    """Writes the records of one net at every step, with the manifest.

    Args:
        folder: of all nets of the control.
        width: of the net.
        seed: of its weights.
        num_params: x axis of the verdicts.
        num_layers: of the net.
        kind: of the records.
        steps: step -> records, the same places at every step.

    Returns:
        The entry under `models` of a config.
    """
    root = folder / f"d{width}-s{seed}"
    units = []
    for step, records in steps.items():
        name = f"{kind}-{step}.arrow"
        write_records(root / name, list(records), kind=kind, facts={})
        capture = {"kind": kind, "probe": None, "file": name}
        units.append({
            "seed": seed, "step": step, "variant": "trained", "train_tokens": None,
            "eval_loss": None, "captures": [capture],
        })  # fmt: skip
    write_records_manifest(
        root, units=units, model=root.name, architecture="control", n_params=num_params,
        n_layers=num_layers, d_model=width,
    )  # fmt: skip
    return {"records": str(root)}


def measure(
    name: str, models: Iterable[Mapping[str, str]], invariant: str, out: Path
) -> tuple[Rows, Rows]:
    """Plans, measures and judges, as any run does.

    Args:
        name: of the series.
        models: entries of `write_net`.
        invariant: the one that is measured.
        out: run folder.

    Returns:
        Rows of measurements and of verdicts.
    """
    config = {
        "name": name, "models": list(models), "variants": ["trained"], "invariants": [invariant],
        "out": str(out),
    }  # fmt: skip
    run = scaleinv_ray.run(config)
    rows = tables.decode(run.measurements)
    broken = [r["error"] for r in rows if r["status"] == "failed"]
    if broken:
        raise RuntimeError(f"{name}: {len(broken)} rows failed, the first with: {broken[0]}")
    return rows, tables.decode(run.verdicts)


def values(rows: Rows, quantity: str, **where: Any) -> list[float]:
    """Values of a quantity in the rows that agree with `where`, in the order of the rows."""
    found = [
        r["value"]
        for r in rows
        if r["quantity"] == quantity and all(r[k] == v for k, v in where.items())
    ]
    if not found or None in found:
        raise RuntimeError(f"{quantity} at {where}: got {found}, a row was refused or is absent")
    return found


def verdict(verdicts: Rows, quantity: str, site: str) -> str:
    """The verdict on a quantity at a site over all depths, at equal steps."""
    (row,) = [
        v
        for v in verdicts
        if (v["quantity"], v["site"], v["depth_bin"]) == (quantity, site, "all")
        and v["comparison"] == "equal_steps"
    ]
    return str(row["verdict"])


def main(name: str, control: Callable[[Path, bool], list[Check]]) -> None:
    """Runs a control from the command line; exit status 1 where a figure is not as expected.

    Args:
        name: printed as title.
        control: takes a folder and whether to be quick; returns its figures.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--out", type=Path, help="keeps records and run there")
    parser.add_argument("--quick", action="store_true", help="fewer widths, seeds and steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        checks = control(options.out or Path(scratch), options.quick)
    print(f"{name}\n{'':2}{'figure':58}{'expected':>19}  {'found':>9}")
    for check in checks:
        span = f"{check.low:.4g} .. {check.high:.4g}"
        mark = "" if check.holds else "  NOT AS EXPECTED"
        print(f"{'':2}{check.what:58}{span:>19}  {check.found:9.4g}{mark}")
    sys.exit(not all(check.holds for check in checks))
