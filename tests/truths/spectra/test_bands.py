"""Bands that are known: explicit spectra, the 2 x 2 avoided crossing, rotating subspaces."""

import math

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.curvature.lanczos import (
    CountSketch,
    quadrature,
    ritz_vectors,
    tridiagonal,
)
from scaleinv_ray.contract import Measured
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.bands import ggn_bands, hessian_bands
from scaleinv_ray.invariants.bands.discovery import Band, GapNull, find_bands
from scaleinv_ray.invariants.bands.tracks import track_bands
from scaleinv_ray.records import Lanczos

DIM = 400


def _lanczos(
    value_P: np.ndarray, basis_PP: np.ndarray | None = None, *, operator: str = "hessian",
    step: int | None = None, buckets: int = 512,
) -> Lanczos:  # fmt: skip
    """The record of sum_p value_p u_p u_p^T; the columns of the basis are u_p (unit vectors)."""
    u = torch.tensor(np.eye(len(value_P)) if basis_PP is None else basis_PP)
    value = torch.tensor(np.asarray(value_P, dtype=np.float64))
    start_RP = torch.tensor(np.random.default_rng(5).normal(size=(4, len(value))))
    found = tridiagonal(
        lambda v_RP: ((v_RP @ u) * value) @ u.T, start_RP, 40, keep_basis=True,
        seen=CountSketch.of(len(value), buckets, like=start_RP),
    )  # fmt: skip
    nodes_RK, weights_RK = quadrature(found)
    return Lanczos(
        nodes_RK=nodes_RK, weights_RK=weights_RK, dim=len(value), operator=operator, step=step,
        sketch_RKM=ritz_vectors(found).astype(np.float32),
    )  # fmt: skip


def _bands(record: Lanczos) -> list[Band]:
    null = GapNull(
        record.dim, positive=record.operator == "ggn", num_null=40, rng=np.random.default_rng(0)
    )
    return find_bands(
        record.nodes_RK, record.weights_RK, dim=record.dim, null=null, sketch_RKM=record.sketch_RKM
    )


def _wigner(size: int, seed: int) -> np.ndarray:
    half = np.random.default_rng(seed).normal(size=(size, size))
    return np.linalg.eigvalsh(half + half.T) / math.sqrt(2 * size)


def _wishart(size: int, samples: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(size, samples))
    return np.linalg.eigvalsh(x @ x.T / samples)


@pytest.mark.parametrize("seed", range(4))
def test_random_matrices_have_no_bands(seed: int) -> None:
    """40 nodes are 40 well separated groups when each probe vector sees the same continuum."""
    assert not _bands(_lanczos(_wigner(DIM, seed)))
    assert not _bands(_lanczos(_wishart(DIM, 2 * DIM, seed), operator="ggn"))
    assert not _bands(_lanczos(_wishart(DIM, DIM, seed), operator="ggn"))


def test_nodes_of_a_continuum_are_no_bands() -> None:
    """In high dimension all probe vectors have the same 20 nodes of the semicircle."""
    angle_K = np.arange(1, 21) * math.pi / 21
    nodes_RK = np.tile(2 * np.cos(angle_K)[::-1], (4, 1))
    nodes_RK += 1e-4 * np.random.default_rng(0).normal(size=(4, 20))
    weights_RK = np.tile(2 / 21 * np.sin(angle_K) ** 2, (4, 1))
    for positive in (False, True):
        null = GapNull(10**6, positive=positive, num_null=20, rng=np.random.default_rng(0))
        assert not find_bands(nodes_RK, weights_RK, dim=10**6, null=null)


def test_nine_outliers_near_each_other_are_one_band_of_nine() -> None:
    value_P = np.concatenate([_wishart(DIM - 9, 2 * DIM, 0), np.linspace(30, 34, 9)])
    (band,) = _bands(_lanczos(value_P, operator="ggn"))
    assert (band.low, band.high) == (pytest.approx(30.0), pytest.approx(34.0))
    assert band.count == 9
    assert band.weight_R.mean() * DIM == pytest.approx(9, abs=4 * math.sqrt(2 * 9 / 4))
    assert band.subspace_DM is not None
    like = torch.zeros(1, dtype=torch.float64)
    exact = CountSketch.of(DIM, 512, like=like)(torch.eye(DIM, dtype=torch.float64)[-9:]).numpy()
    exact_DM = np.linalg.qr(exact.T)[0].T
    assert ((band.subspace_DM @ exact_DM.T) ** 2).sum() == pytest.approx(9, rel=1e-5)


def test_outliers_far_from_each_other_are_a_band_each() -> None:
    value_P = np.concatenate([_wigner(DIM - 5, 0), [-8.0, -7.9, 15.0, 16.0, 40.0]])
    found = _bands(_lanczos(value_P))
    assert [band.count for band in found] == [1, 2, 2]
    assert found[0].centre == pytest.approx(40.0)
    assert -8.0 <= found[2].centre <= -7.9


def test_a_degenerate_eigenvalue_is_seen_once_and_weighs_its_multiplicity() -> None:
    value_P = np.concatenate([_wigner(DIM - 20, 0), np.full(20, 6.0)])
    (band,) = _bands(_lanczos(value_P))
    assert band.count == 1 and band.centre == pytest.approx(6.0)
    assert band.weight_R.mean() * DIM == pytest.approx(20, abs=4 * math.sqrt(2 * 20 / 4))
    # four probe vectors see four directions of the twenty
    assert band.subspace_DM is not None and len(band.subspace_DM) == 4


def test_two_continua_are_the_bulk_and_a_band() -> None:
    rng = np.random.default_rng(0)
    value_P = np.concatenate([rng.uniform(0, 1, 250), rng.uniform(5, 6, 150)])
    (band,) = _bands(_lanczos(value_P))
    assert band.low > 4.9 and band.high < 6.1
    assert band.weight_R.mean() == pytest.approx(150 / 400, abs=0.1)


def _level(centre: float, *rows: np.ndarray) -> Band:
    return Band(centre, 0.0, centre, centre, np.full(4, 0.01), 1.0, np.array(rows))


def _two_levels(t: float, g: float) -> list[Band]:
    """Eigenvalues 10 +- sqrt(t^2 + g^2) of 10 + [[t, g], [g, -t]] with their vectors."""
    value_B, vector_PB = np.linalg.eigh(np.array([[10 + t, g], [g, 10 - t]]))
    return [_level(value_B[i], vector_PB[:, i]) for i in (1, 0)]


@pytest.mark.parametrize("g", [0.02, 0.3])
def test_two_by_two_avoided_crossing(g: float) -> None:
    """Seen finely it is no crossing: two tracks, apart by 2 g at the least, turning by 90 deg."""
    found = track_bands([_two_levels(t, g) for t in np.arange(-50, 51) * g / 5], floor=1e-3)
    assert not found.crossings and not found.requests
    upper, lower = found.tracks
    gap_S = [a.centre - b.centre for a, b in zip(upper.bands, lower.bands, strict=True)]
    assert min(gap_S) == pytest.approx(2 * g, rel=1e-9)
    assert gap_S.index(min(gap_S)) == 50
    turned = upper.bands[0].subspace_DM @ upper.bands[-1].subspace_DM.T
    assert turned.item() ** 2 < 0.01


def test_between_t_and_minus_t_the_overlap_is_known() -> None:
    """g^2 / (g^2 + t^2): below a half the vectors contradict the order of the eigenvalues."""
    for t, g in ((0.9, 1.0), (1.2, 1.0)):
        ends = [_two_levels(-t, g), _two_levels(t, g)]
        overlap = g**2 / (g**2 + t**2)
        found = track_bands(ends, floor=1e-3, steps=[30, 100])
        assert [len(track.bands) for track in found.tracks] == [2, 2]
        if t < g:
            assert not found.crossings and not found.requests
            continue
        assert [c.bands for c in found.crossings] == [(0, 1)]
        (request,) = found.requests
        assert (request.before, request.step) == (0, round(math.sqrt(31 * 101) - 1))
        assert request.overlap == pytest.approx(overlap, rel=1e-9)
        assert found.tracks[0].bands[-1].centre > 10, "followed on by eigenvalue"


def test_far_on_either_side_the_vectors_say_which_is_which() -> None:
    found = track_bands([_two_levels(t, 0.1) for t in (-1.0, 1.0)], floor=1e-3, steps=[30, 100])
    assert not found.crossings and not found.requests
    (first, last) = found.tracks[0].bands
    assert (first.centre - 10) * (last.centre - 10) < 0


def test_answering_the_requests_tells_which_is_which() -> None:
    """From t = -1.2 g to 1.2 g in 1024 steps, with checkpoints added where they are asked for."""
    steps = [0, 1024]
    for _ in range(20):
        levels = [_two_levels(1.2 * (step - 512) / 512, 1.0) for step in steps]
        found = track_bands(levels, floor=1e-3, steps=steps)
        if not found.requests:
            break
        steps = sorted({*steps, *(r.step for r in found.requests if r.step is not None)})
    assert len(steps) > 2 and not found.requests and not found.crossings
    assert all(band.centre > 10 for band in found.tracks[0].bands)


def _rotated(angle: float) -> list[Band]:
    """Two planes of 6-space that turn into planes of their own; eigenvalues stay."""
    c, s = math.cos(angle), math.sin(angle)
    e = np.eye(8)
    return [
        _level(100.0, c * e[0] + s * e[4], c * e[1] + s * e[5]),
        _level(1.0, c * e[2] + s * e[6], c * e[3] + s * e[7]),
    ]


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.49, 0.51, 0.7, 1.0])
def test_identity_is_lost_where_the_overlap_is_below_a_half(overlap: float) -> None:
    found = track_bands(
        [_rotated(0.0), _rotated(math.acos(math.sqrt(overlap)))], floor=1e-3, steps=[1, 2]
    )
    assert [len(t.bands) for t in found.tracks] == ([2, 2] if overlap > 0.5 else [1] * 4)
    assert not found.requests, "there is no step between 1 and 2"
    found = track_bands(
        [_rotated(0.0), _rotated(math.acos(math.sqrt(overlap)))], floor=1e-3, steps=[1, 9]
    )
    assert [r.overlap for r in found.requests] == pytest.approx([overlap] if overlap < 0.5 else [])


def test_a_rotating_run_is_one_track() -> None:
    found = track_bands([_rotated(a) for a in np.linspace(0, 12, 60)], floor=1e-3)
    assert [len(t.bands) for t in found.tracks] == [60, 60] and not found.requests


def _value(measured: Measured, quantity: str) -> Estimate:
    estimate = measured.values[quantity]
    assert isinstance(estimate, Estimate), (quantity, estimate)
    return estimate


@pytest.mark.parametrize(("operator", "of"), [("hessian", hessian_bands), ("ggn", ggn_bands)])
def test_levels_of_a_large_matrix_over_a_run(operator: str, of) -> None:
    """One level grows as (1 + step)^.5; two meet and part; both in a basis that turns slowly."""
    rng = np.random.default_rng(0)
    bulk_P = np.concatenate([0.1 * _wishart(300, 600, 0), np.zeros(97)])
    turn_PP = rng.normal(size=(DIM, DIM)) / math.sqrt(DIM)
    start_PP = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    records = []
    steps = [0, 1, 3, 7, 15, 31, 63, 127]
    for i, step in enumerate(steps):
        u_PP = np.linalg.qr(start_PP @ (np.eye(DIM) + 0.04 * i * (turn_PP - turn_PP.T)))[0]
        t, g = (i - 3.5) / 2.0, 0.2
        middle, (a, b) = 8.0, np.linalg.eigh(np.array([[t, g], [g, -t]]))
        u_PP[:, -3:-1] = u_PP[:, -3:-1] @ b
        value_P = np.concatenate([bulk_P, middle + a, [40.0 * math.sqrt(1 + step)]])
        records.append(_lanczos(value_P, u_PP, operator=operator, step=step))
    found = of(records, rng=np.random.default_rng(0))
    assert _value(found, "top_band_growth").value == pytest.approx(0.5, abs=1e-6)
    assert _value(found, "num_bands").value == 3
    assert _value(found, "num_requests").value == 0, found.flags
    assert _value(found, "num_avoided_crossings").value == 1, found.flags
    assert found.flags["crossings"].startswith("step ")
    np.testing.assert_array_equal(found.curves["band_1"].x, steps)
    np.testing.assert_allclose(found.curves["band_1"].y, 40 * np.sqrt(1 + np.array(steps)))
    weight = _value(found, "band_weight")
    assert weight.stderr is not None
    assert weight.value == pytest.approx(3 / DIM, abs=4 * math.sqrt(2 * 3 / 4) / DIM)
