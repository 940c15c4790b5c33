"""Records out of what other tools captured: dictionaries of arrays by the names of their hooks.

Shape suffixes: S sequences, T tokens, D width, H heads, L levels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.inputs.wording import listed
from scaleinv_ray.protocols import TOKENS_PER_UNIT
from scaleinv_ray.records import Activations, Attention, DepthStack, Moments, Protocol, Record

_BLOCK = r"(?:.*\.)?(?:h|layers|layer|blocks)\.(\d+)"
_TRANSFORMER_LENS = {
    r"blocks\.(0)\.hook_resid_pre": "resid_pre",
    r"blocks\.(\d+)\.hook_resid_post": "resid_post",
    r"blocks\.(\d+)\.mlp\.hook_post": "mlp_hidden",
    r"blocks\.(\d+)\.attn\.hook_pattern": "attn_pattern",
}
_NNSIGHT = {
    r"(?:.*\.)?(?:h|layers|layer|blocks)\.(0)\.input": "resid_pre",
    rf"{_BLOCK}(?:\.output)?": "resid_post",
    rf"{_BLOCK}\.mlp\.(?:c_proj|down_proj|dense_4h_to_h|fc2)\.input": "mlp_hidden",
    rf"{_BLOCK}\.(?:attn|self_attn|attention)(?:\.output)?": "attn_pattern",
}
Site = tuple[str, int]


class _Given(NamedTuple):
    """What all records of a dictionary share."""

    at: Mapping[Site, np.ndarray]
    protocol: Protocol
    removes_mean: bool
    seed: int
    labels: Mapping[str, Any]


def from_transformer_lens(
    cache: Mapping[str, Any],
    kinds: Collection[str],
    *,
    protocol: Protocol,
    num_layers: int,
    removes_mean: bool,
    seed: int = 0,
    labels: Mapping[str, Any] | None = None,
) -> dict[str, list[Record]]:
    """Records out of an activation cache of TransformerLens, as a capture here would make them.

    Read are `blocks.0.hook_resid_pre`, `blocks.N.hook_resid_post`, `blocks.N.mlp.hook_post` and
    `blocks.N.attn.hook_pattern`; other names are left alone. Load the model with
    `from_pretrained_no_processing`: folded and centred weights have another residual stream.

    Args:
        cache: name -> array or tensor, [sequences, tokens, width]; patterns [sequences, heads,
            tokens, tokens].
        kinds: out of cloud, depth_stack, moments, stream and attention.
        protocol: says which of the rows are taken; its sequences and length are the arrays'.
        num_layers: blocks of the model.
        removes_mean: whether a LayerNorm (not an RMSNorm) reads the residual stream.
        seed: of the units that a stream samples.
        labels: unit, probe and other fields of Record.

    Returns:
        Kind -> its records.

    Raises:
        ValueError: for an unknown kind, for one whose arrays are not there, and for arrays of
            another shape than the protocol's.
    """
    at = _sites(cache, _TRANSFORMER_LENS, protocol)
    known = {"num_layers": num_layers, "protocol": protocol.digest()} | dict(labels or {})
    return _records(_Given(at, protocol, removes_mean, seed, known), kinds, num_layers)


def from_nnsight(
    saved: Mapping[str, Any],
    kinds: Collection[str],
    *,
    protocol: Protocol,
    num_layers: int,
    removes_mean: bool,
    seed: int = 0,
    labels: Mapping[str, Any] | None = None,
) -> dict[str, list[Record]]:
    """Records out of what was saved of the modules of a transformers model, as nnsight does.

    Read are, whatever stands before them: `h.0.input`, `h.N.output` (or `h.N`; also `layers.N`),
    `h.N.mlp.c_proj.input` (or `down_proj`, `dense_4h_to_h`, `fc2`) and the pattern in
    `h.N.attn.output` (or `self_attn`, `attention`). A tuple is what a module returned: its first
    array, of attention its second.

    Args:
        saved: path of a module -> array or tensor, [sequences, tokens, width], or the tuple.
        kinds: out of cloud, depth_stack, moments, stream and attention.
        protocol: says which of the rows are taken; its sequences and length are the arrays'.
        num_layers: blocks of the model.
        removes_mean: whether a LayerNorm (not an RMSNorm) reads the residual stream.
        seed: of the units that a stream samples.
        labels: unit, probe and other fields of Record.

    Returns:
        Kind -> its records.

    Raises:
        ValueError: as of `from_transformer_lens`.
    """
    at = _sites(saved, _NNSIGHT, protocol)
    known = {"num_layers": num_layers, "protocol": protocol.digest()} | dict(labels or {})
    return _records(_Given(at, protocol, removes_mean, seed, known), kinds, num_layers)


def _sites(
    given: Mapping[str, Any], names: Mapping[str, str], protocol: Protocol
) -> dict[Site, np.ndarray]:
    """The arrays that are known by their names, checked."""
    found: dict[Site, np.ndarray] = {}
    for name in given:
        for pattern, site in names.items():
            if match := re.fullmatch(pattern, name):
                value = given[name]
                if isinstance(value, tuple | list):
                    value = value[site == "attn_pattern"]
                array = _array(value)
                is_pattern = array.ndim == 4
                if is_pattern == (site == "attn_pattern"):  # else the output of an attention
                    _check(name, array, protocol)
                    found[site, int(match[1])] = array
                break
    return found


def _array(value: Any) -> np.ndarray:
    """A numpy array; tensors know how to leave their device, and bfloat16 is not numpy's."""
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    return np.asarray(value)


def _check(name: str, array: np.ndarray, protocol: Protocol) -> None:
    shape = (protocol.sequences, protocol.length)
    got = array.shape[:1] + array.shape[2:3] if array.ndim == 4 else array.shape[:2]
    if array.ndim not in {3, 4} or got != shape:
        raise ValueError(
            f"{name}: got shape {array.shape}, allowed {shape[0]} sequences of {shape[1]} tokens "
            "(protocol)"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: got values that are not finite, allowed finite ones")


def _records(given: _Given, kinds: Collection[str], num_layers: int) -> dict[str, list[Record]]:
    makers = {
        "cloud": _clouds,
        "depth_stack": _stack,
        "moments": _moments,
        "stream": _streams,
        "attention": _attention,
    }
    found: dict[str, list[Record]] = {}
    for kind in kinds:
        if kind not in makers:
            raise ValueError(f"kinds: got {kind!r}, allowed {listed(makers, kind)}")
        found[kind] = makers[kind](given, num_layers)
    return found


def _needed(given: _Given, sites: Iterable[Site], kind: str) -> list[tuple[Site, np.ndarray]]:
    wanted = list(sites)
    if lacking := [
        f"{site} of layer {layer}" for site, layer in wanted if (site, layer) not in given.at
    ]:
        raise ValueError(f"{kind}: got no {lacking[0]}, allowed: all {len(wanted)} that it reads")
    return [(key, given.at[key]) for key in wanted]


def _levels(given: _Given, num_layers: int, kind: str) -> list[tuple[Site, np.ndarray]]:
    """Before block 0 and after every block."""
    after = [("resid_post", layer) for layer in range(num_layers)]
    return _needed(given, [("resid_pre", 0), *after], kind)


def _clouds(given: _Given, num_layers: int) -> list[Record]:
    sequence_T = np.arange(given.protocol.sequences, dtype=np.int32)
    return [
        Activations(
            x_TD=x_STD[:, given.protocol.position],
            sequence_T=sequence_T,
            position_T=np.full_like(sequence_T, given.protocol.position),
            sampling="cloud",
            site=site,
            layer=layer,
            removes_mean=given.removes_mean,
            **given.labels,
        )
        for (site, layer), x_STD in _levels(given, num_layers, "cloud")
    ]


def _stack(given: _Given, num_layers: int) -> list[Record]:
    levels = _levels(given, num_layers, "depth_stack")
    return [
        DepthStack(
            x_LTD=np.stack([x_STD[:, given.protocol.position] for _, x_STD in levels]),
            sequence_T=np.arange(given.protocol.sequences, dtype=np.int32),
            removes_mean=given.removes_mean,
            **given.labels,
        )
    ]


def _moments(given: _Given, num_layers: int) -> list[Record]:
    """Over the first tokens_per_dim * D tokens, in whole sequences."""
    sites = [("resid_post", layer) for layer in range(num_layers)]
    p = given.protocol
    found: list[Record] = []
    for (site, layer), x_STD in _needed(given, sites, "moments"):
        width = x_STD.shape[2]
        needed = _enough(math.ceil(p.tokens_per_dim * width / p.length), p, "moments")
        if needed < p.blocks:
            raise ValueError(f"blocks: got {p.blocks}, allowed <= {needed} sequences of moments")
        parts = np.array_split(
            np.arange(needed), [b * needed // p.blocks for b in range(1, p.blocks)]
        )
        rows = [x_STD[part].reshape(-1, width).astype(np.float64) for part in parts]
        found.append(
            Moments(
                count_B=np.array([len(x_ND) for x_ND in rows]),
                mean_BD=np.stack([x_ND.mean(axis=0) for x_ND in rows]),
                second_BDD=np.stack([x_ND.T @ x_ND / len(x_ND) for x_ND in rows]),
                site=site,
                layer=layer,
                removes_mean=given.removes_mean,
                **given.labels,
            )
        )
    return found


def _enough(needed: int, protocol: Protocol, kind: str) -> int:
    if needed > protocol.sequences:
        raise ValueError(f"sequences: got {protocol.sequences}, {kind} need {needed}")
    return needed


def _streams(given: _Given, num_layers: int) -> list[Record]:
    """Consecutive tokens on sampled hidden units; no LayerNorm reads these."""
    p = given.protocol
    needed = _enough(math.ceil(TOKENS_PER_UNIT * p.stream_units / p.length), p, "streams")
    found: list[Record] = []
    sites = [("mlp_hidden", layer) for layer in range(num_layers)]
    for (site, layer), x_STD in _needed(given, sites, "stream"):
        width = x_STD.shape[2]
        if width < p.stream_units:
            raise ValueError(f"stream_units: got {p.stream_units}, allowed <= {width} hidden units")
        rng = np.random.default_rng(given.seed)
        units = np.sort(rng.choice(width, p.stream_units, replace=False))
        found.append(
            Activations(
                x_TD=x_STD[:needed, :, units].reshape(-1, p.stream_units),
                sequence_T=np.repeat(np.arange(needed, dtype=np.int32), p.length),
                position_T=np.tile(np.arange(p.length, dtype=np.int32), needed),
                sampling="stream",
                site=site,
                layer=layer,
                **given.labels,
            )
        )
    return found


def _attention(given: _Given, num_layers: int) -> list[Record]:
    kept = _enough(given.protocol.attention_sequences, given.protocol, "attention patterns")
    sites = [("attn_pattern", layer) for layer in range(num_layers)]
    return [
        Attention(a_STT=a_SHTT[:kept, head], site=site, layer=layer, head=head, **given.labels)
        for (site, layer), a_SHTT in _needed(given, sites, "attention")
        for head in range(a_SHTT.shape[1])
    ]
