"""A series with several tokenizers: in which unit its losses are compared, and what is not.

A token of one tokenizer is another piece of text than that of another one: nats a token are then
no common unit, nats a byte of text are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.contract import Quantity

Row = dict[str, Any]
Said = TypeVar("Said", bound=Mapping[str, Any])
Quantities = Mapping[tuple[str, str], Quantity]
UNIT = "in nats a byte of text"
_NAMES = 6
_SHUFFLED = "shuffled_tokens"


class Bytes(NamedTuple):
    """Bytes of text that a predicted token of a probe covers: the mean, and its error."""

    mean: float
    stderr: float


def several_tokenizers(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The series that have several tokenizers.

    Args:
        rows: of measurements, each with its `tokenizer`, None where that is not known.

    Returns:
        Series -> names of its tokenizers, of those that have two or more.
    """
    table = Rows.of(rows)
    found: dict[str, set[str]] = {}
    told = "tokenizer" in table.columns
    for series, name in table.distinct(("series", "tokenizer"))[1] if told else ():
        if name is not None:
            found.setdefault(series, set()).add(name)
    return {series: sorted(names) for series, names in found.items() if len(names) > 1}


def in_one_unit(
    rows: Sequence[Row], *, quantities: Quantities, bytes_of: Mapping[tuple[str, str], Bytes]
) -> list[Row]:
    """Rows whose values may be compared between models, whatever their tokenizers.

    In a series with several tokenizers a mean of nats over all predicted tokens becomes one of nats
    a byte: total nats over the bytes of the text that those tokens cover, which both are exact. Its
    error is at most (stderr + value * error of the bytes) / bytes, with the value in nats a byte.
    Other values in nats a token are refused, with the reason. A series with one tokenizer is left
    as it is.

    Args:
        rows: of measurements, each with its `tokenizer`.
        quantities: (invariant, quantity) -> what is claimed of it, for its unit.
        bytes_of: (probe, tokenizer) -> bytes of its tokens, where they stand for text.

    Returns:
        The rows, those that are other than before as copies.

    >>> loss = Quantity(law="power_law", nats="mean_per_token")
    >>> row = {"series": "s", "invariant": "i", "quantity": "q", "probe": "prose", "status": "ok",
    ...        "variant": "trained", "value": 3.0, "stderr": 0.3}
    >>> rows = [row | {"tokenizer": name} for name in ("a", "b")]
    >>> bytes_of = {("prose", "a"): Bytes(1.0, 0.0), ("prose", "b"): Bytes(3.0, 0.0)}
    >>> [r["value"] for r in in_one_unit(rows, quantities={("i", "q"): loss}, bytes_of=bytes_of)]
    [3.0, 1.0]
    """
    several = several_tokenizers(rows)
    if not several:
        return list(rows)
    per_token = {of: q.nats for of, q in quantities.items() if q.nats != "no"}
    out = []
    for row in rows:
        nats = per_token.get((row["invariant"], row["quantity"]))
        names = several.get(row["series"])
        if nats is not None and names is not None and row["status"] == "ok":
            size = bytes_of.get((row["probe"], row["tokenizer"] or ""))
            row = row | _in_bytes(row, nats, size, len(names))
        out.append(row)
    return out


def _in_bytes(row: Mapping[str, Any], nats: str, size: Bytes | None, count: int) -> Row:
    """Value and error in nats a byte, or the refusal."""
    if problem := _problem(row, nats, size):
        error = f"in nats a token of {count} tokenizers: {problem}"
        return {"value": None, "stderr": None, "status": "refused", "error": error}
    assert size is not None
    value, error = row["value"] / size.mean, row["stderr"]
    bound = None if error is None else (error + abs(value) * size.stderr) / size.mean
    return {"value": value, "stderr": bound}


def _problem(row: Mapping[str, Any], nats: str, size: Bytes | None) -> str:
    """Why a value in nats a token is none in nats a byte; empty where it can be."""
    if nats != "mean_per_token":
        return "it is no mean over text, and has no other unit"
    if row["tokenizer"] is None:
        return "that of this model is not known"
    if row["variant"] == _SHUFFLED:
        return "shuffled tokens are no text that has bytes"
    return "" if size is not None else "the tokens of this probe are no text that has bytes"


def say_tokenizers(
    verdicts: Sequence[Said], several: Mapping[str, Sequence[str]], quantities: Quantities
) -> list[Said]:
    """Verdicts of a series with several tokenizers, whose reasons say so where it matters.

    Args:
        verdicts: rows with the columns of a place, and a reason.
        several: of `several_tokenizers`.
        quantities: (invariant, quantity) -> what is claimed of it.

    Returns:
        The rows; those without a probe, and of other series, as they are.
    """
    out = []
    for row in verdicts:
        names = several.get(row["series"])
        claim = quantities.get((row["invariant"], row["quantity"]), Quantity(law="none"))
        if names and row["probe"] is not None and claim.nats != "per_token":
            converted = claim.nats == "mean_per_token"
            said = UNIT if converted else "the tokens at which it is measured differ"
            reason = f"{row['reason']}; {len(names)} tokenizers: {said}"
            row = cast("Said", {**row, "reason": reason})
        out.append(row)
    return out


def tokenizer_notes(models: Iterable[tuple[str, str | None]]) -> list[str]:
    """What is to be said of the tokenizers of a series.

    Args:
        models: of every model its name and that of its tokenizer.

    Returns:
        Which models have which, and what follows; nothing of a series with one tokenizer.

    >>> tokenizer_notes([("a", "x"), ("b", "x")])
    []
    >>> tokenizer_notes([("a", "x"), ("b", "y")])[0]
    '2 tokenizers in one series: x (a); y (b)'
    """
    by_name: dict[str, dict[str, None]] = {}
    for model, name in models:
        if name is not None:
            by_name.setdefault(name, {})[model] = None
    if len(by_name) < 2:
        return []
    groups = "; ".join(f"{name} ({_listed(list(found))})" for name, found in by_name.items())
    return [
        f"{len(by_name)} tokenizers in one series: {groups}",
        f"mean losses are judged {UNIT}; other values in nats a token are refused, and models are "
        "not compared at equal held-out loss",
        "what else is measured at token positions is of other tokens in other models, which its "
        "verdicts say; a window of as many tokens covers more or less text",
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
