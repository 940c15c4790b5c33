"""ln Z(n) of a monomial ideal: where a more degenerate program overtakes, and where not yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, gammaln

from scaleinv_ray.singularities.volume import StateDensity, subset_simulation

_PARTICLES = 800
_DEEPEST = 1e-22
"""Volume down to which the levels go; n is at most 1e5 on the page."""


class Term(NamedTuple):
    """A monomial of K with its coefficient.

    Attributes:
        names: of its variables, repeated where a power is meant.
        paths: the coefficient: paths that fail so, averaged over the inputs.
    """

    names: Sequence[str]
    paths: float


def log_evidence(terms: Sequence[Term], ns: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """The logarithm of Z(n) = integral over [0, 1]^d of exp(-n K), K the sum of the terms.

    Z is a product over groups of terms that share no variable. A power of one variable alone is
    exact, the volume of every other group comes from a simulation.

    Args:
        terms: of K.
        ns: numbers of samples, positive.

    Returns:
        A value for every n.

    >>> rng = np.random.default_rng(0)
    >>> twice = [Term(["u"], 1.0), Term(["v"], 2.0)]
    >>> bool(np.isclose(log_evidence(twice, np.array([1e4]), rng=rng)[0], -np.log(2e8)))
    True
    """
    total = np.zeros(len(ns))
    for group in _groups(terms):
        if len(group) == 1 and len(set(group[0].names)) == 1:
            total += _power(len(group[0].names), ns * group[0].paths)
        else:
            total += _simulated(group, ns, rng)
    return total


def _power(k: int, scale: np.ndarray) -> np.ndarray:
    """Log of the integral over [0, 1] of exp(-scale u^k): an incomplete gamma function."""
    return np.asarray(gammaln(1 + 1 / k) - np.log(scale) / k + np.log(gammainc(1 / k, scale)))


def _groups(terms: Sequence[Term]) -> list[list[Term]]:
    groups: list[tuple[set[str], list[Term]]] = []
    for term in terms:
        names, members = set(term.names), [term]
        for other in [g for g in groups if g[0] & names]:
            groups.remove(other)
            names |= other[0]
            members = other[1] + members
        groups.append((names, members))
    return [members for _, members in groups]


def _simulated(group: list[Term], ns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    names = sorted({name for term in group for name in term.names})
    columns = [([names.index(name) for name in term.names], term.paths) for term in group]

    def loss(w_PN: np.ndarray) -> np.ndarray:
        u_PN = np.abs(w_PN)
        return sum(
            (c * u_PN[..., at].prod(axis=-1) for at, c in columns), np.zeros(w_PN.shape[:-1])
        )

    found = subset_simulation(
        loss,
        len(names),
        rng=rng,
        num_particles=_PARTICLES,
        smallest_volume=_DEEPEST,
        in_corner=True,
    )
    return np.log(_laplace(found, ns))


def _laplace(found: StateDensity, ns: np.ndarray) -> np.ndarray:
    """Integral of exp(-n K), from the shells between thresholds."""
    num_levels, size = found.log_k_BLP.shape[1:]
    volume_L = np.exp(np.r_[0.0, found.log_volume_L])[:num_levels]
    shell_L = np.r_[volume_L[:-1] - volume_L[1:], volume_L[-1:]]
    z_Z = np.zeros(len(ns))
    for level, share in enumerate(shell_L):
        first = 0 if level == num_levels - 1 else size // 2  # the innermost level is whole
        k_P = np.exp(found.log_k_BLP[:, level, first:]).ravel()
        z_Z += share * np.exp(-ns[:, None] * k_P).mean(axis=1)
    return z_Z
