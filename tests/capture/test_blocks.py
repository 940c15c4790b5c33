"""Sets of parameters of a model."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from scaleinv_ray.capture.blocks import parameter_blocks
from scaleinv_ray.protocols import BLOCKS

SMALL = {
    "gpt2": {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 32, "n_positions": 16},
    "gpt_neox": {
        "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 32, "max_position_embeddings": 16,
    },
    "llama": {
        "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 32, "max_position_embeddings": 16,
    },
    "opt": {
        "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "ffn_dim": 16,
        "vocab_size": 32, "max_position_embeddings": 16, "word_embed_proj_dim": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", SMALL)
def test_layers_part_the_model_and_attention_and_mlp_part_a_layer_but_for_its_norms(
    model_type: str,
) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SMALL[model_type]))
    blocks = list(parameter_blocks(model, BLOCKS))
    names = [n for n, _ in model.named_parameters()]
    assert blocks[0].parameters == tuple(names)
    assert len({b.name for b in blocks}) == len(blocks)
    for layer in range(2):
        at = {b.site: set(b.parameters) for b in blocks if b.layer == layer}
        assert set(at) == {"layer", "attention", "mlp"}
        assert not at["attention"] & at["mlp"]
        rest = at["layer"] - at["attention"] - at["mlp"]
        assert rest and all("norm" in n or "ln_" in n for n in rest)
    inside = [n for b in blocks if b.site == "layer" for n in b.parameters]
    assert len(inside) == len(set(inside))
    outside = set(names) - set(inside)
    embedding = next(b for b in blocks if b.site == "embedding")
    assert len(embedding.parameters) == 1 and set(embedding.parameters) <= outside


def test_an_unknown_block_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **SMALL["gpt2"]))
    with pytest.raises(ValueError, match="blocks: got .'heart'."):
        list(parameter_blocks(model, ["heart"]))
