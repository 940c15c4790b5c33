"""Exact learning coefficients against each other and against tables."""

from fractions import Fraction as F
from itertools import permutations, product

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities import (
    LearningCoefficient,
    Polynomial,
    deep_linear,
    monomial,
    morse_bott,
    newton_polyhedron,
    singularities,
    toys,
)
from scaleinv_ray.singularities.exact.quasihomogeneous import (
    central_charge,
    isolated_over_complex,
    milnor_number,
    weights,
)

TABLE = [  # Aoyagi's theorem, by hand
    ((1, 1, 1), 0, F(1, 2), 2),
    ((8, 4, 8), 2, F(39, 2), 1),
    ((5, 4, 3, 2), 1, F(4), 1),
    ((10, 10, 10), 0, F(75, 2), 1),
    ((10, 10, 10), 3, F(44), 2),
    ((20, 5, 20), 5, F(175, 2), 1),
    ((16, 16, 16, 16), 4, F(104), 1),
    ((32, 32, 32, 32, 32), 8, F(404), 1),
]
TOYS = {
    "w^2": (F(1, 2), 1),
    "w1^2 + w2^2": (F(1), 1),
    "w1^2 + w2^4": (F(3, 4), 1),
    "w1^2 w2^2": (F(1, 2), 2),
    "w1^2 w2^4": (F(1, 4), 1),
    "w1^2 w2^2 w3^2": (F(1, 2), 3),
    "w1^2 w2^2 + w3^2": (F(1), 2),
    "(w1^2 - w2^3)^2": (F(5, 12), 1),
    "w1^2 w2^2 (w1^2 + w2^2)": (F(1, 3), 1),
    "(4 |w|^2 - 1)^2": (F(1, 2), 1),
}


def reduced_rank(m: int, h: int, n: int, r: int) -> LearningCoefficient:
    """M inputs, H hidden units, N outputs (Aoyagi and Watanabe 2005, main theorem).

    Where none of M + N < s, M + H < N + r, N + H < M + r holds, s = H + r,
    llc = (2 s M + 2 s N + 2 M N - s^2 - M^2 - N^2) / 8 and multiplicity 1 where s + M + N is even;
    1/8 more and multiplicity 2 where it is odd. Else multiplicity 1 and
    M N / 2,  (H M - H r + N r) / 2,  (H N - H r + M r) / 2  in that order.
    """
    s = h + r
    if m + n < s:
        return LearningCoefficient(F(m * n, 2), 1)
    if m + h < n + r:
        return LearningCoefficient(F(h * m - h * r + n * r, 2), 1)
    if n + h < m + r:
        return LearningCoefficient(F(h * n - h * r + m * r, 2), 1)
    odd = (s + m + n) % 2
    balanced = 2 * s * m + 2 * s * n + 2 * m * n - s**2 - m**2 - n**2
    return LearningCoefficient(F(balanced + odd, 8), 1 + odd)


def disjoint_sum(*parts: LearningCoefficient) -> LearningCoefficient:
    """Of K_1(u) + K_2(v) + ..: coefficients add, a logarithm is lost with each sum.

    Watanabe 2009, remark 7.2: the densities of the parts convolve.
    """
    llc = sum((part.llc for part in parts), F(0))
    return LearningCoefficient(llc, sum(part.multiplicity for part in parts) - len(parts) + 1)


def disjoint_product(*parts: LearningCoefficient) -> LearningCoefficient:
    """Of K_1(u) K_2(v) ..: zeta functions multiply, orders add where the largest poles coincide."""
    llc = min(part.llc for part in parts)
    return LearningCoefficient(llc, sum(p.multiplicity for p in parts if p.llc == llc))


@pytest.mark.parametrize(("widths", "rank", "llc", "multiplicity"), TABLE)
def test_deep_linear_networks_of_the_table(widths, rank, llc, multiplicity):
    assert deep_linear(widths, rank) == (llc, multiplicity)


def test_deep_linear_equals_reduced_rank_on_all_sizes_up_to_eight():
    cases = [
        (m, h, n, r) for m, h, n in product(range(1, 9), repeat=3) for r in range(min(m, h, n) + 1)
    ]
    assert len(cases) == 1808
    for m, h, n, r in cases:
        assert deep_linear((m, h, n), r) == reduced_rank(m, h, n, r), (m, h, n, r)


def test_a_linear_map_without_hidden_layer_is_regular():
    for n, m, r in product(range(1, 5), range(1, 5), range(2)):
        assert deep_linear((n, m), r) == morse_bott(n * m)


def test_the_order_of_widths_matters_only_through_the_outer_ones():
    for hidden in permutations((4, 3, 6)):
        assert deep_linear((5, *hidden, 7), 2) == deep_linear((5, 3, 4, 6, 7), 2)
        assert deep_linear((7, *hidden, 5), 2) == deep_linear((5, 3, 4, 6, 7), 2)


@pytest.mark.parametrize("depth", range(1, 6))
def test_a_chain_of_single_units_is_a_normal_crossing(depth):
    crossing = newton_polyhedron(monomial(*[2] * depth))
    assert deep_linear([1] * (depth + 1), 0) == crossing == (F(1, 2), depth)


def test_a_wide_first_layer_by_its_polyhedron():
    # W2 W1 with widths 1-1-2: a^2 b^2 + a^2 c^2.
    assert newton_polyhedron(Polynomial({(2, 2, 0): 1, (2, 0, 2): 1})) == deep_linear((1, 1, 2), 0)


def test_the_ten_toys():
    assert {toy.name: tuple(toy.coefficient) for toy in toys()} == TOYS


@pytest.mark.parametrize("powers", [(2, 4), (4, 4, 2), (6, 2, 6), (2, 2, 2, 2)])
def test_monomials_in_closed_form(powers):
    # integral w^(a z) dw has poles at -1 / a_i: the largest wins, equal ones add.
    parts = [LearningCoefficient(F(1, a), 1) for a in powers]
    assert newton_polyhedron(monomial(*powers)) == disjoint_product(*parts)


@pytest.mark.parametrize("seed", range(8))
def test_sums_of_monomials_in_own_variables(seed):
    rng = np.random.default_rng(seed)
    blocks = [tuple(2 * rng.integers(1, 4, size=rng.integers(1, 3))) for _ in range(2)]
    size = sum(map(len, blocks))
    first = (*blocks[0], *[0] * len(blocks[1]))
    second = (*[0] * len(blocks[0]), *blocks[1])
    assert size == len(first) == len(second)
    f = Polynomial({tuple(map(int, first)): 1, tuple(map(int, second)): 1})
    parts = [newton_polyhedron(monomial(*map(int, block))) for block in blocks]
    assert newton_polyhedron(f) == disjoint_sum(*parts)


def test_a_definite_form_that_is_not_diagonal_is_regular():
    f = Polynomial({(2, 0): 1, (1, 1): -1, (0, 2): 1})
    assert newton_polyhedron(f) == morse_bott(2)


@pytest.mark.parametrize(
    "terms",
    [
        {(2, 0): 1, (1, 1): -2, (0, 2): 1},  # (w1 - w2)^2: polyhedron 1, truth 1/2
        {(4, 0): 1, (2, 3): -2, (0, 6): 1},
        {(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): 1, (1, 1, 0): 2, (1, 0, 1): 2, (0, 1, 1): 2},
        {(3,): 1},  # takes both signs
        {(2, 0): 1, (0, 2): -1},
    ],
)
def test_degenerate_polynomials_are_refused(terms):
    with pytest.raises(Refused, match="degenerate"):
        newton_polyhedron(Polynomial(terms))


def ade():
    return [entry for entry in singularities() if entry.family == "ADE"]


def test_milnor_number_is_the_index_and_central_charge_below_one():
    coxeter = {"E_6": 12, "E_7": 18, "E_8": 30}
    for entry in ade():
        letter, index = entry.name.strip("(")[0], int(entry.name.strip("(")[2])
        h = {"A": index + 1, "D": 2 * (index - 1)}.get(letter) or coxeter[f"E_{index}"]
        assert entry.milnor_number == index
        assert entry.central_charge == 1 - F(2, h)  # minimal model at level h - 2


def test_a_square_has_no_milnor_number():
    square = Polynomial({(4, 0): 1, (2, 2): 2, (0, 4): 1})
    assert not isolated_over_complex(square)
    for function in (milnor_number, central_charge):
        with pytest.raises(Refused, match="not isolated"):
            function(square)
    # Another quartic of the same weights, isolated: X_9 with Milnor number 9.
    assert milnor_number(Polynomial({(4, 0): 1, (2, 2): 1, (0, 4): 1})) == 9


def test_weights_are_those_of_the_definition():
    for entry in ade():
        q = weights(entry.form)
        assert all(sum(a * x for a, x in zip(key, q, strict=True)) == 1 for key in entry.form.terms)
    with pytest.raises(Refused, match="not unique"):
        weights(monomial(2, 2))
    with pytest.raises(Refused, match="not quasi-homogeneous"):
        weights(Polynomial({(2, 0): 1, (3, 0): 1, (0, 2): 1}))


def test_real_forms_have_the_sign_that_their_coefficient_assumes():
    rng = np.random.default_rng(0)
    for entry in ade():
        value_P = entry.form(rng.uniform(-1, 1, (4000, entry.num_variables)))
        total = sum(weights(entry.form))
        if entry.power == 1:
            assert value_P.min() > 0
            assert entry.coefficient == (total, 1)
        elif value_P.min() > 0:
            assert entry.coefficient == (total / 2, 1)
        else:
            assert value_P.max() > 0
            assert entry.coefficient == (min(1, total) / 2, 2 if total == 1 else 1)


def test_ade_by_the_polyhedron_where_it_is_nondegenerate():
    checked = []
    for entry in ade():
        potential = entry.form if entry.power == 1 else entry.form * entry.form
        if (potential.exponents_MN % 2 == 0).all() and min(potential.terms.values()) > 0:
            assert newton_polyhedron(potential) == entry.coefficient, entry.name
            checked.append(entry.name)
    assert {"A_3+", "(A_3+)^2", "A_1+ + z^2", "(A_7+ + z^2)^2"} <= set(checked)


def test_in_three_variables_indefinite_forms_cannot_be_told_apart():
    space = [e for e in ade() if e.num_variables == 3]
    definite = [e for e in space if e.name.strip("(").startswith("A") and "+ + z^2" in e.name]
    others = [e for e in space if e not in definite]
    assert len(others) > 20
    assert {e.coefficient for e in others} == {(F(1, 2), 1)}


def test_names_are_unique():
    names = [entry.name for entry in singularities()]
    assert len(names) == len(set(names))
