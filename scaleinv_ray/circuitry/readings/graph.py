"""Modules of the graph of edge effects: which components work together more than with others.

Shape suffixes: M components (embedding first, logits last), W writers, R readers, S sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleinv_ray.circuitry.effects.edges import between_components
from scaleinv_ray.circuitry.effects.estimators import estimate
from scaleinv_ray.circuitry.effects.interventions import Experiment
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.invariants.circuits import Modularity, modularity

_SHOWN = 6
_WIDTH = 96


@dataclass(frozen=True)
class Modules:
    """Modules beside those of rewired graphs.

    Attributes:
        found: Q and its rewirings.
        names: of components, the logits last.
    """

    found: Modularity
    names: tuple[str, ...]

    @property
    def modules(self) -> list[list[str]]:
        """Names, the largest module first."""
        of_N = self.found.module_N
        return [
            [name for name, m in zip(self.names, of_N, strict=True) if m == module]
            for module in range(of_N.max() + 1)
        ]

    def as_json(self) -> dict[str, Any]:
        """{q, rewired_mean, rewired_sd, z, p, modules: [[names]]}."""
        rewired_R = self.found.rewired_R
        return {
            "q": self.found.q,
            "rewired_mean": float(rewired_R.mean()),
            "rewired_sd": float(rewired_R.std(ddof=1)),
            "z": self.found.z,
            "p": self.found.p,
            "modules": self.modules,
        }

    def lines(self) -> list[str]:
        """Q beside rewirings, what that says, and the modules."""
        found, rewired_R = self.found, self.found.rewired_R
        is_one = found.p <= 0.05
        rows = [
            f"modularity of the edges: Q = {found.q:.3f}; {len(rewired_R)} graphs of the same "
            f"strengths: {rewired_R.mean():.3f} +- {rewired_R.std(ddof=1):.2g} (sd)",
            f"z = {found.z:+.1f}, p = {found.p:.3f}: "
            + (
                "edges fall into modules"
                if is_one
                else "no more modules than strengths alone give; the division says nothing"
            ),
        ]
        if not is_one:
            return rows
        several = [module for module in self.modules if len(module) > 1]
        for module in several[:_SHOWN]:
            line = "  " + " ".join(module)
            rows.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]} ..")
        if (left := len(self.modules) - len(several[:_SHOWN])) > 0:
            rows.append(f"  .. and {left} more")
        return rows


def modules(subject: Subject) -> Modules:
    """Modules of all edges, by EAP-IG on the subject's metric.

    Raises:
        ValueError: for a model whose heads do not add up, or integrated gradients that do not
            become complete.
    """
    graph, effects = subject.anatomy.graph, subject.effects
    effect_MMS = effects.between_MMS
    if not effect_MMS.size:
        experiment = Experiment(Surgery(subject.anatomy), subject.pairs, effects.metric)
        scores = estimate(experiment, method="ig", edges=True)
        assert scores.edges_WRS is not None, "asked for"
        effect_MMS = between_components(graph, scores.edges_WRS)
    names = (*(str(writer) for writer in graph.writers), "logits")
    return Modules(modularity(effect_MMS, rng=np.random.default_rng(subject.seed)), names)
