"""The joint game of one model on one probe, within what a budget leaves for it.

Components are ranked on even sequences and run jointly on odd ones: a ranking that is judged by the
sequences that made it looks better than it is.

Shape suffixes: C sets, N components, K sizes, D draws, S sequences, W writers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaleinv_ray.circuitry.effects.game import Shapley, greedy, shapley
from scaleinv_ray.circuitry.effects.interventions import Experiment
from scaleinv_ray.circuitry.effects.record import Game, Ranking
from scaleinv_ray.circuitry.surgery.components import Component
from scaleinv_ray.records.effects import held_out

SHARE = 0.9
FREE = 60.0
"""Forwards of the game where no budget is given."""
HALF, PART = 0.5, 0.25
"""Of a budget, at most: up to a half as long as that is no more than `FREE`, else this part."""
_SIZES = 10
_FEW = 8
"""Sequences of Shapley values and greedy orders: permutations err more than sequences do."""
_PAIRS = (2, 10)


@dataclass
class _Purse:
    """What may be spent, in forwards over all sequences.

    Attributes:
        experiment: that spends.
        most: in all.
        ranking: what one more ranking takes, kept back for what Shapley or greedy find.
    """

    experiment: Experiment
    most: float
    ranking: float = 0.0

    @property
    def left(self) -> float:
        surgery = self.experiment.surgery
        return self.most - surgery.forwards(self.experiment.sequences)

    @property
    def left_to_rank(self) -> float:
        """What is left beside the ranking of what is found."""
        return self.left - self.ranking


@dataclass(frozen=True)
class Table:
    """The game on some of the sequences: v of sets of the chosen components.

    Attributes:
        experiment: on these sequences.
        chosen: components, as writers of the graph.
        price: forwards of a set over all sequences.
    """

    experiment: Experiment
    chosen: Sequence[int]
    price: float

    @classmethod
    def on(cls, whole: Experiment, chosen: Sequence[int], rows: slice) -> Table:
        """The table on some of the sequences of an experiment."""
        part = replace(whole, pairs=whole.pairs.some(rows))
        return cls(part, chosen, part.sequences / whole.sequences)

    def value(self, sets_CN: np.ndarray) -> np.ndarray:
        """V of sets of the chosen components, bool, [C, S]."""
        writers = len(self.experiment.anatomy.graph.writers)
        masks_CW = np.zeros((len(sets_CN) + 1, writers), dtype=bool)
        masks_CW[1:, self.chosen] = sets_CN
        values_CS = self.experiment.values(masks_CW)
        return values_CS[1:] - values_CS[:1]

    def along(self, order_N: np.ndarray, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
        """V of the first k of an order, [K, S]."""
        rank_N = np.argsort(order_N, kind="stable")
        return self.value(rank_N[None] < np.array(sizes)[:, None])


def play(
    experiment: Experiment, chosen: Sequence[int], best_NS: np.ndarray, *,
    budget: float | None, draws: int, seed: int,
) -> Game | None:  # fmt: skip
    """The game, in the order of its worth: ranking by single effects, random sets, Shapley, greedy.

    Args:
        experiment: of the model.
        chosen: components.
        best_NS: their single effects, exact or estimated.
        budget: forwards in all, a bounded part of them for the game; None allows it `FREE`.
        draws: random orders.
        seed: of permutations and draws.

    Returns:
        What could be had; None where not even the ranking could, or nothing has a joint effect.
    """
    rng = np.random.default_rng(seed)
    spent = experiment.surgery.forwards(experiment.sequences)
    most = spent + FREE
    if budget is not None:
        most = min(budget, spent + max(min(FREE, HALF * budget), PART * budget))
    held = Table.on(experiment, chosen, held_out(experiment.sequences))
    single_N = best_NS[:, ::2].mean(axis=1)
    order_N = np.argsort(-np.abs(single_N), kind="stable")
    sizes = _sizes(len(chosen))
    purse = _Purse(experiment, most, held.price * (2 * len(sizes) + 2))
    if purse.left_to_rank < 0:
        return None
    first = _ranked("single", held, order_N, sizes)
    if first is None:
        return None
    random_DK, random_sizes = _random(held, order_N, draws, purse, rng)
    shares = _shares(experiment, chosen, best_NS, purse, rng)
    rankings = [first]
    if shares is not None:
        by_share = np.argsort(-_signed(shares.share_NS.mean(axis=1)), kind="stable")
        rankings.append(_ranked("shapley", held, by_share, sizes) or first)
    chain = _greedy(experiment, chosen, order_N, purse, min(r.n90 for r in rankings))
    if chain is not None:
        rankings.append(_ranked("greedy", held, chain, sizes) or first)
    had = {"random sets": len(random_DK) > 0, "shapley": shares is not None,
           "greedy": chain is not None}  # fmt: skip
    return Game(
        rankings=tuple(rankings),
        shapley_N=np.empty(0) if shares is None else shares.share_NS.mean(axis=1),
        stderr_N=np.empty(0) if shares is None else shares.stderr_N,
        pairs=0 if shares is None else shares.pairs,
        random_DK=random_DK,
        random_sizes=random_sizes,
        left_out=tuple(name for name, found in had.items() if not found),
    )


def _signed(share_N: np.ndarray) -> np.ndarray:
    """Shares in the direction of v(all): what works against it comes last."""
    return share_N * np.sign(share_N.sum())


def _sizes(n: int) -> list[int]:
    return sorted({1, n, *np.unique(np.geomspace(1, n, _SIZES).round().astype(int)).tolist()})


def _ranked(name: str, held: Table, order_N: np.ndarray, sizes: list[int]) -> Ranking | None:
    """V along an order; between the sizes around 90 % every size is run, or as many as these."""
    along = dict(zip(sizes, held.along(order_N, sizes), strict=True))
    whole = along[len(order_N)].mean()
    if whole == 0 or not np.isfinite(whole):
        return None
    reached = next(k for k in sizes if along[k].mean() / whole >= SHARE)
    below = max((k for k in sizes if k < reached), default=0)
    between = list(range(below + 1, reached))
    if len(between) > len(sizes):
        between = np.unique(np.linspace(below + 1, reached - 1, len(sizes)).astype(int)).tolist()
    if between:
        along |= dict(zip(between, held.along(order_N, between), strict=True))
    ks = sorted(along)
    return Ranking(name, order_N, np.array(ks), np.array([along[k] for k in ks]))


def random_orders(
    components: Sequence[Component], order_N: np.ndarray, *, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Orders whose k-th component is a random one of the same layer and kind as the ranking's.

    Their first k are random sets with as many components of every layer as the first k.

    Args:
        components: of the game.
        order_N: indices of components, the ranking.
        draws: how many.
        rng: draws them.

    Returns:
        Indices [draws, N].
    """
    alike = [c[:2] for c in components]
    of_N = np.array([alike.index(one) for one in alike])
    orders_DN = np.tile(order_N, (draws, 1))
    for drawn_N in orders_DN:
        for group in np.unique(of_N):
            places = np.flatnonzero(of_N[order_N] == group)
            drawn_N[places] = rng.permutation(order_N[places])
    return orders_DN


def _random(
    held: Table, order_N: np.ndarray, draws: int, purse: _Purse, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """V / v(all) of random orders [D, K], and the sizes K."""
    writers = held.experiment.anatomy.graph.writers
    sizes = _sizes(len(order_N))
    per_sequence = held.price / held.experiment.sequences * draws * (len(sizes) + 1)
    sequences = 0
    if draws:
        sequences = int(min(purse.left_to_rank / 3 / per_sequence, held.experiment.sequences))
    if sequences < min(2, held.experiment.sequences) or not draws:
        return np.empty((0, len(sizes))), np.array(sizes)
    some = Table.on(held.experiment, held.chosen, slice(0, sequences))
    components = [writers[c] for c in held.chosen]
    orders_DN = random_orders(components, order_N, draws=draws, rng=rng)
    along_DK = np.array([some.along(drawn_N, sizes).mean(axis=1) for drawn_N in orders_DN])
    if not along_DK[:, -1].all():
        return np.empty((0, len(sizes))), np.array(sizes)
    return along_DK / along_DK[:, -1:], np.array(sizes)


def _shares(
    experiment: Experiment, chosen: Sequence[int], best_NS: np.ndarray, purse: _Purse,
    rng: np.random.Generator,
) -> Shapley | None:  # fmt: skip
    """Shares, until their errors are those of single effects; None where the budget ended."""
    table = Table.on(experiment, chosen, slice(0, 2 * _FEW, 2))
    fewest, most = _PAIRS
    pairs = int(min(most, purse.left_to_rank * 2 / 3 / (2 * (len(chosen) + 1) * table.price)))
    if pairs < fewest:
        return None
    sequences = best_NS.shape[1]
    error_N = best_NS.var(axis=1, ddof=1) / sequences if sequences > 1 else np.zeros(1)
    enough = float(np.sqrt(error_N.mean()))
    return shapley(table.value, len(chosen), pairs=pairs, rng=rng, enough=enough)


def _greedy(
    experiment: Experiment, chosen: Sequence[int], order_N: np.ndarray, purse: _Purse, steps: int
) -> np.ndarray | None:
    """The greedy order up to 90 %, then the others as ranked; None where the budget ended.

    It is not begun where as many steps as the best ranking needs are more than can be had.
    """
    table = Table.on(experiment, chosen, slice(0, 2 * _FEW, 2))
    n = len(chosen)
    most = purse.left_to_rank / table.price - (n + 2)  # each step runs the clean model again
    if sum(n - step for step in range(steps)) > most:
        return None
    found_N = greedy(table.value, n, share=SHARE, most=most)
    if not len(found_N):
        return None
    return np.concatenate([found_N, order_N[~np.isin(order_N, found_N)]])
