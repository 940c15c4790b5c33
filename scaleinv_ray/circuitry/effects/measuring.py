"""One model, one probe in pairs: what is measured for which budget, in which order.

Shape suffixes: C sets, N components, S sequences, W writers, R readers, E edges, K sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import NamedTuple

import numpy as np

from scaleinv_ray.circuitry.effects.edges import RUNS, with_edges
from scaleinv_ray.circuitry.effects.estimators import (
    FIRST_NODES,
    Method,
    Scores,
    check_estimate,
    estimate,
)
from scaleinv_ray.circuitry.effects.interventions import Ablation, Experiment
from scaleinv_ray.circuitry.effects.joint import play
from scaleinv_ray.circuitry.effects.metrics import metric_of
from scaleinv_ray.circuitry.effects.record import TOP, Effects, Game
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.components import Graph
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.contract import Refused
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.invariants.circuits import check_done, check_enough
from scaleinv_ray.probes.corrupted import Pairs

VALIDATED = 16
"""Components, at least, whose exact effects the estimator is held against."""
_RUNS = 2.0
"""Forwards of the clean and the corrupted run."""
_EXACT = 0.8
"""Share of what is left that goes to exact effects of single components."""
_GRADIENT = 2.0
"""Forwards of the estimate by one gradient."""
_TOGETHER = 1.0
"""Forwards of all components replaced at once."""
_RUNS_OF_EDGES = 40.0
"""Forwards that edges take at least, their estimate at the fewest points among them."""


@dataclass(frozen=True)
class Asked:
    """What is wanted.

    Attributes:
        metric: name; None takes the one that suits the probe.
        nodes: kinds of components: heads, mlp, embed.
        components: names of some of them instead.
        ablation: what replaces a component.
        edges: edges are scored too, and the largest measured exactly.
        budget: forward passes over the sequences, at most; None measures everything exactly.
        must_do: refuse a model that does not do the task.
        max_rows: rows of a batch.
        seed: of the random stratum, and of the game.
        draws: random orders and random edge sets, beside those that were found.
        game: the joint game.
    """

    metric: str | None = None
    nodes: tuple[str, ...] = ("heads", "mlp")
    components: tuple[str, ...] | None = None
    ablation: Ablation = "resample"
    edges: bool = False
    budget: float | None = None
    must_do: bool = True
    max_rows: int = 32
    seed: int = 0
    draws: int = 20
    game: bool = True

    def __post_init__(self) -> None:
        """Checks types and ranges, before a model is looked at.

        Raises:
            ValueError: naming the field.
        """
        for name in ("nodes", "components"):
            _check_names(name, getattr(self, name), is_optional=name == "components")
        for name in ("edges", "must_do"):
            if not isinstance(given := getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name}: got {shown(given)}, allowed True or False")
        most = self.budget
        is_number = isinstance(most, Real) and not isinstance(most, bool)
        if most is not None and (not is_number or np.isnan(most)):
            raise ValueError(f"budget: got {shown(most)}, allowed a number of forwards, or None")
        rows = self.max_rows
        if not isinstance(rows, int | np.integer) or isinstance(rows, bool) or rows < 1:
            raise ValueError(f"max_rows: got {shown(rows)}, allowed a whole number >= 1")

    @property
    def of_nodes(self) -> float | None:
        """The budget without what edges take after their estimate."""
        return self.budget and self.budget - RUNS * self.edges


def _check_names(name: str, given: object, *, is_optional: bool) -> None:
    if given is None and is_optional:
        return
    names = given if isinstance(given, tuple | list) else ()
    is_text = all(isinstance(one, str) for one in names)
    if not names or not is_text or len(set(names)) < len(names):
        raise ValueError(f"{name}: got {shown(given)}, allowed a tuple of names, each once")


Watch = Callable[[str, float], None]
"""Takes what is done and how many forwards it has taken so far, after every block."""


def measure(
    anatomy: Anatomy, pairs: Pairs, asked: Asked, *, watch: Watch = lambda doing, forwards: None
) -> Effects:
    """Effects of the components of a model.

    Everything is estimated by gradients; exact effects follow for all components, or within a
    budget for the largest tenth and a random stratum of the rest.

    Args:
        anatomy: of the model.
        pairs: clean and corrupted sequences.
        asked: what is wanted.
        watch: is told how far it is.

    Raises:
        ValueError: for what cannot be measured, before a forward pass; for a model that does not do
            the task, after two.
    """
    ready = _ready(anatomy, pairs, asked)
    experiment, chosen = ready.experiment, ready.chosen
    doing = _told(experiment, watch)
    doing("both runs")
    clean_S, corrupted_S = _ends(experiment)
    _check_finite(experiment.metric, clean_S, corrupted_S)
    if asked.must_do:
        check_task(experiment.metric, clean_S, corrupted_S)
    doing("estimates")
    scores, of_edges = _estimates(ready, asked)
    doing("exact effects")
    effect_NS = _exact(experiment, chosen, scores, clean_S, asked)
    missing = np.full((len(chosen), len(clean_S)), np.nan)
    graph = anatomy.graph
    found = Effects(
        components=tuple(graph.writers[c] for c in chosen),
        num_layers=graph.layers,
        effect_NS=effect_NS,
        estimate_NS=missing if scores is None else scores.nodes_WS[chosen],
        clean_S=clean_S,
        corrupted_S=corrupted_S,
        metric=experiment.metric,
        ablation=asked.ablation,
        method="none" if scores is None else _described(ready.method, scores),
        all_S=experiment.values(graph.masks([chosen]))[0] - clean_S,
        along_N=np.empty(0),
        sizes=(),
        accuracy=_accuracy(experiment),
        forwards=0.0,
    )
    doing("joint game")
    if asked.game and (game := _game(experiment, chosen, found, asked)) is not None:
        first = game.rankings[0]
        along_N = first.share_K * found.all_S.mean()
        found = replace(found, game=game, along_N=along_N, sizes=tuple(first.sizes_K.tolist()))
    doing("edges")
    if of_edges is not None:
        found = with_edges(
            experiment, found, of_edges, budget=asked.budget, draws=asked.draws, seed=asked.seed
        )
    return replace(found, forwards=experiment.surgery.forwards(experiment.sequences))


class _Ready(NamedTuple):
    """What is measured, once all is checked that can be before a forward pass.

    Attributes:
        experiment: of the model.
        chosen: indices of components.
        method: of the estimator.
        estimated: whether there is one.
    """

    experiment: Experiment
    chosen: list[int]
    method: Method
    estimated: bool


def _ready(anatomy: Anatomy, pairs: Pairs, asked: Asked) -> _Ready:
    graph = anatomy.graph
    nodes = tuple(n for n in asked.nodes if n != "mlp" or graph.mlps)
    if not nodes:
        raise ValueError("nodes: got mlp of a model without MLPs, allowed heads, embed")
    chosen = graph.of_kinds(nodes) if asked.components is None else graph.named(asked.components)
    metric = pairs.metric if asked.metric is None else asked.metric
    experiment = Experiment(Surgery(anatomy, asked.max_rows), pairs, metric, asked.ablation)
    pairs.check_rows()
    method: Method = "ig" if experiment.metric == "kl" else "gradient"
    estimated = asked.ablation == "resample"
    if estimated or asked.edges:
        check_estimate(experiment, method=method, edges=asked.edges)
    _check_budget(graph, chosen, asked, method if estimated else None)
    if asked.must_do:
        check_enough(experiment.sequences)
    return _Ready(experiment, chosen, method, estimated)


def _estimates(ready: _Ready, asked: Asked) -> tuple[Scores | None, Scores | None]:
    """Of components and of edges; integrated gradients of edges are those of components too."""
    experiment, method = ready.experiment, ready.method
    of_edges = _estimated(experiment, "ig", asked, edges=True) if asked.edges else None
    if method == "ig" and of_edges is not None:
        return of_edges, of_edges
    return _estimated(experiment, method, asked) if ready.estimated else None, of_edges


def _told(experiment: Experiment, watch: Watch) -> Callable[[str], None]:
    """Sets what is done; from then on every block is told to `watch`."""

    def doing(what: str) -> None:
        surgery = experiment.surgery
        surgery.watch = lambda: watch(what, surgery.forwards(experiment.sequences))

    return doing


def _check_budget(graph: Graph, chosen: list[int], asked: Asked, method: Method | None) -> None:
    """ValueError where not the least that is measured can be had."""
    if asked.budget is None:
        return
    if method is None:
        exact = cost(graph, chosen)
        least = _RUNS + max(exact / _EXACT, exact + _TOGETHER)
        what = f"every component, by ablation {asked.ablation!r}"
    else:
        # forward and backward at every point
        least = _RUNS + _GRADIENT * (FIRST_NODES if method == "ig" else 1) + _TOGETHER
        what = "the clean and the corrupted run, the estimate, all components together"
    edges = ", edges" if asked.edges else ""
    least += _RUNS_OF_EDGES * asked.edges
    if asked.budget < least:
        raise ValueError(
            f"budget: got {asked.budget:g} forwards, allowed >= {np.ceil(least):g} ({what}{edges})"
        )


def _check_finite(metric: str, clean_S: np.ndarray, corrupted_S: np.ndarray) -> None:
    odd = int((~(np.isfinite(clean_S) & np.isfinite(corrupted_S))).sum())
    if odd:
        raise ValueError(
            f"model: got {metric} nan or infinite on {odd} of {len(clean_S)} pairs, allowed a "
            "model with finite logits"
        )


def _game(experiment: Experiment, chosen: list[int], found: Effects, asked: Asked) -> Game | None:
    return play(
        experiment, chosen, found.best_NS, budget=asked.of_nodes, draws=asked.draws, seed=asked.seed
    )


def _estimated(
    experiment: Experiment, method: Method, asked: Asked, *, edges: bool = False
) -> Scores:
    most = np.inf
    if asked.of_nodes is not None:
        spent = experiment.surgery.forwards(experiment.sequences)
        most = asked.of_nodes - spent - _TOGETHER - _GRADIENT * edges
    return estimate(experiment, method=method, edges=edges, most=most)


def _described(method: Method, scores: Scores) -> str:
    if method == "gradient":
        return "AtP, gradient at A"
    return f"AtP-IG, {scores.points} points, complete to {scores.error:.1%}"


def _ends(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """m(A) and m(B), [S] each."""
    none_CW = experiment.anatomy.graph.masks([[]])
    clean, corrupted = (experiment.values(none_CW, denoise=end)[0] for end in (False, True))
    return clean, corrupted


def check_task(metric: str, clean_S: np.ndarray, corrupted_S: np.ndarray) -> None:
    """Refuses a model that does not do the task, as `invariants.circuits.check_done`.

    Args:
        metric: name.
        clean_S: m(A).
        corrupted_S: m(B).

    Raises:
        ValueError: with the reason.
    """
    try:
        check_done(metric, clean_S, corrupted_S)
    except Refused as refusal:
        raise ValueError(f"refused: {refusal}") from refusal


def _accuracy(experiment: Experiment) -> float:
    values = []
    for rows in experiment.batches:
        stream = rows.clean.stream[-1][None]
        metric = metric_of("accuracy", rows.pairs, device=stream.device)
        values.append(metric(experiment.anatomy, stream)[0].detach().cpu().numpy())
    return float(np.concatenate(values).mean())


def cost(graph: Graph, chosen: list[int]) -> float:
    """Forwards of exact effects of single components, each from its layer on."""
    return sum(1 - max(graph.writers[c].layer, 0) / graph.layers for c in chosen)


def _exact(
    experiment: Experiment, chosen: list[int], scores: Scores | None, clean_S: np.ndarray,
    asked: Asked,
) -> np.ndarray:  # fmt: skip
    """Exact effects [N, S]; nan where the budget leaves a component to the estimator."""
    wanted = _affordable(experiment, chosen, scores, asked)
    effect_NS = np.full((len(chosen), len(clean_S)), np.nan)
    masks = experiment.anatomy.graph.masks([[chosen[n]] for n in wanted])
    effect_NS[wanted] = experiment.values(masks) - clean_S
    return effect_NS


def _affordable(
    experiment: Experiment, chosen: list[int], scores: Scores | None, asked: Asked
) -> list[int]:
    graph, budget = experiment.anatomy.graph, asked.of_nodes
    spent = experiment.surgery.forwards(experiment.sequences)
    left = np.inf
    if budget is not None:
        # the joint game and all together come after: a fifth of what is left
        left = min(_EXACT * (budget - spent), budget - spent - _TOGETHER)
    everything = list(range(len(chosen)))
    if cost(graph, chosen) <= left:
        return everything
    assert scores is not None, "every component can be had, or `_check_budget` refuses"
    size_N = np.abs(scores.nodes_WS[chosen].mean(axis=1))
    order = np.argsort(-size_N, kind="stable")
    top = max(1, round(TOP * len(chosen)))
    rest = np.random.default_rng(asked.seed).permutation(order[top:])
    wanted: list[int] = []
    for n in [*order[:top].tolist(), *rest[: max(VALIDATED - top, 0)].tolist()]:
        if cost(graph, [chosen[m] for m in (*wanted, n)]) > left:
            break
        wanted.append(n)
    return sorted(wanted)
