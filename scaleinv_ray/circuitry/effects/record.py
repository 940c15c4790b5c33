"""Effects of components, sequence by sequence, and how they were measured.

Shape suffixes: N components, E edges, S sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scaleinv_ray.circuitry.surgery.components import Component


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
        kept_K: shares of edges kept, the largest by the estimator, all others from B.
        faithful_K: (m(kept alone) - m(B)) / (m(A) - m(B)), on other sequences than the ranking.
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
    kept_K: np.ndarray = field(default_factory=lambda: np.empty(0))
    faithful_K: np.ndarray = field(default_factory=lambda: np.empty(0))

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

    def agreement(self) -> float | None:
        """Pearson r of estimates with exact effects, None with fewer than four or no spread."""
        exact = self.effect_NS[self.exact_N].mean(axis=1)
        estimated = self.estimate_NS[self.exact_N].mean(axis=1)
        if len(exact) < 4 or exact.std() == 0 or estimated.std() == 0:
            return None
        return float(np.corrcoef(exact, estimated)[0, 1])
