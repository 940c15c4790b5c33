"""Ray actors and tasks: thin skins over capture and measure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.cluster.jobs import CaptureJob, CaptureOutcome, MeasureJob, Outcome
from scaleinv_ray.cluster.measure import measure
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store, write_records


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

        Args:
            job: what to capture.
            tokens: digest -> int32 [sequences, length].

        Returns:
            Bytes written by path, and seconds.
        """
        from scaleinv_ray.capture.loading import LoadOptions
        from scaleinv_ray.capture.run import Session, Source
        from scaleinv_ray.capture.variants import shuffle_tokens

        start = time.perf_counter()
        options = LoadOptions(device_map=self._device_map, trust_remote_code=job.trust_remote_code)
        init = None if job.init_folder is None else Path(job.init_folder)
        session = Session.open(Source(Path(job.folder), job.variant, job.seed, init, options))
        written: dict[str, int] = {}
        for target in job.targets:
            tokens_ST = tokens[target.tokens]
            if target.shuffle_seed is not None:
                tokens_ST = shuffle_tokens(tokens_ST, target.shuffle_seed)
            records = session.records(
                tokens_ST,
                job.protocol,
                kinds=frozenset(target.paths),
                batch_size=job.batch_size,
                labels={"probe": target.probe, "protocol": job.protocol.digest()},
            )
            for kind, path in target.paths.items():
                written[path] = write_records(Path(path), records[kind], kind=kind, facts=job.facts)
        return CaptureOutcome(written, time.perf_counter() - start)


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
