"""Measures what is missing of one series or more: ray job submit -- python jobs/sweep.py CONFIG..

Made for cron and RayCronJob: checkpoints that are new are measured, a series that another sweep is
still at is left to it, and where nothing is missing nothing happens.
"""

import os
import sys
from functools import partial

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before ray is imported

import typer

from scaleinv_ray.entry import enter
from scaleinv_ray.runs.sweep import sweep


def main(configs: list[str], address: str = "auto") -> None:
    """Prints what came of each series; exit code 3 where something failed."""
    found = sweep(configs, address=address)
    for config, outcome in found.items():
        typer.echo(f"{config}: {outcome}")
    sys.exit(3 if any(o.startswith("error") for o in found.values()) else 0)


if __name__ == "__main__":
    enter(partial(typer.run, main))
