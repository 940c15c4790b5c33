"""Germs of programs as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypedDict

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.programs.corner import Germ, germ, labels
from scaleinv_ray.singularities.programs.functions import name_of
from scaleinv_ray.singularities.programs.machine import Program, run


class Item(NamedTuple):
    """A program to be looked at, and what is written beside its germ."""

    machine: str
    space: str
    name: str
    program: Program
    accepting: tuple[int, ...]
    num_symbols: int
    inputs: tuple[tuple[int, ...], ...]
    functions: tuple[str, ...] | None
    """Names of those kept; None: all that have a name, and of a single program any."""
    is_single: bool


class ProgramRow(TypedDict):
    """A program as a corner of its space of noisy codes."""

    machine: Annotated[str, "automaton, turing, circuit or transformer"]
    space: Annotated[str, "space of codes: coefficients are compared inside one only"]
    program: Annotated[str, "name of the program"]
    function: Annotated[str, "what it computes: a name, or its outputs"]
    chosen: Annotated[list[int], "right outcome of every rule"]
    accepting: Annotated[list[int], "accepting states"]
    num_symbols: Annotated[int | None, "symbols of an automaton"]
    how: Annotated[str, "exact, or estimated by a sampler"]
    lambda_log: Annotated[float | None, "coefficient under log loss"]
    lambda_log_stderr: Annotated[float | None, "of an estimate; null where it is exact"]
    verdict: Annotated[str | None, "of the sampler on an estimate: ok, warn or reject"]
    curved: Annotated[float | None, "what curvature alone gives where the estimate is made"]
    at_least: Annotated[
        float | None, "half the rank of the outputs' derivative: least in the limit"
    ]
    lambda_log_exact: Annotated[str | None, "the same as a fraction"]
    lambda_squared: Annotated[float | None, "coefficient under squared loss"]
    multiplicity: Annotated[int | None, "order of the pole"]
    num_variables: Annotated[int | None, "wrong outcomes of all rules; weights of a transformer"]
    order: Annotated[int | None, "k of P(wrong) ~ c eta^k"]
    constant: Annotated[float | None, "c, where every wrong outcome has probability eta"]
    num_linear: Annotated[int | None, "wrong outcomes that alone change an output"]
    num_free: Annotated[int | None, "wrong outcomes in no generator"]
    generators: Annotated[list[str], "minimal syndromes; r1o0 is outcome 0 of rule 1"]
    paths: Annotated[list[float], "of each, error paths a sample: its coefficient in K"]
    reason: Annotated[str | None, "why there is no coefficient, or it is in doubt"]


def program_rows(items: Sequence[Item]) -> list[ProgramRow]:
    """Rows of the programs whose function is asked for.

    Args:
        items: programs.

    Returns:
        At most one row each, in their order.
    """
    return [row for item in items if (row := _row(item)) is not None]


def _row(item: Item) -> ProgramRow | None:
    outputs = [run(item.program, given) for given in item.inputs]
    named = name_of(outputs, item.inputs) if item.machine == "automaton" else None
    if not item.is_single and (named is None or named not in (item.functions or (named,))):
        return None
    row: ProgramRow = {
        "machine": item.machine,
        "space": item.space,
        "program": item.name,
        "function": named or spelled(outputs),
        "chosen": list(item.program.chosen),
        "accepting": list(item.accepting),
        "num_symbols": item.num_symbols or None,
        "how": "exact",
        **EMPTY,  # type: ignore[typeddict-item]
    }
    try:
        found = germ(item.program, item.inputs)
    except Refused as refusal:
        return {**row, "reason": str(refusal)}
    return _with_germ(row, found, item.program)


EMPTY: dict[str, Any] = {
    "lambda_log": None, "lambda_log_stderr": None, "verdict": None, "curved": None,
    "at_least": None,
    "lambda_log_exact": None, "lambda_squared": None, "multiplicity": None,
    "num_variables": None, "order": None, "constant": None, "num_linear": None, "num_free": None,
    "generators": [], "paths": [], "reason": None,
}  # fmt: skip


def _with_germ(row: ProgramRow, found: Germ, program: Program) -> ProgramRow:
    names = [f"r{rule}o{outcome}" for rule, outcome in labels(program)]
    return {
        **row,
        "lambda_log": float(found.log_loss.llc),
        "lambda_log_exact": str(found.log_loss.llc),
        "lambda_squared": float(found.squared_loss.llc),
        "multiplicity": found.log_loss.multiplicity,
        "num_variables": found.num_variables,
        "order": found.order,
        "constant": float(found.constant),
        "num_linear": found.num_linear,
        "num_free": found.num_free,
        "generators": [" ".join(names[i] for i in s) for s in found.generators],
        "paths": list(map(float, found.paths)),
    }


def spelled(outputs: Sequence[object]) -> str:
    """Outputs one behind the other, in the order of the inputs."""
    bits = (o if isinstance(o, tuple) else (int(bool(o)),) for o in outputs)
    return " ".join("".join(map(str, b)) for b in bits)
