"""The sections of a config that ask for curvature and for chains."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from scaleinv_ray.config.fields import Float, Name, Natural, Options, Positive, Text, distinct
from scaleinv_ray.protocols import CurvatureProtocol, Sampler, SamplingProtocol

Blocks = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(distinct)]


class CurvatureOptions(Options):
    """The fields of protocols.CurvatureProtocol, which says what they mean."""

    sequences: Positive = CurvatureProtocol.sequences
    batch: Positive | None = CurvatureProtocol.batch
    num_steps: Annotated[Positive, Field(le=10_000)] = CurvatureProtocol.num_steps
    num_probes: Annotated[Positive, Field(le=10_000)] = CurvatureProtocol.num_probes
    blocks: Blocks = CurvatureProtocol.blocks
    sketch: Natural = CurvatureProtocol.sketch

    def protocol(self) -> CurvatureProtocol:
        """What captures are made by."""
        return CurvatureProtocol(**self.model_dump())

    @model_validator(mode="after")
    def _consistent(self) -> CurvatureOptions:
        self.protocol()  # raises
        return self


class SamplingOptions(Options):
    """The fields of protocols.SamplingProtocol, which says what they mean."""

    sequences: Positive = SamplingProtocol.sequences
    batch: Positive = SamplingProtocol.batch
    sampler: Sampler = SamplingProtocol.sampler
    chains: Annotated[Positive, Field(le=10_000)] = SamplingProtocol.chains
    draws: Annotated[Positive, Field(le=10**7)] = SamplingProtocol.draws
    burn_in: Natural = SamplingProtocol.burn_in
    nbetas: tuple[Float, ...] = SamplingProtocol.nbetas
    localisers: tuple[Float, ...] = SamplingProtocol.localisers
    blocks: Blocks = SamplingProtocol.blocks
    observed: Annotated[tuple[Name, ...], AfterValidator(distinct)] = SamplingProtocol.observed

    def protocol(self) -> SamplingProtocol:
        """What captures are made by."""
        return SamplingProtocol(**self.model_dump())

    @model_validator(mode="after")
    def _consistent(self) -> SamplingOptions:
        self.protocol()  # raises
        return self
