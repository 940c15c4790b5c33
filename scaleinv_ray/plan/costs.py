"""What a run costs, from shapes alone, and how a model has to be put into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import Protocol


def capture_bytes(
    checkpoint: Checkpoint,
    kind: str,
    protocol: Protocol,
    spectroscopy: Spectroscopy | None = None,
) -> int:
    """Bytes of one capture file, from shapes alone.

    Args:
        spectroscopy: what the run asks for beside forward passes; None for nothing.

    Returns:
        The size to within headers and the rounding to whole sequences (0 for weights, which are
        streamed from the checkpoint).
    """
    of = KINDS[kind]
    return of.num_bytes(checkpoint, protocol, of.settings(spectroscopy or Spectroscopy()))


def forward_flops(checkpoint: Checkpoint, protocol: Protocol) -> float:
    """Floating-point operations of one pass over a probe: 2 N per token (Kaplan et al. 2020).

    Args:
        protocol: gives the tokens.

    Returns:
        The operations, attention scores not counted.
    """
    return 2.0 * checkpoint.n_params * protocol.sequences * protocol.length


Load = Literal["auto", "resident", "streamed"]
HEADROOM = 1.3
"""Memory a resident model needs, over its weights: activations, logits, buffers of the loader."""
GPU_BYTES = 80_000_000_000
"""Of the GPU on which plans are priced, an A100."""
_ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class Loading(NamedTuple):
    """How a model is put into memory, and why.

    Attributes:
        how: whole in one actor, on its GPUs where it has any, or one block at a time.
        reason: of the choice.
    """

    how: Literal["resident", "streamed"]
    reason: str


def model_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of a checkpoint's weights in the dtype in which they are stored."""
    return checkpoint.n_params * _ITEM_BYTES[checkpoint.dtype]


def choose_loading(
    num_bytes: int, load: Load = "auto", *, memory: int, gpu_memory: int = 0
) -> Loading:
    """Whether a model is loaded whole, or read layer by layer.

    Args:
        load: 'auto', or what was decided by the user.
        memory: bytes of main memory that one actor may take.
        gpu_memory: bytes on the GPUs of one actor together, 0 without any.

    Returns:
        'resident' where `HEADROOM` times the weights fit (into the GPUs, where there are any: a
        model offloaded from them would be read once a batch), else 'streamed'.

    >>> choose_loading(2_800_000_000, memory=3_000_000_000).how
    'streamed'
    >>> choose_loading(2_800_000_000, memory=3_000_000_000, gpu_memory=4_000_000_000).how
    'resident'
    >>> choose_loading(2_800_000_000, "resident", memory=3_000_000_000).reason
    'cluster.load'
    """
    room, where = (gpu_memory, "GPU memory") if gpu_memory else (memory, "memory")
    needed = HEADROOM * num_bytes
    if load != "auto":
        return Loading(load, "cluster.load")
    reason = f"{sized(needed)} needed, {sized(room)} of {where}"
    return Loading("resident" if needed <= room else "streamed", reason)


def available_memory() -> int:
    """Bytes of main memory that this process may still take: of the machine and of its cgroup."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{n}").read_text().strip() for n in ("max", "current"))
    except OSError:  # no cgroup of version 2, or the root group
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used)))


def oom_kills() -> int:
    """Processes of this machine's cgroup that the kernel has killed for want of memory."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:  # no cgroup of version 2, or the root group
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
