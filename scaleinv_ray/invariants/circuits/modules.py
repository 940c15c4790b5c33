"""Whether the parts of a model fall into modules: Louvain Q beside rewirings of the same graph.

Shape suffixes: N components, S sequences (the replicates), E pairs that are joined.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.resample import jackknife

REWIRINGS = 39
"""With these the level .05 is that of being among the two largest of forty."""
_FLOOR = 1e-6
"""Of the largest weight: less has no part in Q, and its logarithm would outweigh all others."""


@dataclass(frozen=True)
class Modularity:
    """Modularity of a weighted graph, and of others with its strengths.

    Attributes:
        q: Louvain Q; trivial is what rewirings have, not 0.
        rewired_R: of each rewiring.
        module_N: number of the module of each component, the largest module first.
        excess: Q - mean of rewirings, trivial 0; its error is that over sequences at the modules
            found, with that of the mean of rewirings.
    """

    q: float
    rewired_R: np.ndarray
    module_N: np.ndarray
    excess: Estimate

    @property
    def z(self) -> float:
        """Excess over the standard deviation of rewirings."""
        sd = self.rewired_R.std(ddof=1)
        return float((self.q - self.rewired_R.mean()) / sd) if sd > 0 else 0.0

    @property
    def p(self) -> float:
        """Share of the graphs, this one among them, that are at least as modular."""
        # a hair of rounding between equal graphs is no difference
        above = (self.rewired_R >= self.q - 1e-12).sum()
        return float((1 + above) / (1 + len(self.rewired_R)))


def modularity(
    effect_NNS: np.ndarray, *, rng: np.random.Generator, rewirings: int = REWIRINGS
) -> Modularity:
    """Louvain Q of |edge effects| as an undirected graph, minus Q of rewirings.

    Q = sum over modules of w_in / w - (s / 2 w)^2, w the sum of weights, w_in that within a module,
    s the strengths of its members (Newman & Girvan 2004), maximised by Blondel et al. 2008. A dense
    graph of unequal weights has Q > 0 without modules, hence the rewirings: the same pairs are
    joined (every degree is kept; where components see all that come before, no edge could be
    swapped), and ln w = a_i + a_j + rest, with the rest shuffled among pairs (residuals permuted
    under a reduced model: Freedman & Lane 1983). Weights alone shuffled would not do: components
    that are strong with all others look like modules then.

    Args:
        effect_NNS: effect of the edge from each component to each other, by sequence; 0 where there
            is no edge. Its two directions add up.
        rng: draws rewirings and the order in which Louvain goes over components.
        rewirings: how many.

    Returns:
        Q beside the rewirings.

    Raises:
        ValueError: with fewer than 20 rewirings.
        Refused: with fewer than four components that have edges.

    >>> block = np.kron(np.eye(2), np.ones((4, 4))) * (1 - np.eye(8))
    >>> found = modularity(block[..., None] + .01, rng=np.random.default_rng(0))
    >>> found.module_N.tolist(), found.p <= 0.05
    ([0, 0, 0, 0, 1, 1, 1, 1], True)
    """
    if rewirings < 20:
        raise ValueError(f"rewirings: got {rewirings}, allowed >= 20")
    weight_NN = _undirected(effect_NNS)
    joined = int((weight_NN > 0).any(axis=0).sum())
    if joined < 4:
        raise Refused(f"edges: got {joined} components that have any, allowed >= 4")
    module_N = _louvain(weight_NN, rng)
    q = partition_q(weight_NN, module_N)
    found = [rewired(weight_NN, rng) for _ in range(rewirings)]
    rewired_R = np.array([partition_q(w_NN, _louvain(w_NN, rng)) for w_NN in found])
    excess = q - float(rewired_R.mean())
    sequences = effect_NNS.shape[2]
    if sequences < 2:
        return Modularity(q, rewired_R, module_N, Estimate(excess, None, sequences, "none"))
    # the modules maximise Q, so that in first order Q moves as if they were fixed
    over = jackknife(
        lambda kept: partition_q(_undirected(effect_NNS[..., kept]), module_N), sequences
    )
    assert over.stderr is not None, "a jackknife has an error"
    stderr = float(np.hypot(over.stderr, rewired_R.std(ddof=1) / np.sqrt(rewirings)))
    return Modularity(q, rewired_R, module_N, Estimate(excess, stderr, sequences, "jackknife"))


def partition_q(weight_NN: np.ndarray, module_N: np.ndarray) -> float:
    """Q of a division into modules.

    Args:
        weight_NN: symmetric, >= 0.
        module_N: of each component.

    Returns:
        At most 1; 0 of a single module.

    >>> partition_q(np.kron(np.eye(2), np.ones((2, 2))), np.array([0, 0, 1, 1]))
    0.5
    """
    total = weight_NN.sum()
    same_NN = module_N[:, None] == module_N
    strength_N = weight_NN.sum(axis=1)
    expected = (strength_N @ same_NN) @ strength_N / total
    return float((weight_NN[same_NN].sum() - expected) / total)


def rewired(weight_NN: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same pairs joined, each component as strong as before, the rest of the weights shuffled.

    Args:
        weight_NN: symmetric, >= 0, without a diagonal.
        rng: shuffles.

    Returns:
        Another graph; the mean of ln w over the pairs of a component is that of this one.
    """
    joined_NN = weight_NN > 0
    upper = np.nonzero(np.triu(joined_NN, 1))
    gram_NN = np.linalg.pinv(joined_NN + np.diag(joined_NN.sum(axis=1)), hermitian=True)

    def rest(x_NN: np.ndarray) -> np.ndarray:
        """What is left of the pairs beside a_i + a_j, by least squares."""
        a_N = gram_NN @ x_NN.sum(axis=1)
        return np.where(joined_NN, x_NN - a_N[:, None] - a_N, 0)

    least = _FLOOR * weight_NN.max()
    log_NN = np.where(joined_NN, np.log(np.maximum(weight_NN, least)), 0)
    rest_NN = rest(log_NN)
    mixed_NN = np.zeros_like(weight_NN)
    mixed_NN[upper] = rng.permutation(rest_NN[upper])
    # a shuffled rest is not free of strengths any more: that part goes, and its size comes back
    mixed_NN = rest(mixed_NN + mixed_NN.T)
    mixed_NN *= np.linalg.norm(rest_NN) / max(float(np.linalg.norm(mixed_NN)), 1e-300)
    return np.where(joined_NN, np.exp(log_NN - rest_NN + mixed_NN), 0)


def _undirected(effect_NNS: np.ndarray) -> np.ndarray:
    size_NN = np.abs(effect_NNS.mean(axis=2))
    np.fill_diagonal(size_NN, 0)
    return size_NN + size_NN.T


def _louvain(weight_NN: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    graph = nx.from_numpy_array(weight_NN)
    found = nx.community.louvain_communities(graph, seed=int(rng.integers(2**31)))
    module_N = np.empty(len(weight_NN), dtype=np.int64)
    for number, members in enumerate(sorted(found, key=lambda m: (-len(m), min(m)))):
        module_N[list(members)] = number
    return module_N
