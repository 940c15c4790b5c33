"""From a config to units, captures and measurements, each with its key. Computes no invariant.

A unit is (series, model, step, seed, variant). A capture is keyed by its content (weights, variant,
tokens, protocol, kind), so equal contents are captured once. A measurement is keyed by its unit,
its capture and the invariant with version and parameters.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from scaleinv_ray import invariants, probes, series
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import REGISTRY, Invariant
from scaleinv_ray.costs import TOKENS_PER_UNIT, capture_bytes
from scaleinv_ray.probes.corpus import Corpus, load_corpus
from scaleinv_ray.records import CAPTURE_VERSION, TOKEN_FREE, Protocol, Variant
from scaleinv_ray.series import Checkpoint

assert invariants, "importing the package registers the invariants"


def digest(*parts: object) -> str:
    """First 20 hex digits of the sha256 of the canonical JSON of the parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Unit:
    """A model at a step in a variant.

    Attributes:
        series: name of the series.
        checkpoint: the model.
        variant: trained or one of the nulls.
    """

    series: str
    checkpoint: Checkpoint
    variant: Variant

    @cached_property
    def id(self) -> str:
        """`series/model/step/seed/variant`."""
        c = self.checkpoint
        return f"{self.series}/{c.model}/{c.step}/{c.seed}/{self.variant}"

    @cached_property
    def content(self) -> tuple[str, ...]:
        """What the weights are: equal contents give equal captures whatever the unit is called."""
        c = self.checkpoint
        if self.variant == "random_init":
            if c.init_digest is not None:
                return (c.init_digest, c.config_digest)
            return ("from_config", c.config_digest, str(c.seed))
        if self.variant == "shuffled_weights":
            return (c.weights_digest, c.config_digest, f"shuffled {c.seed}")
        return (c.weights_digest, c.config_digest)

    @cached_property
    def stamp(self) -> str:
        """Everything of the unit that stands in its rows, so that a correction gives a new key."""
        c = self.checkpoint
        return f"{self.id} {c.architecture} {c.n_params} {c.train_tokens} {c.eval_loss}"


@dataclass(frozen=True)
class ProbeTokens:
    """The tokens of one probe in one tokenizer.

    Attributes:
        name: of the probe.
        tokens_ST: int32 [sequences, length].
        digest: of the tokens.
    """

    name: str
    tokens_ST: np.ndarray
    digest: str


class Measurement(NamedTuple):
    """One capture x one invariant.

    Attributes:
        key: of the result.
        capture_key: of the capture it reads.
        unit: the unit.
        probe: name of the probe, None where tokens do not matter.
        kind: kind of capture.
        invariant: name.
        params: canonical JSON.
    """

    key: str
    capture_key: str
    unit: Unit
    probe: str | None
    kind: str
    invariant: str
    params: str


@dataclass(frozen=True)
class Plan:
    """Everything a run will do.

    Attributes:
        name: of the series.
        protocol: of all captures.
        units: all units, trained ones first.
        measurements: all measurements.
        tokens: (probe, tokenizer digest) -> tokens.
        equal_weights: pairs of unit ids at different steps whose weights are the same.
    """

    name: str
    protocol: Protocol
    units: tuple[Unit, ...]
    measurements: tuple[Measurement, ...]
    tokens: Mapping[tuple[str, str], ProbeTokens]
    equal_weights: tuple[tuple[str, str], ...]

    def missing(self, done: set[str]) -> list[Measurement]:
        """The measurements whose keys are not done."""
        return [m for m in self.measurements if m.key not in done]

    def tokens_of(self, unit: Unit, probe: str) -> ProbeTokens:
        """The probe's tokens in the tokenizer of the unit's model."""
        return self.tokens[probe, unit.checkpoint.tokenizer_digest or ""]


def rng_seed(protocol: Protocol, measurement: Measurement) -> int:
    """Seed of the draws: the same at every size, seed, step and variant."""
    m = measurement
    return int(digest(protocol.digest(), m.probe, m.invariant, m.params)[:15], 16)


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
    tokens = _probe_tokens(config, checkpoints, protocol) if on_tokens else {}
    for checkpoint in checkpoints if on_tokens else []:
        _check_widths(checkpoint, protocol, {s.kind for s, _ in specs})
    measurements = _measurements(units, specs, protocol, tokens)
    pairs = tuple(
        (f"{a.model}@{a.step}", f"{b.model}@{b.step}") for a, b in series.equal_weights(checkpoints)
    )
    return Plan(config.name, protocol, tuple(units), tuple(measurements), tokens, pairs)


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


def _probe_tokens(
    config: RunConfig, checkpoints: Sequence[Checkpoint], protocol: Protocol
) -> dict[tuple[str, str], ProbeTokens]:
    first: dict[str, Checkpoint] = {}
    for c in checkpoints:
        if c.tokenizer_file is None or c.tokenizer_digest is None:
            raise ValueError(f"model {c.model}: got no tokenizer.json, needed by the probes")
        first.setdefault(c.tokenizer_digest, c)
    corpus = _corpus(config.corpus)
    found = {}
    for tokenizer_digest, checkpoint in first.items():
        tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
        vocab = min(c.vocab_size for c in checkpoints if c.tokenizer_digest == tokenizer_digest)
        special = [i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special]
        for name in config.probes:
            tokens = probes.build_tokens(
                name,
                partial(_encode, tokenizer),
                sequences=protocol.sequences,
                length=protocol.length,
                vocab_size=min(vocab, tokenizer.get_vocab_size()),
                special_ids=special,
                corpus=corpus,
                rng=np.random.default_rng(int(digest(name, protocol.digest())[:15], 16)),
            )
            content = hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).hexdigest()[:20]
            found[name, tokenizer_digest] = ProbeTokens(name, tokens, content)
    return found


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@lru_cache(maxsize=4)
def _corpus(spec: str | tuple[str, ...]) -> Corpus:
    return load_corpus(spec)


def _measurements(
    units: Sequence[Unit],
    specs: Sequence[tuple[Invariant, str]],
    protocol: Protocol,
    tokens: Mapping[tuple[str, str], ProbeTokens],
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
                capture = _capture_key(unit, probe, kind, protocol, tokens)
                for name, params, stamp in wanted:
                    key = _fast_digest(of_unit, capture, stamp)
                    out.append(Measurement(key, capture, unit, probe, kind, name, params))
    return out


def _capture_key(
    unit: Unit,
    probe: str | None,
    kind: str,
    protocol: Protocol,
    tokens: Mapping[tuple[str, str], ProbeTokens],
) -> str:
    what = f"{kind} {CAPTURE_VERSION[kind]}"
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
        size = 0 if m.capture_key in seen else capture_bytes(c, m.kind, plan.protocol)
        seen.add(m.capture_key)
        rows.append({
            "key": m.key, "capture_key": m.capture_key, "unit": m.unit.id, "series": plan.name,
            "model": c.model, "n_params": c.n_params, "seed": c.seed, "step": c.step,
            "variant": m.unit.variant, "probe": m.probe, "kind": m.kind,
            "invariant": m.invariant, "params": m.params, "bytes": size, "done": m.key in done,
        })  # fmt: skip
    return rows
