"""Persistent homology of the Vietoris-Rips filtration of a matrix of distances.

Shape suffixes: P points, D width, B bars, E pairs of points, G grid of filtration values.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import squareform

from scaleinv_ray.contract import Diagram, Refused

_ROUNDING = 1e-10
"""Relative difference of two distances that is only rounding."""


def median_scaled_distances(x_PD: np.ndarray) -> np.ndarray:
    """Euclidean distances divided by their median.

    Args:
        x_PD: centred points, at least two of them distinct.

    Returns:
        distance_PP, symmetric, zero on the diagonal, median 1 above it.

    Raises:
        Refused: where the median distance is 0.

    >>> median_scaled_distances(np.array([[-1.0], [0.0], [1.0]]))[0].tolist()
    [0.0, 1.0, 2.0]
    """
    distance_PP = _euclidean(x_PD)
    distance_PP /= _positive_median(distance_PP)
    return distance_PP


def median_distance(x_PD: np.ndarray, *, num_points: int = 1000) -> float:
    """Median Euclidean distance of a cloud, of evenly chosen rows where there are many.

    Args:
        x_PD: centred points, at least two of them distinct.
        num_points: every k-th row is taken, with the least k that leaves no more rows.

    Returns:
        The median; exact for no more than num_points rows.

    Raises:
        Refused: where it is 0.

    >>> median_distance(np.array([[-1.0], [0.0], [1.0]]))
    1.0
    """
    distance_PP = _euclidean(x_PD[:: -(-len(x_PD) // num_points)])
    return _positive_median(distance_PP)


def rips_diagram(
    distance_PP: np.ndarray, *, max_dimension: int, field: int = 2, memory_bounded: bool = False
) -> Diagram:
    """Persistence diagram of the Vietoris-Rips filtration over Z/2, or over Z/p.

    A simplex enters at its longest edge; a class born at b and dead at d lives for b <= t < d.
    Computed by gudhi's fork of Ripser (Bauer 2021), whose input is guarded here: a matrix with an
    asymmetry of 1e-14 ends in a MemoryError or in a silently wrong diagram, and its default field
    is Z/11.

    Args:
        distance_PP: distances, symmetric up to rounding, zero on the diagonal.
        max_dimension: homology up to this dimension.
        field: the prime p of the coefficients Z/p.
        memory_bounded: collapses edges before dimension 1 too, at two (Gaussian cloud) to seven
            times (torus) the time: without, memory depends on the data (2000 points: .2 GB
            Gaussian, 4.6 GB on a flat torus; 1000 points of that: .59 GB against .09). The
            diagram is the same; from dimension 2 on edges are always collapsed.

    Returns:
        The finite bars, by dimension; the component that never dies is left out, and so are bars
        shorter than rounding (1e-10 of the death), which ties between distances open and close.

    Raises:
        ValueError: where the matrix is not one of distances, or the field no prime.

    >>> square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    >>> distance_PP = np.linalg.norm(square[:, None] - square, axis=2)
    >>> bars = rips_diagram(distance_PP, max_dimension=1)
    >>> bars.dimension.tolist(), bars.birth.tolist(), bars.death.round(3).tolist()
    ([0, 0, 0, 1], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.414])
    """
    # Here, because scikit-learn takes two seconds to load and listing invariants needs none of it.
    from gudhi.sklearn import RipsPersistence

    # The whole matrix, made exactly symmetric: a tenth faster than its lower triangle.
    engine = RipsPersistence(
        homology_dimensions=range(max_dimension + 1),
        homology_coeff_field=field,
        input_type="full distance matrix",
        num_collapses=1 if memory_bounded else "auto",
    )
    by_dimension = engine.fit_transform([_checked(distance_PP)])[0]
    finite = [bars_B2[_is_bar(*bars_B2.T)] for bars_B2 in by_dimension]
    dimension_B = np.repeat(np.arange(max_dimension + 1), [len(bars_B2) for bars_B2 in finite])
    birth_B, death_B = np.concatenate(finite).T.copy()
    return Diagram(dimension_B, birth_B, death_B)


def betti_numbers(diagram: Diagram, dimension: int, t_G: np.ndarray) -> np.ndarray:
    """Betti numbers at filtration values: bars with birth <= t < death.

    Args:
        diagram: finite bars, of a connected whole (`rips_diagram`).
        dimension: homology dimension.
        t_G: filtration values >= 0.

    Returns:
        beta_G, integers; in dimension 0 with the component that never dies.

    >>> bars = Diagram(np.array([0, 1]), np.array([0.0, 1.0]), np.array([1.0, 1.5]))
    >>> betti_numbers(bars, 0, np.array([0.0, 1.0])).tolist()
    [2, 1]
    """
    chosen_B = diagram.dimension == dimension
    born_G = np.searchsorted(np.sort(diagram.birth[chosen_B]), t_G, side="right")
    dead_G = np.searchsorted(np.sort(diagram.death[chosen_B]), t_G, side="right")
    return born_G - dead_G + (dimension == 0)


def bar_summaries(diagram: Diagram, dimension: int, *, num_points: int) -> dict[str, float | None]:
    """Numbers that summarise the bars of one dimension k >= 1, with lengths l = death - birth.

    Args:
        diagram: bars.
        dimension: k.
        num_points: points of the cloud, by which sums and counts are divided.

    Returns:
        total_persistence = sum l / P; max_persistence = max l; log_ratio_max = max
        log(death / birth); num_bars = bars / P; betti_peak = max_t beta_k(t) / P;
        persistence_entropy = -sum p log p / log(bars) with p = l / sum l (Atienza et al. 2019),
        None for fewer than two bars. Without bars all the others are 0.
    """
    chosen_B = diagram.dimension == dimension
    birth_B, death_B = diagram.birth[chosen_B], diagram.death[chosen_B]
    length_B = death_B - birth_B
    total = float(length_B.sum())
    entropy = None
    if len(length_B) > 1:
        share_B = length_B / total
        entropy = float(-(share_B * np.log(share_B)).sum() / math.log(len(share_B)))
    return {
        "total_persistence": total / num_points,
        "max_persistence": float(length_B.max(initial=0)),
        "log_ratio_max": float(np.log(death_B / birth_B).max(initial=0)),
        "num_bars": len(length_B) / num_points,
        "betti_peak": float(betti_numbers(diagram, dimension, birth_B).max(initial=0)) / num_points,
        "persistence_entropy": entropy,
    }


def edge_densities(distance_PP: np.ndarray) -> np.ndarray:
    """Order complex: every distance replaced by the fraction of pairs that are not farther apart.

    An edge enters at the edge density that it brings about (Giusti, Pastalkova, Curto & Itskov
    2015): any monotone distortion of the distances leaves the result as it is. Distances equal up
    to rounding (1e-10) enter together.

    Args:
        distance_PP: distances, symmetric up to rounding, zero on the diagonal.

    Returns:
        density_PP in (0, 1], zero on the diagonal.

    Raises:
        ValueError: where the matrix is not one of distances.

    >>> edge_densities(np.array([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]]))[0].round(3)
    array([0.   , 0.333, 1.   ])
    """
    distance_E = squareform(_checked(distance_PP), checks=False)
    order_E = np.argsort(distance_E, kind="stable")
    sorted_E = distance_E[order_E]
    ends = np.append(np.diff(sorted_E) > _ROUNDING * sorted_E[1:], True)
    density_E = np.empty(len(distance_E))
    last_E = np.flatnonzero(ends)[np.cumsum(ends) - ends]
    density_E[order_E] = (last_E + 1) / len(distance_E)
    return squareform(density_E)


def universal_scores(diagram: Diagram, dimension: int) -> np.ndarray:
    """Scores of the bars of dimension k >= 1, standard left-skewed Gumbel where they are noise.

    With pi = death / birth a bar has l = ln ln pi - gamma - mean(ln ln pi), gamma Euler's constant
    (the mean of l is -gamma). For independent points of any density l follows, for all but the
    bars of the underlying space, one law, P(l >= x) = exp(-e^x) (Bobrowski & Skraba 2023,
    conjecture 2 for the Rips filtration, A = 1).

    Args:
        diagram: bars.
        dimension: k >= 1.

    Returns:
        score_B, in the order of the diagram; empty without bars.
    """
    chosen_B = diagram.dimension == dimension
    if not chosen_B.any():
        return np.empty(0)
    double_log_B = np.log(np.log(diagram.death[chosen_B] / diagram.birth[chosen_B]))
    return double_log_B - double_log_B.mean() - np.euler_gamma


def num_significant(score_B: np.ndarray, *, level: float) -> int:
    """Bars with a universal null p-value exp(-e^score) below the level, after Holm's correction.

    Args:
        score_B: `universal_scores` of all bars.
        level: probability of calling any noise significant.

    Returns:
        Their number.

    >>> num_significant(np.array([2.1, 1.0, *[-1.0] * 98]), level=0.05)  # e^2.1 > ln(100 / 0.05)
    1
    """
    p_B = np.sort(np.exp(-np.exp(score_B)))
    rejected_B = p_B * np.arange(len(p_B), 0, -1) < level
    return int(rejected_B.argmin()) if not rejected_B.all() else len(p_B)


def loop_score(diagram: Diagram, dimension: int) -> float | None:
    """How far the longest bar l_1 stands out: (l_1 - l_2) / l_1 (Damrich et al. 2024, eq. 8).

    Args:
        diagram: bars.
        dimension: homology dimension.

    Returns:
        1 for a single bar, near 0 where no bar stands out, None without bars.
    """
    chosen_B = diagram.dimension == dimension
    length_B = np.sort((diagram.death - diagram.birth)[chosen_B])[::-1]
    if not len(length_B):
        return None
    return float(1 - length_B[1:2].sum() / length_B[0])


def betti_difference(first: Diagram, second: Diagram, dimension: int) -> tuple[int, float]:
    """Largest difference of the Betti numbers of two diagrams, and its integral over t.

    Args:
        first: bars over one field.
        second: bars of the same filtration over another field: births and deaths are the same
            numbers where they are equal, and compared exactly.
        dimension: homology dimension.

    Returns:
        max_t |beta(t) - beta'(t)| and the integral of |beta(t) - beta'(t)| dt.

    >>> bar, none = (Diagram(np.ones(n, int), np.ones(n), np.full(n, 3.0)) for n in (1, 0))
    >>> betti_difference(bar, none, 1)
    (1, 2.0)
    """
    times, steps = [], []
    for diagram, sign in ((first, 1), (second, -1)):
        chosen_B = diagram.dimension == dimension
        for time_B, step in ((diagram.birth[chosen_B], sign), (diagram.death[chosen_B], -sign)):
            times.append(time_B)
            steps.append(np.full(len(time_B), step))
    time_G, place = np.unique(np.concatenate(times), return_inverse=True)
    change_G = np.bincount(place, weights=np.concatenate(steps), minlength=len(time_G))
    difference_G = np.abs(np.cumsum(change_G))
    integral = float((difference_G[:-1] * np.diff(time_G)).sum())
    return round(difference_G.max(initial=0)), integral


def _euclidean(x_PD: np.ndarray) -> np.ndarray:
    """Distances by a matrix product, exactly symmetric: s_i + s_j and <x_i, x_j> are."""
    squared_PP = x_PD @ x_PD.T
    square_P = squared_PP.diagonal().copy()
    squared_PP *= -2
    squared_PP += np.add.outer(square_P, square_P)
    np.fill_diagonal(squared_PP, 0)
    return np.sqrt(np.maximum(squared_PP, 0, out=squared_PP), out=squared_PP)


def _positive_median(distance_PP: np.ndarray) -> float:
    median = float(np.median(squareform(distance_PP, checks=False)))
    if median <= 0:
        raise Refused("x_TD: more than half of the distances are 0")
    return median


def _checked(distance_PP: np.ndarray) -> np.ndarray:
    """The matrix made exactly symmetric, or a ValueError."""
    distance_PP = np.asarray(distance_PP, dtype=np.float64)
    if distance_PP.ndim != 2 or distance_PP.shape[0] != distance_PP.shape[1]:
        raise ValueError(f"distance_PP: got shape {distance_PP.shape}, allowed a square matrix")
    least, largest = distance_PP.min(initial=0), distance_PP.max(initial=0)
    if not (np.isfinite(least) and np.isfinite(largest)):  # a NaN makes both NaN
        raise ValueError("distance_PP: got entries that are not finite")
    if least < 0:
        raise ValueError(f"distance_PP: got {least}, allowed entries >= 0")
    if distance_PP.diagonal().any():
        raise ValueError("distance_PP: got a non-zero diagonal")
    if np.array_equal(distance_PP, distance_PP.T):
        return distance_PP
    symmetric_PP = (distance_PP + distance_PP.T) / 2
    asymmetry = 2 * np.abs(distance_PP - symmetric_PP).max()
    if asymmetry > _ROUNDING * largest:
        raise ValueError(f"distance_PP: got asymmetry {asymmetry}, allowed rounding only")
    return symmetric_PP


def _is_bar(birth_B: np.ndarray, death_B: np.ndarray) -> np.ndarray:
    finite_B = np.isfinite(death_B)
    return finite_B & (death_B * (1 - _ROUNDING) > birth_B)
