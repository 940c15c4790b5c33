"""A checkpoint folder -> records: the sessions that an actor keeps open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.capture.makers import PASSES, Allocate, PassRequest
from scaleinv_ray.capture.streaming.layers import States
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.capture.streaming.records import Keep, as_it_is, streamed_records
from scaleinv_ray.checkpoints.weights.loading import LoadOptions
from scaleinv_ray.checkpoints.weights.nulls import InitSource, materialise
from scaleinv_ray.kinds import KINDS, Settings, digest_for, of_tokens, one_pass_kinds
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import Protocol, Record, Variant


@dataclass(frozen=True)
class Source:
    """What is captured from.

    Attributes:
        folder: checkpoint folder.
        variant: trained or a null.
        seed: of the nulls.
        init_folder: the run's own step 0, for random_init.
        options: device, dtype, attention.
    """

    folder: Path
    variant: Variant = "trained"
    seed: int = 0
    init_folder: Path | None = None
    options: LoadOptions = field(default_factory=LoadOptions)


@dataclass(frozen=True)
class Session:
    """One loaded model that serves several probes.

    Attributes:
        source: what was loaded.
        model: the model.
        init: source of a random_init, None for other variants.
    """

    source: Source
    model: PreTrainedModel
    init: InitSource | None

    @classmethod
    def open(cls, source: Source) -> Session:
        """Loads the model of a source."""
        loaded = materialise(
            source.folder,
            source.variant,
            source.seed,
            init_folder=source.init_folder,
            options=source.options,
        )
        return cls(source, loaded.model, loaded.init)

    def records(
        self,
        tokens_ST: np.ndarray,
        protocol: Protocol,
        *,
        kinds: frozenset[str],
        batch_size: int,
        labels: Mapping[str, Any] | None = None,
        spectroscopy: Spectroscopy | None = None,
        observed: Mapping[str, np.ndarray] | None = None,
        pairs: Pairs | None = None,
        mask_id: int | None = None,
        left_out: int = 0,
    ) -> dict[str, list[Record]]:
        """Captures one probe.

        Args:
            tokens_ST: token ids, as of `PassRequest`.
            kinds: out of `kinds.KINDS`, but for those without tokens.
            labels: unit, probe and other fields of Record.
            spectroscopy: settings of the kinds that have a section of the config; None for none.
            observed: tokens of the other probes that settings name.
            pairs: of the probe, for kinds that read it so.
            mask_id: the token that stands for a hidden one, where the model has one.
            left_out: as of `PassRequest`.

        Returns:
            Kind -> records, for exactly the kinds asked for.

        Raises:
            ValueError: for a kind that is unknown or needs no tokens or whose settings are not
                given, or where a capture refuses.
        """
        if unknown := kinds - of_tokens():
            raise ValueError(f"kinds: got {sorted(unknown)}, allowed {sorted(of_tokens())}")
        asked = PassRequest(
            self.model,
            tokens_ST,
            protocol,
            labels or {},
            observed=observed or {},
            pairs=pairs,
            mask_id=mask_id,
            batch_size=batch_size,
            left_out=left_out,
        )
        own = _settings(kinds - one_pass_kinds(), spectroscopy or Spectroscopy())
        records: dict[str, list[Record]] = {}
        if one_pass := kinds & one_pass_kinds():
            records |= forward_records(
                self.model,
                tokens_ST,
                protocol,
                kinds=one_pass,
                batch_size=batch_size,
                labels=labels,
                seed_units=_draws(protocol, "stream"),
                left_out=left_out,
            )
        for kind, settings in own.items():
            records[kind] = [
                *PASSES[kind](replace(asked, settings=settings, seed=_draws(protocol, kind)))
            ]
        return records


def _draws(protocol: Protocol, kind: str) -> int:
    """Seed of what is drawn: the same units, rows and vectors for every model."""
    return int(digest_for(protocol, kind), 16)


def _settings(kinds: frozenset[str], asked: Spectroscopy) -> dict[str, Settings | None]:
    """Kinds with a pass of their own, in the order of the list, each with its settings."""
    found = {name: kind.settings(asked) for name, kind in KINDS.items() if name in kinds}
    for name, settings in found.items():
        if KINDS[name].section and settings is None:
            raise ValueError(f"kinds: got {name!r}, which needs its settings in spectroscopy")
    return found


@dataclass(frozen=True)
class StreamedSession:
    """A model that is read layer by layer; it gives what comes out of one forward pass.

    Attributes:
        source: what is read.
        streamed: the model.
    """

    source: Source
    streamed: StreamedModel

    @classmethod
    def open(cls, source: Source) -> StreamedSession:
        """Builds the skeleton of a source; reads no weight.

        Raises:
            ValueError: for random_init of a model without its own step 0, which would have to be
                drawn whole in memory, or where the folder is not whole.
        """
        folder = source.folder
        if source.variant == "random_init":
            if source.init_folder is None:
                raise ValueError(
                    f"variant: got 'random_init' of {folder}, which has no step 0 of its own and "
                    "is streamed; allowed: a run with step 0, or cluster.load: resident"
                )
            folder = source.init_folder
        variant, seed = source.variant, source.seed
        streamed = StreamedModel.open(folder, source.options, variant=variant, seed=seed)
        return cls(source, streamed)

    def records(
        self,
        tokens_ST: np.ndarray,
        protocol: Protocol,
        states: States,
        *,
        kinds: frozenset[str],
        batch_size: int,
        labels: Mapping[str, Any] | None = None,
        left_out: int = 0,
        keep: Keep = as_it_is,
        allocate: Allocate = np.empty,
    ) -> dict[str, list[Record]]:
        """Captures one probe, as `Session.records`.

        Args:
            tokens_ST: token ids, as of `PassRequest`.
            states: hold the hidden states between the blocks.
            kinds: those of one pass in `kinds.KINDS`.
            labels: unit, probe and other fields of Record.
            left_out: as of `PassRequest`.
            keep: as of `streamed_records`.
            allocate: as of `streamed_records`.

        Returns:
            Kind -> records, for exactly the kinds asked for.

        Raises:
            ValueError: for a kind that needs the whole model, or where a capture refuses.
        """
        if whole := kinds - one_pass_kinds():
            raise ValueError(
                f"kinds: got {sorted(whole)} of a streamed model, which is never whole in memory; "
                f"allowed {sorted(one_pass_kinds())}, or cluster.load: resident"
            )
        return streamed_records(
            self.streamed,
            tokens_ST,
            protocol,
            states,
            kinds=kinds,
            batch_size=batch_size,
            labels=labels,
            seed_units=_draws(protocol, "stream"),
            left_out=left_out,
            keep=keep,
            allocate=allocate,
        )
