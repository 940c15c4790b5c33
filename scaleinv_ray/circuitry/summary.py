"""What a person reads of measured effects: a table in the terminal, and the same as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleinv_ray.circuitry.effects.game import size_for
from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.circuits import (
    GAUSSIAN_PARTICIPATION,
    HALF_NORMAL_N90,
    circuit_metrics,
    depth_profile,
    n90,
    participation,
    redundancy,
)

_TOP = 10
_WIDTH = 96


@dataclass(frozen=True)
class Circuits:
    """Effects of a model, and of the same model untrained.

    Attributes:
        name: of the model.
        probe: name, or what was given.
        effects: of the model.
        untrained: of a random initialisation; None where it was not measured.
        acceptance: share of the drawn pairs that could be used.
    """

    name: str
    probe: str
    effects: Effects
    untrained: Effects | None = None
    acceptance: float = 1.0

    def top(self, count: int = _TOP) -> list[tuple[str, Estimate, bool]]:
        """Name, effect with its standard error over sequences, whether it is exact."""
        e = self.effects
        mean_N = e.best_NS.mean(axis=1)
        order = np.argsort(-np.abs(mean_N), kind="stable")[:count]
        return [(str(e.components[n]), _mean(e.best_NS[n]), bool(e.exact_N[n])) for n in order]

    def top_edges(self) -> list[tuple[str, Estimate, float]]:
        """Name, exact effect, estimate; largest exact effects first."""
        if not self.effects.edges:
            return []
        e = self.effects
        order = np.argsort(-np.abs(e.edge_ES.mean(axis=1)), kind="stable")
        return [
            (e.edges[n], _mean(e.edge_ES[n]), float(e.edge_estimate_ES[n].mean())) for n in order
        ]

    def quantities(self) -> dict[str, dict[str, Any]]:
        """Name -> value, stderr, untrained, trivial; or refused, with the reason."""
        e = self.effects
        n = len(e.components)
        wanted: dict[str, tuple[Callable[[Effects], Estimate], float | None]] = {
            "participation": (lambda x: participation(x.best_NS), GAUSSIAN_PARTICIPATION * n),
            "n90": (lambda x: n90(x.best_NS), HALF_NORMAL_N90 * n),
            "n90_joint": (_n90_jointly, None),
            "depth_centre": (_centre, None),
            "redundancy": (lambda x: redundancy(x.best_NS, x.all_S), 1.0),
        }
        if len(e.kept_K):
            wanted["cpr"] = (lambda x: _area(x, "cpr"), None)
            wanted["cmd"] = (lambda x: _area(x, "cmd"), None)
        return {
            name: _said(of, e, self.untrained) | {"trivial": trivial}
            for name, (of, trivial) in wanted.items()
        }

    def as_json(self) -> dict[str, Any]:
        """All of it, in what JSON has."""
        e = self.effects
        return {
            "model": self.name,
            "probe": self.probe,
            "metric": e.metric,
            "ablation": e.ablation,
            "sequences": len(e.clean_S),
            "acceptance": self.acceptance,
            "clean": float(e.clean_S.mean()),
            "corrupted": float(e.corrupted_S.mean()),
            "accuracy": e.accuracy,
            "components": [
                {"name": str(c), "effect": x.value, "stderr": x.stderr, "exact": bool(exact)}
                for c, x, exact in zip(e.components, map(_mean, e.best_NS), e.exact_N, strict=True)
            ],
            "edges": [
                {"name": name, "effect": x.value, "stderr": x.stderr, "estimate": estimate}
                for name, x, estimate in self.top_edges()
            ],
            "num_edges": e.num_edges,
            "quantities": self.quantities(),
            "estimator": {"method": e.method, "r": e.agreement(), "exact": int(e.exact_N.sum())},
            "forwards": e.forwards,
        }

    def lines(self) -> list[str]:
        """The table of the terminal."""
        return [*self._head(), "", *self._components(), "", *self._numbers(), *self._edges(), "",
                *self._cost()]  # fmt: skip

    def _head(self) -> list[str]:
        e = self.effects
        clean, corrupted = _mean(e.clean_S), _mean(e.corrupted_S)
        return [
            f"{self.name}, probe {self.probe}: {len(e.clean_S)} pairs"
            + ("" if self.acceptance == 1 else f" ({self.acceptance:.0%} of those drawn)"),
            f"{e.metric}: clean {_pm(clean)}, corrupted {_pm(corrupted)}; "
            f"accuracy {e.accuracy:.3f}",
        ]

    def _components(self) -> list[str]:
        e = self.effects
        rows = [f"{'component':<12}{'effect':>10}{'+-':>9}   by {_ablations(e.ablation)}"]
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
        found = self.quantities().values()
        reason = {q["untrained_refused"] for q in found if "untrained_refused" in q}
        for why in sorted(reason):
            rows += textwrap.wrap(f"untrained refused: {why}", _WIDTH, subsequent_indent="  ")
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
        r = e.agreement()
        exact = int(e.exact_N.sum())
        against = "no spread" if r is None else f"r = {r:.3f}"
        first = "" if e.method == "none" else f"estimator ({e.method}) against exact: {against}; "
        return [f"{first}{exact} of {len(e.components)} effects exact; {e.forwards:.0f} forwards"]


def _said(
    of: Callable[[Effects], Estimate], effects: Effects, untrained: Effects | None
) -> dict[str, Any]:
    try:
        value = of(effects)
    except Refused as error:
        return {"refused": str(error)}
    found: dict[str, Any] = {"value": value.value, "stderr": value.stderr}
    if untrained is not None:
        try:
            found["untrained"] = of(untrained).value
        except Refused as error:
            found["untrained_refused"] = str(error)
    return found


def _n90_jointly(e: Effects) -> Estimate:
    if not e.sizes:
        raise Refused("budget: none left for the joint game")
    if e.along_N[-1] == 0:
        raise Refused("effects: got v(all) = 0")
    size = e.sizes[size_for(e.along_N) - 1]
    return Estimate(float(size), None, len(e.clean_S), "none")


def _centre(e: Effects) -> Estimate:
    layers_N = np.array([max(c.layer, 0) for c in e.components])
    return depth_profile(e.best_NS, layers_N, e.num_layers).centre


def _area(e: Effects, name: str) -> Estimate:
    if not len(e.kept_K):
        raise Refused("edges: not measured")
    areas = circuit_metrics(np.append(0.0, e.kept_K), np.append(0.0, e.faithful_K))
    return Estimate(getattr(areas, name), None, len(e.clean_S), "none")


def _mean(x_S: np.ndarray) -> Estimate:
    if len(x_S) < 2:
        return Estimate(float(x_S.mean()), None, len(x_S), "none")
    return Estimate(
        float(x_S.mean()), float(x_S.std(ddof=1) / np.sqrt(len(x_S))), len(x_S), "sequences"
    )


def _ablations(name: str) -> str:
    says = {"resample": "resampling from B", "mean": "the mean of B", "zero": "zero",
            "mean_per_position": "the mean of B per position"}  # fmt: skip
    return says[name]


def _pm(x: Estimate) -> str:
    return f"{x.value:.3f}" if x.stderr is None else f"{x.value:.3f} +- {x.stderr:.2g}"


def _fixed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) >= 5e-4 or value == 0 else f"{value:+.0e}"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
