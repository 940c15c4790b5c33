"""Which invariants are conserved over model size: from measured rows to verdicts."""

from scaleinv_ray.conservation.judge import judge
from scaleinv_ray.conservation.nulls import NullClass, NullComparison, compare_with_null
from scaleinv_ray.conservation.table import judge_table
from scaleinv_ray.conservation.verdict import Verdict, Verdicts

__all__ = [
    "NullClass",
    "NullComparison",
    "Verdict",
    "Verdicts",
    "compare_with_null",
    "judge",
    "judge_table",
]
