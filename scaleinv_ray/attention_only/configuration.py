"""Configuration of the attention-only architecture."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

MODEL_TYPE = "scaleinv_attention_only"
POSITIONS: tuple[str, ...] = ("rotary", "learned")


class AttentionOnlyConfig(PreTrainedConfig):
    """A decoder whose blocks are attention and nothing else.

    Attributes:
        vocab_size: V.
        hidden_size: D, width of the residual stream.
        num_hidden_layers: blocks.
        num_attention_heads: of a block.
        head_dim: width of a head, D / heads by default; even with rotary positions.
        positions: 'rotary' (Su et al. 2021), or 'learned' vectors added to the embedding.
        layer_norm: a LayerNorm before every block and after the last one; without, the network is
            linear but for the attention patterns.
        intermediate_size: 0, as there is no MLP.
        max_position_embeddings: longest sequence.
        initializer_range: standard deviation of all matrices at the start.
        layer_norm_eps: added to the variance.
        rope_parameters: of transformers' rotary embedding.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    vocab_size: int = 257
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    head_dim: int | None = None
    positions: str = "rotary"
    layer_norm: bool = True
    intermediate_size: int = 0
    max_position_embeddings: int = 128
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills in the width of a head, and checks.

        Args:
            kwargs: further fields of transformers.

        Raises:
            ValueError: for heads that do not divide the width, an odd head with rotary positions,
                unknown positions, and an MLP.
        """
        if self.positions not in POSITIONS:
            raise ValueError(f"positions: got {self.positions!r}, allowed {POSITIONS}")
        if self.intermediate_size:
            raise ValueError(f"intermediate_size: got {self.intermediate_size}, allowed 0 (no MLP)")
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"num_attention_heads: got {self.num_attention_heads}, allowed divisors of "
                    f"hidden_size ({self.hidden_size}), or a head_dim"
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"head_dim: got {self.head_dim}, allowed even numbers (rotary pairs)")
        if self.rope_parameters is None:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
        super().__post_init__(**kwargs)

    @property
    def num_key_value_heads(self) -> int:
        """Every query head has keys and values of its own."""
        return self.num_attention_heads


AutoConfig.register(MODEL_TYPE, AttentionOnlyConfig)
