"""The one list of analyses beside the effects: what `--with` names; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable

from scaleinv_ray.circuitry.attribution.direct import direct_logits
from scaleinv_ray.circuitry.attribution.maxima import activation_maxima
from scaleinv_ray.circuitry.attribution.tokens import token_scores
from scaleinv_ray.circuitry.effects.subject import Analysis, Subject
from scaleinv_ray.circuitry.heads import signatures
from scaleinv_ray.circuitry.readings.graph import modules
from scaleinv_ray.circuitry.readings.linear import linear_probes
from scaleinv_ray.circuitry.readings.positions import by_position
from scaleinv_ray.circuitry.readings.rules import surrogate

ANALYSES: dict[str, Callable[[Subject], Analysis]] = {
    "positions": by_position,
    "direct": direct_logits,
    "tokens": token_scores,
    "maxima": activation_maxima,
    "probes": linear_probes,
    "surrogate": surrogate,
    "modularity": modules,
    "signatures": signatures,
}
"""Name -> what makes it of a subject; ValueError where a model or a probe does not allow it."""
