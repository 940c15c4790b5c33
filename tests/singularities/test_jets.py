"""Jet schemes: dimensions that Groebner bases give, thresholds of the dictionary, refusals."""

from fractions import Fraction

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities import (
    Polynomial,
    ade_polynomial,
    deep_linear,
    monomial,
    singularities,
)
from scaleinv_ray.singularities.exact.contact import contact_loci, monomial_contact_loci
from scaleinv_ray.singularities.exact.groebner import jet_dimensions, singular_program
from scaleinv_ray.singularities.exact.initial_forms import has_torus_zero
from scaleinv_ray.singularities.jets import dictionary_table

LONGEST = 19
CUSP = Polynomial({(2, 0): 1, (0, 3): -1})
WITH_FORM = [e for e in singularities() if e.form is not None]
COMPLEX_DIFFERS = {f"(A_{k}+ + z^2)^2": Fraction(1, 2) for k in (1, 3, 5, 7)}


@pytest.mark.parametrize(
    ("f", "dimensions", "threshold"),
    [
        (monomial(1, 1), (1, 2, 3, 4, 5, 6, 7), 1),
        (CUSP, (1, 2, 3, 4, 5, 7), Fraction(5, 6)),
        (ade_polynomial("A", 3, -1), (1, 2, 3, 5, 6), Fraction(3, 4)),
        (ade_polynomial("A", 4, -1), (1, 2, 3, 5, 6, 7, 8, 10, 11, 13), Fraction(7, 10)),
        (ade_polynomial("D", 4, 1), (1, 2, 4, 5, 6), Fraction(2, 3)),
        (monomial(2, 4), (1, 3, 5, 7, 8, 10), Fraction(1, 4)),
        (monomial(1, 1, 1), (2, 4, 6, 8, 10), 1),
    ],
)
def test_dimensions_are_those_of_groebner_bases(f, dimensions, threshold):
    """Computed once by Singular, in characteristic 32003, and by hand for the node."""
    found = contact_loci(f, len(dimensions) - 1, real=False)
    assert found.dimensions == dimensions
    assert found.threshold == threshold
    assert found.is_exact


@pytest.mark.parametrize(
    ("generators", "dimensions", "threshold"),
    [
        ([[1, 1, 0], [1, 0, 1], [0, 1, 1]], (1, 3, 4, 6, 7), Fraction(3, 2)),
        ([[1, 0, 0], [0, 1, 1]], (1, 2, 3, 4, 5), 2),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (0, 0, 0), 3),
    ],
)
def test_monomial_ideals(generators, dimensions, threshold):
    found = monomial_contact_loci(np.array(generators), len(dimensions) - 1)
    assert (found.dimensions, found.threshold) == (dimensions, threshold)


@pytest.mark.parametrize("entry", WITH_FORM, ids=lambda e: e.name)
def test_jets_give_the_coefficient_of_every_polynomial_of_the_dictionary(entry):
    found = contact_loci(entry.form, LONGEST)
    assert found.is_exact
    assert found.threshold / entry.power == entry.coefficient.llc


@pytest.mark.parametrize("entry", [e for e in singularities() if e.ideal], ids=lambda e: e.name)
def test_jets_give_the_coefficient_of_every_program_of_the_dictionary(entry):
    """The Newton polyhedron's linear programme beside a count over whole weights."""
    (row,) = dictionary_table([entry])
    assert (row["lct_jets"], row["status"]) == (str(entry.coefficient.llc), "exact")
    assert len(row["dimensions"]) > row["reached_at"]


def test_free_variables_add_to_every_dimension():
    pair = monomial_contact_loci(np.array([[1, 1]]), 3)
    free = monomial_contact_loci(np.array([[1, 0, 1]]), 3)
    assert free.dimensions == tuple(d + m + 1 for m, d in enumerate(pair.dimensions))
    assert free.divisors == tuple((a, 0, b) for a, b in pair.divisors)
    assert (free.threshold, free.is_exact) == (pair.threshold, True)


def test_fifty_nine_squares_and_four_where_the_complex_jets_differ():
    squares = [e for e in WITH_FORM if e.power == 2 and e.name != "(4 |w|^2 - 1)^2"]
    assert len(squares) == 59
    other = {
        e.name: half
        for e in squares
        if (half := contact_loci(e.form, LONGEST, real=False).threshold / 2) != e.coefficient.llc
    }
    assert other == COMPLEX_DIFFERS


@pytest.mark.parametrize(
    ("f", "divisors"),
    [
        (CUSP, ((3, 2),)),
        (monomial(2, 4), ((0, 1),)),
        (monomial(1, 1), ((1, 0), (0, 1))),
        (ade_polynomial("E", 8, 1), ((5, 3),)),
        (ade_polynomial("A", 1, -1), ((0, 0), (1, 1))),
        (ade_polynomial("A", 2, 1, -1), ((0, 0, 0),)),
    ],
)
def test_divisors_that_compute_the_threshold(f, divisors):
    assert contact_loci(f, 15).divisors == divisors


def test_a_threshold_is_a_bound_until_its_denominator_is_reached():
    e8 = ade_polynomial("E", 8, 1)
    early, late = contact_loci(e8, 13), contact_loci(e8, 14)
    assert not early.is_exact
    assert early.threshold > late.threshold == Fraction(8, 15)
    assert late.is_exact
    assert late.reached_at == 14


def test_powers_of_one_variable_scale_the_orders():
    assert contact_loci(monomial(3), 8).dimensions == tuple(m - m // 3 for m in range(9))


@pytest.mark.parametrize(
    "terms",
    [
        {(2, 0): 1, (1, 1): -2, (0, 2): 1},  # (x - y)^2
        {(3, 0): 1, (2, 1): -4, (1, 2): 5, (0, 3): -2},  # (x - y)^2 (x - 2 y): it changes sign
        {(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): 1, (1, 1, 0): 2, (1, 0, 1): -2, (0, 1, 1): -2},
    ],
)
@pytest.mark.parametrize("real", [True, False])
def test_degenerate_forms_are_refused(terms, real):
    with pytest.raises(Refused, match="degenerate: the initial form"):
        contact_loci(Polynomial(terms), 3, real=real)


def test_a_double_zero_that_is_not_real_is_degenerate_over_the_complex_numbers_alone():
    f = Polynomial({(4, 0): 1, (2, 2): 2, (0, 4): 1})  # (x^2 + y^2)^2
    assert contact_loci(f, 3).threshold == Fraction(1, 2)
    with pytest.raises(Refused, match="degenerate"):
        contact_loci(f, 3, real=False)


def test_a_sphere_of_more_terms_than_its_span_is_searched():
    quadric = {(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): 1}
    assert not has_torus_zero(Polynomial({**quadric, (1, 1, 0): -1}), real=True)
    assert has_torus_zero(Polynomial({**quadric, (1, 1, 0): -3}), real=True)
    assert has_torus_zero(Polynomial({**quadric, (1, 1, 0): -1}), real=False)


def test_no_zero_and_orders_out_of_range_are_refused():
    with pytest.raises(Refused, match="no zero"):
        contact_loci(Polynomial({(2,): 1, (0,): 1}), 3)
    with pytest.raises(ValueError, match=r"max_m: got -1, allowed 0\.\."):
        contact_loci(CUSP, -1)
    with pytest.raises(ValueError, match=r"max_m: got 99, allowed 0\.\.\d+ in 4 variables"):
        contact_loci(monomial(1, 1, 1, 1), 99)


def test_the_table_of_the_dictionary_holds_jets_where_there_is_a_polynomial():
    rows = {row["name"]: row for row in dictionary_table()}
    assert len(rows) == len(singularities())
    known = [e for e in singularities() if e.form is not None or e.ideal is not None]
    assert {n for n, row in rows.items() if row["lct_jets"] is not None} == {e.name for e in known}
    e8 = rows["(E_8)^2"]
    assert (e8["lct_jets"], e8["status"], e8["divisors"]) == ("8/15", "exact", ["(5, 3)"])
    differ = {n for n, row in rows.items() if row["lct_jets_complex"] != row["lct_jets"]}
    definite = {"w1^2 + w2^2", "w1^2 + w2^4"}
    assert {n for n in differ if n.endswith("^2") and "z^2" in n and n[0] == "("} == set(
        COMPLEX_DIFFERS
    )
    assert not differ & definite
    early = dictionary_table([e for e in singularities() if e.name == "(E_8)^2"], max_m=5)
    assert early[0]["status"] == "bound"


@pytest.fixture
def singular():
    if singular_program() is None:
        pytest.skip("no Singular: the extra jets is not installed")


@pytest.mark.usefixtures("singular")
@pytest.mark.parametrize(
    ("f", "max_m"),
    [
        (CUSP, 4),
        (ade_polynomial("D", 4, 1), 4),
        (monomial(2, 4), 5),
        (ade_polynomial("A", 3, -1), 4),
    ],
)
def test_weights_count_what_groebner_bases_do(f, max_m):
    expected = contact_loci(f, max_m, real=False).dimensions
    assert jet_dimensions([f], max_m, seconds=60) == expected


@pytest.mark.usefixtures("singular")
def test_groebner_bases_take_degenerate_forms_ideals_and_a_time_limit():
    double = Polynomial({(2, 0): 1, (1, 1): Fraction(-2), (0, 2): 1})
    assert jet_dimensions([double], 3, seconds=60) == (1, 3, 4, 6)
    pairs = [monomial(1, 1, 0), monomial(1, 0, 1), monomial(0, 1, 1)]
    assert jet_dimensions(pairs, 4, seconds=60) == (1, 3, 4, 6, 7)
    with pytest.raises(Refused, match=r"no Groebner basis for m = \d within 2 s; dim J_0, .. so"):
        jet_dimensions([CUSP], 8, seconds=2)


def test_without_singular_general_ideals_are_refused(monkeypatch):
    monkeypatch.setattr("scaleinv_ray.singularities.exact.groebner.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refused, match=r"scaleinv-ray\[jets\]"):
        jet_dimensions([CUSP], 1, seconds=1)


def test_ideals_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"generators in \[1, 2\] variables"):
        jet_dimensions([monomial(1), monomial(1, 1)], 1, seconds=1)
    with pytest.raises(ValueError, match="max_m: got -1"):
        jet_dimensions([CUSP], -1, seconds=1)


def product_ideal(num_in, num_hidden, num_out):
    """Entries of W_2 W_1, in the entries of both."""
    size = num_hidden * (num_in + num_out)

    def unit(*places):
        return tuple(int(i in places) for i in range(size))

    return [
        Polynomial({
            unit(k * num_in + j, num_hidden * (num_in + i) + k): 1 for k in range(num_hidden)
        })
        for i in range(num_out)
        for j in range(num_in)
    ]


@pytest.mark.usefixtures("singular")
@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 1, 2), (1, 2, 1), (2, 2, 1), (2, 2, 2)])
def test_jets_of_a_linear_network_give_twice_its_coefficient(widths):
    """Groebner bases beside Aoyagi's formula: nothing is common to the two."""
    dims = jet_dimensions(product_ideal(*widths), 1, seconds=60)
    size = widths[1] * (widths[0] + widths[2])
    threshold = min(size - Fraction(d, m + 1) for m, d in enumerate(dims))
    assert threshold == 2 * deep_linear(widths, 0).llc
