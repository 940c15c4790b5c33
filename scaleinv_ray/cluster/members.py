"""The members of a chain of actors: each holds a range of blocks and what passes them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scaleinv_ray.cluster.scratch.transfer import this_node
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.plan.costs import available_memory
from scaleinv_ray.plan.jobs import WeightSource
from scaleinv_ray.records import Record
from scaleinv_ray.store import read_record, write_record, write_records

if TYPE_CHECKING:
    from scaleinv_ray.capture.chained import Link, Request
    from scaleinv_ray.capture.session import Source
    from scaleinv_ray.capture.streaming.partial import StreamedModel


class Room(NamedTuple):
    """Where a member runs.

    Attributes:
        node: its id.
        memory: bytes that it may take: of its GPUs where it has any, else of the node.
        on_gpu: which of the two.
    """

    node: str
    memory: int
    on_gpu: bool


class Report(NamedTuple):
    """What a member has made of a pass.

    Attributes:
        files: kind -> path and bytes of its partial files, on its node.
        nonfinite: values that were not finite, by site and layer.
    """

    files: dict[str, list[tuple[str, int]]]
    nonfinite: dict[tuple[str, int], int]


class Kept:
    """Puts the moments of a block on disk and gives them back mapped; also while they grow."""

    def __init__(self, folder: Path) -> None:
        """Files go to `folder`."""
        self._folder = folder
        self.paths: list[Path] = []

    def __call__(self, record: Record) -> Record:
        """The record as it lies on disk."""
        path = self._folder / f"moments-{len(self.paths):04d}.arrow"
        write_record(path, record, kind="moments", facts={})
        self.paths.append(path)
        return read_record(path)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float64 array in a file that is gone from the disk with the array."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"sums-{uuid.uuid4().hex[:8]}"
        array = np.memmap(path, dtype=np.float64, mode="w+", shape=shape)
        path.unlink()
        return array


def source_of(weights: WeightSource, device_map: str | None = None) -> Source:
    """What is captured from, with its folders on this node."""
    from scaleinv_ray.capture.session import Source
    from scaleinv_ray.checkpoints.weights.loading import LoadOptions

    options = LoadOptions(device_map=device_map, trust_remote_code=weights.trusted)
    checkpoint = weights.checkpoint
    return Source(
        weights.folder(), weights.variant, checkpoint.seed, weights.init_folder(), options
    )


def skeleton(weights: WeightSource) -> StreamedModel:
    """The model without weights in memory."""
    from scaleinv_ray.capture.session import StreamedSession

    return StreamedSession.open(source_of(weights)).streamed


def gpu_memory() -> int:
    """Free bytes on the GPUs that Ray has given to this process."""
    import torch

    return sum(torch.cuda.mem_get_info(d)[0] for d in range(torch.cuda.device_count()))


class Member:
    """Holds a range of blocks; the head has one of its own, the others are Ray actors."""

    def __init__(self, *, num_threads: int, num_gpus: int) -> None:
        """Sets the threads of torch.

        Args:
            num_threads: of torch.
            num_gpus: on which the blocks go.
        """
        import torch

        torch.set_num_threads(num_threads)
        self._devices = tuple(f"cuda:{i}" for i in range(num_gpus)) or ("cpu",)
        self._link: Link | None = None
        self._folder: Path | None = None

    def room(self) -> Room:
        """Where it runs and what it may hold."""
        on_gpu = self._devices != ("cpu",)
        return Room(this_node(), gpu_memory() if on_gpu else available_memory(), on_gpu)

    def hold(self, weights: WeightSource, first: int, stop: int) -> int:
        """Reads its blocks.

        Args:
            weights: of the model.
            first: number of its first block.
            stop: number after that of its last one.

        Returns:
            Bytes read.
        """
        from scaleinv_ray.capture.chained import Link

        self._link = Link(skeleton(weights), range(first, stop), self._devices)
        return self._link.streamed.bytes_read

    def begin(self, tokens_ST: np.ndarray, request: Request, folder: str) -> None:
        """Begins a pass.

        Args:
            tokens_ST: the probe.
            request: what is wanted of it.
            folder: for partial files; where this node has no such place, its temporary folder.
        """
        assert self._link is not None
        wanted = Path(folder)
        root = wanted if wanted.parent.is_dir() else Path(tempfile.gettempdir()) / wanted.name
        self._folder = root / f"member-{self._link.layers.start:04d}"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._kept = Kept(self._folder)
        self._link.begin(tokens_ST, request, self._kept, self._kept.allocate)

    def take(self, first: int, count: int, x_BTD: np.ndarray | None) -> np.ndarray | None:
        """Pushes a batch through its blocks; see `Link.take`."""
        assert self._link is not None
        return self._link.take(first, count, x_BTD)

    def end(self) -> Report:
        """Ends a pass and writes what its blocks have left behind.

        Returns:
            The partial files.
        """
        assert self._link is not None and self._folder is not None
        handed = self._link.end()
        files: dict[str, list[tuple[str, int]]] = {}
        for kind, records in handed.records.items():
            paths = self._kept.paths
            if kind != "moments":
                paths = [self._folder / f"{kind}.arrow"]
                write_records(paths[0], records, kind=kind, facts={})
            files[kind] = [(str(path), path.stat().st_size) for path in paths]
        return Report(files, handed.nonfinite)

    def read(self, path: str, start: int, count: int) -> np.ndarray:
        """A piece of a partial file, uint8.

        Args:
            path: of one of its own files.
            start: byte to begin with.
            count: of bytes; fewer come where the file ends.

        Returns:
            The bytes.

        Raises:
            ValueError: for a file that is none of its own.
        """
        if self._folder is None or Path(path).parent != self._folder:
            raise ValueError(f"path: got {path}, allowed files in {self._folder}")
        return np.fromfile(path, dtype=np.uint8, count=count, offset=start)

    def clear(self) -> None:
        """Deletes its partial files, and the folder of all members where nothing else is in it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):
                self._folder.parent.rmdir()

    def leave(self) -> None:
        """Drops its weights and files."""
        self.clear()
        if self._link is not None:
            self._link.close()


MemberActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Member)
