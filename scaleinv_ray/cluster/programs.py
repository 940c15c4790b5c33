"""Germs of many programs: Ray tasks where there are enough of them to be worth a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from scaleinv_ray.singularities.programs import name_of, words
from scaleinv_ray.singularities.programs.rows import EMPTY, Item, ProgramRow, program_rows, spelled

CHUNK = 250
"""Programs of a task: some seconds."""
FEW = 4000
"""Up to as many, the driver is done before Ray has started."""


class Transformer(NamedTuple):
    """A compiled transformer whose coefficient is estimated.

    Attributes:
        name: that a reader sees.
        program: a key of `circuitry.compiled.coefficient.DECIDE`.
        longest: length of its words.
        seed: of the chains.
    """

    name: str
    program: str
    longest: int
    seed: int


def rows_of(items: Sequence[Item], *, address: str | None) -> list[ProgramRow]:
    """Rows of all programs, in their order.

    Args:
        address: of a Ray cluster; None embeds Ray, where the programs are many.
    """
    if len(items) <= FEW and address is None:
        return program_rows(items)
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    return [row for rows in _by_tasks(program_rows, chunks, address) for row in rows]


def estimated_rows(asked: Sequence[Transformer], *, address: str | None) -> list[ProgramRow]:
    """Rows of compiled transformers, a task each where there is a cluster.

    Args:
        address: of a Ray cluster; None samples in the driver.
    """
    if address is None or not asked:
        return list(map(_estimated, asked))
    return _by_tasks(_estimated, asked, address)


def _by_tasks(function: Callable[[Any], Any], given: Sequence[Any], address: str | None) -> Any:
    from scaleinv_ray.cluster.session import connected, ray

    with connected(address):
        task: Any = ray.remote(num_cpus=1, max_retries=3)(function)
        return ray.get([task.remote(one) for one in given])


def _estimated(asked: Transformer) -> ProgramRow:
    from scaleinv_ray.circuitry.compiled.coefficient import estimate  # torch

    found = estimate(asked.program, longest=asked.longest, seed=asked.seed)
    inputs = words(2, asked.longest)
    row: dict[str, Any] = EMPTY | {
        "machine": "transformer",
        "space": f"weights of a transformer: {found.num_parameters}",
        "program": asked.name,
        "function": name_of(found.outputs, inputs) or spelled(found.outputs),
        "chosen": [],
        "accepting": [],
        "num_symbols": 2,
        "how": "estimated",
        "lambda_log": found.llc,
        "lambda_log_stderr": found.stderr,
        "verdict": found.verdict,
        "curved": found.curved,
        "at_least": found.rank / 2,
        "num_variables": found.num_parameters,
        "reason": found.reason,
    }
    return cast(ProgramRow, row)
