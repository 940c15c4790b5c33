"""Germs of many programs: Ray tasks where there are enough of them to be worth a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scaleinv_ray.singularities.programs.rows import Item, ProgramRow, program_rows

CHUNK = 250
"""Programs of a task: some seconds."""
FEW = 4000
"""Up to as many, the driver is done before Ray has started."""


def rows_of(items: Sequence[Item], *, address: str | None) -> list[ProgramRow]:
    """Rows of all programs, in their order.

    Args:
        address: of a Ray cluster; None embeds Ray, where the programs are many.
    """
    if len(items) <= FEW and address is None:
        return program_rows(items)
    from scaleinv_ray.cluster.session import connected, ray

    with connected(address):
        task: Any = ray.remote(num_cpus=1, max_retries=3)(program_rows)
        chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
        return [row for rows in ray.get([task.remote(c) for c in chunks]) for row in rows]
