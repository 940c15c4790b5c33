"""Measures the constants of `scaleinv_ray/cost_model/constants.yaml` on this machine.

Models of two widths are captured once; every invariant is timed on both captures (the shortest of
their records: what is longer was disturbed), and once more for each count among its parameters,
doubled. `scripts/bench/cost_model.py --calibrate` calls this.
"""

import dataclasses
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _table import machine

import scaleinv_ray.invariants
from scaleinv_ray import tables
from scaleinv_ray.config.reader import write_yaml
from scaleinv_ray.contract import REGISTRY, Invariant, Refused
from scaleinv_ray.cost_model import matrix_work
from scaleinv_ray.kinds import KINDS, one_pass_kinds
from scaleinv_ray.measure.measuring import MeasuredRows, rows_of, write_measurement
from scaleinv_ray.plan.jobs import MeasureJob
from scaleinv_ray.records import MaskedLosses, Protocol, Record, WeightMatrix, num_masked
from scaleinv_ray.store import Store, read_records, write_records

assert scaleinv_ray.invariants
TABLE = Path(scaleinv_ray.__file__).parent / "cost_model" / "constants.yaml"
WIDTHS, LAYERS, VOCABULARY = (64, 256), 3, 257
SIDES = {64: 64, 256: 1024}
"""Smaller side of the weight matrix that stands beside the captures of a width; larger: 4 times."""
LONG_S = 2.0
"""Seconds after which one look at an invariant is enough."""
PROTOCOL = Protocol(
    sequences=1024, length=72, position=64, jacobian_positions=4, stream_units=128, vocab_rows=16
)
CAPS = {
    "num_points": 200, "num_subsamples": 4, "num_landmarks": 60, "num_sizes": 3,
    "num_shuffles": 4,
}  # fmt: skip
"""Reference values of counts whose defaults take long."""
MORE = {
    "geometry.neighbour_dimension": {"num_points": 440, "max_neighbour_order": 32},
    "topology.merge_tree": {"num_points": 256},
}
Clock = Callable[[], float]
LABELS: dict[str, Any] = {
    "run_id": "c", "unit": "c", "unit_b": None, "series": "c", "model": "m",
    "architecture": "gpt_neox", "n_params": 1, "n_layers": LAYERS, "d_model": 8, "seed": 0,
    "step": 0, "train_tokens": None, "eval_loss": None, "variant": "trained", "probe": "prose",
    "probe_tokens": 0, "protocol": "p", "weights_digest": "w", "code_version": "c",
}  # fmt: skip
BIG = 1024
"""Width at which products decide how long a pass takes."""
LOAD = 1e9
"""Bytes of weights a second from a disk or a network, assumed: local files were in memory."""
ASSUMED = {
    name: {
        "flops": flops,
        "values": values,
        "backward": flops / 2,
        "call_s": 5e-3,
        "load": LOAD,
        "measured": False,
    }
    for name, flops, values in (("a100", 1.2e14, 1e10), ("h100", 4.0e14, 1.6e10))
}


def shortest(
    work: Callable[[], object], repeats: int = 3, clock: Clock = time.process_time
) -> float:
    """Seconds of the shortest of some calls; of the processor, so that other work disturbs less."""
    found = []
    for _ in range(repeats):
        start = clock()
        work()
        found.append(clock() - start)
    return min(found)


def save_model(folder: Path, width: int, layers: int) -> Path:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // 16, intermediate_size=4 * width, max_position_embeddings=128,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


def capture_constants(root: Path) -> tuple[dict[str, Any], dict[str, float], dict[int, Path]]:
    """Device, constants, and a folder of captures for each width."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    tokens_ST = rng.integers(VOCABULARY, size=(PROTOCOL.sequences, PROTOCOL.length), dtype=np.int32)
    folders = {width: root / f"c{width}" for width in WIDTHS}
    forward, jacobian = {}, {}
    for width, folder in folders.items():
        model = save_model(root / f"m{width}", width, LAYERS)
        forward[width], jacobian[width] = captured(model, tokens_ST, folder)
        side = SIDES[width]
        weights = WeightMatrix(w_OI=rng.normal(size=(4 * side, side)), layer=0, num_layers=LAYERS)
        write_records(folder / "weights.arrow", [weights, weights], kind="weights", facts={})
        write_records(folder / "masked_losses.arrow", [masked(rng)], kind="masked_losses", facts={})
    device = device_of(forward, jacobian, *wide_forward(root, tokens_ST[:32]))
    constants = {**build_seconds(root), **write_seconds(root, rng), "start_s": 8.0}
    print(f"forward {forward}, jacobians {jacobian}", device, constants, flush=True)
    return device, constants, folders


def masked(rng: np.random.Generator) -> MaskedLosses:
    """Losses of an encoder: what is done with them depends on their number alone."""
    shape = PROTOCOL.sequences, num_masked(PROTOCOL.length)
    position_SM = np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))
    return MaskedLosses(
        loss_SM=rng.gamma(2.0, size=shape).astype(np.float32), position_SM=position_SM,
        num_layers=LAYERS,
    )  # fmt: skip


def captured(model: Path, tokens_ST: np.ndarray, folder: Path) -> tuple[float, float]:
    """Writes all captures of a model; seconds of a forward pass and of its Jacobians."""
    from scaleinv_ray.capture.session import Session, Source

    session = Session.open(Source(model))

    def records(kinds: frozenset[str]) -> dict[str, list[Record]]:
        return session.records(tokens_ST, PROTOCOL, kinds=kinds, batch_size=64)

    passed = frozenset({"cloud", "stream", "token_losses"})
    forward = shortest(lambda: records(passed), 2)
    jacobian = shortest(lambda: records(frozenset({"jacobians"})), 2)
    for kinds in (one_pass_kinds(), frozenset({"jacobians"}), frozenset({"attention"})):
        for kind, found in records(kinds).items():
            write_records(folder / f"{kind}.arrow", found, kind=kind, facts={})
    return forward, jacobian


def wide_forward(root: Path, tokens_ST: np.ndarray) -> tuple[float, int]:
    """Seconds of a forward pass at the width where products decide, and its tokens."""
    from scaleinv_ray.capture.session import Session, Source

    session = Session.open(Source(save_model(root / "big", BIG, LAYERS)))
    few = Protocol(**{**dataclasses.asdict(PROTOCOL), "sequences": len(tokens_ST)})
    took = shortest(
        lambda: session.records(tokens_ST, few, kinds=frozenset({"cloud"}), batch_size=32), 2
    )
    return took, len(tokens_ST) * PROTOCOL.length


def device_of(
    forward: Mapping[int, float], jacobian: Mapping[int, float], wide_s: float, wide_tokens: int
) -> dict[str, Any]:
    """Speeds of this machine's core, from passes of several widths."""
    rows = []
    for width in (WIDTHS[0], BIG):  # seconds of a token: 2 N / flops + L D / values
        n_params = LAYERS * 12 * width**2 + 2 * VOCABULARY * width
        rows.append([2.0 * n_params, float(LAYERS * width)])
    each = [forward[WIDTHS[0]] / (PROTOCOL.sequences * PROTOCOL.length), wide_s / wide_tokens]
    per_flop, per_value = np.linalg.solve(np.array(rows), np.array(each))
    positions = LAYERS * PROTOCOL.jacobian_positions
    low, high = (jacobian[w] / positions for w in WIDTHS)
    per_backward = (high - low) / (48.0 * (WIDTHS[1] ** 3 - WIDTHS[0] ** 3))
    call_s = low - 48 * WIDTHS[0] ** 3 * per_backward
    return {
        "flops": 1 / per_flop, "values": 1 / per_value, "backward": 1 / per_backward,
        "call_s": max(call_s, 1e-3), "load": LOAD, "measured": True,
    }  # fmt: skip


def build_seconds(root: Path) -> dict[str, float]:
    """Seconds to build a model, and for each of its layers."""
    from scaleinv_ray.capture.session import Session, Source

    opened = {}
    for size in (2, 8):
        folder = save_model(root / f"o{size}", 64, size)
        opened[size] = shortest(lambda at=folder: Session.open(Source(at)))
    layer_s = max((opened[8] - opened[2]) / 6, 0.0)
    return {"build_s": opened[2] - 2 * layer_s, "build_layer_s": layer_s}


def write_seconds(root: Path, rng: np.random.Generator) -> dict[str, float]:
    """Seconds to write a file, and bytes written a second."""
    block = [WeightMatrix(w_OI=rng.normal(size=(1024, 8192)))]
    small = [WeightMatrix(w_OI=np.ones((8, 8)))]

    def written(records: list[WeightMatrix]) -> None:
        write_records(root / "w.arrow", records, kind="weights", facts={})

    file_s = shortest(lambda: written(small), 9, time.perf_counter)
    wrote = shortest(lambda: written(block), 5, time.perf_counter)
    return {"file_s": file_s, "write_bytes_s": 8 * 1024 * 8192 / max(wrote - file_s, 1e-3)}


def job_of(spec: Invariant, params: Mapping[str, Any], folder: Path) -> MeasureJob:
    path = str(folder / f"{spec.kind}.arrow")
    more = {"one": (), "pair": (path,), "trajectory": (path,)}[spec.signature]
    return MeasureJob("k", spec.name, json.dumps(params), 0, path, LABELS, more=more)


def seconds_of(spec: Invariant, params: Mapping[str, Any], folder: Path) -> float:
    """Shortest of the records; ValueError where an invariant cannot be had of them."""
    records, found = read_records(folder / f"{spec.kind}.arrow"), []
    reason = "no record"
    for record in records[:-4:-1]:  # the deepest: all rows of the embedding are a few tokens
        steps = 2 if spec.signature == "trajectory" else 1
        arguments = {"one": (record,), "pair": (record, record), "trajectory": ([record] * 2,)}
        rng = np.random.default_rng(0)
        start = time.process_time()
        try:
            spec.function(*arguments[spec.signature], rng=rng, **params)
        except Refused as refused:
            reason = str(refused)
            continue
        found.append((time.process_time() - start) / steps)
        if sum(found) > LONG_S:
            break
    if not found:
        raise ValueError(f"{spec.name} {dict(params)}: {reason}")
    return min(found)


def law_of(spec: Invariant, folders: Mapping[int, Path], root: Path) -> dict[str, Any]:
    """Floor, slope and the exponents of counts."""
    params = dict(spec.parameters)
    params |= {k: min(v, params[k]) for k, v in CAPS.items() if k in params}
    params |= MORE.get(spec.name, {})
    narrow, wide = WIDTHS
    low = seconds_of(spec, params, folders[narrow])
    high = seconds_of(spec, params, folders[wide])
    works = {
        w: matrix_work((4 * SIDES[w], SIDES[w]))
        if KINDS[spec.kind].token_free
        else KINDS[spec.kind].work(w, LAYERS, PROTOCOL)
        for w in WIDTHS
    }
    slope = max(high - low, 0.0) / ((works[wide] - works[narrow]) or math.inf)
    floor = low - slope * works[narrow]
    if floor < 0:
        floor, slope = 0.0, high / works[wide]
    if slope == 0:
        floor = min(low, high)
    exponents = {}
    for name, value in counts(params):
        try:
            took = seconds_of(spec, params | {name: 2 * value}, folders[narrow])
        except ValueError as error:
            print(f"  {name} not doubled: {error}", flush=True)
            continue
        exponents[name] = [value, round(max(math.log2(took / low), 0.0), 2)]
    stored = stored_bytes(rows_of(job_of(spec, params, folders[narrow])), root)
    print(f"{spec.name}: {low:.4f} {high:.4f} s, {exponents}, {stored:.0f} B", flush=True)
    return {"floor": float(f"{floor:.3g}"), "slope": float(f"{slope:.3g}"),
            "stored": round(stored), "params": exponents}  # fmt: skip


def counts(params: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in params.items():
        if name.startswith("num_") and isinstance(value, int) and value > 1:
            yield name, value


def stored_bytes(found: MeasuredRows, root: Path) -> float:
    """Bytes of a record's tables, headers not counted: of many records less those of few."""
    sizes, records = [], len({(r["layer"], r["head"], r["role"]) for r in found.values})
    for times in (32, 160):
        many = MeasuredRows(
            *([other(row, 1 + 0.01 * i) for i in range(times) for row in of] for of in found)
        )
        store = Store(root / "stored")
        write_measurement(store, "k", *many)
        folders = ("measurements", "curves", "diagrams")
        names = [f"{folder}/{name}" for folder in folders for name in store.names(folder)]
        sizes.append(sum(len(store.read_bytes(name)) for name in names))
        for folder in folders:
            store.delete(f"{folder}/k.parquet")
    return (sizes[1] - sizes[0]) / (128 * max(records, 1))


def other(value: Any, factor: float) -> Any:
    """The same with other numbers, as of another model; grids and counts stay."""
    if isinstance(value, dict):
        return {k: v if k == "x" else other(v, factor) for k, v in value.items()}
    if isinstance(value, list):
        return [other(v, factor) for v in value]
    if isinstance(value, float):
        return value if (20 * value).is_integer() else value * factor
    if isinstance(value, str) and re.fullmatch(r"-?\d*\.\d+(e-?\d+)?", value):
        return str(float(value) * factor)
    return value


def calibrate() -> None:
    """Measures everything and writes the table."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        device, constants, folders = capture_constants(root)
        laws = {}
        for spec in REGISTRY.values():
            if KINDS[spec.kind].section:
                continue
            try:
                laws[spec.name] = law_of(spec, folders, root)
            except (ValueError, OSError) as error:
                print(f"{spec.name}: left out ({error})", flush=True)
        constants["task_s"] = overhead(folders[WIDTHS[0]], Store(root / "out"))
    facts = machine()
    table = {
        "machine": ", ".join(f"{k} {v}" for k, v in facts.items()),
        "constants": {k: float(f"{v:.3g}") for k, v in constants.items()},
        "devices": {"cpu": rounded(device)} | ASSUMED,
        "invariants": laws,
    }
    TABLE.write_text(HEAD + write_yaml(table))


HEAD = """\
# Constants of scaleinv_ray/cost_model; written by scripts/bench/cost_model.py --calibrate.
# invariants: seconds of a record, floor + slope x work (Kind.work, matrix_work), at the
#   parameters whose [reference, exponent] stand under params; stored: bytes of its tables.
# devices: cpu is one core of the machine below; measured: false says that the figures are assumed,
#   40 % of the dense peak in bfloat16.
# constants: seconds to build a model (build_s, build_layer_s), to write a file (file_s), to read
#   and write around a measurement (task_s), to start Ray (start_s); bytes written a second.
"""


def rounded(device: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, bool) else float(f"{v:.3g}") for k, v in device.items()}


def overhead(folder: Path, store: Store) -> float:
    """Seconds of a measurement beyond its invariant."""
    from scaleinv_ray.measure.measuring import measure

    spec, found = REGISTRY["behaviour.capabilities"], []
    for _ in range(5):
        outcome = measure(job_of(spec, spec.parameters, folder), store)
        rows = tables.decode(store.read_table("measurements/k.parquet"), ["wall_s"])
        found.append(outcome.wall_s - rows[0]["wall_s"])
    return min(found)
