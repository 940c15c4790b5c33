"""Chains of the posterior around a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from scaleinv_ray.capture.makers import PassRequest, passes
from scaleinv_ray.capture.posterior.language_models import model_chains
from scaleinv_ray.protocols import SamplingProtocol
from scaleinv_ray.records import Chains


@passes("chains")
def _chains(asked: PassRequest) -> Iterator[Chains]:
    assert isinstance(asked.settings, SamplingProtocol)
    return model_chains(
        asked.model, asked.tokens_ST, asked.settings,
        seed=asked.seed % 2**63, observed=asked.observed, labels=asked.labels,
        left_out=asked.left_out,
    )  # fmt: skip
