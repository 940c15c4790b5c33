"""Behaviour of the eigen-decomposition that invariants of Jacobians share."""

import numpy as np
import pytest
from scipy.linalg import eig

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.holomorphy import resolvents
from scaleinv_ray.invariants.holomorphy.resolvents import (
    complement,
    eigensystem,
    ginibre_spectra,
    residue_norms,
    spectra,
)


def random(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, size))


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_left_and_right_vectors_decompose_the_matrix(size: int) -> None:
    a_DD = random(size, size)
    system = eigensystem(a_DD)
    assert system.left_DD is not None
    np.testing.assert_allclose(system.right_DD * system.pole_D @ system.left_DD, a_DD, atol=1e-10)
    np.testing.assert_allclose(system.left_DD @ system.right_DD, np.eye(size), atol=1e-10)


def test_overlaps_are_those_of_both_sided_lapack() -> None:
    a_DD = random(1, 30)
    pole_D, left_DD, right_DD = eig(a_DD, left=True, right=True)
    product_D = np.einsum("ij,ij->j", left_DD.conj(), right_DD)
    found = spectra(a_DD[None])
    order, peer_order = np.argsort(found.pole_TD[0]), np.argsort(pole_D)
    np.testing.assert_allclose(found.pole_TD[0][order], pole_D[peer_order], atol=1e-12)
    np.testing.assert_allclose(
        found.overlap_TD[0][order], (1 / abs(product_D) ** 2)[peer_order], rtol=1e-9
    )


def test_defective_matrices_have_poles_but_no_residues() -> None:
    jordan = np.diag([0.5, 0.5, 0.2]) + np.diag([1.0, 0], k=1)
    found = spectra(jordan[None])
    np.testing.assert_allclose(np.sort(found.pole_TD[0].real), [0.2, 0.5, 0.5])
    assert np.isinf(found.overlap_TD).any()
    assert eigensystem(jordan).left_DD is None
    with pytest.raises(Refused, match="defective"):
        residue_norms(jordan[None])


def test_a_wrong_decomposition_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    inverse = np.linalg.inv
    monkeypatch.setattr(resolvents.np.linalg, "inv", lambda a: inverse(a) * (1 + 1e-5))
    assert eigensystem(random(2, 9)).left_DD is None


def test_a_matrix_is_decomposed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    decompose = resolvents._decompose
    monkeypatch.setattr(resolvents, "_decompose", lambda a: calls.append(len(a)) or decompose(a))
    monkeypatch.setattr(resolvents, "_RECENT", resolvents._Recent(2**20))
    a_TDD = np.stack([random(3, 8), random(4, 8)])
    first = spectra(a_TDD)
    second = residue_norms(a_TDD.copy())  # by content, not by identity
    assert calls == [8, 8]
    np.testing.assert_array_equal(first.pole_TD, second.pole_TD)
    np.testing.assert_array_equal(first.overlap_TD, second.overlap_TD)
    spectra(a_TDD + 1e-15)
    assert len(calls) == 4


def test_what_was_not_used_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    decompose = resolvents._decompose
    monkeypatch.setattr(resolvents, "_decompose", lambda a: calls.append(a[0, 0]) or decompose(a))
    recent = resolvents._Recent(2 * 8 * (16 + 8))  # two matrices of size 8
    a, b, c = (np.diag(np.arange(8.0) + k) for k in (1, 2, 3))
    for matrix in (a, b, a, c, a, b):
        recent.spectrum(matrix)
    assert calls == [1, 2, 3, 2]


def test_shapes_of_equal_content_are_kept_apart() -> None:
    real = np.zeros((2, 2))
    assert spectra(real[None]).pole_TD.shape == (1, 2)
    assert spectra(np.zeros((1, 1, 1), dtype=np.complex128)).pole_TD.shape == (1, 1)


def test_null_is_a_ginibre_matrix_of_norm_one() -> None:
    found = ginibre_spectra(np.zeros((20, 50, 50)), np.random.default_rng(0))
    assert found.pole_TD.shape == (8, 50)
    # the disk of radius 1 / sqrt(D)
    assert abs(found.pole_TD).max() == pytest.approx(1 / np.sqrt(50), rel=0.25)
    assert np.median(abs(found.pole_TD)) == pytest.approx(1 / np.sqrt(100), rel=0.1)
    assert len(ginibre_spectra(np.zeros((3, 5, 5)), np.random.default_rng(0)).pole_TD) == 3


def test_complement_of_many_sets_at_once() -> None:
    modes_TDM = np.random.default_rng(5).standard_normal((4, 6, 2))
    rest_TDE = complement(modes_TDM)
    assert rest_TDE.shape == (4, 6, 4)
    np.testing.assert_allclose(modes_TDM.swapaxes(1, 2) @ rest_TDE, 0, atol=1e-12)
    np.testing.assert_array_equal(rest_TDE[1], complement(modes_TDM[1]))


def test_residues_of_repeated_eigenvalues_are_refused() -> None:
    rng = np.random.default_rng(3)
    low_DD = np.eye(24) + rng.standard_normal((24, 4)) @ rng.standard_normal((4, 24)) / 24
    for a_DD in (low_DD, np.eye(24)):
        with pytest.raises(Refused, match="repeated eigenvalues: in 1 of 2 matrices"):
            residue_norms(np.array([a_DD, random(3, 24)]))
    assert residue_norms(np.ones((1, 1, 1))).overlap_TD.tolist() == [[1.0]]
