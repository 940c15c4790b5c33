"""The section of a run that says how a cluster is used; the driver goes by the same options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from scaleinv_ray.config.fields import Bytes, Options, Positive, Seconds, Text
from scaleinv_ray.inputs.wording import shown


def _folder_on_nodes(value: str) -> str:
    path = Path(value)
    if (
        "\0" in value
        or not path.is_absolute()
        or ".." in path.parts
        or "{" in value.replace("{node}", "")
    ):
        raise ValueError(f"got {shown(value)}, allowed: an absolute path without '..'")
    return value


class ClusterOptions(Options):
    """How a run uses a cluster.

    Attributes:
        gpus_per_model: GPUs of one capture actor.
        deadline: seconds after which a capture job or a measurement counts as lost; text like
            `30min` is read.
        workers: measuring tasks submitted at a time, None for a few per CPU.
        actors: capture actors at a time, None for as many as fit.
        memory: bytes that a measuring task asks for; text like `4GB` is read.
        scratch: folder on a disk of every node for its captures, absolute, as nodes have other
            homes; `{node}` in it stands for the node's id. None is the run folder where that is a
            local one, else the temporary folder.
        load: models whole in memory, or streamed layer by layer; auto goes by what fits, and
            streams what ran out of memory.
        node_wait: seconds to wait for a node that has room for a capture actor, or any CPU for
            tasks; what still has none is then given up. An autoscaler takes minutes.
    """

    gpus_per_model: Annotated[int, Strict(), Field(ge=0, le=1024)] = 0
    deadline: Seconds = 1800.0
    workers: Annotated[Positive, Field(le=10**6)] | None = None
    actors: Annotated[Positive, Field(le=10**5)] | None = None
    memory: Bytes | None = None
    scratch: Annotated[Text, AfterValidator(_folder_on_nodes)] | None = None
    load: Literal["auto", "resident", "streamed"] = "auto"
    node_wait: Seconds = 1200.0
