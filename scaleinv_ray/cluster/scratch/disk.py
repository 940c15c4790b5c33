"""Captures on the scratch disks of nodes: where they lie, what is there, how a copy is made.

Needs no Ray: `transfer` carries the bytes from node to node.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaleinv_ray.plan.jobs import Held
from scaleinv_ray.store import PART, is_complete
from scaleinv_ray.store.states import STATES

NODE = "{node}"
"""Stands for the id of a node in the folder of a scratch."""
LOCK = f"{PART}lock-"


@dataclass(frozen=True)
class Scratch:
    """The folder of captures, which every node has on a disk of its own unless it is shared.

    Attributes:
        folder: absolute; `{node}` in it stands for the id of a node.
        shared: all nodes see the same folder.
    """

    folder: Path
    shared: bool = False

    def __post_init__(self) -> None:
        """Checks the folder.

        Raises:
            ValueError: where it is relative or climbs.
        """
        if not self.folder.is_absolute() or ".." in self.folder.parts:
            raise ValueError(f"scratch: got {self.folder}, allowed: an absolute path without '..'")

    def name(self, file: str) -> str:
        """What a file is called in jobs, whichever node has it.

        Args:
            file: its name, without folders.

        Returns:
            A path in which `{node}` still stands.
        """
        return str(self._inside(self.folder, file))

    def on(self, node: str, file: str = "") -> Path:
        """The folder, or a file in it, as the node knows it.

        Args:
            file: its name, without folders; none for the folder.

        Returns:
            A path on a disk of that node.

        Raises:
            ValueError: for a file or a node that leads out of the folder.
        """
        if not node.isalnum():
            raise ValueError(f"node: got {node!r}, allowed: letters and digits")
        folder = Path(str(self.folder).replace(NODE, node))
        return self._inside(folder, file) if file else folder

    def holds(self, path: str) -> bool:
        """Whether a path of a job is a file of this scratch."""
        return Path(path).parent == self.folder

    @staticmethod
    def _inside(folder: Path, file: str) -> Path:
        if file != Path(file).name or file in {"", ".."}:
            raise ValueError(f"file: got {file!r}, allowed: a name inside {folder}")
        return folder / file


@dataclass(frozen=True)
class Ground:
    """What a node's scratch has.

    Attributes:
        node: its id, empty for a folder that all nodes share.
        address: of the node.
        folder: as the node knows it.
        free: bytes.
        sizes: bytes of the wanted captures that are complete there, by file name.
    """

    node: str
    address: str
    folder: str
    free: int
    sizes: Mapping[str, int]


def found_on(scratch: Scratch, grounds: Iterable[Ground]) -> dict[str, Held]:
    """Where the captures of earlier runs are, by path as jobs name them."""
    sizes: dict[str, int] = {}
    nodes: dict[str, list[str]] = {}
    for ground in grounds:
        for file, size in ground.sizes.items():
            path = scratch.name(file)
            if sizes.setdefault(path, size) == size:
                nodes.setdefault(path, []).extend([ground.node] if ground.node else [])
    return {path: Held(size, tuple(nodes[path])) for path, size in sizes.items()}


def survey(
    folder: Path, wanted: Collection[str], *, only_wanted: bool, node: str = "", address: str = ""
) -> Ground:
    """Cleans a scratch folder and says what it has.

    Args:
        folder: of captures; made where it is absent.
        wanted: names of files that measurements need.

    Returns:
        Free bytes and the complete files among those wanted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder, {str(folder / name) for name in wanted} if only_wanted else None)
    complete = (folder / name for name in sorted(wanted))
    sizes = {path.name: path.stat().st_size for path in complete if is_complete(path)}
    return Ground(node, address, str(folder), shutil.disk_usage(folder).free, sizes)


def clean(scratch: Path, wanted: set[str] | None) -> None:
    """Removes what a killed run left behind: half-written captures, and those nobody reads.

    Args:
        wanted: files that measurements still need; None keeps all complete ones.
    """
    for part in scratch.glob(f"{PART}*"):
        if not part.is_dir():
            part.unlink(missing_ok=True)
    if wanted is None:
        return
    for states in scratch.glob(f"{STATES}*"):  # a streamed pass that was killed goes on from them
        if str(states.with_name(f"{states.name.removeprefix(STATES)}.arrow")) not in wanted:
            shutil.rmtree(states, ignore_errors=True)
    for path in scratch.glob("*.arrow"):
        if str(path) not in wanted and not path.is_dir():
            path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Deletes a capture and the lock of its transfer; absent is fine."""
    path.unlink(missing_ok=True)
    path.with_name(f"{LOCK}{path.name}").unlink(missing_ok=True)


def fetch_once(target: Path, size: int, chunks: Callable[[], Iterable[np.ndarray]]) -> bool:
    """Copies a file to `target` unless it is there; of concurrent calls one copies.

    The others wait for it. A call that is killed leaves no file under the final name, and its lock
    goes with its process.

    Args:
        size: bytes of the file.
        chunks: gives its content in order; asked only where a copy is made.

    Returns:
        Whether this call made the copy.

    Raises:
        ValueError: where the content is shorter or longer than `size`.
    """
    if _is_copy(target, size):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if _is_copy(target, size):
            return False
        _copy(target, size, chunks())
    return True


def _is_copy(target: Path, size: int) -> bool:
    """A file of another size is of another run, whose capture had the same key."""
    return target.is_file() and target.stat().st_size == size


def _copy(target: Path, size: int, chunks: Iterable[np.ndarray]) -> None:
    part = target.with_name(f"{PART}{target.name}")
    try:
        with part.open("wb") as stream:
            for chunk in chunks:
                stream.write(chunk.data)
            stream.flush()
            os.fsync(stream.fileno())
            got = stream.tell()
        if got != size:
            raise ValueError(f"transfer of {target.name}: got {got} bytes, expected {size}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _locked(target: Path) -> Generator[None]:
    """One process of this node at a time."""
    with target.with_name(f"{LOCK}{target.name}").open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
