"""Curvature and chains of a language model on a probe: what a run captures on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.blocks import ParameterBlock, parameter_blocks
from scaleinv_ray.capture.curvature import Operator, Parameters, curvature_records, language_loss
from scaleinv_ray.capture.sampling import chain_records, language_losses
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
) -> Iterator[Lanczos]:
    """Densities of states of a language model's loss on the first sequences of a probe.

    Args:
        model: in eval mode, whole in memory; lower precision is lifted to float32.
        tokens_ST: the probe.
        protocol: how much of it, and which blocks of parameters.
        operator: 'hessian' or 'ggn'.
        seed: of the probe vectors.
        labels: unit, probe and other fields of Record.

    Yields:
        A record for each block of parameters; its site is the kind of block.

    Raises:
        ValueError: for parameters that are not in memory, and as `curvature_records`.
    """
    loss = language_loss(model)
    parameters = _whole(model)
    device = next(iter(parameters.values())).device
    used = torch.from_numpy(tokens_ST[: protocol.sequences]).long().to(device)
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
) -> Iterator[Chains]:
    """Chains around a language model, whose samples are the first sequences of a probe.

    Args:
        model: in eval mode, whole in memory; lower precision is lifted to float32.
        tokens_ST: the probe.
        protocol: sampler, ladder and blocks of parameters.
        seed: of the chains.
        observed: tokens of other probes, the first `batch` sequences of which are followed, and
            those of the probe itself beside them.
        labels: unit, probe and other fields of Record.

    Yields:
        A record for each block of parameters; its site is the kind of block.

    Raises:
        ValueError: for parameters that are not in memory, and as `chain_records`.
    """
    parameters = _whole(model)
    device = next(iter(parameters.values())).device
    own = str((labels or {}).get("probe"))
    # the probe itself on a fixed batch: a susceptibility of its own, without batch noise
    seen = {own: tokens_ST, **observed} if observed else {}
    others = {
        name: torch.from_numpy(other_ST[: protocol.batch]).long().to(device)
        for name, other_ST in seen.items()
    }
    for block in parameter_blocks(model, protocol.blocks):
        yield from chain_records(
            language_losses(model),
            parameters,
            torch.from_numpy(tokens_ST[: protocol.sequences]).long().to(device),
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


def _whole(model: PreTrainedModel) -> Parameters:
    """The parameters, in float32 at least: second derivatives want them all, and precise."""
    placed: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    places = {str(place) for place in placed.values()}
    if "disk" in places or len(places) > 1:
        raise ValueError(f"model: got weights on {sorted(places)}, allowed a model on one device")
    named = dict(model.named_parameters())
    absent = [n for n, p in named.items() if p.is_meta]
    if absent:
        raise ValueError(f"model: got {absent[0]!r} out of memory, allowed weights in memory")
    low = {torch.float16, torch.bfloat16}
    return {n: p.detach().float() if p.dtype in low else p.detach() for n, p in named.items()}
