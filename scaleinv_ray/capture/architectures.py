"""What a capture has to know of an architecture: where blocks, norms and units live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from scaleinv_ray.checkpoints.files.roles import LLAMA_LIKE


@dataclass(frozen=True)
class Architecture:
    """Facts about one model.

    Attributes:
        model_type: `config.model_type`.
        num_layers: number of blocks.
        blocks: path of the list of blocks in the language model.
        attention: path, in a block, of the module that returns (output, pattern).
        down_projection: path, in a block, of the projection whose input is mlp_hidden (the units
            after the nonlinearity, after the gate where there is one), None without an MLP.
        final_norm: path of the norm after the last block, None where there is none.
        head: path of the module that turns the body's output into logits.
        causal: attention sees no later position.
        removes_mean: every reader of the residual stream starts with a LayerNorm, so adding
            c * (1, .., 1) to the stream changes nothing downstream.
        parallel_residual: attention and MLP read the same input.
        residual_multiplier: factor on what a block adds to the stream.
        logits_scaling: divisor of the head's output.
        logits_softcap: c in logits -> c tanh(logits / c), None without.
    """

    model_type: str
    num_layers: int
    blocks: str
    attention: str
    down_projection: str | None
    final_norm: str | None
    head: str = "lm_head"
    causal: bool = True
    removes_mean: bool = False
    parallel_residual: bool = False
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    logits_softcap: float | None = None

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The blocks of a live model, in order."""
        blocks = model.get_submodule(self.inside(model, self.blocks))
        return list(blocks.children())[: self.num_layers]

    @staticmethod
    def inside(model: Any, path: str) -> str:
        """A path of the language model in a live one, which may be the body alone."""
        alone = model.base_model is model
        return path.removeprefix(f"{model.base_model_prefix}.") if alone else path


def _gpt2(config: Any) -> Architecture:
    return Architecture(
        "gpt2",
        config.num_hidden_layers,
        blocks="transformer.h",
        attention="attn",
        down_projection="mlp.c_proj",
        final_norm="transformer.ln_f",
        removes_mean=True,
    )


def _gpt_neox(config: Any) -> Architecture:
    return Architecture(
        "gpt_neox",
        config.num_hidden_layers,
        blocks="gpt_neox.layers",
        attention="attention",
        down_projection="mlp.dense_4h_to_h",
        final_norm="gpt_neox.final_layer_norm",
        removes_mean=True,
        parallel_residual=config.use_parallel_residual,
    )


def _opt(config: Any) -> Architecture:
    # OPT-350m normalises after the sum: its blocks and its head read the raw stream.
    norm_before = config.do_layer_norm_before and not config._remove_final_layer_norm
    return Architecture(
        "opt",
        config.num_hidden_layers,
        blocks="model.decoder.layers",
        attention="self_attn",
        down_projection="fc2",
        final_norm="model.decoder.final_layer_norm" if norm_before else None,
        removes_mean=norm_before,
    )


def _bert(config: Any) -> Architecture:
    return Architecture(
        "bert",
        config.num_hidden_layers,
        blocks="bert.encoder.layer",
        attention="attention.self",
        down_projection="output.dense",
        final_norm=None,
        head="cls",
        causal=config.is_decoder,
    )


def _roberta(config: Any) -> Architecture:
    bert = replace(_bert(config), model_type=config.model_type, head="lm_head")
    return replace(bert, blocks="roberta.encoder.layer")


def _esm(config: Any) -> Architecture:
    # each sublayer has its norm before it, and one stands after the last block
    return replace(
        _roberta(config),
        blocks="esm.encoder.layer",
        final_norm="esm.encoder.emb_layer_norm_after",
        removes_mean=True,
    )


def _llama_like(config: Any) -> Architecture:
    return Architecture(
        config.model_type,
        config.num_hidden_layers,
        blocks="model.layers",
        attention="self_attn",
        down_projection="mlp.down_proj",
        final_norm="model.norm",
        residual_multiplier=getattr(config, "residual_multiplier", 1.0),
        logits_scaling=getattr(config, "logits_scaling", 1.0),
        logits_softcap=getattr(config, "final_logit_softcapping", None),
    )


def _attention_only(config: Any) -> Architecture:
    return Architecture(
        config.model_type,
        config.num_hidden_layers,
        blocks="model.layers",
        attention="self_attn",
        down_projection=None,
        final_norm="model.norm" if config.layer_norm else None,
        removes_mean=config.layer_norm,
    )


_ARCHITECTURES: dict[str, Callable[[Any], Architecture]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "opt": _opt,
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "esm": _esm,
    "scaleinv_attention_only": _attention_only,
    **dict.fromkeys(LLAMA_LIKE, _llama_like),
}


def architecture_of(config: Any) -> Architecture:
    """Facts about a model from its transformers config.

    Args:
        config: the config of a language model.

    Raises:
        ValueError: for an architecture that is not in the map.
    """
    if config.model_type not in _ARCHITECTURES:
        raise ValueError(
            f"model_type: got {config.model_type!r}, allowed {sorted(_ARCHITECTURES)} "
            "(weights alone: any that transformers knows)"
        )
    return _ARCHITECTURES[config.model_type](config)
