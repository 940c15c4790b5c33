"""The types of config fields: each refuses what it cannot mean, and says what is allowed."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from scaleinv_ray.config.described import described, purpose
from scaleinv_ray.inputs.paths import absolute, expanded, is_uri
from scaleinv_ray.inputs.wording import listed, nearest, shown
from scaleinv_ray.probes.corrupted import CORRUPTED
from scaleinv_ray.protocols import CircuitsProtocol

_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {
    "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip


def check_known(got: object, known: Collection[object], what: str, field: str = "") -> None:
    """Raises ValueError with the nearest known name where `got` is not known."""
    if got not in tuple(known):
        raise unknown(got, known, f"{field}: unknown {what}" if field else f"unknown {what}")


def unknown(got: object, known: Collection[object], what: str, root: Any = None) -> ValueError:
    """The error of a name that is not known, with the nearest one, or where a config has it.

    Args:
        root: the type of the whole config, None where that is not known.
    """
    hint = nearest(got, known) or elsewhere(got, root)
    return ValueError(f"{what} {shown(got, 60)}{hint}, allowed: {listed(known, got)}")


def elsewhere(key: object, root: Any) -> str:
    """'did you mean ..?' with the places of a config that have this key, else nothing.

    Args:
        key: of no meaning where it was found.
        root: the type of the whole config, None where that is not known.
    """
    found = [] if root is None else _places(TypeAdapter(root).json_schema(), str(key))
    places = [place if "." in place else f"{place} at the top" for place in found][:_FEW]
    return f" (did you mean {' or '.join(places)}?)" if places else ""


_FEW = 3


def _places(schema: Mapping[str, Any], key: str) -> Iterator[str]:
    """Dotted paths of the properties of a name, of a JSON schema; those of the top first."""
    shapes: deque[tuple[str, Any, int]] = deque([("", schema, 0)])
    seen = set()
    while shapes:
        path, shape, depth = shapes.popleft()
        if "$ref" in shape:
            shape = schema["$defs"][shape["$ref"].rpartition("/")[2]]
        for name, of in shape.get("properties", {}).items():
            if name == key and (place := f"{path}{name}") not in seen:
                seen.add(place)
                yield place
            if depth < _DEEPEST:
                shapes.append((f"{path}{name}.", of, depth + 1))
        for of in (*shape.get("anyOf", ()), *shape.get("oneOf", ())):
            shapes.append((path, of, depth))
        if "items" in shape:
            shapes.append((f"{path[:-1]}[].", shape["items"], depth))


_DEEPEST = 4


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError(f"got {shown(value)}, allowed: a number")
    return value


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _quantity(units: Mapping[str, float], example: str) -> Callable[[object], object]:
    def parse(value: object) -> object:
        if not isinstance(value, str):
            return _number(value)
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)", value.strip())
        if not found or found[2] not in units:
            raise ValueError(f"got {shown(value)}, allowed: {example}, in {', '.join(units)}")
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
        raise ValueError(f"got {shown(value)}, allowed: {allowed}")
    return tuple(sorted(distinct(value)))


def distinct(values: Sequence[Any]) -> Sequence[Any]:
    """The values; ValueError where one stands twice."""
    counts = Counter(map(str, values))
    if twice := sorted(v for v, n in counts.items() if n > 1):
        raise ValueError(f"got {', '.join(twice)} more than once, allowed: each once")
    return values


def placed(value: str, info: ValidationInfo) -> str:
    """Absolute where the folder of the config is known; a mapping's stay as they are, but for ~."""
    folder = (info.context or {}).get("folder")
    if folder is not None or is_uri(value):
        return absolute(value, folder or "")
    return str(expanded(value))


def _corpus(value: object, info: ValidationInfo) -> object:
    if value == STDLIB:
        return value
    paths = [value] if isinstance(value, str) else value
    if isinstance(paths, list | tuple) and paths and all(isinstance(p, str) and p for p in paths):
        return tuple(placed(path, info) for path in paths)
    raise ValueError(f"got {shown(value)}, allowed: {STDLIB!r}, or files and folders")


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError(
            f"got {shown(value)}, allowed: letters, digits, '.', '_', '-' (names a folder)"
        )
    if len(value) > LONGEST_NAME:
        raise ValueError(
            f"got {shown(value, 40)} of {len(value)} characters, allowed: {LONGEST_NAME}"
        )
    return value


STDLIB = "python-stdlib"
LARGEST = 10**15
"""Of a whole number without a bound of its own: more is a slip, and no column holds it."""
LONGEST_NAME = 100
Int = Annotated[int, Strict(), Field(ge=-LARGEST, le=LARGEST)]
Natural = Annotated[int, Strict(), Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Strict(), Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Bool = Annotated[bool, Strict()]
Float = Annotated[float, BeforeValidator(_number)]
Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(min_length=1)]
Place = Annotated[str, Field(min_length=1), AfterValidator(placed)]
StepList = Annotated[tuple[int, ...], BeforeValidator(step_list)]
Steps = Annotated[Literal["all", "last"] | tuple[int, ...], BeforeValidator(check_steps)]
Corpus = Annotated[
    Literal["python-stdlib"] | tuple[str, ...],
    BeforeValidator(_corpus, json_schema_input_type=Text | tuple[Text, ...]),
]
_LONGEST = 3650 * 86400
Seconds = Annotated[
    float,
    Field(gt=0, le=_LONGEST),
    BeforeValidator(
        _quantity(_TIMES, "seconds, or text like 30min"),
        json_schema_input_type=Annotated[float, Field(gt=0, le=_LONGEST)] | Text,
    ),
]
Bytes = Annotated[
    int,
    Field(gt=0, le=LARGEST),
    BeforeValidator(
        _quantity(_SIZES, "bytes, or text like 4GB"),
        json_schema_input_type=Annotated[int, Field(gt=0, le=LARGEST)] | Text,
    ),
]


class Options(BaseModel):
    """A frozen mapping of options; an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object, info: ValidationInfo) -> object:
        known = tuple(cls.model_fields)
        for key in data if isinstance(data, Mapping) else ():
            if key not in known:
                root = (info.context or {}).get("root")
                raise unknown(key, known, "unknown key", root)
        return data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, for editors and for the reference, with what the docstrings say."""
        made = handler(core_schema)
        own = handler.resolve_ref_schema(made)
        if "out" in own.get("required", ()):  # it follows from the name
            own["required"] = [name for name in own["required"] if name != "out"]
        own["description"] = purpose(cls)
        for name in own["properties"].keys() & described(cls).keys():
            own["properties"][name]["description"] = described(cls)[name]
        return made


def probes_in_pairs(asked: CircuitsProtocol, probes: Sequence[object]) -> tuple[str, ...]:
    """The probes named, or those of the run that can be corrupted."""
    own = tuple(p for p in probes if isinstance(p, str) and p in CORRUPTED)
    return asked.probes or own


def check_circuits(
    asked: CircuitsProtocol, probes: Sequence[object], names: Sequence[str], load: str
) -> None:
    """Refuses what no circuits can be measured of.

    Args:
        asked: the section.
        probes: of the run; texts and token files of one's own have no corruption.
        names: of all of them.
        load: how models are put into memory.

    Raises:
        ValueError: for an unknown probe, none that can be corrupted, or streamed models.
    """
    for probe in asked.probes:
        check_known(probe, CORRUPTED, "probe in pairs", "circuits.probes")
    if not probes_in_pairs(asked, probes):
        raise ValueError(
            f"circuits: got probes {', '.join(names)}, none can be corrupted; allowed "
            f"circuits.probes: {', '.join(CORRUPTED)}"
        )
    if load == "streamed":
        raise ValueError("cluster.load: got 'streamed' with circuits, allowed: resident, auto")


def check_parameter(where: str, value: object, hint: Any) -> None:
    """Raises ValueError where a parameter of an invariant is not of its type."""
    try:
        adapter = TypeAdapter[object](hint, config=ConfigDict(strict=True, allow_inf_nan=False))
        adapter.validate_json(json.dumps(value, default=str))  # as it is recorded with every row
    except ValidationError as error:
        allowed = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ValueError(f"{where}: got {shown(value)}, allowed: {allowed}") from error
