"""The types of config fields: each refuses what it cannot mean, and says what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    model_validator,
)

_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def _nearest(got: object, known: Collection[str]) -> str:
    close = difflib.get_close_matches(str(got), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_known(got: object, known: Collection[str], what: str) -> None:
    """Raises ValueError with the nearest known name where `got` is not known."""
    if got not in known:
        allowed = ", ".join(map(str, known)) or "none"
        raise ValueError(f"unknown {what} {got!r}{_nearest(got, known)}, allowed: {allowed}")


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"got {value}, allowed: a number")
    return value


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _quantity(units: Mapping[str, float], example: str) -> Callable[[object], object]:
    def parse(value: object) -> object:
        if not isinstance(value, str):
            return _number(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", value.strip())
        if not found or found[2] not in units:
            raise ValueError(f"got {value!r}, allowed: {example}, in {', '.join(units)}")
        return float(found[1]) * units[found[2]]

    return parse


def check_steps(value: object) -> object:
    """'all', 'last', or distinct steps in any order."""
    if isinstance(value, str) and value in {"all", "last"}:
        return value
    return step_list(value, "'all', 'last' or a list of integers >= 0")


def step_list(value: object, allowed: str = "a list of integers >= 0") -> tuple[int, ...]:
    """Distinct steps, sorted; ValueError where they are none."""
    if not isinstance(value, list | tuple) or not value or not all(_is_step(v) for v in value):
        raise ValueError(f"got {value!r}, allowed: {allowed}")
    return tuple(sorted(distinct(value)))


def distinct(values: Sequence[Any]) -> Sequence[Any]:
    """The values; ValueError where one stands twice."""
    if twice := sorted({str(v) for v in values if list(values).count(v) > 1}):
        raise ValueError(f"got {', '.join(twice)} more than once, allowed: each once")
    return values


def _corpus(value: object) -> object:
    return (value,) if isinstance(value, str) and value != "python-stdlib" else value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError(f"got {value!r}, allowed: letters, digits, '.', '_', '-' (names a folder)")
    return value


Int = Annotated[int, Strict()]
Natural = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Float = Annotated[float, BeforeValidator(_number)]
Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(min_length=1)]
StepList = Annotated[tuple[int, ...], BeforeValidator(step_list)]
Steps = Annotated[Literal["all", "last"] | tuple[int, ...], BeforeValidator(check_steps)]
Corpus = Annotated[
    Literal["python-stdlib"] | Annotated[tuple[Text, ...], Field(min_length=1)],
    BeforeValidator(_corpus),
]
Seconds = Annotated[
    float, BeforeValidator(_quantity(_TIMES, "seconds, or text like 30min")), Field(gt=0)
]
Bytes = Annotated[int, BeforeValidator(_quantity(_SIZES, "bytes, or text like 4GB")), Field(gt=0)]


class Options(BaseModel):
    """A frozen mapping of options; an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object) -> object:
        if isinstance(data, Mapping):
            for key in data:
                check_known(key, tuple(cls.model_fields), "key")
        return data
