"""What a person reads of measured effects: a table in the terminal, and the same as JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scaleinv_ray.circuitry.analysed import Analysed
from scaleinv_ray.circuitry.effects.record import Effects, Game
from scaleinv_ray.circuitry.quantities import curve, mean, quantities
from scaleinv_ray.circuitry.training import Training
from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.invariants.circuits import auroc, faithfulness, precision_at

_TOP = 10
_WIDTH = 96
_SELDOM = 0.5
"""Accuracy below which it is said that an answer that is preferred is not yet one that is given."""


@dataclass(frozen=True)
class Circuits:
    """Effects of a model, and of the same model untrained.

    Attributes:
        name: of the model.
        probe: name, or what was given.
        effects: of the model.
        untrained: of a random initialisation; None where it was not measured.
        acceptance: share of the drawn pairs that could be used.
        facts: what else is known of the model, as n_params and step.
        analyses: what was asked for beside the effects.
        training: effects over the steps of the run; None where they were not asked for.
    """

    name: str
    probe: str
    effects: Effects
    untrained: Effects | None = None
    acceptance: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    analyses: tuple[Analysed, ...] = ()
    training: Training | None = None

    def top(self, count: int = _TOP) -> list[tuple[str, Estimate, bool]]:
        """Name, effect with its standard error over sequences, whether it is exact."""
        e = self.effects
        mean_N = e.best_NS.mean(axis=1)
        order = np.argsort(-np.abs(mean_N), kind="stable")[:count]
        return [(str(e.components[n]), mean(e.best_NS[n]), bool(e.exact_N[n])) for n in order]

    def top_edges(self) -> list[tuple[str, Estimate, float]]:
        """Name, exact effect, estimate; largest exact effects first."""
        if not self.effects.edges:
            return []
        e = self.effects
        order = np.argsort(-np.abs(e.edge_ES.mean(axis=1)), kind="stable")
        return [
            (e.edges[n], mean(e.edge_ES[n]), float(e.edge_estimate_ES[n].mean())) for n in order
        ]

    def quantities(self) -> dict[str, dict[str, Any]]:
        """Name -> value, stderr, untrained, trivial; or refused, with the reason."""
        return quantities(self.effects, self.untrained)

    def against(self, edges: Collection[str]) -> dict[str, float]:
        """How well the ranking of edges finds those of a known circuit (MIB, arXiv:2504.13151).

        Args:
            edges: names, as `embed->v0.0`.

        Returns:
            precision: share of them among as many of the largest; random: their share of all.
            auroc: probability that one of them is ranked before another edge; random: 1/2.

        Raises:
            ValueError: where edges were not measured, for one that the model does not have, and
                for all or none.
        """
        e = self.effects
        if not e.scored:
            raise ValueError("edges: got a measurement without them, allowed one with edges=True")
        if strange := sorted(set(edges) - set(e.scored)):
            raise ValueError(f"edges: got {shown(strange[0])}, allowed those of the model")
        true_E = np.isin(e.scored, list(edges))
        area = auroc(e.score_E, true_E)  # refuses all and none
        return {"precision": precision_at(e.score_E, true_E), "auroc": area}

    def as_json(self) -> dict[str, Any]:
        """All of it, in what JSON has: null where a number is not finite."""
        e = self.effects
        check = e.validation()
        told = {
            "model": self.name,
            **self.facts,
            "probe": self.probe,
            "metric": e.metric,
            "ablation": e.ablation,
            "sequences": len(e.clean_S),
            "acceptance": self.acceptance,
            "clean": float(e.clean_S.mean()),
            "corrupted": float(e.corrupted_S.mean()),
            "accuracy": e.accuracy,
            "n_layers": e.num_layers,
            "components": _components(e),
            "untrained": None if self.untrained is None else _components(self.untrained),
            "sorted": curve(e),
            "edges": [
                {"name": name, "effect": x.value, "stderr": x.stderr, "estimate": estimate}
                for name, x, estimate in self.top_edges()
            ],
            "num_edges": e.num_edges,
            "scored_edges": [
                {"name": name, "estimate": float(score)}
                for name, score in zip(e.scored, e.score_E, strict=True)
            ],
            "faithfulness": _faithfulness(e),
            "game": None if e.game is None else _game(e.game, e),
            "quantities": self.quantities(),
            "estimator": {
                "method": e.method, "r": check.r, "exact": int(e.exact_N.sum()),
                "missed": check.missed, "outside": check.outside, "missed_bound": check.bound,
            },
            "forwards": e.forwards,
            "analyses": {found.name: found.as_json() for found in self.analyses},
            "training": None if self.training is None else self.training.as_json(),
        }  # fmt: skip
        found: dict[str, Any] = _finite(told)
        return found

    def lines(self) -> list[str]:
        """The table of the terminal."""
        found = [*self._head(), "", *self._components(), "", *self._numbers(), *self._edges(), "",
                 *self._cost()]  # fmt: skip
        for analysed in self.analyses:
            found += ["", *analysed.lines()]
        return found if self.training is None else [*found, "", *self.training.lines()]

    def _head(self) -> list[str]:
        e = self.effects
        clean, corrupted = mean(e.clean_S), mean(e.corrupted_S)
        lines = [
            f"{self.name}, probe {self.probe}: {len(e.clean_S)} pairs, A clean, B corrupted"
            + ("" if self.acceptance == 1 else f", {self.acceptance:.0%} of those drawn"),
            f"{e.metric}: A {_pm(clean)}, B {_pm(corrupted)}; accuracy {e.accuracy:.3f}",
        ]
        if e.metric == "logit_diff" and e.accuracy < _SELDOM:
            lines.append(
                f"it prefers A's answer to B's, yet gives it at {e.accuracy:.1%} of places only"
            )
        return lines

    def _components(self) -> list[str]:
        e = self.effects
        rows = [f"{'component':<12}{'effect':>10}{'+-':>9}   replaced by {_ablations(e.ablation)}"]
        for name, x, exact in self.top():
            error = "?" if x.stderr is None else f"{x.stderr:.2g}"
            weak = x.stderr is None or abs(x.value) < 2 * x.stderr
            notes = ["within its noise"] * weak + ["estimated"] * (not exact)
            rows.append(f"{name:<12}{_fixed(x.value):>10}{error:>9}   {', '.join(notes)}".rstrip())
        left = len(e.components) - _TOP
        return [*rows, *([f".. and {left} more"] if left > 0 else [])]

    def _numbers(self) -> list[str]:
        title = f"of {len(self.effects.components)} components"
        rows = [f"{title:<20}{'value':>9}{'+-':>9}{'untrained':>11}{'trivial':>9}"]
        for name, q in self.quantities().items():
            cells = [_cell(q.get(k)) for k in ("value", "stderr", "untrained", "trivial")]
            why = q.get("refused")
            line = f"{name:<20}{cells[0]:>9}{cells[1]:>9}{cells[2]:>11}{cells[3]:>9}".rstrip()
            rows.append(f"{name:<20} refused: {why}" if why else line)
        refused: dict[str, list[str]] = {}
        for name, q in self.quantities().items():
            if "untrained_refused" in q:
                refused.setdefault(q["untrained_refused"], []).append(name)
        for why, names in refused.items():
            said = f"untrained {', '.join(names)} refused: {why}"
            rows += textwrap.wrap(said, _WIDTH, subsequent_indent="  ")
        return rows

    def _edges(self) -> list[str]:
        e = self.effects
        if not e.edges:
            return []
        rows = ["", f"{'edge':<20}{'exact':>10}{'+-':>9}{'EAP-IG':>10}   of {e.num_edges} edges"]
        for name, x, estimate in self.top_edges():
            error = "?" if x.stderr is None else f"{x.stderr:.2g}"
            rows.append(f"{name:<20}{_fixed(x.value):>10}{error:>9}{_fixed(estimate):>10}")
        return rows

    def _cost(self) -> list[str]:
        e = self.effects
        exact = int(e.exact_N.sum())
        said = [f"{exact} of {len(e.components)} effects exact; {e.forwards:.0f} forwards"]
        if e.game is not None and e.game.left_out:
            left = ", ".join(e.game.left_out)
            said.append(
                f"left out of the joint game, as its part of the forwards ended: {left} (more: "
                "--budget)"
            )
        if e.method == "none":
            return said
        check = e.validation()
        r = "no spread" if check.r is None else f"r = {check.r:.3f}"
        said.insert(0, f"estimator ({e.method}) against {check.exact} exact: {r}")
        if check.outside:
            said.insert(
                1,
                f"larger than the least of its top tenth, yet outside: {check.missed} of "
                f"{check.outside} (a rate <= {check.bound:.2f} at 95 %)",
            )
        return said


def _finite(told: Any) -> Any:
    """The same with None for every float that JSON has not."""
    if isinstance(told, Mapping):
        return {name: _finite(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [_finite(value) for value in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told


def _components(e: Effects) -> list[dict[str, Any]]:
    guess_N = e.estimate_NS.mean(axis=1)
    shares = None if e.game is None or not len(e.game.shapley_N) else e.game
    found = []
    for n, c in enumerate(e.components):
        x = mean(e.best_NS[n])
        row = {"name": str(c), "kind": c.kind, "layer": c.layer, "head": c.head,
               "effect": x.value, "stderr": x.stderr, "exact": bool(e.exact_N[n]),
               "estimate": float(guess_N[n]) if np.isfinite(guess_N[n]) else None}  # fmt: skip
        if shares is not None:
            row |= {"shapley": float(shares.shapley_N[n]),
                    "shapley_stderr": float(shares.stderr_N[n])}  # fmt: skip
        found.append(row)
    return found


def _faithfulness(e: Effects) -> dict[str, Any] | None:
    if not len(e.kept_K):
        return None
    try:
        faithful_K = faithfulness(e.alone_KH, *e.ends_2H)
    except Refused:
        return None
    found: dict[str, Any] = {"kept": e.kept_K.tolist(), "faithful": faithful_K.tolist()}
    return found | _band(e.random_DK)


def _band(random_DK: np.ndarray) -> dict[str, Any]:
    """The middle and the 5 and 95 % quantiles of random draws."""
    if not len(random_DK):
        return {"draws": 0}
    low, middle, high = np.quantile(random_DK, (0.05, 0.5, 0.95), axis=0)
    return {"draws": len(random_DK), "random_low": low.tolist(), "random": middle.tolist(),
            "random_high": high.tolist()}  # fmt: skip


def _game(game: Game, e: Effects) -> dict[str, Any]:
    rankings = [
        {
            "name": ranking.name,
            "n90": ranking.n90,
            "sizes": ranking.sizes_K.tolist(),
            "share": ranking.share_K.tolist(),
            "first": [str(e.components[n]) for n in ranking.order_N[: ranking.n90]],
        }
        for ranking in game.rankings
    ]
    return {
        "rankings": rankings,
        "pairs": game.pairs,
        "sizes": game.random_sizes.tolist(),
        "left_out": list(game.left_out),
        **_band(game.random_DK),
    }


def _ablations(name: str) -> str:
    says = {"resample": "its value in B", "mean": "its mean in B", "zero": "zero",
            "mean_per_position": "its mean in B at each position"}  # fmt: skip
    return says[name]


def _pm(x: Estimate) -> str:
    return f"{x.value:.3f}" if x.stderr is None else f"{x.value:.3f} +- {x.stderr:.2g}"


def _fixed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) >= 5e-4 or value == 0 else f"{value:+.0e}"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
