"""Effects of components, sequence by sequence, and how they were measured.

Shape suffixes: N components, E edges, S sequences, H of them held out, F the first of these, K
sizes, D draws, M components with the embedding and the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import stats

from scaleinv_ray.circuitry.effects.game import size_for
from scaleinv_ray.circuitry.surgery.components import Component
from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.circuits.faithfulness import faithfulness
from scaleinv_ray.records.effects import held_out

TOP = 0.1
"""Share of components that the estimator names as the largest."""


class Ranking(NamedTuple):
    """What the first components of an order do together.

    Attributes:
        name: what made the order: single (effects one by one), shapley or greedy.
        order_N: indices of components.
        sizes_K: k, ascending; the last one is all components.
        along_KH: v(first k) on each of other sequences than those that made the order.
    """

    name: str
    order_N: np.ndarray
    sizes_K: np.ndarray
    along_KH: np.ndarray

    @property
    def share_K(self) -> np.ndarray:
        """V(first k) / v(all), means over sequences before the ratio."""
        along_K = self.along_KH.mean(axis=1)
        return along_K / along_K[-1]

    @property
    def n90(self) -> int:
        """The smallest k with 90 % of v(all)."""
        return int(self.sizes_K[size_for(self.share_K) - 1])


@dataclass(frozen=True)
class Game:
    """The joint game, as far as its budget went.

    Attributes:
        rankings: the one by single effects first.
        shapley_N: share of each component in v(all), mean over sequences; empty without.
        stderr_N: from pairs of permutations.
        pairs: of permutations.
        random_DK: v / v(all) of random components at the sizes of `random_sizes`, a draw a row;
            each has as many in every layer as the first k of the ranking by single effects.
        random_sizes: k.
        left_out: what the budget did not allow.
    """

    rankings: tuple[Ranking, ...]
    shapley_N: np.ndarray
    stderr_N: np.ndarray
    pairs: int
    random_DK: np.ndarray
    random_sizes: np.ndarray
    left_out: tuple[str, ...] = ()

    @property
    def random_n90(self) -> float | None:
        """Median n90 of the random orders, among their sizes; None without draws."""
        if not len(self.random_DK):
            return None
        return float(np.median([self.random_sizes[size_for(x) - 1] for x in self.random_DK]))


class Validation(NamedTuple):
    """The estimator held against exact effects.

    Attributes:
        r: Pearson; a component of the random stratum counts for all that it stands for. None with
            fewer than four, or without spread.
        exact: components with both.
        missed: of `outside`, whose exact effect is larger than the smallest inside the top tenth.
        outside: exact components outside the estimator's top tenth, drawn at random.
        bound: of the rate of misses, 95 %, one-sided.
    """

    r: float | None
    exact: int
    missed: int
    outside: int
    bound: float


@dataclass(frozen=True)
class Effects:
    """What was measured of one model on one probe.

    Attributes:
        components: N of them, in the order of the model.
        num_layers: of the model.
        effect_NS: exact effect m(A with c replaced) - m(A); nan where it was estimated alone.
        estimate_NS: the estimator's.
        clean_S: m(A).
        corrupted_S: m(B).
        metric: name.
        ablation: what replaces.
        method: of the estimator, with where its gradients were taken.
        all_S: m with all components replaced, minus m(A).
        along_N: mean of v of the first k of the ranking, k of `sizes`; on other sequences than
            those that made the ranking.
        sizes: k.
        edges: names.
        edge_ES: exact effects of these edges, the largest by the estimator.
        edge_estimate_ES: the estimator's.
        num_edges: of the whole graph.
        scored: names of all edges, largest estimate first.
        score_E: their estimates, means over sequences.
        kept_K: shares of edges kept, the largest by the estimator, all others from B.
        alone_KH: m of these kept alone, on other sequences than the ranking.
        random_alone_DKF: the same of random edge sets of these sizes, on the first of these
            sequences, a draw a row.
        between_MMS: effects between components, as `edges.between_components`; empty without edges.
        game: components jointly; None where a budget left nothing for it.
        accuracy: share of answers that are the model's first choice.
        forwards: cost, in forward passes over the sequences; a backward pass counts one.
    """

    components: tuple[Component, ...]
    num_layers: int
    effect_NS: np.ndarray
    estimate_NS: np.ndarray
    clean_S: np.ndarray
    corrupted_S: np.ndarray
    metric: str
    ablation: str
    method: str
    all_S: np.ndarray
    along_N: np.ndarray
    sizes: tuple[int, ...]
    accuracy: float
    forwards: float
    edges: tuple[str, ...] = ()
    edge_ES: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    edge_estimate_ES: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    num_edges: int = 0
    scored: tuple[str, ...] = ()
    score_E: np.ndarray = field(default_factory=lambda: np.empty(0))
    kept_K: np.ndarray = field(default_factory=lambda: np.empty(0))
    alone_KH: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    random_alone_DKF: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    between_MMS: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    game: Game | None = None

    @property
    def exact_N(self) -> np.ndarray:
        """Which components have an exact effect."""
        return np.isfinite(self.effect_NS).all(axis=1)

    @property
    def best_NS(self) -> np.ndarray:
        """The exact effect where there is one, else the estimate."""
        return np.where(self.exact_N[:, None], self.effect_NS, self.estimate_NS)

    @property
    def whole(self) -> bool:
        """All effects are exact."""
        return bool(self.exact_N.all())

    @property
    def ends_2H(self) -> np.ndarray:
        """m(A) and m(B) of the sequences held out from rankings."""
        return np.stack([self.clean_S, self.corrupted_S])[:, held_out(len(self.clean_S))]

    @property
    def random_DK(self) -> np.ndarray:
        """f(k) of random edge sets, a draw a row; none where their pairs tell A not from B."""
        ends = self.ends_2H[:, : self.random_alone_DKF.shape[2]]
        try:
            rows = [faithfulness(alone_KF, *ends) for alone_KF in self.random_alone_DKF]
        except Refused:
            rows = []
        return np.array(rows).reshape(len(rows), len(self.kept_K))

    def agreement(self) -> float | None:
        """Pearson r of estimates with exact effects, None with fewer than four or no spread."""
        return self.validation().r

    def validation(self) -> Validation:
        """The estimator against exact effects, over both strata."""
        mean_N, guess_N = (x.mean(axis=1) for x in (self.effect_NS, self.estimate_NS))
        exact_N = self.exact_N & np.isfinite(guess_N)
        top = np.argsort(-np.abs(guess_N), kind="stable")[: max(1, round(TOP * len(guess_N)))]
        top_N = np.isin(np.arange(len(guess_N)), top)
        outside_N = exact_N & ~top_N
        inside = np.abs(mean_N[exact_N & top_N])
        missed = int((np.abs(mean_N[outside_N]) > inside.min()).sum()) if len(inside) else 0
        outside = int(outside_N.sum())
        bound = 1.0
        if missed < outside:
            bound = float(stats.beta.ppf(0.95, missed + 1, outside - missed))
        weight_N = np.where(top_N, 1.0, (~top_N).sum() / max(outside, 1))[exact_N]
        r = _weighted_r(mean_N[exact_N], guess_N[exact_N], weight_N)
        return Validation(r, int(exact_N.sum()), missed, outside, bound)


def _weighted_r(x_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> float | None:
    if len(x_N) < 4 or x_N.std() == 0 or y_N.std() == 0:
        return None
    cov = np.cov(x_N, y_N, aweights=weight_N)
    return float(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]))
