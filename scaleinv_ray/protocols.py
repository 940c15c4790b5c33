"""How curvature and learning coefficients are captured where a run asks for them.

Both cost many times a forward pass, so a run makes them only where its config has the section.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

BLOCKS: tuple[str, ...] = ("model", "layer", "attention", "mlp", "embedding")
"""Sets of parameters: all of them, those of each block, its attention, its MLP, the embedding."""
Sampler = Literal["sgld", "rmsprop_sgld", "sgld_cv", "mala"]
SAMPLERS: tuple[Sampler, ...] = ("sgld", "rmsprop_sgld", "sgld_cv", "mala")


def digest_of(protocol: Any) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON of all fields of a dataclass."""
    text = json.dumps(dataclasses.asdict(protocol), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CurvatureProtocol:
    """Densities of states of Hessian and Gauss-Newton operator by Lanczos quadrature.

    Attributes:
        sequences: of the probe, the first ones, over which the loss is a mean.
        batch: sequences whose graph is held at one time; a divisor of `sequences`, None for all.
        num_steps: Lanczos steps.
        num_probes: probe vectors, the replicates of every error.
        blocks: out of `BLOCKS`; each operator is that of the restricted parameters.
        sketch: buckets of the count sketches of Ritz vectors, by which bands are followed over
            training; 0 keeps none, and then no basis (memory of 3 probe vectors alone).
    """

    sequences: int = 32
    batch: int | None = None
    num_steps: int = 40
    num_probes: int = 4
    blocks: tuple[str, ...] = ("model",)
    sketch: int = 1024

    def __post_init__(self) -> None:
        _positive(self, "curvature", "sequences", "num_steps", "num_probes")
        _check_blocks("curvature", self.blocks)
        if self.batch is not None and not 1 <= self.batch <= self.sequences:
            raise ValueError(
                f"curvature.batch: got {self.batch}, allowed 1..{self.sequences} (sequences)"
            )
        if self.batch is not None and self.sequences % self.batch:
            raise ValueError(
                f"curvature.batch: got {self.batch}, allowed divisors of {self.sequences} "
                "(sequences): the mean over batches is to be that over sequences"
            )
        if not 0 <= self.sketch <= 4096:
            raise ValueError(f"curvature.sketch: got {self.sketch}, allowed 0..4096")


@dataclass(frozen=True)
class SamplingProtocol:
    """Chains of the localised posterior around a checkpoint.

    Attributes:
        sequences: n, of the probe, the first ones.
        batch: sequences in a minibatch.
        sampler: out of `SAMPLERS`.
        chains: per setting.
        draws: steps of a chain, burn-in included.
        burn_in: first draws, which count for nothing.
        nbetas: ladder of inverse temperatures; empty for one that follows from a pilot.
        localisers: factors on the strength of the localiser; every temperature is run with each,
            and a value that depends on them is not accepted.
        blocks: out of `BLOCKS`; the other parameters are held.
        observed: other probes whose loss is followed on the same draws (susceptibilities).
    """

    sequences: int = 512
    batch: int = 32
    sampler: Sampler = "sgld"
    chains: int = 4
    draws: int = 500
    burn_in: int = 250
    nbetas: tuple[float, ...] = ()
    localisers: tuple[float, ...] = (0.1, 1.0, 10.0)
    blocks: tuple[str, ...] = ("model",)
    observed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _positive(self, "sampling", "sequences", "batch", "chains", "draws")
        _check_blocks("sampling", self.blocks)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampling.sampler: got {self.sampler!r}, allowed {SAMPLERS}")
        if not 0 <= self.burn_in < self.draws:
            raise ValueError(
                f"sampling.burn_in: got {self.burn_in}, allowed 0..{self.draws - 1} (draws - 1)"
            )
        if not 2 <= self.batch <= self.sequences:
            raise ValueError(
                f"sampling.batch: got {self.batch}, allowed 2..{self.sequences} (sequences)"
            )
        if any(nbeta <= 0 for nbeta in self.nbetas):
            raise ValueError(f"sampling.nbetas: got {self.nbetas}, allowed numbers > 0")
        if not self.localisers or any(factor <= 0 for factor in self.localisers):
            raise ValueError(f"sampling.localisers: got {self.localisers}, allowed numbers > 0")


@dataclass(frozen=True)
class Spectroscopy:
    """What a run asks for; None where it does not.

    Attributes:
        curvature: of the kinds hessian and ggn.
        sampling: of the kind chains.
    """

    curvature: CurvatureProtocol | None = None
    sampling: SamplingProtocol | None = None


def _positive(of: CurvatureProtocol | SamplingProtocol, section: str, *names: str) -> None:
    for name in names:
        if getattr(of, name) < 1:
            raise ValueError(f"{section}.{name}: got {getattr(of, name)}, allowed integers >= 1")


def _check_blocks(section: str, blocks: tuple[str, ...]) -> None:
    unknown = [b for b in blocks if b not in BLOCKS]
    if unknown or not blocks:
        raise ValueError(f"{section}.blocks: got {unknown or blocks}, allowed {BLOCKS}")
