"""Sets of parameters of a language model whose curvature or posterior is looked at by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.checkpoints.files.roles import tensor_role
from scaleinv_ray.protocols import BLOCKS

ATTENTION_ROLES = frozenset({"query", "key", "value", "fused_qkv", "attn_out"})
MLP_ROLES = frozenset({"mlp_in", "mlp_gate", "mlp_out"})


@dataclass(frozen=True)
class ParameterBlock:
    """Some of a model's parameters.

    Attributes:
        name: unique in the model.
        site: out of `protocols.BLOCKS`.
        layer: index of the transformer block, None for the model and its embedding.
        parameters: names in `model.named_parameters()`, in that order.
    """

    name: str
    site: str
    layer: int | None
    parameters: tuple[str, ...]


def parameter_blocks(model: PreTrainedModel, wanted: Sequence[str]) -> Iterator[ParameterBlock]:
    """The sets of parameters asked for; layer by layer where each block of the model has one.

    A bias goes with its weight; norms belong to the layer and the model alone.

    Args:
        wanted: out of `protocols.BLOCKS`.

    Yields:
        The blocks; a layer without such parameters (no MLP) has none.

    Raises:
        ValueError: for an unknown name, or an architecture whose blocks are unknown.
    """
    if unknown := [w for w in wanted if w not in BLOCKS]:
        raise ValueError(f"blocks: got {unknown}, allowed {BLOCKS}")
    architecture = architecture_of(model.config)
    names = [name for name, _ in model.named_parameters()]
    roles = {name: _role(name, model.config.model_type) for name in names}
    for site in wanted:
        if site == "model":
            yield ParameterBlock("model", site, None, tuple(names))
            continue
        if site == "embedding":
            chosen = tuple(n for n in names if roles[n] == "embedding")
            yield ParameterBlock("embedding", site, None, chosen)
            continue
        of_site = {"attention": ATTENTION_ROLES, "mlp": MLP_ROLES}.get(site)
        for layer in range(architecture.num_layers):
            inside = [n for n in names if n.startswith(f"{architecture.blocks}.{layer}.")]
            chosen = tuple(n for n in inside if of_site is None or roles[n] in of_site)
            if chosen:
                yield ParameterBlock(f"{site} {layer}", site, layer, chosen)


def _role(name: str, model_type: str) -> str:
    weight = name.removesuffix("bias") + "weight" if name.endswith(".bias") else name
    return tensor_role(weight, model_type).role
