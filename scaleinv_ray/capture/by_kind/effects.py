"""Effects of components on the answers to a probe in pairs.

Shape suffixes: N components, H sequences held out, K sizes of a set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from scaleinv_ray.capture.makers import PassRequest, labels_of, passes
from scaleinv_ray.circuitry.effects.interventions import Experiment
from scaleinv_ray.circuitry.effects.measuring import Asked, measure
from scaleinv_ray.circuitry.effects.record import Effects as Found
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import CircuitsProtocol
from scaleinv_ray.records import Effects

_SIZES = 10
"""Of sets of components, evenly spaced in their logarithm."""


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
        must_do=False, max_rows=max_rows, draws=0, game=False,
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
        size_K=None if joint is None else joint[0],
        along_KH=None if joint is None else joint[1],
        kept_F=found.kept_K if has_edges else None,
        faithful_F=found.faithful_K if has_edges else None,
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


def _jointly(
    experiment: Experiment, found: Found, budget: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Sizes, and v of the first of the ranking on each odd sequence; ranked on the even ones."""
    graph, count = experiment.anatomy.graph, len(found.components)
    sizes = np.unique(np.geomspace(1, count, min(_SIZES, count)).round().astype(np.int32))
    if budget is not None and found.forwards + (len(sizes) + 3) / 2 > budget:
        return None
    order = np.argsort(-np.abs(found.best_NS[:, ::2].mean(axis=1)), kind="stable")
    chosen = graph.named(tuple(str(found.components[n]) for n in order))
    held = replace(experiment, pairs=experiment.pairs.some(slice(1, None, 2)))
    values_CH = held.values(graph.masks([[], *(chosen[:k] for k in sizes)]))
    return sizes, values_CH[1:] - values_CH[:1]
