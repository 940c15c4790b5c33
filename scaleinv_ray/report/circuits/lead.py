"""What was found in a model's circuit, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FEW = 6
_SMALL = 0.05
"""Share of the largest effect below which none is told in the first lines."""


def lead(model: Mapping[str, Any]) -> list[str]:
    """Sentences, the most telling one first.

    Args:
        model: as `Circuits.as_json`.

    Returns:
        Which components do it, their effects with errors, and the same model untrained beside.
    """
    return [_first(model), _effects(model), *_untrained(model), *_edges(model)]


def _first(model: Mapping[str, Any]) -> str:
    name, probe, count = model["model"], model["probe"], len(model["components"])
    game = model["game"]
    if not game:
        return (
            f"{name} on {probe}: {_quantity(model, 'n90')} of {count} components hold 90 % of "
            "the sum of their single effects; what they do jointly was not measured."
        )
    best = min(game["rankings"], key=lambda ranking: ranking["n90"])
    how = {"single": "their single effects", "shapley": "Shapley shares", "greedy": "greedy choice"}
    chosen = "" if best["n90"] == 1 else f", {best['n90']} found by {how[best['name']]}"
    return (
        f"On {probe}, {name} hangs on {_listed(best['first'])}: replacing "
        f"{'it' if best['n90'] == 1 else 'them'} does 90 % of what replacing all {count} components "
        f"does{chosen}."
    )


def _effects(model: Mapping[str, Any]) -> str:
    largest = sorted(model["components"], key=lambda c: -abs(c["effect"]))
    least = _SMALL * abs(largest[0]["effect"])
    largest = [c for c in largest if abs(c["effect"]) >= least][:_FEW]
    said = ", ".join(f"{c['name']} {_pm(c['effect'], c['stderr'])}" for c in largest)
    metric = model["metric"].replace("_", " ")
    return (
        f"Largest effects on the {metric} ({model['clean']:.3g} clean, {model['corrupted']:.3g} "
        f"corrupted; accuracy {model['accuracy']:.2f}): {said}."
    )


def _untrained(model: Mapping[str, Any]) -> list[str]:
    if model["untrained"] is None:
        return ["The same model untrained was not measured."]
    said = []
    for name, words in (("participation", "participation"), ("n90_joint", "jointly for 90 %")):
        q = model["quantities"][name]
        if "refused" in q:
            said.append(f"{words} refused ({q['refused']})")
        else:
            untrained = "refused" if q.get("untrained") is None else f"{q['untrained']:.3g}"
            trivial = "" if q["trivial"] is None else f", trivial {q['trivial']:.3g}"
            said.append(
                f"{words} {_pm(q['value'], q.get('stderr'), sign='')} (untrained {untrained}"
                f"{trivial})"
            )
    return [f"Components that share the effect: {'; '.join(said)}."]


def _edges(model: Mapping[str, Any]) -> list[str]:
    if not model["edges"]:
        return []
    names = [edge["name"].replace("->", " → ") for edge in model["edges"][:5]]
    return [f"Edges of the largest effect, of {model['num_edges']}: {', '.join(names)}."]


def _quantity(model: Mapping[str, Any], name: str) -> str:
    q = model["quantities"][name]
    return "an unknown number" if "refused" in q else f"{q['value']:.3g}"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_FEW])
    more = len(names) - len(shown)
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _pm(value: float, stderr: float | None, sign: str = "+") -> str:
    shown = f"{value:{sign}.3g}".replace("-", "−")
    return shown if stderr is None else f"{shown} ± {stderr:.2g}"
