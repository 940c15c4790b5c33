"""Safetensors files read without loading a tensor: headers, parameter counts, digests.

A file is eight bytes (the header's length, little endian), the header as JSON, then the tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scaleinv_ray.checkpoints.files.header_format import TensorHeader, parse_header
from scaleinv_ray.checkpoints.files.layouts import is_unfinished, listed, names_in, what_is
from scaleinv_ray.inputs.json_files import lies_in, parse_json, read_json, short

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
_SETTLED_S = 2.0  # a file younger than this may still change under the same mtime
_REMEMBERED: dict[str, tuple[str, str]] = {}


def read_header(file: Path) -> dict[str, TensorHeader]:
    """The tensors of one safetensors file, by name.

    Returns:
        dtype (as in the format: F32, BF16, ..) and shape of every tensor.

    Raises:
        ValueError: where the file is shorter or longer than its header says, or has none.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_HEADER_LIMIT, size - 8):
            raise ValueError(
                f"{file}: got {size} bytes, its header alone needs {8 + length}: "
                "truncated, or not a safetensors file"
            )
        header = stream.read(length)
    return parse_header(header, size - 8 - length, str(file))


def same_content(folder: Path, one: str, other: str) -> bool:
    """Whether two tensors of a checkpoint are one, by their first, middle and last million bytes.

    Every training step changes all of a head, so that another one differs from its first byte on.

    Args:
        one: a tensor's name, in any of its shards.
        other: another one's.

    Returns:
        Whether they do; what cannot be told apart by name is the same.
    """
    places = {}
    for file in shard_files(folder):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = parse_json(stream.read(length), str(file))
        for name in {one, other} & header.keys():
            begin, end = header[name]["data_offsets"]
            places[name] = (file, 8 + length + begin, end - begin)
    return len({_digest_of(*place) for place in places.values()}) < 2


def _digest_of(file: Path, begin: int, size: int) -> bytes:
    total = hashlib.sha256(str(size).encode())
    piece = min(size, 10**6)
    with file.open("rb") as stream:
        for at in (0, (size - piece) // 2, size - piece):
            stream.seek(begin + at)
            total.update(stream.read(piece))
    return total.digest()


def shard_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in the order of their names; all exist.

    Returns:
        One file, or the shards that the index names.

    Raises:
        ValueError: without safetensors (naming pickled weights where there are some), or where a
            shard is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if lies_in(folder, WEIGHTS):
        return (folder / WEIGHTS,)
    if not lies_in(folder, INDEX):
        raise ValueError(what_is(str(folder), names_in(folder)))
    names = sorted(set(weight_map(folder).values()))
    if missing := [n for n in names if Path(n).name != n or not lies_in(folder, n)]:
        part = next((n for n in names_in(folder) if is_unfinished(n)), None)
        raise ValueError(
            f"{folder}: shards {listed(missing, 2)} of the {len(names)} in {INDEX} are missing"
            + (f" (a download has not finished: {part})" if part else "")
        )
    return tuple(folder / n for n in names)


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> file, as the index of shards says; ValueError for one of another form."""
    told = read_json(folder / INDEX).get("weight_map")
    if not isinstance(told, dict) or not told:
        raise ValueError(f"{folder / INDEX}: weight_map: got {short(told)}, allowed: tensor: file")
    if odd := next((n for n, f in told.items() if not isinstance(f, str) or not f), None):
        raise ValueError(
            f"{folder / INDEX}: weight_map: {short(odd)}: got {short(told[odd])}, "
            "allowed: the name of a file"
        )
    return told


def read_tensors(folder: Path) -> dict[str, TensorHeader]:
    """The tensors of all shards of a checkpoint, checked against its index.

    ValueError as in `read_header` and `shard_files`, and where the index names an absent tensor.

    Returns:
        Name -> header.
    """
    by_file = {f.name: read_header(f) for f in shard_files(folder)}
    if set(by_file) != {WEIGHTS}:
        check_index(str(folder), weight_map(folder), by_file)
    return {name: tensor for tensors in by_file.values() for name, tensor in tensors.items()}


def check_index(
    where: str, weight_map: Mapping[str, str], by_file: Mapping[str, Iterable[str]]
) -> None:
    """Raises ValueError where an index places a tensor in a shard that does not have it."""
    for name, file in weight_map.items():
        if name not in by_file[file]:
            raise ValueError(
                f"{where}: {INDEX} places {name!r} in {file}, which has no such tensor"
            )


def file_digest(file: Path, cache_dir: Path | None) -> str:
    """sha256 of a file, remembered outside its folder under its path, size, times and inode."""
    stamp = _stamp(file)
    at = os.path.abspath(file)
    if _REMEMBERED.get(at, ("", ""))[0] == stamp:
        return _REMEMBERED[at][1]
    root = cache_dir or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(at.encode()).hexdigest()
    entry = Path(f"{root}/scaleinv_ray/{name}")
    with contextlib.suppress(OSError), open(entry) as stream:
        known, _, digest = stream.read().rpartition(" ")
        if known == stamp and len(digest) == 64:
            return digest
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if stamp == _stamp(file) and time.time() - file.stat().st_mtime > _SETTLED_S:
        _REMEMBERED[at] = stamp, digest  # where no home can be written
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            part = entry.with_name(f"_part-{os.getpid()}-{entry.name}")
            part.write_text(f"{stamp} {digest}")
            os.replace(part, entry)
        except OSError:
            pass  # a home that cannot be written costs time, not the run
    return digest


def _stamp(file: Path) -> str:
    """What a file cannot keep when its content changes."""
    state = file.stat()
    # copies may keep size and mtime of what they replace; no program sets the inode's own time
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def joined(digests: Sequence[str]) -> str:
    """One digest of the ordered digests of shards; that of a single file is its own."""
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def weights_digest(folder: Path, cache_dir: Path | None = None) -> str:
    """What identifies the weights of a checkpoint.

    Args:
        cache_dir: where digests are remembered; the user's cache folder by default.

    Returns:
        sha256 of the safetensors file (the hub's own blob hash), or of the concatenated hexadecimal
        digests of the shards in the order of their names.
    """
    return joined([file_digest(f, cache_dir) for f in shard_files(folder)])


def check_file(file: Path, digest: str) -> None:
    """Raises ValueError where a file is no longer what was planned."""
    if file_digest(file, None) != digest:
        raise ValueError(f"{file}: changed since it was planned; run again to plan anew")


def check_planned(folder: Path | None, digest: str | None) -> None:
    """Refuses weights that are no longer those that were planned; what is on a hub never changes.

    Files that have not been touched since their digest was taken on this machine are not read.

    Args:
        folder: of a local checkpoint, None on the hub.
        digest: of its weights, as planned; None where they were not looked at.

    Raises:
        ValueError: where the files give another digest.
    """
    if folder is None or not digest:
        return
    found = weights_digest(folder)
    if found != digest:
        raise ValueError(
            f"{folder}: weights changed since it was planned: got digest {found[:12]}, planned "
            f"{digest[:12]}; run again to plan anew"
        )
