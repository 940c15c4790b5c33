"""Null variants: the live model and the stream of weights agree."""

from __future__ import annotations

import accelerate
import numpy as np
import pytest
import torch

from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.checkpoints.weights.nulls import change_weights_, materialise, shuffle_tokens


@pytest.mark.parametrize("name", ["gpt2", "neox_parallel", "llama", "opt", "bert"])
def test_shuffled_model_has_the_streamed_weights(name, folder, tmp_path):
    model, init = materialise(folder(name), "shuffled_weights", 7)
    assert init is None
    model.save_pretrained(tmp_path)
    live = list(iter_weights(tmp_path))
    streamed = list(iter_weights(folder(name), variant="shuffled_weights", seed=7))
    assert [(r.role, r.layer) for r in live] == [(r.role, r.layer) for r in streamed]
    for a, b in zip(live, streamed, strict=True):
        np.testing.assert_array_equal(a.w_OI, b.w_OI)


def test_norms_and_biases_are_kept_and_the_tie_too(folder):
    before = dict(load_model(folder("gpt2")).named_parameters())
    model = materialise(folder("gpt2"), "shuffled_weights", 0).model
    assert model.lm_head.weight is model.transformer.wte.weight
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter.ndim < 2)


def test_random_init_says_where_it_came_from(folder):
    model, init = materialise(folder("llama"), "random_init", 3)
    assert init == "from_config"
    assert not model.training
    streamed = next(iter_weights(folder("llama"), variant="random_init", seed=3))
    np.testing.assert_array_equal(model.model.embed_tokens.weight.detach(), streamed.w_OI)
    model, init = materialise(folder("llama"), "random_init", 3, init_folder=folder("llama"))
    assert init == "step0"
    assert torch.equal(model.lm_head.weight, load_model(folder("llama")).lm_head.weight)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_random_init_takes_the_load_options(device_map, folder):
    options = LoadOptions(device_map=device_map, dtype=torch.float64, attention="eager")
    model = materialise(folder("llama"), "random_init", 0, options=options).model
    assert model.dtype == torch.float64
    assert model.config._attn_implementation == "eager"


def test_unknown_variant(folder):
    with pytest.raises(ValueError, match="variant: got 'best', allowed"):
        materialise(folder("llama"), "best", 0)


def test_offloaded_weights_are_not_shuffled(folder):
    model = accelerate.cpu_offload(load_model(folder("llama")))
    with pytest.raises(ValueError, match="model: got an offloaded model"):
        change_weights_(model, lambda tensor, name: tensor)


def test_shuffled_tokens_stay_in_their_sequence():
    tokens_ST = np.arange(60).reshape(6, 10)
    mixed = shuffle_tokens(tokens_ST, 0)
    np.testing.assert_array_equal(np.sort(mixed, axis=1), tokens_ST)
    orders = {tuple(row % 10) for row in mixed}
    assert len(orders) == 6  # each sequence by a permutation of its own
    np.testing.assert_array_equal(mixed, shuffle_tokens(tokens_ST, 0))
    assert not np.array_equal(mixed, shuffle_tokens(tokens_ST, 1))
