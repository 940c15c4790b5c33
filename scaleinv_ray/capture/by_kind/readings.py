"""What is read off the stream of a probe's clean sequences, and what rules say of the decisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scaleinv_ray.capture.makers import PassRequest, labels_of, passes
from scaleinv_ray.circuitry.readings.context import Context
from scaleinv_ray.circuitry.readings.linear import Probed, probe, streams, targets
from scaleinv_ray.circuitry.readings.rules import decisions, held_out_trees
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.records import Readings


@passes("readings")
def _readings(asked: PassRequest) -> Iterator[Readings]:
    if asked.pairs is None:
        raise ValueError("pairs: got none, needed for kind 'readings'")
    labels = labels_of(asked.model, asked.protocol, asked.labels)
    yield readings_of(Anatomy.of(asked.model), asked.pairs.tokens_A_ST, labels=labels)


def readings_of(
    anatomy: Anatomy, tokens_ST: np.ndarray, *, labels: dict[str, Any] | None = None
) -> Readings:
    """The record of a model on sequences.

    Token ids alone are looked at, not their text, so that models of other tokenizers, and without
    one, have the same targets and features. Control labels are drawn alike for every model.

    Args:
        anatomy: of the model.
        tokens_ST: sequences, four or more.
        labels: fields of Record.

    Raises:
        ValueError: for fewer sequences than are needed to hold some out.
    """
    context = Context(tokens_ST)
    stream_LSTD = streams(anatomy, tokens_ST)
    previous, repeated = (
        probe(target, stream_LSTD, np.random.default_rng(0))
        for target in targets(context)
        if target.name in {"previous token", "repeated before"}
    )
    trees = held_out_trees(context, decisions(anatomy, tokens_ST))
    return Readings(
        leaves_K=np.array(trees.leaves),
        agreed_KH=trees.agreed_KS,
        majority_H=trees.majority_S,
        decisions=len(trees.rows.decision_R),
        **_arrays("previous", "LS", previous),
        **_arrays("repeated", "LU", repeated),
        site="model",
        **(labels or {}),
    )


def _arrays(name: str, axes: str, found: Probed | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        f"{name}_{axes}": found.right_LS,
        f"{name}_control_{axes}": found.control_LS,
        f"{name}_chance": found.chance,
    }
