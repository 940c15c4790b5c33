"""Learning coefficient of a compiled model, estimated: no exact value of its germ is known.

Shape suffixes: M words, T positions, V tokens, P parameters, F directions of the outputs.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.func import functional_call, jacrev

from scaleinv_ray.capture.curvature.products import Parameters
from scaleinv_ray.capture.posterior.chains import chain_records
from scaleinv_ray.circuitry.compiled.programs import PROGRAMS
from scaleinv_ray.contract import Refused
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.invariants.degeneracy import learning_coefficient
from scaleinv_ray.records import Chains

DECIDE = ("contains", "either")
"""Programs of letters 1 and 2 that answer yes or no by the logit of letter 1."""
CONSTANT = 4.0
"""C of the norms: small, so that no direction of the weights is much stiffer than the others."""
NBETA, STEPS, BURN_IN, CHAINS = 1000.0, 4000, 2000, 8
_RANK = 1e-12
"""Curvatures below this share of the largest are none."""


class Estimated(NamedTuple):
    """What a sampler says of a compiled model.

    Attributes:
        outputs: yes or no of every word, shorter ones first.
        llc: estimate; None where it is void.
        stderr: its error.
        verdict: ok, warn or reject.
        reason: of a verdict that is not ok.
        curved: what the curvature alone would give at the same localiser; what the estimate has
            above it comes from directions that rise by higher powers.
        rank: of the derivative of all outputs: in the limit llc is at least half of it.
        num_parameters: of the model.
    """

    outputs: tuple[bool, ...]
    llc: float | None
    stderr: float | None
    verdict: str
    reason: str | None
    curved: float
    rank: int
    num_parameters: int


def estimate(name: str, *, longest: int, seed: int) -> Estimated:
    """Samples the posterior round the weights of a compiled model whose truth is itself.

    K is the divergence of its next-token probabilities from those at its own weights, the mean over
    all words of letters 1 and 2 and over their prefixes: log loss, in the space of the weights. The
    curvatures of K span ten decades without a gap, so that the estimate is one at a number of
    samples and a localiser: it counts the directions that are stiffer than the localiser, and the
    verdict says that it depends on it.

    Args:
        name: one of `DECIDE`.
        longest: length of the words.
        seed: of the chains.

    Raises:
        ValueError: for another program.
    """
    if name not in DECIDE:
        raise ValueError(f"program: got {shown(name)}, allowed {', '.join(DECIDE)}")
    model: Any = PROGRAMS[name](length=longest, constant=CONSTANT).model
    model.set_attn_implementation("eager")
    words_MT = torch.tensor(list(product((1, 2), repeat=longest)))
    weights = {n: p.detach() for n, p in model.named_parameters()}
    logits_MTV = _logits(model, weights, words_MT)
    truth_MTV = logits_MTV.log_softmax(dim=-1)
    curvature_F = _curvatures(model, weights, words_MT)

    def losses(moved: Parameters, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        said_MTV = _logits(model, moved, batch[0]).log_softmax(dim=-1)
        return (batch[1].exp() * (batch[1] - said_MTV)).sum(dim=-1).mean(dim=-1)

    (chains,) = chain_records(
        losses, weights, (words_MT, truth_MTV), generator=torch.Generator().manual_seed(seed),
        sampler="mala", nbetas=[NBETA], num_steps=STEPS, burn_in=BURN_IN, num_chains=CHAINS,
        num_dispersed=0,  # where heads are saturated a start elsewhere does not move at all
    )  # fmt: skip
    llc, stderr, verdict, reason = _told(chains, seed)
    stiffness_F = NBETA * curvature_F
    return Estimated(
        outputs=_decisions(logits_MTV[..., 1].numpy(), longest),
        llc=llc,
        stderr=stderr,
        verdict=verdict,
        reason=reason,
        curved=float((stiffness_F / (stiffness_F + float(np.median(chains.gamma_N)))).sum() / 2),
        rank=len(curvature_F),
        num_parameters=sum(w.numel() for w in weights.values()),
    )


def _told(chains: Chains, seed: int) -> tuple[float | None, float | None, str, str | None]:
    """Estimate, error, verdict and reason."""
    try:
        measured = learning_coefficient(chains, rng=np.random.default_rng(seed))
    except Refused as refusal:
        return None, None, "reject", str(refusal)
    found, verdict = measured.values["lambda_hat_t"], str(measured.flags["verdict"])
    if isinstance(found, Refused):
        return None, None, verdict, str(found)
    return found.value, found.stderr, verdict, str(measured.flags["reasons"]) or None


def _logits(model: Any, weights: Parameters, words_MT: torch.Tensor) -> torch.Tensor:
    """All logits; the mask is given, since transformers makes none under vmap."""
    length = words_MT.shape[1]
    dtype = next(iter(weights.values())).dtype
    mask_TT = torch.full((length, length), -1e9, dtype=dtype).triu(diagonal=1)
    called = {"input_ids": words_MT, "use_cache": False, "attention_mask": mask_TT[None, None]}
    found: torch.Tensor = functional_call(model, dict(weights), (), called).logits
    return found


def _curvatures(model: Any, weights: Parameters, words_MT: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the Hessian of K that are not zero: that of Gauss and Newton, at its zero."""
    p_MTV = _logits(model, weights, words_MT).softmax(dim=-1)

    def told(moved: Parameters) -> torch.Tensor:
        logp_MTV = _logits(model, moved, words_MT).log_softmax(dim=-1)
        return (p_MTV.sqrt() * logp_MTV).flatten() / words_MT.numel() ** 0.5

    jacobian_FP = torch.cat([b.flatten(1) for b in jacrev(told)(dict(weights)).values()], dim=1)
    size_F = torch.linalg.svdvals(jacobian_FP).square()
    return size_F[size_F > _RANK * size_F[0]]


def _decisions(logit_MT: np.ndarray, longest: int) -> tuple[bool, ...]:
    """Whether the logit lies in the upper half of its range, for words of length 1, 2, .."""
    yes_MT = logit_MT > (logit_MT.min() + logit_MT.max()) / 2
    # words in lexical order: the first of each 2^(longest - t) have a prefix in common
    return tuple(
        bool(yes) for t in range(1, longest + 1) for yes in yes_MT[:: 2 ** (longest - t), t - 1]
    )
