"""config.yaml of a run folder: what was meant when the run was made, sealed against changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.config.reader import as_mapping, parse_yaml
from scaleinv_ray.store import Store

_MARK = b"of what stands above: "
_SEALED = b"# sha256 " + _MARK
"""Begins the last line of config.yaml, by which a change is seen that nobody meant."""


def sealed(text: str) -> bytes:
    """The bytes of config.yaml, with the line that seals them."""
    data = text.encode()
    return data + _SEALED + _digest(data) + b"\n"


def check_run_folder(store: Store, field: str) -> None:
    """Refuses what is no folder of a run.

    Args:
        field: what the user calls it.

    Raises:
        ValueError: saying what it is or lacks.
    """
    place = store.local
    if place is not None and not place.is_dir():
        what = ", a file" if place.exists() else ", no such folder"
    elif not store.exists("config.yaml"):
        what = " without config.yaml"
    else:
        return
    raise ValueError(
        f"{field}: got {store.shown!r}{what}; allowed: the folder of a run, as `scaleinv run` "
        "makes it"
    )


def written_config(store: Store) -> Mapping[str, Any]:
    """What config.yaml of a run folder says, not checked any further.

    Returns:
        The fields as written.

    Raises:
        ValueError: where there is no such file, no mapping in it, or another text than was written.
    """
    check_run_folder(store, "run_folder")
    where, data = store.path("config.yaml"), store.read_bytes("config.yaml")
    text, sealed, digest = data.partition(_SEALED)
    # without the line, of an older version or taken out, it is what it says
    if _MARK in data and (not sealed or digest.strip() != _digest(text)):
        raise ValueError(
            f"{where}: other bytes than were written; allowed: as the run wrote it, or what is "
            "meant, without the last line"
        )
    return as_mapping(parse_yaml(data, where), where)


def config_of(store: Store) -> RunConfig:
    """The config of a run folder, checked.

    Files of plugins that are gone are read from where the run has kept them.

    Raises:
        ValueError: as of `written_config`, and for what this version cannot read in it.
    """
    written = dict(written_config(store))
    plugins = written.get("plugins")
    if isinstance(plugins, list):
        written["plugins"] = [_kept(store, plugin) for plugin in plugins]
    try:
        return load_run_config(written)
    except ValueError as error:
        raise ValueError(f"{store.path('config.yaml')}: {error}") from error


def _kept(store: Store, plugin: object) -> object:
    """The path of a plugin, in the run folder where its file is gone from its own place."""
    path = Path(str(plugin))
    if path.suffix != ".py" or path.exists() or store.local is None:
        return plugin
    kept = (store.local / "plugins").glob(f"*/{path.name}")
    newest = max(kept, key=lambda file: file.stat().st_mtime, default=path)
    return str(newest)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
