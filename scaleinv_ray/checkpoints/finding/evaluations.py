"""Published evaluations to common rows: lm-evaluation-harness in both layouts, Pythia's tables.

A row has model, step, tokens, n_params, task, metric, value, stderr and chance, None where unknown,
and `problem`: why the value is none that can be used, empty where it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scaleinv_ray.checkpoints.finding.steps import run_of, step_of, tokens_of
from scaleinv_ray.inputs.json_files import short

Row = dict[str, Any]
PYTHIA_BATCH = 2_097_152
"""Tokens a step (1024 sequences of 2048; Biderman et al. 2023), also of models named otherwise."""
PYTHIA_PARAMS: Mapping[str, int] = {
    "70m": 70_426_624,
    "160m": 162_322_944,
    "410m": 405_334_016,
    "1b": 1_011_781_632,
    "1.4b": 1_414_647_808,
    "2.8b": 2_775_208_960,
    "6.9b": 6_857_302_016,
    "12b": 11_846_072_320,
}
"""Total parameters, embeddings included (model cards of EleutherAI/pythia-*)."""
CHANCE: Mapping[str, float] = {
    "arc_challenge": 0.25, "arc_easy": 0.25, "boolq": 0.5, "copa": 0.5, "crows_pairs": 0.5,
    "hellaswag": 0.25, "hendrycksTest": 0.25, "lambada": 0.0, "logiqa": 0.25, "mmlu": 0.25,
    "openbookqa": 0.25, "piqa": 0.5, "race": 0.25, "sciq": 0.25, "winogrande": 0.5, "wsc": 0.5,
}  # fmt: skip
"""Score of guessing by the number of choices; by the beginning of the task's name. A few questions
of ARC have three or five choices."""
_SCORES = {"acc", "acc_norm", "pct_stereotype"}
_BESIDE = {
    "", "alias", "version", "sample_len", "sample_count", "samples", "name", "higher_is_better",
}  # fmt: skip
"""What stands beside the metrics of a task."""
# a value may have commas of its own, as a path or a JSON object
_ARGUMENT = re.compile(r",(?=\s*[A-Za-z_]\w*\s*=)")
_LARGEST = 2**63 - 1
_PYTHIA = re.compile(r"pythia-(?P<size>[\d.]+[mb])(?:-deduped|-bf16|-(?P<batch>[\d.]+)MtokBS)*$")


def chance_of(task: str, metric: str) -> float | None:
    """Score of guessing; None where it is not known or the metric is no share of right answers.

    Args:
        metric: name of the metric, without its filter.

    >>> chance_of("arc_easy", "acc"), chance_of("lambada_openai", "ppl")
    (0.25, None)
    """
    if metric not in _SCORES:
        return None
    known = [name for name in CHANCE if task == name or task.startswith((f"{name}_", f"{name}-"))]
    return CHANCE[max(known, key=len)] if known else None


class _Named(NamedTuple):
    """What an evaluation says of the checkpoint it is of."""

    model: str | None
    step: int | None
    tokens: int | None


def from_lm_eval(
    results: Mapping[str, Any], *, tokens_per_step: int | None = None, n_params: int | None = None
) -> list[Row]:
    """Rows of one results.json of the lm-evaluation-harness, old layout (0.3) or new (0.4 on).

    Old: {"results": {task: {"acc": .., "acc_stderr": ..}}}; new: the keys carry a filter,
    "acc,none" and "acc_stderr,none". Model and step are those of `pretrained=` and `revision=` in
    config.model_args, text or mapping; without a step in the revision that of the last folder of
    the path (`runs/x/models/d128-s0/step-000300` is step 300 of the run d128-s0). A filter other
    than none stays part of the metric's name. A value that is no finite number, as the perplexity
    of an untrained model, is a row with its problem.

    Args:
        results: the file as loaded by json.
        tokens_per_step: tokens of a training step, to count tokens by; without it those that the
            name of the checkpoint gives (`stage1-step1000-tokens4B`).
        n_params: total parameters; config.model_num_parameters where the file has it.

    Returns:
        Rows, by task and metric.

    Raises:
        ValueError: where it is no results.json of either layout, naming field or task.

    >>> old = {"results": {"piqa": {"acc": 0.6, "acc_stderr": 0.01}},
    ...        "config": {"model_args": "pretrained=EleutherAI/pythia-70m,revision=step1000"}}
    >>> [row] = from_lm_eval(old, tokens_per_step=2097152)
    >>> row["model"], row["step"], row["tokens"], row["value"], row["chance"]
    ('EleutherAI/pythia-70m', 1000, 2097152000, 0.6, 0.5)
    """
    found: Any = results.get("results")
    config: Any = {} if results.get("config") is None else results["config"]
    if "results" not in results:
        raise ValueError(f"results: got keys {short(sorted(results))}, needs 'results'")
    for field, value in (("results", found), ("config", config)):
        if not isinstance(value, Mapping):
            raise ValueError(f"{field}: got {short(value)}, allowed: an object")
    args = _arguments(config.get("model_args"))
    told = [args.get("pretrained"), args.get("model"), results.get("model_name")]
    model = next((str(name) for name in [*told, config.get("model")] if name), None)
    revision = args.get("revision") or config.get("model_revision")
    named = _named(model, None if revision is None else str(revision), tokens_per_step)
    params = n_params if n_params is not None else config.get("model_num_parameters")
    key = named._asdict() | {"n_params": _count(params)}
    return [key | row for task in sorted(found) for row in _metrics(task, found[task])]


def from_pythia(rows: Iterable[Mapping[str, Any]], *, fewshot: str = "zero-shot") -> list[Row]:
    """Rows of the published evaluations of the Pythia checkpoints (EleutherAI/pythia, evals).

    Args:
        rows: with model, fewshot, step, task, metric, value and stderr.
        fewshot: which of them, 'zero-shot' or 'five-shot'.

    Returns:
        Rows, in their order; tokens are step times batch (0.25 and 0.5 million tokens where the
        model's name says so, else 2,097,152).

    Raises:
        ValueError: for a model that is none of the suite, and where no row is of that `fewshot`.

    >>> row = {"model": "pythia-70m-0.25MtokBS", "fewshot": "zero-shot", "step": 8,
    ...        "task": "piqa", "metric": "acc", "value": 0.5, "stderr": 0.01}
    >>> from_pythia([row])[0]["tokens"]
    2097152
    """
    every = list(rows)
    chosen = [row for row in every if row["fewshot"] == fewshot]
    if not chosen:
        have = sorted({str(row["fewshot"]) for row in every})
        raise ValueError(f"fewshot: got {fewshot!r}, the table has {short(have)}")
    return [_pythia_row(row) for row in chosen]


def _pythia_row(row: Mapping[str, Any]) -> Row:
    params, batch = _pythia(row["model"])
    step = step_of(row["step"]) if isinstance(row["step"], str) else _count(row["step"])
    task, metric = str(row["task"]), str(row["metric"])
    return {
        "model": row["model"],
        "step": step,
        "tokens": _product(step, batch),
        "n_params": params,
        "task": task,
        "metric": metric,
        "chance": chance_of(task, metric),
    } | _measured(metric, row["value"], row["stderr"])


def _pythia(model: Any) -> tuple[int, int]:
    """Total parameters and tokens a step."""
    match = _PYTHIA.search(model) if isinstance(model, str) else None
    if match is None or match["size"] not in PYTHIA_PARAMS:
        raise ValueError(
            f"model: got {short(model)}, allowed pythia-* of {', '.join(PYTHIA_PARAMS)}"
        )
    share = 2.0 if match["batch"] is None else float(match["batch"])
    return PYTHIA_PARAMS[match["size"]], int(PYTHIA_BATCH * share / 2)


def _arguments(given: Any) -> dict[str, str]:
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"config.model_args: got {short(given)}, allowed: name=value,.. or a JSON object"
            ) from error
    if isinstance(given, Mapping):
        return {str(k): str(v) for k, v in given.items() if v is not None}
    if given is not None and not isinstance(given, str):
        raise ValueError(
            f"config.model_args: got {short(given)}, allowed: name=value,.. or an object"
        )
    pairs = [part.partition("=") for part in _ARGUMENT.split(given or "")]
    return {name.strip(): value.strip().strip("\"'") for name, sign, value in pairs if sign}


def _named(model: str | None, revision: str | None, tokens_per_step: int | None) -> _Named:
    """Run, step and tokens by the names of revision and folder."""
    name = revision or ""
    parts = [] if model is None else [part for part in model.split("/") if part]
    # a folder of its run, or a repository that has its run in its own name
    in_path = step_of(name) is None and bool(parts) and step_of(parts[-1]) is not None
    if in_path:
        name = parts[-1]
        run = run_of(name) or (parts[-2] if len(parts) > 1 else "")
        model = run or model
    step = step_of(name)
    told = tokens_of(name) if tokens_per_step is None else _product(step, tokens_per_step)
    return _Named(model, step, told)


def _product(step: int | None, tokens_per_step: int) -> int | None:
    """Tokens after so many steps; None where the step is unknown or no 64 bits hold them."""
    tokens = None if step is None else step * tokens_per_step
    return None if tokens is None or tokens > _LARGEST else tokens


def _metrics(task: str, found: Any) -> list[Row]:
    if not isinstance(found, Mapping):
        raise ValueError(f"results.{task}: got {short(found)}, allowed: metrics by name")
    rows = []
    for key in sorted(found):
        name, _, kind = key.partition(",")
        if name.endswith("_stderr") or name.strip() in _BESIDE:
            continue
        error = f"{name}_stderr,{kind}" if kind else f"{name}_stderr"
        rows.append({
            "task": task,
            "metric": name if kind in {"", "none"} else key,
            "chance": chance_of(task, name),
        } | _measured(name, found[key], found.get(error)))  # fmt: skip
    return rows


def _measured(metric: str, value: Any, stderr: Any) -> Row:
    """The columns of a value; one that cannot be is unknown, with the problem."""
    number, error = _number(value), _number(stderr)
    problem = "" if number is not None else f"the value is {short(value)}, no finite number"
    if number is not None and metric in _SCORES and not 0 <= number <= 1:
        number, problem = None, f"the value is {short(value)}, allowed: a share in 0..1"
    return {
        "value": number,
        "stderr": error if error is not None and error >= 0 else None,
        "problem": problem,
    }


def _number(given: Any) -> float | None:
    """A finite number; None for 'N/A' and whatever else it is not."""
    if not isinstance(given, int | float) or isinstance(given, bool):
        return None
    try:
        number = float(given)
    except OverflowError:  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None


def _count(given: Any) -> int | None:
    """A whole number that 64 bits hold, None otherwise."""
    number = _number(given)
    whole = number is not None and number.is_integer() and 0 <= number < 2.0**63
    return int(given) if whole else None
