"""Stability of the residual stream over depth: one family.

order_chaos: the invariant. log_singular_values: of its Jacobians.
"""

from scaleinv_ray.invariants.stability.order_chaos import order_chaos

__all__ = ["order_chaos"]
