"""Gram eigenvalues, tiles, and moments of blocks: against the plain definitions."""

from itertools import permutations

import numpy as np
import pytest
from scipy.linalg import helmert

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.covariance import (
    Blocks,
    about_the_mean,
    balanced_spectra,
    disjoint_tiles,
    gram_eigenvalues,
    rounding_floor,
    squared_traces,
    without_ones,
)


def blocks_of(x_TD: np.ndarray, num_blocks: int) -> Blocks:
    count_B, mean_BD, second_BDD = raw_moments(x_TD, num_blocks)
    return about_the_mean(count_B, mean_BD, second_BDD, floor=rounding_floor(second_BDD))


def raw_moments(x_TD: np.ndarray, num_blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = np.array_split(x_TD, num_blocks)
    return (
        np.array([float(len(p)) for p in parts]),
        np.array([p.mean(axis=0) for p in parts]),
        np.array([p.T @ p / len(p) for p in parts]),
    )


@pytest.mark.parametrize("shape", [(20_000, 8), (8, 20_000), (30, 30)])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_eigenvalues_are_squared_singular_values(shape, precision, tolerance):
    w_OI = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    singular = np.linalg.svd(w_OI.astype(np.float64), compute_uv=False)
    found = gram_eigenvalues(w_OI, precision=precision)
    assert found.dtype == np.float64
    assert found == pytest.approx(np.sort(singular**2), rel=tolerance, abs=tolerance)


def test_precision_is_one_of_two():
    with pytest.raises(ValueError, match="precision: got 'bfloat16'"):
        gram_eigenvalues(np.eye(3), precision="bfloat16")


def test_tiles_are_disjoint_pieces_of_the_matrix():
    w_OI = np.arange(50 * 130.0).reshape(50, 130)
    for matrix in (w_OI, w_OI.T):
        tiles = disjoint_tiles(matrix, aspect=1.5, count=9, rng=np.random.default_rng(0))
        assert tiles.shape == (9, 17, 26)  # 2 x 5 fit; of 18 x 27 only 2 x 4
        assert len(np.unique(tiles)) == tiles.size
        assert np.isin(tiles, w_OI).all()
        # a tile keeps whole rows and columns together: differences along a row are those of columns
        steps = np.diff(tiles, axis=2)
        assert np.ptp(steps, axis=1).max() == 0


def test_tiles_cover_square_and_oblong_matrices_of_one_family():
    for shape, side in (((64, 64), 16), ((64, 256), 32), ((256, 64), 32), ((32, 32), 8)):
        tiles = disjoint_tiles(np.ones(shape), aspect=1.0, count=16, rng=np.random.default_rng(0))
        assert tiles.shape == (16, side, side)
    with pytest.raises(Refused, match=r"shape \(31, 32\), 16 disjoint .* side >= 8"):
        disjoint_tiles(np.ones((31, 32)), aspect=1.0, count=16, rng=np.random.default_rng(0))
    with pytest.raises(Refused, match="finite matrix"):
        disjoint_tiles(np.full((64, 64), np.inf), aspect=1.0, count=4, rng=np.random.default_rng(0))


def test_squared_traces_are_the_average_over_distinct_blocks():
    """Symmetrised kernels of degree 4, block by block, as a U-statistic is defined."""
    rng = np.random.default_rng(1)
    x_TD = rng.standard_gamma(0.5, (60, 4)) + rng.standard_normal((6, 1, 4)).repeat(10, 1).reshape(
        60, 4
    )
    count_B, mean_BD, second_BDD = raw_moments(x_TD, 6)
    found = squared_traces(Blocks(count_B, mean_BD, second_BDD, 0.0))
    assert set(map(len, found)) == {5, 6}
    for kept, traces in found.items():
        square_trace, trace_squared = [], []
        for a, b, c, d in permutations(kept, 4):
            means = (mean_BD[a] @ mean_BD[b]) * (mean_BD[c] @ mean_BD[d])
            square_trace.append(
                np.trace(second_BDD[a] @ second_BDD[b])
                - 2 * mean_BD[c] @ second_BDD[a] @ mean_BD[d]
                + means
            )
            trace_squared.append(
                np.trace(second_BDD[a]) * np.trace(second_BDD[b])
                - 2 * np.trace(second_BDD[a]) * (mean_BD[c] @ mean_BD[d])
                + means
            )
        assert traces.square_trace == pytest.approx(np.mean(square_trace), rel=1e-10)
        assert traces.trace_squared == pytest.approx(np.mean(trace_squared), rel=1e-10)


def test_squared_traces_do_not_depend_on_the_origin():
    x_TD = np.random.default_rng(2).standard_normal((80, 5))
    near, far = (squared_traces(Blocks(*raw_moments(x_TD + v, 8), 0.0)) for v in (0.0, 7.0))
    for kept, traces in near.items():
        assert far[kept] == pytest.approx(traces, rel=1e-8)
    assert next(iter(squared_traces(blocks_of(x_TD + 7.0, 8)).values())) == pytest.approx(
        next(iter(near.values())), rel=1e-10
    )


def test_squared_traces_need_five_blocks():
    with pytest.raises(ValueError, match="blocks: got 4, allowed >= 5"):
        squared_traces(blocks_of(np.random.default_rng(3).standard_normal((40, 3)), 4))


def test_moments_about_the_mean_are_those_of_shifted_rows():
    x_TD = np.random.default_rng(4).standard_normal((57, 6)) + np.arange(6)
    blocks = blocks_of(x_TD, 5)
    for found, part in zip(
        zip(blocks.mean_BD, blocks.second_BDD, strict=True),
        np.array_split(x_TD - x_TD.mean(axis=0), 5),
        strict=True,
    ):
        np.testing.assert_allclose(found[0], part.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found[1], part.T @ part / len(part), atol=1e-12)


def test_projected_moments_are_those_of_projected_rows():
    x_TD = np.random.default_rng(5).standard_normal((40, 7)) + 2.0
    _, mean_BD, second_BDD = raw_moments(x_TD, 2)
    mean_BE, second_BEE = without_ones(mean_BD, second_BDD)
    # the basis is another one: compare what does not depend on it
    _, want_BE, want_BEE = raw_moments(x_TD @ helmert(7).T, 2)
    np.testing.assert_allclose(mean_BE @ mean_BE.T, want_BE @ want_BE.T, atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(second_BEE), np.linalg.eigvalsh(want_BEE), atol=1e-12
    )


def test_balanced_spectrum_of_identical_halves_is_the_spectrum():
    x_TD = np.random.default_rng(6).standard_normal((50, 6))
    count_B, mean_BD, second_BDD = raw_moments(np.tile(x_TD, (4, 1)), 4)
    spectra = balanced_spectra(about_the_mean(count_B, mean_BD, second_BDD, floor=0.0))
    want = np.linalg.eigvalsh(np.cov(x_TD.T, ddof=0))[::-1]
    assert len(spectra) == 5
    for found in spectra.values():
        np.testing.assert_allclose(found, want, rtol=1e-9)
