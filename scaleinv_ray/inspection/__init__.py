"""One checkpoint without a cluster: its invariants beside its nulls and beside a series."""

from scaleinv_ray.inspection.inspecting import Inspection, inspect

__all__ = ["Inspection", "inspect"]
