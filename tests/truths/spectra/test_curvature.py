"""Densities of states that are known: explicit matrices, Wigner, classes in clusters."""

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.curvature.lanczos import quadrature, tridiagonal
from scaleinv_ray.capture.curvature.products import SplitLoss, curvature_records
from scaleinv_ray.contract import Measured
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.curvature import ggn_density, hessian_density
from scaleinv_ray.invariants.holomorphy import ggn_poles, hessian_poles
from scaleinv_ray.records import Lanczos


def _of_matrix(
    a_PP: np.ndarray, *, operator: str = "hessian", num_steps: int = 40, num_probes: int = 8
) -> Lanczos:
    dim = len(a_PP)
    a = torch.tensor(a_PP)
    start_RP = torch.tensor(np.random.default_rng(5).normal(size=(num_probes, dim)))
    nodes_RK, weights_RK = quadrature(
        tridiagonal(lambda v_RP: v_RP @ a, start_RP, num_steps, keep_basis=True)
    )
    return Lanczos(nodes_RK=nodes_RK, weights_RK=weights_RK, dim=dim, operator=operator)


def _get(measured: Measured, quantity: str) -> Estimate:
    estimate = measured.values[quantity]
    assert isinstance(estimate, Estimate), (quantity, estimate)
    return estimate


def _agrees(found: Estimate, exact: float) -> bool:
    assert found.stderr is not None
    return abs(found.value - exact) < 4 * found.stderr


def test_an_explicit_spectrum() -> None:
    """Functions of all eigenvalues within the error over probes, extremes exactly."""
    rng = np.random.default_rng(0)
    value_P = np.concatenate([rng.normal(size=300), np.zeros(80), [9.0, 11.0]])
    basis = np.linalg.qr(rng.normal(size=(len(value_P),) * 2))[0]
    measured = hessian_density(_of_matrix(basis * value_P @ basis.T), rng=rng)
    assert _get(measured, "lambda_max").value == pytest.approx(11.0, rel=1e-9)
    assert _get(measured, "lambda_ratio").value == pytest.approx(value_P.min() / 11.0, rel=1e-2)
    share_P = np.abs(value_P) / np.abs(value_P).sum()
    share_P = share_P[share_P > 0]
    total, square = value_P.sum(), (value_P**2).sum()
    exact = {
        "mean_square": square / len(value_P),
        "trace": total / np.sqrt(square * len(value_P)),
        "effective_rank": total**2 / square,
        "spectral_entropy": -(share_P * np.log(share_P)).sum() / np.log(len(value_P)),
    }
    for quantity, expected in exact.items():
        assert _agrees(_get(measured, quantity), expected), quantity
    assert _get(measured, "outlier_count").value == 2


@pytest.mark.parametrize("poles", [hessian_poles, ggn_poles])
def test_isolated_poles_and_their_residues(poles) -> None:
    """Three eigenvalues outside, the largest of them twice; residues count them."""
    rng = np.random.default_rng(0)
    value_P = np.concatenate([rng.uniform(0.0, 1.0, size=400), [9.0, 12.0, 12.0]])
    basis = np.linalg.qr(rng.normal(size=(len(value_P),) * 2))[0]
    operator = poles.__name__.removesuffix("_poles")
    record = _of_matrix(basis * value_P @ basis.T, operator=operator, num_probes=60)
    measured = poles(record, rng=rng)
    assert _get(measured, "isolated_poles").value == 2
    assert _agrees(_get(measured, "leading_residue"), 2.0)
    assert _agrees(_get(measured, "isolated_residue"), 3.0)
    for quantity in ("leading_residue", "isolated_residue"):
        stderr = _get(measured, quantity).stderr
        assert stderr is not None and stderr < 0.5
    scale = np.sqrt((value_P**2).mean())
    found = _get(measured, "leading_over_scale")
    assert _agrees(found, 12.0 / scale)
    assert found.stderr is not None and found.stderr < 0.1 * found.value


def test_ghosts_are_one_pole() -> None:
    whole = Lanczos(
        nodes_RK=np.array([[0.0, 0.1, 5.0]] * 3), weights_RK=np.array([[0.7, 0.29, 0.01]] * 3),
        dim=100,
    )  # fmt: skip
    ghost = Lanczos(
        nodes_RK=np.array([[0.0, 0.1, 5.0 - 1e-9, 5.0]] * 3),
        weights_RK=np.array([[0.7, 0.29, 0.004, 0.006]] * 3), dim=100,
    )  # fmt: skip
    found = [hessian_poles(r, rng=np.random.default_rng(0)).values for r in (whole, ghost)]
    for one, two in zip(*(f.values() for f in found), strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-6)
    assert found[1]["leading_residue"].value == pytest.approx(1.0)


def test_no_pole_stands_apart_in_a_bulk() -> None:
    rng = np.random.default_rng(3)
    a_PP = rng.normal(size=(300, 300))
    record = _of_matrix((a_PP + a_PP.T) / 40, num_probes=8)
    measured = hessian_poles(record, rng=rng)
    assert _get(measured, "isolated_poles").value == 0
    assert _get(measured, "leading_over_scale").value == pytest.approx(2.0, rel=0.05)


def test_the_error_over_probes_is_the_scatter_of_the_estimate() -> None:
    rng = np.random.default_rng(1)
    a_PP = rng.normal(size=(200, 200))
    a_PP = a_PP @ a_PP.T / 200
    record = _of_matrix(a_PP, operator="ggn", num_steps=20, num_probes=160)
    parts = [
        Lanczos(
            nodes_RK=record.nodes_RK[i : i + 4], weights_RK=record.weights_RK[i : i + 4],
            dim=200, operator="ggn",
        )
        for i in range(0, 160, 4)
    ]  # fmt: skip
    found = [_get(ggn_density(p, rng=rng, num_null=1), "effective_rank") for p in parts]
    claimed = np.sqrt(np.mean([f.stderr**2 for f in found if f.stderr is not None]))
    assert claimed == pytest.approx(np.std([f.value for f in found], ddof=1), rel=0.35)
    exact = np.trace(a_PP) ** 2 / np.sum(a_PP**2)
    assert np.mean([f.value for f in found]) == pytest.approx(exact, rel=0.02)


def test_wigner_has_edges_two_and_no_outliers() -> None:
    rng = np.random.default_rng(2)
    half_PP = rng.normal(size=(600, 600))
    a_PP = (half_PP + half_PP.T) / np.sqrt(2 * 600)
    record = _of_matrix(a_PP, num_probes=4)
    measured = hessian_density(record, rng=rng)
    assert _get(measured, "lambda_max").value == pytest.approx(2.0, rel=0.03)
    assert _get(measured, "lambda_ratio").value == pytest.approx(-1.0, rel=0.03)
    assert _agrees(_get(measured, "mean_square"), float((a_PP**2).sum()) / 600)
    fourth = (record.weights_RK * record.nodes_RK**4).sum(axis=1).mean()
    assert fourth == pytest.approx(2.0, rel=0.1)
    assert _get(measured, "outlier_count").value == 0


@pytest.mark.parametrize("classes", [3, 5, 10])
def test_clusters_of_c_classes_make_c_minus_one_outliers(classes: int) -> None:
    """ReLU features have a common mean, hence C - 1 large directions of the softmax."""
    generator = torch.Generator().manual_seed(0)
    normal = {"generator": generator, "dtype": torch.float64}
    label = torch.arange(60 * classes) % classes
    x = 0.5 * torch.randn(classes, 30, **normal)[label] + torch.randn(len(label), 30, **normal)
    leaves = {
        "w0": torch.randn(40, 30, **normal) * (2 / 30) ** 0.5,
        "w1": torch.randn(40, 40, **normal) * (2 / 40) ** 0.5,
        "w2": torch.randn(classes, 40, **normal) / 40**0.5,
    }
    loss = SplitLoss(
        lambda p, x: ((x @ p["w0"].T).relu() @ p["w1"].T).relu() @ p["w2"].T,
        lambda z, _: torch.nn.functional.cross_entropy(z, label),
    )
    for leaf in leaves.values():
        leaf.requires_grad_()
    optimizer = torch.optim.SGD(leaves.values(), 0.1)
    for _ in range(30):
        optimizer.zero_grad()
        loss(leaves, x).backward()
        optimizer.step()
    (record,) = curvature_records(
        loss, leaves, [x], generator=generator, operator="ggn", num_steps=40, num_probes=3
    )
    found = ggn_density(record, rng=np.random.default_rng(0))
    assert _get(found, "outlier_count").samples == (classes - 1.0,) * 3
