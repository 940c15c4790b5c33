"""Volumes of small loss by simulation, against exact coefficients and exact volumes."""

import itertools
from functools import cache

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities import (
    ade_table,
    singularities,
    subset_simulation,
    toys,
    volume_law,
)

TOYS = {toy.name: toy for toy in toys()}
SLOW_LOGARITHM = {"(w1^2 - w2^3)^2"}  # next pole 1/2 beside 5/12: m is not resolved


@cache
def toy_law(name):
    return law_of(TOYS[name])


def law_of(entry, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    found = subset_simulation(entry.potential, entry.num_variables, rng=rng, **sizes)
    return found, volume_law(found, max_multiplicity=entry.num_variables)


def within(estimate, llc, percent=2):
    """2 per cent, or three errors where they are larger."""
    return abs(estimate.value - llc) < max(percent / 100 * llc, 3 * estimate.stderr)


@pytest.mark.parametrize("name", TOYS)
def test_llc_of_the_ten_toys_at_their_multiplicity(name):
    llc, multiplicity = TOYS[name].coefficient
    _, law = toy_law(name)
    estimate = law.llc_by_multiplicity[multiplicity]
    assert estimate.stderr < 0.03 * llc
    assert within(estimate, float(llc))
    assert law.weights[multiplicity] > 0.05


@pytest.mark.slow
def test_multiplicity_of_nine_toys_of_ten():
    """Over eight seeds: the right one in more than half of them, on all but one toy."""
    right = {
        name: np.mean([law_of(toy, s)[1].multiplicity == toy.coefficient[1] for s in range(8)])
        for name, toy in TOYS.items()
    }
    assert {name for name, share in right.items() if share <= 0.5} <= SLOW_LOGARITHM


@pytest.mark.parametrize("name", ["w^2", "w1^2 w2^2", "w1^2 w2^2 w3^2"])
def test_multiplicity_of_normal_crossings(name):
    _, law = toy_law(name)
    assert law.multiplicity == TOYS[name].coefficient.multiplicity


EXACT = {  # log V on the cube at log eps
    "w^2": lambda log_eps: log_eps / 2,
    "w1^2 + w2^2": lambda log_eps: log_eps + np.log(np.pi / 4),
    "w1^2 w2^2": lambda log_eps: log_eps / 2 + np.log1p(-log_eps / 2),
}


@pytest.mark.parametrize("name", EXACT)
def test_volumes_are_exact_within_the_spread_of_the_blocks(name):
    found, _ = toy_law(name)
    inside_L = found.log_eps_BL.max(axis=0) < 0  # the disc has to fit into the square
    error_BL = (EXACT[name](found.log_eps_BL) - found.log_volume_L)[:, inside_L]
    stderr_L = error_BL.std(axis=0, ddof=1) / np.sqrt(len(error_BL))
    assert inside_L.sum() > 30
    z_L = error_BL.mean(axis=0) / stderr_L
    assert np.abs(z_L).max() < 4


def test_errors_are_those_of_repeated_runs():
    toy = TOYS["w^2"]
    sizes = {"num_particles": 200, "num_blocks": 10, "smallest_volume": 1e-6}
    laws = [law_of(toy, s, **sizes)[1].llc_by_multiplicity[1] for s in range(24)]
    z_S = [(law.value - 0.5) / law.stderr for law in laws]
    # 24 z, each of 9 degrees of freedom: mean 0 +- 0.23, standard deviation 1.13 +- 0.18, less
    # where the error holds a spread over fits, as it does with few levels.
    assert abs(np.mean(z_S)) < 0.7
    assert 0.4 < np.std(z_S) < 1.7


@pytest.mark.parametrize("name", ["(E_6)^2", "(D_4-)^2", "(A_3-)^2"])
def test_three_simple_singularities_by_simulation(name):
    entry = {e.name: e for e in ade_table()}[name]
    _, law = law_of(entry)
    assert within(law.llc_by_multiplicity[1], float(entry.coefficient.llc), percent=3)


@pytest.mark.slow
@pytest.mark.parametrize("entry", list(ade_table(largest_index=6)), ids=lambda e: e.name)
def test_all_simple_singularities_by_simulation(entry):
    llc, multiplicity = entry.coefficient
    _, law = law_of(entry)
    assert within(law.llc_by_multiplicity[multiplicity], float(llc), percent=5)


def test_a_tanh_unit_is_the_normal_crossing_of_the_dictionary():
    x_X = np.linspace(-2, 2, 9)

    def loss(w):
        return np.mean((w[..., :1] * np.tanh(w[..., 1:] * x_X)) ** 2, axis=-1)

    (entry,) = (e for e in singularities() if e.family == "tanh")
    found = subset_simulation(loss, entry.num_variables, rng=np.random.default_rng(0))
    law = volume_law(found, max_multiplicity=2)
    assert law.multiplicity == entry.coefficient.multiplicity
    assert within(law.llc, float(entry.coefficient.llc))


def elementary_square(power):
    """e_k(|w|)^2: k of N have to vanish."""

    def square(w_PN):
        x_PN = np.abs(w_PN)
        e = [np.ones(x_PN.shape[:-1]), *(np.zeros(x_PN.shape[:-1]) for _ in range(power))]
        for i in range(x_PN.shape[-1]):
            for j in range(power, 0, -1):
                e[j] = e[j] + e[j - 1] * x_PN[..., i]
        return e[power] ** 2

    return square


def latent_class_square(w_PN):
    """Two classes of three binary features, the truth independent: coefficient 2."""
    t, a, b = (1 + w_PN[..., 0]) / 2, (1 + w_PN[..., 1:4] * 0.9) / 2, (1 + w_PN[..., 4:] * 0.9) / 2
    total = np.zeros(t.shape)
    for y in itertools.product((False, True), repeat=3):
        p, q = (np.where(y, x, 1 - x).prod(axis=-1) for x in (a, b))
        total += (8 * (t * p + (1 - t) * q) - 1) ** 2 / 8
    return total


def constant_yes_square(w_PN):
    """Mean over words of (1 - P(yes))^2 of three states, all rules of which go to state 0.

    State 2 alone rejects: 12 probabilities of wrong outcomes, coefficient 2, multiplicity 2.
    """
    u_PRO = np.abs(w_PN).reshape(*w_PN.shape[:-1], 3, 2, 2) / 2  # state, symbol, wrong outcome
    rules = np.concatenate([1 - u_PRO.sum(axis=-1, keepdims=True), u_PRO], axis=-1)
    reached = [np.broadcast_to([1.0, 0, 0], (*w_PN.shape[:-1], 3))]
    total, num = np.zeros(w_PN.shape[:-1]), 0
    for _ in range(4):
        reached = [
            np.einsum("...i,...ij->...j", at, rules[..., symbol, :])
            for at in reached
            for symbol in (0, 1)
        ]
        total += sum(at[..., 2] ** 2 for at in reached)
        num += len(reached)
    return total / num


NEAR_FACES = {  # K, variables, exact coefficient and multiplicity
    "e_3 of 5": (elementary_square(3), 5, 5 / 6, 1),
    "e_4 of 7": (elementary_square(4), 7, 7 / 8, 1),
    "latent class": (latent_class_square, 7, 2.0, 1),
    "constant yes": (constant_yes_square, 12, 2.0, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NEAR_FACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_error_holds_that_the_multiplicity_may_be_another(name, seed):
    potential, num, llc, multiplicity = NEAR_FACES[name]
    found = subset_simulation(potential, num, rng=np.random.default_rng(seed))
    law = volume_law(found, max_multiplicity=num)
    assert abs(law.llc.value - llc) < 3 * law.llc.stderr
    assert law.llc.stderr < 0.1 * llc
    assert within(law.llc_by_multiplicity[multiplicity], llc, percent=3)


def test_a_corner_that_is_entered_at_an_angle_has_a_zero():
    """K = |w1| + |w2| + |w3|: coefficient 3, above N / 2; steps as of a Hessian are too long."""

    def corner(w_PN):
        return np.abs(w_PN).sum(axis=-1)

    sizes = {"num_particles": 1000, "smallest_volume": 1e-12}
    found = subset_simulation(corner, 3, rng=np.random.default_rng(0), in_corner=True, **sizes)
    assert within(volume_law(found, max_multiplicity=1).llc, 3.0)
    with pytest.raises(Refused, match=r"or one with a gradient \(in_corner\)"):
        subset_simulation(corner, 3, rng=np.random.default_rng(0), **sizes)
