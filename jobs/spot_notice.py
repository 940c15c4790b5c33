"""Tells Ray when AWS takes a spot instance away; cluster.yaml starts it on every worker.

The node then gets no new work, and what it has is mostly done when it goes two minutes later.
"""

import os
from functools import partial

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before ray is imported

import typer

from scaleinv_ray.cluster.nodes.spot_notice import METADATA, pass_on
from scaleinv_ray.entry import enter


def main(
    metadata: str = METADATA, node: str | None = None, every: float = 5.0, address: str = "auto"
) -> None:
    """Ends when the notice has come and Ray has it."""
    pass_on(metadata=metadata, node=node, every=every, address=address)


if __name__ == "__main__":
    enter(partial(typer.run, main))
