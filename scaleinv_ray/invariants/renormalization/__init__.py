"""The renormalisation group on activations: one family.

flows: the invariants. coarse_graining, momentum_space: the two ways to leave units out.
scaling_exponents, depth_exponents: what is fitted. surrogates: the controls.
"""

from scaleinv_ray.invariants.renormalization.flows import (
    critical_exponents,
    depth_flow,
    kurtosis_flow,
    size_flow,
)

__all__ = ["critical_exponents", "depth_flow", "kurtosis_flow", "size_flow"]
