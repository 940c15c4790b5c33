"""Ray actors and tasks: thin skins over capture and measure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleinv_ray.cluster.jobs import CaptureJob, CaptureOutcome, MeasureJob, Outcome, Target
from scaleinv_ray.cluster.measure import measure
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store, write_records

if TYPE_CHECKING:
    from scaleinv_ray.capture.run import Session


class Capturer:
    """Holds a model and writes its captures; `CaptureActor` is this class as a Ray actor."""

    def __init__(self, *, num_threads: int, num_gpus: int) -> None:
        """Sets the threads of torch, and how models are placed."""
        import torch

        torch.set_num_threads(num_threads)
        self._device_map = "auto" if num_gpus else None

    def pid(self) -> int:
        """Process id, for logs and for tests that kill it."""
        import os

        return os.getpid()

    def capture(self, job: CaptureJob, tokens: Mapping[str, np.ndarray]) -> CaptureOutcome:
        """Loads the weights once and writes every file of the job, each whole or not at all.

        What one kind or one probe cannot give does not take the others with it.

        Args:
            job: what to capture.
            tokens: digest -> int32 [sequences, length].

        Returns:
            Bytes written and errors, by path, and seconds.
        """
        from scaleinv_ray.capture.loading import LoadOptions
        from scaleinv_ray.capture.run import Session, Source

        start = time.perf_counter()
        weights = job.weights
        options = LoadOptions(device_map=self._device_map, trust_remote_code=weights.trusted)
        source = Source(
            weights.folder(),
            weights.variant,
            weights.checkpoint.seed,
            weights.init_folder(),
            options,
        )
        session = Session.open(source)
        written: dict[str, int] = {}
        failed: dict[str, str] = {}
        for target in job.targets:
            for kinds in _passes(target):
                try:
                    written |= _write(session, job, target, kinds, tokens[target.tokens])
                except (ValueError, RuntimeError, OSError) as error:
                    failed |= {target.paths[k]: f"{type(error).__name__}: {error}" for k in kinds}
        return CaptureOutcome(written, failed, time.perf_counter() - start)


def _passes(target: Target) -> list[frozenset[str]]:
    """The kinds of a target, those together that come out of one forward pass."""
    from scaleinv_ray.capture.forward import FORWARD_KINDS

    wanted = frozenset(target.paths)
    single = [frozenset({kind}) for kind in sorted(wanted - FORWARD_KINDS)]
    together = wanted & FORWARD_KINDS
    return [together, *single] if together else single


def _write(
    session: Session, job: CaptureJob, target: Target, kinds: frozenset[str], tokens_ST: np.ndarray
) -> dict[str, int]:
    from scaleinv_ray.capture.variants import shuffle_tokens

    if target.shuffle_seed is not None:
        tokens_ST = shuffle_tokens(tokens_ST, target.shuffle_seed)
    records = session.records(
        tokens_ST,
        job.protocol,
        kinds=kinds,
        batch_size=job.batch_size,
        labels={"probe": target.probe, "protocol": job.protocol.digest()},
    )
    return {
        target.paths[kind]: write_records(
            Path(target.paths[kind]), records[kind], kind=kind, facts=job.facts
        )
        for kind in kinds
    }


CaptureActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Capturer)
"""Restarts lose state and order: the driver makes a new actor and resubmits the whole job."""


@ray.remote(num_cpus=1, max_retries=3)
def measure_all(jobs: Sequence[MeasureJob], store_uri: str) -> list[Outcome]:
    """Makes a group of measurements on one thread and writes their tables.

    Args:
        jobs: names and paths.
        store_uri: where the tables go.

    Returns:
        An outcome for each job.
    """
    from threadpoolctl import threadpool_limits

    store = Store(store_uri)
    with threadpool_limits(1):
        return [measure(job, store) for job in jobs]
