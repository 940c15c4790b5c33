"""Topology of activation clouds: persistent homology of the Vietoris-Rips filtration over Z/2.

Shape suffixes: P points, D width, B bars, S subsample, G grid of filtration values.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import squareform

from scaleinv_ray.contract import Curve, Diagram, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.kernels.clouds import distinct_rows
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import disjoint_subsamples

_GRID_END = 2.0
"""Largest filtration value of a Betti curve, in median distances."""
_ROUNDING = 1e-10
"""Relative difference of two distances that is only rounding."""

_QUANTITIES = {
    "total_persistence_0": Quantity(law="power_law"),
    "total_persistence_1": Quantity(law="power_law"),
    "max_persistence_1": Quantity(law="none"),
    "log_ratio_max_1": Quantity(law="constant"),
    "num_bars_1": Quantity(law="none"),
    "betti_peak_1": Quantity(law="none"),
    "persistence_entropy_1": Quantity(law="constant"),
    # A cloud in general position always has bars of dimension 1, it may have none of dimension 2:
    # there the unit is the value of noise, 400 points of N(0, I_64).
    "total_persistence_2": Quantity(law="none", unit=0.02),
    "max_persistence_2": Quantity(law="none", unit=0.05),
    "log_ratio_max_2": Quantity(law="constant", unit=0.06),
    "num_bars_2": Quantity(law="none", unit=2.0),
    "betti_peak_2": Quantity(law="none", unit=0.25),
    "persistence_entropy_2": Quantity(law="constant"),
}


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
    squared_PP = x_PD @ x_PD.T
    square_P = squared_PP.diagonal().copy()
    squared_PP *= -2
    squared_PP += square_P
    squared_PP += square_P[:, None]
    np.fill_diagonal(squared_PP, 0)
    distance_PP = np.sqrt(np.maximum(squared_PP, 0, out=squared_PP), out=squared_PP)
    median = float(np.median(squareform(distance_PP, checks=False)))
    if median <= 0:
        raise Refused("x_TD: more than half of the distances are 0")
    return distance_PP / median


def rips_diagram(distance_PP: np.ndarray, *, max_dimension: int) -> Diagram:
    """Persistence diagram of the Vietoris-Rips filtration over Z/2.

    A simplex enters at its longest edge; a class born at b and dead at d lives for b <= t < d.
    Computed by gudhi's fork of Ripser (Bauer 2021), whose input is guarded here: a matrix with an
    asymmetry of 1e-14 ends in a MemoryError or in a silently wrong diagram, and its default field
    is Z/11.

    Args:
        distance_PP: distances, symmetric up to rounding, zero on the diagonal.
        max_dimension: homology up to this dimension.

    Returns:
        The finite bars, by dimension; the component that never dies is left out, and so are bars
        shorter than rounding (1e-10 of the death), which ties between distances open and close.

    Raises:
        ValueError: where the matrix is not one of distances.

    >>> square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    >>> distance_PP = np.linalg.norm(square[:, None] - square, axis=2)
    >>> bars = rips_diagram(distance_PP, max_dimension=1)
    >>> bars.dimension.tolist(), bars.birth.tolist(), bars.death.round(3).tolist()
    ([0, 0, 0, 1], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.414])
    """
    # Here, because scikit-learn takes two seconds to load and listing invariants needs none of it.
    from gudhi.sklearn import RipsPersistence

    engine = RipsPersistence(
        homology_dimensions=range(max_dimension + 1),
        homology_coeff_field=2,
        input_type="lower distance matrix",
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


@invariant(
    scheme="cloud",
    quantities=_QUANTITIES,
    curves=("betti_0", "betti_1", "betti_2", "euler_truncated"),
    symmetries=("rotation", "scale", "translation", "mean_shift", "permutation"),
)
def persistence(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 400,
    num_subsamples: int = 20,
    max_dimension: int = 1,
    num_grid: int = 101,
) -> Measured:
    """Persistent homology of the Rips filtration, over disjoint subsamples of the cloud.

    Duplicates are dropped (`geometry.distinct_rows`); every subsample's distances are divided by
    their median, so that lengths are in median distances. No summary is free of the number of
    points, hence `num_points` is fixed and a smaller cloud is refused. Summaries of dimension k are
    those of `bar_summaries`; total_persistence_0 is the sum of the merge heights (the edges of the
    minimum spanning tree) / P. A law or a difference means something only beside the untrained
    model's.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used, the error is over
            them, and unknown where there is one.
        max_dimension: K, 1 or 2; quantities of dimension 2 are refused below 2.
        num_grid: filtration values in [0, 2] of the curves.

    Returns:
        Quantities as declared; curves `betti_k` (mean count over the subsamples) and
        `euler_truncated` = sum_(k <= K) (-1)^k beta_k; diagram `rips` of the first subsample; flags
        `distinct_rows`, `duplicates`, `near_duplicates` (fractions of the rows, dropped).

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    if max_dimension not in {1, 2}:
        raise ValueError(f"max_dimension: got {max_dimension}, allowed 1, 2")
    if num_points < 2 * max_dimension + 2:  # the cross-polytope: smallest Rips complex with H_K
        raise ValueError(f"num_points: got {num_points}, allowed >= {2 * max_dimension + 2}")
    if num_subsamples < 1:
        raise ValueError(f"num_subsamples: got {num_subsamples}, allowed >= 1")
    distinct = distinct_rows(cloud)
    draws = disjoint_subsamples(len(distinct.x_TD), size=num_points, count=num_subsamples, rng=rng)
    if not draws:
        raise Refused(
            f"distinct rows: got {len(distinct.x_TD)} of {len(cloud.x_TD)}, needs num_points "
            f"{num_points} (persistence at other numbers of points is not comparable)"
        )
    diagrams = [
        rips_diagram(median_scaled_distances(distinct.x_TD[draw]), max_dimension=max_dimension)
        for draw in draws
    ]
    return Measured(
        values=_values(diagrams, num_points=num_points, max_dimension=max_dimension),
        curves=_curves(diagrams, max_dimension=max_dimension, num_grid=num_grid),
        diagrams={"rips": diagrams[0]},
        flags=distinct.flags(),
    )


def _checked(distance_PP: np.ndarray) -> np.ndarray:
    """The matrix made exactly symmetric, or a ValueError."""
    distance_PP = np.asarray(distance_PP, dtype=np.float64)
    if distance_PP.ndim != 2 or distance_PP.shape[0] != distance_PP.shape[1]:
        raise ValueError(f"distance_PP: got shape {distance_PP.shape}, allowed a square matrix")
    symmetric_PP = (distance_PP + distance_PP.T) / 2
    if not np.isfinite(symmetric_PP).all():
        raise ValueError("distance_PP: got entries that are not finite")
    if distance_PP.min(initial=0) < 0:
        raise ValueError(f"distance_PP: got {distance_PP.min()}, allowed entries >= 0")
    if distance_PP.diagonal().any():
        raise ValueError("distance_PP: got a non-zero diagonal")
    asymmetry = 2 * np.abs(distance_PP - symmetric_PP).max(initial=0)
    if asymmetry > _ROUNDING * symmetric_PP.max(initial=0):
        raise ValueError(f"distance_PP: got asymmetry {asymmetry}, allowed rounding only")
    return symmetric_PP


def _is_bar(birth_B: np.ndarray, death_B: np.ndarray) -> np.ndarray:
    finite_B = np.isfinite(death_B)
    return finite_B & (death_B * (1 - _ROUNDING) > birth_B)


def _values(
    diagrams: list[Diagram], *, num_points: int, max_dimension: int
) -> dict[str, Estimate | Refused]:
    totals_S = [float(d.death[d.dimension == 0].sum()) / num_points for d in diagrams]
    values: dict[str, Estimate | Refused] = {
        name: Refused(f"{name}: needs max_dimension 2, got {max_dimension}") for name in _QUANTITIES
    }
    values["total_persistence_0"] = mean_of(totals_S, "subsamples")
    for k in range(1, max_dimension + 1):
        rows = [bar_summaries(d, k, num_points=num_points) for d in diagrams]
        for name in rows[0]:
            samples = [row[name] for row in rows]
            numbers = [sample for sample in samples if sample is not None]
            if len(numbers) < len(samples):
                few = len(samples) - len(numbers)
                values[f"{name}_{k}"] = Refused(f"{name}_{k}: < 2 bars in {few} subsamples")
            else:
                values[f"{name}_{k}"] = mean_of(numbers, "subsamples")
    return values


def _curves(diagrams: list[Diagram], *, max_dimension: int, num_grid: int) -> dict[str, Curve]:
    t_G = np.linspace(0, _GRID_END, num_grid)
    dimensions = range(max_dimension + 1)
    betti_KSG = np.array([[betti_numbers(d, k, t_G) for d in diagrams] for k in dimensions])
    sign_K = (-1.0) ** np.arange(max_dimension + 1)
    curves_SG = {f"betti_{k}": betti_KSG[k] for k in dimensions}
    curves_SG["euler_truncated"] = np.einsum("k,ksg->sg", sign_K, betti_KSG)
    return {name: _mean_curve(t_G, y_SG) for name, y_SG in curves_SG.items()}


def _mean_curve(x_G: np.ndarray, y_SG: np.ndarray) -> Curve:
    num_subsamples = len(y_SG)
    if num_subsamples == 1:
        return Curve(x_G, y_SG[0].astype(np.float64))
    stderr_G = y_SG.std(axis=0, ddof=1) / math.sqrt(num_subsamples)
    return Curve(x_G, y_SG.mean(axis=0), stderr_G)
