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
    return [_first(model), *_jointly(model), *_untrained(model), *_edges(model)]


def _first(model: Mapping[str, Any]) -> str:
    strong = _strong(model)
    shown = [f"{c['name']} ({_pm(c['effect'], c['stderr'])})" for c in strong[:_FEW]]
    if len(strong) > _FEW:
        shown.append(f"{len(strong) - _FEW} more")
    metric = model["metric"].replace("_", " ")
    return (
        f"On {model['probe']}, {model['model']} hangs on {_listed(shown)}: what replacing each "
        f"alone adds to the {metric}, {model['clean']:.3g} on clean sequences and "
        f"{model['corrupted']:.3g} on corrupted ones.".replace(" -", " −")
    )


def _strong(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Components above their noise and not small beside the largest, largest first."""
    ranked = sorted(model["components"], key=lambda c: -abs(c["effect"]))
    least = _SMALL * abs(ranked[0]["effect"])
    found = [c for c in ranked if abs(c["effect"]) >= max(least, 2 * (c["stderr"] or 0.0))]
    return found or ranked[:1]


def _jointly(model: Mapping[str, Any]) -> list[str]:
    count, game = len(model["components"]), model["game"]
    joint = model["quantities"]["n90_joint"]
    if not game or "refused" in joint:
        return [f"What they do together is not known ({joint.get('refused', 'not measured')})."]
    best = min(game["rankings"], key=lambda ranking: ranking["n90"])
    how = {"single": "single effects", "shapley": "Shapley shares", "greedy": "greedy choice"}
    few = "replaced alone" if best["n90"] == 1 else f"replaced together ({best['n90']} components)"
    return [
        f"{_listed(best['first'])}, {few}, do{'es' if best['n90'] == 1 else ''} 90 % of what "
        f"replacing all {count} does; ranked by {how[best['name']]}."
    ]


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


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:_FEW], f"{len(names) - _FEW} more"] if len(names) > _FEW + 1 else list(names)
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _pm(value: float, stderr: float | None, sign: str = "+") -> str:
    shown = f"{value:{sign}.3g}".replace("-", "−")
    return shown if stderr is None else f"{shown} ± {stderr:.2g}"
