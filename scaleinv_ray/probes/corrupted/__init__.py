"""Probes in pairs: a clean sequence and a corrupted one, whose answers differ.

`corrupt(name, request)` is the whole of it; what can be had is in `CORRUPTED`.
"""

from scaleinv_ray.probes.corrupted.making import CORRUPTED, corrupt
from scaleinv_ray.probes.corrupted.pairs import Pairs

__all__ = ["CORRUPTED", "Pairs", "corrupt"]
