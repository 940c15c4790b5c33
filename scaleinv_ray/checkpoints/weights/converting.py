"""Pickled checkpoints into safetensors, in a process that has no network and runs none of them."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

from scaleinv_ray.checkpoints.finding.folders import existing_folder
from scaleinv_ray.inputs.paths import absolute, check_folder
from scaleinv_ray.inputs.wording import clipped

_PROCESS = "scaleinv_ray.checkpoints.weights.unpickling"
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000
"""Of Linux: clone(2)."""


def convert(folder: str | Path, out: str | Path) -> list[str]:
    """Makes a checkpoint of safetensors out of one of pickles.

    The pickles are read by `torch.load(weights_only=True)`, which makes tensors and containers and
    calls nothing else, in a process of its own without network. Every tensor that is written is
    read again and compared.

    Args:
        folder: holds config.json and pytorch_model.bin, or its shards with their index.
        out: the new folder; there at the end, or not at all.

    Returns:
        What was done, a line each.

    Raises:
        ValueError: where there is nothing to convert, `out` exists, or a file is no pickle of
            tensors, naming it.
    """
    root, target = existing_folder("folder", folder), Path(absolute(out))
    check_folder("out", target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out: got {str(target)!r}, which is there; allowed: a new folder")
    done = subprocess.run(
        [sys.executable, "-m", _PROCESS, str(root), str(target)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        preexec_fn=_leave_network,
        capture_output=True,
        text=True,
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        said = json.loads(last)
    except ValueError:
        why = clipped((done.stderr.strip().splitlines() or ["no reason given"])[-1], 160)
        raise ValueError(f"{root}: not converted: the process ended ({why})") from None
    if "refused" in said:
        raise ValueError(said["refused"])
    lines: list[str] = said["done"]
    return lines


def _leave_network() -> None:
    """A network namespace of its own, where the system allows it; the process says whether."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if libc.unshare(_NEW_NETWORK) != 0:
        libc.unshare(_NEW_USER | _NEW_NETWORK)
