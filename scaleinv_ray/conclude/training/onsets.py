"""When a quantity begins to change in a run: onset in ln tokens, with its uncertainty.

Shape suffixes: K checkpoints, D shapes, B bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scaleinv_ray.conclude.training.change_points import (
    Shapes,
    best_shape,
    best_shapes,
    null_of_search,
    search_p,
    shapes_of,
)

LEAST_CHECKPOINTS = 6
ALPHA = 0.01
"""Of no change: curves are cut at their extreme, .05 would let a tenth of flat ones rise."""
NUM_BOOTSTRAP = 400
PER_GAP = 4
NUM_WIDTHS = 8
LEAST_SHARE = 0.8
"""Share of the way to its extreme at which a curve is taken to have arrived."""


@dataclass(frozen=True)
class Onset:
    """The onset of one run.

    Attributes:
        t: ln tokens where the change begins.
        low: lower end of the 95 % bootstrap interval, widened to the checkpoint before it.
        high: upper end, widened to the checkpoint after it.
        spacing: ln tokens between the checkpoints that enclose t.
        draws_B: bootstrap draws of t.
        p: of no change.
        form: two_segment or logistic.
    """

    t: float
    low: float
    high: float
    spacing: float
    draws_B: np.ndarray
    p: float
    form: str


@dataclass(frozen=True)
class _Search:
    shapes: Shapes
    shape_DK: np.ndarray
    onset_D: np.ndarray
    num_ramps: int
    null_B: np.ndarray


@dataclass
class OnsetFinder:
    """Finds onsets; what depends on the checkpoints alone is kept between runs.

    Attributes:
        rng: source of the draws.
    """

    rng: np.random.Generator
    _known: dict[tuple[float, ...], _Search] = field(default_factory=dict)

    def find(self, tokens: Sequence[float], values: Sequence[float]) -> Onset | str:
        """Onset of one run over x = ln tokens.

        Constant, then linear, then constant again (or linear to the end) is fitted by exact search
        over both corners, and the logistic 1 / (1 + exp(-(x - c) / w)) over c and w, whose onset is
        c - 2 w, where the tangent at its middle leaves the lower level. The better fit decides.
        Checkpoints after the one where the curve is farthest from its start (after a median of
        three) are left out: capabilities decline again. A checkpoint at zero tokens stands a
        doubling before the first other. Draws resample the residuals, inflated by sqrt(K / df).

        Args:
            tokens: seen at each checkpoint, distinct, >= 0.

        Returns:
            The onset, or why there is none: fewer than six checkpoints up to the extreme, or no
            change established at .01 (searching included).

        Raises:
            ValueError: for tokens that repeat or are negative, and values that are not finite.
        """
        x_K, y_K = _ordered(tokens, values)
        kept = _rise(y_K)
        x_K, y_K = x_K[:kept], y_K[:kept]
        if len(x_K) < LEAST_CHECKPOINTS:
            return f"{len(x_K)} checkpoints up to the extreme, needs {LEAST_CHECKPOINTS}"
        search = self._search(x_K)
        match = best_shape(search.shapes, y_K)
        p = search_p(search.null_B, match.f)
        if p >= ALPHA:
            return f"no change established (p = {p:.2g})"
        t = float(search.onset_D[match.shape])
        draws_B = self._draws(search, y_K, match.shape)
        low, high = np.quantile(draws_B, [0.025, 0.975]).tolist()
        before, after = _enclosing(x_K, t, t)
        outer = _enclosing(x_K, min(low, t), max(high, t))
        form = "two_segment" if match.shape < search.num_ramps else "logistic"
        return Onset(t, *outer, after - before, draws_B, p, form)

    def _search(self, x_K: np.ndarray) -> _Search:
        key = tuple(x_K.tolist())
        if key not in self._known:
            self._known[key] = _prepared(x_K, self.rng)
        return self._known[key]

    def _draws(self, search: _Search, y_K: np.ndarray, shape: int) -> np.ndarray:
        design_KC = np.stack([np.ones_like(y_K), search.shape_DK[shape]], axis=1)
        fit_K = design_KC @ np.linalg.lstsq(design_KC, y_K)[0]
        residual_K = (y_K - fit_K) * np.sqrt(len(y_K) / search.shapes.df)
        resampled_BK = self.rng.choice(residual_K, size=(NUM_BOOTSTRAP, len(y_K)))
        return search.onset_D[best_shapes(search.shapes, fit_K + resampled_BK)]


def _ordered(tokens: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    tokens_K, y_K = np.asarray(tokens, dtype=np.float64), np.asarray(values, dtype=np.float64)
    distinct = len(set(tokens_K.tolist())) == len(tokens_K) == len(y_K)
    if not distinct or (tokens_K < 0).any() or not (tokens_K > 0).any():
        raise ValueError(f"tokens: got {list(tokens)}, allowed distinct numbers >= 0, one a value")
    if not np.isfinite(y_K).all():
        raise ValueError("values: got NaN or infinity, allowed finite numbers")
    order = np.argsort(tokens_K)
    tokens_K = tokens_K[order]
    first = tokens_K[tokens_K > 0][0]
    return np.log(np.where(tokens_K > 0, tokens_K, first / 2)), y_K[order]


def _rise(y_K: np.ndarray) -> int:
    """Checkpoints up to the farthest from the start, none less than where it is nearly reached."""
    if len(y_K) < 3:
        return len(y_K)
    middle_K = np.median(np.stack([y_K[:-2], y_K[1:-1], y_K[2:]]), axis=0)
    smooth_K = np.concatenate([y_K[:1], middle_K, y_K[-1:]])
    away_K = np.abs(smooth_K - smooth_K[0])
    # the end of a plateau, not its highest ripple
    return int(np.flatnonzero(away_K >= LEAST_SHARE * away_K.max())[-1]) + 1


def _enclosing(x_K: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The last checkpoint at or before `low` and the first after `high`, the ends beyond them."""
    before = max(int(np.searchsorted(x_K, low + 1e-9, side="right")) - 1, 0)
    after = min(int(np.searchsorted(x_K, high + 1e-9, side="right")), len(x_K) - 1)
    return float(x_K[min(before, len(x_K) - 2)]), float(x_K[max(after, 1)])


def _prepared(x_K: np.ndarray, rng: np.random.Generator) -> _Search:
    gaps = [np.linspace(a, b, PER_GAP, endpoint=False) for a, b in zip(x_K, x_K[1:], strict=False)]
    corner_D = np.concatenate(gaps)
    start_D = corner_D[corner_D <= x_K[-3]]
    ends = np.append(corner_D[::2], x_K[-1])
    pairs = np.array([(a, b) for a in start_D for b in ends if b > a and b > x_K[1]])
    ramp_DK = np.clip(x_K, pairs[:, :1], pairs[:, 1:]) - pairs[:, :1]
    least = np.diff(x_K).min() / 4
    widths = np.geomspace(least, max(np.ptp(x_K) / 4, 2 * least), NUM_WIDTHS)
    middles = np.array([(c, w) for c in corner_D for w in widths if x_K[0] <= c - 2 * w])
    logistic_DK = 1 / (1 + np.exp(-(x_K - middles[:, :1]) / middles[:, 1:]))
    shape_DK = np.concatenate([ramp_DK, logistic_DK])
    shapes = shapes_of(np.ones((len(x_K), 1)), shape_DK, picked_by=2)
    onset_D = np.concatenate([pairs[:, 0], middles[:, 0] - 2 * middles[:, 1]])
    return _Search(shapes, shape_DK, onset_D, len(pairs), null_of_search(shapes, rng))
