"""From measurements to verdicts, predictions and the report; needs no Ray, can be rerun alone."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from scaleinv_ray import conservation, invariants, report, tables
from scaleinv_ray.cluster.jobs import FAILED
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.store import Store

assert invariants, "importing the package registers the invariants"
FOLDERS: dict[str, pa.Schema] = {
    "measurements": tables.MEASUREMENTS,
    "curves": tables.CURVES,
    "diagrams": tables.DIAGRAMS,
}
COMPACT = "all-"
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
    schema = FOLDERS[folder]
    compact = [n for n in store.names(folder) if n.startswith(COMPACT)]
    parts = [store.read_table(f"{folder}/{n}") for n in compact]
    have: set[str] = set().union(*(set(t["key"].to_pylist()) for t in parts))
    for name in store.names(folder):
        key = name.removesuffix(FAILED).removesuffix(".parquet")
        if name not in compact and key not in have:
            parts.append(store.read_table(f"{folder}/{name}"))
    if not parts:
        return schema.empty_table()
    whole = pa.concat_tables([t.cast(schema) for t in parts])
    last = "quantity" if folder == "measurements" else folder.removesuffix("s")
    return whole.sort_by([(c, "ascending") for c in [*_ORDER, last]])


def compact(store: Store) -> None:
    """Gathers the many small files of each folder into one; safe to be killed at any moment.

    Args:
        store: of the run. Failed measurements keep their own files.
    """
    for folder in ("curves", "diagrams", "measurements"):
        names = store.names(folder)
        good = [n for n in names if not n.endswith(FAILED)]
        if sum(not n.startswith(COMPACT) for n in good) == 0:
            continue
        table = read_folder(store, folder)
        if folder == "measurements":
            table = table.filter(pa.compute.not_equal(table["status"], "failed"))
        digest = hashlib.sha256("".join(good).encode()).hexdigest()[:12]
        store.write_table(f"{folder}/{COMPACT}{digest}.parquet", table)
        for name in good:
            if name != f"{COMPACT}{digest}.parquet":
                store.delete(f"{folder}/{name}")


def conclude(store: Store, *, margin: float, title: str) -> pa.Table:
    """Compacts, judges, predicts and writes the report.

    Args:
        store: of the run.
        margin: relative change that counts as conserved, where a quantity declares no other.
        title: of the report.

    Returns:
        The table of verdicts.
    """
    compact(store)
    measurements = read_folder(store, "measurements")
    quantities = {
        (spec.name, name): quantity
        for spec in REGISTRY.values()
        for name, quantity in spec.quantities.items()
    }
    verdict_rows, prediction_rows = conservation.judge_table(
        tables.decode(measurements), quantities=quantities, margin=margin
    )
    verdicts = tables.encode(verdict_rows, tables.VERDICTS)
    predictions = tables.encode(prediction_rows, tables.PREDICTIONS)
    store.write_table("verdicts.parquet", verdicts)
    store.write_table("predictions.parquet", predictions)
    whole = {
        "measurements": measurements,
        "verdicts": verdicts,
        "predictions": predictions,
        "curves": read_folder(store, "curves"),
        "diagrams": read_folder(store, "diagrams"),
    }
    store.write_bytes("report.html", report.render(whole, title=title, facts=_facts(measurements)))
    return verdicts


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
