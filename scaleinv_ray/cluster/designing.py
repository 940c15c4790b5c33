"""One model of a design, made, trained where it has to be, and measured; each a Ray task."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray import invariants
from scaleinv_ray.contract import REGISTRY, Refused
from scaleinv_ray.design.theory import Asked
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.ladder.folders import DivergedError, step_folder
from scaleinv_ray.ladder.spec import Rung, TrainSpec, rungs
from scaleinv_ray.protocols import CurvatureProtocol, Spectroscopy
from scaleinv_ray.records import Protocol, Record

assert invariants, "importing the package registers the invariants, on every worker"


@dataclass(frozen=True)
class Trial:
    """A model to be made and measured.

    Attributes:
        key: names its folder.
        spec: a ladder of one width and one seed.
        step: of the measurement; 0 is before training.
        asked: what is measured.
        text: held_out or train.
        sequences: of that text.
        out: folder of the design; checkpoints lie in it while the model is measured.
    """

    key: str
    spec: TrainSpec
    step: int
    asked: tuple[Asked, ...]
    text: str
    sequences: int
    out: str


@dataclass(frozen=True)
class Tried:
    """What came of it.

    Attributes:
        values: of each quantity asked for.
        error: why there are none.
    """

    values: tuple[float, ...]
    error: str | None = None


def try_all(trials: Sequence[Trial]) -> Iterator[tuple[Trial, Tried]]:
    """Makes and measures models in the Ray session that is up, as they finish.

    Yields:
        Each with what came of it.
    """
    from scaleinv_ray.cluster.session import ray

    waiting = {_remote().remote(trial): trial for trial in trials}
    while waiting:
        done, _ = ray.wait(list(waiting))
        for reference in done:
            yield waiting.pop(reference), ray.get(reference)


@cache
def _remote() -> Any:
    from scaleinv_ray.cluster.session import ray

    return ray.remote(num_cpus=1, max_retries=3)(try_one)


def try_one(trial: Trial) -> Tried:
    """Makes a model, trains it up to the step, and measures it; its checkpoints are deleted.

    Returns:
        The values; the reason where training diverges, a capture or an invariant refuses.
    """
    import torch

    torch.set_num_threads(1)
    try:
        with _checkpoint(trial) as folder:
            return Tried(tuple(_value(folder, trial, asked) for asked in trial.asked))
    except (DivergedError, Refused, ValueError) as error:
        return Tried((), f"{type(error).__name__}: {error}")


@contextmanager
def _checkpoint(trial: Trial) -> Generator[Path]:
    [rung] = rungs(trial.spec)
    if not trial.step:
        with tempfile.TemporaryDirectory() as folder:
            _initial(trial.spec, rung).save_pretrained(folder)
            yield Path(folder)
        return
    from scaleinv_ray.ladder.train import train_run

    out = Path(trial.out) / "models" / trial.key
    try:
        yield step_folder(train_run(trial.spec, rung, out), trial.step)
    finally:  # a worker that is killed leaves its checkpoints, from which the next one goes on
        shutil.rmtree(out, ignore_errors=True)


def _initial(spec: TrainSpec, rung: Rung) -> Any:
    from scaleinv_ray.ladder.architectures import build_model

    return build_model(spec, rung)


def _value(folder: Path, trial: Trial, asked: Asked) -> float:
    """Mean over the records at the place of the target."""
    spec = REGISTRY[asked.invariant]
    wanted = {"layer": asked.layer, "site": asked.site, "role": asked.role}
    values = []
    for record in _records(folder, trial, spec.kind):
        if any(v is not None and getattr(record, k, None) != v for k, v in wanted.items()):
            continue
        measured = spec.function(record, rng=np.random.default_rng(0), **spec.parameters)
        got = measured.values[asked.quantity]
        if not isinstance(got, Estimate):
            raise got
        values.append(got.value)
    if not values:
        raise ValueError(f"target: got {asked}, no record of the model is at that place")
    return float(np.mean(values))


def _records(folder: Path, trial: Trial, kind: str) -> Iterator[Record]:
    if KINDS[kind].token_free:
        from scaleinv_ray.checkpoints.weights.matrices import iter_weights

        yield from iter_weights(folder)
        return
    from scaleinv_ray.capture.session import Session, Source

    tokens_ST = _tokens(trial)
    count, length = tokens_ST.shape
    protocol = Protocol(
        sequences=count,
        length=length,
        position=length - 1,
        jacobian_positions=count,
        attention_sequences=min(4, count),
        blocks=min(8, count),
        tokens_per_dim=max(1, count * length // trial.spec.widths[0]),
    )
    curvature = CurvatureProtocol(sequences=count, sketch=0)
    records = Session.open(Source(folder)).records(
        tokens_ST,
        protocol,
        kinds=frozenset({kind}),
        batch_size=trial.spec.batch,
        spectroscopy=Spectroscopy(curvature=curvature),
    )
    yield from records[kind]


def _tokens(trial: Trial) -> np.ndarray:
    """Windows of the text, evenly spaced over its kinds."""
    from scaleinv_ray.ladder.data import evaluation_set, token_stream
    from scaleinv_ray.probes.corpus import load_corpus

    spec = trial.spec
    streams = token_stream(
        load_corpus(spec.corpus), "train" if trial.text == "train" else "held_out"
    )
    windows_ST = np.concatenate(list(evaluation_set(streams, length=spec.length).values()))
    count = min(trial.sequences, len(windows_ST))
    chosen_S = np.arange(count) * len(windows_ST) // count
    # without the last token, which training predicts and no position reads
    tokens_ST: np.ndarray = windows_ST[chosen_S, :-1].astype(np.int32)
    return tokens_ST
