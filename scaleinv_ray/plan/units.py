"""What a run consists of: units, measurements, the plan, and the seed of every draw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.kinds import KINDS, digest_for
from scaleinv_ray.plan.tokenizer import PerToken
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import Protocol, Variant


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
        if self.variant in {"trained", "shuffled_tokens"}:
            return (c.weights_digest, c.config_digest)
        changed = f"{self.variant.removesuffix('_weights')} {c.seed}"
        return (c.weights_digest, c.config_digest, changed)

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
        tokens_ST: int32 [sequences, length], special tokens around them.
        digest: of the tokens.
        bytes_per_token: text that a predicted token covers; counted where a series has several
            tokenizers, and None where tokens stand for no text.
        around: counts of the special tokens at the start and at the end of every sequence; they
            stay there whatever is done to the text.
        measured: captures look at these tokens too.
        known_text: a model of this kind of text should predict it better than its frequencies do.
        of_ids: ids of a file, which no tokenizer has made.
        said: what was left out of it.
        pairs: the same sequences with corrupted ones and their answers, where they are drawn in
            pairs.
    """

    name: str
    tokens_ST: np.ndarray
    digest: str
    bytes_per_token: PerToken | None = None
    around: tuple[int, int] = (0, 0)
    measured: bool = False
    known_text: bool = False
    of_ids: bool = False
    said: tuple[str, ...] = ()
    pairs: Pairs | None = None

    @property
    def text_ST(self) -> np.ndarray:
        """The tokens that captures look at."""
        behind = 0 if self.measured else self.around[1]
        return self.tokens_ST[:, self.left_out : self.tokens_ST.shape[1] - behind]

    @property
    def left_out(self) -> int:
        """Tokens at the start of every sequence that captures do not look at."""
        return 0 if self.measured else self.around[0]


class Reading(NamedTuple):
    """A unit and the key of its capture."""

    unit: Unit
    capture_key: str


class Measurement(NamedTuple):
    """One capture x one invariant, or several captures of one kind.

    Attributes:
        key: of the result.
        capture_key: of the capture it reads.
        unit: the unit.
        probe: name of the probe, None where tokens do not matter.
        kind: kind of capture.
        invariant: name.
        params: canonical JSON.
        more: the second unit of a pair, or the earlier steps of a trajectory, in order.
    """

    key: str
    capture_key: str
    unit: Unit
    probe: str | None
    kind: str
    invariant: str
    params: str
    more: tuple[Reading, ...] = ()

    @property
    def readings(self) -> list[Reading]:
        """All captures read, that of its own unit first."""
        return [Reading(self.unit, self.capture_key), *self.more]

    @property
    def unit_b(self) -> str | None:
        """Id of the second unit of a pair."""
        paired = REGISTRY[self.invariant].signature == "pair"
        return self.more[0].unit.id if paired else None


@dataclass(frozen=True)
class Plan:
    """Everything a run will do.

    Attributes:
        name: of the series.
        protocol: of all captures.
        units: all units, trained ones first.
        measurements: all measurements.
        tokens: (probe, `tokenization` of a checkpoint) -> tokens.
        equal_weights: pairs of unit ids at different steps whose weights are the same.
        spectroscopy: how curvature and chains are captured.
        tokenizers: digest of tokenizer.json -> name of the tokenizer in it.
        fitted: what of the protocol was cut down to the series, or is too little, a line each.
        points: invariant -> its parameters that were cut down to the clouds of the series.
        pairs: the same as tokens, of probes in pairs.
    """

    name: str
    protocol: Protocol
    units: tuple[Unit, ...]
    measurements: tuple[Measurement, ...]
    tokens: Mapping[tuple[str, str], ProbeTokens]
    equal_weights: tuple[tuple[str, str], ...]
    spectroscopy: Spectroscopy = Spectroscopy()
    tokenizers: Mapping[str, str] = field(default_factory=dict)
    fitted: tuple[str, ...] = ()
    points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], ProbeTokens] = field(default_factory=dict)

    @cached_property
    def last(self) -> frozenset[Checkpoint]:
        """The last checkpoint of every model with weights."""
        found: dict[tuple[str, int], Checkpoint] = {}
        for c in (u.checkpoint for u in self.units if not u.checkpoint.captures):
            held = found.setdefault((c.model, c.seed), c)
            if (c.step or 0) > (held.step or 0):
                found[c.model, c.seed] = c
        return frozenset(found.values())

    def missing(self, done: set[str]) -> list[Measurement]:
        """The measurements whose keys are not done."""
        return [m for m in self.measurements if m.key not in done]

    def tokenizer_of(self, unit: Unit) -> str | None:
        """Name of the tokenizer of a unit's model, None where it has none."""
        return self.tokenizers.get(unit.checkpoint.tokenizer_digest or "")

    def tokens_of(self, unit: Unit, probe: str, kind: str | None = None) -> ProbeTokens:
        """The tokens of a probe, as a kind reads it, in the tokenizer of the unit's model."""
        held = self.pairs if kind is not None and KINDS[kind].in_pairs else self.tokens
        return held[probe, unit.checkpoint.tokenization]


def rng_seed(protocol: Protocol, measurement: Measurement) -> int:
    """Seed of the draws: the same at every size, seed, step and variant."""
    m = measurement
    return int(digest(digest_for(protocol, m.kind), m.probe, m.invariant, m.params)[:15], 16)
