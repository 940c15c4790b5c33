"""Files of published evaluations: read and checked before any work, joined with the runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pyarrow.parquet as pq

from scaleinv_ray import checkpoints, tables
from scaleinv_ray.conclude.aggregation.evaluations import Joined, Seen, join_evaluations
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.config import CapabilityFile, RunConfig
from scaleinv_ray.inputs.json_files import check_is_there, read_json
from scaleinv_ray.inputs.paths import expanded
from scaleinv_ray.plan import Plan

Row = dict[str, Any]
_NEEDED = ("model", "fewshot", "step", "task", "metric", "value", "stderr")


class CapabilityRow(TypedDict):
    """What models can do over training: read off token losses, and published."""

    model: str | None
    seed: int | None
    step: int | None
    tokens: int | None
    n_params: int | None
    task: str
    metric: str
    value: float | None
    stderr: float | None
    chance: Annotated[float | None, "value of a model that guesses"]


class UnjoinedRow(TypedDict):
    """Published evaluations that are of no checkpoint of the run, each with the reason."""

    file: Annotated[str | None, "where it was read"]
    model: str | None
    step: int | None
    tokens: int | None
    task: str
    metric: str
    value: float | None
    reason: str


def read_capabilities(file: CapabilityFile) -> list[Row]:
    """Rows of a file of published evaluations.

    Args:
        file: a results.json of lm-evaluation-harness in either layout, or a Parquet table with the
            columns of Pythia's evaluations.

    Returns:
        Rows with the columns of capabilities, the file, and the problem of those without a value
        that can be used.

    Raises:
        ValueError: where the file is neither, naming it and what in it is not as it should be.
    """
    path = expanded(file.file)
    is_table = path.suffix == ".parquet"
    try:
        content: Any = _read_table(path) if is_table else read_json(path)
    except (OSError, ValueError) as error:
        said = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"capabilities: {path}: got no JSON and no Parquet ({said})") from error
    try:
        rows = (
            checkpoints.from_pythia(content, fewshot=file.fewshot)
            if is_table
            else checkpoints.from_lm_eval(content, tokens_per_step=file.tokens_per_step)
        )
    except ValueError as error:
        raise ValueError(f"capabilities: {path}: {error}") from error
    return [row | {"file": file.file} for row in rows]


def joined_with_plan(config: RunConfig, plan: Plan) -> Joined:
    """The evaluations that a config names joined with the trained models of its plan."""
    rows = [row for file in config.capabilities for row in read_capabilities(file)]
    trained = [unit.checkpoint for unit in plan.units if unit.variant == "trained"]
    return join_evaluations(rows, [Seen(c.model, c.seed, c.step, c.train_tokens) for c in trained])


def joined_with_rows(rows: Iterable[Row], measurements: Rows) -> Joined:
    """Evaluations joined with the trained models that were measured."""
    trained = measurements.where(
        measurements.equal(variant="trained") & ~measurements.known("unit_b")
    )
    seen = [Seen(*of) for of in trained.distinct(("model", "seed", "step", "train_tokens"))[1]]
    return join_evaluations(rows, seen)


def capability_row(row: Mapping[str, Any]) -> CapabilityRow:
    """An evaluation as a row of capabilities."""
    return {
        "model": row["model"],
        "seed": row.get("seed"),
        "step": row["step"],
        "tokens": row["tokens"],
        "n_params": row.get("n_params"),
        "task": row["task"],
        "metric": row["metric"],
        "value": row["value"],
        "stderr": row["stderr"],
        "chance": row.get("chance"),
    }


def unjoined_row(row: Mapping[str, Any]) -> UnjoinedRow:
    """An evaluation that is of no run as a row."""
    return {
        "file": row.get("file"),
        "model": row["model"],
        "step": row["step"],
        "tokens": row["tokens"],
        "task": row["task"],
        "metric": row["metric"],
        "value": row["value"],
        "reason": row["reason"],
    }


def capability_digest(config: RunConfig) -> str:
    """Digest of the contents of all files of capabilities."""
    contents = [expanded(file.file).read_bytes() for file in config.capabilities]
    return hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in contents)).hexdigest()


def _read_table(path: Path) -> list[Row]:
    check_is_there(path)  # to open a pipe waits for ever
    with path.open("rb") as stream:  # a folder is no file of evaluations, pyarrow would read it
        have = pq.read_schema(stream).names
        if missing := [name for name in _NEEDED if name not in have]:
            raise ValueError(f"got columns {', '.join(have)[:120]}, lacks {', '.join(missing)}")
        stream.seek(0)
        return tables.decode(pq.read_table(stream, columns=list(_NEEDED)))
