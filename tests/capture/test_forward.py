"""The pass over a probe: against what the model itself returns, and its refusals."""

from __future__ import annotations

import dataclasses

import accelerate
import numpy as np
import pytest
import torch

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.by_kind.moments import BlockSums, sequences_for_moments
from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.capture.sites import hooked
from scaleinv_ray.checkpoints.weights.loading import load_model
from scaleinv_ray.kinds import one_pass_kinds

from .conftest import CAUSAL, CONFIGS, PROTOCOL, WIDTH

_CLOUD = frozenset({"cloud", "depth_stack"})


def _capture(model, tokens_ST, kinds, **changes):
    protocol = dataclasses.replace(PROTOCOL, **changes)
    return forward_records(model, tokens_ST, protocol, kinds=frozenset(kinds), batch_size=48)


@pytest.mark.parametrize("name", CONFIGS)
def test_cloud_is_the_model_s_own_hidden_states(name, model, tokens_ST):
    net = model(name)
    with torch.no_grad():
        hidden = net(torch.from_numpy(tokens_ST), output_hidden_states=True).hidden_states
    records = _capture(net, tokens_ST, _CLOUD)
    cloud, stack = records["cloud"], records["depth_stack"][0]
    assert [(r.site, r.layer, r.depth) for r in cloud] == [
        ("resid_pre", 0, 0.0),
        ("resid_post", 0, 0.5),
        ("resid_post", 1, 1.0),
    ]
    final_norm = architecture_of(net.config).final_norm
    last = torch.from_numpy(cloud[-1].x_TD)
    if final_norm:
        last = net.get_submodule(final_norm)(last)
    if hidden[-1].shape[-1] == last.shape[-1]:  # OPT-350m's are projected down afterwards
        torch.testing.assert_close(last, hidden[-1][:, PROTOCOL.position], atol=2e-5, rtol=1e-5)
    for level in range(2):
        want = hidden[level][:, PROTOCOL.position].numpy()
        np.testing.assert_allclose(cloud[level].x_TD, want, atol=2e-5)
    np.testing.assert_array_equal(stack.x_LTD, [r.x_TD for r in cloud])
    np.testing.assert_array_equal(stack.sequence_T, np.arange(160))
    assert set(cloud[1].position_T) == {PROTOCOL.position}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_moments_are_the_direct_ones(name, model, tokens_ST):
    net = model(name)
    records = _capture(net, tokens_ST, {"moments"})["moments"]
    assert [(r.site, r.layer) for r in records] == [("resid_post", 0), ("resid_post", 1)]
    outputs, handles = [], []

    def keep(_module, _args, output):
        outputs.append(output.double().numpy())

    for block in architecture_of(net.config).layers(net):
        handles.append(block.register_forward_hook(keep))
    with torch.no_grad():
        net(torch.from_numpy(tokens_ST))
    for handle in handles:
        handle.remove()
    for record, x_STD in zip(records, outputs, strict=True):
        sequences = int(np.ceil(40 * WIDTH / 12))
        assert record.count_B.sum() == 12 * sequences
        assert np.ptp(record.count_B) <= 12
        first = 0
        for b, count in enumerate(record.count_B):
            x_ND = x_STD[first : first + count // 12].reshape(-1, WIDTH)
            first += count // 12
            np.testing.assert_allclose(record.mean_BD[b], x_ND.mean(0), atol=1e-6)
            want = x_ND.T @ x_ND / len(x_ND)
            np.testing.assert_allclose(record.second_BDD[b], want, atol=3e-6 * want.max())


def test_covariance_survives_a_large_mean():
    """float32 products about zero would lose (mean / sd)^2 = 1e6 of 1.7e7 here."""
    rng = np.random.default_rng(0)
    x_STD = (1000 + rng.standard_normal((40, 16, 8))).astype(np.float32)
    sums = BlockSums(40, 1)
    for first in range(0, 40, 8):
        sums.add(torch.from_numpy(x_STD[first : first + 8]), first)
    _, mean_BD, second_BDD = sums.moments()
    got = second_BDD[0] - np.outer(mean_BD[0], mean_BD[0])
    want = np.cov(x_STD.reshape(-1, 8).astype(np.float64).T, bias=True)
    np.testing.assert_allclose(got, want, atol=2e-6)


def _hidden_units(net, tokens_ST, layer):
    """What the down projection reads, from the modules before it."""
    block, kept = architecture_of(net.config).layers(net)[layer], []
    up = {"gpt2": "mlp.c_fc", "opt": "fc1", "llama": "mlp"}[net.config.model_type]
    handle = block.get_submodule(up).register_forward_hook(
        lambda _m, args, out: kept.extend((*args, out))
    )
    with torch.no_grad():
        net(torch.from_numpy(tokens_ST))
        handle.remove()
        if net.config.model_type == "llama":
            x, mlp = kept[0], block.mlp
            return mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        return (block.activation_fn if up == "fc1" else block.mlp.act)(kept[1])


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_stream_holds_the_sampled_units_of_consecutive_tokens(name, model, tokens_ST):
    net = model(name)
    records = _capture(net, tokens_ST, {"stream"})["stream"]
    units = np.sort(np.random.default_rng(0).choice(48, 32, replace=False))
    for layer, stream in enumerate(records):
        assert (stream.site, stream.layer) == ("mlp_hidden", layer)
        rows = 12 * int(np.ceil(50 * 32 / 12))
        want = _hidden_units(net, tokens_ST, layer).reshape(-1, 48)[:rows, units]
        np.testing.assert_allclose(stream.x_TD, want, atol=1e-5)
        np.testing.assert_array_equal(stream.position_T, np.arange(rows) % 12)
        np.testing.assert_array_equal(stream.sequence_T, np.arange(rows) // 12)


@pytest.mark.parametrize("name", CAUSAL)
def test_token_losses_are_the_model_s_loss(name, model, tokens_ST):
    net = model(name)
    (record,) = _capture(net, tokens_ST, {"token_losses"})["token_losses"]
    tokens = torch.from_numpy(tokens_ST)
    with torch.no_grad():
        output = net(tokens, labels=tokens)
    np.testing.assert_allclose(record.loss_ST.mean(), output.loss, rtol=1e-5)
    log_p = output.logits.log_softmax(-1)[:, :-1]
    want = -log_p.gather(-1, tokens[:, 1:, None])[..., 0]
    np.testing.assert_allclose(record.loss_ST, want, atol=3e-5)


def test_losses_do_not_depend_on_the_chunk(model, tokens_ST, monkeypatch):
    whole = _capture(model("llama"), tokens_ST, {"token_losses"})["token_losses"][0]
    monkeypatch.setattr("scaleinv_ray.capture.by_kind.token_losses._LOGITS_PER_CHUNK", 7 * 50)
    parts = _capture(model("llama"), tokens_ST, {"token_losses"})["token_losses"][0]
    np.testing.assert_allclose(parts.loss_ST, whole.loss_ST, atol=1e-6)


def test_batch_size_changes_nothing(model, tokens_ST):
    kinds = one_pass_kinds()
    small, large = (
        forward_records(model("neox_parallel"), tokens_ST, PROTOCOL, kinds=kinds, batch_size=size)
        for size in (7, 1000)
    )
    assert set(small) == set(large) == kinds
    for kind in kinds:
        for a, b in zip(small[kind], large[kind], strict=True):
            assert a.labels() == b.labels()
            for array in type(a).arrays:
                np.testing.assert_allclose(getattr(a, array), getattr(b, array), atol=3e-5)


def test_labels_are_carried_and_layernorm_models_marked(model, tokens_ST):
    labels = {"unit": "u", "probe": "prose"}
    for name, removes in (
        ("gpt2", True),
        ("llama", False),
        ("opt", True),
        ("opt_post_norm", False),
    ):
        kinds = frozenset({"cloud", "moments", "stream"})
        records = forward_records(
            model(name), tokens_ST, PROTOCOL, kinds=kinds, batch_size=64, labels=labels
        )
        for record in (r for rs in records.values() for r in rs):
            assert (record.unit, record.probe, record.num_layers) == ("u", "prose", 2)
            assert (record.protocol, record.dtype) == (PROTOCOL.digest(), "float32")
            assert record.removes_mean == (removes and record.site != "mlp_hidden")


@pytest.mark.parametrize("name", ["gpt2", "opt", "neox_parallel"])
def test_layernorm_models_do_not_see_the_mean(name, model, tokens_ST):
    """What `removes_mean` claims: c * (1, .., 1) added to the stream leaves the logits."""
    net = model(name)
    tokens = torch.from_numpy(tokens_ST[:4])
    first = architecture_of(net.config).layers(net)[0]
    with torch.no_grad():
        plain = net(tokens).logits
        handle = first.register_forward_pre_hook(lambda _m, args: (args[0] + 3.0, *args[1:]))
        moved = net(tokens).logits
        handle.remove()
    torch.testing.assert_close(plain, moved, atol=1e-4, rtol=1e-4)


def test_bfloat16_is_captured_as_float32(folder, tokens_ST):
    net = load_model(folder("llama")).to(torch.bfloat16)
    records = _capture(net, tokens_ST, one_pass_kinds())
    assert records["cloud"][0].x_TD.dtype == np.float32
    assert records["cloud"][0].dtype == "bfloat16"
    assert records["moments"][0].second_BDD.dtype == np.float64
    assert records["token_losses"][0].loss_ST.dtype == np.float32


def test_offloaded_weights_are_captured_as_resident_ones(folder, model, tokens_ST):
    offloaded = accelerate.cpu_offload(load_model(folder("gpt2")))
    resident = _capture(model("gpt2"), tokens_ST, one_pass_kinds())
    for kind, records in _capture(offloaded, tokens_ST, one_pass_kinds()).items():
        for a, b in zip(records, resident[kind], strict=True):
            for array in type(a).arrays:
                np.testing.assert_array_equal(getattr(a, array), getattr(b, array))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((0, 12), int), "empty batch"),
        (np.zeros((3, 33), int), "got length 33, allowed <= 32"),
        (np.full((3, 12), 50), r"got token ids 50\.\.50, allowed 0\.\.49"),
        (np.full((3, 12), -1), "got token ids"),
        (np.zeros((3, 12)), "got 2-d float64, allowed an integer array"),
        (np.zeros(12, int), "got 1-d int64"),
        (np.array([[1, 2], [3]], dtype=object), "got ragged rows"),
        ([[1, 2], [3]], "got ragged rows"),
        (np.zeros((3, 12), int), r"got shape \(3, 12\), allowed \(160, 12\)"),
    ],
)
def test_bad_tokens(tokens, message, model):
    with pytest.raises(ValueError, match=message):
        _capture(model("llama"), tokens, _CLOUD)


def test_train_mode(folder, tokens_ST):
    with pytest.raises(ValueError, match="model: got train mode"):
        _capture(load_model(folder("llama")).train(), tokens_ST, _CLOUD)


def test_unknown_kind_and_site(model, tokens_ST):
    with pytest.raises(ValueError, match=r"kinds: got \['weights'\], allowed"):
        _capture(model("llama"), tokens_ST, {"weights"})
    net = model("llama")
    with (
        pytest.raises(ValueError, match=r"sites: got \['resid_mid'\], allowed"),
        hooked(net, architecture_of(net.config), frozenset({"resid_mid"}), print),
    ):
        pass


def test_bad_batch_size(model, tokens_ST):
    with pytest.raises(ValueError, match="batch_size: got 0"):
        forward_records(model("llama"), tokens_ST, PROTOCOL, kinds=_CLOUD, batch_size=0)


def test_too_few_tokens_for_a_width(model, tokens_ST):
    with pytest.raises(ValueError, match="sequences: got 160, moments need 267"):
        _capture(model("llama"), tokens_ST, {"moments"}, tokens_per_dim=100)
    with pytest.raises(ValueError, match="sequences: got 160, a stream of 48 units needs 200"):
        _capture(model("llama"), tokens_ST, {"stream"}, stream_units=48)
    with pytest.raises(ValueError, match="blocks: got 4, allowed <= 3 sequences"):
        sequences_for_moments(
            32, 12, dataclasses.replace(PROTOCOL, tokens_per_dim=1), available=160
        )


def test_too_few_units(model, tokens_ST):
    tokens = np.concatenate([tokens_ST, tokens_ST])
    with pytest.raises(ValueError, match="stream_units: got 49, allowed <= 48 hidden units"):
        _capture(model("llama"), tokens, {"stream"}, stream_units=49, sequences=320)


def test_losses_of_a_bidirectional_model(model, tokens_ST):
    with pytest.raises(ValueError, match="'token_losses' of a model that is not causal"):
        _capture(model("bert"), tokens_ST, {"token_losses"})


def _num_hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_values_that_are_not_finite_are_counted_and_hooks_removed(folder, tokens_ST):
    net = load_model(folder("gpt2"))
    before = _num_hooks(net)
    with torch.no_grad():
        net.transformer.h[1].mlp.c_fc.bias[0] = float("nan")
    message = "1920 at mlp_hidden of layer 1, 61440 at resid_post of layer 1"
    with pytest.raises(ValueError, match=rf"not finite \({message}\)"):
        _capture(net, tokens_ST, {"cloud", "stream"})
    assert _num_hooks(net) == before


def test_site_hit_twice(folder, tokens_ST):
    net = load_model(folder("gpt2"))
    before = _num_hooks(net)
    net.transformer.h[1] = net.transformer.h[0]
    with pytest.raises(ValueError, match="resid_pre of layer 0: hit twice"):
        _capture(net, tokens_ST, _CLOUD)
    assert _num_hooks(net) <= before
