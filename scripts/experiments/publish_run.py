"""Writes what a page is drawn from, small enough for a repository: `publish_run.py RUN OUT`.

`scaleinv report OUT` then judges it anew and draws the page, without a model. Of the run are kept:
its config (paths below `runs/`), its plan, all measurements, and the curves of trained models at
the last step. Values have six digits, errors two; replicates are those of trained models at the
last step, where they are compared; flags and diagrams (the barcodes of the page) are left out.
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from scaleinv_ray.conclude.concluding import read_planned
from scaleinv_ray.measure.inventory import BESIDE, COMPACT, planned_keys
from scaleinv_ray.measure.written_config import sealed, written_config
from scaleinv_ray.store import Store

VALUE_BITS, ERROR_BITS, CURVE_BITS = 20, 8, 14


def rounded(numbers: pa.ChunkedArray | pa.Array, bits: int) -> pa.Array:
    """Numbers with so many bits, which leaves zeros that compress; none stays none."""
    whole = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    mantissa, exponent = np.frexp(whole.to_numpy(zero_copy_only=False))
    found = np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)
    return pa.array(found, pa.float64(), mask=whole.is_null().to_numpy(zero_copy_only=False))


def rounded_lists(lists: pa.ChunkedArray, bits: int) -> pa.Array:
    """The same of lists of numbers."""
    found = [
        None if row is None else rounded(pa.array(row, pa.float64()), bits).to_pylist()
        for row in lists.to_pylist()
    ]
    return pa.array(found, lists.type)


def replaced(table: pa.Table, **columns: pa.Array) -> pa.Table:
    """A table with other columns under the same names."""
    for name, column in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), table.schema.field(name), column
        )
    return table


def at_end(table: pa.Table) -> pa.Array:
    """Rows of trained models at the last step; where none has a step, of all trained ones."""
    last = pc.max(table["step"])
    at = pc.equal(table["step"], last) if last.is_valid else pc.is_null(table["step"])
    return pc.and_(pc.equal(table["variant"], "trained"), at).combine_chunks()


def write(where: Path, table: pa.Table) -> None:
    """A table as small as Parquet makes it."""
    where.parent.mkdir(parents=True, exist_ok=True)
    numbers = [n for n in ("value", "stderr") if n in table.column_names]
    texts = [n for n in table.column_names if n not in {*numbers, "samples", "x", "y", "y_stderr"}]
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, use_dictionary=texts,
        use_byte_stream_split=numbers,
    )  # fmt: skip
    where.write_bytes(sink.getvalue())


def measurements(store: Store) -> pa.Table:
    """All rows, rounded; without what belongs to one machine."""
    table = read_planned(store, "measurements")
    nothing = pa.nulls(table.num_rows, table.schema.field("samples").type)
    samples = pc.if_else(at_end(table), table["samples"].combine_chunks(), nothing)
    table = replaced(
        table,
        value=rounded(table["value"], VALUE_BITS),
        stderr=rounded(table["stderr"], ERROR_BITS),
        samples=rounded_lists(pa.chunked_array([samples]), VALUE_BITS),
        flags=pa.nulls(table.num_rows, table.schema.field("flags").type),
        wall_s=pa.array(np.zeros(table.num_rows)),
    )
    keys = pc.count_distinct(table["key"]).as_py()
    return table.replace_schema_metadata({BESIDE: "0" * keys})


def curves(store: Store) -> pa.Table:
    """Those of trained models at the last step."""
    table = read_planned(store, "curves")
    table = table.filter(at_end(table))
    return replaced(table, **{
        name: rounded_lists(table[name], bits)
        for name, bits in (("x", VALUE_BITS), ("y", CURVE_BITS), ("y_stderr", ERROR_BITS))
    })  # fmt: skip


def moved(found: Any, old: str) -> Any:
    """A config whose paths start below `runs/findings`."""
    if isinstance(found, dict):
        return {k: moved(v, old) for k, v in found.items()}
    if isinstance(found, list):
        return [moved(v, old) for v in found]
    return found.replace(old, "runs/findings") if isinstance(found, str) else found


def publish(run: Path, out: Path) -> None:
    """Writes the folder: there at the end with all of it, or not at all.

    Raises:
        ValueError: for what is no run, has no measurements, or a place where something is.
    """
    store = Store(str(run))
    config = moved(dict(written_config(store)), str(run.absolute().parent.parent))
    if not store.exists("plan.parquet"):
        raise ValueError(f"run: got {str(run)!r} without plan.parquet, allowed: a run that is done")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out: got {str(out)!r}, which is there; allowed: a new folder")
    rows = measurements(store)
    if not rows.num_rows:
        raise ValueError(f"run: got {str(run)!r} without measurements, allowed: a run that is done")
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True)
    try:
        (part / "config.yaml").write_bytes(sealed(yaml.safe_dump(config, sort_keys=False)))
        write(part / "measurements" / f"{COMPACT}published.parquet", rows)
        write(part / "curves" / f"{COMPACT}published.parquet", curves(store))
        write(part / "plan.parquet", store.read_table("plan.parquet"))
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    lacking = set(planned_keys(store).to_pylist()) - set(rows["key"].to_pylist())
    if lacking:
        print(f"note: {len(lacking)} of the planned measurements are not there")


def main() -> None:
    """Writes the folder and says how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run that is done")
    parser.add_argument("out", type=Path, help="folder that is made")
    options = parser.parse_args()
    try:
        publish(options.run, options.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    kept = sorted(p for p in options.out.rglob("*") if p.is_file())
    for path in kept:
        print(f"{path.stat().st_size:>10,} {path}")


if __name__ == "__main__":
    main()
