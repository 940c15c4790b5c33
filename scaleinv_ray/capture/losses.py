"""Next-token losses from the body's output, the logits of a few rows at a time.

Shape suffixes: B sequences of a batch, S sequences, T tokens, D width, V vocabulary, N rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture
from scaleinv_ray.capture.sites import to_numpy
from scaleinv_ray.records import TokenLosses

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
        model: gives the head.
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

    def __init__(self, *, num_sequences: int) -> None:
        """For a probe of `num_sequences` sequences."""
        self._num_sequences = num_sequences
        self._parts: list[np.ndarray] = []

    def add(self, loss_BT: np.ndarray) -> None:
        """Adds a batch."""
        self._parts.append(loss_BT)

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough: all are wanted."""
        return seen >= self._num_sequences

    def record(self, labels: dict) -> TokenLosses:
        """The record, [S, T - 1]."""
        return TokenLosses(loss_ST=np.concatenate(self._parts), site="logits", **labels)
