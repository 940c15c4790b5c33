"""By which ranges of records a measurement is made, and what memory and time a range takes.

A task costs milliseconds, so small files are read whole. Where the weights exceed `LARGE_BYTES`,
the records of an invariant of single matrices are divided by stored tensor, as the headers of the
files say: each range has its task and its tables, and the measurement is done when all are there,
the same rows as of an undivided reading. A resubmitted run makes the missing ranges, nothing else.

Undivided stay trajectories, which read a tensor at every step together, and `random_init` without a
step 0, whose model is built whole, since its random numbers come in the order of construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.checkpoints.files.contents import is_bias, is_stack
from scaleinv_ray.checkpoints.files.header_format import TensorHeader
from scaleinv_ray.checkpoints.files.headers import read_header, shard_files
from scaleinv_ray.checkpoints.files.roles import tensor_role
from scaleinv_ray.cost_model import LARGE_BYTES, weight_seconds
from scaleinv_ray.plan.costs import model_bytes
from scaleinv_ray.plan.jobs import MeasureJob, Range, WeightSource

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


def ranges_of(job: MeasureJob) -> list[MeasureJob]:
    """The jobs by which a measurement is made: itself, or one for each range, the longest first.

    What is wrong with the files is left to the task to say.
    """
    source = _large_source(job)
    if source is None or job.only is not None:
        return [job]
    checkpoint = source.checkpoint
    try:
        stored = _tensors(checkpoint, source.variant == "random_init")
    except (ValueError, OSError):
        return [job]
    ranges = [
        Range(name, i, len(stored), **_costs(name, header, job), **_place(name, checkpoint))
        for i, (name, header) in enumerate(stored)
    ]
    longest_first = sorted(ranges, key=lambda only: only.seconds, reverse=True)
    return [replace(job, only=only) for only in longest_first] or [job]


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
    """Of the weights of a measurement that is divided, else 0."""
    source = _large_source(job)
    return model_bytes(source.checkpoint) if source else 0


def _large_source(job: MeasureJob) -> WeightSource | None:
    """The weights of a measurement of single matrices, where they are large."""
    source = job.source
    if not isinstance(source, WeightSource) or job.spec.signature != "one":
        return None
    return source if model_bytes(source.checkpoint) > LARGE_BYTES else None


@lru_cache(maxsize=8)  # every invariant of a checkpoint asks for the same
def _tensors(checkpoint: Checkpoint, initial: bool) -> tuple[tuple[str, TensorHeader], ...]:
    """Tensors that hold matrices or should, in the order in which they are streamed."""
    headers = _headers(checkpoint, initial)
    ordered = [item for file in sorted(headers) for item in sorted(headers[file].items())]
    return tuple(
        (name, of)
        for name, of in ordered
        if (len(of.shape) >= 2 or 0 in of.shape) and not is_bias(name)
    )


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


def memory_of(group: Sequence[MeasureJob], *, asked: int | None, largest: float) -> int | None:
    """Memory for a task that makes these one after the other.

    Args:
        asked: for every measuring task, None leaves it to Ray.
        largest: memory of the largest node. A range that needs more asks for all of it: a request
            that no node can meet would be pending for ever.

    Returns:
        Bytes, None where nothing has to be asked for.
    """
    foreseen = [job.only.memory for job in group if job.only]
    if not foreseen:
        return asked
    return max(asked or 0, int(min(max(foreseen), largest)))
