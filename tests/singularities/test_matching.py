import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities import MatchOutcome, linear_network, match, singularities


def names(candidates):
    return {name for candidate in candidates for name in candidate.names}


@pytest.mark.parametrize("entry", singularities(), ids=lambda e: e.name)
def test_every_entry_finds_itself(entry):
    llc, multiplicity = entry.coefficient
    found = match(
        float(llc),
        0.001 * float(llc),
        multiplicity=(multiplicity,),
        zero_modes=entry.zero_modes,
        symmetry_dimension=entry.symmetry_dimension,
    )
    assert found.outcome is MatchOutcome.ONE
    assert entry.name in found.candidates[0].names
    assert found.candidates[0].llc == llc


def test_far_from_everything_there_is_no_match():
    found = match(0.45, 0.002)
    assert found.outcome is MatchOutcome.NO_MATCH
    assert not found.candidates
    assert found.no_match_probability > 0.99
    assert {"(w1^2 - w2^3)^2", "w^2"} & names(found.nearest)


def test_a_wide_error_matches_several_and_says_that_it_says_nothing():
    found = match(0.33, 0.1)
    assert found.outcome is MatchOutcome.SEVERAL
    assert len(found.candidates) > 5
    assert found.coverage > 0.5
    assert match(0.33, 0.0005).coverage < 0.1


def test_probabilities_sum_to_one_and_follow_the_likelihood():
    entries = [linear_network((8, 4, 8), 2), linear_network((8, 4, 8), 3)]
    found = match(19.6, 1.0, entries=entries)
    total = sum(c.probability for c in found.nearest) + found.no_match_probability
    assert total == pytest.approx(1)
    likelihoods = [c.log_likelihood for c in found.nearest]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert found.nearest[0].names == ("linear 8-4-8, rank 2",)


def test_multiplicity_zero_modes_and_symmetry_each_exclude():
    both = match(0.5, 0.001)
    assert {"w^2", "w1^2 w2^2", "(4 |w|^2 - 1)^2"} <= names(both.candidates)
    double = names(match(0.5, 0.001, multiplicity=(2,)).candidates)
    assert "w1^2 w2^2" in double and "w^2" not in double
    assert "w^2" in names(match(0.5, 0.001, multiplicity=(1, 2)).candidates)
    assert "(4 |w|^2 - 1)^2" not in names(match(0.5, 0.001, zero_modes=0).candidates)
    plain = names(match(0.5, 0.001, multiplicity=(2,), symmetry_dimension=0).candidates)
    assert "one tanh unit a tanh(b x), truth 0" in plain and "w1^2 w2^2" not in plain


def test_indefinite_forms_in_three_variables_come_as_one_candidate():
    found = match(0.5, 0.001, multiplicity=(1,), zero_modes=3)
    assert found.outcome is MatchOutcome.ONE
    assert {"(E_8 + z^2)^2", "(D_4- + z^2)^2", "(A_2 - z^2)^2"} <= set(found.candidates[0].names)


def test_regular_directions_are_split_off():
    # w1^2 + w2^4 with ten further squares: 3/4 + 5.
    found = match(5.75, 0.01, hessian_rank=11, zero_modes=1)
    assert {"A_3+", "w1^2 + w2^4"} <= set(found.candidates[0].names)
    assert match(5.75, 0.01, hessian_rank=10, zero_modes=1).outcome is MatchOutcome.NO_MATCH


def test_a_negative_coefficient_matches_nothing():
    assert match(-0.3, 0.01).outcome is MatchOutcome.NO_MATCH


def test_an_empty_dictionary_is_no_match():
    found = match(0.5, 0.01, entries=[])
    assert (found.outcome, found.no_match_probability) == (MatchOutcome.NO_MATCH, 1.0)


@pytest.mark.parametrize("stderr", [None, 0.0, float("nan"), -1.0])
def test_without_an_error_nothing_is_matched(stderr):
    with pytest.raises(Refused, match="stderr"):
        match(0.5, stderr)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="llc: got nan"):
        match(float("nan"), 0.1)
    with pytest.raises(ValueError, match="level: got 1.5"):
        match(0.5, 0.1, level=1.5)
