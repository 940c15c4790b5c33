"""The config of a design: a wanted value, and what of a model may be chosen to meet it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from scaleinv_ray.checkpoints.files.roles import ROLES
from scaleinv_ray.config.fields import (
    Corpus,
    Float,
    Name,
    Natural,
    Options,
    Place,
    Positive,
    Text,
    check_known,
)
from scaleinv_ray.config.train import Depth, OptimizerOptions, Width
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.inputs.wording import nearest, shown
from scaleinv_ray.kinds import KINDS, Kind

DIMENSIONS = ("architecture", "width", "depth", "init_scale", "lr")
MOST = 10_000
"""Configurations, and seeds of one."""
INTERVALS = frozenset({"init_scale", "lr"})


class Target(Options):
    """A wanted value.

    Attributes:
        invariant: as of a run.
        quantity: one of its quantities.
        value: the target, above zero.
        margin: of |ln(mean / value)|: .05 is 5 %.
        layer: the block it is read at; None for the mean over all.
        site: of an activation, None for all.
        role: of a weight, None for all.
    """

    invariant: Text
    quantity: Text
    value: Annotated[Float, Field(gt=0)]
    margin: Annotated[Float, Field(gt=0, lt=1)] = 0.05
    layer: Natural | None = None
    site: Text | None = None
    role: Text | None = None

    @model_validator(mode="after")
    def _known(self) -> Target:
        import scaleinv_ray.invariants

        assert scaleinv_ray.invariants, "importing the package registers the invariants"
        check_known(self.invariant, tuple(REGISTRY), "invariant")
        spec = REGISTRY[self.invariant]
        check_known(self.quantity, tuple(spec.quantities), "quantity")
        kind = KINDS[spec.kind]
        asked_for = kind.section in {"sampling", "circuits"} or kind.name == "masked_losses"
        if spec.signature != "one" or asked_for:
            raise ValueError(
                f"invariant: got {self.invariant}, allowed those of one causal model at one step, "
                "without chains or circuits"
            )
        self._check_place(kind)
        return self

    def _check_place(self, kind: Kind) -> None:
        roles = ROLES if kind.name == "weights" else ()
        for name, got, known in (("site", self.site, kind.sites), ("role", self.role, roles)):
            if got is not None and got not in known:
                raise ValueError(
                    f"{name}: got {shown(got)}{nearest(got, known)}, allowed with "
                    f"{self.invariant}: {', '.join(known) or 'none'}"
                )


class DesignModel(Options):
    """The model where nothing is chosen: the default beside which a design stands.

    Attributes:
        architecture: as of a ladder.
        width: of the residual stream.
        depth: blocks.
        head_dim: width of an attention head; divides every width.
        init_scale: factor of the standard deviation of the hidden matrices.
        length: tokens in a sequence, of training and of what is measured.
        batch: sequences in a step.
        corpus: 'python-stdlib', or files and folders.
        optimizer: as of a ladder; `lr` may be searched.
    """

    architecture: Literal["gpt_neox", "gpt2", "llama", "granite", "attention_only"] = "gpt2"
    width: Width = 128
    depth: Depth = 3
    head_dim: Annotated[Positive, Field(multiple_of=2)] = 16
    init_scale: Annotated[Float, Field(gt=0)] = 1.0
    length: Annotated[Positive, Field(ge=2)] = 64
    batch: Positive = 16
    corpus: Corpus = "python-stdlib"
    optimizer: OptimizerOptions = OptimizerOptions(schedule="constant")


class Budget(Options):
    """What a design may cost.

    Attributes:
        evaluations: configurations that the search may measure.
        random: random configurations beside it: the share of them that pass is the null.
    """

    evaluations: Annotated[Positive, Field(le=MOST)] = 40
    random: Annotated[Natural, Field(le=MOST)] = 8


class DesignSeeds(Options):
    """Seeds of a design, those that certify apart from those of the search.

    Attributes:
        search: of every configuration measured.
        certify: of the best one.
    """

    search: Annotated[Positive, Field(ge=2, le=MOST)] = 3
    certify: Annotated[Positive, Field(ge=2, le=MOST)] = 5


def _targets(value: object) -> object:
    return [value] if isinstance(value, Mapping) else value


def _at(value: object) -> object:
    if value == "init":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"got {shown(value)}, allowed: init, or a step >= 1")
    return value


class DesignConfig(Options):
    """A design.

    Attributes:
        name: of the design.
        target: the wanted value, or a list of them, all to be met by one model.
        over: dimension -> [low, high, log] or [low, high, linear], or a list of values; dimensions
            are architecture, width, depth, init_scale and lr.
        model: where nothing is chosen.
        at: init, or the step at which the model is measured.
        text: what it is measured on: held-out text, or the text of training.
        sequences: of that text.
        budget: see `Budget`.
        seeds: see `DesignSeeds`.
        out: folder; `runs/<name>` by default.
    """

    name: Name
    target: Annotated[
        tuple[Target, ...],
        Field(min_length=1),
        BeforeValidator(_targets, json_schema_input_type=Target | tuple[Target, ...]),
    ]
    over: Annotated[dict[str, tuple[Any, ...]], Field(min_length=1)]
    model: DesignModel = DesignModel()
    at: Annotated[int, BeforeValidator(_at, json_schema_input_type=Literal["init"] | Natural)] = 0
    text: Literal["held_out", "train"] = "held_out"
    sequences: Annotated[Positive, Field(le=4096)] = 16
    budget: Budget = Budget()
    seeds: DesignSeeds = DesignSeeds()
    out: Place

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        return {"out": f"runs/{data.get('name')}"} | dict(data)

    @model_validator(mode="after")
    def _consistent(self) -> DesignConfig:
        for name, values in self.over.items():
            check_known(name, DIMENSIONS, "dimension")
            _check_dimension(name, values, self.model)
        if len(set(self.target)) < len(self.target):
            raise ValueError("target: got one twice, allowed: each once")
        depth = min(self.over.get("depth", (self.model.depth,)))
        for n, target in enumerate(self.target):
            if target.layer is not None and target.layer >= depth:
                raise ValueError(
                    f"target[{n}].layer: got {target.layer}, allowed: 0..{depth - 1}, which every "
                    "model looked at has"
                )
        if "lr" in self.over and not self.at:
            raise ValueError("over.lr: got a learning rate at init, allowed: at a step")
        if odd := [w for w in self.widths if w % self.model.head_dim]:
            got = self.model.head_dim
            raise ValueError(f"model.head_dim: got {got}, allowed: divisors of widths {odd}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """All that a model may have."""
        return (self.model.width, *self.over.get("width", ()))


def _check_dimension(name: str, values: tuple[Any, ...], model: DesignModel) -> None:
    if is_interval(values):
        low, high = values[:2]
        if name not in INTERVALS or not _numbers((low, high)) or not 0 < low < high:
            allowed = f"[low, high, log] with 0 < low < high of {' and '.join(sorted(INTERVALS))}"
            raise ValueError(
                f"over.{name}: got {shown(list(values))}, allowed: {allowed}, or a list"
            )
        return
    if not values or len(set(map(str, values))) < len(values):
        raise ValueError(f"over.{name}: got {shown(list(values))}, allowed: distinct values")
    for value in values:
        # what a model may have there
        if name == "lr":
            OptimizerOptions(lr=value)
        else:
            DesignModel(**{name: value, "head_dim": model.head_dim})


def is_interval(values: tuple[Any, ...]) -> bool:
    """Whether a dimension is [low, high, log or linear]."""
    return len(values) == 3 and values[2] in {"log", "linear"}


def _numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
