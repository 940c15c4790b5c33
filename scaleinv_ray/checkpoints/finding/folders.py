"""Checkpoints in local folders: one model, a run of steps, a ladder of runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from scaleinv_ray.checkpoints.checkpoint import Checkpoint, describe, mask_id_of
from scaleinv_ray.checkpoints.files.beginning import asked_beginning
from scaleinv_ray.checkpoints.files.headers import (
    file_digest,
    read_tensors,
    same_content,
    weights_digest,
)
from scaleinv_ray.checkpoints.files.layouts import listed, nearest, no_logits
from scaleinv_ray.checkpoints.files.tied import stored_twice
from scaleinv_ray.checkpoints.finding.runs import Layout, layout_of, step_zero_beside, told_of
from scaleinv_ray.checkpoints.finding.steps import model_of, step_of, tokens_of
from scaleinv_ray.inputs.json_files import check_is_there, lies_in, read_json
from scaleinv_ray.inputs.paths import absolute
from scaleinv_ray.inputs.wording import shown

Steps = Literal["all", "last"] | Sequence[int]


def from_folder(
    path: str | Path,
    *,
    steps: Steps = "all",
    seed: int | None = None,
    step: int | None = None,
    tokens: int | None = None,
    tokens_per_step: int | None = None,
    model: str | None = None,
    init: str | Path | None = None,
    cache_dir: Path | None = None,
) -> list[Checkpoint]:
    """The checkpoints of a run folder (see `layout_of`), or the one that the folder itself is.

    ValueError for folders without usable checkpoints, and for steps that do not exist.

    Args:
        steps: which steps of a run.
        seed: where no training.json says it; 0 by default.
        step: of a single checkpoint, or of the model beside step folders, where no file says it.
        tokens: seen in training by a single checkpoint, where no file says it.
        tokens_per_step: from which tokens follow, where no file says them.
        model: identity; the name of the run folder by default.
        init: the model at step 0, where it is not in the run folder.
        cache_dir: as in `weights_digest`.

    Returns:
        Checkpoints by step.
    """
    root = existing_folder("path", path)
    layout = layout_of(root, step)
    _check_no_ladder(layout)
    by_step = layout.steps
    begin = existing_folder("init", init) if init is not None else by_step.get(0)
    if begin is None and root in by_step.values():
        begin = step_zero_beside(root)
    chosen = _choose(by_step, steps, str(root))
    if tokens is not None and len(chosen) > 1:
        raise ValueError(
            f"{root}: tokens: got {tokens} for {len(chosen)} steps, allowed: tokens_per_step"
        )
    shared = {
        "model": model or model_of(root),
        "init_folder": begin,
        "init_digest": None if begin is None else weights_digest(begin, cache_dir),
    }
    given = _Given(seed, tokens, tokens_per_step)
    return [_local(by_step[s], s, given, shared, cache_dir) for s in chosen]


def _check_no_ladder(layout: Layout) -> None:
    if set(layout.steps.values()) != {layout.root} or lies_in(layout.root, "config.json"):
        return
    runs = [f.name for f in layout.unused if any(step_of(p.name) is not None for p in f.iterdir())]
    if runs:
        raise ValueError(
            f"path: got {str(layout.root)!r}, a folder of runs ({listed(runs)}); "
            "allowed: one of them, or ladder: for all"
        )


def existing_folder(field: str, path: str | Path) -> Path:
    """An existing folder, absolute: workers have other working directories.

    Args:
        path: as the user wrote it.

    Returns:
        The absolute path.

    Raises:
        ValueError: where there is no such folder.
    """
    folder = Path(absolute(path))
    if not os.path.isdir(folder):  # unlike Path's, never raises
        what = "a file, allowed: a folder" if os.path.exists(folder) else "no such folder"
        if field in {"path", "ladder", "records", "init"} and what == "no such folder":
            what += "; relative paths start at the folder of the config"
        room = 160 if len(str(folder)) < 160 else 80  # of a very long one the ends will do
        raise ValueError(f"{field}: got {shown(str(folder), room)}, {what}")
    return folder


def _choose(available: Collection[int | None], steps: Steps, where: str) -> Sequence[int | None]:
    known = list(available)
    if steps == "all":
        return known
    if steps == "last":
        return known[-1:]
    if unknown := sorted(set(steps) - set(known)):
        near = nearest(unknown[0], known)
        raise ValueError(f"{where}: steps: got [{listed(unknown)}], available {near}")
    return sorted(steps)


def _agreed(folder: Path, name: str, configured: int | None, told: int | None) -> int | None:
    """What the files say, else what the config says; both must agree."""
    if told is not None and configured is not None and told != configured:
        file = "training.json" if (folder / "training.json").is_file() else "trainer_state.json"
        raise ValueError(
            f"{folder}: {name}: got {configured}, {file} says {told}; allowed: the same"
        )
    return configured if told is None else told


class _Given(NamedTuple):
    """What the config says of every checkpoint of a folder."""

    seed: int | None
    tokens: int | None
    tokens_per_step: int | None


def _tokens_seen(folder: Path, step: int | None, given: _Given, told: int | None) -> int | None:
    tokens = given.tokens
    if given.tokens_per_step is not None:
        if step is None:
            raise ValueError(
                f"{folder}: tokens_per_step: got {given.tokens_per_step}, and nothing says the "
                "step; give step, or tokens instead"
            )
        tokens = step * given.tokens_per_step
    known = _agreed(folder, "train_tokens", tokens, told)
    return tokens_of(folder.name) if known is None else known


def _local(
    folder: Path,
    step: int | None,
    given: _Given,
    shared: Mapping[str, Any],
    cache_dir: Path | None,
) -> Checkpoint:
    tensors = read_tensors(folder)
    config = read_json(folder / "config.json")
    tokenizer = folder / "tokenizer.json" if lies_in(folder, "tokenizer.json") else None
    told = told_of(folder)
    step = _agreed(folder, "step", step, told.step)
    described = describe(str(folder), config, tensors)
    ends = stored_twice(tensors, config)
    if ends is not None and not same_content(folder, *ends):
        why = f"{ends[1]}: another matrix than {ends[0]}, to which config.json ties it"
        described |= {"odd": (*described["odd"], why), "broken": described["broken"] or why}
    return Checkpoint(
        **described,
        **shared,
        step=step,
        seed=_agreed(folder, "seed", given.seed, told.seed) or 0,
        train_tokens=_tokens_seen(folder, step, given, told.train_tokens),
        eval_loss=told.eval_loss,
        weights_digest=weights_digest(folder, cache_dir),
        tokenizer_file=tokenizer,
        tokenizer_digest=None if tokenizer is None else file_digest(tokenizer, cache_dir),
        bos=asked_beginning(folder, config),
        folder=folder,
        no_logits=no_logits(config),
        mask_id=mask_id_of(config, tensors, tokenizer),
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
    found = [from_folder(run, steps=steps, cache_dir=cache_dir) for run in runs_of(folder)]
    checkpoints = [c for run in found for c in run]
    return sorted(
        checkpoints, key=lambda c: (c.n_params, c.model, -1 if c.step is None else c.step)
    )


def runs_of(folder: str | Path) -> list[Path]:
    """The folders of a ladder's runs.

    Args:
        folder: as of `from_ladder`.

    Returns:
        At least one.

    Raises:
        ValueError: where there are none, or a link leads nowhere.
    """
    root = existing_folder("ladder", folder)
    runs = []
    for path in sorted(p for p in root.iterdir() if p.name[0] not in "._"):
        if path.is_dir():
            runs.append(path)
        elif path.is_symlink():
            check_is_there(path)
    if not runs:
        raise ValueError(f"ladder: got {str(root)!r}, a folder without runs")
    return runs
