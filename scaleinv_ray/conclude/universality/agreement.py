"""Universality classes: systems whose exponents agree and whose scaling functions collapse.

Shape suffixes: G systems, E exponents, S replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

import numpy as np
from scipy import special
from scipy.cluster import hierarchy

LARGE_QUALITY = 4.0
"""S beyond which scaling functions differ: twice the error on average over the points."""
FAR = 1e9


class Agreement(StrEnum):
    """What is established of systems; a wide error is not agreement."""

    SAME = "same_class"
    DIFFERENT = "different"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class PairTest:
    """Two systems compared.

    Attributes:
        outcome: same where equivalent within the margins, different where the joint test or the
            collapse says so.
        distance: Mahalanobis distance of the vectors under their joint error, inf where they
            differ without error.
        p: of equal vectors (chi2, Hotelling's T2, or Bonferroni over the exponents where the
            replicates are too few for a joint test).
        width: largest over exponents of (|difference| + its one-sided error at the level) /
            margin; below 1 all exponents are equivalent.
        quality: S of the collapse of their scaling functions, None without curves.
    """

    outcome: Agreement
    distance: float
    p: float
    width: float
    quality: float | None


@dataclass(frozen=True)
class Classes:
    """Systems sorted into classes.

    Attributes:
        outcome: of all systems together: same_class with one class, different where any pair is.
        classes: names of the members, the largest class first; order of the input within.
        pairs: (name, name) -> test, in the order of the input.
    """

    outcome: Agreement
    classes: tuple[tuple[str, ...], ...]
    pairs: Mapping[tuple[str, str], PairTest]

    def distance(self, members: Sequence[str]) -> float:
        """Largest Mahalanobis distance between members of a class; 0 for one member."""
        inside = [t.distance for pair, t in self.pairs.items() if set(pair) <= set(members)]
        return max(inside, default=0.0)

    def width(self, members: Sequence[str]) -> float | None:
        """Largest width of a pair of the class, in margins; None for one member."""
        inside = [t.width for pair, t in self.pairs.items() if set(pair) <= set(members)]
        return max(inside, default=None)


def universality_classes(
    vector_GE: np.ndarray,
    covariance_GEE: np.ndarray,
    names: Sequence[str],
    *,
    margin_E: np.ndarray,
    df: float | Sequence[float] = math.inf,
    level: float = 0.05,
    qualities: Mapping[tuple[str, str], float] | None = None,
    large_quality: float = LARGE_QUALITY,
) -> Classes:
    """Sorts systems into classes by their exponents and the collapse of their scaling functions.

    Two systems are of the same class where every exponent is equivalent (two one-sided tests at
    the level; an intersection-union test needs no correction) and their scaling functions collapse;
    different where the joint test of equal vectors rejects at the level after Holm's correction
    over the pairs, or S is large; undetermined otherwise. The joint test is T2 = d' C^-1 d,
    F(E, nu - E + 1) = T2 (nu - E + 1) / (nu E), nu by Krishnamoorthy & Yu (2004) where errors are
    not pooled. Classes are those of complete linkage on the width, cut at 1: a join needs every
    pair that it makes to be equivalent. Undetermined systems stay alone.

    Args:
        vector_GE: exponents of each system, E >= 1.
        covariance_GEE: covariance of the error of each vector.
        names: of the systems, distinct.
        margin_E: difference of each exponent that still counts as none.
        df: degrees of freedom of the covariances: one number for all where they were pooled over
            systems, one a system where each has its own, inf where they are known.
        level: of each test.
        qualities: (name, name) -> S of the collapse of their scaling functions, where measured.
        large_quality: S beyond which scaling functions differ.

    Raises:
        ValueError: for fewer than two systems, shapes that do not match, names that repeat,
            margins or df that are not positive, and covariances that are no covariances.

    >>> found = universality_classes(
    ...     np.array([[1.87, 0.87], [1.88, 0.88], [1.0, 0.0]]), np.array([1e-5 * np.eye(2)] * 3),
    ...     ["ising", "lattice gas", "noise"], margin_E=np.array([0.05, 0.05]))
    >>> found.outcome.value, found.classes
    ('different', (('ising', 'lattice gas'), ('noise',)))
    """
    df_G = np.broadcast_to(np.asarray(df, dtype=np.float64), (len(names),))
    _check(vector_GE, covariance_GEE, names, margin_E, df_G)
    pooled = np.ndim(df) == 0
    known = qualities or {}
    pairs = {}
    for i, j in combinations(range(len(names)), 2):
        pair = (names[i], names[j])
        at = [i, j]
        quality = known.get(pair, known.get((names[j], names[i])))
        pairs[pair] = _compare(
            vector_GE[at] / margin_E,
            covariance_GEE[at] / np.outer(margin_E, margin_E),
            df_G[at],
            pooled=pooled,
            level=level,
            quality=quality,
        )
    pairs = _decided(pairs, level, large_quality)
    outcomes = {test.outcome for test in pairs.values()}
    outcome = (
        Agreement.DIFFERENT
        if Agreement.DIFFERENT in outcomes
        else Agreement.SAME
        if outcomes == {Agreement.SAME}
        else Agreement.UNDETERMINED
    )
    return Classes(outcome, _linked(names, list(pairs.values())), pairs)


def pooled_covariances(sample_GSE: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Covariances of the mean vectors of systems, from the replicates of all of them together.

    Args:
        sample_GSE: for each system the vectors of its replicates [S, E].

    Returns:
        Covariances [G, E, E], pooled / S each, and their df = sum (S - 1).

    Raises:
        ValueError: without a system of two replicates.
    """
    df = sum(len(v_SE) - 1 for v_SE in sample_GSE)
    if df < 1:
        raise ValueError("replicates: got one of each system, needs two of one at least")
    off = [v_SE - v_SE.mean(axis=0) for v_SE in sample_GSE]
    pooled_EE = sum((d_SE.T @ d_SE for d_SE in off[1:]), off[0].T @ off[0]) / df
    return np.array([pooled_EE / len(v_SE) for v_SE in sample_GSE]), float(df)


def own_covariances(sample_GSE: Sequence[np.ndarray]) -> tuple[np.ndarray, list[float]]:
    """Covariances of the mean vectors of systems, each from its own replicates.

    Args:
        sample_GSE: for each system the vectors of its replicates [S, E], S >= 2.

    Returns:
        Covariances [G, E, E] and the df S - 1 of each.

    Raises:
        ValueError: for a system of one replicate.
    """
    if min(len(v_SE) for v_SE in sample_GSE) < 2:
        raise ValueError("replicates: got a system of one, needs two of each")
    out = [np.atleast_2d(np.cov(v_SE, rowvar=False)) / len(v_SE) for v_SE in sample_GSE]
    return np.array(out), [len(v_SE) - 1.0 for v_SE in sample_GSE]


def _compare(
    vector_2E: np.ndarray,
    covariance_2EE: np.ndarray,
    df_2: np.ndarray,
    *,
    pooled: bool,
    level: float,
    quality: float | None,
) -> PairTest:
    """Two systems, all in margins."""
    d_E, c_EE = vector_2E[0] - vector_2E[1], covariance_2EE.sum(axis=0)
    variance_2E = np.diagonal(covariance_2EE, axis1=1, axis2=2)
    se_E = np.sqrt(variance_2E.sum(axis=0))
    df_E = np.array([_df(v_2[:, None, None], df_2, pooled=pooled) for v_2 in variance_2E.T])
    width = float((np.abs(d_E) + special.stdtrit(df_E, 1 - level) * se_E).max())
    singular = np.linalg.matrix_rank(c_EE) < len(d_E)
    t2 = 0.0 if not d_E.any() else math.inf if singular else float(d_E @ np.linalg.solve(c_EE, d_E))
    nu = _df(covariance_2EE, df_2, pooled=pooled)
    p = _joint_p(t2, len(d_E), nu)
    if p is None or singular:
        p = _bonferroni_p(d_E, se_E, df_E)
    outcome = Agreement.SAME if width < 1 else Agreement.UNDETERMINED
    return PairTest(outcome, math.sqrt(t2), p, width, quality)


def _decided(
    pairs: Mapping[tuple[str, str], PairTest], level: float, large_quality: float
) -> dict[tuple[str, str], PairTest]:
    """The pairs with those that differ: 'some pair differs' is a union, hence Holm (1979)."""
    ordered = sorted(pairs, key=lambda pair: pairs[pair].p)
    rejected: set[tuple[str, str]] = set()
    for i, pair in enumerate(ordered):
        if pairs[pair].p * (len(ordered) - i) >= level:
            break
        rejected.add(pair)
    out = {}
    for pair, test in pairs.items():
        no_collapse = test.quality is not None and test.quality > large_quality
        differs = no_collapse or (pair in rejected and test.outcome is not Agreement.SAME)
        out[pair] = replace(test, outcome=Agreement.DIFFERENT) if differs else test
    return out


def _df(covariance_2EE: np.ndarray, df_2: np.ndarray, *, pooled: bool) -> float:
    if pooled:
        return float(df_2[0])

    def size(c_EE: np.ndarray) -> float:
        return float((c_EE * c_EE.T).sum() + np.trace(c_EE) ** 2)

    parts = sum(size(c_EE) / df for c_EE, df in zip(covariance_2EE, df_2, strict=True))
    return size(covariance_2EE.sum(axis=0)) / parts if parts > 0 else math.inf


def _joint_p(t2: float, num_exponents: int, nu: float) -> float | None:
    if math.isinf(nu):
        return float(special.chdtrc(num_exponents, t2))
    free = nu - num_exponents + 1
    if free < 1:
        return None
    return float(special.fdtrc(num_exponents, free, t2 * free / (nu * num_exponents)))


def _bonferroni_p(d_E: np.ndarray, se_E: np.ndarray, df_E: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        t_E = np.where(d_E == 0, 0.0, np.abs(d_E) / se_E)
    p_E = np.where(np.isinf(df_E), special.ndtr(-t_E), special.stdtr(df_E, -t_E))
    return float(min(1.0, 2 * len(d_E) * p_E.min()))


def _linked(names: Sequence[str], tests: Sequence[PairTest]) -> tuple[tuple[str, ...], ...]:
    apart = [FAR if t.outcome is not Agreement.SAME else min(t.width, FAR) for t in tests]
    tree = hierarchy.linkage(np.array(apart), "complete")
    label_G = hierarchy.fcluster(tree, np.nextafter(1.0, 0.0), criterion="distance")
    members: dict[int, list[str]] = {}
    for name, label in zip(names, label_G.tolist(), strict=True):
        members.setdefault(label, []).append(name)
    return tuple(sorted(map(tuple, members.values()), key=lambda c: (-len(c), names.index(c[0]))))


def _check(
    vector_GE: np.ndarray,
    covariance_GEE: np.ndarray,
    names: Sequence[str],
    margin_E: np.ndarray,
    df_G: np.ndarray,
) -> None:
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"names: got {list(names)}, allowed two or more distinct ones")
    num_exponents = vector_GE.shape[1]
    wanted = (len(names), num_exponents, num_exponents)
    if vector_GE.shape[0] != len(names) or covariance_GEE.shape != wanted:
        raise ValueError(
            f"covariance_GEE: got {covariance_GEE.shape} beside {vector_GE.shape}, allowed {wanted}"
        )
    if len(margin_E) != num_exponents or not (margin_E > 0).all() or not (df_G > 0).all():
        raise ValueError("margin_E: got other numbers, allowed one positive margin an exponent")
    symmetric = np.allclose(covariance_GEE, covariance_GEE.transpose(0, 2, 1))
    if not (np.isfinite(covariance_GEE).all() and np.isfinite(vector_GE).all() and symmetric):
        raise ValueError("covariance_GEE: got no symmetric finite matrices")
