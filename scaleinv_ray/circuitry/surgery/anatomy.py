"""Where the heads, projections and norms of a stock model are: an entry an architecture.

Shape suffixes: O outputs, I inputs, D width, H heads, K width of a head, T tokens, S rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from scaleinv_ray.capture.architectures import Architecture, architecture_of
from scaleinv_ray.capture.sites import check_whole
from scaleinv_ray.checkpoints.files.roles import ENCODERS, LLAMA_LIKE, Heads
from scaleinv_ray.circuitry.surgery.components import Graph

Views = dict[str, torch.Tensor]
"""q, k, v -> [.., heads, K], views of a projection's output."""
Layout = Callable[[torch.Tensor, Heads], Views]


@dataclass(frozen=True)
class BlockPaths:
    """Paths in a block.

    Attributes:
        attention_norm: what q, k and v read goes through it; None where they read the raw stream.
        projections: path -> how its output is divided.
        out: the output projection of the heads.
        mlp: the module whose output is the MLP's, None without.
        mlp_norm: what the MLP reads goes through it.
        normed_after: a norm stands between what heads and MLP give and the stream, so that what
            they write is no sum.
    """

    attention_norm: str | None
    projections: dict[str, Layout]
    out: str
    mlp: str | None = "mlp"
    mlp_norm: str | None = "post_attention_layernorm"
    normed_after: bool = False


def _only(role: str) -> Layout:
    def views(y: torch.Tensor, heads: Heads) -> Views:
        count = heads.num_query if role == "q" else heads.num_key_value
        return {role: y.unflatten(-1, (count, heads.head_dim))}

    return views


def _concatenated(y: torch.Tensor, heads: Heads) -> Views:
    parts = y.unflatten(-1, (3, heads.num_query, heads.head_dim)).unbind(-3)
    return dict(zip("qkv", parts, strict=True))


def _interleaved(y: torch.Tensor, heads: Heads) -> Views:
    parts = y.unflatten(-1, (heads.num_query, 3, heads.head_dim)).unbind(-2)
    return dict(zip("qkv", parts, strict=True))


def _apart(prefix: str) -> dict[str, Layout]:
    return {f"{prefix}.{role}_proj": _only(role) for role in "qkv"}


_LLAMA = BlockPaths("input_layernorm", _apart("self_attn"), "self_attn.o_proj")
_PATHS: dict[str, BlockPaths] = {
    **dict.fromkeys(LLAMA_LIKE, _LLAMA),
    "gpt2": BlockPaths("ln_1", {"attn.c_attn": _concatenated}, "attn.c_proj", mlp_norm="ln_2"),
    "gpt_neox": BlockPaths(
        "input_layernorm", {"attention.query_key_value": _interleaved}, "attention.dense"
    ),
    "opt": BlockPaths(
        "self_attn_layer_norm",
        _apart("self_attn"),
        "self_attn.out_proj",
        mlp="fc2",
        mlp_norm="final_layer_norm",
    ),
    "olmo2": BlockPaths(
        None, _apart("self_attn"), "self_attn.o_proj", mlp_norm=None, normed_after=True
    ),
    "gemma2": BlockPaths(
        "input_layernorm",
        _apart("self_attn"),
        "self_attn.o_proj",
        mlp_norm="pre_feedforward_layernorm",
        normed_after=True,
    ),
    "scaleinv_attention_only": BlockPaths(
        "input_layernorm", _apart("self_attn"), "self_attn.o_proj", mlp=None, mlp_norm=None
    ),
}


@dataclass(frozen=True)
class Projection:
    """What one module reads for some of q, k, v.

    Attributes:
        module: the stock projection.
        views: divides its output (or a gradient of it) per head.
        weight: role -> [I, heads, K].
        bias: role -> [heads, K]; empty without.
    """

    module: nn.Module
    views: Callable[[torch.Tensor], Views]
    weight: Views
    bias: Views


@dataclass(frozen=True)
class Anatomy:
    """A causal model and where its parts are.

    Attributes:
        model: in eval mode, whole, on one device.
        architecture: facts about it.
        heads: their geometry.
        paths: in a block.
    """

    model: PreTrainedModel
    architecture: Architecture
    heads: Heads
    paths: BlockPaths

    @classmethod
    def of(cls, model: PreTrainedModel) -> Anatomy:
        """The parts of a model.

        Raises:
            ValueError: for an encoder or an architecture without an entry; train mode; weights that
                are offloaded, on several devices or quantised; a model without its head of logits.
        """
        if not isinstance(getattr(model, "config", None), PreTrainedConfig):
            got = type(model).__name__
            raise ValueError(f"model: got {got}, allowed a causal model of transformers, loaded")
        config: Any = model.config
        if config.model_type in ENCODERS:
            raise ValueError(
                f"model: got {config.model_type!r}, an encoder, allowed causal models: a circuit "
                "is measured on the next token"
            )
        architecture = architecture_of(config)
        if model.training:
            raise ValueError("model: got train mode, allowed eval mode (dropout changes effects)")
        check_whole(model)
        _check_plain_weights(model)
        has_head = any(name == architecture.head for name, _ in model.named_modules())
        if model.base_model is model or not has_head:
            got = type(model).__name__
            raise ValueError(f"model: got {got} without logits, allowed a causal language model")
        paths = _PATHS[config.model_type]
        return cls(model, architecture, Heads.of(config), paths)

    @cached_property
    def graph(self) -> Graph:
        """Its writers and readers."""
        return Graph(
            layers=self.architecture.num_layers,
            heads=self.heads.num_query,
            groups=self.heads.num_key_value,
            mlps=self.paths.mlp is not None,
            parallel=self.architecture.parallel_residual,
        )

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """In order."""
        return self.architecture.layers(self.model)

    def out(self, layer: int) -> nn.Module:
        """The output projection, whose input are the heads side by side."""
        return self.blocks[layer].get_submodule(self.paths.out)

    def attention(self, layer: int) -> nn.Module:
        """The module that ends with `out`."""
        return self.blocks[layer].get_submodule(self.paths.out.rpartition(".")[0])

    def mlp(self, layer: int) -> nn.Module:
        """The module whose output is the MLP's."""
        assert self.paths.mlp is not None, "asked of a model without MLPs"
        return self.blocks[layer].get_submodule(self.paths.mlp)

    def attention_norm(self, layer: int) -> nn.Module:
        """Between the stream and q, k, v."""
        path = self.paths.attention_norm
        return nn.Identity() if path is None else self.blocks[layer].get_submodule(path)

    def mlp_norm(self, layer: int) -> nn.Module:
        """Its input is what the MLP reads of the stream."""
        return self.blocks[layer].get_submodule(self.paths.mlp_norm or "mlp")

    def norm_after(self, layer: int, of: Literal["heads", "mlp"]) -> nn.Module | None:
        """Between what all heads, or the MLP, give and the stream; None where it is added as is."""
        if not self.paths.normed_after:
            return None
        name = {"heads": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}[of]
        return self.blocks[layer].get_submodule(name)

    def projections(self, layer: int) -> list[Projection]:
        """Of q, k and v, fused or apart."""
        found = []
        for path, layout in self.paths.projections.items():
            module = self.blocks[layer].get_submodule(path)

            def views(y: torch.Tensor, layout: Layout = layout) -> Views:
                return layout(y, self.heads)

            bias = getattr(module, "bias", None)
            weight_IO = _weight_OI(module).T
            found.append(
                Projection(module, views, views(weight_IO), {} if bias is None else views(bias))
            )
        return found

    def written_HKD(self, layer: int) -> torch.Tensor:
        """What a unit of a head adds to the stream: W_O, times the factor of the stream."""
        w_DI = _weight_OI(self.out(layer))
        w_HKD = w_DI.T.unflatten(0, (self.heads.num_query, self.heads.head_dim))
        return w_HKD * self.architecture.residual_multiplier

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the stream after the last block: final norm, head, its scale and cap."""
        facts = self.architecture
        if facts.final_norm is not None:
            x = self.model.get_submodule(facts.final_norm)(x)
        body = self.model.get_submodule(facts.blocks.rpartition(".")[0])
        last: Any = getattr(body, "project_out", None)
        if last is not None:  # OPT-350m: embedding narrower than the stream
            x = last(x)
        logits = self.model.get_submodule(facts.head)(x) / facts.logits_scaling
        if facts.logits_softcap is None:
            return logits
        return facts.logits_softcap * torch.tanh(logits / facts.logits_softcap)

    def check_edges(self) -> None:
        """Refuses models whose heads do not add up in the stream.

        Raises:
            ValueError: naming the architecture.
        """
        after = self.architecture.model_type == "opt" and not self.architecture.removes_mean
        if self.paths.normed_after or after:
            raise ValueError(
                f"edges: got {self.architecture.model_type}, which normalises after its heads are "
                "summed, so that an edge carries no part of its own; allowed: nodes alone"
            )


def _weight_OI(module: nn.Module) -> torch.Tensor:
    weight: Any = module.weight
    return weight.detach().T if isinstance(module, Conv1D) else weight.detach()


def _check_plain_weights(model: PreTrainedModel) -> None:
    """ValueError where weights are packed: a head's rows cannot be read out of them."""
    if getattr(model, "is_quantized", False) or getattr(model.config, "quantization_config", None):
        raise ValueError("model: got quantised weights, allowed floating point (16, 32 or 64 bits)")
    for name, module in model.named_modules():
        if callable(getattr(module, "weight", None)):  # as torch packs what it quantises
            raise ValueError(f"model.{name}: got packed weights, allowed floating point weights")
    for name, p in model.named_parameters():
        if not p.is_floating_point():
            raise ValueError(f"model.{name}: got {p.dtype}, allowed floating point weights")
