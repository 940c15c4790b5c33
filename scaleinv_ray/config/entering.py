"""How a frozen dataclass of the words enters a config: its fields, with their ranges, are checked.

The dataclass is the one definition: names, defaults and `Annotated[int, Range(..)]` are read off
it, and what it refuses itself (fields that do not fit each other) is refused here too.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, Strict, create_model
from pydantic_core import core_schema

from scaleinv_ray.bounds import Range
from scaleinv_ray.config.fields import LARGEST, Bool, Float, Int, Options, Text, distinct


class _Entering:
    """Tells pydantic how a mapping becomes the dataclass, and how it is written again."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        options = options_of(source)
        schema = handler.generate_schema(options)

        def given(value: object) -> object:
            return dataclasses.asdict(value) if isinstance(value, source) else value

        def made(checked: Options) -> object:
            return source(**dict(checked))

        def written(value: Any) -> Options:
            return options.model_construct(**vars(value))

        return core_schema.no_info_after_validator_function(
            made,
            core_schema.no_info_before_validator_function(given, schema),
            serialization=core_schema.plain_serializer_function_ser_schema(
                written, return_schema=schema
            ),
        )


T = TypeVar("T")
Entered = Annotated[T, _Entering()]
AUTO = "auto"


def without_auto(value: Any) -> Any:
    """A mapping without the fields that say 'auto': the same as not to name them."""
    if value == AUTO:
        return {}
    return {k: v for k, v in value.items() if v != AUTO} if isinstance(value, Mapping) else value


@cache
def options_of(source: Any) -> type[Options]:
    """What a user may write for a dataclass.

    Args:
        source: the dataclass, every field with a default.

    Returns:
        The model with its fields.
    """
    return _model(source, lambda of: of)


@cache
def or_auto(source: Any) -> type[Options]:
    """The same where each field may say `auto`, for the schema; `without_auto` reads it.

    Args:
        source: as of `options_of`.

    Returns:
        The model, under the same name.
    """
    return _model(source, lambda of: typing.Union[of, typing.Literal["auto"]])  # noqa: UP007


def _model(source: Any, of: Callable[[Any], Any]) -> type[Options]:
    hints = typing.get_type_hints(source, include_extras=True)
    fields: dict[str, Any] = {
        f.name: (of(_checked(hints[f.name])), f.default) for f in dataclasses.fields(source)
    }
    return create_model(source.__name__, __base__=Options, __doc__=source.__doc__, **fields)


def _checked(hint: Any) -> Any:
    """A type as configs check it: no number is a text or a truth value, no name stands twice."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _whole_number(*args)
    if origin is types.UnionType or origin is typing.Union:
        return typing.Union[tuple(_checked(arg) for arg in args)]  # noqa: UP007
    if origin is tuple:
        several: Any = types.GenericAlias(tuple, (_checked(args[0]), ...))
        return Annotated[several, AfterValidator(distinct)] if args[0] is str else several
    return {bool: Bool, int: Int, float: Float, str: Text}.get(hint, hint)


def _whole_number(_: type[int], within: Range) -> Any:
    least: Any = within.least
    most: Any = LARGEST if within.most is None else within.most
    return Annotated[int, Strict(), Field(ge=least, le=most)]
