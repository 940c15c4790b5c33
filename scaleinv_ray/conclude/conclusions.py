"""What follows from measurements beside the verdicts: collapse, classes, stages, emergence.

Each function of `conservation` gets the rows it needs; nothing is captured or measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray import singularities, tables
from scaleinv_ray.conclude.aggregation.evaluations import REPLACED
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.tokenizers import several_tokenizers
from scaleinv_ray.conclude.conservation.verdicts_table import predict_named
from scaleinv_ray.conclude.evaluations import joined_with_rows, read_capabilities
from scaleinv_ray.conclude.training.emergence_over_runs import emergence_table
from scaleinv_ray.conclude.training.order import order_table
from scaleinv_ray.conclude.training.stages import stages_table
from scaleinv_ray.conclude.training.transitions import transitions_table
from scaleinv_ray.conclude.universality.classes import classes_table
from scaleinv_ray.conclude.universality.curves import collapse_table
from scaleinv_ray.conclude.universality.pairs import ceiling_table
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import Quantity
from scaleinv_ray.kinds import KINDS

Row = dict[str, Any]
Quantities = Mapping[tuple[str, str], Quantity]
SEED = 20_230_817
"""Of bootstraps over checkpoints and runs: fixed, so that a conclusion can be repeated."""
BEHAVIOUR = "behaviour"
"""Family whose quantities are capabilities of their own."""
BANDS = "bands"
"""Family whose curves are eigenvalues over training."""
MIN_CHECKPOINTS = 6
"""A break needs two segments of three checkpoints; runs with fewer are not searched."""

DERIVED: dict[str, pa.Schema] = {
    "collapses": tables.COLLAPSES,
    "classes": tables.CLASSES,
    "pairs": tables.PAIRS,
    "transitions": tables.TRANSITIONS,
    "stages": tables.STAGES,
    "orders": tables.ORDERS,
    "matches": tables.MATCHES,
    "capabilities": tables.CAPABILITIES,
    "unjoined": tables.UNJOINED,
    "emergence": tables.EMERGENCE,
}
"""Name of the file, without `.parquet` -> schema."""


def derive(
    measurements: Iterable[Mapping[str, Any]],
    curves: Iterable[Mapping[str, Any]],
    config: RunConfig,
    quantities: Quantities,
    *,
    within_runs: Iterable[Mapping[str, Any]] | None = None,
) -> dict[str, pa.Table]:
    """All derived tables of a run.

    Args:
        measurements: rows of tables.MEASUREMENTS, in one unit for all models.
        curves: rows of tables.CURVES.
        config: gives margin and files of capabilities.
        quantities: what is claimed of every quantity.
        within_runs: the rows in the units in which they were measured, for what looks at one run
            at a time; the same by default.

    Returns:
        Name -> table, for every name of `DERIVED`.
    """
    measured, curved = Rows.of(measurements), Rows.of(curves)
    published = [row for file in config.capabilities for row in read_capabilities(file)]
    joined = joined_with_rows(published, measured)
    capabilities = [*_built_in(measured), *joined.rows]
    # a curve of a model that was not measured is drawn beside the others
    beside = [row for row in joined.lost if row["value"] is not None and row["reason"] != REPLACED]
    followed = _followed(measured if within_runs is None else _of_runs(measured, within_runs))
    between = _between_models(curved, measured)
    moving = followed.joined(band_rows(curved, followed))
    transitions = transitions_table(moving, quantities=quantities, rng=np.random.default_rng(SEED))
    inner = followed.where(~followed.equal(family=BEHAVIOUR))
    rows = {
        "collapses": collapse_table(between),
        "classes": classes_table(
            measured,
            quantities=quantities,
            curve_rows=between,
            margin=config.conservation.margin,
        ),
        "pairs": ceiling_table(measured),
        "transitions": transitions,
        "stages": stages_table(transitions, moving, quantities=quantities),
        "orders": order_table(transitions, moving, quantities=quantities),
        "matches": singularities.matches_table(
            measured.where(measured.equal(invariant=singularities.INVARIANT))
        ),
        "capabilities": [
            {k: r.get(k) for k in tables.CAPABILITIES.names} for r in [*capabilities, *beside]
        ],
        "unjoined": [{k: r.get(k) for k in tables.UNJOINED.names} for r in joined.lost],
        "emergence": emergence_table(
            inner, capabilities, quantities=quantities, rng=np.random.default_rng(SEED)
        ),
    }
    return {name: tables.encode(rows[name], schema) for name, schema in DERIVED.items()}


def band_rows(curves: Rows, followed: Rows) -> list[Row]:
    """Bands over training as rows of measurements, a value for every checkpoint of its track.

    Args:
        curves: rows of tables.CURVES; those of the family of bands are read, over checkpoints that
            the run has (a curve over positions is none).
        followed: rows of the runs that are followed over training.

    Returns:
        Rows with the columns of tables.MEASUREMENTS, the curve's name as quantity.
    """
    blank = dict.fromkeys(tables.MEASUREMENTS.names)
    steps: dict[tuple[str, int], set[int]] = {}
    for model, seed, step in followed.distinct(("model", "seed", "step"))[1]:
        steps.setdefault((model, seed), set()).add(step)
    shared = [name for name in tables.CURVES.names if name in blank]
    out = []
    for curve in curves.where(curves.equal(family=BANDS)):
        known = steps.get((curve["model"], curve["seed"]), set())
        if len(curve["x"]) < MIN_CHECKPOINTS or set(curve["x"]) - known:
            continue
        common = blank | {name: curve[name] for name in shared}
        common |= {"quantity": curve["curve"], "law": "none", "status": "ok"}
        common |= {"train_tokens": None, "eval_loss": None}
        out += [
            common | {"step": int(x), "value": y}
            for x, y in zip(curve["x"], curve["y"], strict=True)
        ]
    return out


def predicted(
    measurements: Iterable[Mapping[str, Any]], config: RunConfig, quantities: Quantities
) -> list[Row]:
    """Predictions of larger models that the config names.

    Args:
        measurements: rows of tables.MEASUREMENTS.
        config: names the models.
        quantities: what is claimed of every quantity.

    Returns:
        Rows of tables.PREDICTIONS, nothing observed.
    """
    return [
        row
        for target in config.conservation.predict
        for row in predict_named(
            measurements,
            quantities=quantities,
            n_params=target.n_params,
            model=target.model,
            margin=config.conservation.margin,
            comparisons=[f"equal_{name}" for name in config.conservation.comparisons],
        )
    ]


def _built_in(measurements: Rows) -> list[Row]:
    """Capabilities read off token losses: gains over what a model without them would have."""
    return [
        {
            "model": row["model"],
            "seed": row["seed"],
            "step": row["step"],
            "tokens": row["train_tokens"],
            "n_params": row["n_params"],
            "task": row["probe"],
            "metric": row["quantity"],
            "value": row["value"],
            "stderr": row["stderr"],
            "chance": None if row["quantity"] == "loss" else 0.0,
        }
        for row in measurements.where(
            measurements.equal(family=BEHAVIOUR, status="ok", variant="trained")
            & measurements.known("train_tokens")
        )
    ]


def _of_runs(measured: Rows, within_runs: Iterable[Mapping[str, Any]]) -> Rows:
    """The rows in which each run has one unit over all of its steps."""
    own = Rows.of(within_runs)
    made_with: dict[tuple[str, int], set[str | None]] = {}
    told = "tokenizer" in own.columns
    for model, seed, tokenizer in own.distinct(("model", "seed", "tokenizer"))[1] if told else ():
        made_with.setdefault((model, seed), set()).add(tokenizer)
    one_each = all(len(names) == 1 for names in made_with.values())
    return own if one_each else measured


def _between_models(curves: Rows, measurements: Rows) -> Rows:
    """The curves that models have in common: without those of losses where tokenizers differ."""
    several = several_tokenizers(measurements)
    if not several:
        return curves
    of_losses = {name for name, kind in KINDS.items() if kind.of_losses}
    return curves.where(
        ~(
            curves.holds("series", several.__contains__)
            & curves.holds("capture", of_losses.__contains__)
        )
    )


def _followed(rows: Rows) -> Rows:
    """Rows of the trained runs that have checkpoints enough to be followed over training."""
    trained = rows.equal(variant="trained")
    steps: dict[tuple[str, int], set[int]] = {}
    stepped = rows.where(trained & rows.known("step") & ~rows.known("unit_b"))
    for model, seed, step in stepped.distinct(("model", "seed", "step"))[1]:
        steps.setdefault((model, seed), set()).add(step)
    long = {run for run, at in steps.items() if len(at) >= MIN_CHECKPOINTS}
    return rows.where(trained & rows.among(("model", "seed"), long))
