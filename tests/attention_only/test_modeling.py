"""The attention-only model: positions, caches, configurations."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from scaleinv_ray.attention_only.configuration import AttentionOnlyConfig
from scaleinv_ray.attention_only.modeling import CACHE, AttentionOnlyForCausalLM, AttentionOnlyModel


def build(**changes: object) -> AttentionOnlyForCausalLM:
    fields = {"vocab_size": 20, "hidden_size": 16, "max_position_embeddings": 16} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AttentionOnlyConfig(**fields, initializer_range=0.25)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def logits(model: AttentionOnlyForCausalLM, ids: torch.Tensor, **more: object) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **more).logits


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(20, (2, 10), generator=torch.Generator().manual_seed(1))


def test_parameters_are_those_of_attention_and_embeddings_alone() -> None:
    model = build(hidden_size=32, num_hidden_layers=3, layer_norm=False)
    assert sum(p.numel() for p in model.parameters()) == 2 * 20 * 32 + 3 * 4 * 32**2
    learned = build(hidden_size=32, num_hidden_layers=3, positions="learned")
    norms = 4 * 2 * 32
    assert sum(p.numel() for p in learned.parameters()) == (
        2 * 20 * 32 + 3 * 4 * 32**2 + norms + 16 * 32
    )


def test_tied_embeddings_are_one_tensor() -> None:
    model = build(tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_order_matters_and_the_future_does_not(positions: str, ids: torch.Tensor) -> None:
    model = build(positions=positions)
    swapped = ids[:, [1, 0, *range(2, 10)]]
    assert not torch.allclose(logits(model, ids)[:, -1], logits(model, swapped)[:, -1], atol=1e-4)
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 20
    torch.testing.assert_close(logits(model, ids)[:, :-1], logits(model, changed)[:, :-1])


def test_rotary_positions_are_relative_and_learned_ones_are_not(ids: torch.Tensor) -> None:
    at = torch.arange(10)[None]
    for positions, relative in (("rotary", True), ("learned", False)):
        model = build(positions=positions)
        moved = logits(model, ids, position_ids=at + 4)
        assert torch.allclose(logits(model, ids), moved, atol=1e-5) == relative


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_cache_changes_nothing(positions: str, name: str, ids: torch.Tensor) -> None:
    model = build(positions=positions)
    with torch.no_grad():
        first = model(ids[:, :6], use_cache=True)
        second = model(ids[:, 6:], use_cache=True, **{name: first[CACHE]})
    together = torch.cat([first.logits, second.logits], dim=1)
    torch.testing.assert_close(together, logits(model, ids), atol=1e-5, rtol=1e-4)


def test_generation_with_a_cache_is_that_without(ids: torch.Tensor) -> None:
    model = build()
    asked = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    asked["attention_mask"] = torch.ones_like(ids)
    held, anew = (model.generate(ids, use_cache=use, **asked) for use in (True, False))
    assert held.tolist() == anew.tolist()


def test_padding_is_not_seen(ids: torch.Tensor) -> None:
    model = build()
    padded = torch.cat([torch.zeros_like(ids[:, :3]), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    got = logits(model, padded, attention_mask=mask)[:, 3:]  # rotary: a shift changes nothing
    torch.testing.assert_close(got, logits(model, ids), atol=1e-5, rtol=1e-4)


def test_patterns_and_streams_can_be_asked_for(ids: torch.Tensor) -> None:
    model = build()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, output_attentions=True, output_hidden_states=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 4, 10, 10)] * 2
    assert [tuple(h.shape) for h in out.hidden_states] == [(2, 10, 16)] * 3


def test_exactly_one_input() -> None:
    body = build().model
    assert isinstance(body, AttentionOnlyModel)
    with pytest.raises(ValueError, match="input_ids, inputs_embeds: got none or both"):
        body()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"intermediate_size": 64}, "intermediate_size: got 64, allowed 0"),
        ({"positions": "absolute"}, "positions: got 'absolute', allowed"),
        ({"hidden_size": 18, "num_attention_heads": 4}, "num_attention_heads: got 4, allowed"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "head_dim: got 3, allowed even"),
    ],
)
def test_impossible_sizes_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AttentionOnlyConfig(**fields)


def test_a_config_survives_being_written(tmp_path: Path) -> None:
    config = AttentionOnlyConfig(positions="learned", layer_norm=False, head_dim=6)
    config.save_pretrained(tmp_path)
    found = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(found, AttentionOnlyConfig)
    assert found.to_diff_dict() | {"_name_or_path": ""} == config.to_diff_dict() | {
        "_name_or_path": ""
    }
    assert (found.head_dim, found.positions, found.layer_norm) == (6, "learned", False)
