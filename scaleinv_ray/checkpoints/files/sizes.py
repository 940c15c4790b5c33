"""The numbers of an architecture, out of a config.json that anyone may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from scaleinv_ray.checkpoints.files.roles import ENCODERS, Heads
from scaleinv_ray.inputs.json_files import short, whole

_NAMES = {  # first key that config.json has
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model", "dim"),
    "d_mlp": ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim"),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "num_query": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "d_embed": ("word_embed_proj_dim",),
}
_OWN_DEFAULTS = {"qwen3", "gemma2"}
"""Where a head's width is not the stream's over the heads unless config.json says so."""
_GROUPED = {"gpt2", "gpt_neox", "opt", "llama", "scaleinv_attention_only", *ENCODERS}
"""Where keys and values have as many heads as queries unless config.json says so."""
_NEEDED = ("n_layers", "d_model", "vocab_size")


class Sizes(NamedTuple):
    """Sizes of a transformer.

    Attributes:
        model_type: of config.json.
        n_layers: blocks.
        d_model: width of the residual stream.
        d_mlp: neurons of a block's MLP, None where config.json does not say.
        vocab_size: rows of the embedding.
        max_positions: longest sequence, None without a limit.
        num_query: heads, None where it does not say.
        num_key_value: heads of keys and values, None for as many.
        head_dim: width of a head, None where it does not say.
        d_embed: width of the embedding where it is another than that of the stream.
    """

    model_type: str
    n_layers: int
    d_model: int
    d_mlp: int | None
    vocab_size: int
    max_positions: int | None
    num_query: int | None
    num_key_value: int | None
    head_dim: int | None
    d_embed: int | None

    @classmethod
    def of(cls, where: str, config: Mapping[str, Any]) -> Sizes:
        """The sizes that a config states.

        Args:
            where: the checkpoint, named in errors.

        Raises:
            ValueError: naming the field: no model_type, a needed size that is missing, what is no
                whole number above zero (an MLP may have none), a tie neither true nor false.
        """
        file = f"{where}/config.json"
        model_type = config.get("model_type")
        if not isinstance(model_type, str) or not model_type:
            raise ValueError(f"{file}: model_type: got {short(model_type)}, allowed: a name")
        tied = config.get("tie_word_embeddings")
        if not (tied is None or isinstance(tied, bool)):
            raise ValueError(
                f"{file}: tie_word_embeddings: got {short(tied)}, allowed: true, false"
            )
        found = {field: _first(config, field, file) for field in _NAMES}
        if found["max_positions"] is not None and _counts_from_padding(config):
            padding = whole(config, "pad_token_id", file)
            found["max_positions"] -= 1 + (1 if padding is None else padding)
        if found["d_mlp"] is None and "n_embd" in config:
            found["d_mlp"] = 4 * (found["d_model"] or 0)  # GPT-2's n_inner: null
        for field in _NEEDED:
            if found[field] is None:
                names = " or ".join(_NAMES[field])
                raise ValueError(f"{file}: {field}: got none, allowed: {names}, a number")
        return cls(model_type=model_type, **found)  # type: ignore[arg-type]

    def shape(self, role: str) -> tuple[int, int] | None:
        """Outputs and inputs of a matrix of a role.

        Args:
            role: as of records.

        Returns:
            The two, None where config.json does not say.

        >>> sizes = Sizes("llama", 2, 32, 64, 257, 128, 4, 2, None, None)
        >>> sizes.shape("key"), sizes.shape("mlp_out"), sizes.shape("other")
        ((16, 32), (32, 64), None)
        """
        query = self._rows(self.num_query)
        many = self.num_query if self.model_type in _GROUPED else None
        key = self._rows(self.num_key_value or many)
        if role in {"embedding", "unembedding"}:
            return self.vocab_size, self.d_embed or self.d_model
        rows = {"query": query, "attn_out": query, "key": key, "value": key}
        rows |= {"mlp_in": self.d_mlp, "mlp_gate": self.d_mlp, "mlp_out": self.d_mlp}
        rows |= {"fused_qkv": None if query is None or key is None else query + 2 * key}
        inner = rows.get(role)
        if inner is None:
            return None
        outward = role in {"attn_out", "mlp_out"}
        return (self.d_model, inner) if outward else (inner, self.d_model)

    def heads(self) -> Heads | None:
        """Head geometry; None where config.json leaves it to the defaults of a class."""
        alike = self.num_query if self.model_type in _GROUPED else None
        many = self.num_key_value or alike
        if self.num_query is None or many is None:
            return None
        if self.head_dim is None and self.model_type in _OWN_DEFAULTS:
            return None
        return Heads(self.num_query, many, self.head_dim or self.d_model // self.num_query)

    def _rows(self, heads: int | None) -> int | None:
        if heads is None or self.num_query is None:
            return None
        if self.head_dim is None and self.model_type in _OWN_DEFAULTS:
            return None
        return heads * (self.head_dim or self.d_model // self.num_query)


def _counts_from_padding(config: Mapping[str, Any]) -> bool:
    """Whether positions begin behind that of padding, as in the models that follow fairseq."""
    kind = config.get("model_type")
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    return kind in {"roberta", "xlm-roberta"} or (kind == "esm" and absolute)


def _first(config: Mapping[str, Any], field: str, file: str) -> int | None:
    """The first key of a field that has a number."""
    for key in _NAMES[field]:
        if config.get(key) is not None:
            return whole(config, key, file, least=0 if field == "d_mlp" else 1)
    return None
