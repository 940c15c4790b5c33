"""Circuits: which components of a model an answer hangs on, found by cutting and patching them.

`circuits` measures a live model on given tokens, `folders.circuits_of` a checkpoint on a probe;
both give a `Circuits`, whose `effects` are per sequence. Below them: `surgery` (hooks and reruns of
a live model), `effects` (exact, estimated, joint, within a budget), `attribution` (to logits,
tokens, inputs that excite a unit), `readings` (probes, rules, modules, heads) and `compiled`
(models whose circuits are known).
"""

from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.circuitry.live import circuits
from scaleinv_ray.circuitry.summary import Circuits

__all__ = ["Circuits", "Effects", "circuits"]
