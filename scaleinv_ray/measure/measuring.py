"""One capture file, or two, x one invariant -> rows, curves and diagrams in the store.

Needs no Ray. The only place where a failure becomes a row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray import invariants, tables
from scaleinv_ray.contract import Invariant, Measured, Refused, Signature
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.measure.inventory import beside, with_beside
from scaleinv_ray.plan.jobs import FAILED, MeasureJob, Outcome, WeightSource
from scaleinv_ray.records import Record
from scaleinv_ray.store import Store, read_records
from scaleinv_ray.store.seal import DamagedError

assert invariants, "importing the package registers the invariants, on every worker"


def _records(
    source: str | WeightSource, tensors: tuple[str, ...] | None = None
) -> Iterator[Record]:
    if isinstance(source, WeightSource):
        # imports torch, which the other measurements do without
        from scaleinv_ray.checkpoints.weights.matrices import iter_weights

        yield from iter_weights(
            source.folder(),
            variant=source.variant,
            seed=source.checkpoint.seed,
            init_folder=source.init_folder(),
            per_head=source.per_head,
            tensors=tensors,
            trusted=source.trusted,
        )
        source.check()  # a file exchanged while it was read is seen too
    else:
        yield from read_records(Path(source))


def _arguments(job: MeasureJob, signature: Signature) -> Iterator[tuple[Any, ...]]:
    """Arguments of the invariant, one after the other, beginning with the record they belong to."""
    if signature == "one":
        for record in _records(job.source, (job.only.tensor,) if job.only else None):
            yield (record.of(job.labels["variant"]),)
    elif signature == "pair":
        others = list(_records(job.more[0]))
        for record in _records(job.source):
            yield record, nearest_in_depth(record, others)
    else:
        # the same tensors in the same order at every step: only one place is in memory at a time
        sources = [*job.more, job.source]
        for steps in zip(*(_records(s) for s in sources), strict=True):
            places = {(r.layer, r.role, r.head, r.site) for r in steps}
            if len(places) > 1:
                raise ValueError(f"steps of a run: got {sorted(map(str, places))} at one place")
            # a capture of equal weights may serve several steps: only the job knows which
            known = (*job.steps, job.labels["step"])
            of = (r.of(job.labels["variant"]) for r in steps)
            yield ([replace(r, step=step) for r, step in zip(of, known, strict=True)],)


def nearest_in_depth(record: Record, others: Sequence[Record]) -> Record:
    """The record of another model at the same site and the nearest relative depth.

    Args:
        others: records of the other model.

    Returns:
        One of them; of two equally near the shallower.

    Raises:
        ValueError: where the other model has no record at this site.
    """
    same = [o for o in others if (o.site, o.head) == (record.site, record.head)]
    if not same:
        raise ValueError(
            f"site: got {record.site}, allowed {sorted({str(o.site) for o in others})}"
        )
    return min(same, key=lambda o: (abs((o.depth or 0.0) - (record.depth or 0.0)), o.depth or 0.0))


def _place(record: Record | None, kind: str) -> dict[str, Any]:
    return {
        "layer": record.layer if record else None,
        "depth": record.depth if record else None,
        "role": record.role if record else None,
        "head": record.head if record else None,
        "site": record.site if record else None,
        "capture": kind,
    }


def _what(spec: Invariant, params: str) -> dict[str, Any]:
    return {
        "family": spec.family,
        "invariant": spec.name,
        "version": spec.version,
        "params": params,
    }


def _value_rows(
    spec: Invariant, measured: Measured | Refused | str, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for every declared quantity, whatever happened."""
    rows = []
    for name, quantity in spec.quantities.items():
        flags: dict[str, str] = {}
        got: Estimate | Refused | str
        if isinstance(measured, Measured):
            got = measured.values[name]
            flags = {k: str(v) for k, v in measured.flags.items()}
        else:
            got = measured
        estimate = got if isinstance(got, Estimate) else None
        status = "ok" if estimate else "refused" if isinstance(got, Refused) else "failed"
        rows.append({
            **common,
            "quantity": name,
            "law": quantity.law,
            "value": estimate.value if estimate else None,
            "stderr": estimate.stderr if estimate else None,
            "n": estimate.n if estimate else None,
            "error_kind": estimate.error_kind if estimate else None,
            "samples": list(estimate.samples) if estimate and estimate.samples else None,
            "flags": flags,
            "status": status,
            "error": None if estimate else str(got),
        })
    return rows


def _apply(spec: Invariant, records: tuple[Any, ...], job: MeasureJob) -> Measured | Refused | str:
    """The invariant of one record or of a pair; what it raises becomes the text of a failed row."""
    rng = np.random.default_rng(job.rng_seed)
    try:
        measured = spec.function(*records, rng=rng, **json.loads(job.params))
    except Refused as refusal:
        return refusal
    except Exception as error:  # a plug-in may raise anything: it is the row's, not the run's
        return f"{type(error).__name__}: {error}"
    if not isinstance(measured, Measured):
        return f"contract: got {shown(measured, 60)}, allowed: Measured({{quantity: Estimate}})"
    if set(measured.values) != set(spec.quantities):
        return f"contract: got {sorted(measured.values)}, declared {sorted(spec.quantities)}"
    return measured


def _array(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else np.asarray(values).tolist()


def _extra_rows(
    measured: Measured | Refused | str, common: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if not isinstance(measured, Measured):
        return [], []
    base = {k: common[k] for k in tables.CURVES.names if k in common}
    curves = [
        {**base, "curve": n, "x": _array(c.x), "y": _array(c.y), "y_stderr": _array(c.y_stderr)}
        for n, c in measured.curves.items()
    ]
    diagrams = [
        {
            **base,
            "diagram": n,
            "dimension": _array(d.dimension),
            "birth": _array(d.birth),
            "death": _array(d.death),
        }
        for n, d in measured.diagrams.items()
    ]
    return curves, diagrams


class MeasuredRows(NamedTuple):
    """What comes of a measurement.

    Attributes:
        values: of tables.MEASUREMENTS.
        curves: of tables.CURVES.
        diagrams: of tables.DIAGRAMS.
    """

    values: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    diagrams: list[dict[str, Any]]


def rows_of(job: MeasureJob) -> MeasuredRows:
    """Applies the invariant to every record; what fails as a whole becomes failed rows.

    Returns:
        The rows; none only of a range.

    Raises:
        DamagedError: where a capture is absent or not what was written.
    """
    spec = job.spec
    made = MeasuredRows([], [], [])
    shared = {**job.labels, "key": job.key, **_what(spec, job.params)}
    try:
        job.check()
        for records in _arguments(job, spec.signature):
            began = time.perf_counter()
            measured = _apply(spec, records, job)
            wall_s = time.perf_counter() - began
            place = records[0] if isinstance(records[0], Record) else records[0][-1]
            common = {**shared, **_place(place, spec.kind), "wall_s": wall_s}
            made.values.extend(_value_rows(spec, measured, common))
            curves, diagrams = _extra_rows(measured, common)
            made.curves.extend(curves)
            made.diagrams.extend(diagrams)
        job.check()  # a file exchanged while it was read is seen too
    except DamagedError:  # whoever has made the capture can make it again
        raise
    except Exception as error:  # a broken file fails in the ways of every library that reads it
        return MeasuredRows(failed_rows(job, f"{type(error).__name__}: {error}"), [], [])
    if made.values or job.only:  # a stored tensor may be none that is measured, as a tied head
        return made
    return MeasuredRows(failed_rows(job, "the capture holds no record"), [], [])


def measure(job: MeasureJob, store: Store) -> Outcome:
    """Makes one measurement, or a range of it, and writes its tables, the rows last.

    Returns:
        Rows by status and the time taken.
    """
    start = time.perf_counter()
    made = rows_of(job)
    write_measurement(store, job.stem, *made)
    return outcome_of(job, made, time.perf_counter() - start)


def outcome_of(job: MeasureJob, made: MeasuredRows, wall_s: float) -> Outcome:
    """What is reported of rows that were made in so many seconds."""
    counts = {s: sum(r["status"] == s for r in made.values) for s in ("ok", "refused", "failed")}
    error = next((r["error"] for r in made.values if r["status"] == "failed"), None)
    return Outcome(job.key, job.invariant, counts, wall_s, error)


def unmade(job: MeasureJob, error: str | None) -> Outcome:
    """What is reported of a measurement that was given up, or was found made (no error)."""
    counts = {"ok": 0, "refused": 0, "failed": int(error is not None)}
    return Outcome(job.key, job.invariant, counts, 0.0, error)


def write_measurement(
    store: Store,
    stem: str,
    rows: list[dict[str, Any]],
    curves: list[dict[str, Any]],
    diagrams: list[dict[str, Any]],
) -> None:
    """Writes curves and diagrams first and the rows last; failed rows alone, under another name."""
    failed = any(row["status"] == "failed" for row in rows)
    if curves and not failed:
        store.write_table(f"curves/{stem}.parquet", tables.encode(curves, tables.CURVES))
    if diagrams and not failed:
        store.write_table(f"diagrams/{stem}.parquet", tables.encode(diagrams, tables.DIAGRAMS))
    table = tables.encode(rows, tables.MEASUREMENTS)
    if not failed:
        table = with_beside(table, {stem: beside(curves=bool(curves), diagrams=bool(diagrams))})
    store.write_table(f"measurements/{stem}{FAILED if failed else '.parquet'}", table)
    if not failed:
        store.delete(f"measurements/{stem}{FAILED}")


def write_failed(store: Store, job: MeasureJob, error: str) -> None:
    """Writes the failed rows of a measurement, or of a range of it, that was given up."""
    write_measurement(store, job.stem, failed_rows(job, error), [], [])


def failed_rows(job: MeasureJob, error: str) -> list[dict[str, Any]]:
    """The rows of a measurement whose capture, worker or deadline failed.

    Args:
        job: the measurement that was not made.

    Returns:
        One failed row for each declared quantity.
    """
    spec = job.spec
    common = {**job.labels, "key": job.key, **_what(spec, job.params), "wall_s": 0.0}
    place = _place(None, spec.kind)
    if job.only:
        place |= {k: getattr(job.only, k) for k in ("layer", "depth", "role")}
        error = f"{job.only.tensor}: {error}"
    return _value_rows(spec, error, {**common, **place})
