"""From measurements to verdicts, predictions and the report; needs no Ray, can be rerun alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray import conservation, invariants, report, tables
from scaleinv_ray.cluster.derived import derive, predicted
from scaleinv_ray.cluster.evaluations import capability_digest
from scaleinv_ray.cluster.jobs import FAILED, code_version
from scaleinv_ray.cluster.parts import FOLDER, sweep
from scaleinv_ray.cluster.tokenized import tokenized, with_values
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.store import Store

assert invariants, "importing the package registers the invariants"
FOLDERS: dict[str, pa.Schema] = {
    "measurements": tables.MEASUREMENTS,
    "curves": tables.CURVES,
    "diagrams": tables.DIAGRAMS,
}
COMPACT = "all-"
STAMP = "scaleinv.conclusion"
"""Key of the schema's metadata under which verdicts.parquet carries what it was concluded from."""
JUDGED = [n for n in tables.MEASUREMENTS.names if n not in {"samples", "flags"}]
"""Columns that the verdicts need: decoding the rest takes most of the time."""
_ORDER = ["key", "layer", "role", "head", "site"]


def completed(store: Store) -> set[str]:
    """Keys of the measurements that are done, whether compacted or not.

    Args:
        store: of the run.

    Returns:
        The keys; failed ones are not among them.
    """
    done: set[str] = set()
    for name in store.names("measurements"):
        if name.startswith(COMPACT):
            done |= set(store.read_table(f"measurements/{name}", ["key"])["key"].to_pylist())
        elif not name.endswith(FAILED):
            done.add(name.removesuffix(".parquet"))
    return done


def read_folder(store: Store, folder: str) -> pa.Table:
    """All rows of a folder of tables, each key once, in a fixed order.

    Args:
        store: of the run.
        folder: measurements, curves or diagrams.

    Returns:
        One table of the folder's schema (compacted and single files together).
    """
    return _gather(store, folder, store.names(folder))


def _gather(store: Store, folder: str, names: Sequence[str]) -> pa.Table:
    schema = FOLDERS[folder]
    held: set[str] = set()
    parts: list[pa.Table] = []
    # a compaction that was killed leaves both the gathered file and what it was gathered from
    for name in sorted(names, key=lambda n: not n.startswith(COMPACT)):
        if not name.startswith(COMPACT) and _key_of(name) in held:
            continue
        table = store.read_table(f"{folder}/{name}").cast(schema)
        keys = set(table["key"].to_pylist())
        if keys & held:
            known = pa.array(sorted(held), pa.string())
            table = table.filter(pc.invert(pc.is_in(table["key"], value_set=known)))
        held |= keys
        parts.append(table)
    if not parts:
        return schema.empty_table()
    whole = pa.concat_tables(parts)
    last = "quantity" if folder == "measurements" else folder.removesuffix("s")
    return whole.sort_by([(c, "ascending") for c in [*_ORDER, last]])


def read_planned(store: Store, folder: str) -> pa.Table:
    """The rows of a folder that belong to the newest plan.

    Measurements with other parameters, or of models that have left the config, stay in the folder.

    Args:
        store: of the run.
        folder: measurements, curves or diagrams.

    Returns:
        A table as of `read_folder`.
    """
    table = read_folder(store, folder)
    keys = store.read_table("plan.parquet", ["key"])["key"]
    return table.filter(pc.is_in(table["key"], value_set=keys.combine_chunks()))


def _key_of(name: str) -> str:
    return name.removesuffix(FAILED).removesuffix(".parquet")


def compact(store: Store) -> None:
    """Gathers the many small files of each folder into one; safe to be killed at any moment.

    Args:
        store: of the run. Failed measurements keep their own files.
    """
    if store.names(FOLDER):
        sweep(store, completed(store))
    for folder in ("curves", "diagrams", "measurements"):
        names = store.names(folder)
        good = [n for n in names if not n.endswith(FAILED)]
        if len(good) == sum(n.startswith(COMPACT) for n in good) <= 1:
            continue
        table = _gather(store, folder, good)
        digest = hashlib.sha256("".join(good).encode()).hexdigest()[:12]
        store.write_table(f"{folder}/{COMPACT}{digest}.parquet", table)
        for name in good:
            if name != f"{COMPACT}{digest}.parquet":
                store.delete(f"{folder}/{name}")


def conclude(store: Store, config: RunConfig) -> pa.Table:
    """Compacts, judges, predicts and writes the report.

    What is judged is what the newest plan of the folder names: measurements with parameters or of
    models that are no longer in the config stay in the tables and are left out of the verdicts.

    Args:
        store: of the run.
        config: of the run.

    Returns:
        The table of verdicts.
    """
    compact(store)
    whole = {folder: read_planned(store, folder) for folder in FOLDERS}
    quantities = {
        (spec.name, name): quantity
        for spec in REGISTRY.values()
        for name, quantity in spec.quantities.items()
    }
    made_with = tokenized(store)
    measured = tables.decode(whole["measurements"], JUDGED)
    made_with.mark(measured)
    several = conservation.several_tokenizers(measured)
    rows = conservation.in_one_unit(measured, quantities=quantities, bytes_of=made_with.bytes_of)
    verdict_rows, prediction_rows = conservation.judge_table(
        rows,
        quantities=quantities,
        margin=config.conservation.margin,
        comparisons=[f"equal_{name}" for name in config.conservation.comparisons],
    )
    if config.conservation.held_out == "none":
        prediction_rows = []
    prediction_rows += predicted(rows, config, quantities)
    verdict_rows = conservation.say_tokenizers(verdict_rows, several, quantities)
    whole["verdicts"] = tables.encode(verdict_rows, tables.VERDICTS)
    whole["predictions"] = tables.encode(prediction_rows, tables.PREDICTIONS)
    derived = derive(rows, tables.decode(whole["curves"]), config, quantities, within_runs=measured)
    for name, table in derived.items():
        store.write_table(f"{name}.parquet", table)
    whole |= derived
    facts = _facts(whole["measurements"])
    notes = conservation.tokenizer_notes((r["model"], r["tokenizer"]) for r in measured)
    if several:
        whole["measurements"] = with_values(whole["measurements"], rows)
    page = report.render(whole, title=config.name, facts=facts, notes=notes)
    store.write_bytes("report.html", page)
    store.write_table("predictions.parquet", whole["predictions"])
    # last: its stamp says that everything above belongs to these measurements
    stamped = whole["verdicts"].replace_schema_metadata({STAMP: _stamp(store, config)})
    store.write_table("verdicts.parquet", stamped)
    return whole["verdicts"]


def concluded(store: Store, config: RunConfig) -> pa.Table | None:
    """The verdicts, where the last conclusion still holds: same measurements, plan and code.

    Args:
        store: of the run.
        config: of the run.

    Returns:
        The table of verdicts, or None: then `conclude` has to be called.
    """
    if not (store.exists("verdicts.parquet") and store.exists("report.html")):
        return None
    table = store.read_table("verdicts.parquet")
    if (table.schema.metadata or {}).get(STAMP.encode()) != _stamp(store, config).encode():
        return None
    return table.replace_schema_metadata(None)


def _stamp(store: Store, config: RunConfig) -> str:
    """Digest of everything that a conclusion depends on."""
    keys = sorted(store.read_table("plan.parquet", ["key"])["key"].to_pylist())
    options = config.conservation.model_dump_json()
    capabilities = capability_digest(config)
    parts = [
        code_version(),
        config.name,
        options,
        capabilities,
        *store.names("measurements"),
        *keys,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _facts(measurements: pa.Table) -> dict[str, str]:
    """What the head of the report says of the run."""

    def distinct(column: str) -> list[Any]:
        return sorted(set(measurements[column].to_pylist()) - {None})

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
