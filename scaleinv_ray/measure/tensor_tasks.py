"""Measurements of large checkpoints, tensor by tensor.

Where the weights exceed `LARGE_BYTES`, an invariant of single matrices is measured by a task for
each stored tensor, the longest first, small ones grouped by the driver as any other work. A task
asks for the memory that its tensor needs. The tables of a part go to `parts/KEY-INDEX.parquet`;
when all are there, the measurement is assembled of them, equal to that of an undivided reading, and
they are deleted. A resubmitted run makes the parts that are missing, nothing else.

Undivided stay trajectories, which read a tensor at every step together, and `random_init` without a
step 0, whose model is built whole, since its random numbers come in the order of construction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from scaleinv_ray import checkpoints, tables
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.checkpoints.files.contents import is_bias, is_stack
from scaleinv_ray.checkpoints.files.header_format import TensorHeader
from scaleinv_ray.checkpoints.files.headers import read_header, shard_files
from scaleinv_ray.checkpoints.files.roles import tensor_role
from scaleinv_ray.cost_model import LARGE_BYTES, weight_seconds
from scaleinv_ray.measure.inventory import PARTS, beside, whole_parts, with_beside
from scaleinv_ray.measure.measuring import (
    MeasuredRows,
    failed_rows,
    measure,
    outcome_of,
    rows_of,
    write_measurement,
)
from scaleinv_ray.plan.costs import model_bytes
from scaleinv_ray.plan.jobs import FAILED, MeasureJob, Outcome, Part, WeightSource
from scaleinv_ray.store import Store

_CURVES, _DIAGRAMS = ".curves.parquet", ".diagrams.parquet"
_SUFFIXES = (_CURVES, _DIAGRAMS, ".parquet")
_BASE_BYTES = 450e6
_GRAM_COPIES = 4
_MORE_COPIES = {"holomorphy.stieltjes_poles": 18}
"""Invariants that hold more arrays of the size of the Gram matrix at a time."""
_SLAB = 8192
_STACK_COPIES = 3
"""Of a stack as stored: the file, and two where its entries are shuffled."""


def task_bytes(shape: Sequence[int], item_bytes: int, invariant: str = "") -> int:
    """Memory of a task that measures one stored tensor.

    With E entries in b bytes, and M the smaller and N the larger side:
    450 MB (interpreter, libraries, Ray) + E (b + 12) + 8 (4 M^2 + min(N, 8192) M): the mapped file,
    its float32 copy and two more of that size (pieces of a fused projection, a shuffle), the Gram
    matrix with what LAPACK copies of it, and a slab of rows in float64. Peaks measured at
    4096 x 1024, 8192 x 2048 and 25,000 x 1024 were 1.03 to 1.35 times smaller.

    Args:
        shape: as stored, two dimensions or more.
        item_bytes: of an entry as stored.
        invariant: its name; that of Stieltjes poles holds 18 M^2, not 4.

    Returns:
        Bytes.

    >>> task_bytes((2048, 8192), 2) // 1_000_000
    953
    """
    rows, columns = shape[0], math.prod(shape[1:])
    small, large = min(rows, columns), max(rows, columns)
    held = rows * columns * (item_bytes + 12)
    copies = _MORE_COPIES.get(invariant, _GRAM_COPIES)
    worked = 8 * (copies * small**2 + min(large, _SLAB) * small)
    return int(_BASE_BYTES + held + worked)


def parts_of(job: MeasureJob) -> tuple[Part, ...]:
    """The tensors by which a measurement is made.

    Returns:
        One part for each stored tensor that may be a matrix; none where the measurement is
        made in one piece. What is wrong with the files is left to the task to say.
    """
    source = _large_source(job)
    if source is None:
        return ()
    checkpoint = source.checkpoint
    try:
        stored = _tensors(checkpoint, source.variant == "random_init")
    except (ValueError, OSError):
        return ()
    return tuple(
        Part(
            tensor=name,
            index=index,
            **_costs(name, header, job),
            **_place(name, checkpoint),
        )
        for index, name, header in stored
    )


def _costs(name: str, header: TensorHeader, job: MeasureJob) -> dict[str, Any]:
    """Memory and seconds of a tensor; a stack of experts is measured one matrix at a time."""
    shape, each, count = header.shape, _item_bytes(header), 1
    if is_stack(name, len(shape)):
        count, *rest = shape
        shape = tuple(rest)
    besides = (count - 1) * math.prod(shape) * each * _STACK_COPIES
    return {
        "memory": task_bytes(shape, each, job.invariant) + besides,
        "seconds": count * weight_seconds(job.invariant, job.params, shape),
    }


def largest_first(jobs: Sequence[MeasureJob]) -> list[MeasureJob]:
    """Measurements of large checkpoints before the others, which stay in order."""
    return sorted(jobs, key=_num_bytes, reverse=True)


def _num_bytes(job: MeasureJob) -> int:
    """Of the weights of a measurement that is made in parts, else 0."""
    source = _large_source(job)
    return model_bytes(source.checkpoint) if source else 0


def _large_source(job: MeasureJob) -> WeightSource | None:
    """The weights of a measurement of single matrices, where they are large."""
    source = job.source
    if not isinstance(source, WeightSource) or job.spec.signature != "one":
        return None
    return source if model_bytes(source.checkpoint) > LARGE_BYTES else None


@lru_cache(maxsize=8)  # every invariant of a checkpoint asks for the same
def _tensors(checkpoint: Checkpoint, initial: bool) -> tuple[tuple[int, str, TensorHeader], ...]:
    """Tensors that hold matrices or should, in the order in which they are streamed, numbered."""
    headers = _headers(checkpoint, initial)
    ordered = [item for file in sorted(headers) for item in sorted(headers[file].items())]
    held = [(name, of) for name, of in ordered if len(of.shape) >= 2 or 0 in of.shape]
    # what is no matrix has its number too: parts that an earlier version has left keep theirs
    return tuple((i, name, of) for i, (name, of) in enumerate(held) if not is_bias(name))


def _headers(checkpoint: Checkpoint, initial: bool) -> dict[str, dict[str, TensorHeader]]:
    """File -> headers; of a model on the hub without a download of its weights."""
    folder = checkpoint.init_folder if initial else checkpoint.folder
    commit = checkpoint.init_commit if initial else checkpoint.commit
    if folder is None and (not checkpoint.repo or commit is None):
        return {}
    if folder is None and checkpoint.repo:
        from huggingface_hub import HfApi, errors, is_offline_mode

        if not is_offline_mode():
            try:
                found = HfApi().get_safetensors_metadata(checkpoint.repo, revision=commit)
            except (
                errors.HTTPError,
                errors.NotASafetensorsRepoError,
                errors.SafetensorsParsingError,
            ) as error:
                raise ValueError(f"{checkpoint.repo}: {error}") from error
            return {
                file: {n: TensorHeader(t.dtype, tuple(t.shape)) for n, t in of.tensors.items()}
                for file, of in found.files_metadata.items()
            }
        folder = checkpoints.fetch_init(checkpoint) if initial else checkpoints.fetch(checkpoint)
    return {file.name: read_header(file) for file in shard_files(Path(str(folder)))}


def _item_bytes(header: TensorHeader) -> int:
    return int("".join(c for c in header.dtype if c.isdigit()) or 8) // 8


def _place(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """What can be said of a tensor by its name, for rows of one that could not be measured."""
    at = tensor_role(name, checkpoint.architecture)
    depth = None if at.layer is None else (at.layer + 1) / checkpoint.n_layers
    return {"layer": at.layer, "depth": depth, "role": None if at.fused else at.role}


def perform(job: MeasureJob, store: Store) -> Outcome:
    """Makes a measurement: in one piece, one part of it, or out of its parts.

    Returns:
        Rows by status and the time taken.
    """
    if job.part is None:
        return from_parts(job, store) if job.parts else measure(job, store)
    start = time.perf_counter()
    made = rows_of(job)
    _write_part(store, job, made)
    return outcome_of(job, made, time.perf_counter() - start)


def from_parts(job: MeasureJob, store: Store) -> Outcome:
    """Makes a measurement out of its parts and deletes them; of a failed one the good parts stay.

    Args:
        job: the whole, with its parts.

    Returns:
        Rows by status and the time taken.

    Raises:
        ValueError: where a part is absent.
    """
    start = time.perf_counter()
    names = set(store.names(PARTS))
    made = MeasuredRows([], [], [])
    used: list[str] = []
    bad: list[str] = []
    for part in _jobs(job):
        stem = part.name.removeprefix(f"{PARTS}/")
        good = f"{stem}.parquet" in names
        suffixes = _SUFFIXES if good else (FAILED,)
        found = [f"{stem}{s}" for s in suffixes if f"{stem}{s}" in names]
        if not found:
            raise ValueError(f"{job.key}: got no part {stem}, needs all {len(job.parts)}")
        (used if good else bad).extend(found)
        for name in found:
            rows = tables.decode(store.read_table(f"{PARTS}/{name}"))
            made[_table_of(name)].extend(rows)
    if not made.values:
        made = MeasuredRows(failed_rows(job, "the capture holds no record"), [], [])
    write_measurement(store, job.key, *made)
    for name in bad if bad else used:
        store.delete(f"{PARTS}/{name}")
    return outcome_of(job, made, time.perf_counter() - start)


def write_failed(store: Store, job: MeasureJob, error: str) -> None:
    """Writes the failed rows of a measurement, or of a part, that was given up."""
    rows = MeasuredRows(failed_rows(job, error), [], [])
    if job.part is None:
        write_measurement(store, job.key, *rows)
    else:
        _write_part(store, job, rows)


def sweep_parts(store: Store, done: Collection[str]) -> None:
    """Deletes the parts of measurements that are done: of a run killed between the two.

    Args:
        done: keys of the measurements that are complete.
    """
    for name in store.names(PARTS):
        if name.partition("-")[0] in done:
            store.delete(f"{PARTS}/{name}")


class Parts:
    """What is still to be made of the measurements that are made in parts."""

    def __init__(self, store: Store) -> None:
        """Looks once for the parts that an earlier run has left."""
        self._made = {f"{PARTS}/{name}" for name in whole_parts(store)}
        self._wholes: dict[str, MeasureJob] = {}
        self._left: dict[str, set[str]] = {}

    def of(self, job: MeasureJob) -> list[MeasureJob]:
        """The parts of a job that are missing, the longest first.

        Returns:
            The job itself where it has none; with its parts, to be assembled, where all are there.
        """
        if job.part or job.parts or not (divided := parts_of(job)):
            return [job]
        whole = replace(job, parts=divided)
        missing = [part for part in _jobs(whole) if f"{part.name}.parquet" not in self._made]
        if not missing:
            return [whole]
        self._left[job.key] = {part.name for part in missing}
        self._wholes[job.key] = whole
        return sorted(missing, key=lambda j: j.part.seconds if j.part else 0.0, reverse=True)

    def done(self, part: MeasureJob) -> MeasureJob | None:
        """Takes note of a part, good or failed.

        Returns:
            The whole, where it was its last part.
        """
        left = self._left[part.key]
        if part.name not in left:
            return None
        left.remove(part.name)
        return None if left else self._wholes.pop(part.key)


def memory_of(group: Sequence[MeasureJob], *, asked: int | None, largest: float) -> int | None:
    """Memory for a task that makes these one after the other.

    Args:
        asked: for every measuring task, None leaves it to Ray.
        largest: memory of the largest node. A part that needs more asks for all of it: a request
            that no node can meet would be pending for ever.

    Returns:
        Bytes, None where nothing has to be asked for.
    """
    parts = [job.part.memory for job in group if job.part]
    if not parts:
        return asked
    return max(asked or 0, int(min(max(parts), largest)))


def _jobs(job: MeasureJob) -> list[MeasureJob]:
    return [replace(job, parts=(), part=part) for part in job.parts]


def _table_of(name: str) -> int:
    """Position in Rows of what a file of a part holds."""
    return {".curves": 1, ".diagrams": 2}.get(Path(name.removesuffix(".parquet")).suffix, 0)


def _write_part(store: Store, job: MeasureJob, made: MeasuredRows) -> None:
    """The rows last: they say that the part is done. Failed ones go under another name."""
    values = tables.encode(made.values, tables.MEASUREMENTS)
    if any(row["status"] == "failed" for row in made.values):
        store.write_table(f"{job.name}{FAILED}", values)
        return
    if made.curves:
        store.write_table(f"{job.name}{_CURVES}", tables.encode(made.curves, tables.CURVES))
    if made.diagrams:
        store.write_table(f"{job.name}{_DIAGRAMS}", tables.encode(made.diagrams, tables.DIAGRAMS))
    also = beside(curves=bool(made.curves), diagrams=bool(made.diagrams))
    store.write_table(f"{job.name}.parquet", with_beside(values, {job.key: also}))
    store.delete(f"{job.name}{FAILED}")
