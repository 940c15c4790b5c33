"""Which published evaluation is of which run of the series, and which is of none, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = dict[str, Any]
REPLACED = "given again with another value, which counts"
_EXAMPLES = 3
_MOST_REASONS = 12


class Seen(NamedTuple):
    """A checkpoint of the series: its run, and how far it was trained where that is known."""

    model: str
    seed: int | None
    step: int | None
    tokens: int | None


class Joined(NamedTuple):
    """Evaluations by what became of them.

    Attributes:
        rows: of runs of the series, with the tokens that their checkpoint was trained on.
        lost: the others, with a `reason`.
    """

    rows: list[Row]
    lost: list[Row]


def short_name(model: str) -> str:
    """The last part of a model's name, by which published and measured models are joined.

    Args:
        model: name, repository or folder.

    Returns:
        The part, in small letters.

    >>> short_name("EleutherAI/Pythia-70m/")
    'pythia-70m'
    """
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def join_evaluations(rows: Iterable[Mapping[str, Any]], checkpoints: Iterable[Seen]) -> Joined:
    """Evaluations joined with the runs of a series, by the last part of the model's name.

    Training tokens are those of the run's own checkpoint at the step of the evaluation, else those
    that the evaluation gives. Of two values for one checkpoint the later one counts.

    Args:
        rows: as `from_lm_eval` and `from_pythia` of `checkpoints` give them.
        checkpoints: of the trained models of the series.

    Returns:
        The evaluations of runs, and those that are of none: without a value, a model, a step or
        tokens, of a model that is not in the series or is there with several seeds, and those that
        a later value replaces.

    >>> row = {"model": "lab/d40", "step": 64, "tokens": None, "task": "piqa", "metric": "acc",
    ...        "value": 0.6, "problem": ""}
    >>> found = join_evaluations([row, row | {"model": "lab/d80"}], [Seen("d40", 0, 64, 64_000)])
    >>> [r["tokens"] for r in found.rows], [r["reason"] for r in found.lost]
    ([64000], ['the series has no model of this name'])
    """
    runs: dict[str, dict[tuple[str, int | None], dict[int, int]]] = {}
    for seen in checkpoints:
        steps = runs.setdefault(short_name(seen.model), {}).setdefault((seen.model, seen.seed), {})
        if seen.step is not None and seen.tokens is not None:
            steps[seen.step] = seen.tokens
    kept: dict[tuple[Any, ...], Row] = {}
    lost: list[Row] = []
    for given in rows:
        row = dict(given)
        of = {} if row["model"] is None else runs.get(short_name(row["model"]), {})
        own = next(iter(of.values()), {})
        row["tokens"] = own.get(row["step"], row["tokens"]) if len(of) == 1 else row["tokens"]
        if reason := _lost(row, len(of)):
            lost.append(row | {"reason": reason})
            continue
        at = (short_name(row["model"]), row["tokens"], row["task"], row["metric"])
        before = kept.pop(at, row)
        if before["value"] != row["value"]:
            lost.append(before | {"reason": REPLACED})
        kept[at] = row
    return Joined(list(kept.values()), lost)


def _lost(row: Mapping[str, Any], num_runs: int) -> str:
    """Why a row is of no checkpoint of a run; empty where it is of one."""
    if row["problem"]:
        return str(row["problem"])
    if row["model"] is None:
        return "the file names no model"
    if num_runs == 0:
        return "the series has no model of this name"
    if num_runs > 1:
        return f"the series has {num_runs} runs of this name, and the file names no seed"
    if row["tokens"] is not None:
        return ""
    if row["step"] is None:
        return "neither revision nor folder gives a step"
    return "tokens unknown: no checkpoint of the run is at this step (give tokens_per_step)"


def join_notes(joined: Joined) -> list[str]:
    """What became of evaluations, in lines: how many are joined, and of the others why not.

    Returns:
        The lines; none where there were no evaluations.
    """
    total = len(joined.rows) + len(joined.lost)
    if not total:
        return []
    lost: dict[str, Counter[str]] = {}
    for row in joined.lost:
        lost.setdefault(row["reason"], Counter())[_called(row)] += 1
    ordered = sorted(lost.items(), key=lambda item: -item[1].total())
    lines = [f"evaluations: {len(joined.rows):,} of {total:,} values joined with runs"]
    for reason, names in ordered[:_MOST_REASONS]:
        more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
        shown = "; ".join(list(names)[:_EXAMPLES])
        lines.append(f"  {names.total():,} not joined: {reason}: {shown}{more}")
    rest = sum(names.total() for _, names in ordered[_MOST_REASONS:])
    return [*lines, f"  {rest:,} not joined for further reasons"] if rest else lines


def _called(row: Mapping[str, Any]) -> str:
    at = "" if row["step"] is None else f" step {row['step']}"
    file = f" in {row['file']}" if row.get("file") else ""
    return f"{row['model'] or 'no model'}{at}, {row['task']} {row['metric']}{file}"
