"""Ray actors and tasks: thin skins over capture and measure."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleinv_ray.cluster.jobs import CaptureJob, CaptureOutcome, MeasureJob, Outcome, Target
from scaleinv_ray.cluster.measure import measure
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.costs import Loading, available_memory, choose_loading, model_bytes
from scaleinv_ray.records import Record
from scaleinv_ray.states import STATES, StateFiles
from scaleinv_ray.store import Store, read_record, write_record, write_records

if TYPE_CHECKING:
    from scaleinv_ray.capture.run import Session, StreamedSession


class Capturer:
    """Holds a model and writes its captures; `CaptureActor` is this class as a Ray actor."""

    def __init__(self, *, num_threads: int, num_gpus: int, sharing: int = 1) -> None:
        """Sets the threads of torch, and how models are placed.

        Args:
            num_threads: of torch.
            num_gpus: that a model may use.
            sharing: actors among which this node's memory is divided.
        """
        import torch

        torch.set_num_threads(num_threads)
        self._device_map = "auto" if num_gpus else None
        self._sharing = sharing

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
        from scaleinv_ray.capture.run import Session, Source, StreamedSession

        start = time.perf_counter()
        weights = job.weights
        loading = self._loading(job)
        whole = loading.how == "resident"
        options = LoadOptions(
            device_map=self._device_map if whole else None, trust_remote_code=weights.trusted
        )
        source = Source(
            weights.folder(),
            weights.variant,
            weights.checkpoint.seed,
            weights.init_folder(),
            options,
        )
        session = Session.open(source) if whole else StreamedSession.open(source)
        written: dict[str, int] = {}
        failed: dict[str, str] = {}
        for target in job.targets:
            for kinds in _passes(target):
                try:
                    written |= _write(session, job, target, kinds, tokens)
                except (ValueError, RuntimeError, OSError) as error:
                    failed |= {target.paths[k]: f"{type(error).__name__}: {error}" for k in kinds}
        protocol = job.protocol
        passed = len(job.targets) * protocol.sequences * protocol.length
        seconds = time.perf_counter() - start
        return CaptureOutcome(written, failed, seconds, loading.how, loading.reason, passed)

    def _loading(self, job: CaptureJob) -> Loading:
        import torch

        gpu_memory = 0
        if self._device_map is not None:
            devices = range(torch.cuda.device_count())  # those that Ray has given to this actor
            gpu_memory = sum(torch.cuda.mem_get_info(d)[0] for d in devices)
        memory = available_memory() // self._sharing
        size = model_bytes(job.weights.checkpoint)
        return choose_loading(size, job.load, memory=memory, gpu_memory=gpu_memory)


def _passes(target: Target) -> list[frozenset[str]]:
    """The kinds of a target, those together that come out of one forward pass."""
    from scaleinv_ray.capture.forward import FORWARD_KINDS

    wanted = frozenset(target.paths)
    single = [frozenset({kind}) for kind in sorted(wanted - FORWARD_KINDS)]
    together = wanted & FORWARD_KINDS
    return [together, *single] if together else single


def _write(
    session: Session | StreamedSession,
    job: CaptureJob,
    target: Target,
    kinds: frozenset[str],
    tokens: Mapping[str, np.ndarray],
) -> dict[str, int]:
    from scaleinv_ray.capture.run import Session
    from scaleinv_ray.capture.variants import shuffle_tokens

    tokens_ST = tokens[target.tokens]
    if target.shuffle_seed is not None:
        tokens_ST = shuffle_tokens(tokens_ST, target.shuffle_seed)
    labels = {"probe": target.probe, "protocol": job.protocol.digest()}
    asked: dict[str, Any] = {"kinds": kinds, "batch_size": job.batch_size, "labels": labels}
    with ExitStack() as stack:
        if isinstance(session, Session):
            observed = {probe: tokens[digest] for probe, digest in job.observed.items()}
            of_loss = {"spectroscopy": job.spectroscopy, "observed": observed}
            records = session.records(tokens_ST, job.protocol, **asked, **of_loss)
        else:
            states = states_of(job, target, kinds)
            # what the pass raises stays an error of the pass: only a killed one is resumed
            stack.callback(shutil.rmtree, states.folder, ignore_errors=True)
            keep = _Kept(states.folder)
            records = session.records(tokens_ST, job.protocol, states, keep=keep, **asked)
        return {
            target.paths[kind]: write_records(
                Path(target.paths[kind]), records[kind], kind=kind, facts=job.facts
            )
            for kind in kinds
        }


def states_of(job: CaptureJob, target: Target, kinds: frozenset[str]) -> StateFiles:
    """Where the hidden states of a streamed pass lie, beside the captures that come out of it.

    All levels are kept where the disk has room for them, so that an actor that takes over from a
    killed one goes on at the block where it stopped; a stream has to begin again.

    Args:
        job: names the protocol and the model.
        target: names the captures.
        kinds: those of this pass.

    Returns:
        The states, the folder of which need not exist.
    """
    first = Path(min(target.paths[kind] for kind in kinds))
    folder = first.with_name(f"{STATES}{first.stem}")
    if "stream" in kinds:
        shutil.rmtree(folder, ignore_errors=True)
    checkpoint, protocol = job.weights.checkpoint, job.protocol
    level = protocol.sequences * protocol.length * checkpoint.d_model * 4
    first.parent.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(first.parent).free
    return StateFiles(folder, keep=2 * level * (checkpoint.n_layers + 1) < room)


class _Kept:
    """Puts the moments of a block on disk and gives them back mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def __call__(self, record: Record) -> Record:
        path = self._folder / f"moments-{self._count:04d}.arrow"
        self._count += 1
        write_record(path, record, kind="moments", facts={})
        return read_record(path)


CaptureActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Capturer)
"""Restarts lose state and order: the driver makes a new actor and resubmits the whole job."""


@ray.remote(num_cpus=1, max_retries=0)
def measure_all(jobs: Sequence[MeasureJob], store_uri: str) -> list[Outcome]:
    """Makes a group of measurements on one thread and writes their tables.

    Ray does not try again by itself: the driver counts the tries, one measurement at a time.

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
