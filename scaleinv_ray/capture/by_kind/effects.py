"""Effects of components on the answers to a probe in pairs.

Shape suffixes: N components, H sequences held out, R the first of these, K sizes of a set, D draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.capture.makers import PassRequest, labels_of, passes
from scaleinv_ray.circuitry.effects.interventions import Experiment
from scaleinv_ray.circuitry.effects.joint import Table, random_orders
from scaleinv_ray.circuitry.effects.measuring import Asked, measure
from scaleinv_ray.circuitry.effects.record import Effects as Found
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import CircuitsProtocol
from scaleinv_ray.records import Effects
from scaleinv_ray.records.effects import held_out

_SIZES = 10
"""Of sets of components, evenly spaced in their logarithm."""
_DRAWS, _FEW = 10, 8
"""Random orders of components and of edges, and the sequences on which they are run, at most."""


@passes("effects")
def _effects(asked: PassRequest) -> Iterator[Effects]:
    settings = asked.settings
    assert isinstance(settings, CircuitsProtocol), "checked where the pass is chosen"
    if asked.pairs is None:
        raise ValueError("pairs: got none, needed for kind 'effects'")
    yield effects_of(
        Anatomy.of(asked.model),
        asked.pairs,
        settings,
        max_rows=asked.batch_size,
        labels=labels_of(asked.model, asked.protocol, asked.labels),
    )


def effects_of(
    anatomy: Anatomy, pairs: Pairs, settings: CircuitsProtocol, *, max_rows: int = 32,
    labels: dict[str, Any] | None = None,
) -> Effects:  # fmt: skip
    """The record of a model on pairs, whether it does the task or not: an untrained one is a null.

    Args:
        anatomy: of the model.
        pairs: clean and corrupted sequences.
        settings: what is wanted.
        max_rows: sequences of a batch.
        labels: fields of Record.

    Raises:
        ValueError: for what cannot be measured, before a forward pass.
    """
    wanted = Asked(
        settings.metric, settings.nodes, None, settings.ablation, settings.edges, settings.budget,
        must_do=False, max_rows=max_rows, draws=0 if settings.budget else _DRAWS,
        game=False,
    )  # fmt: skip
    found = measure(anatomy, pairs, wanted)
    experiment = Experiment(
        Surgery(anatomy, max_rows), pairs, found.metric, ablation=settings.ablation
    )
    joint = _jointly(experiment, found, settings.budget)
    has_edges = len(found.kept_K) > 0
    return Effects(
        effect_NS=found.best_NS,
        exact_N=found.exact_N.astype(np.int8),
        estimate_NS=found.estimate_NS if np.isfinite(found.estimate_NS).all() else None,
        layer_N=np.array([c.layer for c in found.components], dtype=np.int32),
        head_N=np.array(
            [c.head if c.kind == "head" else -1 for c in found.components], dtype=np.int32
        ),
        clean_S=found.clean_S,
        corrupted_S=found.corrupted_S,
        all_S=found.all_S,
        size_K=None if joint is None else joint.size_K,
        along_KH=None if joint is None else joint.along_KH,
        random_DKR=None if joint is None else joint.random_DKR,
        kept_F=found.kept_K if has_edges else None,
        alone_FH=found.alone_KH if has_edges else None,
        random_alone_GFQ=found.random_alone_DKF if len(found.random_alone_DKF) else None,
        between_MMS=found.between_MMS.astype(np.float32) if has_edges else None,
        metric=found.metric,
        ablation=found.ablation,
        method=found.method,
        num_edges=found.num_edges if settings.edges else None,
        accuracy=found.accuracy,
        acceptance=pairs.acceptance,
        forwards=found.forwards + experiment.surgery.forwards(experiment.sequences),
        site="model",
        **(labels or {}),
    )


class _Joint(NamedTuple):
    """Sets of components; v is m with a set replaced, minus m(A).

    Attributes:
        size_K: of the sets.
        along_KH: v of the first of the ranking.
        random_DKR: v of random ones; None without.
    """

    size_K: np.ndarray
    along_KH: np.ndarray
    random_DKR: np.ndarray | None


def _jointly(experiment: Experiment, found: Found, budget: int | None) -> _Joint | None:
    """Sets of components on each odd sequence; ranked on the even ones. None beyond the budget."""
    graph, count = experiment.anatomy.graph, len(found.components)
    size_K = np.unique(np.geomspace(1, count, min(_SIZES, count)).round().astype(np.int32))
    if budget is not None and found.forwards + (len(size_K) + 3) / 2 > budget:
        return None
    order_N = np.argsort(-np.abs(found.best_NS[:, ::2].mean(axis=1)), kind="stable")
    named = graph.named(tuple(str(c) for c in found.components))
    held = Table.on(experiment, named, held_out(experiment.sequences))
    along_KH = held.along(order_N, size_K)
    few = Table.on(held.experiment, named, slice(0, _FEW))
    left = np.inf
    if budget is not None:
        left = budget - found.forwards - experiment.surgery.forwards(experiment.sequences)
    part = few.experiment.sequences / experiment.sequences
    draws = int(min(_DRAWS, (left / part - 2) / len(size_K)))
    if draws < 2:
        return _Joint(size_K, along_KH, None)
    orders_DN = random_orders(found.components, order_N, draws=draws, rng=np.random.default_rng(0))
    random_DKR = np.stack([few.along(drawn_N, size_K) for drawn_N in orders_DN])
    return _Joint(size_K, along_KH, random_DKR)
