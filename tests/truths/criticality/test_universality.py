"""Classes of systems whose exponents are known."""

import numpy as np
import pytest

from scaleinv_ray.conclude.universality.agreement import (
    Agreement,
    own_covariances,
    pooled_covariances,
    universality_classes,
)

MARGIN_E = np.array([0.05, 0.05, 0.05])
MIXING = np.array([[1, 0, 0], [0.6, 0.8, 0], [0.3, 0.3, 0.9]])  # errors of exponents go together


def simulate(shifts, *, sd, seeds=3, repeats=400, unequal=False):
    """Outcomes of systems whose first exponent is shifted."""
    rng = np.random.default_rng(0)
    covariances = own_covariances if unequal else pooled_covariances
    names = [str(i) for i in range(len(shifts))]
    out = []
    for _ in range(repeats):
        sample = [
            sd * (1 + 2 * i * unequal) * rng.normal(size=(seeds, 3)) @ MIXING.T + [shift, 0, 0]
            for i, shift in enumerate(shifts)
        ]
        covariance, df = covariances(sample)
        means = np.array([v.mean(axis=0) for v in sample])
        out.append(universality_classes(means, covariance, names, margin_E=MARGIN_E, df=df))
    return out


def rate(found, outcome):
    return np.mean([classes.outcome is outcome for classes in found])


def test_equal_systems_are_one_class_and_rarely_called_different():
    found = simulate([0.0] * 4, sd=0.01)
    assert rate(found, Agreement.SAME) > 0.95
    assert all(len(c.classes) == 1 for c in found if c.outcome is Agreement.SAME)


def test_a_difference_of_the_margin_is_rarely_called_the_same():
    assert rate(simulate([0.0, 0.05], sd=0.01), Agreement.SAME) < 0.05 + 3 * 0.011
    unequal = simulate([0.0, 0.05], sd=0.01, unequal=True)
    assert rate(unequal, Agreement.SAME) < 0.05 + 3 * 0.011


def test_a_wide_error_is_not_agreement_and_no_difference_either():
    found = simulate([0.0] * 4, sd=0.08)
    assert rate(found, Agreement.SAME) < 0.01
    assert rate(found, Agreement.DIFFERENT) < 0.05 + 3 * 0.011  # over six pairs together
    assert rate(found, Agreement.UNDETERMINED) > 0.9


def test_two_classes_of_two_are_told_apart():
    found = simulate([0.0, 0.3, 0.0, 0.3], sd=0.01)
    assert rate(found, Agreement.DIFFERENT) == 1
    assert np.mean([c.classes == (("0", "2"), ("1", "3")) for c in found]) > 0.95


def test_joint_test_has_its_level():
    for seeds, unequal in ((3, False), (6, True)):
        found = simulate([0.0, 0.0], sd=0.05, seeds=seeds, unequal=unequal, repeats=800)
        p = [c.pairs["0", "1"].p for c in found]
        assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=3 * 0.0077)


def test_known_classes_of_two_dimensional_systems():
    # alpha_tilde = 1 + mu, mu = (2 - eta) / d: Ising, and independent units
    vectors = np.array([[1.875, 0.875], [1.870, 0.853], [1.0, 0.0], [1.02, 0.03]])
    covariance = np.array([np.diag([0.004, 0.006]) ** 2] * 4)
    names = ["Ising", "Ising, L = 32", "independent", "Bernoulli"]
    margin = np.array([0.05, 0.05])
    found = universality_classes(vectors, covariance, names, margin_E=margin)
    assert found.classes == (("Ising", "Ising, L = 32"), ("independent", "Bernoulli"))
    assert found.distance(found.classes[0]) > 1 > found.width(found.classes[0])
    # exponents agree, scaling functions do not
    apart = universality_classes(
        vectors[:2],
        covariance[:2],
        names[:2],
        margin_E=margin,
        qualities={tuple(names[1::-1]): 9.0},
    )
    assert apart.outcome is Agreement.DIFFERENT
    assert len(apart.classes) == 2
