"""The GPT-2 ladder at widths that want a GPU: trained, captured and measured without Ray.

The first call takes the time of an update at every width and writes plan.json: as many tokens as
fit the time in all, and the widths that see enough of them. Each call goes on for `--minutes`, then
writes what it has and says whether it is to be called again. Seed by seed over all widths, so that
sizes have equally many; checkpoints as `scaleinv train` writes them (`{ladder: OUT/models}`).
Needs torch, transformers and scipy; the last line is JSON, values.json has a row for every value.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

import scaleinv_ray.invariants  # noqa: F401 - fills the registry
from scaleinv_ray.capture.session import Session, Source
from scaleinv_ray.checkpoints.weights.loading import LoadOptions
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.contract import REGISTRY, Refused
from scaleinv_ray.ladder.folders import DivergedError, read_training, step_folder
from scaleinv_ray.ladder.spec import OptimizerSpec, Rung, TrainSpec, rungs
from scaleinv_ray.ladder.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE, encode_bytes
from scaleinv_ray.ladder.train import is_trained, train_run
from scaleinv_ray.probes import build_tokens
from scaleinv_ray.probes.corpus import load_corpus
from scaleinv_ray.records import Protocol, Record

Row = dict[str, Any]
INVARIANTS: Mapping[str, Mapping[str, Any]] = {
    "weights.weight_spikes": {},
    "representation.covariance_decay": {},
    "representation.participation": {},
    "stability.order_chaos": {},
    "holomorphy.resolvent_counts": {"near_radius": 0.1},
}
"""What is measured of weights, moments and Jacobians: none that wants more than scipy."""
SHOWN = ("spikes", "rankme", "exponent", "participation_ratio", "chi", "spectral_radius",
         "count_near_one", "count_near_one_null")  # fmt: skip
WARM = 3
"""Updates before the clock counts: kernels are chosen and compiled in them."""
TRAINING_SHARE = 2 / 3
"""Of the time in all; the rest is for captures, which grow with the cube of the width."""
IN_FLIGHT = 3
"""Checkpoints whose records are held: the widest have fewer layers than a machine has cores."""


@dataclass(frozen=True)
class Design:
    """What the script is asked for.

    Attributes:
        spec: of the ladder; its steps are the most that are made.
        protocol: of the captures.
        least_steps: widths are left out, from the largest, rather than train less.
        total: minutes of all calls.
        timing: seconds for the times of an update.
    """

    spec: TrainSpec
    protocol: Protocol
    least_steps: int = 600
    total: float = 27.0
    timing: float = 60.0


def spec_of(steps: int, **changes: Any) -> TrainSpec:
    """The ladder of the experiment with so many steps."""
    fields = {
        "name": "gpu_ladder", "architecture": "gpt2", "widths": (128, 256, 384, 512, 1024),
        "depth": 6, "head_dim": 64, "seeds": (0, 1, 2, 3), "repeated": 0.5, "batch": 128,
        "length": 128, "dtype": "bfloat16", "steps": steps,
        "checkpoints": tuple(sorted({0, *(max(steps * k // 100, 1) for k in (3, 10, 30, 100))})),
        "optimizer": OptimizerSpec(
            lr=2e-3, schedule="cosine", base_width=128, warmup=min(100, steps // 4)
        ),
    } | changes  # fmt: skip
    return TrainSpec(**fields)


FULL = Design(spec_of(3052), Protocol(sequences=512, jacobian_positions=2))  # 50 million tokens
TINY = Design(
    spec_of(8, widths=(16, 32), depth=2, head_dim=8, seeds=(0, 1), batch=4, length=32),
    Protocol(sequences=96, length=32, position=24, jacobian_positions=2, blocks=4),
    least_steps=4, total=1.0, timing=1.0,
)  # fmt: skip


def update_seconds(design: Design, device: str) -> dict[int, float]:
    """Width -> seconds of an update on the device, the median after `WARM` of them."""
    spec = replace(design.spec, checkpoints=(design.spec.steps,), seeds=(0,))
    each = design.timing / len(spec.widths)
    found: dict[int, float] = {}
    for rung in rungs(spec):
        at: list[float] = []
        end = time.monotonic() + each

        def stop(at: list[float] = at, end: float = end) -> bool:
            return len(at) > WARM + 1 and time.monotonic() > end

        with TemporaryDirectory() as scratch:
            train_run(
                spec, rung, Path(scratch), device=device, stop=stop,
                on_step=lambda *_, at=at: at.append(time.monotonic()),
            )  # fmt: skip
        found[rung.width] = statistics.median(np.diff(at)[WARM:])
    return found


def chosen(design: Design, seconds: Mapping[int, float]) -> tuple[tuple[int, ...], int]:
    """Widths and steps that fit the time of training; the widths from the smallest.

    Args:
        seconds: width -> of an update.

    Returns:
        All widths with the most steps where these fit, else fewer steps, and below `least_steps`
        fewer widths; the two smallest are kept whatever they take.
    """
    widths = design.spec.widths
    budget = 60 * design.total * TRAINING_SHARE / len(design.spec.seeds)
    while True:
        steps = int(budget / sum(seconds[w] for w in widths))
        if steps >= design.least_steps or len(widths) <= 2:
            return widths, min(max(steps, design.least_steps), design.spec.steps)
        widths = widths[:-1]


def planned(design: Design, out: Path, device: str) -> TrainSpec:
    """The ladder as plan.json says; where there is none, it is made and written."""
    file = out / "plan.json"
    if not file.exists():
        seconds = update_seconds(design, device)
        widths, steps = chosen(design, seconds)
        tokens = design.spec.batch * design.spec.length
        plan = {
            "widths": widths,
            "steps": steps,
            "tokens": steps * tokens,
            "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
            "update_seconds": seconds,
            "flops": {w: 6 * 12 * design.spec.depth_at(w) * w**2 * tokens / s
                      for w, s in seconds.items()},
        }  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, plan)
        print(f"plan: {json.dumps(plan)}", flush=True)
    plan = json.loads(file.read_text())
    fitted = spec_of(plan["steps"])
    return replace(
        design.spec, widths=tuple(plan["widths"]), steps=plan["steps"],
        checkpoints=fitted.checkpoints, optimizer=fitted.optimizer,
    )  # fmt: skip


def write_json(file: Path, content: Any) -> None:
    """Whole or not at all."""
    part = file.with_name(f"_part-{file.name}")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(file)


def trained(spec: TrainSpec, models: Path, device: str, late: Callable[[], bool]) -> list[Rung]:
    """Trains what is missing until it is late; the runs that are at their end."""
    done = []
    for rung in sorted(rungs(spec), key=lambda r: (r.seed, r.width)):
        folder = models / rung.name
        if not is_trained(folder, spec) and late():
            continue
        try:
            train_run(spec, rung, models, device=device, stop=late)
        except DivergedError as error:
            print(f"{rung.name}: {error}", flush=True)
            continue
        if is_trained(folder, spec):
            done.append(rung)
    return done


def probe_tokens(spec: TrainSpec, protocol: Protocol) -> np.ndarray:
    """Held-out prose as the bytes that the models read."""
    return build_tokens(
        "prose", lambda text: encode_bytes(text).tolist(), sequences=protocol.sequences,
        length=protocol.length, vocab_size=VOCAB_SIZE, corpus=load_corpus(spec.corpus),
        rng=np.random.default_rng(0), special_ids=(END_OF_TEXT_ID,),
    )  # fmt: skip


def records_of(
    folder: Path, tokens_ST: np.ndarray, protocol: Protocol, device: str
) -> Iterator[tuple[str, Record]]:
    """Kind and record of everything captured of a checkpoint."""
    yield from (("weights", matrix) for matrix in iter_weights(folder))
    session = Session.open(Source(folder, options=LoadOptions(device_map=device)))
    kinds = frozenset({"moments", "jacobians"})
    labels = {"probe": "prose"}
    found = session.records(tokens_ST, protocol, kinds=kinds, batch_size=64, labels=labels)
    yield from ((kind, record) for kind, records in found.items() for record in records)


def values_of(name: str, record: Record) -> list[Row]:
    """A row for every quantity of an invariant of a record; a refusal says why."""
    rng = np.random.default_rng(0)
    where = {"invariant": name, "site": record.site, "layer": record.layer, "role": record.role}
    try:
        measured = REGISTRY[name].function(record, rng=rng, **INVARIANTS[name]).values
    except Refused as reason:
        measured = dict.fromkeys(REGISTRY[name].quantities, reason)
    return [
        where | {"quantity": quantity}
        | ({"refused": str(of)} if isinstance(of, Refused)
           else {"value": of.value, "stderr": of.stderr})
        for quantity, of in measured.items()
    ]  # fmt: skip


def begun(
    folder: Path, tokens_ST: np.ndarray, protocol: Protocol, device: str, pool: ProcessPoolExecutor
) -> list[Future[list[Row]]]:
    """Captures a checkpoint and hands its records to the pool."""
    return [
        pool.submit(values_of, name, record)
        for kind, record in records_of(folder, tokens_ST, protocol, device)
        for name in INVARIANTS
        if REGISTRY[name].kind == kind
    ]


def unmeasured(spec: TrainSpec, out: Path) -> deque[tuple[Path, Path]]:
    """First and last checkpoint of finished runs that have no values, and the files for these."""
    done = [rung for rung in rungs(spec) if is_trained(out / "models" / rung.name, spec)]
    found: deque[tuple[Path, Path]] = deque()
    for rung in sorted(done, key=lambda r: (r.seed, r.width)):
        for step in (0, spec.steps):
            file = out / "measured" / f"{rung.name}-step-{step:06d}.json"
            if not file.exists():
                found.append((step_folder(out / "models" / rung.name, step), file))
    return found


def measure_all(
    design: Design, spec: TrainSpec, out: Path, device: str, late: Callable[[], bool], workers: int
) -> bool:
    """Measures what is trained until it is late; whether nothing is left."""
    missing = unmeasured(spec, out)
    if not missing or late():
        return not missing
    (out / "measured").mkdir(exist_ok=True)
    tokens_ST = probe_tokens(spec, design.protocol)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes: there are as many as cores
    running: deque[tuple[Path, Path, list[Future[list[Row]]]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while (missing or running) and not late():
            if missing and len(running) < IN_FLIGHT:
                folder, file = missing.popleft()
                running.append((
                    folder,
                    file,
                    begun(folder, tokens_ST, design.protocol, device, pool),
                ))
                continue
            folder, file, waiting = running.popleft()
            training = read_training(folder) or {}
            known = {k: training[k] for k in ("width", "depth", "seed", "step", "eval_loss")}
            write_json(file, [known | row for one in waiting for row in one.result()])
            print(f"measured {folder.parent.name} {folder.name}", flush=True)
        pool.shutdown(cancel_futures=True)
    return not unmeasured(spec, out)


def table(rows: list[Row]) -> str:
    """Mean over layers, then over seeds, with the error over seeds, by quantity, step and width."""
    by_seed: dict[tuple[str, int, int, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["quantity"] in SHOWN and "value" in row:
            by_seed[row["quantity"], row["step"], row["width"], row["seed"]].append(row["value"])
    of: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for (quantity, step, width, _), values in by_seed.items():
        of[quantity, step, width].append(statistics.fmean(values))
    widths = sorted({width for _, _, width in of})
    lines = [f"{'quantity':22}{'step':>7}" + "".join(f"{f'd{w}':>18}" for w in widths)]
    for quantity, step in sorted({key[:2] for key in of}):
        cells = [_cell(of.get((quantity, step, width), [])) for width in widths]
        lines.append(f"{quantity:22}{step:>7}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _cell(seeds: list[float]) -> str:
    if not seeds:
        return "-"
    error = statistics.stdev(seeds) / math.sqrt(len(seeds)) if len(seeds) > 1 else None
    return f"{statistics.fmean(seeds):.4g}" + (f" +- {error:.1g}" if error is not None else "")


def main() -> None:
    """Trains and measures until the time of the call is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_ladder"))
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--device", default="cuda:0", help="as torch names it")
    parser.add_argument("--tiny", action="store_true", help="a check of the script, no result")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="that measure")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device: got {options.device}, torch sees no GPU; allowed: cpu")
    logging.disable_progress_bar()
    start = time.monotonic()

    def late(share: float = 1.0) -> bool:
        return time.monotonic() - start > 60 * options.minutes * share

    design = TINY if options.tiny else FULL
    spec, out = planned(design, options.out, options.device), options.out
    done = trained(spec, out / "models", options.device, late)
    # what is at work then is waited for
    soon = partial(late, 0.9)
    complete = measure_all(design, spec, out, options.device, soon, options.workers)
    files = sorted((out / "measured").glob("*.json"))
    rows = [row for file in files if file.name[0] != "_" for row in json.loads(file.read_text())]
    write_json(out / "values.json", rows)
    print(table(rows))
    finished = len(done) == len(rungs(spec)) and complete
    print("finished" if finished else "not finished: call again with the same --out")
    print(json.dumps({
        "experiment": "gpu_ladder", "tiny": options.tiny, "finished": finished,
        "runs": len(done), "of": len(rungs(spec)), "values": len(rows),
        "protocol": asdict(design.protocol), "plan": json.loads((out / "plan.json").read_text()),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
