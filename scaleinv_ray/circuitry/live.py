"""Circuits of a model that is in memory already."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedModel

from scaleinv_ray.circuitry.analysed import analysed, named
from scaleinv_ray.circuitry.effects.interventions import Ablation
from scaleinv_ray.circuitry.effects.measuring import Asked, measure
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.summary import Circuits
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.probes.corrupted import Pairs


def circuits(
    model: PreTrainedModel,
    tokens_A: Any,
    tokens_B: Any,
    *,
    answers: tuple[Any, Any] | None = None,
    positions: Any = None,
    metric: str | None = None,
    components: tuple[str, ...] | None = None,
    nodes: tuple[str, ...] = ("heads", "mlp"),
    ablation: Ablation = "resample",
    edges: bool = False,
    budget: float | None = None,
    must_do: bool = True,
    max_rows: int = 32,
    analyses: str | tuple[str, ...] = (),
) -> Circuits:
    """Which components of a live model the answers hang on.

    Args:
        model: causal, in eval mode, its weights whole on one device.
        tokens_A: clean sequences, whole numbers [S, T]; arrays, lists or tensors.
        tokens_B: corrupted ones, row by row, of equal shape.
        answers: tokens that follow in A and in B, [S] or [S, P] each; without, every next token is
            the answer, and the metric is the loss.
        positions: [S] or [S, P], whose logits are read; the last one by default.
        metric: logit_diff, loss, kl; None takes logit_diff where there are answers.
        components: names as `h1.3`, `m0`, `embed`; None takes all of `nodes`.
        nodes: out of heads, mlp, embed.
        ablation: resample, mean_per_position, mean or zero.
        edges: edges too.
        budget: forward passes, at most.
        must_do: refuse a model that does not do the task.
        max_rows: rows of a batch; memory grows with them.
        analyses: names of what is wanted beside the effects (keys of `analyses.ANALYSES`), or all.

    Returns:
        Effects, with `lines()` for a person and `as_json()`.

    Raises:
        ValueError: for what cannot be measured, before a forward pass; see `Asked`.
    """
    anatomy = Anatomy.of(model)
    names = named(analyses)
    a_ST, b_ST = _whole("tokens_A", tokens_A), _whole("tokens_B", tokens_B)
    if a_ST.shape != b_ST.shape:
        raise ValueError(f"tokens_B: got {b_ST.shape}, allowed {a_ST.shape} as tokens_A")
    if answers is None:
        if a_ST.shape[1] < 2:
            raise ValueError("tokens_A: got length 1 without answers, allowed >= 2")
        if positions is not None:
            raise ValueError("positions: got some without answers, allowed with answers alone")
        at_SP = np.tile(np.arange(a_ST.shape[1] - 1), (len(a_ST), 1))
        pairs = Pairs(a_ST, b_ST, at_SP, a_ST[:, 1:], b_ST[:, 1:], metric="loss")
    else:
        if not isinstance(answers, tuple | list) or len(answers) != 2:
            raise ValueError(f"answers: got {shown(answers)}, allowed two: those in A and in B")
        of_A, of_B = (_whole(f"answer_{n}", x) for n, x in zip("AB", answers, strict=True))
        last = np.full(of_A.shape, a_ST.shape[1] - 1)
        at_SP = last if positions is None else _whole("positions", positions)
        pairs = Pairs(a_ST, b_ST, at_SP, of_A, of_B)
    asked = Asked(metric, nodes, components, ablation, edges, budget, must_do, max_rows)
    effects = measure(anatomy, pairs, asked)
    found = analysed(names, Subject(anatomy, pairs, effects))
    return Circuits(type(model).__name__, "given tokens", effects, analyses=found)


def _whole(name: str, given: Any) -> np.ndarray:
    """Whole numbers in two dimensions; what has one is a column."""
    try:
        x = np.asarray(given)
    except ValueError as error:
        raise ValueError(
            f"{name}: got rows of unequal length, allowed equal ones (no padding)"
        ) from error
    if not x.size:
        raise ValueError(f"{name}: got none in shape {x.shape}, allowed one at least")
    if not np.issubdtype(x.dtype, np.integer) or x.ndim not in {1, 2}:
        raise ValueError(f"{name}: got {x.dtype} in {x.ndim} dimensions, allowed whole numbers")
    return x.astype(np.int64).reshape(len(x), -1)
