"""From a config to units, captures and measurements, each with its key."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

from scaleinv_ray import invariants, series
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import REGISTRY, Invariant
from scaleinv_ray.costs import TOKENS_PER_UNIT, capture_bytes
from scaleinv_ray.plan.tokens import probe_tokens
from scaleinv_ray.plan.units import Measurement, Plan, ProbeTokens, Unit, digest
from scaleinv_ray.records import CAPTURE_VERSION, TOKEN_FREE, Protocol
from scaleinv_ray.series import Checkpoint

assert invariants, "importing the package registers the invariants"


def make_plan(config: RunConfig) -> Plan:
    """Resolves models, builds the probes' tokens, checks everything, and derives all keys.

    Args:
        config: a checked run config.

    Returns:
        The plan; nothing has been captured or computed.

    Raises:
        ValueError: for models, probes or widths that do not fit, naming field, got and allowed.
    """
    protocol = config.protocol.record()
    checkpoints = series.resolve(config.models)
    series.check_identities(checkpoints)
    chosen = config.chosen_invariants()
    specs = [(REGISTRY[n], json.dumps(p, sort_keys=True)) for n, p in chosen.items()]
    _check_parameters(specs, protocol)
    units = _units(config, checkpoints)
    on_tokens = any(s.kind not in TOKEN_FREE for s, _ in specs)
    tokens = probe_tokens(config, checkpoints, protocol) if on_tokens else {}
    for checkpoint in checkpoints if on_tokens else []:
        _check_widths(checkpoint, protocol, {s.kind for s, _ in specs})
    single = [(s, p) for s, p in specs if not s.paired]
    paired = [(s, p) for s, p in specs if s.paired]
    measurements = _measurements(units, single, protocol, tokens, heads=config.split_heads)
    measurements += _pair_measurements(pairs_of(units), paired, protocol, tokens)
    equal = tuple(
        (f"{a.model}@{a.step}", f"{b.model}@{b.step}") for a, b in series.equal_weights(checkpoints)
    )
    return Plan(config.name, protocol, tuple(units), tuple(measurements), tokens, equal)


def pairs_of(units: Iterable[Unit]) -> list[tuple[Unit, Unit]]:
    """Pairs of models that paired invariants compare, smaller model first.

    Of the trained and the untrained units at the last step: the same seed at two sizes, and two
    seeds of the same size (the ceiling against which the others are read). Both must read the same
    tokens.

    Args:
        units: of the whole run.

    Returns:
        The pairs.
    """
    last: dict[tuple[str, int, str], Unit] = {}
    for unit in units:
        if unit.variant in {"trained", "random_init"}:
            at = (unit.checkpoint.model, unit.checkpoint.seed, unit.variant)
            held = last.get(at)
            if held is None or _step(held) <= _step(unit):
                last[at] = unit
    ordered = sorted(last.values(), key=lambda u: (u.checkpoint.n_params, u.checkpoint.model))
    return [(a, b) for a, b in combinations(ordered, 2) if _comparable(a, b)]


def _step(unit: Unit) -> int:
    return -1 if unit.checkpoint.step is None else unit.checkpoint.step


def _comparable(first: Unit, second: Unit) -> bool:
    a, b = first.checkpoint, second.checkpoint
    same_tokens = a.tokenizer_digest == b.tokenizer_digest
    same_size = (a.n_params, a.architecture) == (b.n_params, b.architecture)
    return same_tokens and first.variant == second.variant and same_size != (a.seed == b.seed)


def _units(config: RunConfig, checkpoints: Sequence[Checkpoint]) -> list[Unit]:
    judged: dict[tuple[str, int], int] = {}
    for c in checkpoints:
        at = (c.model, c.seed)
        judged[at] = max(judged.get(at, -1), -1 if c.step is None else c.step)
    units = []
    for variant in sorted(config.variants, key=lambda v: v != "trained"):
        for c in checkpoints:
            last = judged[c.model, c.seed] == (-1 if c.step is None else c.step)
            wanted = (
                last
                if config.null_steps == "last"
                else (config.null_steps == "all" or c.step in config.null_steps or last)
            )
            if variant == "trained" or wanted:
                units.append(Unit(config.name, c, variant))
    return units


def _check_parameters(specs: Iterable[tuple[Invariant, str]], protocol: Protocol) -> None:
    for spec, params in specs:
        wanted = json.loads(params).get("num_points", 0)
        if spec.kind == "cloud" and wanted > protocol.sequences:
            raise ValueError(
                f"invariants.{spec.name}.num_points: got {wanted}, "
                f"allowed 1..{protocol.sequences} (protocol.sequences)"
            )


def _check_widths(checkpoint: Checkpoint, protocol: Protocol, kinds: set[str]) -> None:
    """Refuses what the protocol's tokens cannot carry at this width."""
    where = f"model {checkpoint.model}"
    have = protocol.sequences * protocol.length
    if checkpoint.max_positions is not None and protocol.length > checkpoint.max_positions:
        raise ValueError(
            f"protocol.length: got {protocol.length}, allowed 1..{checkpoint.max_positions} "
            f"(positions of {where})"
        )
    need = protocol.tokens_per_dim * checkpoint.d_model
    if "moments" in kinds and have < need:
        raise ValueError(
            f"protocol.sequences x length: got {have} tokens, {where} of width "
            f"{checkpoint.d_model} needs {need} (tokens_per_dim {protocol.tokens_per_dim})"
        )
    if "stream" not in kinds:
        return
    if have < TOKENS_PER_UNIT * protocol.stream_units:
        raise ValueError(
            f"protocol.sequences x length: got {have} tokens, {protocol.stream_units} stream "
            f"units need {TOKENS_PER_UNIT * protocol.stream_units}"
        )
    if checkpoint.d_mlp is not None and protocol.stream_units > checkpoint.d_mlp:
        raise ValueError(
            f"protocol.stream_units: got {protocol.stream_units}, allowed 1..{checkpoint.d_mlp} "
            f"(MLP neurons of {where})"
        )


def _measurements(
    units: Sequence[Unit],
    specs: Sequence[tuple[Invariant, str]],
    protocol: Protocol,
    tokens: Mapping[tuple[str, str], ProbeTokens],
    *,
    heads: bool,
) -> list[Measurement]:
    names = list(dict.fromkeys(name for name, _ in tokens))
    by_kind: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for spec, params in specs:
        stamp = digest(spec.name, spec.version, params)
        by_kind[spec.kind].append((spec.name, params, stamp))
    out = []
    for unit in units:
        of_unit = unit.stamp
        for kind, wanted in by_kind.items():
            free = kind in TOKEN_FREE
            if free and unit.variant == "shuffled_tokens":
                continue
            for probe in [None] if free else names:
                view = " by head" if heads and kind == "weights" else ""
                capture = _capture_key(unit, probe, kind + view, protocol, tokens)
                for name, params, stamp in wanted:
                    key = _fast_digest(of_unit, capture, stamp)
                    out.append(Measurement(key, capture, unit, probe, kind, name, params))
    return out


def _pair_measurements(
    pairs: Sequence[tuple[Unit, Unit]],
    specs: Sequence[tuple[Invariant, str]],
    protocol: Protocol,
    tokens: Mapping[tuple[str, str], ProbeTokens],
) -> list[Measurement]:
    names = list(dict.fromkeys(name for name, _ in tokens))
    out = []
    for spec, params in specs:
        stamp = digest(spec.name, spec.version, params)
        for (a, b), probe in product(pairs, names):
            first, second = (_capture_key(u, probe, spec.kind, protocol, tokens) for u in (a, b))
            key = _fast_digest(a.stamp, b.stamp, first, second, stamp)
            m = Measurement(key, first, a, probe, spec.kind, spec.name, params, b, second)
            out.append(m)
    return out


def _capture_key(
    unit: Unit,
    probe: str | None,
    kind: str,
    protocol: Protocol,
    tokens: Mapping[tuple[str, str], ProbeTokens],
) -> str:
    what = f"{kind} {CAPTURE_VERSION[kind.partition(' ')[0]]}"
    if probe is None:
        return _fast_digest(*unit.content, what)
    of_tokens = tokens[probe, unit.checkpoint.tokenizer_digest or ""].digest
    order = f"shuffled{unit.checkpoint.seed}" if unit.variant == "shuffled_tokens" else "in order"
    return _fast_digest(*unit.content, of_tokens, order, protocol.digest(), what)


def _fast_digest(*parts: str) -> str:
    """As `digest`, of strings without separators inside: three times faster, for 10^5 keys."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:20]


def plan_rows(plan: Plan, done: set[str]) -> list[dict[str, Any]]:
    """The plan as rows of tables.PLAN; a capture's bytes stand at its first measurement.

    Args:
        plan: the plan.
        done: keys of the measurements that are complete.

    Returns:
        One row a measurement.
    """
    seen: set[str] = set()
    rows = []
    for m in plan.measurements:
        c = m.unit.checkpoint
        size = 0
        for key, of in ((m.capture_key, m.unit), (m.capture_key_b, m.unit_b)):
            if key is not None and of is not None and key not in seen:
                size += capture_bytes(of.checkpoint, m.kind, plan.protocol)
                seen.add(key)
        rows.append({
            "key": m.key, "capture_key": m.capture_key, "unit": m.unit.id,
            "unit_b": m.unit_b and m.unit_b.id, "series": plan.name,
            "model": c.model, "n_params": c.n_params, "seed": c.seed, "step": c.step,
            "variant": m.unit.variant, "probe": m.probe, "kind": m.kind,
            "invariant": m.invariant, "params": m.params, "bytes": size, "done": m.key in done,
        })  # fmt: skip
    return rows
