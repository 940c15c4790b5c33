"""The dictionary: singularities with exact learning coefficients, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache

from scaleinv_ray.singularities.coefficient import LearningCoefficient, morse_bott
from scaleinv_ray.singularities.entry import Singularity
from scaleinv_ray.singularities.exact import quasihomogeneous
from scaleinv_ray.singularities.exact.ade import ade_table
from scaleinv_ray.singularities.exact.linear_networks import deep_linear
from scaleinv_ray.singularities.exact.newton import newton_polyhedron
from scaleinv_ray.singularities.exact.polynomial import (
    Polynomial,
    hessian_corank,
    monomial,
    symmetry_dimension,
)
from scaleinv_ray.singularities.programs import Automaton, Circuit, Gate, germ, words
from scaleinv_ray.singularities.programs.circuit import every_input
from scaleinv_ray.singularities.programs.machine import Program

_AOYAGI = "Aoyagi 2024, theorem 1"
_NEWTON = "Newton polyhedron (Varchenko 1976)"
_POLYHEDRA = {
    "w^2": monomial(2),
    "w1^2 + w2^2": Polynomial({(2, 0): 1, (0, 2): 1}),
    "w1^2 + w2^4": Polynomial({(2, 0): 1, (0, 4): 1}),
    "w1^2 w2^2": monomial(2, 2),
    "w1^2 w2^4": monomial(2, 4),
    "w1^2 w2^2 w3^2": monomial(2, 2, 2),
    "w1^2 w2^2 + w3^2": Polynomial({(2, 2, 0): 1, (0, 0, 2): 1}),
    "w1^2 w2^2 (w1^2 + w2^2)": Polynomial({(4, 2): 1, (2, 4): 1}),
}
_CUSP = Polynomial({(2, 0): 1, (0, 3): -1})
_SPHERE = Polynomial({(2, 0, 0): 4, (0, 2, 0): 4, (0, 0, 2): 4, (0, 0, 0): -1})
_NETWORKS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1, 1, 1), 0),
    ((8, 4, 8), 2),
    ((5, 4, 3, 2), 1),
    ((10, 10, 10), 0),
    ((10, 10, 10), 3),
    ((20, 5, 20), 5),
    ((16, 16, 16, 16), 4),
    ((32, 32, 32, 32, 32), 8),
)
_SUPERPOSITION = (("c=5, k=5", 14), ("c=6, k=6", 17), ("c=6, k=5, positive dead bias", 17))
_REGULAR = 16
_AUTOMATA: tuple[tuple[str, tuple[tuple[int, ...], ...], tuple[int, ...]], ...] = (
    ("contains A, spare accepting state", ((1, 0), (1, 1), (1, 1)), (1, 2)),
    ("contains A, one accepting state", ((1, 0), (1, 1), (1, 1)), (1,)),
    ("parity of A, two states", ((1, 0), (0, 1)), (1,)),
    ("constant yes, third state lethal", ((0, 0), (0, 0), (0, 0)), (0, 1)),
)
_COPIES = ((3, 2), (5, 3), (7, 4))
"""Repetition codes: of n copies k have to fail."""


def toys() -> tuple[Singularity, ...]:
    """The ten polynomials on which estimators are tried, with exact coefficients.

    Returns:
        Entries; each has a potential on the cube [-1, 1]^N.

    >>> [str(toy.coefficient.llc) for toy in toys()]
    ['1/2', '1', '3/4', '1/2', '1/4', '1/2', '1', '1/3', '5/12', '1/2']
    """
    return (*(_polyhedron(name, f) for name, f in _POLYHEDRA.items()), _cusp(), _sphere())


@cache
def singularities() -> tuple[Singularity, ...]:
    """All entries, in a fixed order, names unique.

    Returns:
        Toys, regular models, A D E, linear networks, a tanh unit, superposition, programs.

    >>> len(singularities()) > 80
    True
    """
    others = (*_networks(), _tanh_unit(), *_superposition(), *_programs())
    return (*toys(), *_regular(), *ade_table(), *others)


def linear_network(widths: tuple[int, ...], rank: int) -> Singularity:
    """Entry of a deep linear network, to be added to those a match is looked for among.

    Args:
        rank: of the true map.

    Returns:
        The entry; its zero modes depend on which zero is met and are left open.

    Raises:
        ValueError: as `deep_linear`.

    >>> linear_network((8, 4, 8), 2).name
    'linear 8-4-8, rank 2'
    """
    return Singularity(
        name=f"linear {'-'.join(map(str, widths))}, rank {rank}",
        family="linear network",
        coefficient=deep_linear(widths, rank),
        num_variables=sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True)),
        source=_AOYAGI,
    )


def _polyhedron(name: str, f: Polynomial) -> Singularity:
    return Singularity(
        name=name,
        family="normal crossing" if len(f.terms) == 1 else "toy",
        coefficient=newton_polyhedron(f),
        num_variables=f.num_variables,
        source=_NEWTON,
        form=f,
        zero_modes=hessian_corank(f),
        symmetry_dimension=symmetry_dimension(f),
    )


def _cusp() -> Singularity:
    return Singularity(
        name="(w1^2 - w2^3)^2",
        family="toy",
        coefficient=quasihomogeneous.indefinite_square(quasihomogeneous.weights(_CUSP)),
        num_variables=2,
        source="quasi-homogeneous",
        form=_CUSP,
        power=2,
        zero_modes=2,
        symmetry_dimension=symmetry_dimension(_CUSP * _CUSP),
        milnor_number=quasihomogeneous.milnor_number(_CUSP),
        central_charge=quasihomogeneous.central_charge(_CUSP),
    )


def _sphere() -> Singularity:
    return Singularity(
        name="(4 |w|^2 - 1)^2",
        family="toy",
        coefficient=morse_bott(1),
        num_variables=3,
        source="Morse-Bott",
        form=_SPHERE,
        power=2,
        zero_modes=2,
        symmetry_dimension=symmetry_dimension(_SPHERE * _SPHERE),
    )


def _regular() -> Iterator[Singularity]:
    for rank in range(3, _REGULAR + 1):
        yield Singularity(
            name=f"regular, {rank} parameters",
            family="regular",
            coefficient=morse_bott(rank),
            num_variables=rank,
            source="Schwarz 1978",
            zero_modes=0,
            symmetry_dimension=rank * (rank - 1) // 2,
        )


def _networks() -> Iterator[Singularity]:
    for widths, rank in _NETWORKS:
        yield linear_network(widths, rank)


def _tanh_unit() -> Singularity:
    return Singularity(
        name="one tanh unit a tanh(b x), truth 0",
        family="tanh",
        coefficient=LearningCoefficient(Fraction(1, 2), 2),
        num_variables=2,
        source="Watanabe 2009: K is a^2 b^2 times a positive function",
        zero_modes=2,
        symmetry_dimension=0,
    )


def _superposition() -> Iterator[Singularity]:
    for name, twice in _SUPERPOSITION:
        yield Singularity(
            name=f"superposition, 2 hidden, {name}",
            family="superposition",
            coefficient=LearningCoefficient(Fraction(twice, 2), 1),
            num_variables=3 * int(name[2]),
            source="Chen et al. 2023, arXiv 2310.06301",
        )


def _programs() -> Iterator[Singularity]:
    """Machines whose rules may fail, under log loss; other programs have germs alike."""
    for name, table, accepting in _AUTOMATA:
        one = Automaton(table, frozenset(accepting))
        yield _program(f"automaton: {name}", one, words(2, 4))
    for num, fail in _COPIES:
        copies = tuple(Gate("copy", (0,), i) for i in range(num))
        vote = Gate("majority", tuple(range(1, num + 1)), None)
        circuit = Circuit(1, (*copies, vote), (num + 1,))
        yield _program(f"circuit: {fail} of {num} copies fail", circuit, every_input(1))
        shared = Circuit(1, (*(replace(c, rule=0) for c in copies), vote), (num + 1,))
        yield _program(f"circuit: one copier fails {fail} times", shared, every_input(1))


def _program(name: str, program: Program, inputs: list[tuple[int, ...]]) -> Singularity:
    found = germ(program, inputs)
    return Singularity(
        name=name,
        family="program",
        coefficient=found.log_loss,
        num_variables=found.num_variables,
        source="syndromes and Newton polyhedron (Clift et al. 2021, arXiv 2103.16080)",
        ideal=tuple(
            tuple(map(syndrome.count, range(found.num_variables))) for syndrome in found.generators
        ),
    )
