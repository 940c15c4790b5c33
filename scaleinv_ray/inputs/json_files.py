"""JSON of others, read strictly: what is no JSON object is said in one line that names the file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_BYTES = 100_000_000
_MAX_DEPTH = 100
_LARGEST = 1e300
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(file: Path, *, finite: bool = False) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        finite: refuse NaN and infinity as well; they stand in configs and logs of others.

    Returns:
        Name -> value.

    Raises:
        ValueError: naming the file: see `check_is_there` and `parse_json`.
    """
    check_is_there(file)
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{file}: got {size} bytes, allowed {MAX_BYTES}")
    return parse_json(file.read_bytes(), str(file), finite=finite)


def parse_json(data: bytes, where: str, *, finite: bool = False) -> dict[str, Any]:
    """The JSON object in these bytes.

    Args:
        data: UTF-8.
        finite: as in `read_json`.

    Returns:
        Name -> value.

    Raises:
        ValueError: for what is not UTF-8, has a byte order mark, is no JSON, no object, nested
            too deeply, gives one name two values, or has text that is no text.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not JSON: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        said = (
            "empty" if not data.strip() else "a byte order mark" if data[:1] == b"\xef" else error
        )
        raise ValueError(f"{where}: not JSON ({said})") from error
    except ValueError as error:  # two values of one name, a number of too many digits
        many = "digits" in str(error)
        raise ValueError(f"{where}: {'a number of too many digits' if many else error}") from error
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply, allowed {_MAX_DEPTH} levels") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {_kind(value)}, allowed: a JSON object")
    _check_values(value, where, finite)
    return value


def lies_in(folder: Path, name: str) -> bool:
    """Whether a folder has a file of this name; ValueError as of `check_is_there` where it lies."""
    file = folder / name
    if not (file.exists() or file.is_symlink()):
        return False
    check_is_there(file)
    return True


def check_is_there(file: Path) -> None:
    """Raises ValueError for no file, a dangling link, and what git LFS left in a file's place."""
    if not file.is_file():
        if file.is_symlink():
            what = "which is no file" if file.exists() else "which is not there"
            raise ValueError(f"{file}: a link to {str(file.readlink())!r}, {what}")
        raise ValueError(f"{file}: " + ("not a file" if file.exists() else "no such file"))
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"{file}: a git LFS pointer, the file itself was not fetched (git lfs pull)"
            )


def whole(
    told: Mapping[str, Any], field: str, where: object, *, least: int | None = 0
) -> int | None:
    """A whole number of 64 bits out of a JSON object.

    Args:
        least: the smallest that is allowed; None for any.

    Returns:
        The number, None for null and where it does not stand.

    Raises:
        ValueError: for anything else.
    """
    value = told.get(field)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    low = -(2**63) if least is None else least
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**63:
        allowed = "a whole number" if least is None else f"a whole number from {least}"
        raise ValueError(f"{where}: {field}: got {short(value)}, allowed: {allowed}")
    return value


def real(told: Mapping[str, Any], field: str, where: object) -> float | None:
    """A finite number out of a JSON object.

    Returns:
        The number as it stands, None for null and where it does not stand.

    Raises:
        ValueError: for anything else.
    """
    value = told.get(field)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -_LARGEST <= value <= _LARGEST:  # NaN is in no interval
        raise ValueError(f"{where}: {field}: got {short(value)}, allowed: a finite number")
    return value


def short(value: object) -> str:
    """A value for a message, on one line of sixty characters at most."""
    said = ascii(value) if isinstance(value, str) else repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise ValueError(f"{name[:40]!r} stands twice, with two values")
    return found


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _check_values(value: dict[str, Any], where: str, finite: bool) -> None:
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            named = item.items() if isinstance(item, dict) else enumerate(item)
            for name, inner in named:
                if isinstance(inner, dict | list):
                    below.append(inner)
                elif finite and isinstance(inner, float) and not math.isfinite(inner):
                    raise ValueError(f"{where}: {name}: got {inner}, allowed: finite numbers")
                if _SURROGATE.search(f"{name}{inner}" if isinstance(inner, str) else str(name)):
                    raise ValueError(f"{where}: {ascii(name)}: got half a surrogate pair")
        if not below:
            return
        level = below
    raise ValueError(f"{where}: nested too deeply, allowed {_MAX_DEPTH} levels")
