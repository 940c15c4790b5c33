"""How a run uses the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from scaleinv_ray.cluster.scratch.disk import Scratch


@dataclass
class Settings:
    """How a run uses the cluster.

    Attributes:
        gpus_per_model: GPUs of one capture actor.
        deadline_s: seconds that one capture job or measurement may run before it counts as lost.
        discard: delete a capture file when nothing needs it any more.
        scratch: where the captures of this run lie; others are never deleted.
        actors: capture actors at a time, None for as many as fit beside the tasks.
        workers: measuring tasks submitted at a time, None for a few per CPU.
        memory: bytes that a measuring task asks for, None leaves it to Ray.
        node_wait_s: seconds that actors, and tasks where no node has a CPU, wait for a node.
    """

    gpus_per_model: int = 0
    deadline_s: float = 1800.0
    discard: bool = False
    scratch: Scratch | None = None
    actors: int | None = None
    workers: int | None = None
    memory: int | None = None
    node_wait_s: float = 1200.0
