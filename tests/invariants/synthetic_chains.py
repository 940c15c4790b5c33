"""Chains whose posterior is known, without a sampler.

Shape suffixes: N settings, C chains, S draws, D parameters, G points of a grid.
"""

from collections.abc import Sequence

import numpy as np
from scipy.signal import lfilter

from scaleinv_ray.records import Chains


def autoregressive(
    shape: tuple[int, ...], correlation: float, rng: np.random.Generator
) -> np.ndarray:
    """Stationary AR(1) of unit variance along the last axis."""
    noise = rng.normal(size=shape) * np.sqrt(1 - correlation**2)
    noise[..., 0] = rng.normal(size=shape[:-1])
    return lfilter([1.0], [1.0, -correlation], noise, axis=-1)


def gaussian_chains(
    rng: np.random.Generator,
    *,
    curvature_D: np.ndarray,
    nbetas: Sequence[float] = (1000.0,),
    gammas: Sequence[float] | None = None,
    num_chains: int = 8,
    num_draws: int = 1500,
    burn_in: int = 0,
    correlation: float = 0.0,
    observed_QD: np.ndarray | None = None,
    **changes: object,
) -> Chains:
    """Exact draws from exp(-nbeta w^T H w / 2 - gamma |w|^2 / 2), AR(1) along every direction.

    All settings are pairs (nbeta, gamma) of one position of the two ladders. Other probes have
    losses w^T H_q w / 2.
    """
    gamma_N = np.zeros(len(nbetas)) if gammas is None else np.asarray(gammas, dtype=float)
    shape = (num_chains, len(curvature_D), num_draws)
    losses, virials, drifts, seen = [], [], [], []
    for nbeta, gamma in zip(nbetas, gamma_N, strict=True):
        stiff_D1 = (nbeta * curvature_D + gamma)[:, None]
        w_CDS = autoregressive(shape, correlation, rng) / np.sqrt(stiff_D1)
        losses.append((curvature_D[:, None] * w_CDS**2 / 2).sum(axis=1))
        virials.append((stiff_D1 * w_CDS**2).mean(axis=1))
        drifts.append(((stiff_D1 * w_CDS) ** 2).mean(axis=1))
        if observed_QD is not None:
            seen.append(np.einsum("qd,cds->qcs", observed_QD / 2, w_CDS**2))
    base_NCS = 2.0 + rng.normal(size=(len(nbetas), num_chains, num_draws)) / 100
    largest = float(curvature_D.max())
    fields: dict[str, object] = {
        "nbeta_N": np.asarray(nbetas, dtype=float),
        "gamma_N": gamma_N,
        "step_N": 0.08 / (np.asarray(nbetas) * largest + gamma_N),
        "loss_NCS": base_NCS + np.array(losses),
        "base_loss_NCS": base_NCS,
        "virial_NCS": np.array(virials),
        "drift_NCS": np.array(drifts),
        "acceptance_NC": np.full((len(nbetas), num_chains), 0.9),
        "heating_N": np.zeros(len(nbetas)),
        "dim": len(curvature_D),
        "num_samples": 10_000,
        "batch": 64,
        "burn_in": burn_in,
        "sampler": "mala",
        "largest_curvature": largest,
        "lowest_curvature": float(curvature_D.min()),
    }
    if observed_QD is not None:
        fields["observed_QNCS"] = np.stack(seen, axis=1)
        fields["observed"] = ",".join(f"probe{q}" for q in range(len(observed_QD)))
    return Chains(**(fields | changes))


def langevin_chains(
    rng: np.random.Generator,
    *,
    curvature_D: np.ndarray,
    nbeta: float,
    gamma: float,
    reach: float = 0.08,
    num_chains: int = 8,
    num_draws: int = 500,
    burn_in: int = 250,
) -> Chains:
    """Unadjusted Langevin from w0 = 0 with the exact gradient of w^T H w / 2."""
    stiff_D = nbeta * curvature_D + gamma
    step = reach / float(stiff_D.max())
    w_CD = np.zeros((num_chains, len(curvature_D)))
    losses, virials, drifts = [], [], []
    for _ in range(num_draws):
        kick_CD = np.sqrt(step) * rng.normal(size=w_CD.shape)
        w_CD = w_CD - step / 2 * stiff_D * w_CD + kick_CD
        losses.append((curvature_D * w_CD**2 / 2).sum(axis=1))
        virials.append((stiff_D * w_CD**2).mean(axis=1))
        drifts.append(((stiff_D * w_CD) ** 2).mean(axis=1))
    loss_NCS = np.array(losses).T[None]
    return Chains(
        nbeta_N=np.array([nbeta]),
        gamma_N=np.array([gamma]),
        step_N=np.array([step]),
        loss_NCS=loss_NCS,
        base_loss_NCS=np.zeros_like(loss_NCS),
        virial_NCS=np.array(virials).T[None],
        drift_NCS=np.array(drifts).T[None],
        dim=len(curvature_D),
        num_samples=10_000,
        batch=64,
        burn_in=burn_in,
        largest_curvature=float(curvature_D.max()),
    )


def singular_chains(
    rng: np.random.Generator,
    *,
    llc: float,
    multiplicity: int,
    nbetas: Sequence[float],
    num_chains: int = 8,
    num_draws: int = 4000,
) -> Chains:
    """Independent draws of K from exp(-nbeta K) K^(llc - 1) (-log K)^(m - 1) dK on (0, 1).

    By inversion on a grid in u = -log K. The parameter itself is not drawn; the virial is that of
    a scale-free K in a single direction, nbeta K / llc at m = 1.
    """
    u_G = np.geomspace(1e-7, 60 / llc, 200_001)
    losses = []
    for nbeta in nbetas:
        log_density_G = (multiplicity - 1) * np.log(u_G) - llc * u_G - nbeta * np.exp(-u_G)
        density_G = np.exp(log_density_G - log_density_G.max())
        mass_G = np.concatenate([[0], np.cumsum(np.diff(u_G) * (density_G[1:] + density_G[:-1]))])
        drawn_CS = rng.random((num_chains, num_draws)) * mass_G[-1]
        losses.append(np.exp(-np.interp(drawn_CS, mass_G, u_G)))
    loss_NCS = np.array(losses)
    nbeta_N = np.asarray(nbetas, dtype=float)
    return Chains(
        nbeta_N=nbeta_N,
        gamma_N=np.zeros(len(nbetas)),
        step_N=1e-3 / nbeta_N,
        loss_NCS=loss_NCS,
        base_loss_NCS=np.zeros_like(loss_NCS),
        dim=2,
        num_samples=10_000,
        batch=64,
        burn_in=0,
        sampler="mala",
    )
