"""Is a model out of the family of a series? A score over all quantities, ranked among the series'.

A score is the largest |t| of any quantity. Its p value is conformal (Vovk, Gammerman & Shafer 2005,
ch. 2): every model, the candidate too, is scored against all others, and the candidate's rank says
how unusual it is. That holds whatever the distribution of the values and however the quantities
depend on each other, which a count of quantities outside their own intervals does not: of hundreds,
some are outside in almost every healthy model.

Shape suffixes: N models of the series, M = N + 1 with the candidate in the last row, F quantities,
K sizes, U units that are ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

COVERAGE = 0.95
"""Of the interval of a single quantity."""
MOST = 1e3
"""Of |t|: where the others do not differ at all, any difference is as large as this."""
_LEAST_SIZES = 3
Ranked = Literal["models", "sizes"]


@dataclass(frozen=True)
class Quantities:
    """Values of a series and of a candidate, of quantities that all of them have.

    Attributes:
        names: of the quantities.
        n_params_N: parameters of the models of the series.
        values_NF: theirs.
        n_params: parameters of the candidate.
        values_F: the candidate's.
        units: of each quantity its declared unit, None where ratios count.
    """

    names: Sequence[str]
    n_params_N: np.ndarray
    values_NF: np.ndarray
    n_params: float
    values_F: np.ndarray
    units: Sequence[float | None]

    def __post_init__(self) -> None:
        shape = len(self.n_params_N), len(self.names)
        if self.values_NF.shape != shape or self.values_F.shape != shape[1:]:
            raise ValueError(
                f"values: got {self.values_NF.shape} and {self.values_F.shape}, allowed {shape} "
                f"and {shape[1:]} (models, quantities)"
            )
        if not (np.isfinite(self.values_NF).all() and np.isfinite(self.values_F).all()):
            raise ValueError("values: got NaN or infinity, allowed finite numbers")

    @property
    def ranked(self) -> Ranked:
        """Models where the series has the candidate's size, else sizes: those are what is new."""
        return "models" if (self.n_params_N == self.n_params).any() else "sizes"


@dataclass(frozen=True)
class Interval:
    """Where a quantity of one more healthy model is expected, and where the candidate is.

    Attributes:
        name: of the quantity.
        value: the candidate's.
        low: lower end of the 95 % prediction interval.
        high: upper end.
        t: distance from its centre in standard errors of the prediction.
        outside: whether the candidate is outside.
    """

    name: str
    value: float
    low: float
    high: float
    t: float
    outside: bool


class Rank(NamedTuple):
    """A conformal p value, and the quantity with the largest |t|."""

    p: float
    worst: str


@dataclass(frozen=True)
class Card:
    """What is said of one model beside a series.

    Attributes:
        intervals: of every quantity.
        whole: of all quantities together.
        groups: of the quantities of each group alone, each at the same rate of false alarms.
        ranked: what was ranked, models or whole sizes.
        num_ranked: how many, without the candidate.
        usual_outside: least and most quantities outside their interval in models of the series
            that were left out; None where none could be left out.
    """

    intervals: tuple[Interval, ...]
    whole: Rank
    groups: dict[str, Rank]
    ranked: Ranked
    num_ranked: int
    usual_outside: tuple[int, int] | None

    @property
    def least_p(self) -> float:
        """The smallest p that so many can give: the rate of false alarms of an alarm at it."""
        return 1 / (self.num_ranked + 1)

    def verdict(self, level: float) -> Literal["in family", "out of family", "cannot say"]:
        """What follows at a rate of false alarms of at most `level`."""
        if self.least_p > level:
            return "cannot say"
        return "out of family" if self.whole.p <= level else "in family"


def needed(level: float) -> int:
    """Models (or sizes) that a series needs for an alarm at a level.

    >>> needed(0.05), needed(0.1)
    (19, 9)
    """
    return math.ceil(1 / level - 1e-9) - 1


def assess(given: Quantities, groups: Sequence[str]) -> Card:
    """The card of a candidate.

    t = (y - m) / (s sqrt(1 + 1/n)) with m the mean over the n seeds of its size and s the pooled
    standard deviation over seeds; y is ln|value|, the value by its unit, or the value itself where
    there is no unit and signs differ. Where the series has not this size, m is the line in ln N
    through all seeds, and s^2 the larger of that variance and of the scatter of the sizes about it.

    Args:
        given: values of quantities that all models have; at least one.
        groups: of each quantity the name of its group.

    Returns:
        The card. For p, every model is scored against all others and the candidate (its size is
        in the series), or every whole size is, by its most unusual seed.

    Raises:
        ValueError: for no quantities, for fewer than two seeds of any size, and, where the series
            has not the candidate's size, for fewer than three sizes.
    """
    if not given.names:
        raise ValueError("quantities: got none, allowed at least one that all models have")
    y_MF = _scaled(given)
    n_M = np.append(given.n_params_N, given.n_params)
    expect = _of_size if given.ranked == "models" else _of_line
    found = expect(y_MF[:-1], n_M[:-1], given.n_params)
    if found is None:
        raise ValueError(
            f"series: got {len(given.n_params_N)} models of {len(set(given.n_params_N.tolist()))} "
            f"sizes for one of {given.n_params:,.0f} parameters; allowed: two seeds of a size, "
            f"and where that size is not in the series {_LEAST_SIZES} sizes"
        )
    t_UF, own = _left_out(y_MF, n_M, given.ranked)
    whole = _rank(t_UF, own, given.names, np.ones(len(given.names), dtype=bool))
    names = np.array(groups)
    of_groups = {
        str(group): _rank(t_UF, own, given.names, names == group) for group in dict.fromkeys(groups)
    }
    return Card(
        intervals=_intervals(given, y_MF[-1], found),
        whole=whole,
        groups=of_groups,
        ranked=given.ranked,
        num_ranked=len(t_UF) - 1,
        usual_outside=_usual(y_MF[:-1], n_M[:-1], given.ranked),
    )


class _Expected(NamedTuple):
    """Centre and standard error of the prediction of one more model, and its degrees of freedom."""

    centre_F: np.ndarray
    stderr_F: np.ndarray
    df: int

    @property
    def half_F(self) -> np.ndarray:
        """Half-width of the interval."""
        width: np.ndarray = special.stdtrit(self.df, 0.5 + COVERAGE / 2) * self.stderr_F
        return width

    def t_of(self, y_F: np.ndarray) -> np.ndarray:
        """Distance from the centre; 0 where there is none, at most `MOST`."""
        away_F = y_F - self.centre_F
        with np.errstate(divide="ignore", invalid="ignore"):
            t_F = np.where(away_F == 0, 0.0, away_F / self.stderr_F)
        clipped: np.ndarray = np.clip(t_F, -MOST, MOST)
        return clipped


def _scale_of(given: Quantities) -> list[Literal["unit", "log", "raw"]]:
    all_MF = np.vstack([given.values_NF, given.values_F])
    one_sign_F = (np.sign(all_MF[0]) * all_MF > 0).all(axis=0).tolist()
    return [
        "unit" if unit is not None else "log" if one_sign else "raw"
        for unit, one_sign in zip(given.units, one_sign_F, strict=True)
    ]


def _scaled(given: Quantities) -> np.ndarray:
    y_MF = np.vstack([given.values_NF, given.values_F]).astype(np.float64)
    for f, scale in enumerate(_scale_of(given)):
        if scale == "log":
            y_MF[:, f] = np.log(np.abs(y_MF[:, f]))
    return y_MF


def _pooled(y_NF: np.ndarray, n_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Variance over seeds, of all sizes together, and its degrees of freedom."""
    sizes, at_N = np.unique(n_N, return_inverse=True)
    df = len(n_N) - len(sizes)
    squares_F = np.zeros(y_NF.shape[1])
    for k in range(len(sizes)):
        mine = y_NF[at_N == k]
        squares_F += ((mine - mine.mean(axis=0)) ** 2).sum(axis=0)
    return squares_F / max(df, 1), df


def _of_size(y_NF: np.ndarray, n_N: np.ndarray, n_params: float) -> _Expected | None:
    mine = y_NF[n_N == n_params]
    variance_F, df = _pooled(y_NF, n_N)
    if len(mine) == 0 or df < 1:
        return None
    return _Expected(mine.mean(axis=0), np.sqrt(variance_F * (1 + 1 / len(mine))), df)


def _of_line(y_NF: np.ndarray, n_N: np.ndarray, n_params: float) -> _Expected | None:
    variance_F, df = _pooled(y_NF, n_N)
    sizes, at_N = np.unique(n_N, return_inverse=True)
    if len(sizes) < _LEAST_SIZES:
        return None
    x_N = np.log(n_N.astype(np.float64))
    centre = x_N.mean()
    spread = ((x_N - centre) ** 2).sum()
    slope_F = (x_N - centre) @ y_NF / spread
    away_NF = y_NF - y_NF.mean(axis=0) - np.outer(x_N - centre, slope_F)
    # seeds of a size share its place beside the line: scatter has as many freedoms as sizes
    scatter_F = sum(
        (at_N == k).sum() * away_NF[at_N == k].mean(axis=0) ** 2 for k in range(len(sizes))
    ) / (len(sizes) - 2)
    x = math.log(n_params)
    # a new size is off the line by as much as the others, whatever the number of its seeds
    h = 1 + 1 / len(n_N) + (x - centre) ** 2 / spread
    noise_F = np.maximum(scatter_F, variance_F if df else 0.0)
    line_F = y_NF.mean(axis=0) + slope_F * (x - centre)
    return _Expected(line_F, np.sqrt(h * noise_F), len(sizes) - 2)


def _left_out(y_MF: np.ndarray, n_M: np.ndarray, ranked: Ranked) -> tuple[np.ndarray, int]:
    """|t| of every unit against all others, and which of them is the candidate: the last."""
    if ranked == "models":
        units = [np.array([m]) for m in range(len(n_M))]
    else:
        units = [np.flatnonzero(n_M == n) for n in dict.fromkeys(n_M.tolist())]
    expect = _of_size if ranked == "models" else _of_line
    found = []
    for rows in units:
        rest = np.setdiff1d(np.arange(len(n_M)), rows)
        expected = expect(y_MF[rest], n_M[rest], float(n_M[rows[0]]))
        if expected is not None:
            found.append(np.max([np.abs(expected.t_of(y_MF[m])) for m in rows], axis=0))
    return np.array(found), len(found) - 1


def _rank(t_UF: np.ndarray, own: int, names: Sequence[str], chosen_F: np.ndarray) -> Rank:
    score_U = t_UF[:, chosen_F].max(axis=1)
    worst = np.flatnonzero(chosen_F)[t_UF[own, chosen_F].argmax()]
    return Rank(float((score_U >= score_U[own]).mean()), names[worst])


def _intervals(given: Quantities, y_F: np.ndarray, found: _Expected) -> tuple[Interval, ...]:
    sign_F = np.sign(given.values_F)
    t_F, half_F = found.t_of(y_F), found.half_F
    made = []
    for f, scale in enumerate(_scale_of(given)):
        ends = found.centre_F[f] - half_F[f], found.centre_F[f] + half_F[f]
        if scale == "log":  # beyond the range of floats there is no end
            ends = tuple(sign_F[f] * math.exp(min(end, 700.0)) for end in ends)
        outside = bool(abs(y_F[f] - found.centre_F[f]) > half_F[f])
        value = float(given.values_F[f])
        low, high = min(ends), max(ends)
        made.append(
            Interval(given.names[f], value, float(low), float(high), float(t_F[f]), outside)
        )
    return tuple(made)


def _usual(y_NF: np.ndarray, n_N: np.ndarray, ranked: Ranked) -> tuple[int, int] | None:
    """Quantities outside their interval when models of the series are left out one by one."""
    if ranked != "models":
        return None
    counts = []
    for m in range(len(n_N)):
        rest = np.delete(np.arange(len(n_N)), m)
        expected = _of_size(y_NF[rest], n_N[rest], float(n_N[m]))
        if expected is not None:
            counts.append(int((np.abs(y_NF[m] - expected.centre_F) > expected.half_F).sum()))
    return (min(counts), max(counts)) if counts else None
