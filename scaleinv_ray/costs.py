"""What a run costs, from shapes alone."""

from __future__ import annotations

from scaleinv_ray.records import Protocol
from scaleinv_ray.series import Checkpoint

TOKENS_PER_UNIT = 50
"""A stream needs at least this many tokens for each sampled unit (T/N, Meshulam et al. 2019)."""


def capture_bytes(checkpoint: Checkpoint, kind: str, protocol: Protocol) -> int:
    """Bytes of one capture file, from shapes alone.

    Args:
        checkpoint: gives depth and width.
        kind: a key of records.KINDS.
        protocol: of the run.

    Returns:
        The size to within headers and the rounding to whole sequences (0 for weights, which are
        streamed from the checkpoint, and for what is only read from folders of records).
    """
    layers, width = checkpoint.n_layers, checkpoint.d_model
    p = protocol
    stream_rows = TOKENS_PER_UNIT * p.stream_units
    per_kind = {
        "weights": 0,
        "moments": layers * p.blocks * (width + 1) * width * 8,
        "cloud": (layers + 1) * p.sequences * (4 * width + 8),
        "stream": layers * stream_rows * (4 * p.stream_units + 8),
        "depth_stack": (layers + 1) * p.sequences * width * 4,
        "attention": layers * (width // 64 + 1) * p.attention_sequences * p.length**2 * 4,
        "jacobians": layers * (p.jacobian_positions * (width + 2) + p.vocab_rows) * width * 4,
        "token_losses": p.sequences * (p.length - 1) * 4,
        "hessian": 0,
        "ggn": 0,
    }
    return per_kind[kind]


def forward_flops(checkpoint: Checkpoint, protocol: Protocol) -> float:
    """Floating-point operations of one pass over a probe: 2 N per token (Kaplan et al. 2020).

    Args:
        checkpoint: gives N.
        protocol: gives the tokens.

    Returns:
        The operations, attention scores not counted.
    """
    return 2.0 * checkpoint.n_params * protocol.sequences * protocol.length
