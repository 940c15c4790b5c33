"""Stability of the residual stream over depth: one family.

stretching: the invariant. log_singular_values: of its Jacobians.
"""

from scaleinv_ray.invariants.stability.stretching import order_chaos

__all__ = ["order_chaos"]
