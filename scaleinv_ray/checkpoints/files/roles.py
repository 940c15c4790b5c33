"""What a stored tensor does: file name -> layer, role, orientation, and how to split it.

Shape suffixes: O outputs, I inputs. An unknown name has the role 'other', never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

Fused = Literal["concatenated", "interleaved"]


@dataclass(frozen=True)
class TensorRole:
    """Role of a stored tensor.

    Attributes:
        role: a role of `records.Record`, or 'fused_qkv' for one that has to be split.
        layer: block index, None outside blocks.
        transposed: stored inputs x outputs (GPT-2's Conv1D).
        fused: how query, key and value share the tensor. 'concatenated': rows are all of Q, all of
            K, all of V. 'interleaved': rows are q, k, v of head 0, then of head 1, ...
    """

    role: str
    layer: int | None = None
    transposed: bool = False
    fused: Fused | None = None


@dataclass(frozen=True)
class Heads:
    """Head geometry: query heads, key/value heads (fewer with grouped queries), their width."""

    num_query: int
    num_key_value: int
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """Geometry of a transformers config; no heads where it names none."""
        num_query = getattr(config, "num_attention_heads", 0)
        if not num_query:
            return cls(0, 0, 0)
        return cls(
            num_query,
            getattr(config, "num_key_value_heads", None) or num_query,
            getattr(config, "head_dim", None) or config.hidden_size // num_query,
        )

    def count(self, role: str) -> int:
        """Heads in a projection of this role, 0 where it has none."""
        shared = {"key": self.num_key_value, "value": self.num_key_value}
        return ({"query": self.num_query, "attn_out": self.num_query} | shared).get(role, 0)


class Piece(NamedTuple):
    """A projection, or one head of it."""

    role: str
    head: int | None
    w_OI: np.ndarray


class _Family(NamedTuple):
    prefixes: tuple[str, ...]
    patterns: Mapping[str, TensorRole]


_BLOCK = r"layers\.(\d+)\."
_QKV = {"q": "query", "k": "key", "v": "value"}
_LLAMA = _Family(
    ("model.",),
    {
        r"embed_tokens\.weight": TensorRole("embedding"),
        r"lm_head\.weight": TensorRole("unembedding"),
        **{_BLOCK + rf"self_attn\.{k}_proj\.weight": TensorRole(r) for k, r in _QKV.items()},
        _BLOCK + r"self_attn\.o_proj\.weight": TensorRole("attn_out"),
        _BLOCK + r"mlp\.gate_proj\.weight": TensorRole("mlp_gate"),
        _BLOCK + r"mlp\.up_proj\.weight": TensorRole("mlp_in"),
        _BLOCK + r"mlp\.down_proj\.weight": TensorRole("mlp_out"),
    },
)
_OPT = _Family(
    ("model.decoder.", "decoder."),
    {
        r"embed_tokens\.weight": TensorRole("embedding"),
        r"lm_head\.weight": TensorRole("unembedding"),
        **{_BLOCK + rf"self_attn\.{k}_proj\.weight": TensorRole(r) for k, r in _QKV.items()},
        _BLOCK + r"self_attn\.out_proj\.weight": TensorRole("attn_out"),
        _BLOCK + r"fc1\.weight": TensorRole("mlp_in"),
        _BLOCK + r"fc2\.weight": TensorRole("mlp_out"),
    },
)
_GPT2 = _Family(
    ("transformer.",),
    {
        r"wte\.weight": TensorRole("embedding"),
        r"lm_head\.weight": TensorRole("unembedding"),
        r"h\.(\d+)\.attn\.c_attn\.weight": TensorRole(
            "fused_qkv", transposed=True, fused="concatenated"
        ),
        r"h\.(\d+)\.attn\.c_proj\.weight": TensorRole("attn_out", transposed=True),
        r"h\.(\d+)\.mlp\.c_fc\.weight": TensorRole("mlp_in", transposed=True),
        r"h\.(\d+)\.mlp\.c_proj\.weight": TensorRole("mlp_out", transposed=True),
    },
)
_GPT_NEOX = _Family(
    ("gpt_neox.",),
    {
        r"embed_in\.weight": TensorRole("embedding"),
        r"lm_head\.weight": TensorRole("unembedding"),
        _BLOCK + r"attention\.query_key_value\.weight": TensorRole(
            "fused_qkv", fused="interleaved"
        ),
        _BLOCK + r"attention\.dense\.weight": TensorRole("attn_out"),
        _BLOCK + r"mlp\.dense_h_to_4h\.weight": TensorRole("mlp_in"),
        _BLOCK + r"mlp\.dense_4h_to_h\.weight": TensorRole("mlp_out"),
    },
)
_ENCODER_BLOCK = r"encoder\.layer\.(\d+)\."


def _encoder(prefix: str, head: str) -> _Family:
    return _Family(
        (prefix,),
        {
            r"embeddings\.word_embeddings\.weight": TensorRole("embedding"),
            head: TensorRole("unembedding"),
            **{
                _ENCODER_BLOCK + rf"attention\.self\.{role}\.weight": TensorRole(role)
                for role in ("query", "key", "value")
            },
            _ENCODER_BLOCK + r"attention\.output\.dense\.weight": TensorRole("attn_out"),
            _ENCODER_BLOCK + r"intermediate\.dense\.weight": TensorRole("mlp_in"),
            _ENCODER_BLOCK + r"output\.dense\.weight": TensorRole("mlp_out"),
        },
    )


_BERT = _encoder("bert.", r"cls\.predictions\.decoder\.weight")
_ROBERTA = _encoder("roberta.", r"lm_head\.decoder\.weight")
_ESM = _encoder("esm.", r"lm_head\.decoder\.weight")
LLAMA_LIKE: tuple[str, ...] = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2", "granite")
_FAMILIES: dict[str, _Family] = {
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
    "opt": _OPT,
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "esm": _ESM,
    "scaleinv_attention_only": _LLAMA,
    **dict.fromkeys(LLAMA_LIKE, _LLAMA),
}
ROLES: tuple[str, ...] = (
    "query", "key", "value", "attn_out", "mlp_in", "mlp_gate", "mlp_out", "embedding",
    "unembedding",
)  # fmt: skip
"""Of weights; what has none of them is 'other'."""
CAPTURED = frozenset(_FAMILIES)
"""Architectures of which a model can be captured, not its weights alone."""
NORMED_AFTER = frozenset({"olmo2", "gemma2"})
"""A norm stands between what their heads and MLPs give and the stream."""
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "esm"})
"""Those whose attention sees later positions too, but where config.json says `is_decoder`."""
# Causal masks that older checkpoints store beside the weights; they are constants, not weights.
_MASK = re.compile(r".*\.(attn|attention)\.(bias|masked_bias)")


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a bidirectional model that captures know."""
    return config.get("model_type") in ENCODERS and config.get("is_decoder") is not True


def has_masked_head(names: Iterable[str]) -> bool:
    """Whether the files of an encoder hold the head of masked tokens too.

    Returns:
        False of a body alone, as sentence encoders are.
    """
    return any(name.startswith(("cls.predictions.", "lm_head.")) for name in names)


def canonical_name(name: str, model_type: str) -> str:
    """One name for a tensor, whether it comes from a file or from a live model.

    Args:
        name: as stored, or as in `model.named_parameters()`.
        model_type: `config.model_type`.

    Returns:
        The name without the body's prefix; GPT-NeoX's stored 'embed_out' is the live 'lm_head'.

    >>> canonical_name("transformer.h.0.attn.c_attn.weight", "gpt2")
    'h.0.attn.c_attn.weight'
    >>> canonical_name("embed_out.weight", "gpt_neox")
    'lm_head.weight'
    """
    if model_type == "gpt_neox" and name == "embed_out.weight":
        return "lm_head.weight"
    family = _FAMILIES.get(model_type)
    for prefix in family.prefixes if family else ():
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def tensor_role(name: str, model_type: str) -> TensorRole:
    """Role of a tensor by its name.

    Args:
        name: as stored or as in the live model.
        model_type: `config.model_type`.

    Returns:
        The role; 'other' for a name or an architecture that is not in the map.

    >>> tensor_role("model.layers.3.mlp.down_proj.weight", "llama")
    TensorRole(role='mlp_out', layer=3, transposed=False, fused=None)
    >>> tensor_role("model.layers.3.surprise.weight", "llama").role
    'other'
    """
    family = _FAMILIES.get(model_type)
    canonical = canonical_name(name, model_type)
    for pattern, role in family.patterns.items() if family else ():
        match = re.fullmatch(pattern, canonical)
        if match:
            return replace(role, layer=int(match[1])) if match.groups() else role
    return TensorRole("other")


def block_roles(model_type: str) -> set[str]:
    """The roles that every block of a known architecture has.

    Args:
        model_type: `config.model_type`.

    Returns:
        The roles; none of an architecture that is not in the map.

    >>> sorted(block_roles("gpt2"))
    ['attn_out', 'fused_qkv', 'mlp_in', 'mlp_out']
    """
    family = _FAMILIES.get(model_type)
    patterns = family.patterns if family else {}
    return {role.role for pattern, role in patterns.items() if r"(\d+)" in pattern}


def is_mask(name: str, ndim: int) -> bool:
    """Whether a stored tensor is a causal mask (a constant of 4 dimensions), not a weight."""
    return ndim == 4 and _MASK.fullmatch(name) is not None


def _projections(w_OI: np.ndarray, tensor: TensorRole, heads: Heads) -> list[Piece]:
    if tensor.fused is None:
        return [Piece(tensor.role, None, w_OI)]
    sizes = [heads.count(role) * heads.head_dim for role in ("query", "key", "value")]
    if w_OI.shape[0] != sum(sizes):
        raise ValueError(
            f"fused projection of layer {tensor.layer}: got {w_OI.shape[0]} outputs, "
            f"allowed {sum(sizes)} for {heads}"
        )
    if tensor.fused == "concatenated":
        parts = np.split(w_OI, np.cumsum(sizes)[:-1])
    else:
        w_HPdI = w_OI.reshape(heads.num_query, 3, heads.head_dim, w_OI.shape[1])
        parts = [w_HPdI[:, p].reshape(-1, w_OI.shape[1]) for p in range(3)]
    return [Piece(r, None, p) for r, p in zip(("query", "key", "value"), parts, strict=True)]


def split(w_OI: np.ndarray, tensor: TensorRole, heads: Heads, *, per_head: bool) -> Iterator[Piece]:
    """Splits a stored tensor into projections, on request into heads.

    Args:
        w_OI: the tensor, already outputs x inputs.
        heads: head geometry of the model.
        per_head: split queries, keys and values by rows, the attention output by columns.

    Yields:
        Piece: role, head (None for a whole projection) and its weights, a view where possible.

    >>> heads = Heads(num_query=2, num_key_value=2, head_dim=1)
    >>> fused = TensorRole("fused_qkv", 0, fused="interleaved")
    >>> [p.w_OI.ravel().tolist() for p in split(np.arange(6.0)[:, None], fused, heads,
    ...                                         per_head=False)]
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    for piece in _projections(w_OI, tensor, heads):
        count = heads.count(piece.role)
        if not (per_head and count):
            yield piece
            continue
        axis = 1 if piece.role == "attn_out" else 0
        for head, w in enumerate(np.split(piece.w_OI, count, axis=axis)):
            yield Piece(piece.role, head, w)
