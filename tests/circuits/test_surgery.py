"""Hooks and reruns on tiny random models of every architecture: bitwise truths, refusals."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import transformers as tf

import scaleinv_ray as si
from scaleinv_ray.attention_only.configuration import AttentionOnlyConfig
from scaleinv_ray.attention_only.modeling import AttentionOnlyForCausalLM
from scaleinv_ray.circuitry.effects.estimators import estimate
from scaleinv_ray.circuitry.effects.interventions import Experiment, edge_values, values
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.edge_runs import written
from scaleinv_ray.circuitry.surgery.reruns import Surgery, on_heads
from scaleinv_ray.probes.corrupted import Pairs

VOCABULARY, LENGTH, SEQUENCES = 40, 9, 3
SHARED = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GROUPED = SHARED | {"num_key_value_heads": 2}
OPT = {k: v for k, v in SHARED.items() if k != "intermediate_size"} | {"ffn_dim": 48}
CONFIGS = {
    "gpt2": lambda: tf.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=16, vocab_size=VOCABULARY, bos_token_id=0
    ),
    "neox_parallel": lambda: tf.GPTNeoXConfig(**SHARED, use_parallel_residual=True),
    "neox_sequential": lambda: tf.GPTNeoXConfig(**SHARED, use_parallel_residual=False),
    "llama": lambda: tf.LlamaConfig(**GROUPED),
    "granite": lambda: tf.GraniteConfig(**GROUPED, residual_multiplier=0.5, logits_scaling=3.0),
    "mistral": lambda: tf.MistralConfig(**GROUPED, sliding_window=4),
    "qwen2": lambda: tf.Qwen2Config(**GROUPED),
    "qwen3": lambda: tf.Qwen3Config(**GROUPED, head_dim=16),
    "olmo2": lambda: tf.Olmo2Config(**GROUPED),
    "gemma2": lambda: tf.Gemma2Config(
        **GROUPED, head_dim=16, sliding_window=4, final_logit_softcapping=2.0
    ),
    "opt": lambda: tf.OPTConfig(**OPT, word_embed_proj_dim=32),
    "opt_350m": lambda: tf.OPTConfig(**OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "attention_only": lambda: AttentionOnlyConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    ),
    "attention_only_raw": lambda: AttentionOnlyConfig(
        vocab_size=VOCABULARY, hidden_size=32, layer_norm=False, positions="learned"
    ),
}
AFTER = {"olmo2", "gemma2", "opt_350m"}
"""Their heads do not add up in the stream: a norm stands between."""


def built(name: str, dtype: torch.dtype = torch.float32) -> tf.PreTrainedModel:
    config = CONFIGS[name]()
    torch.manual_seed(0)
    if isinstance(config, AttentionOnlyConfig):
        model = AttentionOnlyForCausalLM(config)
    else:
        model = tf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():  # biases and norms are constants at first
            p.add_(torch.randn_like(p) * 0.1)
    return model.to(dtype).eval()


def pairs() -> Pairs:
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, VOCABULARY, size=(2, SEQUENCES, LENGTH))
    last = np.full((SEQUENCES, 1), LENGTH - 1)
    return Pairs(a, b, last, np.array([[1], [2], [3]]), np.array([[4], [5], [6]]))


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def experiment(name: str) -> Iterator[Experiment]:
    yield Experiment(Surgery(Anatomy.of(built(name))), pairs())


def test_logits_are_those_of_the_model(experiment: Experiment) -> None:
    tokens = torch.from_numpy(pairs().tokens_A_ST)
    with torch.no_grad():
        stock = experiment.anatomy.model(tokens, use_cache=False).logits
        ours = experiment.anatomy.logits(experiment.batches[0].clean.stream[-1])
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_what_is_recorded_first_is_recorded_again(name: str) -> None:
    surgery = Surgery(Anatomy.of(built(name)))
    first, second = (surgery.record(torch.from_numpy(pairs().tokens_A_ST)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other)
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_a_component_patched_with_itself_changes_nothing(experiment: Experiment) -> None:
    rows, graph = experiment.batches[0], experiment.anatomy.graph
    alone = Surgery(experiment.anatomy, max_rows=1)  # equal batches: equal rounding
    masks = graph.masks([[n] for n in range(len(graph.writers))])
    for _, stream in alone.swapped(rows.clean, rows.clean, masks):
        assert torch.equal(stream[0], rows.clean.stream[-1])


def test_all_components_patched_are_the_other_run(experiment: Experiment) -> None:
    rows, graph = experiment.batches[0], experiment.anatomy.graph
    alone = Surgery(experiment.anatomy, max_rows=1)
    # the embedding alone carries the tokens: all else follows
    masks = graph.masks([range(len(graph.writers)), [0]])
    for _, stream in alone.swapped(rows.clean, rows.corrupted, masks):
        assert torch.equal(stream[0], rows.corrupted.stream[-1])


def test_one_batch_gives_what_one_by_one_gives(experiment: Experiment) -> None:
    rows, graph = experiment.batches[0], experiment.anatomy.graph
    masks = graph.masks([[], *([c] for c in range(len(graph.writers)))])
    together = values(experiment.surgery, rows, masks)
    apart = values(Surgery(experiment.anatomy, max_rows=1), rows, masks)
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)


def test_a_rerun_from_a_layer_is_a_run_of_the_stock_model_with_a_hook(
    experiment: Experiment,
) -> None:
    rows, anatomy = experiment.batches[0], experiment.anatomy
    head = anatomy.graph.named(["h1.2"])[0]

    def edit(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, :, 2] = rows.corrupted.heads[1][:, :, 2]
        return z

    handle = on_heads(anatomy, 1, edit)
    try:
        with torch.no_grad():
            tokens = torch.from_numpy(pairs().tokens_A_ST)
            logits = anatomy.model(tokens, use_cache=False).logits[:, -1]
    finally:
        handle.remove()
    at = torch.arange(SEQUENCES)
    stock = logits[at, torch.tensor([1, 2, 3])] - logits[at, torch.tensor([4, 5, 6])]
    ours = values(experiment.surgery, rows, anatomy.graph.masks([[head]]))[0]
    np.testing.assert_allclose(ours, stock.double().numpy(), rtol=1e-4, atol=1e-5)


def test_zero_of_a_head_is_its_rows_of_the_output_projection_at_zero(name: str) -> None:
    model = built(name)
    anatomy = Anatomy.of(model)
    experiment = Experiment(Surgery(anatomy), pairs(), ablation="zero")
    cut = experiment.values(anatomy.graph.masks([anatomy.graph.named(["h0.1"])]))[0]
    width = anatomy.heads.head_dim
    out = anatomy.out(0)
    with torch.no_grad():
        weight = out.weight
        rows = weight if type(out).__name__ == "Conv1D" else weight.T
        rows[width : 2 * width] = 0
    again = Experiment(Surgery(anatomy), pairs())
    np.testing.assert_array_equal(cut, again.values(anatomy.graph.masks([[]]))[0])


def test_the_stream_is_the_sum_of_what_is_written(name: str) -> None:
    if name in AFTER:
        pytest.skip("a norm stands between heads and stream")
    anatomy = Anatomy.of(built(name, torch.float64))
    state = Surgery(anatomy).record(torch.from_numpy(pairs().tokens_A_ST))
    total = written(anatomy, state).sum(0)
    for layer in range(anatomy.graph.layers):
        bias = getattr(anatomy.out(layer), "bias", None)
        if bias is not None:
            total = total + bias * anatomy.architecture.residual_multiplier
    # RMSNorm computes in float32, but what is summed is exact
    torch.testing.assert_close(total, state.stream[-1], rtol=1e-12, atol=1e-12)


def test_edge_scores_of_a_writer_sum_to_its_node_score(name: str) -> None:
    if name in AFTER:
        pytest.skip("edges are refused")
    experiment = Experiment(Surgery(Anatomy.of(built(name, torch.float64))), pairs())
    scores = estimate(experiment, edges=True)
    assert scores.edges_WRS is not None
    summed, nodes = scores.edges_WRS.sum(axis=1), scores.nodes_WS
    # RMSNorm computes in float32 inside a float64 model
    assert np.abs(summed - nodes).max() <= 2e-5 * np.abs(nodes).max()
    if experiment.anatomy.architecture.removes_mean:
        assert np.abs(summed - nodes).max() <= 1e-12 * np.abs(nodes).max()


def test_all_edges_from_the_other_run_are_the_other_run(name: str) -> None:
    if name in AFTER:
        pytest.skip("edges are refused")
    experiment = Experiment(Surgery(Anatomy.of(built(name))), pairs())
    rows, graph = experiment.batches[0], experiment.anatomy.graph
    none, every = np.zeros((2, *graph.edges_WR.shape), dtype=bool)
    every[:] = True
    found = edge_values(experiment.surgery, rows, np.stack([none, every]))
    ends = [experiment.values(graph.masks([[]]), denoise=end)[0] for end in (False, True)]
    np.testing.assert_allclose(found, ends, rtol=1e-4, atol=1e-5)


def test_edges_out_of_a_writer_together_are_the_writer(name: str) -> None:
    if name in AFTER:
        pytest.skip("edges are refused")
    experiment = Experiment(Surgery(Anatomy.of(built(name))), pairs())
    rows, graph = experiment.batches[0], experiment.anatomy.graph
    masks = np.zeros((2, *graph.edges_WR.shape), dtype=bool)
    writers = graph.named(["h0.1", "h1.3"])
    masks[np.arange(2), writers] = True
    found = edge_values(experiment.surgery, rows, masks)
    whole = values(experiment.surgery, rows, graph.masks([[w] for w in writers]))
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)


def test_a_complete_ig_of_the_embedding_is_the_whole_effect(experiment: Experiment) -> None:
    scores = estimate(experiment, method="ig")
    ends = [experiment.values(experiment.anatomy.graph.masks([[]]), denoise=e)[0] for e in (0, 1)]
    gap_S = ends[1] - ends[0]
    assert np.abs(scores.nodes_WS[0] - gap_S).sum() <= 0.02 * np.abs(gap_S).sum()


@pytest.mark.parametrize("name", sorted(AFTER))
def test_edges_through_a_norm_are_refused(name: str) -> None:
    experiment = Experiment(Surgery(Anatomy.of(built(name))), pairs())
    with pytest.raises(ValueError, match=r"edges: got .* normalises after its heads"):
        estimate(experiment, edges=True)


def test_what_a_recorded_run_knows_is_not_worked_out_again(experiment: Experiment) -> None:
    rows, anatomy = experiment.batches[0], experiment.anatomy
    seen: list[int] = []
    handles = [
        projection.module.register_forward_hook(lambda *_, at=layer: seen.append(at))
        for layer in (0, 1)
        for projection in anatomy.projections(layer)
    ]
    values(experiment.surgery, rows, anatomy.graph.masks([anatomy.graph.named(["h0.1"])]))
    for handle in handles:
        handle.remove()
    assert set(seen) == {1}, "queries, keys and values before the first changed head are known"
    assert not any("forward" in vars(m) for m in anatomy.model.modules())


def test_hooks_are_gone_after_an_error() -> None:
    experiment = Experiment(Surgery(Anatomy.of(built("gpt2"))), pairs())
    rows, graph = experiment.batches[0], experiment.anatomy.graph
    broken = rows.corrupted.map(lambda x: x[..., :3])
    for first in (0, 1):  # with the embedding, and without: then the first block is known
        with pytest.raises(RuntimeError, match="size"):
            list(experiment.surgery.swapped(rows.clean, broken, graph.masks([range(first, 11)])))
        for module in experiment.anatomy.model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert "forward" not in vars(module)
    values(experiment.surgery, rows, graph.masks([range(11)]))


def test_models_that_cannot_be_cut_are_refused() -> None:
    bert = tf.BertForMaskedLM(
        tf.BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8
        )
    )
    with pytest.raises(ValueError, match="an encoder, allowed causal models"):
        Anatomy.of(bert.eval())
    model = built("gpt2")
    with pytest.raises(ValueError, match="without logits"):
        Anatomy.of(model.base_model)
    with pytest.raises(ValueError, match="train mode"):
        Anatomy.of(model.train())
    model.eval().lm_head.weight = torch.nn.Parameter(torch.empty(1, device="meta"))
    with pytest.raises(ValueError, match="meta tensor, allowed weights in memory"):
        Anatomy.of(model)
    packed = built("gpt2")
    packed.lm_head.weight = torch.nn.Parameter(
        torch.zeros(2, 2, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ValueError, match="allowed floating point weights"):
        Anatomy.of(packed)


def test_a_model_spread_over_devices_is_refused() -> None:
    model = built("gpt2")
    model.hf_device_map = {"transformer": "cpu", "lm_head": "disk"}
    with pytest.raises(ValueError, match="allowed one device"):
        Anatomy.of(model)


def test_heads_in_another_order_have_the_same_effects() -> None:
    torch.manual_seed(0)
    model = tf.GPT2LMHeadModel(CONFIGS["gpt2"]()).eval().double()
    order = [2, 0, 3, 1]
    other = copy.deepcopy(model)
    columns = torch.arange(32).reshape(4, 8)[order].flatten()
    for block in other.transformer.h:
        qkv, out = block.attn.c_attn, block.attn.c_proj
        qkv.weight.data = qkv.weight.data.reshape(32, 3, 32)[:, :, columns].reshape(32, 96)
        qkv.bias.data = qkv.bias.data.reshape(3, 32)[:, columns].flatten()
        out.weight.data = out.weight.data[columns]
    a, b = np.random.default_rng(0).integers(1, VOCABULARY, size=(2, 6, LENGTH))
    first, second = (
        si.circuits(m, a, b, answers=(a[:, 0], (a[:, 0] + 1) % VOCABULARY), must_do=False)
        for m in (model, other)
    )
    at = {str(c): n for n, c in enumerate(first.effects.components)}
    moved = [
        at[f"h{c.layer}.{order[c.head]}" if c.kind == "head" else str(c)]
        for c in second.effects.components
    ]
    for name in ("effect_NS", "estimate_NS"):
        of_first, of_second = (getattr(x.effects, name) for x in (first, second))
        np.testing.assert_allclose(of_second, of_first[moved], rtol=0, atol=1e-13)
    for name, value in first.as_json()["quantities"].items():
        assert second.as_json()["quantities"][name].get("value") == pytest.approx(
            value.get("value")
        )
