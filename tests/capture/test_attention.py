"""Attention patterns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.by_kind.attention import attention_records

from .conftest import CONFIGS, PROTOCOL


@pytest.mark.parametrize("name", CONFIGS)
def test_patterns_are_the_model_s_own(name, model, tokens_ST):
    net = model(name)
    before = net.config._attn_implementation
    records = attention_records(net, tokens_ST, PROTOCOL, labels={"unit": "u"})
    assert net.config._attn_implementation == before
    assert [(r.layer, r.head) for r in records] == [(n, h) for n in (0, 1) for h in range(4)]
    net.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = net(torch.from_numpy(tokens_ST[:3]), output_attentions=True).attentions
    net.set_attn_implementation(before)
    for record in records:
        np.testing.assert_allclose(record.a_STT.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(record.a_STT, wanted[record.layer][:, record.head], atol=1e-6)
        if name != "bert":
            assert np.triu(record.a_STT, 1).max() == 0


def test_too_few_sequences(model, tokens_ST):
    protocol = dataclasses.replace(PROTOCOL, attention_sequences=161)
    with pytest.raises(ValueError, match="attention_sequences: got 161, allowed <= 160"):
        attention_records(model("llama"), tokens_ST, protocol)


def test_implementation_is_restored_after_an_exception(model, tokens_ST, monkeypatch):
    net = model("gpt2")

    def fail(*_args, **_kwargs):
        raise RuntimeError("planted")

    monkeypatch.setattr(net.transformer.h[1].mlp, "forward", fail)
    with pytest.raises(RuntimeError, match="planted"):
        attention_records(net, tokens_ST, PROTOCOL)
    assert net.config._attn_implementation == "sdpa"
    assert not net.transformer.h[0].attn._forward_hooks or all(
        "keep" not in repr(h) for h in net.transformer.h[0].attn._forward_hooks.values()
    )
