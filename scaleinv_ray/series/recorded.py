"""Captures made elsewhere: small nets and controls that are no Hugging Face folder.

A folder holds capture files (`store.write_records`) and `records.json`, which says what model they
are of and which file is which.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.records import KINDS, VARIANTS
from scaleinv_ray.series.checkpoint import Checkpoint
from scaleinv_ray.series.folders import existing_folder
from scaleinv_ray.series.headers import file_digest
from scaleinv_ray.series.json_files import read_json

MANIFEST = "records.json"
_SIZES = ("model", "architecture", "n_params", "n_layers", "d_model")
_UNIT = {"seed", "step", "variant", "train_tokens", "eval_loss", "captures"}


def write_records_manifest(
    folder: str | Path, *, units: Iterable[Mapping[str, Any]], **sizes: str | int
) -> Path:
    """Writes the manifest of a folder of captures.

    Args:
        folder: holds the capture files.
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
        cache_dir: where digests are remembered.

    Returns:
        A checkpoint without weights for every unit.

    Raises:
        ValueError: without a manifest, with unknown fields or kinds, or where a file is absent.
    """
    root = existing_folder("records", folder)
    if not (root / MANIFEST).is_file():
        raise ValueError(f"records: got {str(root)!r}, a folder without {MANIFEST}")
    manifest = read_json(root / MANIFEST)
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
    for kind, _, file in captures:
        if not file.is_file():
            raise ValueError(f"{root / MANIFEST}: {kind}: got {file.name!r}, no such file")
    contents = [file_digest(file, cache_dir) for _, _, file in captures]
    return Checkpoint(
        **sizes,
        **{k: unit[k] for k in ("seed", "step", "variant", "train_tokens", "eval_loss")},
        captures=captures,
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
        raise ValueError(f"{where}: got {got}, needs {sorted(_SIZES)} and units")
    for unit in manifest["units"]:
        if set(unit) != _UNIT:
            raise ValueError(f"{where}: units: got {sorted(unit)}, needs {sorted(_UNIT)}")
        if unit["variant"] not in VARIANTS:
            raise ValueError(f"{where}: variant: got {unit['variant']!r}, allowed {VARIANTS}")
        for capture in unit["captures"]:
            if set(capture) != {"kind", "probe", "file"} or capture["kind"] not in KINDS:
                raise ValueError(
                    f"{where}: captures: got {dict(capture)}, needs kind (of {sorted(KINDS)}), "
                    "probe and file"
                )
