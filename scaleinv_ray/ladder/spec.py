"""What a ladder is: the fields of ladder.yaml, checked, and the runs they make."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

ARCHITECTURES: tuple[str, ...] = ("gpt_neox", "gpt2", "llama", "granite", "attention_only")
OPTIMIZERS: tuple[str, ...] = ("adamw", "sgd")
SCHEDULES: tuple[str, ...] = ("linear", "constant", "cosine")
DTYPES: tuple[str, ...] = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """How a run is optimised.

    Attributes:
        name: adamw (betas 0.9 and 0.95, eps 1e-8) or sgd (without momentum).
        lr: peak learning rate at `base_width`.
        schedule: after the warmup linear or cosine decay to 0 at the last step, or constant.
        base_width: width b at which `lr` holds. In the standard parametrisation the rate of
            every tensor at width w is lr * b / w; None keeps lr at every width. In muP (granite)
            it is also the width at which muP and standard parametrisation agree, and only the
            tensors that Table 8 of Yang et al. (2022) names are scaled; None means the ladder's
            smallest width.
        weight_decay: decoupled decay of the matrices; norms and biases have none.
        warmup: steps of linear warmup.
    """

    name: str = "adamw"
    lr: float = 1e-3
    schedule: str = "linear"
    base_width: int | None = None
    weight_decay: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        _one_of("optimizer.name", self.name, OPTIMIZERS)
        _one_of("optimizer.schedule", self.schedule, SCHEDULES)
        _positive("optimizer.lr", self.lr)
        _positive("optimizer.weight_decay", self.weight_decay, zero=True)
        _integer("optimizer.warmup", self.warmup, least=0)
        if self.base_width is not None:
            _integer("optimizer.base_width", self.base_width, least=1)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of the update that leads from `step` to `step + 1`, before width scaling.

        Args:
            step: updates already made, 0..steps - 1.

        Returns:
            lr * min(1, (step + 1) / warmup) * decay((step - warmup) / (steps - warmup)).

        >>> OptimizerSpec(lr=1.0, schedule="linear").rate(3, 4)
        0.25
        """
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(steps - self.warmup, 1)
        decay = {
            "constant": 1.0,
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        }
        return self.lr * decay[self.schedule]


@dataclass(frozen=True, order=True)
class Rung:
    """One run of the ladder: a width, a depth, a seed."""

    width: int
    depth: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run, as in `d64-s0`."""
        return f"d{self.width}-s{self.seed}"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A ladder: the fields of ladder.yaml.

    Attributes:
        name: of the series.
        architecture: gpt_neox, gpt2, llama, granite (muP), or attention_only (no MLP).
        widths: D of each size, rising.
        depth: number of blocks at every width (or `depths`).
        depths: number of blocks at each width, by width or in the order of `widths`.
        head_dim: width of an attention head, the same at every size.
        seeds: one run for each width and seed.
        init_scale: factor of the standard deviation of the hidden matrices at step 0.
        corpus: 'python-stdlib', or files and folders.
        repeated: share of a step's sequences that repeat a random block.
        batch: sequences in a step.
        length: tokens in a sequence.
        steps: updates in all.
        checkpoints: steps that are saved, the last one among them; by default `log_spaced`.
        optimizer: see `OptimizerSpec`.
        dtype: float32, or bfloat16 (autocast: the weights stay float32).
        out: folder of the runs.
    """

    name: str
    architecture: str = "gpt_neox"
    widths: tuple[int, ...]
    depth: int | None = None
    depths: tuple[int, ...] | Mapping[int, int] | None = None
    head_dim: int = 16
    seeds: tuple[int, ...] = (0,)
    init_scale: float = 1.0
    corpus: str | tuple[str, ...] = "python-stdlib"
    repeated: float = 0.0
    batch: int = 16
    length: int = 128
    steps: int = 300
    checkpoints: tuple[int, ...] | None = None
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    dtype: str = "float32"
    out: str = "runs/ladder/models"

    def __post_init__(self) -> None:
        _one_of("architecture", self.architecture, ARCHITECTURES)
        _one_of("dtype", self.dtype, DTYPES)
        for name, least in (("head_dim", 2), ("batch", 1), ("length", 2), ("steps", 1)):
            _integer(name, getattr(self, name), least=least)
        _positive("init_scale", self.init_scale)
        _positive("repeated", self.repeated, zero=True)
        if self.repeated > 1:
            raise ValueError(f"repeated: got {self.repeated}, allowed 0..1")
        if self.head_dim % 2:
            raise ValueError(f"head_dim: got {self.head_dim}, allowed even integers (rotary pairs)")
        self._set("widths", _integers("widths", self.widths, least=1, rising=True))
        self._set("seeds", _integers("seeds", self.seeds, least=0))
        if not isinstance(self.corpus, str):
            self._set("corpus", tuple(str(path) for path in self.corpus))
        for width in self.widths:
            if width % self.head_dim:
                raise ValueError(
                    f"widths: got {width}, allowed multiples of head_dim ({self.head_dim})"
                )
        self._check_depths()
        checkpoints = self.checkpoints or log_spaced(self.steps)
        self._set("checkpoints", _integers("checkpoints", checkpoints, least=0, rising=True))
        if self.saved[-1] != self.steps:
            raise ValueError(
                f"checkpoints: got {self.saved[-1]} as the last, allowed 0..{self.steps} ending "
                f"with {self.steps} (steps)"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # normal form of a frozen dataclass

    def _check_depths(self) -> None:
        if (self.depth is None) == (self.depths is None):
            raise ValueError(
                f"depth, depths: got {self.depth} and {self.depths}, allowed exactly one of them"
            )
        if self.depth is not None:
            _integer("depth", self.depth, least=1)
            return
        depths = self.depths
        if isinstance(depths, Mapping):
            if set(depths) != set(self.widths):
                raise ValueError(f"depths: got widths {sorted(depths)}, allowed {self.widths}")
            depths = tuple(depths[width] for width in self.widths)
        self._set("depths", _integers("depths", depths, least=1, distinct=False))
        if len(self.depths or ()) != len(self.widths):
            raise ValueError(
                f"depths: got {self.depths}, allowed {len(self.widths)} of them, one for each width"
            )

    def depth_at(self, width: int) -> int:
        """Number of blocks at a width of the ladder."""
        if self.depth is not None:
            return self.depth
        assert isinstance(self.depths, tuple)  # normal form, set by __post_init__
        return self.depths[self.widths.index(width)]

    @property
    def saved(self) -> tuple[int, ...]:
        """The steps that are saved, rising, the last step among them."""
        assert self.checkpoints is not None  # set by __post_init__
        return self.checkpoints

    @property
    def base_width(self) -> int | None:
        """Width at which `optimizer.lr` holds: in muP the smallest one unless it is given."""
        if self.optimizer.base_width is None and self.architecture == "granite":
            return self.widths[0]
        return self.optimizer.base_width

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TrainSpec:
        """A spec from what a YAML file holds.

        Args:
            mapping: field name -> value; optimizer is itself a mapping.

        Returns:
            The checked spec.

        Raises:
            ValueError: an unknown or missing field, or a value out of range.

        >>> spec = TrainSpec.from_mapping({"name": "x", "widths": [16, 32], "depth": 2})
        >>> [rung.name for rung in rungs(spec)]
        ['d16-s0', 'd32-s0']
        """
        _known_keys("ladder", mapping, cls)
        missing = [name for name in ("name", "widths") if name not in mapping]
        if missing:
            raise ValueError(f"ladder: got no {missing[0]!r}, which has no default")
        values = dict(mapping)
        if isinstance(values.get("optimizer"), Mapping):
            _known_keys("optimizer", values["optimizer"], OptimizerSpec)
            values["optimizer"] = OptimizerSpec(**values["optimizer"])
        return cls(**values)


def rungs(spec: TrainSpec) -> list[Rung]:
    """The runs of a ladder, by width, then by seed.

    Returns:
        One rung for each width and seed.
    """
    return [Rung(w, spec.depth_at(w), seed) for w in spec.widths for seed in spec.seeds]


def least_memory(spec: TrainSpec, rung: Rung) -> int:
    """Bytes that training a run takes at the least: its state, and what backward passes need.

    Returns:
        Four bytes for each parameter, gradient and moment, and for a residual stream of each block
        and the logits; less than it will be.
    """
    matrices = (4 if spec.architecture == "attention_only" else 12) * rung.depth * rung.width**2
    copies = 4 if spec.optimizer.name == "adamw" else 2
    tokens = spec.batch * spec.length
    return 4 * (copies * matrices + tokens * (rung.depth * rung.width + 256))


def log_spaced(steps: int, n: int = 8) -> tuple[int, ...]:
    """Step 0 and n - 1 steps evenly spaced in their logarithm, from 1 to the last step.

    Args:
        steps: the last step.
        n: checkpoints wanted; fewer where rounded steps coincide.

    Returns:
        Rising steps, first 0, last `steps`.

    Raises:
        ValueError: n < 2 or steps < 1.

    >>> log_spaced(1000, 5)
    (0, 1, 10, 100, 1000)
    """
    _integer("n", n, least=2)
    _integer("steps", steps, least=1)
    if n == 2:
        return (0, steps)
    return (0, *sorted({round(float(step)) for step in np.geomspace(1, steps, n - 1)}))


def run_config(spec: TrainSpec, rung: Rung, corpus_digest: str) -> dict[str, Any]:
    """Everything that decides the numbers of one run, and nothing else.

    Names, the other widths and seeds, the places of the checkpoints and `out` are not among it, so
    that a ladder may grow without its finished runs being refused.

    Returns:
        A flat JSON object.
    """
    optimizer = {f"optimizer.{k}": v for k, v in asdict(spec.optimizer).items()}
    shared = {k: getattr(spec, k) for k in ("architecture", "head_dim", "batch", "length", "steps")}
    corpus = {"corpus": corpus_digest} | ({"repeated": spec.repeated} if spec.repeated else {})
    return (
        asdict(rung)
        | shared
        | optimizer
        | {"dtype": spec.dtype, "optimizer.base_width": spec.base_width}
        | corpus
        # runs that were trained before there was one have none
        | ({"init_scale": spec.init_scale} if spec.init_scale != 1 else {})
    )


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        nearest = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.0)[0]
        raise ValueError(f"{name}: got {value!r}, allowed {allowed}; the nearest is {nearest!r}")


def _integer(name: str, value: object, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: got {value!r}, allowed integers >= {least}")
    return value


def _positive(name: str, value: object, *, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: got {value!r}, allowed finite numbers")
    if value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}: got {value!r}, allowed {'>= 0' if zero else '> 0'}")


def _integers(
    name: str, values: object, *, least: int, rising: bool = False, distinct: bool = True
) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"{name}: got {values!r}, allowed a list of integers >= {least}")
    numbers = tuple(_integer(name, value, least=least) for value in values)
    if distinct and len(set(numbers)) < len(numbers):
        raise ValueError(f"{name}: got {list(numbers)}, allowed each value once")
    if rising and list(numbers) != sorted(numbers):
        raise ValueError(f"{name}: got {list(numbers)}, allowed rising values")
    return numbers


def _known_keys(name: str, mapping: Mapping[str, Any], cls: type) -> None:
    known = [f.name for f in fields(cls)]
    for key in mapping:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ValueError(f"{name}: got {key!r}, allowed {known}; the nearest is {nearest!r}")
