"""Captures and measurements of one model in this process: no cluster, nothing kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.inspection.asking import Asked
from scaleinv_ray.measure.measuring import failed_rows, rows_of
from scaleinv_ray.plan.jobs import CaptureJob
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.store import write_records

Say = Callable[[str], None]


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
            rows.extend(rows_of(job).values if why is None else failed_rows(job, why))
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
    for target, kinds in ((t, kinds) for t in job.targets for kinds in t.passes):
        labels = {"probe": target.probe, "protocol": job.protocol.digest()}
        try:
            records = session.records(
                tokens[target.tokens],
                job.protocol,
                kinds=kinds,
                batch_size=job.batch_size,
                labels=labels,
                mask_id=weights.checkpoint.mask_id,
                left_out=target.left_out,
            )
            for kind in kinds:
                path = Path(target.paths[kind])
                write_records(path, records[kind], kind=kind, facts=job.facts)
        except (ValueError, RuntimeError, OSError) as error:
            failed |= {target.paths[k]: f"{type(error).__name__}: {error}" for k in kinds}
    return failed
