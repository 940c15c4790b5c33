"""Next-token losses from the body's output, the logits of a few rows at a time.

Shape suffixes: B sequences of a batch, S sequences, T tokens, D width, V vocabulary, N rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture
from scaleinv_ray.capture.makers import FINAL, PassRequest, collects
from scaleinv_ray.capture.sites import to_device, to_numpy
from scaleinv_ray.records import Record, TokenLosses

_LOGITS_PER_CHUNK = 2**24
"""64 MiB in float32: small beside a model, large beside the cost of a call."""


def _loss_N(
    model: PreTrainedModel,
    architecture: Architecture,
    hidden_ND: torch.Tensor,
    next_N: torch.Tensor,
) -> torch.Tensor:
    logits_NV = model.get_submodule(architecture.head)(hidden_ND).float()
    logits_NV = logits_NV / architecture.logits_scaling
    if architecture.logits_softcap is not None:
        cap = architecture.logits_softcap
        logits_NV = cap * torch.tanh(logits_NV / cap)
    return functional.cross_entropy(logits_NV, next_N.to(logits_NV.device), reduction="none")


def next_token_losses(
    model: PreTrainedModel,
    architecture: Architecture,
    hidden_BTD: torch.Tensor,
    tokens_BT: torch.Tensor,
) -> np.ndarray:
    """Cross-entropy of every next token.

    Args:
        architecture: scaling and softcap of the logits.
        hidden_BTD: output of the body, after the final norm.
        tokens_BT: the tokens that went in.

    Returns:
        -ln p(token_{t+1} | tokens_{<= t}) in nats, float32 [B, T - 1].
    """
    hidden_ND = hidden_BTD[:, :-1].reshape(-1, hidden_BTD.shape[-1])
    next_N = tokens_BT[:, 1:].reshape(-1)
    rows = max(1, _LOGITS_PER_CHUNK // model.config.vocab_size)
    parts = [
        _loss_N(model, architecture, hidden, following)
        for hidden, following in zip(hidden_ND.split(rows), next_N.split(rows), strict=True)
    ]
    return to_numpy(torch.cat(parts)).reshape(len(tokens_BT), -1)


class LossCollector:
    """Next-token losses of the whole probe."""

    sites: frozenset[str] = frozenset({FINAL})

    def __init__(self, asked: PassRequest) -> None:
        """For the probe that is asked for.

        Raises:
            ValueError: where the model is not causal.
        """
        if not asked.architecture.causal:
            raise ValueError("kinds: got 'token_losses' of a model that is not causal")
        self._asked = asked
        self._parts: list[np.ndarray] = []

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch."""
        if site in self.sites:
            model, tokens_ST = self._asked.model, self._asked.text_ST
            tokens_BT = to_device(tokens_ST[first : first + len(x_BTD)], model)
            losses_BT = next_token_losses(model, self._asked.architecture, x_BTD, tokens_BT)
            self._parts.append(losses_BT)

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough: all are wanted."""
        return seen >= len(self._asked.tokens_ST)

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """One record, [S, T - 1]; no sites' activations are in it."""
        del removes_mean
        losses = TokenLosses(loss_ST=np.concatenate(self._parts), site="logits", **labels)
        return {"token_losses": [losses]}


@collects("token_losses")
def loss_collector(asked: PassRequest, _: frozenset[str]) -> LossCollector:
    """Of a causal model."""
    return LossCollector(asked)
