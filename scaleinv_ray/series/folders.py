"""Checkpoints in local folders: one model, a run of steps, a ladder of runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scaleinv_ray.paths import absolute
from scaleinv_ray.series.checkpoint import Checkpoint, describe
from scaleinv_ray.series.headers import file_digest, read_json, read_tensors, weights_digest
from scaleinv_ray.wording import shown

Steps = Literal["all", "last"] | Sequence[int]
STEP_FOLDER = re.compile(r"step-(\d+)")


def from_folder(
    path: str | Path,
    *,
    steps: Steps = "all",
    seed: int | None = None,
    step: int | None = None,
    model: str | None = None,
    init: str | Path | None = None,
    cache_dir: Path | None = None,
) -> list[Checkpoint]:
    """The checkpoints of a run folder (`step-000300/..`), or the one that the folder itself is.

    ValueError for folders without usable checkpoints, and for steps that do not exist.

    Args:
        path: the folder.
        steps: which steps of a run.
        seed: where no training.json says it; 0 by default.
        step: of a single checkpoint without training.json.
        model: identity; the name of the run folder by default.
        init: the model at step 0, where it is not in the run folder.
        cache_dir: as in `weights_digest`.

    Returns:
        Checkpoints by step.
    """
    root = existing_folder("path", path)
    found = {int(m[1]): p for p in root.iterdir() if (m := STEP_FOLDER.fullmatch(p.name))}
    by_step: dict[int | None, Path] = {s: found[s] for s in sorted(found)}
    inside_run = not found and STEP_FOLDER.fullmatch(root.name)
    if not found:
        by_step = {_told(root, _training(root), step, "step"): root}
    begin = existing_folder("init", init) if init is not None else by_step.get(0)
    if begin is None and inside_run:
        begin = next((p for p in root.parent.glob("step-*") if not p.name[5:].strip("0")), None)
    shared = {
        "model": model or (root.parent if inside_run else root).name,
        "init_folder": begin,
        "init_digest": None if begin is None else weights_digest(begin, cache_dir),
    }
    return [
        _local(by_step[s], s, seed, shared, cache_dir) for s in _choose(by_step, steps, str(root))
    ]


def existing_folder(field: str, path: str | Path) -> Path:
    """An existing folder, absolute: workers have other working directories.

    Args:
        field: named in the error.
        path: as the user wrote it.

    Returns:
        The absolute path.

    Raises:
        ValueError: where there is no such folder.
    """
    folder = Path(absolute(path))
    if not folder.is_dir():
        what = "a file, allowed: a folder" if folder.exists() else "no such folder"
        raise ValueError(f"{field}: got {shown(str(folder), 160)}, {what}")
    return folder


def _choose(available: Iterable[int | None], steps: Steps, where: str) -> Sequence[int | None]:
    known = list(available)
    if steps == "all":
        return known
    if steps == "last":
        return known[-1:]
    unknown = sorted(set(steps) - set(known))
    if unknown:
        raise ValueError(f"{where}: steps: got {unknown}, available {known}")
    return sorted(steps)


def _training(folder: Path) -> dict[str, Any]:
    """What training.json says; nothing where there is none."""
    file = folder / "training.json"
    return read_json(file) if file.is_file() else {}


def _told(folder: Path, training: Mapping[str, Any], configured: int | None, name: str) -> Any:
    """A field of training.json, else what the config says; both must agree."""
    told = training.get(name)
    if told is not None and configured is not None and told != configured:
        raise ValueError(f"{folder}: {name}: got {configured}, training.json says {told}")
    return configured if told is None else told


def _local(
    folder: Path,
    step: int | None,
    seed: int | None,
    shared: Mapping[str, Any],
    cache_dir: Path | None,
) -> Checkpoint:
    tensors = read_tensors(folder)
    tokenizer = folder / "tokenizer.json"
    has_tokenizer = tokenizer.is_file()
    training = _training(folder)
    return Checkpoint(
        **describe(str(folder), read_json(folder / "config.json"), tensors),
        **shared,
        step=_told(folder, training, step, "step"),
        seed=_told(folder, training, seed, "seed") or 0,
        train_tokens=training.get("train_tokens"),
        eval_loss=training.get("eval_loss"),
        weights_digest=weights_digest(folder, cache_dir),
        tokenizer_file=tokenizer if has_tokenizer else None,
        tokenizer_digest=file_digest(tokenizer, cache_dir) if has_tokenizer else None,
        folder=folder,
    )


def from_ladder(
    folder: str | Path, steps: Steps = "all", *, cache_dir: Path | None = None
) -> list[Checkpoint]:
    """The checkpoints of every run in a folder of runs.

    Args:
        folder: holds one run folder a model (`d128-s0/step-000300/..`); names that begin with a
            dot or an underscore are not looked at.
        steps: which steps of every run.
        cache_dir: as in `weights_digest`.

    Returns:
        Checkpoints by run and step.

    Raises:
        ValueError: where there are no runs, or a run is unusable.
    """
    root = existing_folder("ladder", folder)
    runs = [p for p in root.iterdir() if p.is_dir() and p.name[0] not in "._"]
    if not runs:
        raise ValueError(f"ladder: got {str(root)!r}, a folder without runs")
    found = [from_folder(run, steps=steps, cache_dir=cache_dir) for run in runs]
    checkpoints = [c for run in found for c in run]
    return sorted(
        checkpoints, key=lambda c: (c.n_params, c.model, -1 if c.step is None else c.step)
    )
