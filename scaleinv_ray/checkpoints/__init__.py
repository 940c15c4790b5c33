"""The checkpoints of a series: found in folders or on the hub, described without loading a weight.

Shapes come from config.json and safetensors headers, identity from digests of the files.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.checkpoints.checkpoint import (
    Checkpoint,
    check_identities,
    config_digest,
    equal_weights,
)
from scaleinv_ray.checkpoints.files.headers import (
    check_file,
    check_planned,
    read_tensors,
    weights_digest,
)
from scaleinv_ray.checkpoints.files.layouts import listed
from scaleinv_ray.checkpoints.files.roles import CAPTURED
from scaleinv_ray.checkpoints.finding.evaluations import from_lm_eval, from_pythia
from scaleinv_ray.checkpoints.finding.folders import (
    Steps,
    existing_folder,
    from_folder,
    from_ladder,
    runs_of,
)
from scaleinv_ray.checkpoints.finding.hub import config_folder, fetch, fetch_init, from_hub
from scaleinv_ray.checkpoints.finding.recorded import from_records, write_records_manifest
from scaleinv_ray.checkpoints.finding.runs import layout_of, unused_in
from scaleinv_ray.inputs.json_files import read_json
from scaleinv_ray.inputs.reading import reading

__all__ = [
    "CAPTURED",
    "Checkpoint",
    "Steps",
    "check_file",
    "check_identities",
    "check_unchanged",
    "config_folder",
    "equal_weights",
    "fetch",
    "fetch_init",
    "from_folder",
    "from_hub",
    "from_ladder",
    "from_lm_eval",
    "from_pythia",
    "from_records",
    "listed",
    "read_tensors",
    "resolve",
    "unused",
    "weights_digest",
    "write_records_manifest",
]


def resolve(sources: Iterable[Any], *, cache_dir: Path | None = None) -> list[Checkpoint]:
    """All checkpoints of a series.

    ValueError for unusable sources, and where two checkpoints have one identity.

    Args:
        sources: what stands under `models` in a config, as mappings or as objects with the same
            fields: `hub`, `path`, `ladder` or `records` with their options.
        cache_dir: where digests are remembered; the user's cache folder by default.

    Returns:
        Checkpoints in the order of the sources.
    """
    found: list[Checkpoint] = []
    for fields in map(_fields, sources):
        where = next((fields[k] for k in ("hub", "path", "ladder", "records") if k in fields), "")
        with reading(where):
            found += _of_source(fields, cache_dir)
    check_identities(found)
    return found


def unused(sources: Iterable[Any]) -> list[str]:
    """What the folders of a series hold and no reader uses.

    Args:
        sources: as of `resolve`.

    Returns:
        A line a source that has such, with counts and the first names.
    """
    lines = []
    for fields in map(_fields, sources):
        if "path" in fields:
            root = existing_folder("path", fields["path"])
            layouts = [layout_of(root, fields.get("step"))]
        elif "ladder" in fields:
            root = existing_folder("ladder", fields["ladder"])
            layouts = [layout_of(run) for run in runs_of(root)]
        else:
            continue
        if said := unused_in(layouts):
            lines.append(f"{root}: not used: {said}")
    return lines


def check_unchanged(planned: Checkpoint, *, initial: bool = False) -> None:
    """Refuses a checkpoint whose files are no longer those that were planned.

    What is on a hub never changes: its commit and its files are named by their digests. Files that
    have not been touched since their digest was taken on this machine are not read.

    Args:
        initial: the run's own step 0 is read in place of its weights.

    Raises:
        ValueError: naming what has changed.
    """
    if initial and planned.init_folder is not None:
        check_planned(planned.init_folder, planned.init_digest)
    else:
        check_planned(planned.folder, planned.weights_digest)
    if planned.folder is None or not planned.weights_digest:
        return
    file = planned.folder / "config.json"
    if config_digest(read_json(file)) != planned.config_digest:
        raise ValueError(f"{file}: changed since it was planned; run again to plan anew")


def _fields(source: Any) -> dict[str, Any]:
    items = source if isinstance(source, Mapping) else vars(source)
    return {k: v for k, v in items.items() if v is not None}


def _of_source(fields: dict[str, Any], cache_dir: Path | None) -> list[Checkpoint]:
    options = {("model" if k == "name" else k): v for k, v in fields.items()}
    if "hub" in options:
        return from_hub(options.pop("hub"), **options)
    if "path" in options:
        return from_folder(options.pop("path"), **options, cache_dir=cache_dir)
    if "ladder" in options:
        return from_ladder(options.pop("ladder"), **options, cache_dir=cache_dir)
    if "records" in options:
        return from_records(options.pop("records"), cache_dir=cache_dir)
    raise ValueError(f"models: got {sorted(fields)}, allowed one of hub, path, ladder, records")
