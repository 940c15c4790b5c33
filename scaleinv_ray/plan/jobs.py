"""What driver and workers send each other: names, paths, seeds and pairs, no models and no rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import scaleinv_ray
from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.contract import REGISTRY, Invariant
from scaleinv_ray.kinds import one_pass_kinds
from scaleinv_ray.plan.costs import Load
from scaleinv_ray.plugins.loading import Plugin
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import Protocol, Variant

FAILED = ".failed.parquet"
"""Suffix of a measurement that raised: it is no completion and is tried again by the next run."""

SANITY_SEQUENCES = 32
"""Of a probe, at which a trained model is looked at before it is captured."""


@dataclass(frozen=True)
class WeightSource:
    """Weights with what is done to them; the worker fetches what lies on a hub.

    Attributes:
        checkpoint: where the weights are.
        variant: trained, random_init or shuffled_weights.
        trusted: code of the model's repository may run.
        per_head: attention projections are split by head.
    """

    checkpoint: Checkpoint
    variant: Variant
    trusted: bool = False
    per_head: bool = False

    def folder(self) -> Path:
        """The checkpoint's folder on this machine; ValueError where its weights have changed."""
        self.check()
        return checkpoints.fetch(self.checkpoint, remote_code=self.trusted)

    def check(self) -> None:
        """Raises ValueError where the weights are no longer those of the plan."""
        checkpoints.check_unchanged(self.checkpoint, initial=self.variant == "random_init")

    def init_folder(self) -> Path | None:
        """The run's own step 0, where the variant wants it and it exists."""
        if self.variant != "random_init":
            return None
        return checkpoints.fetch_init(self.checkpoint, remote_code=self.trusted)


@dataclass(frozen=True)
class Range:
    """Of the records of a large checkpoint those of one stored tensor, foreseen from its header.

    Attributes:
        tensor: its name in the file.
        index: its place among the ranges, in the order of an undivided reading.
        count: of the ranges.
        memory: bytes that its task asks for.
        seconds: that it is expected to take.
        layer: block index, None outside blocks.
        depth: of the block, as records have it.
        role: of the matrix, None where it is several at once.
    """

    tensor: str
    index: int
    count: int
    memory: int
    seconds: float
    layer: int | None = None
    depth: float | None = None
    role: str | None = None


@dataclass(frozen=True)
class MeasureJob:
    """A measurement to be made, as sent to a worker: names and paths, no arrays.

    Attributes:
        key: name of the measurement in the store.
        invariant: registered name.
        params: canonical JSON of its parameters.
        rng_seed: depends on protocol, probe, invariant and parameters, never on the model.
        source: path of the capture file, or where weights are streamed from.
        labels: the columns of the unit, equal in all rows.
        more: the second model of a pair, or the earlier steps of a trajectory.
        steps: of a trajectory, those of `more`; that of the source stands in the labels.
        only: the range of records that it reads; None for all of them.
        digests: path -> sha256 of the captures that were made elsewhere.
        plugin: the source of an invariant from outside the package.
    """

    key: str
    invariant: str
    params: str
    rng_seed: int
    source: str | WeightSource
    labels: Mapping[str, Any]
    more: tuple[str | WeightSource, ...] = ()
    steps: tuple[int | None, ...] = ()
    only: Range | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    plugin: Plugin | None = None

    @property
    def spec(self) -> Invariant:
        """The invariant, registered in this process; ValueError where its source does not load."""
        if self.plugin is not None:
            self.plugin.load()
        return REGISTRY[self.invariant]

    def check(self) -> None:
        """Raises ValueError where a capture made elsewhere is no longer that of the plan."""
        for path, digest in self.digests.items():
            checkpoints.check_file(Path(path), digest)

    @property
    def stem(self) -> str:
        """Name of its tables in their folders, without suffix."""
        if self.only is None:
            return self.key
        return f"{self.key}-{self.only.index:05d}-of-{self.only.count:05d}"

    @property
    def name(self) -> str:
        """Its rows in the store, without suffix."""
        return f"measurements/{self.stem}"

    def paths(self) -> list[str]:
        """The capture files it reads."""
        return [p for p in (self.source, *self.more) if isinstance(p, str)]


@dataclass(frozen=True)
class Held:
    """A capture file on scratch disks.

    Attributes:
        size: bytes.
        nodes: ids of those that have it, the one that made it first.
    """

    size: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Fetch:
    """A copy of a capture that was made for measurements on another node.

    Attributes:
        path: of the file, as jobs name it.
        source: id of the node it came from.
        node: id of the node it went to.
        size: bytes.
        wall_s: seconds it took.
    """

    path: str
    source: str
    node: str
    size: int
    wall_s: float


@dataclass(frozen=True)
class Unfetched:
    """A measurement that was not made, for want of a capture file.

    Attributes:
        key: of the measurement.
        path: of the file, as jobs name it.
        gone: ids of the nodes that did not give it; none where this node could not take it.
        error: why, with the file and the node.
        fetches: copies of its other files that were made.
        damaged: the file is there and is not what was written.
    """

    key: str
    path: str
    gone: tuple[str, ...]
    error: str
    fetches: tuple[Fetch, ...] = ()
    damaged: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a worker reports of one measurement.

    Attributes:
        key: of the measurement.
        invariant: its name.
        counts: rows by status.
        wall_s: seconds it took.
        error: of the first failed row.
        fetches: copies of captures that were made for it.
    """

    key: str
    invariant: str
    counts: Mapping[str, int]
    wall_s: float
    error: str | None
    fetches: tuple[Fetch, ...] = ()


@dataclass(frozen=True)
class ProbeCaptures:
    """The captures that are wanted of one set of weights at one probe.

    Attributes:
        probe: name.
        tokens: digest of the probe's tokens.
        shuffle_seed: permute the tokens within each sequence, None leaves them in order.
        paths: kind -> file to write.
        around: counts of the special tokens at the start and at the end of every sequence, which
            are not permuted.
        left_out: of those at the start, the ones that are not looked at.
        sanity: the loss of its first sequences is asked for, before anything is captured where the
            model is whole in memory.
    """

    probe: str
    tokens: str
    shuffle_seed: int | None
    paths: Mapping[str, str]
    around: tuple[int, int] = (0, 0)
    left_out: int = 0
    sanity: bool = False

    @property
    def passes(self) -> list[frozenset[str]]:
        """The kinds wanted, those together that come out of one forward pass."""
        wanted = frozenset(self.paths)
        single = [frozenset({kind}) for kind in sorted(wanted - one_pass_kinds())]
        together = wanted & one_pass_kinds()
        return [together, *single] if together else single


@dataclass(frozen=True)
class CaptureJob:
    """All captures that one set of weights has to give: the model is loaded once.

    Attributes:
        weights: the weights and what is done to them (shuffled tokens are a matter of `wanted`).
        wanted: the captures of each probe.
        protocol: of the run.
        facts: written into every file's metadata.
        batch_size: sequences in a forward pass.
        load: resident, streamed, or auto for what fits.
        spectroscopy: how curvature and chains are captured.
        observed: probe -> digest of its tokens, of those whose loss chains follow.
        pairs: probe -> its pairs, a few sequences each, of the kinds that read them.
        spared: why the model is streamed although `load` does not say so; empty where it is not.
    """

    weights: WeightSource
    wanted: tuple[ProbeCaptures, ...]
    protocol: Protocol
    facts: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 32
    load: Load = "auto"
    spectroscopy: Spectroscopy = Spectroscopy()
    observed: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    spared: str = ""

    def paths(self) -> list[str]:
        """The files it is to write."""
        return [path for of in self.wanted for path in of.paths.values()]

    def renamed(self, names: Mapping[str, str]) -> CaptureJob:
        """The part of it that writes the files in `names`, under the new names given there."""
        renamed = (
            replace(t, paths={k: names[p] for k, p in t.paths.items() if p in names})
            for t in self.wanted
        )
        return replace(self, wanted=tuple(t for t in renamed if t.paths))


@dataclass(frozen=True)
class CaptureOutcome:
    """What an actor reports.

    Attributes:
        written: bytes by path.
        failed: the error of what was not written, by path.
        wall_s: seconds it took.
        load: how the model was put into memory.
        reason: why so.
        tokens: that went through the model.
        losses: by probe, nats a token of the first `SANITY_SEQUENCES`, where they were asked for.
    """

    written: Mapping[str, int]
    failed: Mapping[str, str]
    wall_s: float
    load: str = "resident"
    reason: str = ""
    tokens: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ActorPlace:
    """Where an actor runs, and writes and serves its captures.

    Attributes:
        pid: of its process.
        node: id of its node.
        address: of its node.
        oom_kills: processes that its kernel had killed for memory when the actor came.
    """

    pid: int
    node: str
    address: str
    oom_kills: int = 0


@dataclass
class Jobs:
    """What a run has to do: what a plan yields, and what a driver is given.

    Attributes:
        captures: jobs for the actors.
        measurements: jobs for the tasks.
        tokens: digest -> tokens, for the captures.
        found: captures that exist already, by path, and are made only if they are lost.
    """

    captures: Sequence[CaptureJob]
    measurements: Sequence[MeasureJob]
    tokens: Mapping[str, np.ndarray]
    found: Mapping[str, Held] = field(default_factory=dict)


@cache
def code_version() -> str:
    """Version of the package and the first digits of the sha256 of its sources."""
    folder = Path(scaleinv_ray.__file__).parent
    sources = b"".join(p.read_bytes() for p in sorted(folder.rglob("*.py")))
    return f"{version('scaleinv-ray')}+{hashlib.sha256(sources).hexdigest()[:10]}"
