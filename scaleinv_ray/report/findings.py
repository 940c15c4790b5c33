"""What a run found, in words, from the rows of its verdicts, beside what untrained networks do."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scaleinv_ray.contract import Quantity

MOST_NAMED = 4
"""Findings that are named with their numbers; the others are counted."""
UNTRAINED = "random_init"
_KEPT_CAPITALS = ("Euler", "Gaussian", "Hessian")
_PLACE = ("series", "probe", "invariant", "quantity", "site", "depth_bin")
NEEDED = (*_PLACE, "comparison", "variant", "n_params", "step", "value", "counted")
"""Columns of the values that are read."""

Row = Mapping[str, Any]
Quantities = Mapping[tuple[str, str], Quantity]
BySize = dict[int, list[float]]


def join(parts: Sequence[str]) -> str:
    """Parts of a sentence, the last two by 'and'."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def number_of(count: int, noun: str) -> str:
    """A count and its noun.

    Returns:
        The noun in the plural, but for one.

    >>> number_of(1, "size"), number_of(1200, "size")
    ('1 size', '1,200 sizes')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def with_error(values: Sequence[float]) -> str:
    """The mean of values over seeds and its standard error, to two digits of it.

    Returns:
        The mean alone where there is one value, or no spread.

    >>> with_error([0.48, 0.50, 0.49]), with_error([2.0, 2.0]), with_error([1234.0])
    ('0.4900 ± 0.0058', '2', '1.23e+03')
    """
    mean = statistics.fmean(values)
    stderr = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return rounded(mean, stderr) if 0 < stderr < math.inf else f"{mean:.3g}"


def rounded(value: float, stderr: float) -> str:
    """A value with as many places as its standard error has with two digits.

    Args:
        value: finite.
        stderr: positive and finite.

    Returns:
        Both, in the unit of the value.

    >>> rounded(0.98243, 0.0692), rounded(1234.0, 321.0), rounded(0.0, 1e-9)
    ('0.982 ± 0.069', '1.23e+03 ± 3.2e+02', '0 ± 1e-09')
    """
    digits = 1 - math.floor(math.log10(stderr))
    if not 0 <= digits <= 6:
        return f"{value:.3g} ± {stderr:.2g}"
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


def values_by_size(
    values: Iterable[Row], rows: Iterable[Row]
) -> Mapping[tuple[Any, ...], Mapping[str, BySize]]:
    """The values that verdicts rest on: place -> variant -> size -> one value a seed.

    Args:
        values: of `ValueRow`.
        rows: the verdicts whose values are wanted, one a place, at equal steps or of the last
            checkpoints.
    """
    judged = {place_of(row): (row["comparison"], row["step"]) for row in rows}
    found: dict[tuple[Any, ...], dict[str, BySize]] = defaultdict(dict)
    for value in values:
        place = place_of(value)
        comparison, step = judged.get(place, (None, None))
        if not value["counted"] or value["comparison"] != comparison:
            continue
        # untrained networks have no steps, finished ones their own
        if value["variant"] == UNTRAINED or comparison == "final" or value["step"] == step:
            by_size = found[place].setdefault(value["variant"], {})
            by_size.setdefault(value["n_params"], []).append(value["value"])
    return found


def findings(rows: Sequence[Row], values: Iterable[Row], quantities: Quantities) -> list[str]:
    """What was found, what was claimed, what could not be had, and what would settle the rest.

    Args:
        rows: the verdicts that are counted, one a quantity and place, without controls.
        values: of `ValueRow`.
        quantities: (invariant, quantity) -> what it means.

    Returns:
        Sentences; the first names what trained networks have and untrained ones do not.
    """
    measured = [row for row in rows if row["n_models"]]
    held = [row for row in measured if row["verdict_kind"] in {"conserved", "scales"}]
    numbers = values_by_size(values, [row for row in held if row["null_kind"] == "learned"])

    learned = [
        [r for r in held if (r["verdict_kind"], r["null_kind"]) == (kind, "learned")]
        for kind in ("conserved", "scales")
    ]
    sentences = [
        _lead(measured, *([label_of(r, quantities) for r in rows] for rows in learned)),
        *(
            f"{words}: {_said(row, numbers.get(place_of(row), {}), quantities)}."
            for words, rows in zip(("Conserved, learned", "A law, learned"), learned, strict=True)
            for row in rows[:MOST_NAMED]
        ),
        *_beside_nulls(held, quantities),
        *_claims(measured),
        _fragile(held),
        _without(rows),
        *_settling(measured, held),
    ]
    return [sentence for sentence in sentences if sentence]


def place_of(row: Row) -> tuple[Any, ...]:
    """What a verdict or a value is about."""
    return tuple(row[k] for k in _PLACE)


def label_of(row: Row, quantities: Quantities) -> str:
    """What a quantity is, for the middle of a sentence; its name where nothing is said of it.

    Args:
        row: with `invariant` and `quantity`.
        quantities: (invariant, quantity) -> what it means.
    """
    declared = quantities.get((row["invariant"], row["quantity"]))
    what = declared.meaning.partition(";")[0] if declared else ""
    if not what:
        return str(row["quantity"]).replace("_", " ")
    # a word, not a symbol and not a name
    is_word = what[1:2].islower() and not what.startswith(_KEPT_CAPITALS)
    return what[0].lower() + what[1:] if is_word else what


def _said(row: Row, numbers: Mapping[str, BySize], quantities: Quantities) -> str:
    """A finding with its numbers, trained beside untrained."""
    parts = [
        f"{name} {_ends(by_size)}"
        for name, variant in (("trained", "trained"), ("untrained", UNTRAINED))
        if (by_size := numbers.get(variant))
    ]
    if row["verdict_kind"] == "scales" and row["exponent"] is not None:
        scale = row["unit"] or 1.0
        what = "exponent" if row["unit"] is None else "slope per ln N"
        slope, low, high = (row[k] * scale for k in ("exponent", "exponent_low", "exponent_high"))
        parts.insert(0, f"{what} {slope:.3g} [{low:.3g}, {high:.3g}]")
    beside = f": {', '.join(parts)}" if parts else ""
    return f"{label_of(row, quantities)} ({named_at(row)}){beside}"


def named_at(row: Row) -> str:
    """The name of a quantity with its place, as two verdicts of one name have two."""
    site = f" at {row['site']}" if row["site"] and row["site"] != "all" else ""
    return f"{row['quantity']}{site}" + (f" on {row['probe']}" if row["probe"] else "")


def _ends(by_size: BySize) -> str:
    """At the smallest and at the largest size."""
    sizes = sorted(by_size)
    first, last = with_error(by_size[sizes[0]]), with_error(by_size[sizes[-1]])
    return first if len(sizes) == 1 else f"{first} to {last}"


def _enumerated(parts: Iterable[str]) -> str:
    parts = list(dict.fromkeys(parts))  # of several places one name
    more = len(parts) - MOST_NAMED
    return "; ".join([*parts[:MOST_NAMED], *([f"and {more:,} more"] if more > 0 else [])])


def _lead(measured: Sequence[Row], conserved: Sequence[str], laws: Sequence[str]) -> str:
    if not measured:
        return ""
    of = f"Of {len(measured):,} measured " + ("quantity" if len(measured) == 1 else "quantities")
    if all(row["verdict_kind"] == "undetermined" for row in measured):
        return f"{of}, none could be decided."
    if not (conserved or laws):
        return f"{of}, none was found to be conserved, or to follow a law, by training."
    said = []
    if conserved:
        said.append(f"{len(conserved):,} conserved and learned ({_enumerated(conserved)})")
    if laws:
        said.append(f"{len(laws):,} with a law that is learned ({_enumerated(laws)})")
    return f"{of}, {join(said)}."


def _beside_nulls(held: Sequence[Row], quantities: Quantities) -> list[str]:
    """Whose doing the others are."""
    meaning = {
        "architectural": "in untrained networks too, otherwise (architectural)",
        "trivial": "the same in untrained networks (trivial)",
    }
    said = []
    for kind, text in meaning.items():
        chosen = [label_of(row, quantities) for row in held if row["null_kind"] == kind]
        if chosen:
            said.append(f"{len(chosen):,} conserved or scaling {text}: {_enumerated(chosen)}.")
    return said


def _claims(measured: Sequence[Row]) -> list[str]:
    said = []
    for law, words, kept in (
        ("constant", "constant", "conserved"),
        ("power_law", "to follow a law", "scales"),
    ):
        claimed = [row for row in measured if row["law"] == law]
        if not claimed:
            continue
        kinds = Counter(row["verdict_kind"] for row in claimed)
        drifting = sum(row["verdict"] == "conserved_drifting" for row in claimed)
        drift = f" ({drifting:,} of them drifting)" if drifting and kept == "conserved" else ""
        refuted = [k for k in ("conserved", "scales", "not conserved") if k != kept]
        against = {"conserved": "conserved", "scales": "scaling", "not conserved": "lawless"}
        parts = [f"{kinds[k]:,} {against[k]}" for k in refuted if kinds[k]]
        detail = f" ({', '.join(parts)})" if parts else ""
        said.append(
            f"Claimed {words} in advance and measured: {len(claimed):,}; "
            f"{kinds[kept]:,} held{drift}, "
            f"{sum(kinds[k] for k in refuted):,} refuted{detail}, "
            f"{kinds['undetermined']:,} undetermined."
        )
    return said


def _fragile(held: Sequence[Row]) -> str:
    count = sum(bool(row["fragile"]) for row in held)
    if not count:
        return ""
    return (
        f"{count:,} of the {len(held):,} conserved or scaling verdicts would be others with one "
        "model left out (fragile)."
    )


def _without(rows: Sequence[Row]) -> str:
    """What has no value, apart from what is undetermined."""
    lost = [row for row in rows if not row["n_models"]]
    if not lost:
        return ""
    kinds = Counter(row["verdict_kind"] for row in lost)
    refused = [row for row in lost if row["verdict_kind"] == "refused"]
    parts = []
    if refused:
        causes = Counter(_cause(row["reason"] or "") for row in refused)
        cause, _ = causes.most_common(1)[0]
        parts.append(f"{len(refused):,} refused" + (f" (most often {cause!r})" if cause else ""))
    if kinds["not asked"]:
        parts.append(f"{kinds['not asked']:,} not asked for by the config")
    if kinds["undetermined"]:
        parts.append(f"{kinds['undetermined']:,} without a model to compare")
    return f"Without a value, hence not judged: {len(lost):,}; {join(parts)}."


def _cause(reason: str) -> str:
    """Why models were dropped, without their numbers."""
    return reason.partition("dropped: ")[2].partition(" (")[0][:90]


def _settling(measured: Sequence[Row], held: Sequence[Row]) -> list[str]:
    open_still = [row for row in measured if row["verdict_kind"] == "undetermined"]
    beside = [row for row in held if row["null_kind"] == "undetermined"]
    said = []
    if open_still:
        said.append(
            f"Measured and undetermined: {len(open_still):,}{_seeds(open_still, 'seeds_needed')}."
        )
    if beside:
        said.append(
            f"Conserved or scaling, and not told apart from untrained networks: {len(beside):,}"
            f"{_seeds(beside, 'null_seeds_needed')}."
        )
    return said


def _seeds(rows: Sequence[Row], needed: str) -> str:
    """How many seeds would decide, of those that seeds decide."""
    counts = sorted(n for row in rows if (n := row[needed]) is not None)
    if not counts:
        briefs = {row["brief"] for row in rows}
        why = f": {min(briefs)}" if len(briefs) == 1 and briefs != {""} else ""
        return f"; more seeds alone would not decide{why}"
    span = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    others = len(rows) - len(counts)
    rest = f", {others:,} by no number of seeds" if others else ""
    return f"; {len(counts):,} would be decided by {span} seeds a size{rest}"
