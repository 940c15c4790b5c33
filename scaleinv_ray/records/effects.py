"""The record of circuits: what replacing each component of a model does to an answer.

Shape suffixes: N components, S sequences, H of them held out, R and Q the first of these, D and G
draws, K sizes of a set, F shares of edges, M components with the embedding and the logits.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaleinv_ray.records import Record, Variant


def held_out(sequences: int) -> slice:
    """Which sequences are kept from rankings, to judge them: every second one, or all of one."""
    return slice(1, None, 2) if sequences > 1 else slice(None)


@dataclass(frozen=True, kw_only=True)
class Effects(Record):
    """Effects of N components on S pairs of a clean sequence A and a corrupted one B.

    An effect is m(A with the component replaced) - m(A), m being the metric, one value a sequence.

    Attributes:
        effect_NS: exact ones; the estimator's where a budget has left a component to it.
        exact_N: 1 where they are exact, else 0.
        estimate_NS: by gradients; None where none were taken.
        layer_N: block of each component, -1 of the embedding.
        head_N: of heads; -1 of MLPs and the embedding.
        clean_S: m(A).
        corrupted_S: m(B).
        all_S: m with all components replaced, minus m(A).
        size_K: sizes of sets, the largest effects first, the last one all; None where the budget
            left nothing for them.
        along_KH: m with the first of the ranking replaced together, minus m(A), on sequences that
            have not made the ranking.
        random_DKR: the same of random sets, each with as many components of every layer and kind
            as the first of the ranking; None where the budget left nothing for them.
        kept_F: shares of edges, the largest first; None where edges were not asked for.
        alone_FH: m with these edges kept alone, all others carrying B.
        random_alone_GFQ: the same of random edges; None with a budget.
        between_MMS: effect of the edge from each component to each other by integrated gradients,
            0 where there is none; embedding first, logits last.
        metric: name of m.
        ablation: what replaces.
        method: of the estimator, with where its gradients were taken.
        num_edges: of the whole graph; None where edges were not asked for.
        accuracy: share of answers that are the model's first choice.
        acceptance: share of the drawn pairs that could be used.
        forwards: forward passes over the sequences that all this took.
        variant: what is done to the model; None as trained.
    """

    arrays: ClassVar[tuple[str, ...]] = (
        "effect_NS",
        "exact_N",
        "estimate_NS",
        "layer_N",
        "head_N",
        "clean_S",
        "corrupted_S",
        "all_S",
        "size_K",
        "along_KH",
        "random_DKR",
        "kept_F",
        "alone_FH",
        "random_alone_GFQ",
        "between_MMS",
    )
    effect_NS: np.ndarray
    exact_N: np.ndarray
    layer_N: np.ndarray
    head_N: np.ndarray
    clean_S: np.ndarray
    corrupted_S: np.ndarray
    all_S: np.ndarray
    estimate_NS: np.ndarray | None = None
    size_K: np.ndarray | None = None
    along_KH: np.ndarray | None = None
    random_DKR: np.ndarray | None = None
    kept_F: np.ndarray | None = None
    alone_FH: np.ndarray | None = None
    random_alone_GFQ: np.ndarray | None = None
    between_MMS: np.ndarray | None = None
    metric: str = "logit_diff"
    ablation: str = "resample"
    method: str = "none"
    num_edges: int | None = None
    accuracy: float | None = None
    acceptance: float = 1.0
    forwards: float | None = None
    variant: Variant | None = None

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record, and how the effects were measured."""
        held = {f.name for f in dataclasses.fields(Record)} | set(self.arrays)
        own = [f.name for f in dataclasses.fields(self) if f.name not in held]
        return super().labels() | {name: getattr(self, name) for name in own}

    @property
    def held_out(self) -> slice:
        """Which of the sequences have made no ranking: every second one, or all of one."""
        return held_out(len(self.clean_S))

    def of(self, variant: Variant) -> Effects:
        """The same record, of a unit: one capture of equal weights may serve several of them."""
        return dataclasses.replace(self, variant=variant)
