"""From measurements to verdicts, predictions and the report; needs no Ray, can be rerun alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray import invariants, report, tables
from scaleinv_ray.conclude import conclusions
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.tokenizers import (
    in_one_unit,
    several_tokenizers,
    tokenizer_notes,
)
from scaleinv_ray.conclude.columns import rows_of, samples_of
from scaleinv_ray.conclude.evaluations import capability_digest
from scaleinv_ray.conclude.evidence import Evidence
from scaleinv_ray.conclude.sanity import sanity_notes
from scaleinv_ray.conclude.tokenized import tokenized, with_values, write_tokens
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.measure.inventory import (
    COMPACT,
    FOLDERS,
    TABLE,
    Inventory,
    complete,
    counted,
    is_compact,
    is_failed,
    is_range,
    key_of,
    planned_keys,
    say,
    stem_of,
    take_inventory,
    with_beside,
)
from scaleinv_ray.plan.jobs import code_version
from scaleinv_ray.store import Store
from scaleinv_ray.store.seal import DamagedError

assert invariants, "importing the package registers the invariants"
VERDICTS = "verdicts.parquet"
STAMP, MADE = "scaleinv.conclusion", "scaleinv.made"
"""Keys of the schema's metadata of verdicts.parquet: what it was concluded from, and the digests of
what was made beside it."""
_PAGE = "report.html"
_UNREAD = {"samples", "flags", "run_id", "weights_digest", "wall_s", "code_version"}
JUDGED = [n for n in tables.MEASUREMENTS.names if n not in _UNREAD]
CURVED = [n for n in tables.CURVES.names if n not in _UNREAD]
"""Columns that a conclusion reads: decoding the rest takes most of the time."""
_ORDER = ["key", "layer", "role", "head", "site"]


def read_folder(store: Store, folder: str) -> pa.Table:
    """All rows of a folder of tables, each key once, in a fixed order.

    Args:
        folder: measurements, curves or diagrams.

    Returns:
        One table of the folder's schema (compacted and single files together).

    Raises:
        DamagedError: naming a table that is not whole, or none of a run's.
    """
    rows = [n for n in store.names("measurements") if n.endswith(TABLE)]
    ended = complete(stem_of(n) for n in rows if folder == "measurements" or not is_failed(n))
    names = [n for n in store.names(folder) if n.endswith(TABLE)]
    return _gather(store, folder, counted(names, ended)).cast(FOLDERS[folder])


def _gather(store: Store, folder: str, names: Sequence[str]) -> pa.Table:
    """As `read_folder`, of some files, with texts as dictionaries."""
    schema = FOLDERS[folder]
    held: set[str] = set()
    ranged: set[str] = set()
    parts: list[pa.Table] = []
    # a compaction that was killed leaves both the gathered file and what it was gathered from
    for name in sorted(names, key=_standing):
        stem = stem_of(name)
        key = key_of(stem)
        if not is_compact(name) and ({stem, key} & held or stem in ranged):
            continue
        table = store.read_table(f"{folder}/{name}", schema=schema, shared=True)
        table = table.replace_schema_metadata(None)
        keys = set(pc.unique(table["key"]).to_pylist())
        if keys & held:
            known = pa.array(sorted(held), pa.string())
            table = table.filter(pc.invert(pc.is_in(table["key"], value_set=known)))
        held |= {stem} if is_range(stem) else keys
        ranged |= {key} if is_range(stem) else set()
        parts.append(table)
    if not parts:
        return tables.shared(schema).empty_table()
    whole = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    last = "quantity" if folder == "measurements" else folder.removesuffix("s")
    order = [*_ORDER, last]
    plain = whole.select(order).cast(pa.schema([schema.field(name) for name in order]))
    return whole.take(pc.sort_indices(plain, [(name, "ascending") for name in order]))


def _standing(name: str) -> tuple[bool, bool, bool]:
    """Sorts what was gathered before wholes, these before ranges, and what failed last."""
    return not is_compact(name), is_failed(name), is_failed(name) != is_range(stem_of(name))


def read_planned(store: Store, folder: str) -> pa.Table:
    """The rows of a folder that belong to the newest plan.

    Measurements with other parameters, or of models that have left the config, stay in the folder.

    Args:
        folder: measurements, curves or diagrams.

    Returns:
        A table as of `read_folder`.
    """
    return _among(read_folder(store, folder), planned_keys(store))


def _among(table: pa.Table, keys: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=keys))


def compact(store: Store) -> Inventory:
    """Gathers the many small files of each folder into one; safe to be killed at any moment.

    Args:
        store: of the run. Failed measurements keep their own files, and so does what is damaged.

    Returns:
        What the folder holds then.
    """
    held = take_inventory(store)
    made = [_compacted(store, folder, held) for folder in ("curves", "diagrams", "measurements")]
    return take_inventory(store) if any(made) else held


def _compacted(store: Store, folder: str, held: Inventory) -> bool:
    """Whether there was anything to gather."""
    good = held.names(folder, failed=False)
    if len(good) == sum(map(is_compact, good)) <= 1:
        return False
    table = _gather(store, folder, good)
    if folder == "measurements":
        table = with_beside(table, held.made)
    digest = hashlib.sha256("".join(good).encode()).hexdigest()[:12]
    new = f"{COMPACT}{digest}{TABLE}"
    store.write_table(f"{folder}/{new}", table)
    for name in good:
        if name != new:
            store.delete(f"{folder}/{name}")
    return True


def conclude(store: Store, config: RunConfig, *, planned: pa.Array | None = None) -> pa.Table:
    """Compacts, judges, predicts and writes the report.

    What is judged is what the newest plan of the folder names: measurements with parameters or of
    models that are no longer in the config stay in the tables and are left out of the verdicts.

    Args:
        planned: keys of the measurements that are judged, instead of the newest plan's.

    Returns:
        The table of verdicts.
    """
    held = compact(store)
    planned = planned_keys(store) if planned is None else planned
    whole = {f: _among(_gather(store, f, held.names(f)), planned) for f in FOLDERS}
    made, notes = _judged(store, config, whole)
    whole |= made
    for conclusion in conclusions.CONCLUSIONS:
        if conclusion.file != VERDICTS:
            store.write_table(conclusion.file, whole[conclusion.name])
    page = report.render(
        whole,
        title=config.name,
        facts=_facts(whole["measurements"]),
        notes=[*notes, *held.unread()],
        figures={conclusion.name: conclusion.figure for conclusion in conclusions.CONCLUSIONS},
        invariants=REGISTRY,
    )
    store.write_bytes(_PAGE, page)
    # last: its stamp says that everything above belongs to these measurements
    stamp = {STAMP: _stamp(config, planned, held), MADE: json.dumps(_digests(store))}
    verdicts = whole["verdicts"]
    store.write_table(VERDICTS, verdicts.replace_schema_metadata(verdicts.schema.metadata | stamp))
    return verdicts


def _judged(
    store: Store, config: RunConfig, whole: Mapping[str, pa.Table]
) -> tuple[dict[str, pa.Table], list[str]]:
    """What follows from the tables of a run, and what is to be said; the rows are free after it."""
    quantities = {
        (spec.name, name): quantity
        for spec in REGISTRY.values()
        for name, quantity in spec.quantities.items()
    }
    made_with = tokenized(store)
    table = whole["measurements"]
    measured = made_with.marked(rows_of(table, JUDGED)).beside("samples", samples_of(table))
    several = several_tokenizers(measured)
    rows = measured
    if several:
        given = list(measured)
        rows = Rows.of(in_one_unit(given, quantities=quantities, bytes_of=made_with.bytes_of))
    curves = rows_of(whole["curves"], CURVED)
    of = Evidence(rows, curves, config, quantities, within_runs=measured)
    made = {conclusion.name: conclusion.table(of) for conclusion in conclusions.CONCLUSIONS}
    if several:
        made["measurements"] = with_values(whole["measurements"], rows)
    lost = sanity_notes(store, measured.distinct(("model", "probe"))[1])
    return made, [*lost, *tokenizer_notes(measured.distinct(("model", "tokenizer"))[1])]


def rejudge(store: Store, config: RunConfig) -> None:
    """Concludes from what is whole, and says what is not; measures nothing."""
    held = take_inventory(store)
    say(held.notes(conclusions.concluded_files()))
    if not held.names("measurements"):
        say(["measurements: none is there, nothing is judged (scaleinv run makes them)"])
    conclude(store, config, planned=_planned(store, config, held))


def _planned(store: Store, config: RunConfig, held: Inventory) -> pa.Array:
    """Keys of the plan, which is made anew where it is damaged or gone and the models are there."""
    try:
        return planned_keys(store)
    except (DamagedError, FileNotFoundError) as error:
        lost = str(error) if isinstance(error, DamagedError) else "plan.parquet: not there"
    from scaleinv_ray.plan import make_plan, plan_rows

    try:
        plan = make_plan(config)
    except (ValueError, OSError) as error:
        say([f"{lost}; not made anew ({error}), all measurements of the folder are judged"])
        return pa.array(sorted(held.made.keys() | held.failed.keys()), pa.string())
    write_tokens(store, plan)
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, held.done), tables.PLAN))
    say([f"{lost}; made anew"])
    return planned_keys(store)


def concluded(store: Store, config: RunConfig) -> pa.Table | None:
    """The verdicts, where the last conclusion still holds: same measurements, plan and code.

    Returns:
        The table of verdicts, or None, also where anything that was concluded is gone or is not
        what was written: then `conclude` has to be called.
    """
    made = [VERDICTS, *_made()]
    if absent := [name for name in made if not store.exists(name)]:
        if len(absent) < len(made):
            say([f"{', '.join(absent)}: not there, made anew"])
        return None
    try:
        table = store.read_table(VERDICTS, schema=conclusions.SCHEMAS["verdicts"])
    except DamagedError as error:
        say([f"{error}; made anew"])
        return None
    said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    digests = _digests(store)
    if other := [
        name for name, of in json.loads(said.get(MADE, "{}")).items() if of != digests.get(name)
    ]:
        say([f"{', '.join(other)}: other bytes than were written, made anew"])
        return None
    if said.get(STAMP) != _stamp(config, planned_keys(store), take_inventory(store)):
        return None
    return table.replace_schema_metadata(None)


def _digests(store: Store) -> dict[str, str]:
    """Of everything that a conclusion writes before its verdicts."""
    return {name: hashlib.sha256(store.read_bytes(name)).hexdigest() for name in _made()}


def _made() -> list[str]:
    """What a conclusion writes before its verdicts."""
    files = conclusions.concluded_files()
    return [*(file for file in files if file != VERDICTS), _PAGE]


def _stamp(config: RunConfig, planned: pa.Array, held: Inventory) -> str:
    """Digest of everything that a conclusion depends on."""
    parts = [
        code_version(),
        config.name,
        config.conservation.model_dump_json(),
        capability_digest(config),
        *(f"{name} {contents.digest}" for name, contents in sorted(held.whole.items())),
        *sorted(planned.to_pylist()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _facts(measurements: pa.Table) -> dict[str, str]:
    """What the head of the report says of the run."""

    def distinct(column: str) -> list[Any]:
        return sorted(set(pc.unique(measurements[column]).to_pylist()) - {None})

    units = measurements.group_by(["model", "seed"]).aggregate([]).num_rows
    return {
        "models": str(units),
        "parameters": ", ".join(f"{n:,}" for n in distinct("n_params")),
        "seeds": ", ".join(map(str, distinct("seed"))),
        "steps": ", ".join(map(str, distinct("step"))),
        "variants": ", ".join(distinct("variant")),
        "probes": ", ".join(distinct("probe")),
        "measurements": f"{measurements.num_rows:,}",
        "protocol": ", ".join(distinct("protocol")),
        "code": ", ".join(distinct("code_version")),
    }
