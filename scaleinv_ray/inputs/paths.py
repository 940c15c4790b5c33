"""Paths as users write them: `~` is the home folder, what is relative starts at a folder."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from scaleinv_ray.inputs.wording import shown


def is_uri(path: str | Path) -> bool:
    """Whether it names a place behind a scheme (`s3://bucket/prefix`), which is left as it is."""
    return "://" in str(path)


def without_keys(uri: str) -> str:
    """A URI as it may be shown and kept: without the keys and settings of its store.

    Args:
        uri: or a path, which stays as it is.

    >>> without_keys("s3://key:secret@bucket/run?region=x"), without_keys("/runs/a@b?")
    ('s3://bucket/run', '/runs/a@b?')
    """
    return re.sub(r"//[^/@]*@", "//", uri.partition("?")[0]) if is_uri(uri) else uri


def expanded(path: str | Path) -> Path:
    """A path with `~` and `~user` put in full.

    Args:
        path: as the user wrote it.

    Returns:
        The path, relative where it was.

    Raises:
        ValueError: where there is no such user, and for what no path can hold.
    """
    if "\0" in str(path):
        raise ValueError(f"got {shown(str(path))}, allowed: a path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"got {shown(str(path))}, no user of that name") from error


def absolute(path: str | Path, folder: str | Path = "") -> str:
    """The one rule for all paths of a config.

    Args:
        path: as the user wrote it: absolute, from the home folder (`~`), relative, or a URI.
        folder: where relative paths start; the working directory by default.

    Returns:
        An absolute path without `..`, or the URI.

    >>> absolute("models/../x", "/series"), absolute("s3://b/x", "/series")
    ('/series/x', 's3://b/x')
    """
    if is_uri(path):
        return str(path)
    return os.path.abspath(expanded(folder) / expanded(path))


def check_plain(field: str, file: Path) -> None:
    """Refuses what is no file of some length: to read a pipe waits, to read a device never ends.

    Args:
        file: that is to be read whole; what is not there is left to its reader.

    Raises:
        ValueError: for a pipe, a device or a socket.
    """
    if os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file):
        raise ValueError(f"{field}: got {shown(str(file), 160)}, allowed: a plain file")


def check_folder(field: str, path: str | Path) -> None:
    """Refuses a place where no folder can be.

    Args:
        path: that is to be a folder, there already or not; a URI is not looked at.

    Raises:
        ValueError: where the path, or one above it, is a file.
    """
    if is_uri(path):
        return
    place = Path(os.path.abspath(expanded(path)))
    for at in (place, *place.parents):
        if at.is_dir():
            return
        if os.path.lexists(at):
            what = "a link that leads nowhere" if at.is_symlink() else "a file"
            raise ValueError(
                f"{field}: got {shown(str(place), 160)}, {at.name} is {what}; allowed: a folder"
            )


def check_writable(field: str, path: str | Path) -> None:
    """Refuses a place of this machine where no file can be written, before work is done for it.

    Args:
        path: that is to be a folder, there already or not.

    Raises:
        ValueError: for no path, a URI, a file, and where a file cannot be made.
    """
    if not str(path) or is_uri(path):
        raise ValueError(f"{field}: got {shown(str(path), 160)}, allowed: a folder of this machine")
    check_folder(field, path)
    place = Path(absolute(path))
    there = next(at for at in (place, *place.parents) if at.is_dir())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ValueError(
            f"{field}: got {shown(str(place), 160)}, {error.strerror} in {there.name or there}; "
            "allowed: a folder that can be written"
        ) from error
