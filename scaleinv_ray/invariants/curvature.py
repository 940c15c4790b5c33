"""Curvature: the density of states of Hessian and Gauss-Newton operator, from its quadrature.

Every value is a sum over nodes and weights, never a property of a smoothed curve (smoothing
inflates the second moment 2.8 times). Probe vectors are the replicates of all errors.
Shape suffixes: R probe vectors, K nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of, unknown
from scaleinv_ray.invariants.common.quadrature import checked_quadrature, outlier_counts
from scaleinv_ray.invariants.common.soundness import LARGEST, sound
from scaleinv_ray.records import Lanczos
from scaleinv_ray.resample import jackknife

SHARED = {
    "lambda_max": Quantity(
        law="power_law",
        nats="per_token",
        meaning="Largest eigenvalue of the curvature (sharpness), nats a token per squared weight",
    ),
    "scaled_sharpness": Quantity(
        law="power_law",
        nats="per_token",
        meaning=(
            "Largest eigenvalue of the curvature times the squared norm of the weights, nats a "
            "token"
        ),
    ),
    "mean_square": Quantity(
        law="power_law", nats="per_token", meaning="Mean squared eigenvalue of the curvature"
    ),
    "effective_rank": Quantity(
        law="power_law",
        meaning="Number of eigenvalues among which the trace of the curvature is spread",
    ),
    "spectral_entropy": Quantity(
        law="none",
        unit=1.0,
        meaning=(
            "Entropy of the moduli of the eigenvalues over ln of their number; all equal 1, one "
            "alone 0"
        ),
    ),
    "flat_fraction": Quantity(
        law="none",
        unit=1.0,
        meaning="Share of directions that are flat: eigenvalues far below the largest",
    ),
    "outlier_count": Quantity(
        law="integer",
        unit=1.0,
        meaning=(
            "Number of eigenvalues above the widest gap, where it is wider than in random matrices"
        ),
    ),
}


@invariant(
    quantities={
        **SHARED,
        "trace": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "Trace of the Hessian over its Frobenius norm and sqrt(parameters); 0 where signs "
                "balance"
            ),
        ),
        "lambda_ratio": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "Smallest over largest eigenvalue of the Hessian; 0 at a minimum, below 0 at a "
                "saddle"
            ),
        ),
        "negative_fraction": Quantity(
            law="none",
            unit=1.0,
            meaning="Share of directions of negative curvature below the flat ones",
        ),
    },
    scheme="hessian",
    version=2,
    curves={"density": "Share of the parameters; eigenvalue of the curvature"},
)
def hessian_density(
    lanczos: Lanczos, *, rng: np.random.Generator, flat: float = 1e-3, num_null: int = 20
) -> Measured:
    """Sharpness, moments, entropy, negative and flat share, and outliers of the Hessian.

    With <f> = mean over probe vectors of sum_k weight_k f(node_k), which estimates tr f(H) / P
    (Ubaru, Chen & Saad 2017):
    lambda_max: largest node of any probe (each is a lower bound), its error the scatter of the
    probes' own largest nodes, zero within rounding once Lanczos has converged;
    scaled_sharpness = lambda_max ||w||^2, which a rescaling of all weights leaves alone where the
    function does not change with it; mean_square = <lambda^2> = ||H||_F^2 / P;
    effective_rank = P <lambda>^2 / <lambda^2> = (tr H)^2 / ||H||_F^2;
    spectral_entropy = -sum p ln p / ln P with p = |lambda| / sum |lambda|;
    flat_fraction: share of eigenvalues with |lambda| < flat * lambda_max, lambda_max by modulus;
    trace: in units of the Frobenius norm times sqrt(P), <lambda> / sqrt(<lambda^2>);
    lambda_ratio: smallest node over largest; negative_fraction: share below the flat ones;
    outlier_count: see `common.quadrature.outlier_counts`, its null a random symmetric matrix.
    An isotropic scale (ReLU or query-key rescaling) changes all but the counts: no symmetry of
    the parameters is claimed.

    Args:
        lanczos: nodes and weights of the Hessian.
        rng: draws the null.
        flat: relative size below which an eigenvalue counts as flat, in (0, 1).
        num_null: null matrices a probe vector.

    Returns:
        The quantities (lambda_ratio refused where a probe has no node above zero, trace,
        effective_rank and spectral_entropy where one sees zeros only) and the curve `density` (all
        nodes, and weights that sum to one). Flags: num_steps, num_probes.

    Raises:
        Refused: for another operator, values that are not finite, weights that are no
            probabilities, and an operator that vanishes.
        ValueError: with flat outside (0, 1), or without a null.

    >>> record = Lanczos(nodes_RK=np.array([[-1.0, 0.0, 3.0]] * 2),
    ...                  weights_RK=np.array([[0.25, 0.5, 0.25]] * 2), dim=4, weight_norm=2.0)
    >>> found = hessian_density(record, rng=np.random.default_rng(0)).values
    >>> [found[q].value for q in ("lambda_max", "scaled_sharpness", "negative_fraction")]
    [3.0, 12.0, 0.25]
    """
    sound(lanczos)
    nodes_RK, weights_RK = checked_quadrature(lanczos, "hessian", flat=flat, num_null=num_null)
    share = _Shares(nodes_RK, weights_RK, flat)
    values = _shared(lanczos, share, rng=rng, num_null=num_null)
    lowest_R = np.where(weights_RK > 0, nodes_RK, np.inf).min(axis=1)
    values |= {
        "trace": _jackknife(share, lambda f: f(_same) / math.sqrt(f(np.square))),
        "lambda_ratio": _lambda_ratio(lowest_R, share),
        "negative_fraction": share.mean(nodes_RK <= -share.floor),
    }
    return _measured(values, lanczos)


@invariant(
    quantities=SHARED,
    scheme="ggn",
    version=2,
    curves={"density": "Share of the parameters; eigenvalue of the curvature"},
)
def ggn_density(
    lanczos: Lanczos, *, rng: np.random.Generator, flat: float = 1e-3, num_null: int = 20
) -> Measured:
    """Sharpness, moments, entropy, flat share and outliers of the Gauss-Newton operator.

    The quantities of `hessian_density` that make sense where no eigenvalue is negative;
    effective_rank = (tr G)^2 / ||G||_F^2 is well determined here. C classes of inputs that lie in
    clusters make C - 1 outliers (Sagun et al. 2018; Papyan 2019).

    Args:
        lanczos: nodes and weights of the GGN.
        rng: draws the null.
        flat: relative size below which an eigenvalue counts as flat, in (0, 1).
        num_null: null matrices a probe vector.

    Returns:
        As `hessian_density`.

    Raises:
        Refused: as `hessian_density`.
        ValueError: as `hessian_density`.

    >>> record = Lanczos(nodes_RK=np.array([[0.0, 1.0]] * 2), weights_RK=np.full((2, 2), 0.5),
    ...                  dim=10, operator="ggn")
    >>> ggn_density(record, rng=np.random.default_rng(0)).values["effective_rank"].value
    5.0
    """
    sound(lanczos)
    nodes_RK, weights_RK = checked_quadrature(lanczos, "ggn", flat=flat, num_null=num_null)
    share = _Shares(nodes_RK, weights_RK, flat)
    return _measured(_shared(lanczos, share, rng=rng, num_null=num_null), lanczos)


class _Shares:
    """Means over the density of states, and what they are relative to."""

    def __init__(self, nodes_RK: np.ndarray, weights_RK: np.ndarray, flat: float) -> None:
        self.nodes_RK, self.weights_RK = nodes_RK, weights_RK
        self.largest_R = np.where(weights_RK > 0, nodes_RK, -np.inf).max(axis=1)
        self.largest = float(self.largest_R.max())
        self.flat = flat
        self.floor = flat * float(np.abs(nodes_RK[weights_RK > 0]).max())

    def of(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """<function> for every probe."""
        return (self.weights_RK * function(self.nodes_RK)).sum(axis=1)

    def mean(self, chosen_RK: np.ndarray) -> Estimate:
        """Share of the eigenvalues chosen."""
        return mean_of((self.weights_RK * chosen_RK).sum(axis=1), "probes")


def _shared(
    lanczos: Lanczos, share: _Shares, *, rng: np.random.Generator, num_null: int
) -> dict[str, Estimate | Refused]:
    sharpness: Estimate | Refused = _extreme(share.largest_R, share.largest)
    if share.largest <= 0:
        sharpness = Refused(f"lambda_max: got {share.largest:.3g}, sharpness needs one above zero")
    return {
        "lambda_max": sharpness,
        "scaled_sharpness": _times(sharpness, lanczos.weight_norm),
        "mean_square": mean_of(share.of(np.square), "probes"),
        "effective_rank": _jackknife(share, lambda f: lanczos.dim * f(_same) ** 2 / f(np.square)),
        "spectral_entropy": _entropy(share, lanczos.dim),
        "flat_fraction": share.mean(np.abs(share.nodes_RK) < share.floor),
        "outlier_count": _outliers(lanczos, share, rng=rng, num_null=num_null),
    }


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _extreme(value_R: np.ndarray, extreme: float) -> Estimate:
    """The extreme over probes; one of them says nothing of how well Lanczos has converged."""
    if len(value_R) < 2:
        return unknown(extreme, n=1)
    return Estimate(extreme, float(value_R.std(ddof=1)), len(value_R), "probes")


def _lambda_ratio(lowest_R: np.ndarray, share: _Shares) -> Estimate | Refused:
    if share.largest_R.min() <= 0:
        return Refused("lambda_ratio: a probe has no node above zero")
    return _extreme(lowest_R / share.largest_R, float(lowest_R.min() / share.largest))


def _times(sharpness: Estimate | Refused, norm: float | None) -> Estimate | Refused:
    if isinstance(sharpness, Refused):
        return sharpness
    if norm is None or not 0 <= norm <= LARGEST:
        return Refused(f"weight_norm: got {norm}, scaled sharpness needs it")
    stderr = None if sharpness.stderr is None else sharpness.stderr * norm**2
    return Estimate(sharpness.value * norm**2, stderr, sharpness.n, sharpness.error_kind)


def _jackknife(
    share: _Shares, statistic: Callable[[Callable[..., float]], float]
) -> Estimate | Refused:
    """A function of means <f>, with the error over probes."""
    count = len(share.nodes_RK)
    if not share.of(np.square).all():
        return Refused("nodes_RK: a probe sees zeros only")

    def value(kept: np.ndarray) -> float:
        return statistic(lambda function: float(share.of(function)[kept].mean()))

    if count < 2:
        return unknown(value(np.arange(count)), n=count)
    return jackknife(value, count, error_kind="probes")


def _entropy(share: _Shares, dim: int) -> Estimate | Refused:
    if dim < 2:
        return Refused(f"dim: got {dim}, entropy needs two or more eigenvalues")

    def log_term(x: np.ndarray) -> np.ndarray:
        size = np.abs(x)
        return size * np.log(np.where(size > 0, size, 1.0))

    def statistic(mean: Callable[..., float]) -> float:
        total = mean(np.abs)
        return (math.log(dim * total) - mean(log_term) / total) / math.log(dim)

    return _jackknife(share, statistic)


def _outliers(
    lanczos: Lanczos, share: _Shares, *, rng: np.random.Generator, num_null: int
) -> Estimate | Refused:
    counts = outlier_counts(
        share.nodes_RK, share.weights_RK, dim=lanczos.dim, flat=share.flat, num_null=num_null,
        rng=rng,
    )  # fmt: skip
    return counts if isinstance(counts, Refused) else mean_of(counts, "probes")


def _measured(values: dict[str, Estimate | Refused], lanczos: Lanczos) -> Measured:
    nodes_N = np.asarray(lanczos.nodes_RK, dtype=np.float64).ravel()
    weights_N = np.asarray(lanczos.weights_RK, dtype=np.float64).ravel()
    order = np.argsort(nodes_N, kind="stable")
    probes, steps = lanczos.nodes_RK.shape
    density = Curve(nodes_N[order], weights_N[order] / probes)
    return Measured(
        values, curves={"density": density}, flags={"num_steps": steps, "num_probes": probes}
    )
