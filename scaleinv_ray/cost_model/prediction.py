"""What measurements of a plan and their captures will cost, and how it is printed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.cost_model.laws import (
    LARGE_BYTES,
    Calibration,
    Device,
    calibration,
    law_seconds,
    matrices,
    matrix_work,
    task_params,
)
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.plan import Measurement, Plan
from scaleinv_ray.plan.costs import capture_bytes, forward_flops, model_bytes
from scaleinv_ray.records import Protocol


class CostLine(NamedTuple):
    """What an invariant costs.

    Attributes:
        kind: of the captures it reads.
        invariant: its name.
        tasks: measurements.
        seconds: on one core, all together.
        longest: seconds of the longest one (of the longest tensor, where it is made in parts).
        stored: bytes of its rows, curves and diagrams.
    """

    kind: str
    invariant: str
    tasks: int
    seconds: float
    longest: float
    stored: float


class Captures(NamedTuple):
    """What captures of one kind take on disk."""

    kind: str
    files: int
    num_bytes: int


class Cost(NamedTuple):
    """What measurements will cost.

    Attributes:
        lines: by invariant.
        captures: by kind.
        passes: over a probe.
        flops: of them all.
        device: on which captures are made.
        device_seconds: of one device.
        checkpoint_bytes: read of checkpoints, to load models and to measure weights.
        read_bytes: of captures, read by measurements.
        at_least: kinds of captures of which the sums have the products and gradients alone.
        unpriced: invariants without constants, not in the sums.
        start_s: seconds until Ray has started.
        machine: on which the constants were measured.
    """

    lines: tuple[CostLine, ...]
    captures: tuple[Captures, ...]
    passes: int
    flops: float
    device: Device
    device_seconds: float
    checkpoint_bytes: int
    read_bytes: int
    at_least: tuple[str, ...]
    unpriced: tuple[str, ...]
    start_s: float
    machine: str

    @property
    def task_seconds(self) -> float:
        """Of all measurements, on one core."""
        return sum(line.seconds for line in self.lines)

    @property
    def capture_bytes(self) -> int:
        """Of all captures, were they kept."""
        return sum(of.num_bytes for of in self.captures)

    @property
    def stored_bytes(self) -> float:
        """Of the tables in the store."""
        return sum(line.stored for line in self.lines)

    def wall_seconds(self, workers: int, devices: int = 0) -> float:
        """Time from start to end, were all evenly loaded.

        Args:
            workers: cores; without devices, actors share them with the tasks.
            devices: capture actors on devices of their own.

        Returns:
            The start of Ray and the longer of captures and measurements, or of the longest task.
        """
        if not devices:
            return self.start_s + max(
                (self.task_seconds + self.device_seconds) / workers, self._longest
            )
        both = self.task_seconds / workers, self.device_seconds / devices
        return self.start_s + max(*both, self._longest)

    @property
    def _longest(self) -> float:
        return max((line.longest for line in self.lines), default=0.0)


def price(
    plan: Plan,
    measurements: Sequence[Measurement],
    *,
    device: str = "cpu",
    constants: Calibration | None = None,
) -> Cost:
    """What it costs to make some measurements of a plan, their captures included.

    Args:
        device: on which captures are made, a name in the table.
        constants: the table; the packaged one by default.

    Returns:
        The prediction. Checkpoints that are captures made elsewhere cost nothing but tasks.

    Raises:
        ValueError: for a device that is not in the table.
    """
    table = constants or calibration()
    if device not in table.devices:
        raise ValueError(f"device: got {device!r}, allowed {sorted(table.devices)}")
    lines = _lines(measurements, plan.protocol, table)
    made = _made(measurements)
    on = table.devices[device]
    sizes = {
        key: capture_bytes(c, kind, plan.protocol, plan.spectroscopy)
        for key, (c, kind) in made.captures.items()
    }
    files: dict[str, list[int]] = defaultdict(list)
    for key, (_, kind) in made.captures.items():
        files[kind].append(sizes[key])
    seconds = sum(load_seconds(c, on, table.constants) for c in made.loads.values())
    for checkpoint, kinds in made.passes.values():
        seconds += pass_seconds(checkpoint, kinds, plan.protocol, device=on, table=table)
        seconds += gradient_seconds(checkpoint, kinds, plan, device=on)
    streamed = sum(
        model_bytes(m.unit.checkpoint) * len(m.readings)
        for m in measurements
        if KINDS[m.kind].token_free and not m.unit.checkpoint.captures
    )
    read = sum(sizes.get(r.capture_key, 0) for m in measurements for r in m.readings)
    unpriced = {m.invariant for m in measurements if m.invariant not in table.laws}
    priced_low = {kind for _, kind in made.captures.values() if KINDS[kind].section}
    return Cost(
        lines=lines,
        captures=tuple(Captures(k, len(v), sum(v)) for k, v in sorted(files.items())),
        passes=len(made.passes),
        flops=sum(forward_flops(c, plan.protocol) for c, _ in made.passes.values()),
        device=on,
        device_seconds=seconds,
        checkpoint_bytes=streamed + sum(model_bytes(c) for c in made.loads.values()),
        read_bytes=read,
        at_least=tuple(sorted(priced_low)),
        unpriced=tuple(sorted(unpriced)),
        start_s=table.constants["start_s"],
        machine=table.machine,
    )


class _Made(NamedTuple):
    """What captures are made: by key, by loaded weights, by pass over a probe."""

    captures: dict[str, tuple[Checkpoint, str]]
    loads: dict[tuple[str, ...], Checkpoint]
    passes: dict[tuple[tuple[str, ...], str, bool], tuple[Checkpoint, set[str]]]


def _made(measurements: Sequence[Measurement]) -> _Made:
    made = _Made({}, {}, {})
    for m in measurements:
        if m.probe is None:
            continue
        for unit, key in m.readings:
            if unit.checkpoint.captures:
                continue
            at = unit.content, m.probe, unit.variant == "shuffled_tokens"
            made.captures[key] = unit.checkpoint, m.kind
            made.loads[unit.content] = unit.checkpoint
            made.passes.setdefault(at, (unit.checkpoint, set()))[1].add(m.kind)
    return made


def _lines(
    measurements: Sequence[Measurement], protocol: Protocol, table: Calibration
) -> tuple[CostLine, ...]:
    held: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    known: dict[tuple[object, ...], tuple[float, float, float]] = {}
    for m in measurements:
        c = m.unit.checkpoint
        at = (c.model, c.n_params, m.kind, m.invariant, m.params, len(m.more), _divided(m))
        if at not in known:
            known[at] = task_costs(m, protocol, table)
        held[m.kind, m.invariant].append(known[at])
    return tuple(
        CostLine(
            kind,
            name,
            len(of),
            *(sum(c[0] for c in of), max(c[1] for c in of)),
            sum(c[2] for c in of),
        )
        for (kind, name), of in held.items()
    )


def task_costs(
    m: Measurement, protocol: Protocol, table: Calibration
) -> tuple[float, float, float]:
    """Seconds of a measurement, of its longest indivisible piece, and bytes of its tables.

    Returns:
        The three; of an invariant without constants the overhead of a task alone.
    """
    overhead = table.constants["task_s"]
    law = table.laws.get(m.invariant)
    if law is None:
        return overhead, overhead, 0.0
    params = task_params(m.invariant, m.params)
    each = [(count, law_seconds(law, work, params)) for count, work in _works(m, protocol)]
    steps = len(m.readings) if REGISTRY[m.invariant].signature == "trajectory" else 1
    seconds = overhead + steps * sum(count * s for count, s in each)
    longest = max(s for _, s in each) if _divided(m) else seconds
    rows = law.stored
    if "num_points" in law.params:  # diagrams have as many
        rows *= params["num_points"] / law.params["num_points"][0]
    return seconds, longest, sum(count for count, _ in each) * rows


def _divided(m: Measurement) -> bool:
    """Whether each tensor has a task of its own; random weights are drawn for the model as one."""
    drawn = m.unit.variant == "random_init" and m.unit.checkpoint.init_digest is None
    single = KINDS[m.kind].token_free and REGISTRY[m.invariant].signature == "one"
    return single and not drawn and model_bytes(m.unit.checkpoint) > LARGE_BYTES


def _works(m: Measurement, protocol: Protocol) -> list[tuple[int, float]]:
    """How many records of which work a measurement reads."""
    c, kind = m.unit.checkpoint, KINDS[m.kind]
    if kind.token_free:
        return [(count, matrix_work(shape)) for shape, count in matrices(c).items()]
    return [(kind.num_records(c), kind.work(c.d_model, c.n_layers, protocol))]


def load_seconds(checkpoint: Checkpoint, device: Device, constants: Mapping[str, float]) -> float:
    """Seconds until a model is in memory: building it, and reading its weights once."""
    built = constants["build_s"] + checkpoint.n_layers * constants["build_layer_s"]
    return built + model_bytes(checkpoint) / device.load


def pass_seconds(
    checkpoint: Checkpoint,
    kinds: Collection[str],
    protocol: Protocol,
    *,
    device: Device,
    table: Calibration,
) -> float:
    """Seconds of the captures of one probe by a loaded model.

    Args:
        protocol: gives the tokens.

    Returns:
        The forward pass (2 N a token; `values` D a token and block) where a kind comes out of it,
        what each kind takes beside it, and writing.
    """
    c, p = checkpoint, protocol
    tokens = p.sequences * p.length
    seconds = 0.0
    wanted = [kind for name, kind in KINDS.items() if name in kinds]
    if any(kind.one_pass for kind in wanted):
        seconds += (
            forward_flops(c, p) / device.flops + tokens * c.n_layers * c.d_model / device.values
        )
    for kind in wanted:
        seconds += kind.seconds(c, p, device)
    written = sum(capture_bytes(c, kind, p) for kind in kinds)
    return (
        seconds
        + written / table.constants["write_bytes_s"]
        + len(kinds) * table.constants["file_s"]
    )


def gradient_seconds(
    checkpoint: Checkpoint, kinds: Collection[str], plan: Plan, *, device: Device
) -> float:
    """Seconds of the gradients and curvature products at one probe, a lower bound of their kinds.

    Returns:
        2 N a token forward and 4 N backward (Kaplan et al. 2020), and the calls of the blocks;
        reorthogonalisation, pilots and what samplers do beside gradients are not in it.
    """
    seconds = 0.0
    for name in kinds:
        settings = KINDS[name].settings(plan.spectroscopy)
        if settings is not None:
            gradients, sequences = KINDS[name].gradients(settings, checkpoint.n_layers)
            tokens = sequences * plan.protocol.length
            each = 6.0 * checkpoint.n_params * tokens / device.flops
            seconds += gradients * (each + checkpoint.n_layers * device.call_s)
    return seconds


def cost_lines(prediction: Cost, *, workers: int = 2, devices: int = 0) -> str:
    """A prediction as lines of text.

    Args:
        workers: cores of the wall time.
        devices: of the wall time, as of `Prediction.wall_seconds`.

    Returns:
        Costs by invariant and in all; where the constants come from.
    """
    p = prediction
    lines = [f"{'cost of what is missing':<51}{'tasks':>8}{'core-s':>11}{'longest s':>11}"]
    for line in sorted(p.lines, key=lambda of: -of.seconds):
        what = f"{line.kind:<14} {line.invariant:<36}"
        lines.append(f"{what}{line.tasks:>8}{line.seconds:>11.1f}{line.longest:>11.2f}")
    measured = "measured" if p.device.measured else "assumed"
    beside = f" and {devices} x {p.device.name}" if devices else ""
    wall = p.wall_seconds(workers, devices)
    least = "at least " if p.at_least or p.unpriced else ""
    of_captures = "at least " if p.at_least else ""
    lines += [
        f"measuring: {p.task_seconds / 3600:.3g} core-hours",
        f"capturing: {of_captures}{p.device_seconds / 3600:.3g} device-hours ({p.passes} passes, "
        f"{p.flops:.3g} FLOP; {p.device.name}, {measured})",
        f"bytes: {sized(p.checkpoint_bytes)} of checkpoints read, {sized(p.capture_bytes)} of "
        f"captures, {sized(p.read_bytes)} of them read, {sized(p.stored_bytes)} of tables",
        f"wall time on {workers} cores{beside}: {least}{wall / 60:.1f} min{_why_least(p)}",
        f"constants: {p.machine}",
    ]
    return "\n".join(lines)


def _why_least(p: Cost) -> str:
    """Why a total is a lower bound; nothing where it is none."""
    said = [f"of {', '.join(p.at_least)} the gradients alone"] if p.at_least else []
    said += [f"without {', '.join(p.unpriced)}"] if p.unpriced else []
    return f" (a lower bound: {'; '.join(said)})" if said else ""
