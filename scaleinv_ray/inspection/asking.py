"""What is measured of one checkpoint: all that it has, as far as the time asked for goes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from typing import Protocol as Shape

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
from scaleinv_ray.plan.fitting import fitted
from scaleinv_ray.plugins.loading import known_to
from scaleinv_ray.probes.token_files import shape_of
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import Protocol

assert invariants, "importing the package registers the invariants"
BEYOND = "beyond the budget"
TWINS = ("random_init", "shuffled_weights")
"""What a model is set beside: itself before training, and with the entries of its weights mixed."""


class Saved(Shape):
    """A model or a tokenizer of transformers."""

    def save_pretrained(self, folder: str) -> object:
        """Writes it into a folder."""


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


def source_of(model: str | Path, revision: str | None, field: str = "model") -> dict[str, Any]:
    """What stands under `models` in a config for a folder or a repository of the hub.

    Args:
        model: a folder (of several steps the last counts), or `organisation/name`.
        revision: of a repository.
        field: what it is called where it is refused.

    Returns:
        The mapping.

    Raises:
        ValueError: for what is neither, and a revision of a folder.
    """
    folder = Path(expanded(str(model)))
    if str(model) and folder.exists():
        if revision is not None:
            raise ValueError(
                f"revision: got {shown(revision)} of the folder {folder}; allowed for a hub's model"
            )
        return {"path": str(folder.absolute()), "steps": "last"}
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(model)):
        return {"hub": str(model)} | ({} if revision is None else {"revision": revision})
    raise ValueError(
        f"{field}: got {shown(str(model))}, no folder; allowed: a folder with config.json and "
        "model.safetensors, or organisation/name of the hub"
    )


@contextmanager
def at_hand(
    model: str | Path | Saved,
    *,
    tokenizer: Saved | None,
    revision: str | None,
    field: str = "model",
) -> Generator[dict[str, Any], None, None]:
    """The source of a model; one in memory is saved for as long as the block lasts.

    Args:
        model: as of `source_of`, or a model of transformers.
        tokenizer: of a model in memory.
        field: as of `source_of`.

    Yields:
        What stands under `models` in a config.
    """
    if isinstance(model, str | Path):
        yield source_of(model, revision, field)
        return
    with tempfile.TemporaryDirectory(prefix="scaleinv-model-") as folder:
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        name = Path(getattr(model, "name_or_path", "") or type(model).__name__).name
        yield {"path": folder, "steps": "last", "name": re.sub(r"[^A-Za-z0-9._-]", "-", name)}


def on_tokens(settings: Settings, file: str | Path) -> Settings:
    """The settings with the ids of a file as the only probe, and a protocol that they fill.

    Args:
        file: .npy or .parquet, as of a config's probes.

    Raises:
        ValueError: naming the file, where it holds no sequences of ids.
    """
    try:
        sequences, length = shape_of(file)
    except ValueError as error:  # which names the field of a config
        raise ValueError(f"tokens: {str(error).removeprefix('probes: ')}") from error
    fits = {"blocks": sequences, "jacobian_positions": sequences, "attention_sequences": sequences}
    fits |= {"position": length - 1}
    known = settings.protocol
    smaller = {name: min(known[name], most) for name, most in fits.items()}
    protocol = {**known, **smaller, "sequences": sequences, "length": length}
    probe = {"name": "tokens", "tokens": str(expanded(file).absolute())}
    return replace(settings, protocol=protocol, probes=(probe,))


def ask(
    source: Mapping[str, Any],
    settings: Settings,
    *,
    budget_s: float,
    variants: Sequence[str],
    plugins: Sequence[str] = (),
) -> Asked:
    """Plans what can be had of one model in the time.

    What the settings name and what plugins bring comes first, each with its parameters, then all
    other invariants of one model as they are planned by default; of each the cheap before the dear.

    Args:
        source: of the model.
        settings: protocol, probes and parameters.
        budget_s: seconds on one core of the machine of the cost model.
        variants: the model, and what stands beside it.
        plugins: as they were loaded.

    Returns:
        The plan.

    Raises:
        ValueError: where the model cannot be had, or where nothing of it can.
    """
    base = {
        "name": "inspect",
        "models": [source],
        "variants": list(variants),
        "probes": list(settings.probes),
        "protocol": dict(settings.protocol),
        "corpus": settings.corpus,
        "split_heads": settings.split_heads,
        "batch_size": 16,
        "out": "inspect",
    }
    (checkpoint,) = resolve(load_run_config(base).models)
    protocol = Protocol(**settings.protocol)
    given = all(isinstance(probe, Mapping) and "tokens" in probe for probe in settings.probes)
    left_out: dict[str, str] = {}
    chosen: dict[str, dict[str, Any]] = {}
    known = known_to(plugins)
    first = {*settings.invariants} | ({*known} - {*known_to(())})
    for name in dict.fromkeys([*settings.invariants, *known]):
        spec = REGISTRY.get(name)
        if spec is None or spec.signature != "one" or KINDS[spec.kind].section is not None:
            continue  # of pairs, of runs, and what takes hours
        params = _fitting(spec, settings.invariants.get(name, spec.parameters), protocol)
        why = _lacking(checkpoint, spec.kind, protocol, is_given=given)
        if why := why or _unfit(spec, params):
            left_out[name] = why
        else:
            chosen[name] = params
    if not chosen:
        raise ValueError(f"model: got nothing to measure: {clipped(next(iter(left_out.values())))}")
    config = load_run_config(base | {"invariants": chosen})
    plan = make_plan(config)
    within = _within(plan, first, budget_s)
    made = [m for m in plan.measurements if m.invariant in within.names]
    return Asked(config, plan, made, left_out | within.left_out, within.seconds)


def ask_parent(source: Mapping[str, Any], asked: Asked) -> Asked:
    """Plans the same measurements of a model's parent, without twins.

    Args:
        source: of the parent.
        asked: what is measured of the model.

    Returns:
        The plan.

    Raises:
        ValueError: for a parent of another shape or tokenizer.
    """
    update = {"models": [source], "variants": ["trained"]}
    config = load_run_config(asked.config.model_dump(mode="json") | update)
    try:
        plan = make_plan(config)
    except ValueError as error:
        raise ValueError(f"parent: {error}") from error
    ours, theirs = asked.plan.units[0].checkpoint, plan.units[0].checkpoint
    for what, got, allowed in (
        ("parameters", theirs.n_params, ours.n_params),
        ("layers", theirs.n_layers, ours.n_layers),
        ("tokens", *(sorted(t.digest for t in of.tokens.values()) for of in (plan, asked.plan))),
    ):
        if got != allowed:
            raise ValueError(
                f"parent: got {theirs.model} with other {what} ({clipped(str(got), 40)}), allowed "
                f"those of the model ({clipped(str(allowed), 40)})"
            )
    made = {m.invariant for m in asked.measurements}
    return Asked(config, plan, [m for m in plan.measurements if m.invariant in made], {}, 0.0)


def _lacking(checkpoint: Checkpoint, kind: str, protocol: Protocol, *, is_given: bool) -> str:
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
    if c.tokenizer_file is None and not is_given:
        return "no tokenizer.json, needed by the probes (or token ids of your own: --tokens)"
    if c.max_positions is not None and protocol.length > c.max_positions:
        return f"the model has {c.max_positions} positions, the protocol {protocol.length}"
    if choose_loading(model_bytes(c), memory=available_memory()).how != "resident":
        return "the model does not fit into memory (scaleinv run reads it layer by layer)"
    try:
        of.refuse(c, fitted(protocol, [c], {kind}), Spectroscopy())
    except ValueError as error:
        return str(error)
    return ""


def _fitting(spec: Invariant, wanted: Mapping[str, Any], protocol: Protocol) -> dict[str, Any]:
    """The parameters wanted, no larger than the protocol allows."""
    limits = KINDS[spec.kind].limits(protocol)
    return {
        name: min(value, limits[name][1]) if name in limits else value
        for name, value in wanted.items()
    }


def _unfit(spec: Invariant, params: Mapping[str, Any]) -> str:
    """Why an invariant makes no sense with what a small protocol leaves of its parameters."""
    try:
        spec.check(params)
    except ValueError as error:
        return str(error)
    return ""


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
            left_out[name] = f"{BEYOND} of {budget_s:.0f} s (it takes {more:.0f} s)"
            continue
        names.add(name)
        kinds.add(kind_of[name])
        spent += more
    return _Within(names, left_out, spent)
