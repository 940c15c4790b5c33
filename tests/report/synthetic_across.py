"""What compares the models of the run that never happened, and its diagrams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from tests.report.synthetic_tables import LAYERS, SEEDS, SITE, SIZES, STEPS, place, unit

JUMP = 40.0
"""Step of the transition of every run of total_persistence_0."""


def _diagrams() -> Iterator[dict[str, Any]]:
    for width in SIZES:
        for variant in ("trained", "random_init"):
            for layer in range(LAYERS):
                rng = np.random.default_rng([width, layer, variant == "trained"])
                death = np.sort(rng.uniform(0.1, 1.0, 30))
                loops = rng.uniform(0.4, 0.8, 6)
                yield {
                    **unit(width, 0, STEPS[-1], variant),
                    **place("topology", "persistence", layer),
                    "params": "{}",
                    "diagram": "rips",
                    "dimension": [0] * 31 + [1] * 6,
                    "birth": [0.0] * 31 + loops.tolist(),
                    "death": [*death.tolist(), float("inf"), *(loops + 0.1).tolist()],
                }


def transition(**changes: Any) -> dict[str, Any]:
    """A row of the transitions."""
    row = {
        "series": "ladder", "model": "d32", "seed": 0, "probe": "prose", "family": "topology",
        "invariant": "topology.persistence", "quantity": "total_persistence_0", "site": SITE,
        "depth_bin": "all", "kind": "break", "step": JUMP, "step_low": 10.0, "step_high": 100.0,
        "slope_before": 0.1, "slope_after": 0.9, "p": 0.001, "q": 0.002,
        "n_asked": 24, "by_chance": 1.2, "n_seeds": 3, "n_agree": 3, "reason": "",
    }  # fmt: skip
    return {**row, **changes}


def _transitions() -> Iterator[dict[str, Any]]:
    for width in SIZES:
        for seed in SEEDS:
            yield transition(model=f"d{width}", seed=seed)
            nothing = dict.fromkeys((
                "step",
                "step_low",
                "step_high",
                "slope_before",
                "p",
                "q",
                "n_agree",
            ))
            yield transition(
                model=f"d{width}", seed=seed, quantity="betti_peak_1", invariant="topology.betti",
                kind="none", **nothing,
            )  # fmt: skip


def _where(family: str, invariant: str) -> dict[str, Any]:
    return {
        "series": "ladder", "probe": "prose", "family": family,
        "invariant": f"{family}.{invariant}", "site": SITE, "depth_bin": "all",
        "step": STEPS[-1], "reason": "",
    }  # fmt: skip


def _pairs() -> Iterator[dict[str, Any]]:
    for a, b in combinations(SIZES, 2):
        ratio = SIZES[b] / SIZES[a]
        for quantity, shift in (("cka", 0.0), ("procrustes", 0.1)):
            value = 0.8 - 0.05 * np.log(ratio) - shift
            yield {
                **_where("representation", "paired_overlap"),
                "quantity": quantity, "variant": "trained", "model_a": f"d{a}", "model_b": f"d{b}",
                "n_params_a": SIZES[a], "n_params_b": SIZES[b], "value": value, "stderr": 0.01,
                "ceiling": 0.9, "ceiling_low": 0.88, "ceiling_high": 0.92, "floor": 0.2,
                "relative": (value - 0.2) / 0.7, "n_pairs": 3,
            }  # fmt: skip


def _collapses() -> Iterator[dict[str, Any]]:
    for variant, quality in (("trained", 3.5), ("random_init", 40.0)):
        yield {
            **_where("topology", "betti"),
            "curve": "betti_curve_1", "variant": variant, "S": quality, "S_rescaled": 1.1,
            "exponent_x": 0.05, "exponent_y": 0.2, "supercollapse": 0.7, "n_models": 4,
            "n_seeds": 3,
        }  # fmt: skip


def _classes() -> Iterator[dict[str, Any]]:
    for i, members in enumerate((["96", "128"], ["32"], ["64"])):
        yield {
            **_where("renormalization", "critical_exponents"),
            "comparison": "sizes", "n_params": None, "outcome": "different", "class": i,
            "members": members, "distance": 0.8 if len(members) > 1 else None,
            "width": 0.6 if len(members) > 1 else None, "apart": 5.2, "p": 0.001, "quality": 1.2,
            "n_seeds": 3, "reason": "without z_tilde",
        }  # fmt: skip


def _capability(**changes: Any) -> dict[str, Any]:
    blank = dict.fromkeys(SCHEMAS["capabilities"].names)
    return blank | {"task": "induction", "metric": "acc", "stderr": 0.01, "chance": 0.25} | changes


def _capabilities() -> Iterator[dict[str, Any]]:
    for width, n_params in SIZES.items():
        for seed in SEEDS:
            for step in STEPS:
                yield _capability(
                    model=f"d{width}", seed=seed, step=step, tokens=step * 2048, n_params=n_params,
                    value=0.5 * (1 + seed) * (0.2 + 0.001 * step),
                )  # fmt: skip
    # published: no seed, size unknown, the last without tokens
    for tokens, value in ((1000, 0.5), (4000, 0.6), (None, 0.7)):
        yield _capability(model="lab/d40", task="piqa", tokens=tokens, value=value, chance=None)


def _emergence() -> Iterator[dict[str, Any]]:
    found = {
        "correlation": 0.9, "p_given_loss": 0.02, "lead": 0.9, "lead_low": 0.7, "lead_high": 1.1,
        "predicted": 10.0, "predicted_low": 9.8, "predicted_high": 10.2, "observed": 10.1,
        "naive_error": 0.4,
    }  # fmt: skip
    blank = dict.fromkeys(SCHEMAS["emergence"].names) | _where("topology", "persistence")
    del blank["step"]
    blank |= {"task": "induction", "metric": "acc", "spacing": 0.5, "least_p": 0.001}
    for i, (outcome, p, reason) in enumerate((
        ("refused", None, "2 runs, needs 5"),
        ("not_established", 0.4, ""),
        ("refused", None, "least p is 0.5, needs <= 0.05"),
        ("associated", 0.01, ""),
        ("refused", None, "4 runs, needs 5"),
        ("predicts", 0.002, ""),
    )):
        yield blank | (found if p else {}) | {
            "quantity": "total_persistence_0" if i else "total_persistence_1", "outcome": outcome,
            "p": p, "q": p and 5.5 * p, "n_asked": p and 3, "by_chance": p and 0.12,
            "n_runs": 12 if p else 2, "n_sizes": 4 if p else 1, "reason": reason,
        }  # fmt: skip


EMERGENCE_ROWS = 6


def _table(name: str, rows: Iterator[dict[str, Any]]) -> pa.Table:
    """Rows that say what a figure draws, the rest of their columns left empty."""
    schema = SCHEMAS[name]
    return tables.encode((dict.fromkeys(schema.names) | row for row in rows), schema)


def across() -> dict[str, pa.Table]:
    """Tables that a run may have beside those that every run has."""
    return {
        "diagrams": tables.encode(_diagrams(), tables.DIAGRAMS),
        "transitions": _table("transitions", _transitions()),
        "pairs": _table("pairs", _pairs()),
        "collapses": _table("collapses", _collapses()),
        "classes": _table("classes", _classes()),
        "capabilities": _table("capabilities", _capabilities()),
        "emergence": _table("emergence", _emergence()),
    }
