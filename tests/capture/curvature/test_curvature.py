"""Curvature products against central differences and dense matrices; Lanczos against truth."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn
from torch.func import functional_call

from scaleinv_ray.capture.curvature.lanczos import quadrature, tridiagonal
from scaleinv_ray.capture.curvature.products import (
    Parameters,
    SplitLoss,
    curvature_records,
    ggn_products,
    hessian_products,
    language_loss,
)

_GENERATOR = torch.Generator().manual_seed(0)


def _normed_net() -> tuple[SplitLoss, dict[str, torch.Tensor], torch.Tensor]:
    """Linear-LayerNorm-Linear in float64, where jvp(jacrev) is silently wrong."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)).double()
        x = torch.randn(11, 5, dtype=torch.float64)
    label = torch.arange(11) % 3
    loss = SplitLoss(
        lambda p, batch: functional_call(net, dict(p), (batch,)),
        lambda z, _: nn.functional.cross_entropy(z, label),
    )
    return loss, {n: p.detach() for n, p in net.named_parameters()}, x


def _central_difference(
    loss: SplitLoss, parameters: Parameters, batch: torch.Tensor, along: dict[str, torch.Tensor]
) -> torch.Tensor:
    """(g(w + h v) - g(w - h v)) / 2 h over the names of `along`; Richardson's second step."""

    def gradient(h: float) -> torch.Tensor:
        moved = {n: (p + h * along[n] if n in along else p) for n, p in parameters.items()}
        leaves = {n: p.clone().requires_grad_() for n, p in moved.items()}
        loss(leaves, batch).backward()
        return torch.cat([leaves[n].grad.reshape(-1) for n in along])

    slope = [(gradient(h) - gradient(-h)) / (2 * h) for h in (2e-4, 1e-4)]
    return (4 * slope[1] - slope[0]) / 3


def _random_like(parameters: Parameters, names: list[str]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        n: torch.randn(parameters[n].shape, generator=generator, dtype=parameters[n].dtype)
        for n in names
    }


def _product_error(
    loss: SplitLoss, parameters: Parameters, batch: torch.Tensor, names: list[str]
) -> float:
    along = _random_like(parameters, names)
    v_1P = torch.cat([v.reshape(-1) for v in along.values()])[None]
    found = hessian_products(loss, parameters, [batch], block=names)(v_1P)[0]
    expected = _central_difference(loss, parameters, batch, along)
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("names", [[f"{i}.{w}"] for i in range(3) for w in ("weight", "bias")])
def test_hessian_through_layer_norm(names: list[str]) -> None:
    assert _product_error(*_normed_net(), names) < 1e-6


def test_hessian_of_the_whole_net() -> None:
    loss, parameters, x = _normed_net()
    assert _product_error(loss, parameters, x, list(parameters)) < 1e-6


@pytest.mark.parametrize(
    ("name", "least"),
    # RMSNorm computes in float32 whatever the model's dtype, so the differences are rounded
    [("gpt2", 1e-6), ("llama", 1e-3), ("gemma2", 1e-3)],
)
def test_hessian_of_a_language_model(
    model: Callable[[str], tf.PreTrainedModel], tokens_ST: np.ndarray, name: str, least: float
) -> None:
    exact = copy.deepcopy(model(name)).double()
    parameters = {n: p.detach() for n, p in exact.named_parameters()}
    block = [n for n in parameters if ".0." in n]
    tokens = torch.tensor(tokens_ST[:2])
    assert _product_error(language_loss(exact), parameters, tokens, block) < least


def _dense(products: Callable[[torch.Tensor], torch.Tensor], dim: int) -> torch.Tensor:
    return products(torch.eye(dim, dtype=torch.float64))


def test_ggn_is_the_hessian_where_outputs_are_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    linear = SplitLoss(
        lambda p, batch: batch @ p["w"].T,
        lambda z, _: nn.functional.cross_entropy(z, y.softmax(1)),
    )
    w = {"w": torch.randn(4, 4, generator=generator, dtype=torch.float64)}
    hessian = _dense(hessian_products(linear, w, [x]), 16)
    ggn = _dense(ggn_products(linear, w, [x]), 16)
    torch.testing.assert_close(ggn, hessian, rtol=1e-10, atol=1e-12)


def test_ggn_against_jacobian_and_softmax() -> None:
    loss, parameters, x = _normed_net()
    dim = sum(p.numel() for p in parameters.values())
    rows = []
    leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}
    z = loss.outputs(leaves, x)
    for value in z.flatten():
        slope = torch.autograd.grad(value, list(leaves.values()), retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in slope]))
    j = torch.stack(rows).reshape(11, 3, dim)
    p = z.detach().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("nad,nab,nbe->de", j, inner, j) / 11
    found = _dense(ggn_products(loss, parameters, [x]), dim)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_batches_are_averaged() -> None:
    loss = SplitLoss(lambda p, x: x @ p["w"], lambda z, _: z.square().mean() / 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    w = {"w": torch.ones(3, dtype=torch.float64)}
    one = _dense(hessian_products(loss, w, [x]), 3)
    two = _dense(hessian_products(loss, w, [x[:4], x[4:]]), 3)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(one, x.T @ x / 8)


def _matrix_products(a_PP: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda v_RP: v_RP @ a_PP


def test_full_lanczos_finds_all_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(30, 30))
    a_PP = torch.tensor(half + half.T)
    start = torch.tensor(rng.normal(size=(2, 30)))
    nodes_RK, weights_RK = quadrature(
        tridiagonal(_matrix_products(a_PP), start, 30, keep_basis=True)
    )
    exact, vectors = np.linalg.eigh(a_PP.numpy())
    unit = start.numpy() / np.linalg.norm(start.numpy(), axis=1, keepdims=True)
    for nodes_K, weights_K, v_P in zip(nodes_RK, weights_RK, unit, strict=True):
        np.testing.assert_allclose(nodes_K, exact, atol=1e-9)
        np.testing.assert_allclose(weights_K, (vectors.T @ v_P) ** 2, atol=1e-9)


def test_ghosts_only_without_a_basis_and_harmless_there() -> None:
    eigenvalue_P = torch.cat([
        torch.linspace(0, 1, 197, dtype=torch.float64), torch.tensor([20.0, 40.0, 80.0]).double()
    ])  # fmt: skip
    start = torch.ones(1, 200, dtype=torch.float64)
    products = _matrix_products(torch.diag(eigenvalue_P))
    kept, free = (
        quadrature(tridiagonal(products, start, 80, keep_basis=keep)) for keep in (True, False)
    )
    assert (kept[0] > 79).sum() == 1
    assert (free[0] > 79).sum() > 1, "this spectrum is one where ghosts appear"
    for power in (1, 2, 3):
        exact = float((eigenvalue_P**power).mean())
        for nodes_RK, weights_RK in (kept, free):
            assert float((weights_RK * nodes_RK**power).sum()) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("keep_basis", [True, False])
def test_a_bulk_far_below_an_outlier_is_no_closed_krylov_space(keep_basis: bool) -> None:
    """In single precision, where the square root of as many parameters times eps is 3e-5."""
    eigenvalue_P = torch.cat([torch.linspace(0, 1e-5, 50_000), torch.ones(1)])
    start = torch.ones(1, 50_001)
    nodes_RK, weights_RK = quadrature(
        tridiagonal(lambda v_RP: v_RP * eigenvalue_P, start, 12, keep_basis=keep_basis)
    )
    bulk = (nodes_RK < 0.5) & (weights_RK > 1e-9)
    share_K = weights_RK[bulk] / weights_RK[bulk].sum()
    own_K = nodes_RK[bulk] - share_K @ nodes_RK[bulk]
    variance = share_K @ own_K**2
    assert variance == pytest.approx(1e-10 / 12, rel=0.02)
    # of a uniform bulk; the two nodes before a space was taken for closed have 1
    assert share_K @ own_K**4 / variance**2 == pytest.approx(1.8, rel=0.02)


def test_a_closed_krylov_space_leaves_weightless_nodes() -> None:
    a_PP = torch.diag(torch.tensor([1.0, 1.0, 1.0, 3.0, 3.0, 5.0], dtype=torch.float64))
    start = torch.ones(1, 6, dtype=torch.float64)
    nodes_RK, weights_RK = quadrature(
        tridiagonal(_matrix_products(a_PP), start, 6, keep_basis=True)
    )
    carried = weights_RK > 0
    np.testing.assert_allclose(nodes_RK[carried], [1.0, 3.0, 5.0])
    np.testing.assert_allclose(weights_RK[carried], [1 / 2, 1 / 3, 1 / 6])


def test_records_say_what_they_are_of() -> None:
    loss, parameters, x = _normed_net()
    blocks = {"first": ["0.weight", "0.bias"], "norm": ["1.weight", "1.bias"]}
    made = list(
        curvature_records(
            loss, parameters, [x], generator=torch.Generator().manual_seed(0), operator="ggn",
            blocks=blocks, num_steps=40, num_probes=2, labels={"probe": "made"},
        )
    )  # fmt: skip
    assert [(r.block, r.site, r.dim, r.operator, r.probe) for r in made] == [
        ("first", "first", 42, "ggn", "made"),
        ("norm", "norm", 14, "ggn", "made"),
    ]
    assert made[1].nodes_RK.shape == (2, 14), "cut to the size of the block"
    assert made[1].weight_norm == pytest.approx(7**0.5)  # gains of one, biases of zero
    assert made[0].dtype == "float64"


def test_refused_inputs() -> None:
    loss, parameters, x = _normed_net()
    with pytest.raises(ValueError, match="allowed names of"):
        hessian_products(loss, parameters, [x], block=["none"])
    with pytest.raises(ValueError, match="got torch.bfloat16, allowed float32"):
        hessian_products(loss, {n: p.bfloat16() for n, p in parameters.items()}, [x])
    with pytest.raises(ValueError, match="batches: got none"):
        hessian_products(loss, parameters, [])
    with pytest.raises(ValueError, match="allowed a finite scalar"):
        hessian_products(loss, parameters, [x * torch.nan])
    with pytest.raises(ValueError, match="operator: got 'fisher'"):
        list(curvature_records(loss, parameters, [x], generator=_GENERATOR, operator="fisher"))


@pytest.mark.parametrize("operator", ["hessian", "ggn"])
def test_a_block_that_the_loss_does_not_read_has_no_curvature(operator: str) -> None:
    loss, parameters, x = _normed_net()
    more = parameters | {"unused": torch.ones(2, dtype=torch.float64)}
    (record,) = curvature_records(
        loss, more, [x], generator=_GENERATOR, operator=operator, blocks={"u": ["unused"]}
    )
    assert not record.nodes_RK.any() and record.dim == 2


def test_a_tied_embedding_counts_twice(tokens_ST: np.ndarray) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = tf.GPT2Config(
            vocab_size=13, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=0,
            eos_token_id=0,
        )  # fmt: skip
        net = tf.GPT2LMHeadModel(config).double().eval()
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    assert "lm_head.weight" not in parameters
    tokens = torch.from_numpy(tokens_ST[:4, :8]).long() % 13
    loss = language_loss(net)
    name = "transformer.wte.weight"
    along = _random_like(parameters, [name])
    product = hessian_products(loss, parameters, [tokens], block=[name])
    found = product(along[name].reshape(1, -1))[0]

    def gradient(h: float) -> torch.Tensor:
        moved = copy.deepcopy(net)
        with torch.no_grad():
            moved.transformer.wte.weight += h * along[name]
        logits = moved(input_ids=tokens).logits[:, :-1].flatten(0, 1)
        nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
        assert moved.lm_head.weight is moved.transformer.wte.weight
        return moved.transformer.wte.weight.grad.reshape(-1)

    h = 1e-6
    expected = (gradient(h) - gradient(-h)) / (2 * h)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_dropout_is_refused(model: Callable[[str], tf.PreTrainedModel]) -> None:
    def noisy(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(parameters["w"] * batch, 0.5).square().mean()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with pytest.raises(ValueError, match="no dropout"):
            hessian_products(noisy, {"w": torch.ones(64)}, [torch.ones(64)])
    training = copy.deepcopy(model("gpt2")).train()
    with pytest.raises(ValueError, match="training mode with dropout"):
        language_loss(training)


def test_a_stored_basis_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleinv_ray.capture.curvature.lanczos.STORED_BASIS", 50)
    loss, parameters, x = _normed_net()
    with pytest.raises(ValueError, match=r"allowed 1\.\.30"):
        next(curvature_records(loss, parameters, [x], generator=_GENERATOR, num_steps=31))
