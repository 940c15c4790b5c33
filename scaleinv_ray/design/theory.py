"""Which closed form a target has, and where in a space it puts the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from scaleinv_ray.design.closed_forms import (
    RATIO,
    NoFormulaError,
    check_chi,
    chi_of_layers,
    initialised,
    sharpness,
    stable_rank,
)
from scaleinv_ray.design.space import Interval, Space, Value, choices_of, intervals_of

GRID = 60
SQUARE = frozenset({"query", "key", "value", "attn_out"})
WIDE = frozenset({"mlp_in", "mlp_out"})


@dataclass(frozen=True)
class Asked:
    """What is asked of a model.

    Attributes:
        invariant: its name.
        quantity: its name.
        value: the target, > 0.
        margin: of ln(mean / target).
        layer: the block; None for the mean over all.
        site: of an activation, None for all.
        role: of a weight, None for all.
    """

    invariant: str
    quantity: str
    value: float
    margin: float
    layer: int | None = None
    site: str | None = None
    role: str | None = None

    def __str__(self) -> str:
        layer = None if self.layer is None else f"layer {self.layer}"
        at = ", ".join(part for part in (layer, self.site, self.role) if part is not None)
        return f"{self.invariant} {self.quantity}" + (f" ({at})" if at else "")


Model = Mapping[str, Any]
"""architecture, width, depth, init_scale, lr, optimizer, schedule, step."""


def predicted(asked: Asked, model: Model) -> float:
    """What theory says of a model.

    Raises:
        NoFormulaError: where it says nothing, with the reason.
        UnreachableError: where no model has the target.
    """
    of = (asked.invariant, asked.quantity)
    form = _FORMS.get(of)
    if form is None:
        known = ", ".join(" ".join(name) for name in _FORMS)
        raise NoFormulaError(f"no closed form of {' '.join(of)}; there are those of {known}")
    return form(asked, model)


def solutions(asked: Asked, space: Space, default: Model) -> list[dict[str, Value]]:
    """Points at which theory puts the target, nearest to the default first.

    Of each combination of listed values, the intervals one after the other: the others stay as the
    default has them. Without intervals the listed values whose prediction is within the margin.

    Raises:
        NoFormulaError: where theory says nothing of the default, and nothing elsewhere.
        UnreachableError: where no model has the target.
    """
    found: list[dict[str, Value]] = []
    reason: NoFormulaError | None = None
    held = {name: _within(of, default[name]) for name, of in intervals_of(space).items()}
    for chosen in choices_of(space):
        start = held | chosen
        for name in intervals_of(space) or (None,):
            try:
                found += _solved(asked, space, default, start, name)
            except NoFormulaError as error:
                reason = reason or error
    if not found and reason is not None:
        raise reason
    return sorted(found, key=lambda point: sum(point[n] != default[n] for n in point))


def _within(of: Interval, value: float) -> float:
    return min(max(value, of.low), of.high)


def _solved(
    asked: Asked, space: Space, default: Model, start: Mapping[str, Value], name: str | None
) -> list[dict[str, Value]]:
    def off(share: float) -> float:
        here = {} if name is None else {name: intervals_of(space)[name].at(share)}
        return math.log(predicted(asked, {**default, **start, **here}) / asked.value)

    if name is None:
        return [dict(start)] if abs(off(0.0)) < asked.margin else []
    interval = intervals_of(space)[name]
    known: list[tuple[float, float]] = []
    reason: NoFormulaError | None = None
    for share in np.linspace(0.0, 1.0, GRID).tolist():
        try:
            known.append((share, off(share)))
        except NoFormulaError as error:
            reason = error
    for (a, below), (b, above) in zip(known, known[1:], strict=False):
        if below * above <= 0 and below != above:
            return [{**start, name: interval.at(float(optimize.brentq(off, a, b)))}]
    if reason is not None:
        raise reason
    return []


def _chi(asked: Asked, model: Model) -> float:
    _at_init(model)
    check_chi(asked.value)
    built = {name: model[name] for name in ("width", "depth", "init_scale")}
    layers = chi_of_layers(initialised(model["architecture"], **built))
    if asked.layer is None:
        return float(np.mean(layers))
    if asked.layer >= len(layers):
        raise NoFormulaError(f"layer: got {asked.layer} of a model of {len(layers)}")
    return layers[asked.layer]


def _stable_rank(asked: Asked, model: Model) -> float:
    _at_init(model)
    if asked.role in SQUARE:
        return stable_rank(model["width"], model["width"])
    if asked.role in WIDE and model["architecture"] in {"gpt2", "gpt_neox"}:
        return stable_rank(model["width"], RATIO * model["width"])
    raise NoFormulaError(f"role: got {asked.role}, the formula is one of {sorted(SQUARE | WIDE)}")


def _sharpness(asked: Asked, model: Model) -> float:
    del asked
    if not model["step"] or model["optimizer"] != "sgd" or model["schedule"] != "constant":
        raise NoFormulaError(
            "at, optimizer: the edge of stability is that of gradient descent at a constant rate "
            f"after many steps; got {model['optimizer']}, {model['schedule']}, at {model['step']}"
        )
    return sharpness(model["lr"])


def _at_init(model: Model) -> None:
    if model["step"]:
        raise NoFormulaError(f"at: got {model['step']}, the formula is that of an untrained model")


_FORMS: Mapping[tuple[str, str], Callable[[Asked, Model], float]] = {
    ("stability.order_chaos", "chi"): _chi,
    ("weights.weight_tail", "stable_rank"): _stable_rank,
    ("curvature.hessian_density", "lambda_max"): _sharpness,
}
