"""Where the checkpoints of a run lie and what they say of themselves; needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def step_folder(run: Path, step: int) -> Path:
    """Folder of a checkpoint: `step-000300`."""
    return run / f"step-{step:06d}"


def read_training(folder: Path) -> dict[str, Any] | None:
    """training.json of a checkpoint, None where the checkpoint does not exist."""
    file = folder / "training.json"
    return json.loads(file.read_text()) if file.exists() else None
