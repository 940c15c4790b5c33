"""Captures and measurements of one model in this process: no cluster, nothing kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from scaleinv_ray.inspection.asking import Asked
from scaleinv_ray.measure.measuring import failed_rows, rows_of
from scaleinv_ray.plan.jobs import CaptureJob, ProbeCaptures
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.store import write_records

if TYPE_CHECKING:
    from scaleinv_ray.capture.session import Session

Say = Callable[[str], None]
ONE_THREAD = 1
"""A second one waits more than it works on matrices of this size: of a model of 15M parameters
kernels took 5 times, captures twice the processor time with two."""


def measured(asked: Asked, say: Say) -> list[dict[str, Any]]:
    """Makes all measurements that were asked for.

    Args:
        say: is told what is being done.

    Returns:
        Rows of tables.MEASUREMENTS; what failed is a row that says so.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scaleinv-inspect-") as scratch:
        work = jobs_for(
            asked.plan, asked.measurements, asked.config, scratch=Path(scratch), run_id="inspect"
        )
        failed: dict[str, str] = {}
        for capture in work.captures:
            say(f"captures of {capture.weights.variant}")
            failed |= _captured(capture, work.tokens)
        for job in work.measurements:
            say(f"{job.invariant} of {job.labels['variant']}")
            why = next((failed[path] for path in job.paths() if path in failed), None)
            if why is not None:
                rows.extend(failed_rows(job, why))
                continue
            with threadpool_limits(ONE_THREAD):
                rows.extend(rows_of(job).values)
    return rows


def _captured(job: CaptureJob, tokens: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Writes the files of a job; those that could not be made, each with the error."""
    # imports torch: a model of which weights alone are measured does without
    from transformers.utils import logging

    from scaleinv_ray.capture.session import Session, Source
    from scaleinv_ray.checkpoints.weights.loading import LoadOptions

    logging.disable_progress_bar()  # of tensors, while a table is being written
    weights = job.weights
    session = Session.open(
        Source(
            weights.folder(),
            weights.variant,
            weights.checkpoint.seed,
            weights.init_folder(),
            LoadOptions(trust_remote_code=weights.trusted),
        )
    )
    failed: dict[str, str] = {}
    with threadpool_limits(ONE_THREAD):
        for of, kinds in ((t, kinds) for t in job.wanted for kinds in t.passes):
            failed |= _written(session, job, tokens, of, kinds)
    return failed


def _written(
    session: Session,
    job: CaptureJob,
    tokens: Mapping[str, np.ndarray],
    of: ProbeCaptures,
    kinds: frozenset[str],
) -> dict[str, str]:
    """Writes the files of one pass; empty where it could be made, else each with the error."""
    labels = {"probe": of.probe, "protocol": job.protocol.digest()}
    try:
        records = session.records(
            tokens[of.tokens],
            job.protocol,
            kinds=kinds,
            batch_size=job.batch_size,
            labels=labels,
            mask_id=job.weights.checkpoint.mask_id,
            left_out=of.left_out,
        )
        for kind in kinds:
            path = Path(of.paths[kind])
            write_records(path, records[kind], kind=kind, facts=job.facts)
    except (ValueError, RuntimeError, OSError) as error:
        return {of.paths[k]: f"{type(error).__name__}: {error}" for k in kinds}
    return {}
