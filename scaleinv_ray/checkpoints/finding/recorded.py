"""Captures made elsewhere: small nets and controls that are no Hugging Face folder.

A folder holds capture files (`store.write_records`) and `records.json`, which says what model they
are of and which file is which.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from scaleinv_ray.checkpoints.checkpoint import Checkpoint
from scaleinv_ray.checkpoints.files.headers import file_digest
from scaleinv_ray.checkpoints.files.layouts import listed
from scaleinv_ray.checkpoints.finding.folders import existing_folder
from scaleinv_ray.inputs.json_files import check_is_there, lies_in, read_json, real, short, whole
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.records import VARIANTS

MANIFEST = "records.json"
_SIZES = ("model", "architecture", "n_params", "n_layers", "d_model")
_LONGEST = 500  # characters of a name, and of a path
_UNIT = {"seed", "step", "variant", "train_tokens", "eval_loss", "captures"}


def write_records_manifest(
    folder: str | Path, *, units: Iterable[Mapping[str, Any]], **sizes: str | int
) -> Path:
    """Writes the manifest of a folder of captures.

    Args:
        units: for each unit `seed`, `step`, `variant`, `train_tokens`, `eval_loss` and `captures`,
            a list of `{kind, probe, file}` with files relative to the folder.
        sizes: `model`, `architecture`, `n_params`, `n_layers`, `d_model`.

    Returns:
        Path of the manifest.

    Raises:
        ValueError: where a field is missing or unknown.
    """
    manifest = {**sizes, "units": [dict(unit) for unit in units]}
    _check(manifest, MANIFEST)
    path = Path(folder) / MANIFEST
    path.write_text(json.dumps(manifest, indent=1))
    return path


def from_records(folder: str | Path, *, cache_dir: Path | None = None) -> list[Checkpoint]:
    """The units of a folder of captures.

    Args:
        folder: with its manifest.

    Returns:
        A checkpoint without weights for every unit.

    Raises:
        ValueError: without a manifest, with unknown fields, kinds or values, and where a file is
            absent or lies outside the folder.
    """
    root = existing_folder("records", folder)
    if not lies_in(root, MANIFEST):
        raise ValueError(f"records: got {str(root)!r}, a folder without {MANIFEST}")
    manifest = read_json(root / MANIFEST, finite=True)
    _check(manifest, str(root / MANIFEST))
    sizes = {name: manifest[name] for name in _SIZES}
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()
    return [_unit(root, u, sizes, digest, cache_dir) for u in manifest["units"]]


def _unit(
    root: Path,
    unit: Mapping[str, Any],
    sizes: Mapping[str, Any],
    config_digest: str,
    cache_dir: Path | None,
) -> Checkpoint:
    captures = tuple((c["kind"], c["probe"], root / c["file"]) for c in unit["captures"])
    inside = root.resolve()
    for _, _, file in captures:
        check_is_there(file)
        if not file.resolve().is_relative_to(inside):
            raise ValueError(f"{file}: a link to {str(file.resolve())!r}, outside the folder")
    contents = [file_digest(file, cache_dir) for _, _, file in captures]
    return Checkpoint(
        **sizes,
        **{k: unit[k] for k in ("seed", "step", "variant", "train_tokens", "eval_loss")},
        captures=captures,
        capture_digests=tuple(contents),
        d_mlp=None,
        vocab_size=0,
        max_positions=None,
        dtype="float64",
        weights_digest=hashlib.sha256(" ".join(contents).encode()).hexdigest(),
        config_digest=config_digest,
        folder=root,
    )


def _check(manifest: Mapping[str, Any], where: str) -> None:
    needed = {*_SIZES, "units"}
    if set(manifest) != needed:
        got = sorted(set(manifest) - {"units"})
        raise ValueError(f"{where}: got {listed(got)}, needs {listed(_SIZES)} and units")
    for name in ("model", "architecture"):
        _check_text(manifest, name, where)
    for name in ("n_params", "n_layers", "d_model"):
        if whole(manifest, name, where, least=int(name == "n_params")) is None:
            raise ValueError(f"{where}: {name}: got null, allowed: a whole number")
    for number, unit in enumerate(_objects(manifest, "units", where)):
        _check_unit(unit, f"{where}: units[{number}]")


def _check_unit(unit: Mapping[str, Any], where: str) -> None:
    if set(unit) != _UNIT:
        raise ValueError(f"{where}: got {listed(sorted(unit))}, needs {', '.join(sorted(_UNIT))}")
    if unit["variant"] not in VARIANTS:
        got = short(unit["variant"])
        raise ValueError(f"{where}: variant: got {got}, allowed {', '.join(VARIANTS)}")
    if whole(unit, "seed", where, least=None) is None:
        raise ValueError(f"{where}: seed: got null, allowed: a whole number")
    whole(unit, "step", where)
    whole(unit, "train_tokens", where)
    real(unit, "eval_loss", where)
    places = set()
    for capture in _objects(unit, "captures", where):
        if set(capture) != {"kind", "probe", "file"} or capture["kind"] not in [*KINDS]:
            raise ValueError(
                f"{where}: captures: got {short(dict(capture))}, needs kind "
                f"({listed(sorted(KINDS))}), probe and file"
            )
        if capture["probe"] is not None:
            _check_text(capture, "probe", where)
        _check_text(capture, "file", where)
        path = PurePath(capture["file"])
        if path.is_absolute() or ".." in path.parts or not path.parts:
            got = short(capture["file"])
            raise ValueError(f"{where}: file: got {got}, allowed: a path in the folder")
        if (place := (capture["kind"], capture["probe"])) in places:
            raise ValueError(f"{where}: captures: {place[0]} of probe {place[1]} stands twice")
        places.add(place)


def _check_text(told: Mapping[str, Any], name: str, where: str) -> None:
    value = told[name]
    if not isinstance(value, str) or not value or len(value) > _LONGEST or "\0" in value:
        allowed = f"a text of 1..{_LONGEST} characters"
        raise ValueError(f"{where}: {name}: got {short(value)}, allowed: {allowed}")


def _objects(told: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    value = told[name]
    many = isinstance(value, list | tuple) and value
    if not many or not all(isinstance(v, Mapping) for v in value):
        raise ValueError(f"{where}: {name}: got {short(value)}, allowed: a list of objects")
    return list(value)
