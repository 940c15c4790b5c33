"""ln Z(n) of a monomial ideal: where a more degenerate program overtakes, and where not yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleinv_ray.singularities.volume import StateDensity, subset_simulation

_PARTICLES = 800
_DEEPEST = 1e-22
"""Volume down to which the levels go; n is at most 1e5 on the page."""


def log_evidence(
    generators: Sequence[Sequence[str]], ns: np.ndarray, *, rng: np.random.Generator
) -> np.ndarray:
    """The logarithm of Z(n) = integral over [0, 1]^d of exp(-n sum of generators).

    Z is a product over groups of generators that share no variable. One variable alone is exact,
    (1 - exp(-n)) / n; the volume of every other group comes from a simulation.

    Args:
        generators: the variables of each, repeated where a power is meant.
        ns: numbers of samples, positive.

    Returns:
        A value for every n.

    >>> rng = np.random.default_rng(0)
    >>> bool(np.isclose(log_evidence([["u"], ["v"]], np.array([1e4]), rng=rng)[0], -8 * np.log(10)))
    True
    """
    total = np.zeros(len(ns))
    for group in _groups(generators):
        if len(group) == len(group[0]) == 1:
            total += np.log(-np.expm1(-ns) / ns)
        else:
            total += _simulated(group, ns, rng)
    return total


def _groups(generators: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    groups: list[tuple[set[str], list[Sequence[str]]]] = []
    for generator in generators:
        names, members = set(generator), [generator]
        for other in [g for g in groups if g[0] & names]:
            groups.remove(other)
            names |= other[0]
            members = other[1] + members
        groups.append((names, members))
    return [members for _, members in groups]


def _simulated(group: list[Sequence[str]], ns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    names = sorted({name for generator in group for name in generator})
    columns = [[names.index(name) for name in generator] for generator in group]

    def loss(w_PN: np.ndarray) -> np.ndarray:
        u_PN = np.abs(w_PN)
        return sum((u_PN[..., c].prod(axis=-1) for c in columns), np.zeros(w_PN.shape[:-1]))

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
