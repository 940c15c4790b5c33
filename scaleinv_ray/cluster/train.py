"""Training a ladder: each run a Ray task that resumes from its last checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scaleinv_ray.config import TrainConfig
from scaleinv_ray.ladder.folders import read_training, step_folder
from scaleinv_ray.ladder.spec import Rung, TrainSpec, run_config, rungs
from scaleinv_ray.probes import load_corpus


def spec_of(config: TrainConfig) -> TrainSpec:
    """The ladder's own description of a checked config."""
    fields = config.model_dump(exclude={"depth"})
    if not isinstance(config.corpus, str):  # workers have other working directories
        fields["corpus"] = tuple(str(Path(path).resolve()) for path in config.corpus)
    return TrainSpec.from_mapping(fields)


def train(config: TrainConfig, *, address: str | None = None) -> list[Path]:
    """Trains every run of a ladder; those that are finished are left as they are.

    Args:
        config: a checked ladder config.
        address: of a Ray cluster; None embeds Ray.

    Returns:
        The folders of the runs, in the order of `rungs`.

    Raises:
        ValueError: where a folder holds a run of another config.
    """
    spec = spec_of(config)
    out = Path(config.out).resolve()
    digest = load_corpus(spec.corpus).digest
    wanted = [r for r in rungs(spec) if not _finished(spec, r, out / r.name, digest)]
    if wanted:
        _train_all(spec, wanted, out, address)
    return [out / rung.name for rung in rungs(spec)]


def _finished(spec: TrainSpec, rung: Rung, folder: Path, corpus_digest: str) -> bool:
    """Whether every checkpoint of this very run exists; `train_run` refuses another's folder."""
    found = [read_training(step_folder(folder, step)) for step in spec.saved]
    config = run_config(spec, rung, corpus_digest)
    return all(training is not None and training["config"] == config for training in found)


def _train_all(spec: TrainSpec, wanted: Sequence[Rung], out: Path, address: str | None) -> None:
    from scaleinv_ray.cluster.session import connected, ray

    with connected(address):
        # the widest first: they take longest
        tasks = [_remote().remote(spec, rung, str(out)) for rung in sorted(wanted, reverse=True)]
        quiet = 1.0 if sys.stderr.isatty() else 15.0
        with tqdm(total=len(tasks), unit="run", desc="training", mininterval=quiet) as bar:
            while tasks:
                done, tasks = ray.wait(tasks)
                ray.get(done)
                bar.update(len(done))


@cache
def _remote() -> Any:
    """The training task; a run that loses its worker goes on from its last checkpoint."""
    from scaleinv_ray.cluster.session import ray

    return ray.remote(num_cpus=1, max_retries=3)(_train_one)


def _train_one(spec: TrainSpec, rung: Rung, out: str) -> str:
    from scaleinv_ray.ladder.train import train_run

    return str(train_run(spec, rung, Path(out)))
