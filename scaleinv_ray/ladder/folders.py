"""Where the checkpoints of a run lie and what they say of themselves; needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scaleinv_ray.wording import clipped, shown

DIVERGED = "diverged"
"""Field of training.json, true at the checkpoint where losses had left all bounds."""


class DivergedError(ValueError):
    """A run whose losses have left all bounds; the checkpoint where it was seen says so."""


def step_folder(run: Path, step: int) -> Path:
    """Folder of a checkpoint: `step-000300`."""
    return run / f"step-{step:06d}"


def read_training(folder: Path) -> dict[str, Any] | None:
    """training.json of a checkpoint, None where the checkpoint does not exist.

    Args:
        folder: of the checkpoint.

    Returns:
        Its fields.

    Raises:
        ValueError: for a file that holds no JSON object, named.
    """
    file = folder / "training.json"
    if not file.exists():
        return None
    try:
        training = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({clipped(error, 80)})") from error
    if not isinstance(training, dict) or not isinstance(training.get("config"), dict):
        raise ValueError(f"{file}: got {shown(training)}, allowed: what a ladder's run wrote")
    return training
