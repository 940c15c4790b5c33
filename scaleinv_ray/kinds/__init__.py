"""The kinds of capture: all that is known of one without a model in memory. The only list of them.

A new kind is an entry here and a file in `capture/by_kind/`, which makes its records out of a live
model; what its entry computes at length stands in `laws`. Kinds that share a class of record are
told apart by an invariant's `scheme`.

In the lines below c is a checkpoint and p the protocol.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

from scaleinv_ray.kinds import laws
from scaleinv_ray.kinds.kind import Kind, Settings, Shapes, Speeds
from scaleinv_ray.protocols import digest_of
from scaleinv_ray.records import (
    Activations,
    Attention,
    Chains,
    DepthStack,
    Effects,
    Jacobians,
    Lanczos,
    MaskedLosses,
    Moments,
    Protocol,
    Readings,
    TokenLosses,
    WeightMatrix,
    num_masked,
)

__all__ = [
    "KINDS",
    "Kind",
    "Settings",
    "Shapes",
    "Speeds",
    "digest_for",
    "of_tokens",
    "one_pass_kinds",
]

_CURVATURE: dict[str, Any] = {
    "record": Lanczos,
    "num_bytes": laws.settings_bytes,
    "num_records": lambda c: 1,
    "version": 2,
    "section": "curvature",
    "exists": lambda c: not c.encoder,
    "check_settings": lambda c, settings: settings.check(c.model, c.n_params),
    "of_losses": True,
}

_ALL = (
    Kind(name="weights", record=WeightMatrix, token_free=True, num_bytes=lambda c, p, _: 0),
    Kind(
        name="moments",
        record=Moments,
        one_pass=True,
        sites=("resid_post",),
        num_bytes=lambda c, p, _: c.n_layers * p.blocks * (c.d_model + 1) * c.d_model * 8,
        work=lambda width, layers, p: float(width) ** 3,  # eigenvalues
        seconds=laws.moments_seconds,
        own=("tokens_per_dim", "blocks"),
        most=laws.most_of_moments,
        check=laws.check_moments,
    ),
    Kind(
        name="cloud",
        record=Activations,
        one_pass=True,
        sites=("resid_pre", "resid_post"),
        num_bytes=lambda c, p, _: (c.n_layers + 1) * p.sequences * (4 * c.d_model + 8),
        num_records=lambda c: c.n_layers + 1,
        work=lambda width, layers, p: float(width),  # distances; the points are parameters
        limits=lambda p: {"num_points": (1, p.sequences, "protocol.sequences")},
    ),
    Kind(
        name="stream",
        record=Activations,
        one_pass=True,
        sites=("mlp_hidden",),
        resumable=False,  # hidden units of an MLP are not among the states between blocks
        num_bytes=laws.stream_bytes,
        work=lambda width, layers, p: float(p.stream_units) ** 3,  # the same at every width
        exists=lambda c: c.d_mlp != 0,
        own=("stream_units",),
        most=laws.most_of_streams,
        check=laws.check_stream,
        limits=laws.stream_limits,
    ),
    Kind(
        name="depth_stack",
        record=DepthStack,
        one_pass=True,
        num_bytes=lambda c, p, _: (c.n_layers + 1) * p.sequences * c.d_model * 4,
        num_records=lambda c: 1,
        work=lambda width, layers, p: float(layers + 1) * p.sequences * width,
    ),
    Kind(
        name="jacobians",
        record=Jacobians,
        sites=("resid_post",),
        num_bytes=laws.jacobians_bytes,
        work=lambda width, layers, p: p.jacobian_positions * float(width) ** 3,
        seconds=laws.jacobians_seconds,
        own=("vocab_rows",),
        most=laws.most_of_jacobians,
    ),
    Kind(
        name="attention",
        record=Attention,
        sites=("attn_pattern",),
        num_bytes=lambda c, p, _: laws.heads(c) * p.attention_sequences * p.length**2 * 4,
        num_records=laws.heads,
        work=lambda width, layers, p: p.attention_sequences * float(p.length) ** 2,
        seconds=laws.attention_seconds,
        own=("attention_sequences",),
        most=lambda c, p: {"attention_sequences": (p.sequences, "sequences")},
        limits=laws.skipped,
    ),
    Kind(
        name="token_losses",
        record=TokenLosses,
        one_pass=True,
        sites=("logits",),
        num_bytes=lambda c, p, _: p.sequences * (p.length - 1) * 4,
        num_records=lambda c: 1,
        work=lambda width, layers, p: float(p.sequences) * p.length,
        of_losses=True,
        exists=lambda c: not c.encoder,
    ),
    Kind(
        name="masked_losses",
        record=MaskedLosses,
        num_bytes=lambda c, p, _: p.sequences * num_masked(p.length) * 8,
        num_records=lambda c: 1,
        seconds=lambda c, p, device: 2.0 * c.n_params * p.sequences * p.length / device.flops,
        of_losses=True,
        exists=lambda c: c.mask_id is not None,
    ),
    Kind(name="hessian", **_CURVATURE),
    Kind(name="ggn", **_CURVATURE),
    Kind(
        name="chains",
        record=Chains,
        num_bytes=laws.settings_bytes,
        num_records=lambda c: 1,
        version=2,
        section="sampling",
        observed=lambda settings: settings.observed,
        check_settings=lambda c, settings: settings.check_kept(),
        exists=lambda c: not c.encoder,
        of_losses=True,
    ),
    Kind(
        name="effects",
        record=Effects,
        num_bytes=laws.settings_bytes,
        num_records=lambda c: 1,
        version=2,
        section="circuits",
        in_pairs=True,
        exists=lambda c: not c.encoder,
    ),
    Kind(
        name="readings",
        record=Readings,
        num_bytes=laws.readings_bytes,
        num_records=lambda c: 1,
        section="circuits",
        # the two runs; probes and trees are fitted beside them
        gradients=lambda settings, layers: (2 / 3, settings.sequences),
        in_pairs=True,
        exists=lambda c: not c.encoder,
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def one_pass_kinds() -> frozenset[str]:
    """Names of the kinds that come out of one forward pass over a probe."""
    return frozenset(name for name, kind in KINDS.items() if kind.one_pass)


@lru_cache(maxsize=256)
def digest_for(protocol: Protocol, kind: str | None = None) -> str:
    """Digest of a protocol as one kind of capture reads it: keys, draws and tokens follow from it.

    What other kinds alone read stands at its default. `jacobian_positions` is in all of them.

    Args:
        protocol: of a run.
        kind: key of `KINDS`; None for what all read, as the tokens of a probe.

    Returns:
        16 hex digits; those of `protocol.digest()` where no other kind's field was set.
    """
    others = {name for of in KINDS.values() if of.name != kind for name in of.own}
    known = {f.name: f.default for f in dataclasses.fields(protocol)}
    return digest_of(protocol, **{name: known[name] for name in others})


def of_tokens() -> frozenset[str]:
    """Names of the kinds that a live model gives at a probe."""
    return frozenset(KINDS) - {name for name, kind in KINDS.items() if kind.token_free}
