"""Poles and residues of the resolvent (z - A)^-1 of a square matrix A.

Shape suffixes: T matrices, D width, M structural modes, E width without these.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack
from scipy.spatial import KDTree

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Jacobians

MAX_OVERLAP = 1e12
"""Two eigenvalues of a Jordan block come out sqrt(eps) apart, their overlap as 1/eps."""
DEFECTIVE = f"defective: eigenvectors are linearly dependent, an overlap is > {MAX_OVERLAP:g}"
MAX_RESIDUAL = 1e-6
"""|A v - X Lambda X^-1 v| / |A| |v|: eps times the condition, 1e-10 at the largest overlap."""
MIN_SPACING = 1e-10
"""|lambda_i - lambda_j| / |A|_F: below it eigenvectors are any basis of a common eigenspace."""
CACHE_BYTES = 2**26
MAX_NULLS = 8
MAX_STRUCTURAL_RESIDUAL = 0.05
"""|A v - v| / |v| of a structural mode, over |A - I|_F / sqrt(D) where that is more than 1.

Exact for all-ones, 3e-4 for h, 1e-2 in bfloat16. In a first block that reads small embeddings the
norm's epsilon leaves .05, but of a map that moves a random vector by 7 times its length.
"""


class Eigensystem(NamedTuple):
    """Eigenvalues, right eigenvectors (columns) and left ones (rows) with left @ right = 1.

    `left_DD` is None where the matrix is defective: right ones linearly dependent to working
    precision, or an overlap (`residue_norms`) above 1e12.
    """

    pole_D: np.ndarray
    right_DD: np.ndarray
    left_DD: np.ndarray | None


class Spectra(NamedTuple):
    """Eigenvalues of matrices, and the squared norms of their residues (inf where defective)."""

    pole_TD: np.ndarray
    overlap_TD: np.ndarray


class Deflated(NamedTuple):
    """Jacobians without structural modes, bases of what is left, and how exact the modes are."""

    j_TEE: np.ndarray
    rest_TDE: np.ndarray
    flags: dict[str, float | int | str]


class _Recent:
    """Spectra by the content of the matrix; the least recently used go beyond a size in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._held: OrderedDict[bytes, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._max_bytes, self._bytes = max_bytes, 0

    def spectrum(self, a_DD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and overlaps, computed where they are not held."""
        text = f"{a_DD.shape}{a_DD.dtype.str}".encode()
        digest = hashlib.sha1(text, usedforsecurity=False)
        digest.update(np.ascontiguousarray(a_DD).data)
        key = digest.digest()
        found = self._held.pop(key, None)
        if found is None:
            packed = _decompose(a_DD)
            found = packed.pole_D, _overlaps(packed)
            self._bytes += sum(part.nbytes for part in found)
        self._held[key] = found
        while self._bytes > self._max_bytes and len(self._held) > 1:
            self._bytes -= sum(part.nbytes for part in self._held.popitem(last=False)[1])
        return found


_RECENT = _Recent(CACHE_BYTES)


def complement(modes_DM: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the orthogonal complement of linearly independent columns.

    Args:
        modes_DM: the columns; leading axes are many such sets.

    Returns:
        D - M orthonormal columns.

    >>> complement(np.array([[1.0], [0.0]])).tolist()
    [[0.0], [1.0]]
    """
    basis_DD, _ = np.linalg.qr(modes_DM, mode="complete")
    return basis_DD[..., modes_DM.shape[-1] :]


def deflated_jacobians(jacobians: Jacobians) -> Deflated:
    """Jacobians without the eigenvalues that lie at 1 for any weights.

    A 1 = 1 where a LayerNorm follows (`removes_mean`), A h = h up to the norm's epsilon in a
    parallel block. As these vectors span an invariant subspace, A is block triangular in a basis
    that begins with them: the compression to their complement has exactly the other eigenvalues.

    Args:
        jacobians: j_TDD; h_TD where the residual is parallel.

    Returns:
        The compressions, float64; flags: how many modes, and |A v - v| / |v| of the worst.

    Raises:
        Refused: as `sound`; where a structural mode is none, or nothing is left.
    """
    sound(jacobians)
    j_TDD = jacobians.j_TDD.astype(np.float64, copy=False)
    num_positions, size, _ = j_TDD.shape
    modes = []
    if jacobians.removes_mean:
        modes.append(np.ones((num_positions, size)))
    if jacobians.parallel_residual and jacobians.h_TD is not None:
        modes.append(jacobians.h_TD.astype(np.float64))
        vanishing = int((~modes[-1].any(axis=1)).sum())
        if vanishing:
            raise Refused(
                f"h_TD: is zero at {vanishing} of {num_positions} positions, a structural mode has "
                "a direction"
            )
    if not modes:
        whole_TDD = np.broadcast_to(np.eye(size), j_TDD.shape)
        return Deflated(j_TDD, whole_TDD, {"structural_modes": 0})
    modes_TDM = np.stack(modes, axis=2)
    if size <= len(modes):
        raise Refused(f"j_TDD: got width {size}, nothing is left of it without structural modes")
    image_TDM = j_TDD @ modes_TDM
    residual_TM = np.linalg.norm(image_TDM - modes_TDM, axis=1) / np.linalg.norm(modes_TDM, axis=1)
    moved_T = frobenius(j_TDD - np.eye(size)) / np.sqrt(size)
    relative = float((residual_TM / np.maximum(moved_T, 1.0)[:, None]).max())
    if not relative < MAX_STRUCTURAL_RESIDUAL:
        raise Refused(
            f"structural mode: got |A v - v| / |v| = {residual_TM.max():.2g}, {relative:.2g} "
            f"of 1 or what a random v moves, allowed < {MAX_STRUCTURAL_RESIDUAL} "
            "(all-ones where removes_mean, h where parallel)"
        )
    rest_TDE = complement(modes_TDM)
    return Deflated(
        rest_TDE.swapaxes(1, 2) @ j_TDD @ rest_TDE,
        rest_TDE,
        {"structural_modes": len(modes), "structural_residual": float(residual_TM.max())},
    )


def eigensystem(a_DD: np.ndarray) -> Eigensystem:
    """Eigenvalues with right and left eigenvectors, the left ones by inverting the right ones.

    LAPACK geev gives the right ones X; A = X Lambda X^-1 makes the rows of X^-1 the left ones with
    the normalisation that residues want, x_i y_i^T = P_i. For a real matrix the real and imaginary
    parts of a conjugate pair stand for its two columns, so that the inverse is a real one. The
    decomposition is checked by applying it to a vector.

    Args:
        a_DD: square matrix, real or complex, finite.

    Returns:
        The eigensystem; without left vectors where the matrix is defective.

    Raises:
        Refused: where LAPACK's QR iteration does not converge.

    >>> eigensystem(np.array([[0.0, -1.0], [1.0, 0.0]])).pole_D.tolist()
    [1j, -1j]
    """
    packed = _decompose(a_DD)
    pairs = packed.pairs
    right_DD = packed.right_DD.astype(np.complex128)
    right_DD[:, pairs] += 1j * packed.right_DD[:, pairs + 1]
    right_DD[:, pairs + 1] = right_DD[:, pairs].conj()
    if packed.inverse_DD is None or not np.isfinite(_overlaps(packed)).all():
        return Eigensystem(packed.pole_D, right_DD, None)
    left_DD = packed.inverse_DD.astype(np.complex128)
    left_DD[pairs] = (left_DD[pairs] - 1j * packed.inverse_DD[pairs + 1]) / 2
    left_DD[pairs + 1] = left_DD[pairs].conj()
    return Eigensystem(packed.pole_D, right_DD, left_DD)


class _Packed(NamedTuple):
    """As LAPACK packs them: columns p, p + 1 are the real and imaginary part of a pair's vector.

    Attributes:
        pole_D: eigenvalues.
        pairs: indices p of conjugate pairs, empty for a complex matrix.
        right_DD: eigenvectors, those of a pair as two real columns, |x| = 1.
        inverse_DD: its inverse, None where that fails or is wrong.
    """

    pole_D: np.ndarray
    pairs: np.ndarray
    right_DD: np.ndarray
    inverse_DD: np.ndarray | None


def _decompose(a_DD: np.ndarray) -> _Packed:
    if np.iscomplexobj(a_DD):
        pole_D, right_DD = np.linalg.eig(a_DD)
        pairs = np.zeros(0, dtype=int)
    else:
        work = int(lapack.dgeev_lwork(len(a_DD), compute_vl=0)[0])  # the default is unblocked
        real_D, imag_D, _, right_DD, info = lapack.dgeev(a_DD, compute_vl=0, lwork=work)
        if info:
            raise Refused(f"eigenvalues: QR iteration did not converge (geev info {info})")
        pole_D, pairs = real_D + 1j * imag_D, np.flatnonzero(imag_D > 0)
    try:
        inverse_DD = np.linalg.inv(right_DD)
    except np.linalg.LinAlgError:
        return _Packed(pole_D, pairs, right_DD, None)
    probe_D = np.cos(np.arange(len(a_DD)))
    along_D = inverse_DD @ probe_D
    # a pair's block of the packed matrix is [[re, im], [-im, re]]
    turned_D = pole_D * along_D if np.iscomplexobj(a_DD) else pole_D.real * along_D
    turned_D[pairs] += pole_D[pairs].imag * along_D[pairs + 1]
    turned_D[pairs + 1] -= pole_D[pairs].imag * along_D[pairs]
    miss = np.linalg.norm(a_DD @ probe_D - right_DD @ turned_D)
    holds = miss <= MAX_RESIDUAL * np.linalg.norm(a_DD) * np.linalg.norm(probe_D)
    return _Packed(pole_D, pairs, right_DD, inverse_DD if holds else None)


def frobenius(a_TDD: np.ndarray) -> np.ndarray:
    """Frobenius norms of matrices, without a copy of them."""
    flat = a_TDD.reshape(len(a_TDD), -1)
    return np.sqrt(np.einsum("ti,ti->t", flat, flat))


def _overlaps(packed: _Packed) -> np.ndarray:
    """|y_i|^2 with |x_i| = 1 and y_i . x_i = 1; inf where there is no inverse, or above 1e12."""
    if packed.inverse_DD is None:
        return np.full(len(packed.pole_D), np.inf)
    row_D = np.einsum("ij,ij->i", packed.inverse_DD, packed.inverse_DD.conj()).real
    pairs = packed.pairs
    row_D[pairs] = row_D[pairs + 1] = (row_D[pairs] + row_D[pairs + 1]) / 4
    return np.where(row_D < MAX_OVERLAP, row_D, np.inf)


def spectra(a_TDD: np.ndarray) -> Spectra:
    """Eigenvalues and overlaps of matrices, remembered by their content for the next caller.

    Invariants of one record follow each other in a process, and need the same decomposition; so
    do null models, whose draws do not depend on the record.

    Args:
        a_TDD: square matrices, real or complex, finite.

    Returns:
        Eigenvalues [T, D] and overlaps [T, D], inf in a defective matrix.

    Raises:
        Refused: where the QR iteration does not converge.
    """
    found = [_RECENT.spectrum(a_DD) for a_DD in a_TDD]
    return Spectra(np.array([pole for pole, _ in found]), np.array([o for _, o in found]))


def residue_norms(a_TDD: np.ndarray) -> Spectra:
    """Poles of the resolvents of matrices and the squared norms of their residues.

    The residue of (z - A)^-1 at lambda_i is the projector P_i = x_i y_i^H / (y_i^H x_i), and
    O_i = |P_i|_F^2 = |x_i|^2 |y_i|^2 / |y_i^H x_i|^2 (Chalker & Mehlig, PRL 81:3367, 1998), the
    squared condition number of the eigenvalue.

    Args:
        a_TDD: square matrices, real or complex, finite.

    Returns:
        Eigenvalues [T, D] and O [T, D].

    Raises:
        Refused: with a defective matrix (a pole of order 2 has no residue of rank 1), or with
            repeated eigenvalues (closer than 1e-10 |A|_F): the pole has one residue of higher rank,
            whose split among eigenvectors depends on the basis.

    >>> residue_norms(np.array([[[1.0, 1.0], [0.0, 2.0]]])).overlap_TD.round(9).tolist()
    [[2.0, 2.0]]
    """
    found = spectra(a_TDD)
    if not np.isfinite(found.overlap_TD).all():
        raise Refused(DEFECTIVE)
    repeated = sum(
        _spacing(pole_D) < MIN_SPACING * np.linalg.norm(a_DD)
        for a_DD, pole_D in zip(a_TDD, found.pole_TD, strict=True)
    )
    if repeated:
        raise Refused(f"repeated eigenvalues: in {repeated} of {len(a_TDD)} matrices")
    return found


def _spacing(pole_D: np.ndarray) -> float:
    """Least distance between two eigenvalues, inf where there is one."""
    point_D2 = np.stack([pole_D.real, pole_D.imag], axis=1)
    return float(KDTree(point_D2).query(point_D2, k=2)[0][:, 1].min())


def ginibre_spectra(a_TDD: np.ndarray, rng: np.random.Generator) -> Spectra:
    """Spectra of real Ginibre matrices of Frobenius norm 1, as wide as the given matrices.

    I + c G has the poles 1 + c lambda_i(G) and the overlaps of G. As many are drawn as there are
    matrices, eight at most: their counts hardly fluctuate, .01 at a width of 128.

    Args:
        a_TDD: matrices.
        rng: of the entries.

    Returns:
        Eigenvalues and overlaps of the drawn matrices.
    """
    ginibre_TDD = rng.standard_normal((min(len(a_TDD), MAX_NULLS), *a_TDD.shape[1:]))
    found = spectra(ginibre_TDD)
    return found._replace(pole_TD=found.pole_TD / frobenius(ginibre_TDD)[:, None])
