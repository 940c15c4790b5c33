"""What a run found, in counts and one paragraph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.report.brief import brief
from scaleinv_ray.report.figures.forest import Line, lines_of
from scaleinv_ray.report.findings import NEEDED, Quantities, findings, join, number_of

VERDICTS: tuple[str, ...] = (
    "conserved", "scales", "not conserved", "undetermined", "refused", "not asked",
)  # fmt: skip
NULLS: tuple[str, ...] = ("trivial", "architectural", "learned", "undetermined")


class Reason(NamedTuple):
    """How many measurements ended without a value, by reason."""

    status: str
    family: str
    invariant: str
    quantity: str
    error: str
    rows: int


def verdict_kind(verdict: str | None) -> str:
    """The class of a verdict as it is written.

    Args:
        verdict: as the table has it; none where there was nothing to judge.

    Returns:
        One of `VERDICTS`.

    >>> [verdict_kind(v) for v in ("conserved_exact", "not_conserved", "scales", None)]
    ['conserved', 'not conserved', 'scales', 'refused']
    """
    text = (verdict or "refused").lower().replace("_", " ").replace("-", " ")
    return next((kind for kind in VERDICTS if text.startswith(kind)), "undetermined")


def null_kind(null_class: str | None) -> str:
    """The class of a null control as it is written.

    Args:
        null_class: as the table has it; none where there was no control.

    Returns:
        One of `NULLS`; empty without a control.

    >>> [null_kind(v) for v in ("trivial", "null_undetermined", None)]
    ['trivial', 'undetermined', '']
    """
    if not null_class:
        return ""
    text = null_class.lower()
    return next((kind for kind in NULLS if kind in text), "undetermined")


def judged(verdicts: pa.Table) -> list[dict[str, Any]]:
    """Rows of the verdicts with their classes, and whether each is part of another row.

    Args:
        verdicts: a table of `VerdictRow`.

    Returns:
        The rows with `verdict_kind`, `null_kind`, `brief` (the reason in a line) and `is_part`:
        true for a role of the weights where all roles together have a row too.
    """
    rows = verdicts.to_pylist()
    what = ("series", "probe", "invariant", "quantity", "depth_bin", "comparison")
    together = {tuple(row[name] for name in what) for row in rows if row["site"] == "all"}
    for row in rows:
        key = tuple(row[name] for name in what)
        row["is_part"] = row["site"] != "all" and key in together
        row["verdict_kind"] = verdict_kind(row["verdict"])
        row["null_kind"] = null_kind(row["null_class"])
        row["brief"] = brief(row)
    return rows


def without_value(measurements: pa.Table) -> list[Reason]:
    """Refused and failed measurements, counted by reason, the most frequent first."""
    lost = measurements.filter(pc.not_equal(measurements["status"], "ok"))
    names = ["status", "family", "invariant", "quantity", "error"]
    counted = lost.group_by(names).aggregate([([], "count_all")]).to_pylist()
    reasons = [
        Reason(**{name: row[name] or "" for name in names}, rows=row["count_all"])
        for row in counted
    ]
    return sorted(reasons, key=lambda r: (-r.rows, r))


def paired(measurements: pa.Table) -> int:
    """How many numbers compare two models: they have no place on an axis of sizes."""
    numbers = measurements.filter(pc.equal(measurements["status"], "ok"))
    return numbers.num_rows - numbers["unit_b"].null_count


def headline(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Rows that are counted: one a quantity, site and probe, and in words which."""
    said = ""
    whole = [row for row in rows if row["depth_bin"] == "all" and not row["is_part"]]
    if whole and len(whole) < len(rows):
        rows, said = whole, " over the whole depth"
    compared = {row["comparison"] for row in rows}
    main = "equal_steps" if "equal_steps" in compared else "final"
    if len(compared) > 1 and main in compared:
        where = "at equal steps" if main == "equal_steps" else "of the last checkpoints"
        rows, said = [row for row in rows if row["comparison"] == main], f"{said} {where}"
    return rows, said


def _verdict_sentences(rows: list[dict[str, Any]]) -> list[str]:
    controls = sum(bool(row["control"]) for row in rows)
    rows = [row for row in rows if not row["control"]]
    if not rows:
        return ["There are verdicts on controls only."]
    whole, where = headline(rows)
    kinds = Counter(row["verdict_kind"] for row in whole)
    names = {"scales": "scaling"}
    found = join([f"{kinds[k]:,} {names.get(k, k)}" for k in VERDICTS if kinds[k]])
    sentences = [f"Of {number_of(len(whole), 'judgement')}{where}: {found}."]
    if held := [row for row in whole if row["verdict_kind"] in {"conserved", "scales"}]:
        sentences.append(_null_sentence(held))
    if (most := max((row["n_seeds"] or 0 for row in whole), default=0)) < 2:
        sentences.append(
            f"With {number_of(most, 'seed')} a size, undetermined is the best verdict possible."
        )
    if controls:
        sentences.append("Controls are not counted.")
    return sentences


def _null_sentence(held: list[dict[str, Any]]) -> str:
    # seeds are blamed only where they would decide
    nulls = Counter(
        "open" if row["null_kind"] == "undetermined" and row["null_seeds_needed"] is None
        else row["null_kind"]
        for row in held
    )  # fmt: skip
    meaning = {
        "trivial": "trivial (an untrained network gives the same)",
        "architectural": "architectural (before training too, at another value or by another law)",
        "learned": "learned (untrained networks do not have it)",
        "undetermined": "not told apart from the nulls with the seeds at hand",
        "open": "not told apart from the nulls, which more seeds alone would not change",
        "": "without a null control",
    }
    parts = [f"{nulls[kind]:,} {text}" for kind, text in meaning.items() if nulls[kind]]
    return f"Of the {len(held):,} conserved or scaling, beside the nulls: {join(parts)}."


def _counts_sentence(measurements: pa.Table) -> str:
    counted = pc.value_counts(measurements["status"]).to_pylist()
    status: Mapping[str, int] = {row["values"]: row["counts"] for row in counted}
    lost = " and ".join(f"{status.get(s, 0):,} {s}" for s in ("refused", "failed"))
    text = f"{number_of(measurements.num_rows, 'measurement')}, of which {lost}"
    sizes = sorted(n for n in pc.unique(measurements["n_params"]).to_pylist() if n is not None)
    if not sizes:
        return f"{text}."
    seeds = len(pc.unique(measurements["seed"]))
    span = f"{number_of(len(sizes), 'size')} ({short(sizes[0])} to {short(sizes[-1])} parameters)"
    return f"{text}, over {span} and {number_of(seeds, 'seed')}."


def short(count: int) -> str:
    """A number of parameters to three significant digits.

    Returns:
        The number with its unit.

    >>> short(1_234_567), short(950), short(124_000_000)
    ('1.23M', '950', '124M')
    """
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)


class Spoken(NamedTuple):
    """What is said of a run at the head of its page."""

    sentences: list[str]
    lines: list[Line]


def spoken(rows: list[dict[str, Any]], values: pa.Table, quantities: Quantities) -> Spoken:
    """What was found, in sentences and in a picture, over the whole depth.

    Args:
        rows: what `judged` returns.
        values: a table of `ValueRow`.
        quantities: (invariant, quantity) -> what it means.
    """
    counted, _ = headline([row for row in rows if not row["control"]])
    if not counted:
        return Spoken([], [])
    compared = pa.array(sorted({row["comparison"] for row in counted}), pa.string())
    kept = pc.is_in(values["comparison"].cast(pa.string()), compared)
    bins = pa.array(sorted({row["depth_bin"] for row in counted}), pa.string())
    kept = pc.and_(kept, pc.is_in(values["depth_bin"].cast(pa.string()), bins))
    own = values.filter(pc.and_(kept, values["counted"])).select(NEEDED).to_pylist()
    return Spoken(findings(counted, own, quantities), lines_of(counted, own, quantities))


def paragraph(rows: list[dict[str, Any]], measurements: pa.Table) -> str:
    """The run in a few sentences, which say what was not found as plainly as what was.

    Args:
        rows: what `judged` returns.
        measurements: a table of schema `tables.MEASUREMENTS`.

    Returns:
        Plain text.
    """
    sentences = (
        [_counts_sentence(measurements)]
        if measurements.num_rows
        else ["This run has no measurements yet."]
    )
    verdicts = _verdict_sentences(rows) if rows else ["No verdicts have been reached yet."]
    return " ".join([*verdicts, *sentences])
