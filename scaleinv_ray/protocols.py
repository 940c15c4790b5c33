"""How curvature, learning coefficients and circuits are captured where a run asks for them.

All cost many times a forward pass, so a run makes them only where its config has the section.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from scaleinv_ray.bounds import Range

BLOCKS: tuple[str, ...] = ("model", "layer", "attention", "mlp", "embedding")
"""Sets of parameters: all of them, those of each block, its attention, its MLP, the embedding."""
LADDER = 4
"""Inverse temperatures where none are given."""
FEWEST_KEPT = 8
"""Draws of a chain after the burn-in without which nothing is said of it."""
STORED_BASIS = 20_000_000
"""Parameters up to which any number of Lanczos vectors is kept; 80 MB each in float32."""
SHORT = 30
"""Lanczos steps for which the basis is kept of larger ones too."""
TOKENS_PER_UNIT = 50
"""T/N of a stream: with fewer tokens a unit's correlations are noise (Meshulam et al. 2019)."""
Sampler = Literal["sgld", "rmsprop_sgld", "sgld_cv", "mala"]
SAMPLERS: tuple[Sampler, ...] = ("sgld", "rmsprop_sgld", "sgld_cv", "mala")
RankedMetric = Literal["logit_diff", "prob_diff", "loss", "kl"]
Ablation = Literal["resample", "mean_per_position", "mean", "zero"]
ABLATIONS: tuple[str, ...] = get_args(Ablation)
NODES: tuple[str, ...] = ("heads", "mlp", "embed")


Count = Annotated[int, Range(1)]


def ranges_of(protocol: Any) -> dict[str, Range]:
    """Field of a dataclass -> the range that its type declares."""
    hints = typing.get_type_hints(protocol, include_extras=True)
    return {
        name: mark
        for name, hint in hints.items()
        for part in (hint, *typing.get_args(hint))
        for mark in getattr(part, "__metadata__", ())
    }


def check_ranges(protocol: Any, section: str) -> None:
    """Checks the numbers of a dataclass against the ranges in their types.

    Args:
        protocol: the dataclass.
        section: of a config, named in the error.

    Raises:
        ValueError: naming field, value and what is allowed.
    """
    for name, within in ranges_of(type(protocol)).items():
        got = getattr(protocol, name)
        if got is not None and (allowed := within.refusal(got, {})) is not None:
            raise ValueError(f"{section}.{name}: got {got}, allowed {allowed}")


def digest_of(protocol: Any, **others: Any) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON of all fields of a dataclass.

    Args:
        protocol: the dataclass.
        others: values of fields in place of its own.

    Returns:
        The digest.
    """
    fields = dataclasses.asdict(protocol) | others
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CurvatureProtocol:
    """Densities of states of Hessian and Gauss-Newton operator by Lanczos quadrature.

    Attributes:
        sequences: of the probe, the first ones, over which the loss is a mean.
        batch: sequences whose graph is held at one time; a divisor of `sequences`, None for all.
        num_steps: Lanczos steps.
        num_probes: probe vectors, the replicates of every error.
        blocks: sets of parameters out of model, layer, attention, mlp and embedding; each operator
            is that of the restricted ones.
        sketch: buckets of the count sketches of Ritz vectors, by which bands are followed over
            training; 0 keeps none, and then no basis (memory of 3 probe vectors alone).
    """

    sequences: Count = 32
    batch: Count | None = None
    num_steps: Annotated[int, Range(1, 10_000)] = 40
    num_probes: Annotated[int, Range(1, 10_000)] = 4
    blocks: tuple[str, ...] = ("model",)
    sketch: Annotated[int, Range(0, 4096)] = 1024

    def __post_init__(self) -> None:
        check_ranges(self, "curvature")
        _check_blocks("curvature", self.blocks)
        if self.batch is not None and self.batch > self.sequences:
            raise ValueError(
                f"curvature.batch: got {self.batch}, allowed 1..{self.sequences} (sequences)"
            )
        if self.batch is not None and self.sequences % self.batch:
            raise ValueError(
                f"curvature.batch: got {self.batch}, allowed divisors of {self.sequences} "
                "(sequences): the mean over batches is to be that over sequences"
            )

    def check(self, model: str, n_params: int) -> None:
        """ValueError where sketches need a basis that is too large to be kept."""
        kept = self.sketch and "model" in self.blocks and self.num_steps > SHORT
        if kept and n_params > STORED_BASIS:
            raise ValueError(
                f"curvature.num_steps: got {self.num_steps} with sketches of {n_params} parameters "
                f"of model {model}, allowed 1..{SHORT} above {STORED_BASIS}, or sketch: 0"
            )

    def num_blocks(self, num_layers: int) -> int:
        """Sets of parameters, each with a record, of a model of so many blocks."""
        return _num_sets(self.blocks, num_layers)

    def num_bytes(self, num_layers: int) -> int:
        """Of a capture file: nodes, weights and sketches."""
        return (
            self.num_blocks(num_layers) * self.num_probes * self.num_steps * (16 + 4 * self.sketch)
        )

    def gradients(self, num_layers: int) -> tuple[float, int]:
        """Gradients taken, and of how many sequences; a product is two (Pearlmutter 1994)."""
        products = self.num_blocks(num_layers) * self.num_probes * self.num_steps
        return 2.0 * products, self.sequences


@dataclass(frozen=True)
class SamplingProtocol:
    """Chains of the localised posterior around a checkpoint.

    Attributes:
        sequences: n, of the probe, the first ones.
        batch: sequences in a minibatch.
        sampler: of the chains.
        chains: per setting.
        draws: steps of a chain, burn-in included.
        burn_in: first draws, which count for nothing.
        nbetas: ladder of inverse temperatures; empty for one that follows from a pilot.
        localisers: factors on the strength of the localiser; every temperature is run with each,
            and a value that depends on them is not accepted.
        blocks: sets of parameters, as of the curvature; the other parameters are held.
        observed: other probes whose loss is followed on the same draws (susceptibilities).
    """

    sequences: Count = 512
    batch: Count = 32
    sampler: Sampler = "sgld"
    chains: Annotated[int, Range(1, 10_000)] = 4
    draws: Annotated[int, Range(1, 10**7)] = 500
    burn_in: Annotated[int, Range(0)] = 250
    nbetas: tuple[float, ...] = ()
    localisers: tuple[float, ...] = (0.1, 1.0, 10.0)
    blocks: tuple[str, ...] = ("model",)
    observed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_ranges(self, "sampling")
        _check_blocks("sampling", self.blocks)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampling.sampler: got {self.sampler!r}, allowed {SAMPLERS}")
        if self.burn_in >= self.draws:
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

    def check_kept(self) -> None:
        """ValueError where chains would have too few draws after the burn-in to be judged."""
        if (kept := self.draws - self.burn_in) < FEWEST_KEPT:
            raise ValueError(
                f"sampling.draws: got {self.draws} with burn_in {self.burn_in}, allowed: burn_in + "
                f"{FEWEST_KEPT} at least, or nothing is said of the {kept} draws that are kept"
            )

    @property
    def num_chains(self) -> int:
        """Of one set of parameters: over temperatures, localisers and replicates."""
        return (len(self.nbetas) or LADDER) * len(self.localisers) * self.chains

    def num_blocks(self, num_layers: int) -> int:
        """Sets of parameters, each with a record, of a model of so many blocks."""
        return _num_sets(self.blocks, num_layers)

    def num_bytes(self, num_layers: int) -> int:
        """Of a capture file: losses of all draws, of the other probes too."""
        draws = self.num_blocks(num_layers) * self.num_chains * self.draws
        return draws * (4 + len(self.observed)) * 4

    def gradients(self, num_layers: int) -> tuple[float, int]:
        """Gradients taken, at least, and of how many sequences; losses observed are a third."""
        losses = len(self.observed) + 1 if self.observed else 0
        draws = self.num_blocks(num_layers) * self.num_chains * self.draws
        return draws * (1 + losses / 3), self.batch


_LEAST, _LEAST_KL, _EDGES = 5, 13, 40
"""Forwards of the clean and the corrupted run, a gradient (of kl five of them) and all together;
what edges take."""


@dataclass(frozen=True)
class CircuitsProtocol:
    """Effects of components on the answers to probes in pairs, a clean and a corrupted sequence.

    Attributes:
        probes: names of `probes.corrupted.CORRUPTED`, some with a variant, as induction.last;
            empty for those of the run's probes that can be corrupted.
        sequences: pairs, the replicates of every error.
        metric: what an effect is one on; None for the one that suits the probe.
        ablation: what replaces a component: its value in the corrupted sequence (resample), its
            mean over corrupted ones, or zero.
        nodes: kinds of components, out of heads, mlp and embed.
        edges: edges are scored too, and circuits of the largest ones run alone.
        budget: forward passes over the pairs; what it does not pay for is estimated by gradients.
            None for exact effects of all components.
    """

    probes: tuple[str, ...] = ()
    sequences: Annotated[int, Range(5, 10_000)] = 64
    metric: RankedMetric | None = None
    ablation: Ablation = "resample"
    nodes: tuple[str, ...] = ("heads", "mlp")
    edges: bool = False
    budget: Annotated[int, Range(_LEAST, 10**7)] | None = None

    def __post_init__(self) -> None:
        check_ranges(self, "circuits")
        if unknown := [n for n in self.nodes if n not in NODES]:
            raise ValueError(f"circuits.nodes: got {unknown}, allowed {', '.join(NODES)}")
        if not self.nodes:
            raise ValueError(f"circuits.nodes: got none, allowed one or more of {', '.join(NODES)}")
        self._check_budget()
        if self.edges and self.ablation != "resample":
            raise ValueError(
                f"circuits.edges: got true with ablation {self.ablation!r}, allowed 'resample' (an "
                "edge carries what the writer gives in the corrupted sequence)"
            )

    def _check_budget(self) -> None:
        by_kl = self.metric == "kl" and self.ablation == "resample"
        least = (_LEAST_KL if by_kl else _LEAST) + _EDGES * self.edges
        if self.budget is not None and self.budget < least:
            why = [said for said, is_so in (("metric kl", by_kl), ("edges", self.edges)) if is_so]
            raise ValueError(
                f"circuits.budget: got {self.budget}, allowed >= {least} with {' and '.join(why)}"
            )

    def num_bytes(self, num_layers: int) -> int:
        """Of a capture file, with as many heads as models of usual widths have."""
        between = (num_layers * (_USUAL_HEADS + 1) + 2) ** 2 * self.edges
        return (num_layers * _USUAL_HEADS * 16 + between * 4) * self.sequences

    def gradients(self, num_layers: int) -> tuple[float, int]:
        """Gradients that cost what the forward passes do, and of how many sequences.

        Every component is run from its layer on; a gradient costs three forward passes.
        """
        exact = (num_layers + 1) / 2 * _USUAL_HEADS
        random = _RANDOM * min(1 / 2, 8 / self.sequences)
        forwards = exact + _BESIDE + random + (_EDGES + random) * self.edges
        least = forwards if self.budget is None else min(forwards, float(self.budget))
        return least / 3, self.sequences


_USUAL_HEADS = 8
"""Of a block: a checkpoint does not say, and more of them cost more."""
_BESIDE = 10.0
"""Forward passes of the clean and the corrupted run, the gradient, and sets of components."""
_RANDOM = 100.0
"""Random sets, on half of the sequences but on eight at most; without a budget of edges too."""


@dataclass(frozen=True)
class Spectroscopy:
    """What a run asks for; None where it does not.

    Attributes:
        curvature: of the kinds hessian and ggn.
        sampling: of the kind chains.
        circuits: of the kind effects.
    """

    curvature: CurvatureProtocol | None = None
    sampling: SamplingProtocol | None = None
    circuits: CircuitsProtocol | None = None


def _num_sets(blocks: tuple[str, ...], num_layers: int) -> int:
    return sum(1 if b in {"model", "embedding"} else num_layers for b in blocks)


def _check_blocks(section: str, blocks: tuple[str, ...]) -> None:
    unknown = [b for b in blocks if b not in BLOCKS]
    if unknown or not blocks:
        raise ValueError(f"{section}.blocks: got {unknown or blocks}, allowed {BLOCKS}")
