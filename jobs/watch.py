"""Examines checkpoints as they come: ray job submit -- python jobs/watch.py CONFIG FOLDER.

FOLDER may be a bucket (s3://bucket/prefix). A checkpoint that is still being written is left alone
until it is whole.
"""

import os
from functools import partial

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before ray is imported

import typer

from scaleinv_ray.entry import enter
from scaleinv_ray.runs.watch import SETTLED_S, watch


def main(
    config: str,
    uri: str,
    every: float = 60.0,
    rounds: int | None = None,
    settled: float = SETTLED_S,
    address: str = "auto",
) -> None:
    """Prints what came of each look that found something new."""
    looks = watch(config, uri, every=every, rounds=rounds, settled_s=settled, address=address)
    for outcome in looks:
        done = outcome if isinstance(outcome, str) else f"{outcome.computed} measurements made"
        typer.echo(done)


if __name__ == "__main__":
    enter(partial(typer.run, main))
