"""Tokens that stand before a text: the model reads them, and what is captured begins after them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as tf

from scaleinv_ray.capture.by_kind.attention import attention_records
from scaleinv_ray.capture.by_kind.jacobians import jacobian_records
from scaleinv_ray.capture.by_kind.masked_losses import masked_losses
from scaleinv_ray.capture.curvature.products import language_loss
from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.capture.makers import PassRequest
from scaleinv_ray.capture.posterior.chains import language_losses
from scaleinv_ray.capture.session import Session, Source, StreamedSession
from scaleinv_ray.checkpoints.weights.nulls import shuffle_tokens
from scaleinv_ray.kinds import one_pass_kinds
from scaleinv_ray.store.states import StateFiles

from .conftest import CAUSAL, CONFIGS, PROTOCOL

FIRST = [3, 7]


@pytest.fixture
def begun_ST(tokens_ST):
    return np.concatenate([np.tile(FIRST, (len(tokens_ST), 1)), tokens_ST], axis=1)


def by_hand(model, begun_ST):
    """Hidden states [levels, S, T, D] and losses of next tokens, of the text alone."""
    ids = torch.from_numpy(begun_ST)
    with torch.inference_mode():
        out = model(input_ids=ids, output_hidden_states=True)
        logits = out.logits[:, len(FIRST) : -1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, len(FIRST) + 1 :].flatten(), reduction="none"
        )
    hidden = torch.stack(out.hidden_states[:-1])  # the last one is behind the final norm
    return hidden[:, :, len(FIRST) :].numpy(), loss.view(len(ids), -1).numpy()


@pytest.mark.parametrize("name", [n for n in CAUSAL if n != "opt_post_norm"])
def test_captures_begin_after_the_special_tokens(model, begun_ST, name):
    found = forward_records(
        model(name), begun_ST, PROTOCOL, kinds=one_pass_kinds(), batch_size=64, left_out=2
    )
    hidden_LSTD, loss_ST = by_hand(model(name), begun_ST)
    np.testing.assert_allclose(found["token_losses"][0].loss_ST, loss_ST, atol=2e-6)
    for record, x_STD in zip(found["cloud"], hidden_LSTD, strict=False):
        np.testing.assert_allclose(record.x_TD, x_STD[:, PROTOCOL.position], atol=2e-6)
        assert set(record.position_T) == {PROTOCOL.position}
    moments, used = found["moments"][0], -(-40 * 32 // PROTOCOL.length)
    assert moments.count_B.sum() == used * PROTOCOL.length
    weight_B = moments.count_B / moments.count_B.sum()
    mean_D = hidden_LSTD[1][:used].mean(axis=(0, 1))
    np.testing.assert_allclose(weight_B @ moments.mean_BD, mean_D, atol=2e-6)
    if found["stream"]:
        stream = found["stream"][0]
        np.testing.assert_array_equal(stream.position_T[:13], [*range(12), 0])
        assert len(stream.x_TD) % PROTOCOL.length == 0


def test_a_model_without_them_gives_what_it_gave(model, tokens_ST):
    asked = {"kinds": one_pass_kinds(), "batch_size": 64}
    plain = forward_records(model("llama"), tokens_ST, PROTOCOL, **asked)
    same = forward_records(model("llama"), tokens_ST, PROTOCOL, left_out=0, **asked)
    np.testing.assert_array_equal(plain["stream"][0].x_TD, same["stream"][0].x_TD)
    with pytest.raises(ValueError, match=r"got shape \(160, 12\), allowed \(160, 14\)"):
        forward_records(model("llama"), tokens_ST, PROTOCOL, left_out=2, **asked)


def test_jacobians_and_patterns_see_the_whole_sequence(folder, begun_ST):
    kinds = frozenset({"jacobians", "attention"})
    session = Session.open(Source(folder("gpt2")))
    asked = {"kinds": kinds, "batch_size": 64}
    found = session.records(begun_ST, PROTOCOL, left_out=2, **asked)
    whole = session.records(begun_ST, replace(PROTOCOL, length=14, position=10), **asked)
    for here, there in zip(found["attention"], whole["attention"], strict=True):
        np.testing.assert_array_equal(here.a_STT, there.a_STT)
    for here, there in zip(found["jacobians"], whole["jacobians"], strict=True):
        np.testing.assert_array_equal(here.j_TDD, there.j_TDD)
        np.testing.assert_array_equal(here.e_TD, there.e_TD)


def test_a_streamed_pass_begins_there_too(folder, begun_ST, tmp_path):
    asked = {"kinds": one_pass_kinds(), "batch_size": 64, "left_out": 2}
    resident = Session.open(Source(folder("llama"))).records(begun_ST, PROTOCOL, **asked)
    states = StateFiles(tmp_path / "states", keep=True)
    streamed = StreamedSession.open(Source(folder("llama"))).records(
        begun_ST, PROTOCOL, states, **asked
    )
    for kind, records in resident.items():
        for here, there in zip(records, streamed[kind], strict=True):
            for name in type(here).arrays:
                np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


def test_losses_of_curvature_and_chains_are_those_of_the_text(model, begun_ST):
    few_ST = torch.from_numpy(begun_ST[:6])
    loss_ST = by_hand(model("gpt2"), begun_ST[:6])[1]
    parameters = dict(model("gpt2").named_parameters())
    each = language_losses(model("gpt2"), 2)(parameters, few_ST).detach().numpy()
    np.testing.assert_allclose(each, loss_ST.mean(axis=1), atol=2e-6)
    mean = language_loss(model("gpt2"), 2)(parameters, few_ST).item()
    assert mean == pytest.approx(loss_ST.mean(), abs=2e-6)


def test_shuffled_text_keeps_what_stands_around_it(tokens_ST, begun_ST):
    ended_ST = np.concatenate([begun_ST, np.full((len(begun_ST), 1), 9)], axis=1)
    mixed_ST = shuffle_tokens(ended_ST, 4, keep=(2, 1))
    assert (mixed_ST[:, :2] == FIRST).all() and (mixed_ST[:, -1] == 9).all()
    np.testing.assert_array_equal(mixed_ST[:, 2:-1], shuffle_tokens(tokens_ST, 4))


def test_encoders_read_what_stands_behind_a_text_and_nobody_looks_at_it(tokens_ST, begun_ST):
    torch.manual_seed(0)
    net = tf.AutoModelForMaskedLM.from_config(CONFIGS["bert"]()).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    length = PROTOCOL.length
    ended_ST = np.concatenate([begun_ST, np.full((len(begun_ST), 1), 9)], axis=1)
    kinds = frozenset({"cloud", "moments", "stream"})
    found = forward_records(net, ended_ST, PROTOCOL, kinds=kinds, batch_size=64, left_out=2)
    with torch.inference_mode():
        out = net(input_ids=torch.from_numpy(ended_ST), output_hidden_states=True).hidden_states
    text_LSTD = torch.stack(out)[:, :, 2 : 2 + length].numpy()
    for record, x_STD in zip(found["cloud"], text_LSTD, strict=True):
        np.testing.assert_allclose(record.x_TD, x_STD[:, PROTOCOL.position], atol=5e-6)
    moments = found["moments"][0]
    used = moments.count_B.sum() // length
    mean_D = moments.count_B / moments.count_B.sum() @ moments.mean_BD
    np.testing.assert_allclose(mean_D, text_LSTD[1][:used].mean(axis=(0, 1)), atol=5e-6)
    asked = PassRequest(net, ended_ST, PROTOCOL, mask_id=5, left_out=2)
    (ended,), (cut,) = masked_losses(asked), masked_losses(replace(asked, tokens_ST=begun_ST))
    np.testing.assert_array_equal(ended.position_SM, cut.position_SM)
    assert not np.allclose(ended.loss_SM, cut.loss_SM)
    (jacobian, *_) = jacobian_records(net, ended_ST, PROTOCOL, left_out=2)
    np.testing.assert_allclose(
        jacobian.h_TD, text_LSTD[0][: PROTOCOL.jacobian_positions, PROTOCOL.position], atol=5e-6
    )
    (pattern, *_) = attention_records(net, ended_ST, PROTOCOL, left_out=2)
    assert pattern.a_STT.shape[1:] == (length + 3, length + 3)
    causal = tf.AutoModelForCausalLM.from_config(CONFIGS["gpt2"]()).eval()
    with pytest.raises(ValueError, match=r"tokens_ST: got shape .*allowed"):
        forward_records(causal, ended_ST, PROTOCOL, kinds=kinds, batch_size=64, left_out=2)


def test_hidden_tokens_of_encoders_are_those_of_the_text(tokens_ST, begun_ST):
    torch.manual_seed(0)
    net = tf.AutoModelForMaskedLM.from_config(CONFIGS["bert"]()).eval()
    asked = PassRequest(net, tokens_ST, PROTOCOL, mask_id=5)
    (plain,) = masked_losses(asked)
    (begun,) = masked_losses(replace(asked, tokens_ST=begun_ST, left_out=2))
    np.testing.assert_array_equal(plain.position_SM, begun.position_SM)
    assert plain.loss_SM.shape == begun.loss_SM.shape
    assert not np.array_equal(plain.loss_SM, begun.loss_SM), "the model reads what stands before"
    here, there = (
        next(iter(jacobian_records(net, ids, PROTOCOL, left_out=n)))
        for ids, n in ((tokens_ST, 0), (begun_ST, 2))
    )
    np.testing.assert_array_equal(here.e_TD, there.e_TD)
