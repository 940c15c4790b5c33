"""The seam: what an invariant is, what it returns, and how it is found.

An invariant is one function of one record, or of a pair of records of one kind (two models). The
decorator checks its signature, registers it under `<module>.<function>` and returns it unchanged.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np

from scaleinv_ray.estimate import Estimate
from scaleinv_ray.records import Activations, Record, WeightMatrix

Law = Literal["constant", "power_law", "integer", "none"]
SYMMETRIES: tuple[str, ...] = (
    "rotation",  # x -> x Q, Q orthogonal (weights: w -> P w Q; Jacobians: Q j Q^T)
    "scale",  # x -> c x, c > 0
    "translation",  # x -> x + v, the same v in every row
    "mean_shift",  # LayerNorm models: x -> x + c_t (1, .., 1), a c for every row
    "permutation",  # x -> x[:, p]: units renamed (weights: rows and columns)
    "unit_rescaling",  # x_i -> c_i x_i with c_i > 0, each unit by its own factor
    "transpose",  # w -> w^T
    "row_order",  # rows (points) renamed
    "similarity",  # Jacobians: j -> S j S^-1
)
F = TypeVar("F", bound=Callable[..., Any])


class Refused(ValueError):
    """An invariant cannot honestly be had from this record; the reason becomes a row."""


@dataclass(frozen=True)
class Quantity:
    """What is claimed of a quantity in advance.

    Attributes:
        law: the scaling law claimed over model size.
        margin: relative change that still counts as conserved; None takes the run's.
        unit: scale against which differences are judged where the quantity may vanish or change
            sign (None: differences of ln|value|).
        control: measured to be read beside another quantity (a null model's value, a rotated
            basis), not a finding of its own.
    """

    law: Law
    margin: float | None = None
    unit: float | None = None
    control: bool = False


@dataclass(frozen=True)
class Curve:
    """A function on a grid: x, y, and the standard error of y (None: unknown), all 1-d."""

    x: np.ndarray
    y: np.ndarray
    y_stderr: np.ndarray | None = None


@dataclass(frozen=True)
class Diagram:
    """A persistence diagram: homology dimension, birth and death of every bar, all 1-d."""

    dimension: np.ndarray
    birth: np.ndarray
    death: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What an invariant returns.

    Attributes:
        values: an estimate for every declared quantity, or the refusal of that quantity.
        curves: named curves.
        diagrams: named persistence diagrams.
        flags: name -> number or text that qualifies the values (n_tail, warnings).
    """

    values: Mapping[str, Estimate | Refused]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    diagrams: Mapping[str, Diagram] = field(default_factory=dict)
    flags: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Invariant:
    """A registered invariant.

    Attributes:
        name: `<family>.<function>`.
        family: module in which it lives.
        function: the function itself.
        record: class of record it reads.
        kind: kind of capture (a key of records.KINDS).
        quantities: what it returns, with the claims.
        curves: names of the curves it may return.
        symmetries: transformations of the record that leave the values unchanged.
        version: raised whenever the numbers change.
        parameters: keyword-only parameters with the values a plan uses by default.
        paired: whether it takes two records, of two models at the same place.
    """

    name: str
    family: str
    function: Callable[..., Measured]
    record: type[Record]
    kind: str
    quantities: Mapping[str, Quantity]
    curves: tuple[str, ...]
    symmetries: tuple[str, ...]
    version: int
    parameters: Mapping[str, Any]
    paired: bool = False

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]


_REGISTRY: dict[str, Invariant] = {}
REGISTRY: Mapping[str, Invariant] = MappingProxyType(_REGISTRY)
"""Name -> invariant; filled by importing `scaleinv_ray.invariants`."""

_KIND_OF: dict[str, str] = {
    "WeightMatrix": "weights",
    "Moments": "moments",
    "DepthStack": "depth_stack",
    "Attention": "attention",
    "Jacobians": "jacobians",
    "TokenLosses": "token_losses",
}


def _kind_of(record: type[Record], scheme: str | None) -> str:
    if record is Activations:
        if scheme not in {"cloud", "stream"}:
            raise TypeError(f"scheme: got {scheme!r}, allowed 'cloud', 'stream' for Activations")
        return scheme
    if scheme is not None:
        raise TypeError(f"scheme: got {scheme!r}, {record.__name__} has no schemes")
    return _KIND_OF[record.__name__]


def _records(function: Callable[..., Any]) -> tuple[type[Record], bool]:
    """Class of the record or records read, and whether there are two."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    read = [hints[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if len(read) not in {1, 2} or len(set(read)) != 1:
        raise TypeError(f"{function.__name__}: got records {read}, allowed one, or two of a kind")
    if len(read) == 2 and read[0] is WeightMatrix:
        raise TypeError(f"{function.__name__}: weights of two models have no rows in common")
    return read[0], len(read) == 2


def _parameters(function: Callable[..., Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(function)
    keyword_only = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    if "rng" not in {p.name for p in keyword_only}:
        raise TypeError(f"{function.__name__}: needs a keyword-only 'rng: np.random.Generator'")
    values: dict[str, Any] = {}
    for parameter in keyword_only:
        if parameter.name == "rng":
            continue
        if parameter.name in planned:
            values[parameter.name] = planned[parameter.name]
        elif parameter.default is not parameter.empty:
            values[parameter.name] = parameter.default
        else:
            raise TypeError(f"{function.__name__}: {parameter.name} has neither default nor plan")
    json.dumps(values)  # recorded with every row
    return values


def invariant(
    *,
    quantities: Mapping[str, Quantity],
    symmetries: tuple[str, ...] = (),
    version: int = 1,
    scheme: Literal["cloud", "stream"] | None = None,
    curves: tuple[str, ...] = (),
    planned: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Registers a function of one record as an invariant and returns it unchanged.

    Args:
        quantities: every quantity it returns, with the law claimed in advance.
        symmetries: names out of `SYMMETRIES` under which all values are unchanged.
        version: raised whenever the numbers change.
        scheme: which sampling of Activations is read.
        curves: names of the curves returned.
        planned: values that a plan gives to parameters without default (assumptions that a
            caller has to state).

    Returns:
        The decorator.

    Raises:
        TypeError: where signature, scheme or symmetries break the contract.
    """
    unknown = set(symmetries) - set(SYMMETRIES)
    if unknown:
        raise TypeError(f"symmetries: got {sorted(unknown)}, allowed {SYMMETRIES}")

    def register(function: F) -> F:
        record, paired = _records(function)
        family = function.__module__.rsplit(".", 1)[-1]
        name = f"{family}.{function.__name__}"
        _REGISTRY[name] = Invariant(
            name=name,
            family=family,
            function=function,
            record=record,
            kind=_kind_of(record, scheme),
            quantities=MappingProxyType(dict(quantities)),
            curves=curves,
            symmetries=symmetries,
            version=version,
            parameters=MappingProxyType(_parameters(function, planned or {})),
            paired=paired,
        )
        return function

    return register


def markdown_table() -> str:
    """The registry as a Markdown table: name, capture, quantities with law, symmetries, summary."""
    lines = [
        "| invariant | reads | quantities (law claimed in advance) | symmetries | what it is |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(_REGISTRY):
        spec = _REGISTRY[name]
        reads = f"pairs of {spec.kind}" if spec.paired else spec.kind
        quantities = ", ".join(f"{q} ({v.law})" for q, v in spec.quantities.items())
        symmetries = ", ".join(spec.symmetries) or "-"
        lines.append(f"| `{name}` | {reads} | {quantities} | {symmetries} | {spec.summary} |")
    return "\n".join(lines)
