"""What the invariants of Rips filtrations return, and what is claimed of it."""

from __future__ import annotations

from scaleinv_ray.contract import Quantity

ORDER_COMPLEX = {
    "integral_betti_0": Quantity(
        law="none",
        meaning="Mean number of components as edges enter in the order of their distances",
    ),
    "integral_betti_1": Quantity(
        law="none", meaning="Mean number of loops as edges enter in the order of their distances"
    ),
    "integral_betti_0_gaussian": Quantity(
        law="none",
        control=True,
        meaning="Mean number of components of Gaussian points, edges in order of distance",
    ),
    "integral_betti_1_gaussian": Quantity(
        law="none",
        control=True,
        meaning="Mean number of loops of Gaussian points, edges in order of distance",
    ),
    "excess_betti_1": Quantity(
        law="constant",
        unit=1.0,
        meaning=(
            "ln of the mean number of loops over that of Gaussian points of the same covariance; 0 "
            "alike"
        ),
    ),
}
SIGNIFICANT_BETTI = {
    "num_significant_1": Quantity(
        law="integer",
        meaning="Number of loops that independent noise of any density would not have",
    ),
    "max_score_1": Quantity(
        law="none",
        unit=1.0,
        meaning=(
            "Score of the most significant loop, on the scale of noise; above about 2 it stands out"
        ),
    ),
    "num_significant_2": Quantity(
        law="integer",
        meaning="Number of cavities that independent noise of any density would not have",
    ),
    "max_score_2": Quantity(
        law="none",
        unit=1.0,
        meaning=(
            "Score of the most significant cavity, on the scale of noise; above about 2 it stands "
            "out"
        ),
    ),
}
TORSION_CHECK = {
    "torsion_rank_1": Quantity(
        law="integer",
        meaning="Largest difference of Betti 1 over Z/2 and Z/3; above 0 the space is twisted",
    ),
    "torsion_length_1": Quantity(
        law="none",
        unit=0.05,
        meaning=(
            "Difference of Betti 1 over Z/2 and Z/3, integrated over the scale; 0 without torsion"
        ),
    ),
    "torsion_rank_2": Quantity(
        law="integer",
        meaning="Largest difference of Betti 2 over Z/2 and Z/3; above 0 the space is twisted",
    ),
    "torsion_length_2": Quantity(
        law="none",
        unit=0.05,
        meaning=(
            "Difference of Betti 2 over Z/2 and Z/3, integrated over the scale; 0 without torsion"
        ),
    ),
}
PERSISTENCE = {
    "total_persistence_0": Quantity(
        law="power_law",
        meaning=(
            "Total length of the components of the activation cloud, per point; larger is more "
            "spread"
        ),
    ),
    "total_persistence_1": Quantity(
        law="power_law", meaning="Total length of the loops of the activation cloud, per point"
    ),
    "max_persistence_1": Quantity(
        law="none",
        meaning="Length of the longest loop of the activation cloud, in median distances",
    ),
    "log_ratio_max_1": Quantity(
        law="constant",
        meaning="Log ratio of death to birth of the most persistent loop; larger stands out more",
    ),
    "num_bars_1": Quantity(
        law="none", meaning="Number of loops of the activation cloud over all scales, per point"
    ),
    "betti_peak_1": Quantity(
        law="none", meaning="Largest number of loops at one scale (peak of Betti 1), per point"
    ),
    "persistence_entropy_1": Quantity(
        law="constant", meaning="Entropy of the loops' lengths over ln of their number; all alike 1"
    ),
    "total_persistence_0_gaussian": Quantity(
        law="none",
        control=True,
        meaning="Total length of the components of Gaussian points of the same covariance",
    ),
    "total_persistence_1_gaussian": Quantity(
        law="none",
        control=True,
        meaning="Total length of the loops of Gaussian points of the same covariance",
    ),
    "log_ratio_max_1_gaussian": Quantity(
        law="none",
        control=True,
        meaning="Log ratio of death to birth of the longest loop of Gaussian points",
    ),
    # A cloud in general position always has bars of dimension 1, it may have none of dimension 2:
    # there the unit is the value of noise, 400 points of N(0, I_64).
    "total_persistence_2": Quantity(
        law="none",
        unit=0.02,
        meaning="Total length of the cavities of the activation cloud, per point",
    ),
    "max_persistence_2": Quantity(
        law="none",
        unit=0.05,
        meaning="Length of the longest cavity of the activation cloud, in median distances",
    ),
    "log_ratio_max_2": Quantity(
        law="constant",
        unit=0.06,
        meaning="Log ratio of death to birth of the most persistent cavity; larger stands out more",
    ),
    "num_bars_2": Quantity(
        law="none",
        unit=2.0,
        meaning="Number of cavities of the activation cloud over all scales, per point",
    ),
    "betti_peak_2": Quantity(
        law="none",
        unit=0.25,
        meaning="Largest number of cavities at one scale (peak of Betti 2), per point",
    ),
    "persistence_entropy_2": Quantity(
        law="constant",
        meaning="Entropy of the cavities' lengths over ln of their number; all alike 1",
    ),
}
