"""Repeated random tokens: only a model that looks back can predict the second half."""

from __future__ import annotations

import numpy as np

from scaleinv_ray.probes.registry import ProbeRequest, probe_set


@probe_set()
def induction(request: ProbeRequest) -> np.ndarray:
    """Random tokens, then the same tokens again (Olsson et al. 2022, In-context Learning).

    The first ceil(length / 2) tokens of a sequence are independent and uniform over the ordinary
    ids; token t + ceil(length / 2) equals token t. An odd length cuts the copy's last token.

    Args:
        request: encode and corpus are not read.

    Returns:
        int64 tokens [sequences, length].

    Raises:
        ValueError: where fewer than two ordinary ids are left.
    """
    ids_V = request.ordinary_ids(least=2)
    period = (request.length + 1) // 2
    block_SP = request.rng.choice(ids_V, size=(request.sequences, period))
    return np.concatenate([block_SP, block_SP], axis=1)[:, : request.length]
