"""The cost model: calibrated, checked against a finished run, extrapolated in docs/scaling.md.

    python scripts/bench/cost_model.py [--calibrate] [--run runs/demo]

Without a finished run at `--run` say `scaleinv demo` first. Every stage of the run is compared
with what `scaleinv_ray.cost_model.predict` says of its plan: summed seconds of the measuring tasks
and of the captures, bytes of the captures and of the tables. Target: within a factor 1.5 each, on a
machine without other work. The tables of docs/scaling.md are written from the same function. The
last line is one JSON object.
"""

import argparse
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _table import machine, record

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.config import load_run_config
from scaleinv_ray.config.reader import read_mapping
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.cost_model import Cost, calibration, matrices, price
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.plan import Measurement, Plan, Unit, make_plan
from scaleinv_ray.plan.costs import GPU_BYTES, HEADROOM, model_bytes
from scaleinv_ray.plan.units import Reading
from scaleinv_ray.records import Protocol

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scaling.md"
FACTOR = 1.5
PROTOCOL = Protocol(sequences=8192, length=128, position=64)
PROBES = ("prose", "code", "induction")
STEPS = 154
BASE_BYTES = 0.8e9
"""A process that has streamed: libraries, buffers and 300 MB of slack."""


class Size(NamedTuple):
    """A published model."""

    model: str
    n_params: int
    n_layers: int
    d_model: int
    d_mlp: int
    vocabulary: int


PYTHIA = (
    Size("pythia-70m", 70_426_624, 6, 512, 2048, 50304),
    Size("pythia-160m", 162_322_944, 12, 768, 3072, 50304),
    Size("pythia-410m", 405_334_016, 24, 1024, 4096, 50304),
    Size("pythia-1b", 1_011_781_632, 16, 2048, 8192, 50304),
    Size("pythia-1.4b", 1_414_647_808, 24, 2048, 8192, 50304),
    Size("pythia-2.8b", 2_775_208_960, 32, 2560, 10240, 50304),
    Size("pythia-6.9b", 6_857_302_016, 32, 4096, 16384, 50432),
    Size("pythia-12b", 11_846_072_320, 36, 5120, 20480, 50688),
)
LLAMA = (
    Size("llama-7b", 6_738_415_616, 32, 4096, 11008, 32000),
    Size("llama-70b", 68_976_648_192, 80, 8192, 28672, 32000),
)


def checkpoint(size: Size, step: int) -> Checkpoint:
    return Checkpoint(
        model=size.model, seed=0, step=step, architecture="gpt_neox", n_params=size.n_params,
        n_layers=size.n_layers, d_model=size.d_model, d_mlp=size.d_mlp,
        vocab_size=size.vocabulary, max_positions=2048, dtype="float16",
        weights_digest=f"{size.model}@{step}", config_digest=size.model,
    )  # fmt: skip


def plan_of(sizes: Sequence[Size], steps: int, invariants: Sequence[str] | None = None) -> Plan:
    """As `make_plan` of the series, without the files: all steps trained, nulls of the last one."""
    units = [Unit("s", checkpoint(z, k), "trained") for z in sizes for k in range(steps)]
    units += [
        Unit("s", checkpoint(z, steps - 1), variant)
        for z in sizes
        for variant in ("random_init", "shuffled_weights", "shuffled_tokens")
    ]
    wanted = [REGISTRY[n] for n in invariants or REGISTRY if not KINDS[REGISTRY[n].kind].section]
    made = [
        Measurement(f"{unit.id} {spec.name} {probe}", f"{unit.content} {probe} {spec.kind} "
                    f"{unit.variant == 'shuffled_tokens'}", unit, probe, spec.kind, spec.name,
                    json.dumps(dict(spec.parameters)))
        for unit in units
        for spec in wanted
        if spec.signature == "one"
        for probe in ((None,) if KINDS[spec.kind].token_free else PROBES)
        if not (probe is None and unit.variant == "shuffled_tokens")
    ]  # fmt: skip
    return Plan("s", PROTOCOL, tuple(units), tuple(made + _trajectories(units, wanted)), {}, ())


def _trajectories(units: Sequence[Unit], wanted: Sequence[Any]) -> list[Measurement]:
    runs: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        if unit.variant == "trained":
            runs[unit.checkpoint.model].append(unit)
    return [
        Measurement(f"{run[-1].id} {spec.name}", f"{run[-1].id}", run[-1], None, spec.kind,
                    spec.name, json.dumps(dict(spec.parameters)),
                    tuple(Reading(u, u.id) for u in run[:-1]))
        for run in runs.values()
        if len(run) > 1
        for spec in wanted
        if spec.signature == "trajectory"
    ]  # fmt: skip


class Stage(NamedTuple):
    """A stage of a run: predicted and measured."""

    name: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured if self.measured else math.inf


def stages_of(run: Path, predicted: Cost) -> list[Stage]:
    """Predicted and measured sums of a run that began in an empty folder."""
    return [
        *stages_of_events(last_start(run), predicted),
        Stage("bytes of the tables", predicted.stored_bytes, stored(run)),
    ]


def last_start(run: Path) -> list[dict[str, Any]]:
    """The events of the last start in a run's log."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    first = max(i for i, e in enumerate(events) if e["event"] == "started")
    return events[first:]


def stages_of_events(events: Sequence[dict[str, Any]], predicted: Cost) -> list[Stage]:
    """Predicted and measured sums over events, each invariant by itself too."""
    tasks: dict[str, float] = defaultdict(float)
    for event in events:
        if event["event"] == "measured":
            tasks[event["invariant"]] += event["wall_s"]
    captured = [e for e in events if e["event"] == "captured"]
    each = [Stage(line.invariant, line.seconds, tasks[line.invariant]) for line in predicted.lines]
    return [
        *each,
        Stage("task seconds", predicted.task_seconds, sum(tasks.values())),
        Stage("capture seconds", predicted.device_seconds, sum(e["wall_s"] for e in captured)),
        Stage("bytes of captures", predicted.capture_bytes, sum(e["bytes"] for e in captured)),
    ]


def stored(run: Path) -> int:
    folders = ("measurements", "curves", "diagrams")
    return sum(p.stat().st_size for f in folders for p in (run / f).glob("*.parquet"))


def quiet_seconds(events: Sequence[dict[str, Any]]) -> float:
    """Seconds of the tasks, had each been as short as the shortest of its model and invariant."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["event"] == "measured":
            model = event["unit"].split("/")[1].rpartition("-")[0]
            groups[event["invariant"], model].append(event["wall_s"])
    return sum(len(of) * min(of) for of in groups.values())


def check(run: Path) -> tuple[list[Stage], float]:
    """Stages of a finished run; and the undisturbed seconds of its tasks over those it took."""
    os.chdir(run.parents[1])  # paths of its config are relative to where it was started
    plan = make_plan(load_run_config(read_mapping(run / "config.yaml")))
    events = last_start(run)
    stages = stages_of(run, price(plan, plan.measurements))
    took = next(s.measured for s in stages if s.name == "task seconds")
    return stages, quiet_seconds(events) / took


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}" if seconds < 36000 else f"{seconds / 3600:,.0f}"


def size(num_bytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:,.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def one_checkpoint() -> Iterator[list[str]]:
    """A trained checkpoint, all invariants of one model, three probes."""
    for z in (*PYTHIA, *LLAMA):
        whole = plan_of([z], 1)
        mine = [m for m in whole.measurements if m.unit.variant == "trained"]
        on_cpu, on_gpu = (price(whole, mine, device=d) for d in ("cpu", "a100"))
        weights = [line for line in on_cpu.lines if line.kind == "weights"]
        c = checkpoint(z, 0)
        yield [
            z.model, size(model_bytes(c)), size(on_cpu.capture_bytes), size(on_cpu.stored_bytes),
            hours(sum(line.seconds for line in weights)),
            hours(on_cpu.task_seconds - sum(line.seconds for line in weights)),
            hours(on_cpu.device_seconds), hours(on_gpu.device_seconds),
        ]  # fmt: skip


SHOWN = ("weights", "moments", "cloud", "stream", "depth_stack", "attention", "jacobians")


def by_kind() -> Iterator[list[str]]:
    """Core-hours of measuring a checkpoint, by what is read."""
    for z in (*PYTHIA, *LLAMA):
        whole = plan_of([z], 1)
        lines = price(whole, [m for m in whole.measurements if m.unit.variant == "trained"]).lines
        yield [
            z.model, *(hours(sum(of.seconds for of in lines if of.kind == kind)) for kind in SHOWN)
        ]  # fmt: skip


def memory() -> Iterator[list[str]]:
    """What a process needs to capture, and to measure the largest matrix."""
    from scaleinv_ray.measure.ranges import task_bytes

    for z in (*PYTHIA, *LLAMA):
        c = checkpoint(z, 0)
        resident = HEADROOM * model_bytes(c)
        item = model_bytes(c) / c.n_params
        shapes = matrices(c)
        block = sum(math.prod(s) * n for s, n in shapes.items() if z.vocabulary not in s)
        embedding = z.vocabulary * z.d_model * item
        batch = 32 * PROTOCOL.length * (z.d_mlp + 4 * z.d_model) * 4
        streamed = BASE_BYTES + item * block / z.n_layers + embedding + batch
        level = PROTOCOL.sequences * PROTOCOL.length * z.d_model * 4
        yield [
            z.model, size(resident), str(math.ceil(resident / GPU_BYTES)), size(streamed),
            size(2 * level), size((z.n_layers + 1) * level),
            size(max(task_bytes(s, int(item)) for s in shapes)),
        ]  # fmt: skip


def suite(invariants: Sequence[str] | None) -> Iterator[list[str]]:
    """All checkpoints of a suite with the nulls of the last one, three probes."""
    totals = [0.0] * 6
    for z in PYTHIA:
        whole = plan_of([z], STEPS, invariants)
        on_cpu, on_gpu = (price(whole, whole.measurements, device=d) for d in ("cpu", "a100"))
        row = [
            on_cpu.checkpoint_bytes, on_cpu.capture_bytes, on_cpu.stored_bytes,
            on_cpu.task_seconds, on_cpu.device_seconds, on_gpu.device_seconds,
        ]  # fmt: skip
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        yield [z.model, str(len(whole.measurements)), *map(size, row[:3]), *map(hours, row[3:])]
    yield ["in all", "", *map(size, totals[:3]), *map(hours, totals[3:])]


def table(head: str, rows: Iterator[list[str]]) -> str:
    columns = head.split("|")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def demo_invariants() -> list[str]:
    config = dict(read_mapping(ROOT / "scaleinv_ray" / "demo" / "series.yaml"))
    return [n for n in config["invariants"] if REGISTRY[n].signature == "one"]


def write_page(stages: Sequence[Stage], quiet: float) -> None:
    """Writes the tables between their marks."""
    large = "model|weights|captures, three probes|tables|measuring weights, core-h|"
    large += "other measuring, core-h|captures on a core, h|captures on an A100, h"
    series = "model|measurements|read from checkpoints|captures|tables|measuring, core-h|"
    series += "captures on a core, h|captures on A100s, h"
    room = "model|resident|GPUs of 80 GB in one node|streamed|disk for states, two levels|"
    room += "all levels|measuring its largest matrix"
    checked = (
        [s.name, f"{s.predicted:,.3g}", f"{s.measured:,.3g}", f"{s.ratio:.2f}"] for s in stages
    )
    texts = {
        "check": table("stage|predicted|measured|ratio", checked),
        "one checkpoint": table(large, one_checkpoint()),
        "by kind": table(f"model|{'|'.join(SHOWN)}", by_kind()),
        "memory": table(room, memory()),
        "suite": table(series, suite(None)),
        "suite demo": table(series, suite(demo_invariants())),
        "machine": f"{calibration().machine}. The run that was checked took its tasks "
        f"{1 / quiet:.2f} times as long as the shortest of each kind.",
    }
    page = PAGE.read_text()
    for name, text in texts.items():
        held = re.compile(rf"<!-- {name} -->\n.*?<!-- end {name} -->", re.DOTALL)
        assert held.search(page), name
        page = held.sub(lambda _, n=name, t=text: f"<!-- {n} -->\n{t}\n<!-- end {n} -->", page)
    PAGE.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo")
    given = parser.parse_args()
    if given.calibrate:
        from cost_model_calibration import calibrate

        calibrate()
        calibration.cache_clear()
    stages, quiet = check(given.run.resolve())
    sums = [s for s in stages if s.name not in REGISTRY]
    for stage in stages:
        print(f"{stage.name}: predicted {stage.predicted:.4g}, measured {stage.measured:.4g}, "
              f"ratio {stage.ratio:.2f}")  # fmt: skip
    record(
        "cost_model",
        [
            (f"demo: {s.name}, predicted / measured", f"1/{FACTOR} .. {FACTOR}", f"{s.ratio:.2f}")
            for s in sums
        ]
        + [("demo: task seconds undisturbed / as measured", "-", f"{quiet:.2f}")],
    )
    write_page(stages, quiet)
    print(json.dumps({
        "bench": "cost_model", "factor": FACTOR, "undisturbed": round(quiet, 3),
        "ratios": {s.name: round(s.ratio, 3) for s in stages}, **machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
