"""Refusals and bookkeeping of the exact part."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from scaleinv_ray.singularities import (
    Polynomial,
    ade_polynomial,
    deep_linear,
    monomial,
    morse_bott,
    newton_polyhedron,
    singularities,
)
from scaleinv_ray.singularities.exact.newton import compact_faces
from scaleinv_ray.singularities.exact.polynomial import hessian_corank, symmetry_dimension


def test_a_polynomial_is_evaluated_multiplied_and_differentiated():
    f = Polynomial({(2, 1): 3, (0, 3): -1, (0, 0): 2})
    w_PN = np.random.default_rng(0).normal(size=(5, 2))
    x_P, y_P = w_PN.T
    np.testing.assert_allclose(f(w_PN), 3 * x_P**2 * y_P - y_P**3 + 2)
    np.testing.assert_allclose((f * f)(w_PN), f(w_PN) ** 2)
    assert f.derivative(0).terms == {(1, 1): 6}
    assert f.derivative(1).terms == {(2, 0): 3, (0, 2): -3}
    assert monomial(0, 2).derivative(0) is None


def test_products_cancel():
    f = Polynomial({(1, 0): 1, (0, 1): 1}) * Polynomial({(1, 0): 1, (0, 1): -1})
    assert f.terms == {(2, 0): 1, (0, 2): -1}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "lengths"),
        ({(1,): 1, (1, 2): 1}, "lengths"),
        ({(-1,): 1}, "must be >= 0"),
        ({(1,): 0}, "coefficient 0"),
    ],
)
def test_malformed_polynomials_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        Polynomial(terms)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_quadratic_form_has_the_rotations(size):
    form = Polynomial({tuple(2 * int(i == j) for j in range(size)): 1 for i in range(size)})
    assert symmetry_dimension(form) == size * (size - 1) // 2
    assert hessian_corank(form) == 0


def test_symmetry_of_a_product_is_the_torus():
    assert symmetry_dimension(monomial(2, 2, 2)) == 2
    assert hessian_corank(monomial(2, 2, 2)) == 3


def test_compact_faces_of_a_simplex_and_of_a_point():
    three = compact_faces(np.diag([2, 4, 6]))
    assert sorted(map(len, three)) == [1, 1, 1, 2, 2, 2, 3]
    assert [face.tolist() for face in compact_faces(np.array([[2, 2], [4, 4]]))] == [[[2, 2]]]


def test_permuting_variables_leaves_the_polyhedron():
    terms = {(4, 2, 0): 1, (2, 4, 0): 1, (0, 0, 6): 1}
    turned = {(c, a, b): value for (a, b, c), value in terms.items()}
    assert newton_polyhedron(Polynomial(terms)) == newton_polyhedron(Polynomial(turned))


def test_a_constant_term_is_refused():
    with pytest.raises(ValueError, match="must vanish"):
        newton_polyhedron(Polynomial({(0, 0): 1, (2, 0): 1}))


def test_sizes_and_ranks_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"rank: got 3, allowed 0..2"):
        deep_linear((2, 4, 4), 3)
    with pytest.raises(ValueError, match="widths"):
        deep_linear((2,), 0)
    with pytest.raises(ValueError, match=r"rank: got -1"):
        deep_linear((2, 2, 2), -1)
    with pytest.raises(ValueError, match="rank: got 0"):
        morse_bott(0)


@pytest.mark.parametrize("wrong", [("D", 3, 1), ("E", 5, 1), ("A", 0, 1), ("A", 2, 2), ("A", 2)])
def test_simple_singularities_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="index|signs"):
        ade_polynomial(*wrong)


def test_entries_without_a_polynomial_say_so():
    entry = next(e for e in singularities() if e.family == "linear network")
    with pytest.raises(ValueError, match="has no polynomial"):
        entry.potential(np.zeros((1, 3)))


def test_a_sum_of_even_squares_needs_no_face_check(monkeypatch):
    """Eleven variables: e_2 of squares; its compact faces would take minutes."""
    monkeypatch.setattr("scaleinv_ray.singularities.exact.newton.compact_faces", None)
    pairs = itertools.combinations(range(11), 2)
    terms = {tuple(2 * (i in pair) for i in range(11)): 1 for pair in pairs}
    assert newton_polyhedron(Polynomial(terms)) == (Fraction(11, 4), 1)
