"""Curvature and chains of a language model on a probe: what a run captures on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.blocks import ParameterBlock, parameter_blocks
from scaleinv_ray.capture.curvature.products import (
    Operator,
    Parameters,
    curvature_records,
    language_loss,
)
from scaleinv_ray.capture.posterior.chains import chain_records, language_losses
from scaleinv_ray.capture.sites import check_tokens, check_whole, to_device
from scaleinv_ray.protocols import CurvatureProtocol, SamplingProtocol
from scaleinv_ray.records import Chains, Lanczos


def model_curvature(
    model: PreTrainedModel,
    tokens_ST: np.ndarray,
    protocol: CurvatureProtocol,
    operator: Operator,
    *,
    seed: int,
    labels: Mapping[str, Any] | None = None,
    left_out: int = 0,
) -> Iterator[Lanczos]:
    """Densities of states of a language model's loss on the first sequences of a probe.

    Args:
        model: in eval mode, whole in memory; lower precision is lifted to float32.
        protocol: how much of it, and which blocks of parameters.
        operator: 'hessian' or 'ggn'.
        labels: unit, probe and other fields of Record.
        left_out: tokens at the beginning of every sequence; neither they nor the token after them
            are among those whose prediction is asked.

    Yields:
        A record for each block of parameters; its site is the kind of block.

    Raises:
        ValueError: for a model that is not causal or not whole in memory, bad tokens (see
            `check_tokens`) or too few sequences, and as `curvature_records`.
    """
    loss = language_loss(model, left_out)
    parameters = _parameters(model)
    used = _first(model, tokens_ST, protocol.sequences)
    for block in parameter_blocks(model, protocol.blocks):
        yield from curvature_records(
            loss,
            parameters,
            list(used.split(protocol.batch or len(used))),
            generator=torch.Generator().manual_seed(seed),
            operator=operator,
            blocks={block.name: block.parameters},
            num_steps=protocol.num_steps,
            num_probes=protocol.num_probes,
            keep_basis=protocol.sketch > 0,
            sketch=protocol.sketch,
            labels={**(labels or {}), **_place(model, block)},
        )


def model_chains(
    model: PreTrainedModel,
    tokens_ST: np.ndarray,
    protocol: SamplingProtocol,
    *,
    seed: int,
    observed: Mapping[str, np.ndarray] | None = None,
    labels: Mapping[str, Any] | None = None,
    left_out: int = 0,
) -> Iterator[Chains]:
    """Chains around a language model, whose samples are the first sequences of a probe.

    Args:
        model: in eval mode, whole in memory; lower precision is lifted to float32.
        protocol: sampler, ladder and blocks of parameters.
        observed: tokens of other probes, the first `batch` sequences of which are followed, and
            those of the probe itself beside them (of `tokens_ST`, whatever is given by its name).
        labels: unit, probe and other fields of Record.
        left_out: as of `model_curvature`, of all these probes.

    Yields:
        A record for each block of parameters; its site is the kind of block.

    Raises:
        ValueError: for a model that is not causal or not whole in memory, bad tokens (see
            `check_tokens`) or too few sequences, and as `chain_records`.
    """
    parameters = _parameters(model)
    used = _first(model, tokens_ST, protocol.sequences)
    own = str((labels or {}).get("probe"))
    # the probe itself on a fixed batch: a susceptibility of its own, without batch noise; as it is
    # sampled from, where its tokens are shuffled too
    seen = {own: tokens_ST} | dict(observed) | {own: tokens_ST} if observed else {}
    others = {name: _first(model, tokens, protocol.batch) for name, tokens in seen.items()}
    for block in parameter_blocks(model, protocol.blocks):
        yield from chain_records(
            language_losses(model, left_out),
            parameters,
            used,
            generator=torch.Generator().manual_seed(seed),
            sampler=protocol.sampler,
            blocks={block.name: block.parameters},
            nbetas=protocol.nbetas or None,
            gamma_factors=protocol.localisers,
            num_chains=protocol.chains,
            num_steps=protocol.draws,
            burn_in=protocol.burn_in,
            batch_size=protocol.batch,
            observed=others,
            labels={**(labels or {}), **_place(model, block)},
        )


def _place(model: PreTrainedModel, block: ParameterBlock) -> dict[str, Any]:
    layers = architecture_of(model.config).num_layers
    return {"site": block.site, "layer": block.layer, "num_layers": layers}


def _parameters(model: PreTrainedModel) -> Parameters:
    """The parameters, in float32 at least: second derivatives want them all, and precise."""
    if not architecture_of(model.config).causal:
        raise ValueError("model: got attention that is not causal, allowed next-token models")
    check_whole(model)
    low = {torch.float16, torch.bfloat16}
    named = model.named_parameters()
    return {n: p.detach().float() if p.dtype in low else p.detach() for n, p in named}


def _first(model: PreTrainedModel, tokens_ST: np.ndarray, sequences: int) -> torch.Tensor:
    """The first sequences of a probe, on the model's device."""
    check_tokens(model, tokens_ST)
    if sequences > len(tokens_ST):
        raise ValueError(f"sequences: got {sequences}, allowed 1..{len(tokens_ST)} (of the probe)")
    return to_device(tokens_ST[:sequences], model)
