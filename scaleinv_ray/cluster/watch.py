"""Checkpoints examined as they arrive in a folder or a bucket."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs
from pydantic import TypeAdapter

from scaleinv_ray.cluster.run import Run, run
from scaleinv_ray.config import load_run_config
from scaleinv_ray.config.fields import Name
from scaleinv_ray.config.reader import read_mapping
from scaleinv_ray.paths import absolute, expanded, is_uri
from scaleinv_ray.reading import told
from scaleinv_ray.series.headers import INDEX, WEIGHTS
from scaleinv_ray.store import PART

SETTLED_S = 30.0
"""A folder whose newest file is younger is still being written."""
_HEADER_LIMIT = 100_000_000


def arrivals(uri: str, *, settled_s: float = SETTLED_S) -> list[str]:
    """Folders that hold a whole checkpoint, at any depth.

    Args:
        uri: a folder, or a bucket with prefix (`s3://bucket/prefix`).
        settled_s: seconds since the newest file was written.

    Returns:
        Their paths below `uri`, sorted. A folder without config.json, with a shard that is absent
        or shorter than its header says, or written to a moment ago, is not among them.
    """
    filesystem, root = _open(uri)
    selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
    folders: dict[str, dict[str, fs.FileInfo]] = {}
    for info in filesystem.get_file_info(selector):
        if info.is_file:
            at = str(PurePosixPath(info.path).parent)
            folders.setdefault(at, {})[info.base_name] = info
    now = time.time()
    whole = [
        at
        for at, files in folders.items()
        if PART not in at
        and ".." not in PurePosixPath(at).parts
        and max(info.mtime_ns / 1e9 for info in files.values()) <= now - settled_s
        and _is_whole(filesystem, files)
    ]
    return sorted(PurePosixPath(at).relative_to(root).as_posix() for at in whole)


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    if is_uri(uri):
        filesystem, root = fs.FileSystem.from_uri(uri)
        return filesystem, root.rstrip("/")
    return fs.LocalFileSystem(), str(expanded(uri).resolve())


def _is_whole(filesystem: fs.FileSystem, files: Mapping[str, fs.FileInfo]) -> bool:
    if "config.json" not in files:
        return False
    try:
        json.loads(_read(filesystem, files["config.json"]))
        if WEIGHTS in files:
            shards = {WEIGHTS}
        else:
            index = json.loads(_read(filesystem, files[INDEX]))
            shards = set(index["weight_map"].values())
        return all(_size_told(filesystem, files[s]) == files[s].size for s in shards)
    except (KeyError, ValueError, FileNotFoundError):  # absent, not whole, or deleted just now
        return False
    except (AttributeError, TypeError):  # JSON of another form
        return False


def _read(filesystem: fs.FileSystem, info: fs.FileInfo) -> bytes:
    with filesystem.open_input_file(info.path) as stream:
        return stream.read()


def _size_told(filesystem: fs.FileSystem, info: fs.FileInfo) -> int:
    """The size that a safetensors header gives its file."""
    with filesystem.open_input_file(info.path) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_HEADER_LIMIT, info.size):
            raise ValueError(f"{info.path}: header of {length} bytes in a file of {info.size}")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)


def fetched(uri: str, folder: str, mirror: Path) -> Path:
    """The local folder of an arrival; out of a bucket it is copied once.

    Args:
        uri: as of `arrivals`.
        folder: one of its paths.
        mirror: where copies lie, seen by all nodes.

    Returns:
        A folder with the checkpoint.

    Raises:
        ValueError: for a folder that would lie outside the mirror.
    """
    if ".." in PurePosixPath(folder).parts or PurePosixPath(folder).is_absolute():
        raise ValueError(f"folder: got {folder!r}, allowed: below {uri}")
    filesystem, root = _open(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return Path(root) / folder
    # what lies at the top, as the last model of a training run, goes beside what lies in folders
    source = PurePosixPath(root) / folder
    target = mirror / (source.name if folder == "." else folder)
    if not target.is_dir():
        part = target.with_name(f"{PART}{target.name}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        # its own files alone: the names of objects may lead anywhere
        for info in filesystem.get_file_info(fs.FileSelector(str(source))):
            if info.is_file:
                target_file = str(part / info.base_name)
                fs.copy_files(info.path, target_file, source_filesystem=filesystem)
        part.rename(target)
    return target


def watch(
    config: str | Path,
    uri: str,
    *,
    every: float = 60.0,
    rounds: int | None = None,
    settled_s: float = SETTLED_S,
    address: str | None = None,
) -> Iterator[Run | str]:
    """Runs a config on the checkpoints of a folder or a bucket whenever new ones are whole.

    Args:
        config: YAML file of a run; its `models` may be left out.
        uri: where checkpoints arrive.
        every: seconds between two looks.
        rounds: looks until it ends, None for ever.
        settled_s: as of `arrivals`.
        address: of a Ray cluster; None embeds Ray.

    Yields:
        After each look that found something new, the run, or why it could not be made; after one
        for which the folder or bucket could not be read, why.
    """
    options, home = read_mapping(config), Path(absolute(config)).parent
    name = TypeAdapter(Name).validate_python(options.get("name"))  # of a folder, no way out of it
    out = str(options.get("out", f"runs/{name}-arrived"))
    mirror = Path(absolute(f"runs/{name}" if is_uri(out) else out, home)) / "arrived"
    examined: set[str] = set()
    looked = 0
    while rounds is None or looked < rounds:
        time.sleep(every if looked else 0.0)
        looked += 1
        try:
            found = arrivals(uri, settled_s=settled_s)
            if set(found) <= examined:
                continue
            paths = [{"path": str(fetched(uri, f, mirror))} for f in found]
        except OSError as error:  # a bucket has bad moments; the next look may find it better
            yield f"error: {told(error)}"
            continue
        examined |= set(found)
        yield _run({**options, "models": [*options.get("models", []), *paths]}, home, address)


def _run(options: Mapping[str, Any], home: Path, address: str | None) -> Run | str:
    try:
        config = load_run_config(options, folder=home)
        given = config.model_dump(mode="json", exclude_unset=True)  # its paths absolute
        return run(given, address=address)
    except (ValueError, OSError) as error:  # the next arrival may be what was missing
        return f"error: {told(error)}"
