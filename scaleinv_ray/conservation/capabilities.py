"""Published evaluations to common rows: lm-evaluation-harness in both layouts, Pythia's tables.

A row has model, step, tokens, n_params, task, metric, value, stderr and chance; None where unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

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
_STEP = re.compile(r"(?:^|\D)step(\d+)$")
_PYTHIA = re.compile(r"pythia-(?P<size>[\d.]+[mb])(?:-deduped|-bf16|-(?P<batch>[\d.]+)MtokBS)*$")


def chance_of(task: str, metric: str) -> float | None:
    """Score of guessing; None where it is not known or the metric is no share of right answers.

    Args:
        task: name of the task.
        metric: name of the metric, without its filter.

    Returns:
        The score.

    >>> chance_of("arc_easy", "acc"), chance_of("lambada_openai", "ppl")
    (0.25, None)
    """
    if metric not in _SCORES:
        return None
    known = [name for name in CHANCE if task == name or task.startswith((f"{name}_", f"{name}-"))]
    return CHANCE[max(known, key=len)] if known else None


def from_lm_eval(
    results: Mapping[str, Any], *, tokens_per_step: int | None = None, n_params: int | None = None
) -> list[Row]:
    """Rows of one results.json of the lm-evaluation-harness, old layout (0.3) or new (0.4 on).

    Old: {"results": {task: {"acc": .., "acc_stderr": ..}}}; new: the keys carry a filter,
    "acc,none" and "acc_stderr,none". Model and step are those of `pretrained=` and `revision=` in
    config.model_args, text or mapping. A filter other than none stays part of the metric's name.

    Args:
        results: the file as loaded by json.
        tokens_per_step: tokens of a training step, to count tokens by.
        n_params: total parameters; config.model_num_parameters where the file has it.

    Returns:
        Rows, by task and metric.

    Raises:
        ValueError: where it is no results.json of either layout.

    >>> old = {"results": {"piqa": {"acc": 0.6, "acc_stderr": 0.01}},
    ...        "config": {"model_args": "pretrained=EleutherAI/pythia-70m,revision=step1000"}}
    >>> [row] = from_lm_eval(old, tokens_per_step=2097152)
    >>> row["model"], row["step"], row["tokens"], row["value"], row["chance"]
    ('EleutherAI/pythia-70m', 1000, 2097152000, 0.6, 0.5)
    """
    found, config = results.get("results"), results.get("config", {})
    if not isinstance(found, Mapping) or not isinstance(config, Mapping):
        raise ValueError(f"results: got keys {sorted(results)}, allowed 'results' and 'config'")
    args = _arguments(config.get("model_args"))
    model = args.get("pretrained") or results.get("model_name") or config.get("model")
    step = _step(args.get("revision"))
    params = n_params if n_params is not None else config.get("model_num_parameters")
    key = {
        "model": model,
        "step": step,
        "tokens": None if step is None or tokens_per_step is None else step * tokens_per_step,
        "n_params": params,
    }
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
        ValueError: for a model that is none of the suite.

    >>> row = {"model": "pythia-70m-0.25MtokBS", "fewshot": "zero-shot", "step": 8,
    ...        "task": "piqa", "metric": "acc", "value": 0.5, "stderr": 0.01}
    >>> from_pythia([row])[0]["tokens"]
    2097152
    """
    return [
        {
            "model": row["model"],
            "step": row["step"],
            "tokens": row["step"] * _pythia(row["model"])[1],
            "n_params": _pythia(row["model"])[0],
            "task": row["task"],
            "metric": row["metric"],
            "value": row["value"],
            "stderr": row["stderr"],
            "chance": chance_of(row["task"], row["metric"]),
        }
        for row in rows
        if row["fewshot"] == fewshot
    ]


def _pythia(model: str) -> tuple[int, int]:
    """Total parameters and tokens a step."""
    match = _PYTHIA.search(model)
    if match is None or match["size"] not in PYTHIA_PARAMS:
        raise ValueError(f"model: got {model!r}, allowed pythia-* of {sorted(PYTHIA_PARAMS)}")
    share = 2.0 if match["batch"] is None else float(match["batch"])
    return PYTHIA_PARAMS[match["size"]], int(PYTHIA_BATCH * share / 2)


def _arguments(given: Any) -> dict[str, str]:
    if isinstance(given, Mapping):
        return {str(k): str(v) for k, v in given.items()}
    pairs = [part.partition("=") for part in str(given or "").split(",")]
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _step(revision: str | None) -> int | None:
    match = _STEP.search(revision or "")
    return None if match is None else int(match[1])


def _metrics(task: str, found: Mapping[str, Any]) -> list[Row]:
    rows = []
    for key in sorted(found):
        name, _, kind = key.partition(",")
        value = _number(found[key])
        # beside the metrics: alias, version, sample_len, higher_is_better
        if value is None or name.endswith("_stderr") or name in {"alias", "version", "sample_len"}:
            continue
        error = f"{name}_stderr,{kind}" if kind else f"{name}_stderr"
        rows.append({
            "task": task,
            "metric": name if kind in {"", "none"} else key,
            "value": value,
            "stderr": _number(found.get(error)),
            "chance": chance_of(task, name),
        })  # fmt: skip
    return rows


def _number(given: Any) -> float | None:
    """A number; None for 'N/A' and other text."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return float(given) if is_number else None
