"""The attention-only model: blocks of causal attention that add to a residual stream.

Shape suffixes: S sequences, T tokens, D width, K width of a head.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    LlamaConfig,
    PreTrainedModel,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from scaleinv_ray.attention_only.cache import cache_argument
from scaleinv_ray.attention_only.configuration import AttentionOnlyConfig

CACHE = cache_argument(create_causal_mask)
"""Name of the cache in the transformers that is installed."""


def _norm(config: AttentionOnlyConfig) -> nn.Module:
    if not config.layer_norm:
        return nn.Identity()
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def _as_llama(config: AttentionOnlyConfig) -> LlamaConfig:
    """For Llama's modules, which read no field that this config lacks."""
    return cast("LlamaConfig", config)


class ResidualBlock(nn.Module):
    """x + attention(norm(x)).

    Its name has no 'Attention': transformers goes by names of modules, and would look here, not in
    LlamaAttention, for whether the kind of attention can be changed.
    """

    def __init__(self, config: AttentionOnlyConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = _norm(config)
        self.self_attn = LlamaAttention(_as_llama(config), layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The residual stream after the block.

        Args:
            hidden_states: the stream before it, [S, T, D].
            attention_mask: as transformers makes it.
            cache: keys and values of earlier positions.
            position_embeddings: cosines and sines of the positions, [1, T, K] each.
            kwargs: of transformers' attention functions.

        Returns:
            [S, T, D].
        """
        added_STD, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **{CACHE: cache},
            **kwargs,
        )
        return hidden_states + added_STD


class AttentionOnlyPreTrainedModel(PreTrainedModel):
    """What body and language model share: loading, initialisation, kinds of attention."""

    config: AttentionOnlyConfig
    config_class = AttentionOnlyConfig
    base_model_prefix = "model"
    _no_split_modules = ["ResidualBlock"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": ResidualBlock, "attentions": LlamaAttention}


class AttentionOnlyModel(AttentionOnlyPreTrainedModel):
    """Embedding, blocks and final norm."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        else:
            self.rotary_emb = LlamaRotaryEmbedding(_as_llama(config))
        self.layers = nn.ModuleList(
            ResidualBlock(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = _norm(config)
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The residual stream after the final norm.

        Args:
            input_ids: tokens [S, T]; or
            inputs_embeds: what stands for their embedding, [S, T, D].
            attention_mask: of padding, [S, T].
            position_ids: of the tokens, [S or 1, T]; counted on from the cache by default.
            cache: keys and values of earlier positions.
            past_key_values: the same under its older name, see `cache_argument`.
            kwargs: of transformers' attention functions.

        Returns:
            `last_hidden_state` [S, T, D] and the cache.

        Raises:
            ValueError: unless exactly one of input_ids and inputs_embeds is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids, inputs_embeds: got none or both, allowed one of them")
        x_STD = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=self.config)
        held: dict[str, Any] = {CACHE: cache}
        if position_ids is None:
            seen = 0 if cache is None else cache.get_seq_length()
            position_ids = torch.arange(seen, seen + x_STD.shape[1], device=x_STD.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x_STD,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **held,
        )
        x_STD, turn = self._with_positions(x_STD, position_ids)
        for block in self.layers:
            x_STD = block(
                x_STD,
                attention_mask=mask,
                cache=cache,
                position_embeddings=turn,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x_STD), **held)

    def _with_positions(
        self, x_STD: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The stream, and cosines and sines; a learned position turns nothing."""
        if self.config.positions == "rotary":
            return x_STD, self.rotary_emb(x_STD, position_ids=position_ids)
        shape = (*position_ids.shape, self.config.head_dim)
        still = x_STD.new_ones(shape), x_STD.new_zeros(shape)
        return x_STD + self.embed_positions(position_ids), still


class AttentionOnlyForCausalLM(AttentionOnlyPreTrainedModel, GenerationMixin):
    """The body with an unembedding."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__(config)
        self.model = AttentionOnlyModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of every next token.

        Args:
            input_ids: tokens [S, T].
            labels: tokens whose cross-entropy is wanted, [S, T]; -100 is left out.
            kwargs: see `AttentionOnlyModel.forward`.

        Returns:
            `logits` [S, T, V], with labels the mean `loss` in nats, and the cache.
        """
        body = self.model(input_ids, **kwargs)
        logits = self.lm_head(body.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
            **{CACHE: getattr(body, CACHE)},
        )


AutoModel.register(AttentionOnlyConfig, AttentionOnlyModel)
AutoModelForCausalLM.register(AttentionOnlyConfig, AttentionOnlyForCausalLM)
