"""Training a ladder: each run a Ray task that resumes from its last checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scaleinv_ray.config import TrainConfig
from scaleinv_ray.inputs.paths import check_folder
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.ladder.folders import DIVERGED, DivergedError, read_training, step_folder
from scaleinv_ray.ladder.spec import Rung, TrainSpec, least_memory, run_config, rungs
from scaleinv_ray.plan.costs import available_memory
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
        address: of a Ray cluster; None embeds Ray.

    Returns:
        The folders of the runs, in the order of `rungs`.

    Raises:
        ValueError: where a folder holds a run of another config, where `out` is no folder, where a
            model is larger than this machine's memory, and where a run diverged: the others are
            trained first.
    """
    check_folder("out", config.out)
    spec = spec_of(config)
    if address is None:
        _check_memory(spec)
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
    return all(t is not None and t["config"] == config and not t.get(DIVERGED) for t in found)


def _train_all(spec: TrainSpec, wanted: Sequence[Rung], out: Path, address: str | None) -> None:
    from scaleinv_ray.cluster.session import connected, ray

    with connected(address):
        # the widest first: they take longest
        tasks = [_remote().remote(spec, rung, str(out)) for rung in sorted(wanted, reverse=True)]
        quiet = 1.0 if sys.stderr.isatty() else 15.0
        with tqdm(total=len(tasks), unit="run", desc="training", mininterval=quiet) as bar:
            diverged: list[DivergedError] = []
            while tasks:
                done, tasks = ray.wait(tasks)
                diverged += [d for d in ray.get(done) if d is not None]
                bar.update(len(done))
    if diverged:
        raise min(diverged, key=str)


@cache
def _remote() -> Any:
    """The training task; a run that loses its worker goes on from its last checkpoint."""
    from scaleinv_ray.cluster.session import ray

    return ray.remote(num_cpus=1, max_retries=3)(_train_one)


def _train_one(spec: TrainSpec, rung: Rung, out: str) -> DivergedError | None:
    """Trains a run; that it diverged is an outcome, which does not end those of the others."""
    from scaleinv_ray.ladder.train import train_run

    try:
        train_run(spec, rung, Path(out))
    except DivergedError as error:
        return error
    return None


def _check_memory(spec: TrainSpec) -> None:
    """Refuses a run that cannot be held here: Ray would end it after minutes, without a reason."""
    memory = available_memory()
    for rung in rungs(spec):
        if (needed := least_memory(spec, rung)) > memory:
            raise ValueError(
                f"widths, depths, batch, length: run {rung.name} of depth {rung.depth} needs "
                f"{sized(needed)} or more, this machine has {sized(memory)} available"
            )
