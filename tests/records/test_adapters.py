"""What other tools captured of a model gives the records that a capture here makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.capture.by_kind.attention import attention_records
from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.invariants.representation import participation
from scaleinv_ray.records import Protocol, from_nnsight, from_transformer_lens

KINDS = ("cloud", "depth_stack", "moments", "stream")
PROTOCOL = Protocol(
    sequences=140, length=12, position=9, tokens_per_dim=50, blocks=6, stream_units=8,
    jacobian_positions=1, attention_sequences=2, vocab_rows=4,
)  # fmt: skip
GIVEN: dict[str, Any] = {"protocol": PROTOCOL, "num_layers": 2, "removes_mean": True, "seed": 7}


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=16, vocab_size=50,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def tokens_ST() -> np.ndarray:
    return np.random.default_rng(0).integers(50, size=(PROTOCOL.sequences, PROTOCOL.length))


@pytest.fixture(scope="module")
def saved(model: GPT2LMHeadModel, tokens_ST: np.ndarray) -> dict[str, Any]:
    """What stands before and after the modules of the model, by their paths."""
    found: dict[str, Any] = {}

    def keep(name: str, module: torch.nn.Module) -> None:
        def hook(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            found[f"{name}.input"] = args[0] if args else kwargs["hidden_states"]
            found[f"{name}.output"] = output

        module.register_forward_hook(hook, with_kwargs=True)

    for layer, block in enumerate(model.transformer.h):
        keep(f"transformer.h.{layer}", block)
        keep(f"transformer.h.{layer}.attn", block.attn)
        keep(f"transformer.h.{layer}.mlp.c_proj", block.mlp.c_proj)
    with torch.no_grad():
        model(torch.from_numpy(tokens_ST))
    for module in model.modules():
        module._forward_hooks.clear()
    return found


def lens(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The same arrays by the names of TransformerLens, and one that nothing here reads."""
    cache = {"hook_embed": np.zeros(3), "blocks.0.hook_resid_pre": saved["transformer.h.0.input"]}
    for layer in range(2):
        at, block = f"transformer.h.{layer}", f"blocks.{layer}"
        out = saved[f"{at}.output"]
        cache[f"{block}.hook_resid_post"] = out[0] if isinstance(out, tuple) else out
        cache[f"{block}.mlp.hook_post"] = saved[f"{at}.mlp.c_proj.input"]
        cache[f"{block}.attn.hook_pattern"] = saved[f"{at}.attn.output"][1]
    return cache


@pytest.mark.parametrize("make", [from_transformer_lens, from_nnsight])
def test_records_are_those_of_our_own_capture(make, model, tokens_ST, saved) -> None:
    arrays = saved if make is from_nnsight else lens(saved)
    found = make(arrays, [*KINDS, "attention"], **GIVEN)
    want: dict[str, Any] = dict(
        forward_records(
            model, tokens_ST, PROTOCOL, kinds=frozenset(KINDS), batch_size=16, seed_units=7
        )
    )
    want["attention"] = attention_records(model, tokens_ST, PROTOCOL)
    assert set(found) == set(want)
    for kind, records in want.items():
        assert len(found[kind]) == len(records)
        for mine, ours in zip(found[kind], records, strict=True):
            assert mine.labels() == ours.labels() | {"dtype": None}
            for name in ours.arrays:
                np.testing.assert_allclose(getattr(mine, name), getattr(ours, name), atol=1e-6)


def test_an_invariant_of_a_cache_is_that_of_the_capture(model, tokens_ST, saved) -> None:
    moments = from_transformer_lens(lens(saved), ["moments"], **GIVEN)["moments"]
    ours = forward_records(model, tokens_ST, PROTOCOL, kinds=frozenset({"moments"}), batch_size=16)[
        "moments"
    ]
    parameters = REGISTRY["representation.participation"].parameters
    for mine, other in zip(moments, ours, strict=True):
        a, b = (
            participation(of, rng=np.random.default_rng(0), **parameters).values
            for of in (mine, other)
        )
        assert a["participation_ratio"].value == pytest.approx(b["participation_ratio"].value)


@pytest.mark.parametrize(
    ("change", "kinds", "message"),
    [
        ({}, ["clouds"], r"kinds: got 'clouds', allowed cloud, depth_stack"),
        ({"num_layers": 3}, ["cloud"], r"cloud: got no resid_post of layer 2, allowed: all 4"),
        (
            {"protocol": Protocol(sequences=141, length=12, position=9)},
            ["cloud"],
            r"got shape \(140, 12, 32\), allowed 141 sequences of 12 tokens \(protocol\)",
        ),
        (
            {"protocol": Protocol(sequences=140, length=12, position=9, tokens_per_dim=60)},
            ["moments"],
            r"sequences: got 140, moments need 160",
        ),
        (
            {"protocol": Protocol(sequences=140, length=12, position=9, stream_units=40)},
            ["stream"],
            r"sequences: got 140, streams need 167",
        ),
    ],
)
def test_what_a_cache_has_not_is_named(saved, change, kinds, message) -> None:
    with pytest.raises(ValueError, match=message):
        from_transformer_lens(lens(saved), kinds, **(GIVEN | change))


def test_values_that_are_not_finite_are_refused(saved) -> None:
    cache = lens(saved)
    cache["blocks.1.hook_resid_post"] = np.full((140, 12, 32), np.nan)
    with pytest.raises(ValueError, match=r"blocks.1.hook_resid_post: got values that are not fin"):
        from_transformer_lens(cache, ["cloud"], **GIVEN)
