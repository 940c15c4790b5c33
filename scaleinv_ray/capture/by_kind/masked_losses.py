"""Losses of hidden tokens of an encoder, the same positions for every model.

Shape suffixes: S sequences, T tokens, M hidden positions of a sequence, B sequences of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from scaleinv_ray.capture.makers import PassRequest, check_shape, labels_of, passes
from scaleinv_ray.capture.sites import check_tokens, to_device, to_numpy
from scaleinv_ray.records import MaskedLosses, num_masked


def masked_positions(sequences: int, length: int, seed: int) -> np.ndarray:
    """Positions that are hidden: a fixed share of each sequence, drawn without replacement.

    Args:
        length: tokens of each.
        seed: of the draw, the same for every model.

    Returns:
        position_SM, ascending in each sequence.

    >>> masked_positions(2, 20, seed=0).shape
    (2, 3)
    """
    order_ST = np.random.default_rng(seed).permuted(
        np.tile(np.arange(length), (sequences, 1)), axis=1
    )
    return np.sort(order_ST[:, : num_masked(length)], axis=1)


@passes("masked_losses")
def masked_losses(asked: PassRequest) -> Iterator[MaskedLosses]:
    """-ln p(token | the others) at hidden positions, all of a sequence hidden at one time.

    Every hidden token becomes the mask (Devlin et al. 2019 leave or exchange a fifth of them, so
    that training sees them too; a measurement has no need of it).

    Args:
        asked: an encoder with its head, tokens, and the id of the mask.

    Yields:
        One record.

    Raises:
        ValueError: without a mask or a head, for bad tokens (see `check_tokens`), or losses that
            are not finite.
    """
    model, tokens_ST = asked.model, asked.tokens_ST
    check_tokens(model, tokens_ST)
    check_shape(tokens_ST, asked.protocol, asked.left_out, causal=asked.architecture.causal)
    if asked.mask_id is None or asked.architecture.causal or model.base_model is model:
        raise ValueError("kinds: got 'masked_losses' of a model without a head of masked tokens")
    sequences, length = asked.text_ST.shape
    position_SM = masked_positions(sequences, length, seed=asked.seed)
    at_SM = asked.left_out + position_SM
    hidden_ST = tokens_ST.copy()
    np.put_along_axis(hidden_ST, at_SM, asked.mask_id, axis=1)
    parts = []
    for first in range(0, len(tokens_ST), asked.batch_size):
        rows = slice(first, first + asked.batch_size)
        parts.append(_losses(asked, hidden_ST[rows], tokens_ST[rows], at_SM[rows]))
    loss_SM = np.concatenate(parts)
    if not np.isfinite(loss_SM).all():
        raise ValueError("masked losses: got values that are not finite")
    yield MaskedLosses(
        loss_SM=loss_SM,
        position_SM=position_SM.astype(np.int32),
        site="logits",
        **labels_of(model, asked.protocol, asked.labels),
    )


def _losses(
    asked: PassRequest, hidden_BT: np.ndarray, tokens_BT: np.ndarray, position_BM: np.ndarray
) -> np.ndarray:
    model = asked.model
    with torch.inference_mode():
        state_BTD = model.base_model(input_ids=to_device(hidden_BT, model)).last_hidden_state
        at_BM = torch.from_numpy(position_BM).to(state_BTD.device)
        at_BMD = at_BM[..., None].expand(-1, -1, state_BTD.shape[-1])
        # the head acts on each position by itself: it is asked at the hidden ones alone
        head = model.get_submodule(asked.architecture.head)
        logits_BMV = head(state_BTD.gather(1, at_BMD)).float()
        wanted = torch.from_numpy(np.take_along_axis(tokens_BT, position_BM, axis=1)).long()
        loss = functional.cross_entropy(
            logits_BMV.flatten(0, 1), wanted.to(logits_BMV.device).flatten(), reduction="none"
        )
    return to_numpy(loss).reshape(position_BM.shape)
