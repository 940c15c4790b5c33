"""The simple singularities A, D, E in two and three variables, with their real forms.

As losses: K = f where f is definite, and K = f^2 for all of them. Forms are told apart up to a
change of real coordinates and the sign of f, which K = f^2 does not see (Arnold, Gusein-Zade and
Varchenko 1985, vol. 1, section 17.1); in the plane both signs of D_k are listed, as is usual, but
for odd k y -> -y turns one into minus the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from scaleinv_ray.singularities.entry import Singularity
from scaleinv_ray.singularities.exact import quasihomogeneous
from scaleinv_ray.singularities.exact.polynomial import (
    Exponent,
    Polynomial,
    hessian_corank,
    symmetry_dimension,
)

Letter = Literal["A", "D", "E"]
_SOURCE = "Arnold, Gusein-Zade and Varchenko 1985"
_E_TERMS: dict[int, tuple[Exponent, Exponent]] = {
    6: ((3, 0), (0, 4)),
    7: ((3, 0), (1, 3)),
    8: ((3, 0), (0, 5)),
}


def ade_polynomial(letter: Letter, index: int, *signs: int) -> Polynomial:
    """Normal form in two variables, or in three with a second sign.

    A_k: x^2 + s y^(k+1);  D_k: x^2 y + s y^(k-1);  E_6: x^3 + s y^4;  E_7: x^3 + s x y^3;
    E_8: x^3 + s y^5;  in three variables with + t z^2.

    Args:
        letter: A, D or E.
        index: k >= 1 for A, >= 4 for D, 6..8 for E; the Milnor number.
        *signs: s, or s and t, each 1 or -1.

    Returns:
        f.

    Raises:
        ValueError: for an index or signs out of range.

    >>> ade_polynomial("D", 4, -1).terms
    {(2, 1): 1, (0, 3): -1}
    """
    if {"A": index < 1, "D": index < 4, "E": index not in _E_TERMS}[letter]:
        raise ValueError(f"index: got {index}, allowed A >= 1, D >= 4, E 6..8")
    if len(signs) not in {1, 2} or not {*signs} <= {1, -1}:
        raise ValueError(f"signs: got {signs}, allowed one or two of 1, -1")
    plane = {
        "A": ((2, 0), (0, index + 1)),
        "D": ((2, 1), (0, index - 1)),
        "E": _E_TERMS.get(index, ()),
    }[letter]
    terms = dict(zip(plane, (1, signs[0]), strict=True))
    if len(signs) == 1:
        return Polynomial(terms)
    return Polynomial({**{(*key, 0): value for key, value in terms.items()}, (0, 0, 2): signs[1]})


def ade_table(*, largest_index: int = 8) -> Iterator[Singularity]:
    """Entries of all real forms, in two and three variables.

    Yields:
        Entries; in three variables every indefinite form has the coefficient (1/2, 1).

    >>> found = {entry.name: entry.coefficient for entry in ade_table()}
    >>> found["(E_6)^2"], found["A_3+"]  # doctest: +NORMALIZE_WHITESPACE
    (LearningCoefficient(llc=Fraction(7, 24), multiplicity=1),
     LearningCoefficient(llc=Fraction(3, 4), multiplicity=1))
    """
    kinds: list[tuple[Letter, int]] = [("A", k) for k in range(1, largest_index + 1)]
    kinds += [("D", k) for k in range(4, largest_index + 1)]
    kinds += [("E", k) for k in _E_TERMS]
    for letter, index in kinds:
        for signs in [*_plane_forms(letter, index), *_space_forms(letter, index)]:
            f = ade_polynomial(letter, index, *signs)
            name = _name(letter, index, signs)
            definite = letter == "A" and index % 2 == 1 and min(signs) > 0
            if definite:
                yield _entry(name, f, 1, definite=True)
            yield _entry(f"({name})^2", f, 2, definite=definite)


def _plane_forms(letter: Letter, index: int) -> list[tuple[int, ...]]:
    # Where y -> -y, or x -> -x with the sign of f, undoes the sign, one form is left (but of D).
    split = letter == "D" or (letter == "A" and index % 2 == 1)
    return [(1,), (-1,)] if split else [(1,)]


def _space_forms(letter: Letter, index: int) -> list[tuple[int, ...]]:
    if letter == "A" and index % 2 == 1:
        return [(1, 1), (-1, 1)] if index == 1 else [(1, 1), (-1, 1), (1, -1)]
    if letter == "A":
        return [(1, 1), (1, -1)]
    return [(1, 1), (-1, 1)] if letter == "D" or index == 6 else [(1, 1)]


def _name(letter: Letter, index: int, signs: tuple[int, ...]) -> str:
    forms = _plane_forms(letter, index)
    own = len(forms) > 1 or (len(signs) == 2 and letter == "E" and index == 6)
    sign = ("+" if signs[0] > 0 else "-") if own else ""
    last = "" if len(signs) == 1 else (" + z^2" if signs[1] > 0 else " - z^2")
    return f"{letter}_{index}{sign}{last}"


def _entry(name: str, f: Polynomial, power: int, *, definite: bool) -> Singularity:
    q = quasihomogeneous.weights(f)
    if power == 1:
        coefficient = quasihomogeneous.definite(q)
    elif definite:
        coefficient = quasihomogeneous.semidefinite_square(q)
    else:
        coefficient = quasihomogeneous.indefinite_square(q)
    potential = f if power == 1 else f * f
    return Singularity(
        name=name,
        family="ADE",
        coefficient=coefficient,
        num_variables=f.num_variables,
        source=_SOURCE,
        form=f,
        power=power,
        zero_modes=hessian_corank(potential),
        symmetry_dimension=symmetry_dimension(potential),
        milnor_number=quasihomogeneous.milnor_number(f),
        central_charge=quasihomogeneous.central_charge(f),
    )
