"""What is measured of one checkpoint: all that it has, as far as the time asked for goes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scaleinv_ray import invariants
from scaleinv_ray.checkpoints import CAPTURED, Checkpoint, resolve
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.contract import REGISTRY, Invariant
from scaleinv_ray.cost_model import calibration, load_seconds, pass_seconds, task_costs
from scaleinv_ray.inputs.paths import expanded
from scaleinv_ray.inputs.wording import clipped, shown
from scaleinv_ray.inspection.reference import Settings
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.plan import Measurement, Plan, make_plan
from scaleinv_ray.plan.costs import available_memory, choose_loading, model_bytes
from scaleinv_ray.records import Protocol

assert invariants, "importing the package registers the invariants"
TWINS = ("random_init", "shuffled_weights")
"""What a model is set beside: itself before training, and with the entries of its weights mixed."""


class Asked(NamedTuple):
    """What is to be done.

    Attributes:
        config: of a series of one model.
        plan: of it.
        measurements: those of the plan that are made.
        left_out: invariant -> why it is not measured.
        seconds: that all this is expected to take on one core.
    """

    config: RunConfig
    plan: Plan
    measurements: list[Measurement]
    left_out: dict[str, str]
    seconds: float


def source_of(model: str | Path, revision: str | None) -> dict[str, Any]:
    """What stands under `models` in a config for a folder or a repository of the hub.

    Args:
        model: a folder (of several steps the last counts), or `organisation/name`.
        revision: of a repository.

    Returns:
        The mapping.

    Raises:
        ValueError: for what is neither, and a revision of a folder.
    """
    folder = Path(expanded(str(model)))
    if folder.exists():
        if revision is not None:
            raise ValueError(
                f"revision: got {shown(revision)} of the folder {folder}; allowed for a hub's model"
            )
        return {"path": str(folder.absolute()), "steps": "last"}
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(model)):
        return {"hub": str(model)} | ({} if revision is None else {"revision": revision})
    raise ValueError(
        f"model: got {shown(str(model))}, no folder; allowed: a folder with config.json and "
        "model.safetensors, or organisation/name of the hub"
    )


def ask(
    source: Mapping[str, Any], settings: Settings, *, budget_s: float, twins: Sequence[str] = TWINS
) -> Asked:
    """Plans what can be had of one model in the time.

    What the settings name comes first, each with its parameters, then all other invariants of one
    model as they are planned by default; of each the cheap before the dear.

    Args:
        source: of the model.
        settings: protocol, probes and parameters.
        budget_s: seconds on one core of the machine of the cost model.
        twins: nulls beside the model.

    Returns:
        The plan.

    Raises:
        ValueError: where the model cannot be had, or where nothing of it can.
    """
    base = {
        "name": "inspect",
        "models": [source],
        "variants": ["trained", *twins],
        "probes": list(settings.probes),
        "protocol": dict(settings.protocol),
        "corpus": settings.corpus,
        "split_heads": settings.split_heads,
        "batch_size": 16,
        "out": "inspect",
    }
    (checkpoint,) = resolve(load_run_config(base).models)
    protocol = Protocol(**settings.protocol)
    left_out: dict[str, str] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([*settings.invariants, *REGISTRY]):
        spec = REGISTRY.get(name)
        if spec is None or spec.signature != "one" or KINDS[spec.kind].section is not None:
            continue  # of pairs, of runs, and what takes hours
        if why := _lacking(checkpoint, spec.kind, protocol):
            left_out[name] = why
        else:
            chosen[name] = dict(settings.invariants.get(name) or _fitting(spec, protocol))
    if not chosen:
        raise ValueError(f"model: got nothing to measure: {clipped(next(iter(left_out.values())))}")
    config = load_run_config(base | {"invariants": chosen})
    plan = make_plan(config)
    within = _within(plan, set(settings.invariants), budget_s)
    made = [m for m in plan.measurements if m.invariant in within.names]
    return Asked(config, plan, made, left_out | within.left_out, within.seconds)


def _lacking(checkpoint: Checkpoint, kind: str, protocol: Protocol) -> str:
    """Why a model does not give a kind of capture; empty where it does."""
    c, of = checkpoint, KINDS[kind]
    if not of.exists(c):
        return f"the model has no {kind}"
    if of.token_free:
        return ""
    if c.no_logits is not None:
        return f"the model is {c.no_logits}, no causal language model"
    if c.architecture not in CAPTURED:
        return f"captures do not know the model_type {c.architecture}"
    if c.broken is not None:
        return clipped(c.broken, 150)
    if c.tokenizer_file is None:
        return "no tokenizer.json, needed by the probes"
    if c.max_positions is not None and protocol.length > c.max_positions:
        return f"the model has {c.max_positions} positions, the protocol {protocol.length}"
    if choose_loading(model_bytes(c), memory=available_memory()).how != "resident":
        return "the model does not fit into memory (scaleinv run reads it layer by layer)"
    try:
        of.check(c, protocol)
    except ValueError as error:
        return str(error)
    return ""


def _fitting(spec: Invariant, protocol: Protocol) -> dict[str, Any]:
    """The planned parameters, no larger than the protocol allows."""
    limits = KINDS[spec.kind].limits(protocol)
    return {
        name: min(value, limits[name][1]) if name in limits else value
        for name, value in spec.parameters.items()
    }


class _Within(NamedTuple):
    names: set[str]
    left_out: dict[str, str]
    seconds: float


def _within(plan: Plan, first: set[str], budget_s: float) -> _Within:
    """The invariants that fit into the time, by the cost model: the same ones every time."""
    table = calibration()
    device, protocol = table.devices["cpu"], plan.protocol
    loads = sum(load_seconds(u.checkpoint, device, table.constants) for u in plan.units)
    kind_of = {m.invariant: m.kind for m in plan.measurements}
    own = dict.fromkeys(kind_of, 0.0)
    for m in plan.measurements:
        own[m.invariant] += task_costs(m, protocol, table)[0] - table.constants["task_s"]

    def captured(kinds: set[str]) -> float:
        live = {kind for kind in kinds if not KINDS[kind].token_free}
        if not live:
            return 0.0
        return loads + sum(
            pass_seconds(u.checkpoint, live, protocol, device=device, table=table)
            for u in plan.units
        )

    kinds: set[str] = set()
    names: set[str] = set()
    left_out: dict[str, str] = {}
    spent = 0.0
    for name in sorted(own, key=lambda n: (n not in first, own[n] + captured({kind_of[n]}))):
        more = own[name] + captured(kinds | {kind_of[name]}) - captured(kinds)
        if spent + more > budget_s:
            left_out[name] = f"would take {more:.0f} s more than the budget of {budget_s:.0f} s has"
            continue
        names.add(name)
        kinds.add(kind_of[name])
        spent += more
    return _Within(names, left_out, spent)
