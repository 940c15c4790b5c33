"""What workers need is there before anything starts: models of the files, sources of plugins."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from scaleinv_ray.checkpoints import Checkpoint, config_folder, read_tensors
from scaleinv_ray.checkpoints.files.needed import Needed, check_tensors, needed_of
from scaleinv_ray.checkpoints.weights.whole import code_named
from scaleinv_ray.config import RunConfig
from scaleinv_ray.inputs.wording import listed
from scaleinv_ray.plan import Measurement, Plan
from scaleinv_ray.plugins.loading import brought_by, plugin_of
from scaleinv_ray.store import Store


def check_models(measurements: Iterable[Measurement], trusted: Collection[str]) -> None:
    """Refuses checkpoints of which no model can be made; costs seconds where there are captures.

    Args:
        measurements: that are to be made.
        trusted: names of models whose own code may run; it is run where they are loaded, not here.

    Raises:
        ValueError: naming the checkpoint, and what its class says of its files.
    """
    built = [
        (c, config_folder(c))
        for c in _captured(measurements)
        if not (c.model in trusted and code_named(config_folder(c)))
    ]
    folders = {c.config_digest: folder for c, folder in reversed(built)}
    needed = dict(zip(folders, _needed([*folders.values()]), strict=True)) if folders else {}
    for c, _ in built:
        try:
            if isinstance(needs := needed[c.config_digest], str):
                raise ValueError(needs)
            if c.folder is not None:  # of a hub's files the sizes alone are known
                check_tensors(c.folder, read_tensors(c.folder), needs)
        except ValueError as error:
            raise ValueError(f"models: {error}; weights alone can be measured") from error


def _needed(folders: list[Path]) -> list[Needed | str]:
    if "torch" not in sys.modules:
        return needed_of(folders)
    from scaleinv_ray.checkpoints.weights.fits import answers

    return answers(folders)


def keep_sources(store: Store, plan: Plan) -> None:
    """Writes the source of invariants from outside beside their numbers.

    Args:
        store: of the run; each version has a folder of its own, named by its digest.
        plan: of the run.
    """
    used = (plugin_of(name) for name in {m.invariant: None for m in plan.measurements})
    for digest, files in {of.digest: of.files for of in used if of is not None}.items():
        for file, text in files.items():
            if not store.exists(name := f"plugins/{digest}/{file}"):
                store.write_bytes(name, text.encode())


def idle_plugins(config: RunConfig) -> list[str]:
    """A line for each plugin of a config whose invariants the config does not ask for."""
    chosen = config.chosen_invariants()
    brought = {given: brought_by(given) for given in config.plugins}
    return [
        f"{given.rpartition('/')[2]}: nothing of it is measured; add {listed(names, '')} to "
        "invariants"
        for given, names in brought.items()
        if not chosen.keys() & set(names)
    ]


def _captured(measurements: Iterable[Measurement]) -> list[Checkpoint]:
    """Each checkpoint once that a live model is made of, in the order of the plan."""
    found = {
        unit.checkpoint.where: unit.checkpoint
        for m in measurements
        if m.probe is not None
        for unit, _ in m.readings
        if not unit.checkpoint.captures
    }
    return [*found.values()]
