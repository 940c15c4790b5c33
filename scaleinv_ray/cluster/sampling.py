"""Chains of one posterior over Ray actors, each with some of the settings.

Shape suffixes: N settings (nbeta, gamma).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleinv_ray.cluster.session import ray
from scaleinv_ray.records import Chains

if TYPE_CHECKING:
    from scaleinv_ray.capture.curvature.products import Parameters
    from scaleinv_ray.capture.posterior.loss import Losses

Make = Callable[[], "tuple[Losses, Parameters, Any]"]
"""Gives the losses of samples, all parameters and the data."""
SCOUT = {"num_dispersed": 0, "num_steps": 1, "burn_in": 0}
"""Chains that only find the settings."""


class ChainWorker:
    """Holds a loss with its data; `ChainActor` is this class as an actor."""

    def __init__(self, make: Make, *, num_threads: int = 1) -> None:
        """Makes the loss where it is used: a model is loaded here, not sent.

        Args:
            make: the losses, all their parameters and the data.
            num_threads: of torch.
        """
        import torch

        torch.set_num_threads(num_threads)
        self._made = make()

    def chains(self, seed: int, asked: Mapping[str, Any]) -> Chains:
        """The record of `capture.sampling.chain_records`.

        Args:
            seed: of everything.
            asked: its other arguments, without blocks or with one.

        Returns:
            The record.
        """
        import torch

        from scaleinv_ray.capture.posterior.chains import chain_records

        generator = torch.Generator().manual_seed(seed)
        (found,) = chain_records(*self._made, generator=generator, **asked)
        return found


ChainActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(ChainWorker)


def sharded_chains(
    make: Make, *, num_workers: int, seed: int, num_gpus: float = 0.0, **asked: Any
) -> Chains:
    """Chains as `capture.sampling.chain_records` draws them, their settings spread over actors.

    One actor finds the ladder, localisers and steps; then each samples its share of the settings,
    with all their chains (which share an adapted step), and the shares are put together.

    Args:
        make: gives losses, parameters and data; is called once in every actor.
        num_workers: actors, of which no more are used than there are settings.
        seed: of everything.
        num_gpus: of an actor.
        asked: further arguments of `chain_records`; of `blocks` at most one.

    Returns:
        One record with all settings, in the order of `chain_records`.

    Raises:
        ValueError: for fewer than one worker, several blocks, or a preconditioner (every actor
            would warm up one of its own), and as `chain_records`.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers: got {num_workers}, allowed 1 or more")
    if asked.get("sampler") == "rmsprop_sgld":
        raise ValueError("sampler: got 'rmsprop_sgld', allowed sgld, sgld_cv, mala over actors")
    if len(asked.get("blocks") or [None]) != 1:
        raise ValueError(f"blocks: got {list(asked['blocks'])}, allowed one at a time")
    start = ChainActor.options(num_cpus=1, num_gpus=num_gpus)
    actors = [start.remote(make) for _ in range(num_workers)]
    try:
        scouted = ray.get(actors[0].chains.remote(seed, {**asked, **SCOUT}))
        shares = np.array_split(np.arange(len(scouted.nbeta_N)), num_workers)
        calls = [
            actor.chains.remote(seed + 1 + at, {**asked, **_part(scouted, share_N)})
            for at, (actor, share_N) in enumerate(zip(actors, shares, strict=True))
            if len(share_N)
        ]
        return joined(ray.get(calls))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    finally:
        for actor in actors:
            ray.kill(actor)


def joined(parts: Sequence[Chains]) -> Chains:
    """One record of the settings of all parts.

    Args:
        parts: of the same chains, data and start.

    Returns:
        Arrays over settings in the order of the parts; curvatures and noise are the outermost seen.
    """

    def together(name: str) -> np.ndarray | None:
        values = [getattr(part, name) for part in parts]
        if values[0] is None or name == "dispersed_C":
            return values[0]
        return np.concatenate(values, axis=1 if name == "observed_QNCS" else 0)

    arrays: dict[str, Any] = {name: together(name) for name in Chains.arrays}
    return replace(
        parts[0],
        **arrays,
        largest_curvature=max(p.largest_curvature or 0.0 for p in parts),
        lowest_curvature=min(p.lowest_curvature or 0.0 for p in parts),
        gradient_noise=max(p.gradient_noise or 0.0 for p in parts),
        restored=all(p.restored for p in parts),
    )


def _part(scouted: Chains, share_N: np.ndarray) -> dict[str, Any]:
    """The arguments that give some of the settings."""
    chosen = {"nbetas": scouted.nbeta_N, "gammas": scouted.gamma_N, "steps": scouted.step_N}
    return {name: v[share_N].tolist() for name, v in chosen.items()} | {"gamma_factors": [1.0]}
