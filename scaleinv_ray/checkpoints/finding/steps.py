"""What the names of checkpoints say: of folders, of revisions on the hub, of evaluation files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

# 18 digits fit 64 bits; a number that goes on, as 1.5 or 300b, is another one
_NUMBER = r"([0-9]{1,18})([kKmM]?)(?![0-9A-Za-z]|\.[0-9])"
_WORDS = (  # the first kind that a name has counts: a checkpoint's number may be one of an epoch
    r"(?:global[-_]?)?steps?",
    r"checkpoint|ckpt|iter(?:ation)?",
)
_STEPS = [re.compile(rf"(?<![A-Za-z])(?:{w})[-_=]?{_NUMBER}", re.IGNORECASE) for w in _WORDS]
_TOKENS = re.compile(
    r"(?<![A-Za-z])(?:tokens?[-_=]?([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMBT]?)"
    r"|([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMBT])[-_]?tokens?)(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_STAGE = re.compile(  # what stands before a step and names no run
    r"(?:(?:stage|phase|ingredient|epoch|checkpoint|ckpt|model|weights)[-_=]?[0-9]*|[-_. ])*", re.I
)
_POWERS = {"": 0, "k": 3, "m": 6, "b": 9, "t": 12}


class _Named(NamedTuple):
    step: int
    before: str


def step_of(name: str) -> int | None:
    """The optimiser steps that a name gives.

    Args:
        name: of a folder, a revision or a file, not a path.

    Returns:
        The number beside `step`, else that beside `checkpoint`, `ckpt` or `iter`; None where there
        is none, or where there are two.

    >>> [step_of(n) for n in ("step-000300", "checkpoint-500", "iter_0001000", "step_20k")]
    [300, 500, 1000, 20000]
    >>> step_of("stage1-step1000-tokens4B"), step_of("global_step1000"), step_of("pythia-70m")
    (1000, 1000, None)
    """
    named = _named(name)
    return None if named is None else named.step


def run_of(name: str) -> str:
    """What stands before the step in a name; nothing where the name says the step alone.

    Args:
        name: of a folder, a revision or a file, that has a step.

    Returns:
        The text; stages and epochs are none.

    >>> run_of("olmo-step1000"), run_of("stage1-step1000-tokens4B"), run_of("checkpoint-500")
    ('olmo', '', '')
    """
    named = _named(name)
    before = name if named is None else named.before
    return "" if _STAGE.fullmatch(before) else before.rstrip("-_. ")


def model_of(folder: Path) -> str:
    """The name of the model in a folder: its own, or that of the run where it is named as a step.

    Args:
        folder: of a checkpoint or a run.

    >>> model_of(Path("runs/d64-s0/step-000300")), model_of(Path("models/pythia-70m"))
    ('d64-s0', 'pythia-70m')
    """
    is_step = step_of(folder.name) is not None and not run_of(folder.name)
    return (folder.parent if is_step else folder).name


def tokens_of(name: str) -> int | None:
    """The training tokens that a name gives, as rounded as they stand there.

    Args:
        name: of a folder, a revision or a file, not a path.

    Returns:
        The number, None where there is none, or where there are two.

    >>> tokens_of("stage1-step1000-tokens4B"), tokens_of("step7-1.5Mtokens"), tokens_of("step7")
    (4000000000, 1500000, None)
    """
    found = set()
    for match in _TOKENS.finditer(name):
        number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
        whole, _, part = number.partition(".")
        power = _POWERS[unit.lower()]
        if len(part) <= power:  # a part of a token is none
            found.add(int(whole + part) * 10 ** (power - len(part)))
    return found.pop() if len(found) == 1 else None


def _named(name: str) -> _Named | None:
    for pattern in _STEPS:
        matches = list(pattern.finditer(name))
        steps = {int(m[1]) * 10 ** _POWERS[m[2].lower()] for m in matches}
        if len(steps) == 1:
            step = steps.pop()
            return _Named(step, name[: matches[0].start()]) if step < 2**63 else None
        if steps:
            return None
    return None
