"""An entry of the dictionary: a singularity whose learning coefficient is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from scaleinv_ray.singularities.coefficient import LearningCoefficient
from scaleinv_ray.singularities.exact.polynomial import Polynomial


@dataclass(frozen=True)
class Singularity:
    """What is known of a zero of K; None where it is not.

    Attributes:
        name: unique in the dictionary.
        family: regular, normal crossing, ADE, toy, linear network, tanh, superposition,
            program.
        coefficient: of the whole cube around the zero.
        num_variables: parameters.
        source: where the value is from.
        form: f of K = f^power, for entries with a polynomial.
        power: 1 or 2.
        ideal: exponents of the monomials whose sum is K up to constants, for programs.
        zero_modes: of the Hessian of K at the zero.
        symmetry_dimension: of the group of linear maps of the parameters that leave K unchanged.
        milnor_number: of f, isolated over the complex numbers.
        central_charge: of f, the same, divided by 3.
    """

    name: str
    family: str
    coefficient: LearningCoefficient
    num_variables: int
    source: str
    form: Polynomial | None = None
    power: int = 1
    ideal: tuple[tuple[int, ...], ...] | None = None
    zero_modes: int | None = None
    symmetry_dimension: int | None = None
    milnor_number: int | None = None
    central_charge: Fraction | None = None

    def potential(self, w_PN: np.ndarray) -> np.ndarray:
        """K at points; f is squared after evaluation, which keeps the precision near f = 0.

        Args:
            w_PN: points.

        Returns:
            value_P.

        Raises:
            ValueError: for an entry without a polynomial.
        """
        if self.form is None:
            raise ValueError(f"form: {self.name!r} has no polynomial")
        return self.form(w_PN) ** self.power
