"""What follows from measurements beside the verdicts: collapse, classes, stages, emergence.

Each function of `conservation` gets the rows it needs; nothing is captured or measured here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scaleinv_ray import conservation, singularities, tables
from scaleinv_ray.config import CapabilityFile, RunConfig
from scaleinv_ray.contract import Quantity
from scaleinv_ray.paths import expanded

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
    "emergence": tables.EMERGENCE,
}
"""Name of the file, without `.parquet` -> schema."""


def derive(
    measurements: Sequence[Row], curves: Sequence[Row], config: RunConfig, quantities: Quantities
) -> dict[str, pa.Table]:
    """All derived tables of a run.

    Args:
        measurements: rows of tables.MEASUREMENTS.
        curves: rows of tables.CURVES.
        config: gives margin and files of capabilities.
        quantities: what is claimed of every quantity.

    Returns:
        Name -> table, for every name of `DERIVED`.
    """
    capabilities = [
        *_built_in(measurements),
        *(row for file in config.capabilities for row in read_capabilities(file)),
    ]
    followed = _followed(measurements)
    moving = [*followed, *band_rows(curves, followed)]
    transitions = conservation.transitions_table(
        moving, quantities=quantities, rng=np.random.default_rng(SEED)
    )
    inner = [row for row in followed if row["family"] != BEHAVIOUR]
    rows = {
        "collapses": conservation.collapse_table(curves),
        "classes": conservation.classes_table(
            measurements,
            quantities=quantities,
            curve_rows=curves,
            margin=config.conservation.margin,
        ),
        "pairs": conservation.ceiling_table(measurements),
        "transitions": transitions,
        "stages": conservation.stages_table(transitions, moving, quantities=quantities),
        "orders": conservation.order_table(transitions, moving, quantities=quantities),
        "matches": singularities.matches_table(measurements),
        "capabilities": [{k: r.get(k) for k in tables.CAPABILITIES.names} for r in capabilities],
        "emergence": conservation.emergence_table(
            inner, capabilities, quantities=quantities, rng=np.random.default_rng(SEED)
        ),
    }
    return {name: tables.encode(rows[name], schema) for name, schema in DERIVED.items()}


def band_rows(curves: Sequence[Row], followed: Sequence[Row]) -> list[Row]:
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
    for row in followed:
        steps.setdefault((row["model"], row["seed"]), set()).add(row["step"])
    shared = [name for name in tables.CURVES.names if name in blank]
    out = []
    for curve in curves:
        known = steps.get((curve["model"], curve["seed"]), set())
        if curve["family"] != BANDS or len(curve["x"]) < MIN_CHECKPOINTS or set(curve["x"]) - known:
            continue
        common = blank | {name: curve[name] for name in shared}
        common |= {"quantity": curve["curve"], "law": "none", "status": "ok"}
        common |= {"train_tokens": None, "eval_loss": None}
        out += [
            common | {"step": int(x), "value": y}
            for x, y in zip(curve["x"], curve["y"], strict=True)
        ]
    return out


def read_capabilities(file: CapabilityFile) -> list[Row]:
    """Rows of a file of published evaluations.

    Args:
        file: a results.json of lm-evaluation-harness in either layout, or a Parquet table with the
            columns of Pythia's evaluations.

    Returns:
        Rows with the columns of tables.CAPABILITIES.

    Raises:
        ValueError: where the file is neither.
    """
    path = expanded(file.file)
    needed = ["model", "fewshot", "step", "task", "metric", "value", "stderr"]
    try:
        if path.suffix == ".parquet":
            have = pq.read_schema(path).names
            table = pq.read_table(path, columns=[n for n in needed if n in have])
        else:
            results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"capabilities: {path}: got no JSON and no Parquet ({error})") from error
    if path.suffix == ".parquet":
        if missing := [n for n in needed if n not in have]:
            raise ValueError(f"capabilities: {path}: got columns {have}, lacks {missing}")
        return conservation.from_pythia(tables.decode(table), fewshot=file.fewshot)
    return conservation.from_lm_eval(results, tokens_per_step=file.tokens_per_step)


def capability_digest(config: RunConfig) -> str:
    """Digest of the contents of all files of capabilities."""
    contents = [expanded(file.file).read_bytes() for file in config.capabilities]
    return hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in contents)).hexdigest()


def predicted(measurements: Sequence[Row], config: RunConfig, quantities: Quantities) -> list[Row]:
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
        for row in conservation.predict_named(
            measurements,
            quantities=quantities,
            n_params=target.n_params,
            model=target.model,
            margin=config.conservation.margin,
            comparisons=[f"equal_{name}" for name in config.conservation.comparisons],
        )
    ]


def _built_in(measurements: Sequence[Row]) -> list[Row]:
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
        for row in measurements
        if row["family"] == BEHAVIOUR
        and row["status"] == "ok"
        and row["variant"] == "trained"
        and row["train_tokens"] is not None
    ]


def _followed(rows: Sequence[Row]) -> list[Row]:
    """Rows of the trained runs that have checkpoints enough to be followed over training."""
    steps: dict[tuple[str, int], set[int]] = {}
    for row in rows:
        if row["variant"] == "trained" and row["step"] is not None and row["unit_b"] is None:
            steps.setdefault((row["model"], row["seed"]), set()).add(row["step"])
    long = {run for run, at in steps.items() if len(at) >= MIN_CHECKPOINTS}
    return [r for r in rows if (r["model"], r["seed"]) in long and r["variant"] == "trained"]
