"""Is a quantity conserved over scale, a law of it, or trivial: fits, tests, nulls, verdicts."""

from scaleinv_ray.conclude.conservation.judging import judge
from scaleinv_ray.conclude.conservation.nulls import NullComparison, compare_with_null
from scaleinv_ray.conclude.conservation.verdict import Verdict, Verdicts

__all__ = ["NullComparison", "Verdict", "Verdicts", "compare_with_null", "judge"]
