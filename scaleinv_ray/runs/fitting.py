"""Models that captures are planned of: that they can be built is seen before anything starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from scaleinv_ray.checkpoints import Checkpoint, config_folder, read_tensors
from scaleinv_ray.plan import Measurement


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
