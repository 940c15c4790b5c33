"""Lanczos recursion on products with an operator: tridiagonal matrix, quadrature, Ritz vectors.

Shape suffixes: P parameters of a block, R probe vectors, K Lanczos steps, M buckets of a sketch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from scaleinv_ray.protocols import SHORT, STORED_BASIS
from scaleinv_ray.records import Lanczos

Products = Callable[[torch.Tensor], torch.Tensor]
"""v_RP -> products of the operator with each of the R vectors."""

WEIGHTLESS = 1e-24
"""Squared components below it are rounding: what is decoupled after a Krylov space closed."""
CLOSED = 8.0
"""Off-diagonals, in eps of the largest norm, up to which a Krylov space is closed.

Rounding leaves .6 of them however many parameters there are (the sum over them is not what counts).
More would take the bulk of a float32 spectrum with an outlier for closed: it lies 1e5 below."""
MUCH = 0.7
"""Share of the norm left below which rounding spoils the orthogonality."""
MOST_BUCKETS = 4096
SKETCH_SEED = 20_230_817
"""Of the hash of every count sketch: sketches of one size compare over steps, seeds and runs."""


class Tridiagonal(NamedTuple):
    """Tridiagonal matrices, a row for every start vector, float64.

    Attributes:
        alpha_RK: diagonals.
        beta_RK: off-diagonals; the last column leads out of the K steps.
        basis_RKM: what was kept of the Lanczos vectors, None where nothing was.
    """

    alpha_RK: np.ndarray
    beta_RK: np.ndarray
    basis_RKM: np.ndarray | None = None


def tridiagonal(
    products: Products,
    start_RP: torch.Tensor,
    num_steps: int,
    *,
    keep_basis: bool,
    seen: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Tridiagonal:
    """Lanczos recursion from R start vectors side by side.

    With the basis kept, every new vector is orthogonalised against all earlier ones (twice where
    it matters), so that no ghost (second copy of a converged eigenvalue) appears; without it ghosts
    share the weight of the eigenvalue and leave the quadrature as it is (Greenbaum 1989), for
    memory 3 R P.

    Args:
        products: of a symmetric operator.
        start_RP: start vectors, of any length but zero.
        num_steps: K, at most P.
        keep_basis: full reorthogonalisation, for memory K R P.
        seen: what is kept of every Lanczos vector, q_RP -> [R, M], as a sketch of it.

    Returns:
        The matrices; zeros once the Krylov space of a row is closed.

    Raises:
        ValueError: for products that are not finite.
    """
    q_RP = start_RP / start_RP.norm(dim=1, keepdim=True)
    before_RP = torch.zeros_like(q_RP)
    beta_R = q_RP.new_zeros(len(q_RP))
    size_R = q_RP.new_zeros(len(q_RP))
    basis_RKP = q_RP.new_empty(len(q_RP), num_steps if keep_basis else 0, q_RP.shape[1])
    alphas, betas, kept = [], [], []
    rounding = torch.finfo(q_RP.dtype).eps * min(CLOSED, math.sqrt(q_RP.shape[1]))
    for step in range(num_steps):
        if seen is not None:
            kept.append(seen(q_RP))
        # in place: on small models passes over memory cost a tenth of the products
        w_RP = torch.addcmul(products(q_RP), beta_R[:, None], before_RP, value=-1)
        alpha_R = (w_RP * q_RP).sum(dim=1)
        w_RP.addcmul_(alpha_R[:, None], q_RP, value=-1)
        if keep_basis:
            basis_RKP[:, step] = q_RP
            _orthogonalise(w_RP, basis_RKP[:, : step + 1])
        beta_R = w_RP.norm(dim=1)
        size_R = torch.maximum(size_R, alpha_R.abs() + beta_R)
        beta_R = torch.where(beta_R > rounding * size_R, beta_R, 0.0)
        before_RP, q_RP = q_RP, w_RP.div_(torch.where(beta_R > 0, beta_R, torch.inf)[:, None])
        alphas.append(alpha_R)
        betas.append(beta_R)
    alpha_RK = _numbers(alphas)
    if not np.isfinite(alpha_RK).all():
        raise ValueError("products: got values that are not finite, needs derivatives that are")
    return Tridiagonal(alpha_RK, _numbers(betas), _numbers(kept) if seen else None)


def quadrature(matrices: Tridiagonal) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of tridiagonal matrices: eigenvalues, squared first components.

    Golub & Welsch 1969.

    Args:
        matrices: from `tridiagonal`; the last column of beta_RK is not used.

    Returns:
        nodes_RK ascending and weights_RK, which sum to one in every row.

    >>> nodes, weights = quadrature(Tridiagonal(np.zeros((1, 2)), np.ones((1, 2))))
    >>> nodes[0].round(12).tolist(), weights[0].round(12).tolist()
    ([-1.0, 1.0], [0.5, 0.5])
    """
    nodes_RK, vectors_RKK = _eigen(matrices)
    weights_RK = vectors_RKK[:, 0, :] ** 2
    weights_RK[weights_RK < WEIGHTLESS] = 0.0
    return nodes_RK, weights_RK / weights_RK.sum(axis=1, keepdims=True)


@dataclass
class CountSketch:
    """A linear map of P parameters to M buckets that keeps inner products on average.

    s(v)_m = sum of sign_p v_p over the p with hash(p) = m, hash uniform on the buckets and signs
    +-1, so that E <s(u), s(v)> = <u, v> with a variance of at most 2 / M for unit vectors
    (Charikar, Chen & Farach-Colton 2002; Weinberger et al. 2009). Hash and signs depend on P and M
    only.

    Attributes:
        bucket_P: hash(p).
        sign_P: +-1.
        num_buckets: M.
    """

    bucket_P: torch.Tensor
    sign_P: torch.Tensor
    num_buckets: int

    @classmethod
    def of(cls, dim: int, num_buckets: int, *, like: torch.Tensor) -> CountSketch:
        """The sketch of vectors of a size.

        Returns:
            The same map whenever it is asked for.

        Raises:
            ValueError: with fewer than one or more than 4096 buckets.
        """
        if not 1 <= num_buckets <= MOST_BUCKETS:
            raise ValueError(f"sketch: got {num_buckets} buckets, allowed 1..{MOST_BUCKETS}")
        generator = torch.Generator().manual_seed(SKETCH_SEED)
        bucket_P = torch.randint(num_buckets, (dim,), generator=generator)
        sign_P = 2 * torch.randint(2, (dim,), generator=generator) - 1
        return cls(bucket_P.to(like.device), sign_P.to(like), num_buckets)

    def __call__(self, v_RP: torch.Tensor) -> torch.Tensor:
        """s(v) of every row, [R, M]."""
        sketch_RM = v_RP.new_zeros(len(v_RP), self.num_buckets)
        return sketch_RM.index_add_(1, self.bucket_P, v_RP * self.sign_P)


def ritz_vectors(matrices: Tridiagonal) -> np.ndarray:
    """Ritz vectors from the Lanczos vectors, or sketches of them from those of the Lanczos vectors.

    y_k = sum_j s_jk q_j, s_k the k-th eigenvector of the tridiagonal matrix; of unit length as long
    as the q_j are orthonormal, which takes full reorthogonalisation.

    Args:
        matrices: with the Lanczos vectors, or a linear function of them.

    Returns:
        y_RKM, one for every node of `quadrature`, in its order.

    Raises:
        ValueError: where nothing was kept of the Lanczos vectors.
    """
    if matrices.basis_RKM is None:
        raise ValueError("basis_RKM: got None, Ritz vectors need the Lanczos vectors")
    vectors_RKK = _eigen(matrices)[1]
    return np.matmul(vectors_RKK.transpose(0, 2, 1), matrices.basis_RKM)


def lanczos_record(
    products: Products,
    varied: Mapping[str, torch.Tensor],
    *,
    generator: torch.Generator,
    num_steps: int,
    num_probes: int,
    keep_basis: bool = True,
    sketch: int = 0,
    labels: Mapping[str, Any] | None = None,
) -> Lanczos:
    """Quadrature of the density of states of one operator from its products.

    Args:
        products: with the operator, wherever they are computed.
        varied: the parameters that it acts on, in order.
        generator: on the CPU; draws the probe vectors, uniform on the sphere.
        num_steps: K, cut to the number of parameters.
        keep_basis: see `tridiagonal`.
        sketch: buckets of the count sketches of the Ritz vectors, 0 for none.
        labels: operator, block and other fields of the record.

    Raises:
        ValueError: above 20 million parameters for a kept basis of more than 30 steps, and for
            sketches without a basis.
    """
    dim = sum(p.numel() for p in varied.values())
    like = next(iter(varied.values())).detach()
    if keep_basis and dim > STORED_BASIS and num_steps > SHORT:
        raise ValueError(
            f"num_steps: got {num_steps} on {dim} parameters, allowed 1..{SHORT} above "
            f"{STORED_BASIS}, or keep_basis=False"
        )
    if sketch and not keep_basis:
        raise ValueError(f"sketch: got {sketch} without a basis, allowed 0, or keep_basis=True")
    of = CountSketch.of(dim, sketch, like=like) if sketch else None
    start_RP = torch.randn(num_probes, dim, generator=generator, dtype=torch.float64).to(like)
    tri = tridiagonal(products, start_RP, min(num_steps, dim), keep_basis=keep_basis, seen=of)
    nodes_RK, weights_RK = quadrature(tri)
    return Lanczos(**{
        "nodes_RK": nodes_RK,
        "weights_RK": weights_RK,
        "sketch_RKM": None if of is None else ritz_vectors(tri).astype(np.float32),
        "dim": dim,
        "weight_norm": math.hypot(*(float(p.detach().double().norm()) for p in varied.values())),
        "dtype": str(like.dtype).removeprefix("torch."),
        **(labels or {}),
    })  # fmt: skip


def _eigen(matrices: Tridiagonal) -> tuple[np.ndarray, np.ndarray]:
    num_steps = matrices.alpha_RK.shape[1]
    index = np.arange(num_steps - 1)
    t_RKK = matrices.alpha_RK[:, :, None] * np.eye(num_steps)
    t_RKK[:, index, index + 1] = t_RKK[:, index + 1, index] = matrices.beta_RK[:, :-1]
    nodes_RK, vectors_RKK = np.linalg.eigh(t_RKK)
    return nodes_RK, vectors_RKK


def _orthogonalise(w_RP: torch.Tensor, basis_RKP: torch.Tensor) -> None:
    """Takes the components along the basis out of w, in place.

    A second time where the first took much of it (Daniel, Gragg, Kaufman & Stewart 1976).
    """
    for w_P, basis_KP in zip(w_RP, basis_RKP, strict=True):
        before = w_P.norm()
        w_P.addmv_(basis_KP.T, basis_KP @ w_P, alpha=-1)
        if w_P.norm() < MUCH * before:
            w_P.addmv_(basis_KP.T, basis_KP @ w_P, alpha=-1)


def _numbers(rows: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.stack(list(rows), dim=1).double().cpu().numpy()
