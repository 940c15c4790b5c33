"""Chains of the posterior localised at given parameters, of any loss of parameters and data.

Small nets and Hugging Face models share this code; what the draws mean is computed from the records
(invariants/degeneracy). Shape suffixes: P coordinates that move, N settings (nbeta, gamma), C
chains, R = N C rows, S draws, Q other probes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel

from scaleinv_ray.capture.curvature.products import Parameters, language_loss
from scaleinv_ray.capture.posterior.loss import CHUNK, Block, Data, Losses, Posterior
from scaleinv_ray.capture.posterior.samplers import SAMPLERS, Length, run
from scaleinv_ray.capture.posterior.tempering import (
    ChainRequest,
    Curvature,
    GradientNoise,
    Pilot,
    Settings,
    starts,
)
from scaleinv_ray.capture.sites import check_whole
from scaleinv_ray.records import Chains

TOGETHER_PARAMETERS = 100_000
"""Nets up to this size have all chains evaluated in one call."""
DISPERSED_PARAMETERS = 5_000_000
"""Above it no Lanczos basis is held, and all chains start at w0."""
GAMMA_FACTORS = (0.1, 1.0, 10.0)


def chain_records(
    losses: Losses,
    parameters: Parameters,
    data: Data,
    *,
    generator: torch.Generator,
    sampler: str = "sgld",
    blocks: Mapping[str, Block] | None = None,
    nbetas: Sequence[float] | None = None,
    gammas: Sequence[float] | None = None,
    gamma_factors: Sequence[float] = GAMMA_FACTORS,
    steps: Sequence[float] | None = None,
    scales: Mapping[str, torch.Tensor | float] | None = None,
    num_chains: int = 8,
    num_dispersed: int | None = None,
    num_steps: int = 500,
    burn_in: int = 250,
    batch_size: int = 32,
    observed: Mapping[str, Data] | None = None,
    loss_kind: Literal["log_likelihood", "squared_error"] = "log_likelihood",
    noise: float | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Iterator[Chains]:
    """Draws from exp(-nbeta L(w) - gamma |x|^2 / 2), w = w0 + scale x, around the parameters w0.

    sgld: minibatch Langevin steps; sgld_cv: with control variates; rmsprop_sgld: in coordinates
    scaled by the inverse root of sqrt(v) + its mean / 10, v the mean squared gradient of a warm-up,
    frozen then, in which localiser and step are isotropic; mala: all data, with a Metropolis test.
    Steps are eps = min(.08 / (nbeta h_max + gamma), .08 m / (nbeta^2 lambda_max(C))), with h_max
    from Lanczos and C the covariance of per-sample gradients at w0 and at a pilot's draws; those of
    mala are adapted during the burn-in.

    Args:
        losses: of every sample, without chance and each of its own sample alone.
        parameters: w0, all of them by name, float32 or float64 where they move; never written to.
        data: a tensor, or a tuple or mapping of tensors, samples along the first axis.
        generator: on the CPU; seeds everything.
        sampler: one of SAMPLERS.
        blocks: name -> what moves (names, or name -> rows and columns); None for everything.
        nbetas: inverse temperatures; None for {10, 30, 100, 300} max(1, lambda of a pilot).
        gammas: localisers, one for every nbeta; None for nbeta h_max / 1000.
        gamma_factors: every localiser is run times each of them.
        steps: eps of every setting (nbeta by gamma factor); None for the rule above.
        scales: name -> unit of length of a parameter, as a tensor or number; a localiser and a step
            that follow a rescaling of the net need them. None for 1.
        num_chains: at every setting.
        num_dispersed: of them start at twice the standard deviations of the Gaussian approximation
            (closer to w0 where the loss there is too high); None for half of them up to 5 million
            parameters that move, none above, where no other number is allowed.
        burn_in: of them that count for nothing.
        batch_size: m, from 2 (32 and more is advised); all data where they are no more. Nets above
            100,000 parameters and language models see no more samples than that in one call.
        observed: name -> data of other probes, whose excess loss is kept at every draw.
        noise: variance that makes a squared error a likelihood.
        labels: further fields of the records.

    Yields:
        A record for every block; its block is also its site, unless `labels` names another.

    Raises:
        ValueError: for unknown names or samplers, dtypes below float32, weights out of memory, a
            loss that is not finite, differs between two calls or is no vector over samples, fewer
            than two samples or a batch of one (nbeta is not defined there), ladders that do not fit
            together, and no curvature at w0 to set the step.

    >>> x_MP = 0.1 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(16, 1)
    >>> def losses(parameters, batch):  # per sample; curvatures 1 and 2
    ...     return (parameters["w"] - batch).square() @ torch.tensor([0.5, 1.0])
    >>> generator = torch.Generator().manual_seed(0)
    >>> (found,) = chain_records(
    ...     losses, {"w": torch.zeros(2)}, x_MP, generator=generator, nbetas=[100.0]
    ... )
    >>> found.loss_NCS.shape, found.dim, found.restored, round(found.largest_curvature, 3)
    ((3, 8, 500), 2, True, 2.0)
    """
    _check(sampler, num_chains, num_dispersed, num_steps, burn_in, batch_size, nbetas)
    observed = observed or {}
    before = _digest(parameters)
    for name, block in ({None: None} if blocks is None else blocks).items():
        posterior = _around(losses, parameters, data, block, scales=scales, batch_size=batch_size)
        full = sampler == "mala" or batch_size >= posterior.num_samples
        asked = ChainRequest(
            sampler, nbetas, gammas, gamma_factors, steps, num_chains,
            _dispersed(num_dispersed, num_chains, posterior.dim),
            Length(num_steps, burn_in, None if full else batch_size),
            torch.Generator(posterior.start_P.device).manual_seed(_seed(generator)),
        )  # fmt: skip
        yield Chains(**{
            **_sampled(posterior, asked, observed),
            "block": name,
            "site": name,
            "loss_kind": loss_kind,
            "noise": noise,
            "restored": _digest(parameters) == before,
            **(labels or {}),
        })  # fmt: skip


class LanguageLosses:
    """Mean next-token cross-entropy of every sequence under a causal language model."""

    together = False
    """Chains go one after the other: attention masks of transformers are not made for vmap."""

    def __init__(self, model: PreTrainedModel, left_out: int = 0) -> None:
        """Without the predictions of the first `left_out` tokens and the one after them."""
        self._model, self._left_out = model, left_out

    def __call__(self, parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        """Tokens [m, T] -> losses [m]."""
        called = {"input_ids": batch, "use_cache": False}
        logits = functional_call(self._model, dict(parameters), (), called).logits
        logits, targets = logits[:, self._left_out : -1], batch[:, self._left_out + 1 :]
        each = nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        return each.view(len(batch), -1).mean(dim=1)


def language_losses(model: PreTrainedModel, left_out: int = 0) -> LanguageLosses:
    """Losses of a causal language model, a sample a sequence: the mean over its predicted tokens.

    Args:
        model: in eval mode, whole in memory, with sdpa or eager attention.
        left_out: tokens at the beginning; they and the one after them are not predicted.

    Returns:
        The losses, to be called with the model's `named_parameters` and tokens [m, T].

    Raises:
        ValueError: with dropout at work, with another attention (fused kernels lack the second
            derivative that sets the step), and with weights offloaded or not loaded.
    """
    language_loss(model)  # refuses dropout and fused attention
    check_whole(model)
    return LanguageLosses(model, left_out)


def _around(
    losses: Losses, parameters: Parameters, data: Data, block: Block | None,
    *, scales: Mapping[str, torch.Tensor | float] | None, batch_size: int,
) -> Posterior:  # fmt: skip
    """The posterior around w0, evaluated in calls that fit into memory."""
    size = sum(p.numel() for p in parameters.values())
    together = getattr(losses, "together", True) and size <= TOGETHER_PARAMETERS
    chunk = CHUNK if together else min(CHUNK, batch_size)
    posterior = Posterior(losses, parameters, data, block, together, chunk=chunk)
    if scales is not None:
        posterior.scale_P = posterior.flat(scales)
    return posterior


def _dispersed(asked: int | None, num_chains: int, dim: int) -> int:
    if dim <= DISPERSED_PARAMETERS:
        return num_chains // 2 if asked is None else asked
    if asked:
        raise ValueError(
            f"num_dispersed: got {asked} of chains in {dim} parameters, allowed 0 above "
            f"{DISPERSED_PARAMETERS}"
        )
    return 0


def _sampled(
    posterior: Posterior, asked: ChainRequest, observed: Mapping[str, Data]
) -> dict[str, Any]:
    """The chains of one block, as fields of the record."""
    curvature = Curvature.of(posterior, asked.generator)
    pilot = Pilot.of(posterior, curvature, asked)
    if asked.sampler == "rmsprop_sgld":
        before_P = torch.ones_like(pilot.at_P) if posterior.scale_P is None else posterior.scale_P
        posterior.scale_P = pilot.scale(posterior)
        pilot = replace(pilot, at_P=pilot.at_P * before_P / posterior.scale_P)
        curvature = Curvature.of(posterior, asked.generator)
    noise = GradientNoise.of(posterior, pilot, asked.length)
    settings = Settings.of(asked, curvature, noise, llc=pilot.llc)
    rows = starts(posterior, settings, asked)
    draws = run(
        posterior, rows, asked.sampler, asked.length, generator=asked.generator, observed=observed
    )
    shape = (len(settings.nbeta_N), asked.num_chains)
    step_N = rows.step_R1.view(shape)[:, 0].double().cpu().numpy()
    batch = asked.length.batch or posterior.num_samples
    noisy = asked.length.batch is not None

    def by_setting(values: torch.Tensor) -> np.ndarray:
        return values.view(*shape, *values.shape[1:]).cpu().numpy()

    return {
        "nbeta_N": settings.nbeta_N,
        "gamma_N": settings.gamma_N,
        "step_N": step_N,
        "loss_NCS": by_setting(draws.loss_RS),
        "base_loss_NCS": by_setting(draws.base_RS),
        "virial_NCS": by_setting(draws.virial_RS),
        "drift_NCS": by_setting(draws.drift_RS),
        "acceptance_NC": by_setting(draws.accepted_R),
        "heating_N": noisy * step_N * settings.nbeta_N**2 * settings.noise_N / (4 * batch),
        "dispersed_C": (np.arange(asked.num_chains) < asked.num_dispersed).astype(np.int64),
        "observed_QNCS": (
            draws.observed_QRS.view(len(observed), *shape, -1).cpu().numpy() if observed else None
        ),
        "dim": posterior.dim,
        "num_samples": posterior.num_samples,
        "batch": batch,
        "burn_in": asked.length.burn_in,
        "sampler": asked.sampler,
        "observed": ",".join(observed) or None,
        "dtype": str(posterior.start_P.dtype).removeprefix("torch."),
        "largest_curvature": curvature.largest,
        "lowest_curvature": curvature.lowest,
        "gradient_noise": noise.residual if asked.sampler == "sgld_cv" else noise.origin,
    }


def _check(
    sampler: str, num_chains: int, num_dispersed: int | None, num_steps: int, burn_in: int,
    batch_size: int, nbetas: Sequence[float] | None,
) -> None:  # fmt: skip
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: got {sampler!r}, allowed {SAMPLERS}")
    if num_chains < 1:
        raise ValueError(f"num_chains: got {num_chains}, allowed 1 or more")
    if not 0 <= (num_dispersed or 0) <= num_chains:
        raise ValueError(
            f"num_dispersed: got {num_dispersed} of {num_chains} chains, allowed 0..num_chains"
        )
    if not 0 <= burn_in < num_steps:
        raise ValueError(f"burn_in: got {burn_in}, allowed 0..{num_steps - 1} (num_steps - 1)")
    if batch_size < 2:
        raise ValueError(
            f"batch_size: got {batch_size}, allowed 2 or more (nbeta is undefined at batch 1)"
        )
    if nbetas is not None and not (len(nbetas) and all(0 < n < math.inf for n in nbetas)):
        raise ValueError(f"nbetas: got {list(nbetas)}, allowed one or more above 0")


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _digest(parameters: Parameters) -> str:
    """Of all bytes, so that an equal one says that w0 is what it was."""
    found = hashlib.sha256()
    for name, p in parameters.items():
        if p.is_meta:
            raise ValueError(f"parameters.{name}: got a meta tensor, allowed weights in memory")
        found.update(p.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
