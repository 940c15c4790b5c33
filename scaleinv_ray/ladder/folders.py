"""Where the checkpoints of a run lie and what they say of themselves; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaleinv_ray.inputs.json_files import lies_in, read_json, short

DIVERGED = "diverged"
"""Field of training.json, true at the checkpoint where losses had left all bounds."""


class DivergedError(ValueError):
    """A run whose losses have left all bounds; the checkpoint where it was seen says so."""


def step_folder(run: Path, step: int) -> Path:
    """Folder of a checkpoint: `step-000300`."""
    return run / f"step-{step:06d}"


def read_training(folder: Path) -> dict[str, Any] | None:
    """training.json of a checkpoint, None where the checkpoint does not exist.

    Returns:
        What it says; `config` is a mapping.

    Raises:
        ValueError: where it is of another form.
    """
    if not lies_in(folder, "training.json"):
        return None
    training = read_json(folder / "training.json")
    if not isinstance(training.get("config"), dict):
        got = short(training.get("config"))
        raise ValueError(f"{folder / 'training.json'}: config: got {got}, allowed: a mapping")
    return training
