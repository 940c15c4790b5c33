"""The one list of analyses beside the effects: what `--with` names; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable

from scaleinv_ray.circuitry.attribution.direct import direct_logits
from scaleinv_ray.circuitry.attribution.maxima import activation_maxima
from scaleinv_ray.circuitry.attribution.tokens import token_scores
from scaleinv_ray.circuitry.subject import Analysis, Subject

ANALYSES: dict[str, Callable[[Subject], Analysis]] = {
    "direct": direct_logits,
    "tokens": token_scores,
    "maxima": activation_maxima,
}
"""Name -> what makes it of a subject; ValueError where a model or a probe does not allow it."""
