"""Chains: what moves and what does not, one call for all rows or one after the other, refusals."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

from scaleinv_ray.capture.curvature.products import Parameters, hessian_products
from scaleinv_ray.capture.posterior.chains import LanguageLosses, chain_records, language_losses
from scaleinv_ray.capture.posterior.loss import Posterior
from scaleinv_ray.capture.posterior.samplers import Length
from scaleinv_ray.capture.posterior.tempering import ChainRequest, Settings, starts
from scaleinv_ray.records import Chains
from scripts.toy_models import (
    Task,
    deep_linear_task,
    gaussian_clusters_task,
    quadratic_task,
    superposition_task,
    teacher_task,
    trained,
)

SHORT: dict[str, Any] = {
    "nbetas": [50.0], "gamma_factors": [1.0], "num_chains": 4, "num_steps": 12, "burn_in": 4,
}  # fmt: skip


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _quadratic(dim: int = 6) -> Task:
    return quadratic_task(
        torch.linspace(0.5, 1.5, dim), num_samples=64, spread=0.1, generator=_seeded()
    )


def _linear(dtype: torch.dtype = torch.float32) -> Task:
    return deep_linear_task(
        (4, 3, 4), 2, num_samples=64, generator=_seeded(), noise=0.2, free=1.0, dtype=dtype
    )


def _one(task: Task, **asked: Any) -> Chains:
    (found,) = chain_records(*task, generator=_seeded(1), **{**SHORT, **asked})
    return found


def test_a_record_holds_every_draw_of_every_setting() -> None:
    chains = _one(
        _quadratic(), nbetas=[50.0, 500.0], gamma_factors=[0.5, 2.0], labels={"unit": "a"}
    )
    assert chains.loss_NCS.shape == chains.base_loss_NCS.shape == (4, 4, 12)
    assert chains.burn_in == 4 and chains.dim == 6 and chains.num_samples == 64
    assert chains.batch == 32 and chains.unit == "a" and chains.dtype == "float32"
    np.testing.assert_allclose(chains.nbeta_N, [50, 50, 500, 500])
    gamma_N = 1e-3 * chains.nbeta_N * chains.largest_curvature * np.array([0.5, 2, 0.5, 2])
    np.testing.assert_allclose(chains.gamma_N, gamma_N)
    reach_N = chains.step_N * (chains.nbeta_N * chains.largest_curvature + chains.gamma_N)
    np.testing.assert_allclose(reach_N[:2], 0.08, rtol=1e-5)
    assert chains.heating_N is not None and (chains.heating_N <= 0.0201).all()
    assert chains.dispersed_C is not None and chains.dispersed_C.tolist() == [1, 1, 0, 0]
    bytes_per_step = 4 * chains.loss_NCS.itemsize  # loss, base loss, virial, drift
    assert bytes_per_step <= 0.1 * 16_700


def test_the_ladder_follows_a_pilot() -> None:
    chains = _one(_quadratic(40), nbetas=None)
    ratio_N = chains.nbeta_N / chains.nbeta_N[0]
    np.testing.assert_allclose(ratio_N, [1, 3, 10, 30])
    assert 10 * 20 * 0.5 < chains.nbeta_N[0] < 10 * 20 * 1.5, "lambda is 20"


def test_chains_are_repeated_by_their_seed_and_differ_from_each_other() -> None:
    one, two = (_one(_linear()) for _ in range(2))
    np.testing.assert_array_equal(one.loss_NCS, two.loss_NCS)
    base_CS = one.base_loss_NCS[0]
    assert len(np.unique(base_CS, axis=0)) == 4, "the order of the data is distinct for every chain"
    full = _one(_linear(), batch_size=64)
    assert full.batch == 64 and len(np.unique(full.base_loss_NCS)) == 1


def test_the_parameters_are_never_written_to() -> None:
    task = _linear()
    before = {name: p.clone() for name, p in task.parameters.items()}
    for sampler in ("sgld", "rmsprop_sgld", "sgld_cv", "mala"):
        assert _one(task, sampler=sampler).restored
    assert all(torch.equal(before[name], p) for name, p in task.parameters.items())


def test_a_loss_that_writes_to_the_parameters_is_seen() -> None:
    w = torch.zeros(3)
    x = torch.randn(64, 3, generator=_seeded())
    calls = []

    def losses(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 30:
            w.add_(1e-3)
        return (parameters["w"] - batch).square().sum(dim=1)

    (chains,) = chain_records(losses, {"w": w}, x, generator=_seeded(), **SHORT)
    assert not chains.restored


@pytest.mark.parametrize("sampler", ["sgld", "rmsprop_sgld", "sgld_cv", "mala"])
def test_only_the_block_moves(sampler: str) -> None:
    seen: list[torch.Tensor] = []
    task = _linear(torch.float64)

    def losses(parameters: Parameters, batch: Any) -> torch.Tensor:
        seen.append(parameters["weight_1"].detach())
        return task.losses(parameters, batch)

    losses.together = False
    blocks = {"head": {"weight_1": (slice(0, 2), slice(1, 3))}, "second": ["weight_2"]}
    asked = {**SHORT, "sampler": sampler, "blocks": blocks}
    records = chain_records(losses, task.parameters, task.data, generator=_seeded(), **asked)
    head = next(records)
    moved = torch.stack([p != task.parameters["weight_1"] for p in seen]).any(dim=0)
    expected = torch.zeros(3, 4, dtype=torch.bool)
    expected[0:2, 1:3] = True
    assert torch.equal(moved, expected)
    seen.clear()
    second = next(records)
    assert all(torch.equal(p, task.parameters["weight_1"]) for p in seen)
    assert [(r.block, r.site, r.dim) for r in (head, second)] == [
        ("head", "head", 4),
        ("second", "second", 12),
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_rows_together_are_rows_one_by_one(shared: bool) -> None:
    task = _linear(torch.float64)
    index_RM = None if shared else torch.randint(64, (3, 8), generator=_seeded())
    x_RP = 0.1 * torch.randn(3, 24, generator=_seeded(), dtype=torch.float64)
    scale_P = torch.linspace(0.5, 2.0, 24, dtype=torch.float64)
    found = [
        Posterior(*task, together=together, scale_P=scale_P).gradient(x_RP, index_RM)
        for together in (True, False)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    moved = Posterior(*task, scale_P=scale_P)
    step = 1e-6
    ahead, behind = (
        moved.gradient(x_RP + sign * step * found[0][1], index_RM)[0] for sign in (1, -1)
    )
    torch.testing.assert_close(
        (ahead - behind) / (2 * step), found[0][1].square().sum(dim=1), rtol=1e-5, atol=1e-9
    )


def test_gradient_noise_is_the_largest_eigenvalue_of_the_covariance() -> None:
    task = quadratic_task(
        torch.tensor([1.0, 3.0]), num_samples=100, spread=0.5, generator=_seeded()
    )
    posterior = Posterior(*task)
    origin_1P = torch.zeros(1, 2)
    exact = 9 * 0.25 * 100 / 99
    assert posterior.gradient_noise(origin_1P, residual=False) == pytest.approx(exact, rel=1e-4)
    assert posterior.gradient_noise(origin_1P + 1, residual=True) == pytest.approx(0, abs=1e-9)


def test_other_probes_are_observed_on_the_same_draws() -> None:
    task = _quadratic()
    (x,) = task.data
    chains = _one(task, batch_size=64, observed={"same": (x,), "shifted": (x + 1.0,)})
    assert chains.observed == "same,shifted"
    assert chains.observed_QNCS is not None
    excess_NCS = chains.loss_NCS - chains.base_loss_NCS
    np.testing.assert_allclose(chains.observed_QNCS[0], excess_NCS, atol=1e-6)
    assert np.abs(chains.observed_QNCS[1] - excess_NCS).max() > 1e-3


def test_no_minimum_is_recorded() -> None:
    def saddle(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        w = parameters["w"]
        return (w[0].square() - 0.3 * w[1].square()) / 2 + 0 * batch

    task = (saddle, {"w": torch.zeros(2)}, torch.zeros(40))
    (chains,) = chain_records(*task, generator=_seeded(), **SHORT)
    assert chains.lowest_curvature == pytest.approx(-0.3, rel=1e-4)
    assert chains.largest_curvature == pytest.approx(1.0, rel=1e-4)


def test_metropolis_steps_are_adapted_and_shared_by_a_setting() -> None:
    chains = _one(_quadratic(), sampler="mala", num_steps=600, burn_in=300, num_chains=8)
    assert chains.acceptance_NC is not None and chains.heating_N is not None
    assert 0.5 < chains.acceptance_NC.mean() < 0.9
    assert chains.step_N[0] * chains.nbeta_N[0] * 1.5 > 0.3, "far beyond a step without a test"
    assert chains.heating_N[0] == 0.0


def test_language_losses(model: Callable[[str], tf.PreTrainedModel], tokens_ST: np.ndarray) -> None:
    net = model("gpt2")
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    tokens = torch.tensor(tokens_ST[:6])
    losses = language_losses(net)
    with torch.no_grad():
        mean = losses(parameters, tokens).mean()
        assert mean == pytest.approx(float(net(tokens, labels=tokens).loss), rel=1e-5)
    blocks = {"head": {"transformer.h.0.attn.c_attn.weight": (slice(None), slice(0, 8))}}
    made = chain_records(
        losses, parameters, tokens, generator=_seeded(), blocks=blocks, batch_size=4,
        observed={"others": tokens[:2]}, **{**SHORT, "num_chains": 2},
    )  # fmt: skip
    (chains,) = made
    assert chains.dim == 32 * 8 and chains.restored
    assert np.isfinite(chains.loss_NCS).all()


def test_refused_models(model: Callable[[str], tf.PreTrainedModel]) -> None:
    training = copy.deepcopy(model("gpt2")).train()
    with pytest.raises(ValueError, match="training mode with dropout"):
        language_losses(training)
    flash = copy.deepcopy(model("gpt2"))
    flash.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="allowed 'sdpa' or 'eager'"):
        language_losses(flash)
    offloaded = copy.deepcopy(model("gpt2"))
    for place in ("disk", "cpu", 1):
        offloaded.hf_device_map = {"transformer": 0, "lm_head": place}
        with pytest.raises(ValueError, match="got weights on .*, allowed one device"):
            language_losses(offloaded)
    with pytest.raises(ValueError, match="got a meta tensor, allowed weights in memory"):
        language_losses(copy.deepcopy(model("gpt2")).to("meta"))


def test_chance_in_the_loss_is_refused() -> None:
    def noisy(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(parameters["w"] * batch, 0.5).sum(dim=1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with pytest.raises(ValueError, match="allowed no dropout or other chance"):
            next(chain_records(noisy, {"w": torch.ones(8)}, torch.ones(64, 8), generator=_seeded()))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"batch_size": 1}, "nbeta is undefined at batch 1"),
        ({"sampler": "hmc"}, "sampler: got 'hmc', allowed"),
        ({"burn_in": 12}, r"burn_in: got 12, allowed 0\.\.11"),
        ({"num_chains": 0}, "num_chains: got 0, allowed 1 or more"),
        ({"num_dispersed": 5}, "num_dispersed: got 5 of 4 chains"),
        ({"nbetas": [0.0]}, "nbetas: got"),
        ({"nbetas": [50.0, np.nan]}, "nbetas: got"),
        ({"steps": [np.inf]}, "steps: got .* allowed 1 numbers"),
        ({"scales": {"W": 2.0}}, "scales: got .*'W'.*, allowed names of"),
        ({"scales": {"w": 0.0}}, "scales.w: got 0.0, allowed finite numbers above 0"),
        ({"gammas": [1.0, 2.0]}, "gammas: got .* allowed 1 numbers"),
        ({"steps": [1e-3, 1e-3]}, "steps: got .* allowed 1 numbers"),
        ({"gamma_factors": []}, r"gamma_factors: got \[\], allowed one or more"),
        ({"blocks": {"b": ["none"]}}, "block: got .*'none'.* allowed names of"),
        ({"blocks": {"b": {"w": slice(3, 3)}}}, "block.w: got no entries"),
    ],
)
def test_refused_arguments(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _one(_quadratic(), **asked)


def test_refused_losses_and_data() -> None:
    losses, parameters, (x,) = _quadratic()
    with pytest.raises(ValueError, match="allowed 2 or more, as many in every tensor"):
        _one(Task(losses, parameters, (x[:1],)))
    with pytest.raises(ValueError, match="not finite at the start"):
        _one(Task(losses, parameters, (x * torch.nan,)))
    with pytest.raises(ValueError, match=r"losses: got shape \(\), allowed \(64,\)"):
        _one(Task(lambda p, batch: losses(p, batch).mean(), parameters, (x,)))
    with pytest.raises(ValueError, match="got torch.bfloat16, allowed float32"):
        _one(Task(losses, {"w": parameters["w"].bfloat16()}, (x,)))
    with pytest.raises(ValueError, match="parameters.w: got a meta tensor"):
        _one(Task(losses, {"w": parameters["w"].to("meta")}, (x,)))
    flat = Task(lambda p, batch: (0 * (p["w"] - batch[0])).sum(dim=1), parameters, (x,))
    with pytest.raises(ValueError, match="largest_curvature: got 0.0"):
        _one(flat)
    unused = Task(losses, {**parameters, "unused": torch.ones(2)}, (x,))
    with pytest.raises(ValueError, match="largest_curvature: got 0.0"):
        _one(unused, blocks={"unused": ["unused"]})

    def root(p: Parameters, batch: tuple[torch.Tensor]) -> torch.Tensor:
        return (p["w"] - parameters["w"]).abs().sum().sqrt() + 0 * batch[0][:, 0]

    with pytest.raises(ValueError, match="products: got values that are not finite"):
        _one(Task(root, parameters, (x,)))


def test_double_precision_keeps_the_excess_beside_a_large_loss() -> None:
    def losses(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        return 10.0000003 + parameters["w"].square().sum() / 2 + 0 * batch

    zero = {"w": torch.zeros(2, dtype=torch.float64)}
    found = [
        _one(Task(losses, zero, torch.zeros(8).double()), sampler="mala", nbetas=[nbeta])
        for nbeta in (1e2, 1e8)
    ]
    few, many = (c.nbeta_N[0] * (c.loss_NCS - c.base_loss_NCS) for c in found)
    np.testing.assert_allclose(many, few, rtol=1e-4, atol=1e-4)


def test_a_pilot_that_diverges_leaves_the_chains_to_their_verdict() -> None:
    def quartic(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        w_P = parameters["w"]
        return 1e-6 * w_P.square().sum() + 1e6 * (w_P**4).sum() + batch * w_P.sum()

    data = 1e-3 * torch.randn(64, generator=_seeded())
    chains = _one(Task(quartic, {"w": torch.zeros(3)}, data), sampler="rmsprop_sgld", num_steps=50)
    assert not np.isfinite(chains.loss_NCS[..., -1]).any() and chains.restored


def _spectrum(task: Task) -> tuple[torch.Tensor, float]:
    """Eigenvalues of the Hessian of the mean loss, and the length of its gradient."""
    dim = sum(p.numel() for p in task.parameters.values())
    mean = task.mean_loss()
    like = next(iter(task.parameters.values()))
    dense = hessian_products(mean, task.parameters, [task.data])(torch.eye(dim).to(like))
    leaves = {n: p.clone().requires_grad_() for n, p in task.parameters.items()}
    mean(leaves, task.data).backward()
    slope = torch.cat([p.grad.reshape(-1) for p in leaves.values()])
    return torch.linalg.eigvalsh(dense), float(slope.norm())


@pytest.mark.parametrize(
    ("widths", "rank", "curved"),
    [((8, 4, 8), 2, 39), ((20, 5, 20), 5, 175), ((10, 10, 10), 3, 88), ((3, 4, 2), 0, 6)],
)
def test_linear_tasks_are_at_minima_of_known_codimension(
    widths: tuple[int, ...], rank: int, curved: int
) -> None:
    task = deep_linear_task(
        widths, rank, num_samples=100, generator=_seeded(), noise=0.5, free=1.0,
        dtype=torch.float64,
    )  # fmt: skip
    value_P, slope = _spectrum(task)
    assert int((value_P.abs() > 1e-9).sum()) == curved
    assert value_P.min() > -1e-9 and slope < 1e-12
    level = float(task.mean_loss()(task.parameters, task.data))
    assert level == pytest.approx(0.25 * widths[-1] / 2), "the noise alone"


@pytest.mark.parametrize(("features", "vertices"), [(5, 5), (6, 6), (6, 5)])
def test_k_gons_are_minima_with_a_rotation(features: int, vertices: int) -> None:
    value_P, slope = _spectrum(superposition_task(features, vertices, dtype=torch.float64))
    assert slope < 1e-7
    assert value_P[0] == pytest.approx(0.0, abs=1e-6)
    assert value_P[1] > 0.01


def test_teachers_and_trained_classifiers() -> None:
    value_P, slope = _spectrum(teacher_task([4, 6, 3], num_samples=64, generator=_seeded()))
    assert slope == 0.0 and value_P.min() > -1e-5
    start = gaussian_clusters_task(
        4, num_inputs=8, hidden=(16,), num_samples=200, generator=_seeded()
    )
    end = trained(start, num_steps=100)
    before, after = (float(t.mean_loss()(t.parameters, t.data)) for t in (start, end))
    assert after < 0.1 * before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: deep_linear_task([4, 2, 4], 3, num_samples=20, generator=_seeded()), "rank: got"),
        (lambda: deep_linear_task([4, 2, 4], 1, num_samples=8, generator=_seeded()), "more than 8"),
        (
            lambda: deep_linear_task([4, 4], 1, num_samples=20, generator=_seeded(), free=1.0),
            "needs one hidden layer",
        ),
        (lambda: superposition_task(4, 5), r"num_vertices: got 5, allowed 2\.\.4"),
    ],
)
def test_refused_tasks(make: Callable[[], Task], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_language_losses_go_one_after_the_other() -> None:
    assert LanguageLosses.together is False


@pytest.mark.parametrize("sampler", ["sgld", "sgld_cv", "rmsprop_sgld", "mala"])
def test_rows_that_go_one_by_one_see_no_more_samples_at_once_than_a_batch(sampler: str) -> None:
    """A language model's logits of all data, and their graph, would not fit into memory."""
    seen: list[int] = []
    task = _linear()

    def losses(parameters: Parameters, batch: Any) -> torch.Tensor:
        seen.append(len(batch[0]))
        return task.losses(parameters, batch)

    losses.together = False
    chains = _one(task._replace(losses=losses), sampler=sampler, batch_size=24)
    assert max(seen) == 24
    assert chains.batch == (64 if sampler == "mala" else 24)


def test_data_in_chunks_are_all_data() -> None:
    """64 samples in chunks of 24: the last one is smaller."""
    task = _linear(torch.float64)
    x_RP = 0.1 * torch.randn(3, 24, generator=_seeded(), dtype=torch.float64)
    whole, parts = (
        Posterior(*task, together=together, chunk=24) for together in (True, False)
    )  # fmt: skip
    for one, other in zip(whole.gradient(x_RP, None), parts.gradient(x_RP, None), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(whole.full_gradient(x_RP[:1]), whole.gradient(x_RP[:1], None)[1])
    torch.testing.assert_close(
        torch.tensor(parts.extremes(x_RP)), torch.tensor(whole.extremes(x_RP))
    )
    for most in (0.01, 0.1):
        torch.testing.assert_close(parts.within(x_RP, most), whole.within(x_RP, most))


def test_chains_that_all_start_at_the_origin_take_the_memory_of_one() -> None:
    """Those of a language model at a dozen settings would not fit side by side."""
    posterior = Posterior(*_quadratic())
    one_N = np.ones(3)
    settings = Settings(one_N, one_N, one_N, one_N)
    for dispersed, rows in ((0, 1), (2, 12)):
        asked = ChainRequest(
            "sgld", None, None, [1.0], None, 4, dispersed, Length(1, 0, 8), _seeded()
        )
        x_RP = starts(posterior, settings, asked).x_RP
        assert x_RP.shape == (12, 6)
        assert x_RP.untyped_storage().nbytes() == rows * 6 * x_RP.itemsize


def test_starts_away_from_w0_are_refused_where_no_basis_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scaleinv_ray.capture.posterior.chains.DISPERSED_PARAMETERS", 5)
    with pytest.raises(ValueError, match="num_dispersed: got 2 of chains in 6 parameters, allowed"):
        _one(_quadratic(), num_dispersed=2)
    chains = _one(_quadratic())
    assert chains.dispersed_C is not None and not chains.dispersed_C.any()
