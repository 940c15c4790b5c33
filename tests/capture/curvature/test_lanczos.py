"""Ritz vectors and sketches of them; refusals."""

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.curvature.lanczos import (
    CountSketch,
    Tridiagonal,
    quadrature,
    ritz_vectors,
    tridiagonal,
)
from scaleinv_ray.capture.curvature.products import SplitLoss, curvature_records


def _tanh_net() -> tuple[SplitLoss, dict[str, torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    normal = {"generator": generator, "dtype": torch.float64}
    w = {"a": torch.randn(5, 4, **normal), "b": torch.randn(3, 5, **normal)}
    loss = SplitLoss(
        lambda p, x: torch.tanh(x @ p["a"].T) @ p["b"].T,
        lambda z, x: torch.nn.functional.cross_entropy(z, torch.arange(len(x)) % 3),
    )
    return loss, w, [torch.randn(6, 4, **normal) for _ in range(5)]


def _matrix(dim: int) -> torch.Tensor:
    half = torch.randn(dim, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return half + half.T


def test_ritz_vectors_of_a_full_run_are_the_eigenvectors() -> None:
    a_PP = _matrix(20)
    start = torch.randn(2, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = tridiagonal(lambda v: v @ a_PP, start, 20, keep_basis=True, seen=torch.clone)
    exact = np.linalg.eigh(a_PP.numpy())[1].T
    overlap_RKK = np.abs(ritz_vectors(found) @ exact.T)
    np.testing.assert_allclose(overlap_RKK, np.broadcast_to(np.eye(20), (2, 20, 20)), atol=1e-8)
    nodes_RK, _ = quadrature(found)
    np.testing.assert_allclose(nodes_RK[0], np.linalg.eigvalsh(a_PP.numpy()), atol=1e-10)


def test_sketches_keep_inner_products() -> None:
    """Unbiased, with a variance of at most 2 / M for unit vectors."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 3000, generator=generator, dtype=torch.float64)
    u, v = u / u.norm(), v / v.norm()
    pair = torch.stack([u, (u + v) / (u + v).norm()])
    exact = float(pair[0] @ pair[1])
    sketches = [CountSketch.of(3000, m, like=u)(pair) for m in range(500, 560)]
    found = [float(s[0] @ s[1]) for s in sketches]  # another hash for every number of buckets
    assert np.std(found) < (2 / 500) ** 0.5
    assert np.mean(found) == pytest.approx(exact, abs=4 * (2 / 500 / 60) ** 0.5)


def test_all_steps_of_a_run_share_the_hash() -> None:
    like = torch.zeros(1)
    one, other = CountSketch.of(50, 16, like=like), CountSketch.of(50, 16, like=like)
    assert torch.equal(one.bucket_P, other.bucket_P) and torch.equal(one.sign_P, other.sign_P)
    v = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one(2 * v[:2] - v[1:]), 2 * other(v[:2]) - other(v[1:]))


def test_records_carry_sketches_of_unit_ritz_vectors() -> None:
    loss, w, batches = _tanh_net()
    asked = {"num_steps": 12, "num_probes": 2, "sketch": 4096}
    made = [
        next(
            curvature_records(
                loss, w, batches[:1], generator=torch.Generator().manual_seed(3), **asked
            )
        )
        for _ in range(2)
    ]
    sketch_RKM = made[0].sketch_RKM
    assert sketch_RKM.shape == (2, 12, 4096) and sketch_RKM.dtype == np.float32
    # 35 parameters in 4096 buckets: hardly a collision
    np.testing.assert_allclose(np.linalg.norm(sketch_RKM, axis=2), 1.0, atol=1e-3)
    np.testing.assert_array_equal(sketch_RKM, made[1].sketch_RKM)
    top = np.vdot(sketch_RKM[0, -1], sketch_RKM[1, -1])
    assert abs(top) == pytest.approx(1.0, abs=1e-3), "a converged eigenvector is one for all probes"


def test_refused_sketches() -> None:
    loss, w, batches = _tanh_net()
    make = {"generator": torch.Generator().manual_seed(3), "num_steps": 4}
    with pytest.raises(ValueError, match=r"got 4097 buckets, allowed 1\.\.4096"):
        next(curvature_records(loss, w, batches, sketch=4097, **make))
    with pytest.raises(ValueError, match="got 8 without a basis"):
        next(curvature_records(loss, w, batches, sketch=8, keep_basis=False, **make))
    with pytest.raises(ValueError, match="basis_RKM: got None"):
        ritz_vectors(Tridiagonal(np.zeros((1, 2)), np.ones((1, 2))))
