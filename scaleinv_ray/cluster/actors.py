"""Ray actors and tasks: thin skins over capture and measure."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleinv_ray.cluster.nodes.joining import Terms, Unfit, misfit
from scaleinv_ray.cluster.scratch.transfer import Supply, address_of, this_node
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.plan.costs import (
    Loading,
    available_memory,
    choose_loading,
    model_bytes,
    oom_kills,
)
from scaleinv_ray.plan.jobs import (
    SANITY_SEQUENCES,
    ActorPlace,
    CaptureJob,
    CaptureOutcome,
    MeasureJob,
    Outcome,
    ProbeCaptures,
    Unfetched,
    WeightSource,
)
from scaleinv_ray.records import MaskedLosses, Record, TokenLosses
from scaleinv_ray.store import Store, read_record, write_record, write_records
from scaleinv_ray.store.seal import DamagedError
from scaleinv_ray.store.states import STATES, StateFiles

if TYPE_CHECKING:
    from scaleinv_ray.capture.session import Session, Source, StreamedSession

    _AnySession = Session | StreamedSession


class Capturer:
    """Holds a model and writes its captures; `CaptureActor` is this class as a Ray actor."""

    def __init__(self, *, num_threads: int, num_gpus: int, sharing: int = 1) -> None:
        """Sets the threads of torch, and how models are placed.

        Args:
            num_gpus: that a model may use.
            sharing: actors among which this node's memory is divided.
        """
        import torch

        torch.set_num_threads(num_threads)
        self._num_gpus, self._sharing = num_gpus, sharing

    def place(self, terms: Terms | None = None) -> ActorPlace | Unfit:
        """Process and node: for logs, for tests that kill it, and to find its captures.

        Args:
            terms: what the node has to have.

        Returns:
            Where it is, or why it can do nothing there.
        """
        node = this_node()
        return misfit(terms) or ActorPlace(os.getpid(), node, address_of(node), oom_kills())

    def capture(self, job: CaptureJob, tokens: Mapping[str, np.ndarray]) -> CaptureOutcome:
        """Loads the weights once and writes every file of the job, each whole or not at all.

        What one kind or one probe cannot give does not take the others with it.

        Args:
            tokens: digest -> int32 [sequences, length].

        Returns:
            Bytes written and errors, by path, and seconds.
        """
        start = time.perf_counter()
        session, loading = self._session(job)
        losses = _first_losses(session, job, tokens)
        written: dict[str, int] = {}
        failed: dict[str, str] = {}
        for of, kinds in ((t, kinds) for t in job.wanted for kinds in t.passes):
            try:
                written |= _checked(job, _write(session, job, of, kinds, tokens, losses))
            except (ValueError, RuntimeError, OSError) as error:
                why = f" ({job.spared})" if job.spared else ""
                text = f"{type(error).__name__}: {error}{why}"
                failed |= {of.paths[k]: text for k in kinds}
        protocol = job.protocol
        passed = len(job.wanted) * protocol.sequences * protocol.length
        seconds = time.perf_counter() - start
        return CaptureOutcome(written, failed, seconds, loading.how, loading.reason, passed, losses)

    def _session(self, job: CaptureJob) -> tuple[_AnySession, Loading]:
        """The model in memory, in the way that fits, and which way that is."""
        from scaleinv_ray.capture.session import Session, StreamedSession

        loading = self._loading(job)
        if loading.how == "resident":
            device_map = "auto" if self._num_gpus else None
            return Session.open(_source_of(job.weights, device_map)), loading
        return StreamedSession.open(_source_of(job.weights)), loading

    def _loading(self, job: CaptureJob) -> Loading:
        if job.weights.checkpoint.encoder:
            return Loading("resident", "encoders are not streamed")
        if job.spared:
            return Loading("streamed", job.spared)
        return choose_loading(
            model_bytes(job.weights.checkpoint),
            job.load,
            memory=available_memory() // self._sharing,
            gpu_memory=_gpu_memory() if self._num_gpus else 0,
        )


def _source_of(weights: WeightSource, device_map: str | None = None) -> Source:
    """What is captured from, with its folders on this node."""
    from scaleinv_ray.capture.session import Source
    from scaleinv_ray.checkpoints.weights.loading import LoadOptions

    options = LoadOptions(device_map=device_map, trust_remote_code=weights.trusted)
    checkpoint = weights.checkpoint
    return Source(
        weights.folder(), weights.variant, checkpoint.seed, weights.init_folder(), options
    )


def _gpu_memory() -> int:
    """Free bytes on the GPUs that Ray has given to this process."""
    import torch

    return sum(torch.cuda.mem_get_info(d)[0] for d in range(torch.cuda.device_count()))


class _Kept:
    """Puts large records of a block on disk and gives them back mapped; also while they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(self, kind: str, record: Record) -> Record:
        path = self._folder / f"{kind}-{self._count:04d}.arrow"
        write_record(path, record, kind=kind, facts={})
        self._count += 1
        return read_record(path)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float64 array in a file that is gone from the disk with the array."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"sums-{uuid.uuid4().hex[:8]}"
        array = np.memmap(path, dtype=np.float64, mode="w+", shape=shape)
        path.unlink()
        return array


def _checked(job: CaptureJob, written: dict[str, int]) -> dict[str, int]:
    """What was written, deleted where the weights changed while they were read."""
    try:
        job.weights.check()
    except ValueError:
        for path in written:
            Path(path).unlink(missing_ok=True)
        raise
    return written


def _first_losses(
    session: _AnySession, job: CaptureJob, tokens: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Nats a token of the first sequences of the probes that ask for them.

    Of an encoder those of hidden tokens; of a streamed model nothing: its weights would be read
    once more, and its captures give them.
    """
    from scaleinv_ray.capture.session import Session

    c = job.weights.checkpoint
    kind = "masked_losses" if c.encoder else "token_losses"
    losses: dict[str, float] = {}
    if not isinstance(session, Session):
        return losses
    for of in job.wanted:
        if not of.sanity:
            continue
        few_ST = tokens[of.tokens][:SANITY_SEQUENCES]
        few = replace(job.protocol, sequences=len(few_ST), blocks=1)
        asked: dict[str, Any] = {"kinds": frozenset({kind}), "left_out": of.left_out}
        try:
            found = session.records(
                few_ST, few, batch_size=job.batch_size, mask_id=c.mask_id, **asked
            )
        except (ValueError, RuntimeError):  # its captures say it
            continue
        losses[of.probe] = _mean_loss(found[kind])
    return losses


def _mean_loss(records: Sequence[Record]) -> float:
    """Nats a token of the first sequences of what one model pays."""
    (record,) = records
    assert isinstance(record, (TokenLosses, MaskedLosses))
    losses = record.loss_ST if isinstance(record, TokenLosses) else record.loss_SM
    return float(losses[:SANITY_SEQUENCES].mean())


def _write(
    session: _AnySession,
    job: CaptureJob,
    of: ProbeCaptures,
    kinds: frozenset[str],
    tokens: Mapping[str, np.ndarray],
    losses: dict[str, float],
) -> dict[str, int]:
    """Writes the files of one pass; puts the first losses of a streamed model beside the others."""
    from scaleinv_ray.capture.session import Session
    from scaleinv_ray.checkpoints.weights.nulls import shuffle_tokens

    tokens_ST = tokens[of.tokens]
    if of.shuffle_seed is not None:
        tokens_ST = shuffle_tokens(tokens_ST, of.shuffle_seed, keep=of.around)
    labels = {"probe": of.probe, "protocol": job.protocol.digest()}
    asked: dict[str, Any] = {
        "kinds": kinds, "batch_size": job.batch_size, "labels": labels,
        "left_out": of.left_out,
    }  # fmt: skip
    with ExitStack() as stack:
        if isinstance(session, Session):
            observed = {probe: tokens[digest] for probe, digest in job.observed.items()}
            of_loss: dict[str, Any] = {"spectroscopy": job.spectroscopy, "observed": observed}
            of_loss["mask_id"] = job.weights.checkpoint.mask_id
            of_loss["pairs"] = job.pairs.get(of.probe)
            records = session.records(tokens_ST, job.protocol, **asked, **of_loss)
        else:
            states = states_of(job, of, kinds)
            # what the pass raises stays an error of the pass: only a killed one is resumed
            stack.callback(shutil.rmtree, states.folder, ignore_errors=True)
            keep = _Kept(states.folder)
            kept: dict[str, Any] = {"keep": keep, "allocate": keep.allocate}
            if of.sanity:  # every block is passed by all sequences: the head is all it costs
                asked["kinds"] = kinds | {"token_losses"}
            records = session.records(tokens_ST, job.protocol, states, **kept, **asked)
            if of.sanity:
                losses[of.probe] = _mean_loss(records["token_losses"])
        return {
            of.paths[kind]: write_records(
                Path(of.paths[kind]), records[kind], kind=kind, facts=job.facts
            )
            for kind in kinds
        }


def states_of(job: CaptureJob, of: ProbeCaptures, kinds: frozenset[str]) -> StateFiles:
    """Where the hidden states of a streamed pass lie, beside the captures that come out of it.

    All levels are kept where the disk has room for them, so that an actor that takes over from a
    killed one goes on at the block where it stopped, but for kinds that are not resumable.

    Args:
        job: names the protocol and the model.

    Returns:
        The states, the folder of which need not exist.
    """
    first = Path(min(of.paths[kind] for kind in kinds))
    folder = first.with_name(f"{STATES}{first.stem}")
    if not all(KINDS[kind].resumable for kind in kinds):
        shutil.rmtree(folder, ignore_errors=True)
    checkpoint, protocol = job.weights.checkpoint, job.protocol
    level = protocol.sequences * (of.left_out + protocol.length) * checkpoint.d_model * 4
    first.parent.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(first.parent).free
    states = StateFiles(folder, keep=2 * level * (checkpoint.n_layers + 1) < room)
    if not all(states.complete(n) for n in range(states.latest() or 0)):
        shutil.rmtree(folder)  # of a killed pass on a full disk: what its records need is gone
    return states


CaptureActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Capturer)
"""Restarts lose state and order: the driver makes a new actor and resubmits the whole job."""


@ray.remote(num_cpus=1, max_retries=0)
def measure_all(
    jobs: Sequence[MeasureJob], store_uri: str, supply: Supply | None, terms: Terms | None
) -> list[Outcome | Unfetched] | Unfit:
    """Makes a group of measurements on one thread and writes their tables.

    Ray does not try again by itself: the driver counts the tries, one measurement at a time.

    Args:
        supply: where captures are that lie on single nodes; None reads all at their paths.
        terms: what the node has to have.

    Returns:
        For each job its outcome, or the file for want of which it was not made; why none was begun
        where the node does not fit.
    """
    from threadpoolctl import threadpool_limits

    if (unfit := misfit(terms)) is not None:
        return unfit
    store = Store(store_uri)
    with threadpool_limits(1):
        return [_measured(job, store, supply) for job in jobs]


def _measured(job: MeasureJob, store: Store, supply: Supply | None) -> Outcome | Unfetched:
    found = supply.localised(job) if supply else (job, ())
    if isinstance(found, Unfetched):
        return found
    here, fetches = found
    try:
        return replace(measure(here, store), fetches=fetches)
    except DamagedError as error:
        paths = dict(zip(here.paths(), job.paths(), strict=True))
        if error.path not in paths:
            raise
        return Unfetched(job.key, paths[error.path], (), str(error), fetches, damaged=True)
