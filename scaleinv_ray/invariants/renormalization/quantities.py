"""What the flows return, and what is claimed of it."""

from __future__ import annotations

from scaleinv_ray.contract import Quantity

CRITICAL_EXPONENTS = {
    "alpha_tilde": Quantity(
        law="constant",
        margin=0.05,
        meaning=(
            "Exponent with which the variance of summed units grows with their number; independent "
            "1"
        ),
    ),
    "mu": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning=(
            "Exponent of the eigenvalues of correlation inside a cluster of units; independent 0"
        ),
    ),
    "beta_tilde": Quantity(
        law="constant",
        margin=0.10,
        unit=1.0,
        meaning=(
            "Exponent with which -ln of the chance that a cluster is silent grows; independent 1"
        ),
    ),
    "z_tilde": Quantity(
        law="constant",
        margin=0.10,
        unit=1.0,
        meaning=(
            "Exponent with which the memory of summed units grows with their number; independent 0"
        ),
    ),
    "consistency": Quantity(
        law="constant",
        margin=0.10,
        unit=1.0,
        meaning="Variance exponent less 1 and the spectral one; 0 for an infinite critical system",
    ),
    "alpha_tilde_rotated": Quantity(
        law="constant",
        margin=0.05,
        control=True,
        meaning="The variance exponent after a random rotation of the units",
    ),
    "mu_rotated": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        control=True,
        meaning="The spectral exponent after a random rotation of the units",
    ),
    "alpha_tilde_permuted": Quantity(
        law="constant",
        margin=0.05,
        control=True,
        meaning="The variance exponent where units are independent",
    ),
    "mu_permuted": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        control=True,
        meaning="The spectral exponent where units are independent",
    ),
    "alpha_tilde_latent": Quantity(
        law="constant",
        margin=0.05,
        control=True,
        meaning="The variance exponent of a few latent factors, without criticality",
    ),
    "mu_latent": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        control=True,
        meaning="The spectral exponent of a few latent factors, without criticality",
    ),
    "consistency_surrogate": Quantity(
        law="constant",
        margin=0.10,
        unit=1.0,
        control=True,
        meaning="What a finite number of units leaves of the consistency of a critical system",
    ),
}
# changes and slopes of exponents: .10 of .5, a tolerance of .05
SIZE_FLOW = {
    "alpha_size_slope": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning=(
            "Change of the variance exponent per ln of the number of units; 0 where it has "
            "converged"
        ),
    ),
    "mu_size_slope": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning=(
            "Change of the spectral exponent per ln of the number of units; 0 where it has "
            "converged"
        ),
    ),
    "alpha_tilde_smallest": Quantity(
        law="constant", margin=0.05, meaning="The variance exponent at the smallest number of units"
    ),
    "mu_smallest": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="The spectral exponent at the smallest number of units",
    ),
}
KURTOSIS_FLOW = {
    "kurtosis_full": Quantity(
        law="constant", margin=0.10, meaning="Mean kurtosis of the units; Gaussian 3"
    ),
    "kurtosis_coarse": Quantity(
        law="constant",
        margin=0.10,
        meaning="Mean kurtosis of the units after coarse-graining; 3 at a Gaussian fixed point",
    ),
    "kurtosis_slope": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="d ln kurtosis / d ln modes kept; 0 where coarse-graining changes nothing",
    ),
}
DEPTH_FLOW = {
    "alpha_change": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Variance exponent at the last depth less that of the embeddings",
    ),
    "mu_change": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Spectral exponent at the last depth less that of the embeddings",
    ),
    "alpha_depth_slope": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Slope of the variance exponent over relative depth",
    ),
    "mu_depth_slope": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Slope of the spectral exponent over relative depth",
    ),
    "participation_change": Quantity(
        law="constant",
        margin=0.10,
        unit=1.0,
        meaning="ln of the participation ratio at the last depth over that of the embeddings",
    ),
}
