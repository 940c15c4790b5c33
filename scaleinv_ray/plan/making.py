"""From a config to units, captures and measurements, each with its key."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaleinv_ray import invariants
from scaleinv_ray.checkpoints import (
    CAPTURED,
    Checkpoint,
    check_identities,
    equal_weights,
    listed,
    resolve,
)
from scaleinv_ray.checkpoints.files.layouts import nearest
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import REGISTRY, Invariant, Signature
from scaleinv_ray.inputs.wording import clipped
from scaleinv_ray.kinds import KINDS, digest_for, of_tokens
from scaleinv_ray.plan.costs import capture_bytes
from scaleinv_ray.plan.fitting import (
    changes_of,
    check_captures,
    distinct_rows,
    fitted,
    fitted_points,
    points_of,
    too_little,
    with_sequences,
)
from scaleinv_ray.plan.grouping import pairs_of, trajectories_of
from scaleinv_ray.plan.tokens import num_around, probe_pairs, probe_tokens, tokenizers_of
from scaleinv_ray.plan.units import Measurement, Plan, ProbeTokens, Reading, Unit, digest
from scaleinv_ray.plugins.loading import plugin_of
from scaleinv_ray.probes import TooFewError
from scaleinv_ray.protocols import Spectroscopy, digest_of
from scaleinv_ray.records import Protocol

assert invariants, "importing the package registers the invariants"


def make_plan(config: RunConfig) -> Plan:
    """Resolves models, builds the probes' tokens, checks everything, and derives all keys.

    Returns:
        The plan; nothing has been captured or computed.

    Raises:
        ValueError: for models, probes or widths that do not fit, naming field, got and allowed.
    """
    checkpoints = resolve(config.models)
    check_identities(checkpoints)
    asked = config.chosen_invariants()
    _check_null_steps(config, checkpoints)
    units = _units(config, checkpoints)
    kinds = {REGISTRY[name].kind for name in asked}
    live = [c for c in checkpoints if not c.captures]
    spectroscopy = config.spectroscopy()
    made = {kind for kind in kinds if KINDS[kind].is_asked(spectroscopy)}
    on_tokens = live if made & of_tokens() else []
    _check_captured(on_tokens, config)
    tokenizers = tokenizers_of(live)
    protocol, tokens = _read(config, on_tokens, made, tokenizers)
    _check_parameters(asked, protocol)
    _check_observed(config, tokens)
    in_pairs = any(KINDS[kind].in_pairs for kind in made)
    pairs = probe_pairs(config, on_tokens, protocol) if in_pairs else {}
    rows = distinct_rows(tokens.values(), protocol.position)
    chosen = {n: fitted_points(REGISTRY[n], p, rows) for n, p in asked.items()}
    specs = [(REGISTRY[n], json.dumps(p, sort_keys=True)) for n, p in chosen.items()]
    keys = _Keys(protocol, tokens, config.split_heads, spectroscopy, pairs)
    measurements = _grouped(units, specs, keys)
    read = {m.invariant for m in measurements}
    _check_read(read, config, live)
    used = {name: parameters for name, parameters in chosen.items() if name in read}
    equal = tuple(
        (f"{a.model}@{a.step}", f"{b.model}@{b.step}") for a, b in equal_weights(checkpoints)
    )
    return Plan(
        name=config.name,
        protocol=protocol,
        units=tuple(units),
        measurements=tuple(measurements),
        tokens=tokens,
        equal_weights=equal,
        spectroscopy=spectroscopy,
        tokenizers=tokenizers,
        fitted=(
            *changes_of(config.protocol, protocol),
            *points_of(asked, used, rows),
            *too_little([REGISTRY[name] for name in asked], protocol),
        ),
        points=_fitted_of(asked, used),
        pairs=pairs,
    )


def _grouped(
    units: Sequence[Unit], specs: Sequence[tuple[Invariant, str]], keys: _Keys
) -> list[Measurement]:
    """Every invariant at each of the units, pairs or runs that it takes."""
    groups: dict[Signature, Callable[[], Iterable[tuple[Unit, ...]]]] = {
        "one": lambda: ((u,) for u in units),
        "pair": lambda: pairs_of(units),
        "trajectory": lambda: trajectories_of(units),
    }
    return [
        m
        for signature, of_units in groups.items()
        if (wanted := [x for x in specs if x[0].signature == signature])
        for m in _measurements(of_units(), wanted, keys)
    ]


def _fitted_of(
    asked: Mapping[str, Mapping[str, Any]], used: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Invariant -> its parameters that are others than were asked for."""
    changed = {n: {k: v for k, v in of.items() if v != asked[n][k]} for n, of in used.items()}
    return {name: of for name, of in changed.items() if of}


def _read(
    config: RunConfig,
    checkpoints: Sequence[Checkpoint],
    kinds: set[str],
    tokenizers: Mapping[str, str],
) -> tuple[Protocol, dict[tuple[str, str], ProbeTokens]]:
    """The protocol that the series has room for, and the tokens by it.

    How many sequences a text gives is known when it is read: where nobody set their number, it is
    as many as every probe has in every tokenizer.
    """
    wanted, special = config.protocol, num_around(config, checkpoints)
    while True:
        protocol = fitted(wanted, checkpoints, kinds, special=special)
        check_captures(checkpoints, protocol, kinds, config.spectroscopy())
        try:
            return protocol, probe_tokens(config, checkpoints, protocol, named=tokenizers)
        except TooFewError as error:
            wanted = with_sequences(wanted, error, config.protocol, config.spectroscopy())


def _check_observed(config: RunConfig, tokens: Mapping[tuple[str, str], ProbeTokens]) -> None:
    """Chains look at every probe from the same token on."""
    observed = config.sampling.observed if config.sampling else ()
    starts = {name: t.left_out for (name, _), t in tokens.items()}
    if observed and len({*starts.values()}) > 1:
        bare = [name for name in starts if not starts[name]]
        raise ValueError(
            f"sampling.observed: got {listed(observed)}, and {listed(bare)} of token ids without "
            "special tokens before them; allowed: special_tokens: none, or no such probe"
        )


def _check_null_steps(config: RunConfig, checkpoints: Iterable[Checkpoint]) -> None:
    """Refuses steps of nulls that no model has."""
    if isinstance(config.null_steps, str) or tuple(config.variants) == ("trained",):
        return
    known = {c.step for c in checkpoints if not c.captures}
    if unknown := sorted(set(config.null_steps) - known):
        near = nearest(unknown[0], known)
        raise ValueError(f"null_steps: got {listed(unknown)}, the models have {near}")


def _units(config: RunConfig, checkpoints: Sequence[Checkpoint]) -> list[Unit]:
    judged: dict[tuple[str, int], int] = {}
    for c in checkpoints:
        at = (c.model, c.seed)
        judged[at] = max(judged.get(at, -1), -1 if c.step is None else c.step)
    units = []
    for variant in sorted(config.variants, key=lambda v: v != "trained"):
        for c in checkpoints:
            if c.captures:
                if c.variant == variant:
                    units.append(Unit(config.name, c, variant))
                continue
            last = judged[c.model, c.seed] == (-1 if c.step is None else c.step)
            wanted = (
                last
                if config.null_steps == "last"
                else (config.null_steps == "all" or c.step in config.null_steps or last)
            )
            if variant == "trained" or wanted:
                units.append(Unit(config.name, c, variant))
    return units


def _check_read(read: set[str], config: RunConfig, live: Sequence[Checkpoint]) -> None:
    """An invariant that was asked for by name must have something to read."""
    for name in config.named_invariants:
        if name not in read:
            spec = REGISTRY[name]
            kind = KINDS[spec.kind]
            causal = kind.name != "masked_losses"
            if causal and live and all(c.encoder and not kind.exists(c) for c in live):
                models = listed(sorted({c.model for c in live}))
                raise ValueError(
                    f"invariants.{name}: got encoders alone ({models}), "
                    f"which give no {spec.kind!r}; allowed: a causal model, or without it"
                )
            asked = kind.is_asked(config.spectroscopy())
            raise ValueError(
                f"invariants.{name}: got no capture of kind {spec.kind!r} for it, needs "
                + ("" if asked else f"a section {kind.section!r} in the config, or ")
                + {"one": "a model", "pair": "two models", "trajectory": "two steps"}[
                    spec.signature
                ]
                + " with one"
            )


def _check_parameters(asked: Mapping[str, Mapping[str, Any]], protocol: Protocol) -> None:
    """Refuses parameters that the protocol's captures cannot serve."""
    for invariant, parameters in asked.items():
        spec = REGISTRY[invariant]
        limits = KINDS[spec.kind].limits(protocol)
        for name, wanted in parameters.items():
            if name not in limits:
                continue
            least, most, what = limits[name]
            if name in {"num_factors", "num_points"} and wanted == spec.parameters[name]:
                continue  # fitted, and what has too few is refused by itself
            if wanted > most:
                allowed = f"allowed {least}..{most} ({what})"
                if what == "protocol.sequences":
                    allowed += ", auto, or more sequences (of more text: corpus: [folder])"
                raise ValueError(f"invariants.{spec.name}.{name}: got {wanted}, {allowed}")


def _check_captured(checkpoints: Iterable[Checkpoint], config: RunConfig) -> None:
    """Refuses what no model can be made of that gives captures."""
    alone = "allowed for it: invariants of weights alone"
    for c in checkpoints:
        if c.no_logits is not None:
            raise ValueError(
                f"models: {c.where} is {c.no_logits}, no causal language model; {alone}"
            )
        if c.architecture not in CAPTURED:
            known = ", ".join(sorted(CAPTURED))
            raise ValueError(
                f"models: {c.where}: model_type: got {c.architecture!r}, {alone}; captures know "
                f"{known}"
            )
        if c.encoder and config.cluster.load == "streamed":
            raise ValueError(
                f"cluster.load: got 'streamed' with the encoder {c.model}, allowed: resident, auto"
            )
        if c.broken is not None:
            raise ValueError(f"models: {c.where}: {clipped(c.broken, 150)}; {alone}")


@dataclass(frozen=True)
class _Keys:
    """Derives the keys of captures and measurements."""

    protocol: Protocol
    tokens: Mapping[tuple[str, str], ProbeTokens]
    heads: bool
    spectroscopy: Spectroscopy
    pairs: Mapping[tuple[str, str], ProbeTokens]

    def readable(self, unit: Unit, kind: str) -> list[str | None]:
        """Probes at which a unit has a capture of this kind (None: tokens do not matter)."""
        held = unit.checkpoint.captures
        if held:
            return [probe for k, probe, _ in held if k == kind]
        of = KINDS[kind]
        if not (of.is_asked(self.spectroscopy) and of.exists(unit.checkpoint)):
            return []
        if of.token_free:
            return [] if unit.variant == "shuffled_tokens" else [None]
        if of.in_pairs and unit.variant == "shuffled_tokens":
            return []
        return list(dict.fromkeys(n for n, _ in (self.pairs if of.in_pairs else self.tokens)))

    def capture(self, unit: Unit, probe: str | None, kind: str) -> str:
        """Key of a capture: what the weights are, the tokens and their order, and the protocol."""
        of = KINDS[kind]
        view = " by head" if self.heads and of.token_free else ""
        what = f"{kind}{view} {of.version}"
        if unit.checkpoint.captures:
            return _fast_digest(*unit.content, str(probe), "recorded", what)
        if probe is None:
            return _fast_digest(*unit.content, what)
        tokens = self._tokens(unit, probe, of.in_pairs)
        shuffled = unit.variant == "shuffled_tokens"
        order = f"shuffled{unit.checkpoint.seed}" if shuffled else "in order"
        settings = of.settings(self.spectroscopy)
        others = (self._tokens(unit, name) for name in of.observed_by(self.spectroscopy))
        extra = () if settings is None else (digest_of(settings), *others)
        return _fast_digest(
            *unit.content, tokens, order, digest_for(self.protocol, kind), what, *extra
        )

    def _tokens(self, unit: Unit, probe: str, in_pairs: bool = False) -> str:
        """Digest of a probe's tokens in the unit's tokenizer."""
        held = self.pairs if in_pairs else self.tokens
        return held[probe, unit.checkpoint.tokenization].digest


def _measurements(
    groups: Iterable[tuple[Unit, ...]], specs: Sequence[tuple[Invariant, str]], keys: _Keys
) -> Iterator[Measurement]:
    """Every invariant of every group: of one unit, a pair, or the steps of a run."""
    by_kind: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for spec, params in specs:
        plugin = plugin_of(spec.name)
        source = () if plugin is None else (plugin.digest,)
        stamp = digest(spec.name, spec.version, params, *source)
        by_kind[spec.kind].append((spec.name, params, stamp))
    for group in groups:
        unit, *others = group
        stamps = [u.stamp for u in group]
        for kind, wanted in by_kind.items():
            for probe in keys.readable(unit, kind):
                if any(probe not in keys.readable(u, kind) for u in others):
                    continue
                capture = keys.capture(unit, probe, kind)
                more = tuple(Reading(u, keys.capture(u, probe, kind)) for u in others)
                read = [capture, *(r.capture_key for r in more)]
                for name, params, stamp in wanted:
                    key = _fast_digest(*stamps, *read, stamp)
                    yield Measurement(key, capture, unit, probe, kind, name, params, more)


def _fast_digest(*parts: str) -> str:
    """As `digest`, of strings without separators inside: three times faster, for 10^5 keys."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:20]


def plan_rows(plan: Plan, done: set[str]) -> Iterator[dict[str, Any]]:
    """The plan as rows of tables.PLAN; a capture's bytes stand at its first measurement.

    Args:
        done: keys of the measurements that are complete.

    Yields:
        One row a measurement.
    """
    seen: set[str] = set()
    for m in plan.measurements:
        c = m.unit.checkpoint
        held = plan.pairs if KINDS[m.kind].in_pairs else plan.tokens
        text = held.get((m.probe or "", c.tokenization))
        size = 0
        for unit, capture_key in m.readings:
            if capture_key not in seen and not unit.checkpoint.captures:
                size += capture_bytes(unit.checkpoint, m.kind, plan.protocol, plan.spectroscopy)
                seen.add(capture_key)
        yield {
            "key": m.key, "capture_key": m.capture_key, "unit": m.unit.id,
            "unit_b": m.unit_b, "series": plan.name,
            "model": c.model, "n_params": c.n_params, "seed": c.seed, "step": c.step,
            "variant": m.unit.variant, "probe": m.probe, "kind": m.kind,
            "invariant": m.invariant, "params": m.params, "bytes": size, "done": m.key in done,
            "tokens": text.digest if text else None, "tokenizer": plan.tokenizer_of(m.unit),
        }  # fmt: skip


def token_rows(plan: Plan) -> list[dict[str, Any]]:
    """The probes of a series with several tokenizers as rows of tables.TOKENS.

    Returns:
        One row a probe and tokenizer; none of a series with one tokenizer.
    """
    if len(set(plan.tokenizers.values())) < 2:
        return []
    named = {u.checkpoint.tokenization: plan.tokenizer_of(u) for u in plan.units}
    of_probes = [(named[made], probe, t) for (probe, made), t in plan.tokens.items()]
    found = {(name, probe): t for name, probe, t in of_probes if name is not None}
    return [
        {
            "tokenizer": tokenizer,
            "probe": probe,
            "bytes_per_token": None if t.bytes_per_token is None else t.bytes_per_token.mean,
            "stderr": None if t.bytes_per_token is None else t.bytes_per_token.stderr,
        }
        for (tokenizer, probe), t in found.items()
    ]
