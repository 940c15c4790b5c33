"""The seam: what an invariant is, what it returns, and how it is found.

An invariant is one function of one record, of a pair of records of one kind (two models), or of the
trajectory of one record over the steps of a run. The decorator checks its signature, registers it
under `<module>.<function>` and returns it unchanged.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np

from scaleinv_ray.bounds import Range, check_parameters
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.inputs.html import table
from scaleinv_ray.inputs.wording import four_digits, shown
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.records import Record, WeightMatrix

Law = Literal["constant", "power_law", "integer", "none"]
Signature = Literal["one", "pair", "trajectory"]
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
        pooled: judged over all weights of the blocks together, at all depths: of a single matrix
            it scatters over seeds by more than any margin.
        nats: whether the value is in nats a token, which models with another tokenizer do not
            share. The mean over all predicted tokens can be had in nats a byte of their text;
            what is of single tokens, or of parameters by a token's loss, cannot.
        meaning: one line for a reader who does not know it: what it is with its unit, and after a
            semicolon how to read it. It labels axes up to there.
    """

    law: Law
    margin: float | None = None
    unit: float | None = None
    control: bool = False
    pooled: bool = False
    nats: Literal["no", "mean_per_token", "per_token"] = "no"
    meaning: str = ""


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

    def __post_init__(self) -> None:
        for name, got in self.values.items():
            if not isinstance(got, Estimate | Refused):
                raise TypeError(
                    f"values.{name}: got {shown(got, 60)}, allowed: an Estimate (exact(value), "
                    "unknown(value, n=..), mean_of(samples, ..)) or Refused(reason)"
                )

    def __repr__(self) -> str:
        said = [f"{name} {_said(value)}" for name, value in self.values.items()]
        return f"<Measured {', '.join([*said, *self._beside()])}>"

    def _repr_html_(self) -> str:
        rows = [
            (name, _said(value), getattr(value, "error_kind", None), getattr(value, "n", None))
            for name, value in self.values.items()
        ]
        return table(
            "Measured", ("quantity", "value", "error over", "n"), rows, ", ".join(self._beside())
        )

    def _beside(self) -> list[str]:
        """What there is beside the values."""
        held = {"curves": self.curves, "diagrams": self.diagrams}
        said = [f"{what}: {' '.join(names)}" for what, names in held.items() if names]
        return [*said, *(f"{name} = {four_digits(value)}" for name, value in self.flags.items())]


def _said(value: Estimate | Refused) -> str:
    return f"refused ({value})" if isinstance(value, Refused) else str(value)


@dataclass(frozen=True)
class Invariant:
    """A registered invariant.

    Attributes:
        name: `<family>.<function>`.
        family: module in which it lives.
        function: the function itself.
        record: class of record it reads.
        kind: kind of capture (a key of kinds.KINDS).
        quantities: what it returns, with the claims.
        curves: the curves it may return, each with what stands on its axes: y, a semicolon, x.
        symmetries: transformations of the record that leave the values unchanged.
        version: raised whenever the numbers change.
        parameters: keyword-only parameters with the values a plan uses by default.
        signature: of one record; of a pair, two models at the same place; of a trajectory, the
            sequence of one record over the steps of a run.
        bounds: of its parameters where they differ from `bounds.BOUNDS`.
        least: field of the protocol -> the least with which it has values.
    """

    name: str
    family: str
    function: Callable[..., Measured]
    record: type[Record]
    kind: str
    quantities: Mapping[str, Quantity]
    curves: Mapping[str, str]
    symmetries: tuple[str, ...]
    version: int
    parameters: Mapping[str, Any]
    signature: Signature = "one"
    bounds: Mapping[str, Range] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)

    def check(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError where a parameter, given or else planned, is outside its range."""
        check_parameters({**self.parameters, **given}, self.bounds)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]


_REGISTRY: dict[str, Invariant] = {}
REGISTRY: Mapping[str, Invariant] = MappingProxyType(_REGISTRY)
"""Name -> invariant; filled by importing `scaleinv_ray.invariants`."""


def _kind_of(record: type[Record], scheme: str | None) -> str:
    """The kind that has these records; kinds that share them are told apart by the scheme."""
    kinds = tuple(kind.name for kind in KINDS.values() if kind.record is record)
    if not kinds:
        raise TypeError(f"record: got {record.__name__}, which no kind of capture has")
    if len(kinds) == 1:
        if scheme is not None:
            raise TypeError(f"scheme: got {scheme!r}, {record.__name__} has no schemes")
        return kinds[0]
    if scheme not in kinds:
        raise TypeError(f"scheme: got {scheme!r}, allowed {kinds} for {record.__name__}")
    return scheme


def _records(function: Callable[..., Any]) -> tuple[type[Record], Signature]:
    """Class of the record or records read, and how many there are."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    read = [hints[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if len(read) not in {1, 2} or len(set(read)) != 1:
        raise TypeError(f"{function.__name__}: got records {read}, allowed one, or two of a kind")
    if len(read) == 1:
        if typing.get_origin(read[0]) is Sequence:
            return typing.get_args(read[0])[0], "trajectory"
        return read[0], "one"
    if read[0] is WeightMatrix:
        raise TypeError(f"{function.__name__}: weights of two models have no rows in common")
    return read[0], "pair"


def _family_of(module: str) -> str:
    """Module or package inside `invariants`; elsewhere (a notebook, a test) the module's name."""
    if module.startswith("scaleinv_ray.invariants."):
        return module.split(".")[2]
    return module.rsplit(".", 1)[-1].removeprefix("scaleinv_ray_plugin_")


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
    scheme: str | None = None,
    curves: Mapping[str, str] | Sequence[str] = (),
    planned: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Range] | None = None,
    least: Mapping[str, int] | None = None,
) -> Callable[[F], F]:
    """Registers a function of one record as an invariant and returns it unchanged.

    Args:
        quantities: every quantity it returns, with the law claimed in advance.
        symmetries: names out of `SYMMETRIES` under which all values are unchanged.
        version: raised whenever the numbers change.
        scheme: which kind of capture is read, where several have such records (clouds and
            streams, the operators of Lanczos).
        curves: names of the curves returned, each with what stands on its axes: y, a semicolon, x.
        planned: values that a plan gives to parameters without default (assumptions that a
            caller has to state).
        bounds: of parameters whose range is not that of their name in `bounds.BOUNDS`.
        least: fields of the protocol below which it is refused everywhere: a plan says so.

    Returns:
        The decorator.

    Raises:
        TypeError: where signature, scheme or symmetries break the contract.
    """
    unknown = set(symmetries) - set(SYMMETRIES)
    if unknown:
        raise TypeError(f"symmetries: got {sorted(unknown)}, allowed {SYMMETRIES}")

    def register(function: F) -> F:
        record, signature = _records(function)
        family = _family_of(function.__module__)
        name = f"{family}.{function.__name__}"
        held = _REGISTRY.get(name)
        if held is not None and held.function.__module__ != function.__module__:
            raise TypeError(
                f"{name}: got it twice, {held.function.__module__} has it too; "
                "allowed: another name of the file or the function"
            )
        _REGISTRY[name] = Invariant(
            name=name,
            family=family,
            function=function,
            record=record,
            kind=_kind_of(record, scheme),
            quantities=MappingProxyType(dict(quantities)),
            curves=MappingProxyType(
                dict(curves) if isinstance(curves, Mapping) else dict.fromkeys(curves, "")
            ),
            symmetries=symmetries,
            version=version,
            parameters=MappingProxyType(_parameters(function, planned or {})),
            signature=signature,
            bounds=MappingProxyType(dict(bounds or {})),
            least=MappingProxyType(dict(least or {})),
        )
        return function

    return register


def forget(modules: Collection[str]) -> None:
    """Takes the invariants that were defined in these modules out of the registry."""
    gone = [n for n, spec in _REGISTRY.items() if spec.function.__module__ in modules]
    for name in gone:
        del _REGISTRY[name]


def markdown_table() -> str:
    """The registry as a Markdown table: name, capture, quantities with law, symmetries, summary."""
    lines = [
        "| invariant | reads | quantities (law claimed in advance) | symmetries | what it is |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(_REGISTRY):
        spec = _REGISTRY[name]
        of = {"one": "", "pair": "pairs of ", "trajectory": "trajectories of "}[spec.signature]
        reads = f"{of}{spec.kind}"
        quantities = ", ".join(f"{q} ({v.law})" for q, v in spec.quantities.items())
        symmetries = ", ".join(spec.symmetries) or "-"
        lines.append(f"| `{name}` | {reads} | {quantities} | {symmetries} | {spec.summary} |")
    return "\n".join(lines)
