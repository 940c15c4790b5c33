"""Jacobians against central differences of the whole model, and their structural eigenvectors."""

from __future__ import annotations

import dataclasses

import accelerate
import numpy as np
import pytest
import torch

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.by_kind.jacobians import jacobian_records, vocabulary_rows
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from tests.capture.conftest import CAUSAL, PROTOCOL, WIDTH

# Gemma 2's eager softmax rounds to float32 even in a float64 model, so its differences need a
# larger step; all others are float64 throughout: error ~ step^2.
_STEP = {"gemma2": 1e-2}
_TOLERANCE = {"gemma2": 3e-4}


class _Norm64(torch.nn.Module):
    """transformers' RMS norms round to float32 inside; this one does not."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.gain = norm.weight + (1 if type(norm).__name__.startswith("Gemma") else 0)
        self.eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.gain


@pytest.fixture(scope="module")
def double(folder):
    made = {}

    def load(name):
        if name not in made:
            options = LoadOptions(dtype=torch.float64)
            made[name] = load_model(folder(name), options)
            for module in list(made[name].modules()):
                for child_name, child in list(module.named_children()):
                    if "RMSNorm" in type(child).__name__:
                        setattr(module, child_name, _Norm64(child))
        return made[name]

    return load


def _central_differences(net, tokens_T, layer, step):
    """J[i, j] by moving h_j at the position in a run of the whole model on the whole sequence."""
    block = architecture_of(net.config).layers(net)[layer]
    moves = step * torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)]).double()
    kept = []

    def move(_module, args, kwargs):
        h = (args[0] if args else kwargs["hidden_states"]).clone()
        h[:, PROTOCOL.position] += moves
        if args:
            return (h, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": h}

    handles = [
        block.register_forward_pre_hook(move, with_kwargs=True),
        block.register_forward_hook(lambda _m, _a, out: kept.append(out)),
    ]
    with torch.no_grad():
        net(torch.from_numpy(np.tile(tokens_T, (2 * WIDTH, 1))))
    for handle in handles:
        handle.remove()
    out = kept[0][:, PROTOCOL.position].numpy()
    return ((out[:WIDTH] - out[WIDTH:]) / (2 * step)).T


@pytest.mark.parametrize("name", CAUSAL)
def test_equals_central_differences(name, double, tokens_ST):
    net = double(name)
    step, tolerance = _STEP.get(name, 1e-5), _TOLERANCE.get(name, 1e-8)
    records = list(jacobian_records(net, tokens_ST, PROTOCOL))
    assert [r.layer for r in records] == [0, 1]
    for record in records:
        for t in range(PROTOCOL.jacobian_positions):
            want = _central_differences(net, tokens_ST[t], record.layer, step)
            error = np.abs(record.j_TDD[t] - want).max() / np.abs(want).max()
            assert error < tolerance


@pytest.mark.parametrize("name", ["gpt2", "neox_parallel", "neox_sequential", "opt"])
def test_all_ones_is_an_eigenvector_of_layernorm_blocks(name, model, double, tokens_ST):
    for net, tolerance in ((model(name), 1e-5), (double(name), 1e-12)):
        for record in jacobian_records(net, tokens_ST, PROTOCOL):
            assert record.removes_mean
            assert np.abs(record.j_TDD.sum(-1) - 1).max() < tolerance


def test_input_is_an_eigenvector_of_parallel_blocks(double, tokens_ST):
    """Up to the norm's epsilon: exact as epsilon -> 0."""
    net = double("neox_parallel")
    worst = []
    for eps in (1e-5, 1e-9):
        for module in net.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = eps
        records = list(jacobian_records(net, tokens_ST, PROTOCOL))
        assert all(r.parallel_residual for r in records)
        moved = [np.einsum("tij,tj->ti", r.j_TDD, r.h_TD) - r.h_TD for r in records]
        worst.append(max(np.abs(m).max() for m in moved))
    assert worst[0] < 1e-2
    assert worst[1] < 3e-4 * worst[0]
    assert not any(
        r.parallel_residual
        for r in jacobian_records(double("neox_sequential"), tokens_ST, PROTOCOL)
    )


def test_inputs_embeddings_and_unembedding_rows(model, tokens_ST):
    net = model("llama")
    first, second = jacobian_records(net, tokens_ST, PROTOCOL)
    tokens = torch.from_numpy(tokens_ST[:3])
    with torch.no_grad():
        hidden = net(tokens, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(first.h_TD, hidden[0][:, 8], atol=1e-5)
    np.testing.assert_allclose(second.h_TD, hidden[1][:, 8], atol=1e-5)
    np.testing.assert_array_equal(
        first.e_TD, net.get_input_embeddings().weight.detach()[tokens[:, 8]]
    )
    rows = vocabulary_rows(50, 7, seed=0)
    np.testing.assert_array_equal(first.u_VD, net.lm_head.weight.detach()[rows])


def test_embeddings_narrower_than_the_stream_are_left_out(model, tokens_ST):
    record = next(jacobian_records(model("opt_post_norm"), tokens_ST, PROTOCOL))
    assert record.e_TD is None
    assert record.u_VD is None


def test_chunks_change_nothing(model, tokens_ST, monkeypatch):
    """Chunks of 1 and of 7 backward vectors."""
    for name, elements in (("neox_parallel", 1), ("mistral", 7 * 160)):
        whole = list(jacobian_records(model(name), tokens_ST, PROTOCOL))
        monkeypatch.setattr("scaleinv_ray.capture.by_kind.jacobians._ELEMENTS_PER_CHUNK", elements)
        parts = list(jacobian_records(model(name), tokens_ST, PROTOCOL))
        monkeypatch.undo()
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_allclose(a.j_TDD, b.j_TDD, atol=1e-5)


def test_eager_equals_sdpa(folder, model, tokens_ST):
    eager = load_model(folder("llama"), LoadOptions(attention="eager"))
    for a, b in zip(
        jacobian_records(eager, tokens_ST, PROTOCOL),
        jacobian_records(model("llama"), tokens_ST, PROTOCOL),
        strict=True,
    ):
        np.testing.assert_allclose(a.j_TDD, b.j_TDD, atol=1e-4)


def test_rows_of_the_vocabulary_hardly_depend_on_its_size():
    pythia = [vocabulary_rows(size, 64, seed=0) for size in (50304, 50688)]
    assert len(np.intersect1d(*pythia)) >= 62
    assert len(set(pythia[0])) == 64
    assert not np.array_equal(pythia[0], vocabulary_rows(50304, 64, seed=1))
    with pytest.raises(ValueError, match="vocab_rows: got 9, allowed <= 8"):
        vocabulary_rows(8, 9, seed=0)


def test_refusals(folder, model, tokens_ST):
    protocol = dataclasses.replace(PROTOCOL, jacobian_positions=161)
    with pytest.raises(ValueError, match="jacobian_positions: got 161, allowed <= 160"):
        next(jacobian_records(model("llama"), tokens_ST, protocol))
    offloaded = accelerate.cpu_offload(load_model(folder("llama")))
    with pytest.raises(ValueError, match="got an offloaded model"):
        next(jacobian_records(offloaded, tokens_ST, PROTOCOL))
