"""What workers need is there before anything starts: models of the files, sources of plugins."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from scaleinv_ray.checkpoints import Checkpoint, config_folder, read_tensors
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
    checkpoints = _captured(measurements)
    if not checkpoints:
        return
    # seconds, and a plan of weights alone does without
    from scaleinv_ray.checkpoints.weights.fits import Needed, check_tensors, needed_by
    from scaleinv_ray.checkpoints.weights.whole import code_named

    needed: dict[str, Needed] = {}
    for c in checkpoints:
        folder = config_folder(c)
        if c.model in trusted and code_named(folder):
            continue
        try:
            if c.config_digest not in needed:
                needed[c.config_digest] = needed_by(folder)
            if c.folder is not None:  # of a hub's files the sizes alone are known
                check_tensors(c.folder, read_tensors(c.folder), needed[c.config_digest])
        except ValueError as error:
            raise ValueError(f"models: {error}; weights alone can be measured") from error


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
