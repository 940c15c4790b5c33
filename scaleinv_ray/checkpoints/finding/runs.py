"""What lies in the folder of a training run: which folder is which step, and what is not used.

Runs of our own ladders (`step-000300`, training.json), of the Hugging Face Trainer
(`checkpoint-500`, trainer_state.json, often a final model at the root), and of others whose names
give the step.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from scaleinv_ray.checkpoints.files.headers import INDEX, WEIGHTS, shard_files
from scaleinv_ray.checkpoints.files.layouts import is_unfinished, listed, names_in, what_is
from scaleinv_ray.checkpoints.finding.steps import model_of, run_of, step_of
from scaleinv_ray.inputs.json_files import check_is_there, lies_in, read_json, real, whole

_READ = re.compile(  # or nothing of a model's own, or needed by nobody here
    r"(config|generation_config|training|trainer_state|special_tokens_map|added_tokens)\.json"
    r"|model\.safetensors\.index\.json|(tokenizer|vocab|merges|chat_template).*"
    r"|(README|LICENSE|USE_POLICY).*|.*\.py|[._].*"
)


class Told(NamedTuple):
    """What files beside the weights say of a checkpoint; None where they do not.

    Attributes:
        step: optimiser steps.
        seed: replicate.
        train_tokens: seen in training.
        eval_loss: held-out, in nats.
        max_steps: of the whole run.
        best: the Trainer's checkpoint of the best metric so far, which its last model may be.
    """

    step: int | None = None
    seed: int | None = None
    train_tokens: int | None = None
    eval_loss: float | None = None
    max_steps: int | None = None
    best: str | None = None


class Layout(NamedTuple):
    """What a folder holds.

    Attributes:
        root: the folder.
        steps: step -> folder of the checkpoint, by step; the folder itself may be one of them,
            under None where nothing says its step.
        unused: folder -> why it is not used.
    """

    root: Path
    steps: dict[int | None, Path]
    unused: dict[Path, str]


def told_of(folder: Path) -> Told:
    """What training.json, and the trainer_state.json of the Hugging Face Trainer, say.

    Returns:
        What they say.

    Raises:
        ValueError: where a value is of another kind, or the two say different steps or tokens.
    """
    ours, theirs = folder / "training.json", folder / "trainer_state.json"
    told = Told()
    if lies_in(folder, theirs.name):
        state = read_json(theirs)  # its log may have losses that are not finite
        best = state.get("best_model_checkpoint")
        told = Told(
            step=whole(state, "global_step", theirs),
            train_tokens=whole(state, "num_input_tokens_seen", theirs) or None,
            max_steps=whole(state, "max_steps", theirs, least=-1),  # -1: by epochs
            best=None if best is None else str(best),
        )
    if not lies_in(folder, ours.name):
        return told
    training = read_json(ours, finite=True)
    step, tokens = whole(training, "step", ours), whole(training, "train_tokens", ours)
    pairs = {"step": (step, told.step), "train_tokens": (tokens, told.train_tokens)}
    for name, (mine, other) in pairs.items():
        if mine is not None and other is not None and mine != other:
            raise ValueError(
                f"{folder}: {name}: training.json says {mine}, trainer_state.json says {other}; "
                "allowed: the same, or one of them without it"
            )
    return told._replace(
        step=told.step if step is None else step,
        seed=whole(training, "seed", ours),
        train_tokens=told.train_tokens if tokens is None else tokens,
        eval_loss=real(training, "eval_loss", ours),
    )


def layout_of(root: Path, step: int | None = None) -> Layout:
    """Which folder of a run is which step.

    Folders whose names give a step are checkpoints. The model at the root, if there is one, is a
    step of its own where training.json, trainer_state.json or `step` says which, or where the run
    went beyond its last checkpoint (`max_steps`).

    Args:
        root: the run's folder, or that of a single checkpoint.
        step: of the model at the root, from the config.

    Returns:
        Its steps, and what is not used.

    Raises:
        ValueError: where two folders are the same step, or belong to several runs.
    """
    holds_model = _holds_weights(root)
    steps, unused = _step_folders(root, holds_model)
    if not steps:
        return Layout(root, {_step_of_single(root, step): root}, unused)
    if holds_model:
        at, why = _step_of_final(root, steps, step)
        if at is None:
            unused[root] = why
        else:
            steps[at] = root
    elif step is not None:
        raise ValueError(f"{root}: step: got {step}, allowed none: it is a run of steps")
    by_step: dict[int | None, Path] = {s: steps[s] for s in sorted(steps)}
    return Layout(root, by_step, unused)


def _holds_weights(folder: Path) -> bool:
    return any(p.exists() or p.is_symlink() for p in (folder / WEIGHTS, folder / INDEX))


def _step_folders(root: Path, holds_model: bool) -> tuple[dict[int, Path], dict[Path, str]]:
    """The folders that are steps of a run, and why each of the others is not."""
    named: list[Path] = []
    unused: dict[Path, str] = {}
    for folder in sorted(root.iterdir()):
        if folder.name[0] in "._" or not (folder.is_dir() or folder.is_symlink()):
            continue
        why = _why_no_step(folder, holds_model)
        if why is None:
            named.append(folder)
        elif folder.is_dir():
            unused[folder] = why
    runs = {run_of(f.name) for f in named}
    if len(runs) > 1 and "" not in runs:
        raise ValueError(
            f"{root}: got steps of several runs ({listed(sorted(runs))}), allowed: one; "
            "give each checkpoint as a path with its name"
        )
    steps: dict[int, Path] = {}
    for folder in named:
        if run_of(folder.name) and "" in runs:
            unused[folder] = "its name gives a run of its own"
            continue
        step = step_of(folder.name)
        assert step is not None
        if (twin := steps.setdefault(step, folder)) is not folder:
            raise ValueError(
                f"{root}: {twin.name} and {folder.name} are both step {step}, allowed: each once"
            )
    return steps, unused


def _why_no_step(folder: Path, holds_model: bool) -> str | None:
    """Why a folder, or a link, is no step of a run; None where it is one."""
    if step_of(folder.name) is None:
        return "no step in its name"
    if is_unfinished(folder.name):
        return "not finished"
    if not folder.is_dir():
        check_is_there(folder)  # a link that leads nowhere, or to a file
        return "a link to a file"
    if holds_model and not (_holds_weights(folder) or (folder / "config.json").exists()):
        return what_is("", names_in(folder)).partition("got ")[2].partition(";")[0]
    return None


def step_zero_beside(folder: Path) -> Path | None:
    """The step 0 of the run whose step a folder is, as its name says; None where there is none."""
    if model_of(folder) == folder.name:
        return None
    named = [p for p in sorted(folder.parent.glob("*")) if step_of(p.name) == 0]
    found = [p for p in named if not run_of(p.name) and p.is_dir() and _holds_weights(p)]
    if len(found) > 1:
        raise ValueError(f"{folder.parent}: {found[0].name} and {found[1].name} are both step 0")
    return found[0] if found else None


def _step_of_single(root: Path, step: int | None) -> int | None:
    told = told_of(root).step
    if step is not None:
        return step  # where the files say another, reading it says so
    return told if told is not None else step_of(root.name)


def _step_of_final(
    root: Path, steps: Mapping[int, Path], step: int | None
) -> tuple[int | None, str]:
    """The step of the model beside step folders, or why it is not used."""
    if step is not None and step in steps:
        raise ValueError(f"{root}: step: got {step}, which is {steps[step].name}; allowed: another")
    own, last = told_of(root), max(steps)
    at = own.step if step is None else step
    state = own if own.step is not None else told_of(steps[last])
    if at is None and state.max_steps is not None and state.max_steps >= last:
        at = state.max_steps
    if at is None:
        return None, "nothing says its step: give step, or trainer_state.json"
    if at in steps:
        return None, f"step {at} is {steps[at].name}"
    if step is None and state.best is not None:
        return None, "the last step or the best one: give step"
    return at, ""


def unused_in(layouts: Iterable[Layout]) -> str | None:
    """What lies in the folders of runs and is not read, in one line; None where all is.

    Returns:
        Folders with the reason, and files with their number, the first five of each.
    """
    files: Counter[str] = Counter()
    folders = []
    for layout in layouts:
        for folder in {layout.root, *layout.steps.values()}:
            names = {p.name for p in folder.iterdir() if not p.is_dir()}
            if folder in layout.steps.values():
                names -= {f.name for f in shard_files(folder)}
            elif folder in layout.unused:
                names = {n for n in names if not n.endswith(".safetensors")}  # said already
            files.update(n for n in names if not _READ.fullmatch(n))
        folders += [
            f"{'the model at the root' if f == layout.root else f'{f.name}/'} ({why})"
            for f, why in layout.unused.items()
        ]
    often = sorted(files.items(), key=lambda item: (-item[1], item[0]))
    counted = [n if k == 1 else f"{n} x{k}" for n, k in often]
    return "; ".join(listed(part) for part in (folders, counted) if part) or None
