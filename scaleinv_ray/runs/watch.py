"""Checkpoints examined as they arrive in a folder or a bucket."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pyarrow import fs
from pydantic import TypeAdapter

from scaleinv_ray.checkpoints.files.headers import INDEX, WEIGHTS
from scaleinv_ray.checkpoints.files.layouts import what_is
from scaleinv_ray.checkpoints.finding.runs import layout_of
from scaleinv_ray.config import load_run_config
from scaleinv_ray.config.fields import Name
from scaleinv_ray.config.reader import read_mapping
from scaleinv_ray.inputs.json_files import MAX_BYTES, parse_json
from scaleinv_ray.inputs.paths import absolute, expanded, is_uri
from scaleinv_ray.inputs.reading import told
from scaleinv_ray.runs.analysis import Run, run
from scaleinv_ray.store import PART

SETTLED_S = 30.0
"""A folder whose newest file is younger is still being written."""
STALE_S = 600.0
"""A folder that is no whole checkpoint for so long is said to be none."""
_SKEW_S = 60.0  # between the clocks of two machines


class Look(NamedTuple):
    """What lies in a folder or a bucket.

    Attributes:
        whole: paths of whole checkpoints below it, sorted.
        faults: path -> why it is none, of what will not become one by waiting.
    """

    whole: list[str]
    faults: dict[str, str]


def look(uri: str, *, settled_s: float = SETTLED_S) -> Look:
    """Whole checkpoints at any depth, and what seems to be meant as one.

    Args:
        uri: a folder, or a bucket with prefix (`s3://bucket/prefix`). Links to folders are not
            followed.
        settled_s: seconds since the newest file was written.

    Returns:
        Both. A folder without config.json, with a shard that is absent or shorter than its header
        says, or written to a moment ago, is not whole; it is a fault when it has been so for
        STALE_S, or when a file's time lies ahead of the clock.
    """
    filesystem, root = _open(uri)
    whole, faults = [], {}
    now = time.time()
    for at, files in _folders(filesystem, root).items():
        if PART in at or ".." in PurePosixPath(at).parts:
            continue
        path = PurePosixPath(at).relative_to(root).as_posix()
        newest = max(files.values(), key=lambda info: info.mtime_ns)
        age = now - newest.mtime_ns / 1e9
        if age >= settled_s:
            why = _fault(filesystem, files)
            if why is None:
                whole.append(path)
            elif age > STALE_S and "config.json" in files:
                faults[path] = why
        elif age < -_SKEW_S and "config.json" in files:
            faults[path] = f"{newest.base_name} is dated {-age:.0f} s ahead of this machine's clock"
    return Look(sorted(whole), faults)


def _folders(filesystem: fs.FileSystem, root: str) -> dict[str, dict[str, fs.FileInfo]]:
    """Folder -> name -> file, of everything below."""
    found: Iterable[fs.FileInfo]
    if isinstance(filesystem, fs.LocalFileSystem):  # its selector would follow links in circles
        paths = (os.path.join(at, n) for at, _, names in os.walk(root) for n in names)
        found = filesystem.get_file_info([p for p in paths if _is_text(p)])
    else:
        selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
        found = filesystem.get_file_info(selector)
    folders: dict[str, dict[str, fs.FileInfo]] = {}
    for info in found:
        if info.is_file:
            at = str(PurePosixPath(info.path).parent)
            folders.setdefault(at, {})[info.base_name] = info
    return folders


def _is_text(path: str) -> bool:
    return path.encode(errors="ignore") == os.fsencode(path)


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    if is_uri(uri):
        filesystem, root = fs.FileSystem.from_uri(uri)
        return filesystem, root.rstrip("/")
    return fs.LocalFileSystem(), str(expanded(uri).resolve())


def _fault(filesystem: fs.FileSystem, files: Mapping[str, fs.FileInfo]) -> str | None:
    """Why these files are no whole checkpoint; None where they are."""
    if "config.json" not in files:
        return "no config.json"
    try:
        parse_json(_bytes_of(filesystem, files["config.json"]), "config.json")
        if WEIGHTS in files:
            shards = {WEIGHTS}
        elif INDEX in files:
            index = parse_json(_bytes_of(filesystem, files[INDEX]), INDEX)
            shards = set(index["weight_map"].values())
        else:
            return what_is("", list(files)).removeprefix(": ")
        for name in sorted(shards):
            if name not in files:
                return f"{name} is missing"
            if (size := _size_told(filesystem, files[name])) != files[name].size:
                return f"{name}: got {files[name].size} bytes, its header says {size}"
    except (ValueError, FileNotFoundError, PermissionError) as error:  # or deleted just now
        return str(error)
    except (LookupError, AttributeError, TypeError) as error:  # JSON of another form
        return f"JSON of another form ({type(error).__name__}: {error})"
    return None


def _bytes_of(filesystem: fs.FileSystem, info: fs.FileInfo) -> bytes:
    if info.size > MAX_BYTES:
        raise ValueError(f"{info.base_name}: got {info.size} bytes, allowed {MAX_BYTES}")
    with filesystem.open_input_file(info.path) as stream:
        return stream.read()


def _size_told(filesystem: fs.FileSystem, info: fs.FileInfo) -> int:
    """The size that a safetensors header gives its file."""
    with filesystem.open_input_file(info.path) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(MAX_BYTES, info.size):
            raise ValueError(f"{info.base_name}: header of {length} bytes in a file of {info.size}")
        header = parse_json(stream.read(length), info.base_name)
    header.pop("__metadata__", None)
    return 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)


def fetched(uri: str, folder: str, mirror: Path) -> Path:
    """The local folder of an arrival; out of a bucket it is copied once.

    Args:
        uri: as of `look`.
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
        every: seconds between two looks.
        rounds: looks until it ends, None for ever.
        settled_s: as of `look`.
        address: of a Ray cluster; None embeds Ray.

    Yields:
        After each look that found something new, the run, or why it could not be made; after one
        for which the folder or bucket could not be read, why; once, why a folder is no checkpoint.
    """
    options, home = read_mapping(config), Path(absolute(config)).parent
    name = TypeAdapter(Name).validate_python(options.get("name"))  # of a folder, no way out of it
    out = str(options.get("out", f"runs/{name}-arrived"))
    mirror = Path(absolute(f"runs/{name}" if is_uri(out) else out, home)) / "arrived"
    examined: set[str] = set()
    said: set[tuple[str, str]] = set()
    looked = 0
    while rounds is None or looked < rounds:
        time.sleep(every if looked else 0.0)
        looked += 1
        try:
            found = look(uri, settled_s=settled_s)
            folders = {} if set(found.whole) <= examined else _fetch_all(uri, found.whole, mirror)
        except OSError as error:  # a bucket has bad moments; the next look may find it better
            yield f"error: {told(error)}"
            continue
        sources, refused = _sources(folders)
        for fault in sorted({*found.faults.items(), *refused.items()} - said):
            said.add(fault)
            yield f"passed over: {fault[0]}: {fault[1]}"
        if sources:
            examined |= set(found.whole)
            yield _run({**options, "models": [*options.get("models", []), *sources]}, home, address)


def _fetch_all(uri: str, found: Iterable[str], mirror: Path) -> dict[str, Path]:
    return {name: fetched(uri, name, mirror) for name in found}


def _sources(folders: Mapping[str, Path]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Entries under `models`, each of one checkpoint, and why a folder gives none."""
    sources: list[dict[str, Any]] = []
    refused = {}
    for name, folder in folders.items():
        try:
            layout = layout_of(folder)
        except ValueError as error:
            refused[name] = str(error)
            continue
        own = [step for step, at in layout.steps.items() if at == folder]
        if not own:  # a last model whose step is another's, or not known
            refused[name] = layout.unused[folder]
        elif len(layout.steps) > 1:  # the others arrive by themselves
            sources.append({"path": str(folder), "steps": own})
        else:
            sources.append({"path": str(folder)})
    return sources, refused


def _run(options: Mapping[str, Any], home: Path, address: str | None) -> Run | str:
    try:
        config = load_run_config(options, folder=home)
        given = config.model_dump(mode="json", exclude_unset=True)  # its paths absolute
        return run(given, address=address)
    except (ValueError, OSError) as error:  # the next arrival may be what was missing
        return f"error: {told(error)}"
