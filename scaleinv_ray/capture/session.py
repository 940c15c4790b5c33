"""A checkpoint folder -> records: the sessions that an actor keeps open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedModel

from scaleinv_ray.capture.attention import attention_records
from scaleinv_ray.capture.curvature.products import Operator
from scaleinv_ray.capture.forward import FORWARD_KINDS, forward_records
from scaleinv_ray.capture.jacobians import jacobian_records
from scaleinv_ray.capture.posterior.language_models import model_chains, model_curvature
from scaleinv_ray.capture.streaming.layers import States
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.capture.streaming.records import Allocate, streamed_records
from scaleinv_ray.checkpoints.weights.loading import LoadOptions
from scaleinv_ray.checkpoints.weights.nulls import InitSource, materialise, shuffle_tokens
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import KINDS, TOKEN_FREE, Protocol, Record, Variant

Settings = TypeVar("Settings")
OPERATORS: tuple[Operator, ...] = ("hessian", "ggn")


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
    ) -> dict[str, list[Record]]:
        """Captures one probe.

        Args:
            tokens_ST: token ids, (protocol.sequences, protocol.length); permuted within each
                sequence here where the variant is shuffled_tokens.
            protocol: what makes captures comparable.
            kinds: out of `records.KINDS`, but for 'weights'.
            batch_size: sequences in a batch.
            labels: unit, probe and other fields of Record.
            spectroscopy: how the kinds hessian, ggn and chains are captured; None for none of them.
            observed: tokens of the other probes whose loss chains follow.

        Returns:
            Kind -> records, for exactly the kinds asked for.

        Raises:
            ValueError: for a kind that is unknown or needs no tokens or whose settings are not
                given, or where a capture refuses.
        """
        if unknown := kinds - (KINDS.keys() - TOKEN_FREE):
            allowed = sorted(KINDS.keys() - TOKEN_FREE)
            raise ValueError(f"kinds: got {sorted(unknown)}, allowed {allowed}")
        if self.source.variant == "shuffled_tokens":
            tokens_ST = shuffle_tokens(tokens_ST, self.source.seed)
        draws = int(protocol.digest(), 16)  # the same units and rows for every model
        records: dict[str, list[Record]] = {}
        if one_pass := kinds & FORWARD_KINDS:
            records |= forward_records(
                self.model,
                tokens_ST,
                protocol,
                kinds=one_pass,
                batch_size=batch_size,
                labels=labels,
                seed_units=draws,
            )
        if "attention" in kinds:
            records["attention"] = [
                *attention_records(self.model, tokens_ST, protocol, labels=labels)
            ]
        if "jacobians" in kinds:
            jacobians = jacobian_records(
                self.model, tokens_ST, protocol, labels=labels, seed_rows=draws
            )
            records["jacobians"] = [*jacobians]
        of_loss = self._of_loss(
            tokens_ST, kinds, spectroscopy or Spectroscopy(),
            seed=draws % 2**63, observed=observed, labels=labels,
        )  # fmt: skip
        return records | of_loss

    def _of_loss(
        self,
        tokens_ST: np.ndarray,
        kinds: frozenset[str],
        spectroscopy: Spectroscopy,
        *,
        seed: int,
        observed: Mapping[str, np.ndarray] | None,
        labels: Mapping[str, Any] | None,
    ) -> dict[str, list[Record]]:
        """The kinds that look at the loss as a function of the weights."""
        records: dict[str, list[Record]] = {}
        for operator in OPERATORS:
            if operator in kinds:
                asked = _asked(spectroscopy.curvature, operator)
                records[operator] = [
                    *model_curvature(
                        self.model, tokens_ST, asked, operator, seed=seed, labels=labels
                    )
                ]
        if "chains" in kinds:
            sampling = _asked(spectroscopy.sampling, "chains")
            records["chains"] = [
                *model_chains(
                    self.model, tokens_ST, sampling, seed=seed, observed=observed, labels=labels
                )
            ]
        return records


def _asked(settings: Settings | None, kind: str) -> Settings:
    if settings is None:
        raise ValueError(f"kinds: got {kind!r}, which needs its settings in spectroscopy")
    return settings


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
        seed = source.seed if source.variant == "shuffled_weights" else None
        return cls(source, StreamedModel.open(folder, source.options, shuffle_seed=seed))

    def records(
        self,
        tokens_ST: np.ndarray,
        protocol: Protocol,
        states: States,
        *,
        kinds: frozenset[str],
        batch_size: int,
        labels: Mapping[str, Any] | None = None,
        keep: Callable[[Record], Record] = lambda record: record,
        allocate: Allocate = np.empty,
    ) -> dict[str, list[Record]]:
        """Captures one probe, as `Session.records`.

        Args:
            tokens_ST: token ids; permuted here where the variant is shuffled_tokens.
            protocol: what makes captures comparable.
            states: hold the hidden states between the blocks.
            kinds: out of `forward.FORWARD_KINDS`.
            batch_size: sequences in a batch.
            labels: unit, probe and other fields of Record.
            keep: as of `streamed_records`.
            allocate: as of `streamed_records`.

        Returns:
            Kind -> records, for exactly the kinds asked for.

        Raises:
            ValueError: for a kind that needs the whole model, or where a capture refuses.
        """
        if whole := kinds - FORWARD_KINDS:
            raise ValueError(
                f"kinds: got {sorted(whole)} of a streamed model, which is never whole in memory; "
                f"allowed {sorted(FORWARD_KINDS)}, or cluster.load: resident"
            )
        if self.source.variant == "shuffled_tokens":
            tokens_ST = shuffle_tokens(tokens_ST, self.source.seed)
        return streamed_records(
            self.streamed,
            tokens_ST,
            protocol,
            states,
            kinds=kinds,
            batch_size=batch_size,
            labels=labels,
            seed_units=int(protocol.digest(), 16),
            keep=keep,
            allocate=allocate,
        )
