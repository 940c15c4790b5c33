"""Stability of the residual stream over depth: one family.

order_chaos: the invariant. lyapunov: exponents of products of Jacobians.
"""

from scaleinv_ray.invariants.stability.order_chaos import order_chaos

__all__ = ["order_chaos"]
