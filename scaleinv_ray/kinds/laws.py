"""How captures grow with model and protocol, and what they ask of both, for entries of the list.

c is a checkpoint, p the protocol, s the settings of a kind; D is the width.
"""

from __future__ import annotations

import math
from typing import Any

from scaleinv_ray.kinds.kind import Shapes, Speeds
from scaleinv_ray.protocols import TOKENS_PER_UNIT
from scaleinv_ray.records import Protocol


def _check_tokens(p: Protocol, need: int, reader: str) -> None:
    if (have := p.sequences * p.length) < need:
        raise ValueError(
            f"protocol.sequences x length: got {have} tokens, {reader} {need}; "
            "allowed: fewer of these, or more sequences (of more text: corpus: [folder])"
        )


def check_moments(c: Shapes, p: Protocol) -> None:
    """ValueError where a covariance of width D has too few tokens."""
    of = f"{p.tokens_per_dim} tokens_per_dim of model {c.model} of width {c.d_model}"
    _check_tokens(p, p.tokens_per_dim * c.d_model, f"{of} need")


def most_of_moments(c: Shapes, p: Protocol) -> dict[str, tuple[int, str]]:
    """A block of sequences has one at least."""
    counted = math.ceil(p.tokens_per_dim * c.d_model / p.length)
    return {"blocks": (counted, f"sequences that moments of {c.model} count")}


def moments_seconds(c: Shapes, p: Protocol, device: Speeds) -> float:
    """2 D^2 a token and block in float64, at half the speed."""
    counted = min(p.sequences * p.length, p.tokens_per_dim * c.d_model)
    return c.n_layers * counted * 2.0 * c.d_model**2 / (device.flops / 2)


def check_stream(c: Shapes, p: Protocol) -> None:
    """ValueError where units are more than the tokens can tell apart."""
    _check_tokens(p, TOKENS_PER_UNIT * p.stream_units, f"{p.stream_units} stream_units need")


def most_of_streams(c: Shapes, p: Protocol) -> dict[str, tuple[int, str]]:
    """Units are neurons of an MLP, each with tokens enough."""
    most = max(1, p.sequences * p.length // TOKENS_PER_UNIT), f"{TOKENS_PER_UNIT} tokens each"
    neurons = most if c.d_mlp is None else (c.d_mlp, f"MLP neurons of model {c.model}")
    return {"stream_units": min(most, neurons)}


def stream_bytes(c: Shapes, p: Protocol, _: None) -> int:
    """Values in float32, beside sequence and position of each token."""
    return c.n_layers * TOKENS_PER_UNIT * p.stream_units * (4 * p.stream_units + 8)


def skipped(p: Protocol) -> dict[str, tuple[int, int, str]]:
    """Positions that an invariant may leave out, so that two remain."""
    return {"skip_positions": (0, p.length - 2, "protocol.length - 2")}


def stream_limits(p: Protocol) -> dict[str, tuple[int, int, str]]:
    """Factors of a stream are fewer than its units."""
    return skipped(p) | {"num_factors": (1, p.stream_units - 1, "protocol.stream_units - 1")}


def most_of_jacobians(c: Shapes, p: Protocol) -> dict[str, tuple[int, str]]:
    """A position of each sequence, rows of the unembedding."""
    return {
        "jacobian_positions": (p.sequences, "sequences"),
        "vocab_rows": (c.vocab_size, f"vocabulary of {c.model}"),
    }


def jacobians_bytes(c: Shapes, p: Protocol, _: None) -> int:
    """A matrix and two vectors a position, beside rows of the unembedding, in float32."""
    rows = p.jacobian_positions * (c.d_model + 2) + p.vocab_rows
    return c.n_layers * rows * c.d_model * 4


def jacobians_seconds(c: Shapes, p: Protocol, device: Speeds) -> float:
    """48 D^3 a position and block."""
    each = device.call_s + 48.0 * c.d_model**3 / device.backward
    return c.n_layers * p.jacobian_positions * each


def heads(c: Shapes) -> int:
    """Patterns of a model whose heads have the usual width."""
    return c.n_layers * (c.d_model // 64 + 1)


def attention_seconds(c: Shapes, p: Protocol, device: Speeds) -> float:
    """A forward pass of a few sequences."""
    forward = 2.0 * c.n_params * p.attention_sequences * p.length / device.flops
    return forward + c.n_layers * device.call_s


def settings_bytes(c: Shapes, _: Protocol, s: Any) -> int:
    """What the settings say of the number of blocks; nothing where it is not asked for."""
    return 0 if s is None else int(s.num_bytes(c.n_layers))


def readings_bytes(c: Shapes, p: Protocol, settings: Any) -> int:
    """Two probes with their controls at every place in the depth, and seven trees."""
    return 0 if settings is None else (4 * (c.n_layers + 1) + 8) * settings.sequences * 8
