"""One model, one probe in pairs: what is measured for which budget, in which order.

Shape suffixes: C sets, N components, S sequences, W writers, R readers, E edges, K sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from scaleinv_ray.circuitry.effects.estimators import Method, Scores, check_estimate, estimate
from scaleinv_ray.circuitry.effects.interventions import Ablation, Experiment, edge_values
from scaleinv_ray.circuitry.effects.metrics import metric_of
from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.components import Graph
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.invariants.circuits import FRACTIONS
from scaleinv_ray.probes.corrupted import Pairs

VALIDATED = 16
"""Components, at least, whose exact effects the estimator is held against."""
_TOP = 0.1
_SIZES = 10
_EDGES = 12
_LEVEL = 0.05
_RUNS = 2.0
"""Forwards of the clean and the corrupted run."""


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
        seed: of the random stratum.
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


def measure(anatomy: Anatomy, pairs: Pairs, asked: Asked) -> Effects:
    """Effects of the components of a model.

    Everything is estimated by gradients; exact effects follow for all components, or within a
    budget for the largest tenth and a random stratum of the rest.

    Raises:
        ValueError: for what cannot be measured, before a forward pass; for a model that does not do
            the task, after two.
    """
    graph = anatomy.graph
    nodes = tuple(n for n in asked.nodes if n != "mlp" or graph.mlps)
    chosen = graph.of_kinds(nodes) if asked.components is None else graph.named(asked.components)
    surgery = Surgery(anatomy, asked.max_rows)
    experiment = Experiment(surgery, pairs, asked.metric or pairs.metric, asked.ablation)
    method: Method = "ig" if experiment.metric == "kl" else "gradient"
    estimated = asked.ablation == "resample"
    if estimated or asked.edges:
        check_estimate(experiment, method=method, edges=asked.edges)
    if asked.budget is not None and asked.budget < _RUNS:
        raise ValueError(
            f"budget: got {asked.budget:g} forwards, allowed >= {_RUNS:g} (the clean and the "
            "corrupted run)"
        )
    clean_S, corrupted_S = _ends(experiment)
    if asked.must_do:
        check_task(experiment.metric, clean_S, corrupted_S)
    accuracy = _accuracy(experiment)
    scores = estimate(experiment, method=method) if estimated else None
    effect_NS = _exact(experiment, chosen, scores, clean_S, asked)
    missing = np.full((len(chosen), len(clean_S)), np.nan)
    found = Effects(
        components=tuple(graph.writers[c] for c in chosen),
        num_layers=graph.layers,
        effect_NS=effect_NS,
        estimate_NS=missing if scores is None else scores.nodes_WS[chosen],
        clean_S=clean_S,
        corrupted_S=corrupted_S,
        metric=experiment.metric,
        ablation=asked.ablation,
        method="none" if scores is None else _described(method, scores),
        all_S=experiment.values(graph.masks([chosen]))[0] - clean_S,
        along_N=np.empty(0),
        sizes=(),
        accuracy=accuracy,
        forwards=0.0,
    )
    found = _jointly(experiment, chosen, found, asked)
    if asked.edges:
        found = _with_edges(experiment, found)
    return replace(found, forwards=surgery.forwards(experiment.sequences))


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
    """Refuses a model that does not do the task: a circuit of a failing one is noise.

    A sequence counts as done where A's answers are preferred (logit_diff, prob_diff > 0), or are
    likelier after A than after B (loss, kl). By chance that is every second one.

    Args:
        metric: name.
        clean_S: m(A).
        corrupted_S: m(B).

    Raises:
        ValueError: where it is not done more often than by chance at the level .05, one-sided.
    """
    done_S = clean_S > 0 if metric in {"logit_diff", "prob_diff"} else clean_S < corrupted_S
    done, count = int(done_S.sum()), len(done_S)
    p = stats.binomtest(done, count, 0.5, alternative="greater").pvalue
    if p >= _LEVEL:
        raise ValueError(
            f"refused: the model does not do the task: got {done} of {count} sequences right "
            f"(p = {p:.2g}), allowed p < {_LEVEL} against chance 1/2; its circuit would be noise"
        )


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
    graph, budget = experiment.anatomy.graph, asked.budget
    spent = experiment.surgery.forwards(experiment.sequences)
    # the joint game and all together come after: a fifth of what is left
    left = np.inf if budget is None else 0.8 * (budget - spent)
    everything = list(range(len(chosen)))
    if cost(graph, chosen) <= left:
        return everything
    if scores is None:
        raise ValueError(
            f"budget: got {budget:g} forwards, {cost(graph, chosen) + spent:.0f} are needed for "
            f"every component by ablation {experiment.ablation!r}; allowed more, or 'resample'"
        )
    size_N = np.abs(scores.nodes_WS[chosen].mean(axis=1))
    order = np.argsort(-size_N, kind="stable")
    top = max(1, round(_TOP * len(chosen)))
    rest = np.random.default_rng(asked.seed).permutation(order[top:])
    wanted: list[int] = []
    for n in [*order[:top].tolist(), *rest[: max(VALIDATED - top, 0)].tolist()]:
        if cost(graph, [chosen[m] for m in (*wanted, n)]) > left:
            break
        wanted.append(n)
    return sorted(wanted)


def _jointly(experiment: Experiment, chosen: list[int], found: Effects, asked: Asked) -> Effects:
    """V of the first k of the ranking: ranked on even sequences, run on odd ones."""
    held = experiment
    ranked_NS = found.best_NS
    if experiment.sequences > 1:
        held = replace(experiment, pairs=experiment.pairs.some(slice(1, None, 2)))
        ranked_NS = ranked_NS[:, ::2]
    order = np.argsort(-np.abs(ranked_NS.mean(axis=1)), kind="stable")
    n = len(chosen)
    sizes = sorted({1, n, *np.unique(np.geomspace(1, n, _SIZES).round().astype(int)).tolist()})
    if asked.budget is not None:
        spent = experiment.surgery.forwards(experiment.sequences)
        share = held.sequences / experiment.sequences
        if spent + share * (len(sizes) + _RUNS) > asked.budget:
            return found
    masks = experiment.anatomy.graph.masks([[], *([chosen[i] for i in order[:k]] for k in sizes)])
    values_CS = held.values(masks)
    return replace(found, along_N=(values_CS[1:] - values_CS[:1]).mean(axis=1), sizes=tuple(sizes))


def _with_edges(experiment: Experiment, found: Effects) -> Effects:
    """Edges by EAP-IG; the largest exactly, and what the largest alone can do."""
    graph = experiment.anatomy.graph
    scores = estimate(experiment, method="ig", edges=True)
    assert scores.edges_WRS is not None, "asked for"
    where_E2 = np.argwhere(graph.edges_WR)
    score_ES = scores.edges_WRS[where_E2[:, 0], where_E2[:, 1]]
    order = np.argsort(-np.abs(score_ES[:, ::2].mean(axis=1)), kind="stable")
    top = order[:_EDGES]
    masks_CWR = np.zeros((len(top), *graph.edges_WR.shape), dtype=bool)
    masks_CWR[(np.arange(len(top)), *where_E2[top].T)] = True
    parts = [edge_values(experiment.surgery, rows, masks_CWR) for rows in experiment.batches]
    kept_K, faithful_K = faithfulness(experiment, where_E2[order])
    return replace(
        found,
        edges=tuple(graph.edge_name(*where_E2[e]) for e in top),
        edge_ES=np.concatenate(parts, axis=1) - found.clean_S,
        edge_estimate_ES=score_ES[top],
        num_edges=len(where_E2),
        kept_K=kept_K,
        faithful_K=faithful_K,
    )


def faithfulness(experiment: Experiment, ranked_E2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F of circuits that keep the first edges of a ranking, all others from B.

    Args:
        experiment: by resampling; odd sequences are read where there are two or more.
        ranked_E2: indices of writer and reader, best first.

    Returns:
        Shares of edges that are kept, and f of each: (m(kept) - m(B)) / (m(A) - m(B)).
    """
    held = experiment
    if experiment.sequences > 1:
        held = replace(experiment, pairs=experiment.pairs.some(slice(1, None, 2)))
    graph, count = experiment.anatomy.graph, len(ranked_E2)
    sizes = sorted({max(1, round(f * count)) for f in FRACTIONS})
    masks_CWR = np.repeat(graph.edges_WR[None], len(sizes), axis=0)
    for n, size in enumerate(sizes):
        masks_CWR[n, ranked_E2[:size, 0], ranked_E2[:size, 1]] = False
    kept_CS = np.concatenate(
        [edge_values(held.surgery, rows, masks_CWR) for rows in held.batches], axis=1
    )
    clean_S, corrupted_S = _ends(held)
    gap = clean_S.mean() - corrupted_S.mean()
    return np.array(sizes) / count, (kept_CS.mean(axis=1) - corrupted_S.mean()) / gap
