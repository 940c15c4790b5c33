"""Behaviour of the simulation: reproducible, and refusing what it cannot do."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities import subset_simulation, volume_law

SMALL = {"num_particles": 200, "num_blocks": 4, "num_moves": 10}


def square(w):
    return w[..., 0] ** 2


def run(potential=square, *, seed=0, **sizes):
    return subset_simulation(potential, 1, rng=np.random.default_rng(seed), **(SMALL | sizes))


def test_the_same_generator_gives_the_same_levels():
    np.testing.assert_array_equal(run().log_eps_BL, run().log_eps_BL)
    assert (run().log_eps_BL[:, 0] != run(seed=1).log_eps_BL[:, 0]).all()


def test_thresholds_fall_and_every_particle_is_below_its_own():
    found = run()
    assert (np.diff(found.log_eps_BL, axis=1) < 0).all()
    # Losses are kept no smaller than the smallest asked for, hence all levels but the last.
    assert (found.log_k_BLP[:, 1:-1] < found.log_eps_BL[:, :-1, None]).all()
    assert (np.diff(found.log_volume_L) < 0).all()
    assert (found.acceptance_L > 0).all()


def test_levels_end_at_the_smallest_volume_or_loss():
    assert run(smallest_volume=1e-5).log_volume_L[-1] > np.log(1e-5)
    assert run(smallest_volume=1e-5).log_volume_L[-1] < np.log(1e-4)
    assert np.median(run(smallest_loss=1e-6).log_eps_BL[:, -1]) >= np.log(1e-6)


def test_a_positive_loss_has_no_zero():
    with pytest.raises(Refused, match="no zero"):
        run(lambda w: 0.1 + w[..., 0] ** 2)


def test_a_positive_loss_has_no_zero_on_few_levels_either():
    with pytest.raises(Refused, match="no zero"):
        run(lambda w: 0.1 + w[..., 0] ** 2, smallest_volume=2e-3)


def test_a_loss_that_vanishes_on_half_of_the_cube_has_no_levels():
    with pytest.raises(Refused, match=r"no level: half of the cube has K <= 0 "):
        run(lambda w: np.maximum(w[..., 0] - 0.5, 0.0) ** 2)
    with pytest.raises(Refused, match=r"no level: .* smallest_volume 0\.9"):
        run(smallest_volume=0.9)


@pytest.mark.parametrize("bad", [lambda w: w[..., 0], lambda w: np.full(w.shape[:-1], np.nan)])
def test_losses_below_zero_or_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="negative or non-finite"):
        run(bad)


def test_too_few_particles_or_blocks_are_refused():
    with pytest.raises(ValueError, match="num_particles"):
        run(num_particles=20)
    with pytest.raises(ValueError, match="num_particles"):
        run(num_blocks=1)


def test_few_levels_tell_no_law():
    with pytest.raises(Refused, match="too few"):
        volume_law(run(smallest_volume=1e-2), max_multiplicity=1)


def test_arguments_of_the_law_are_named():
    with pytest.raises(ValueError, match="max_multiplicity: got 0"):
        volume_law(run(), max_multiplicity=0)


def test_the_scale_of_the_loss_does_not_matter():
    plain = volume_law(run(), max_multiplicity=2)
    scaled = volume_law(run(lambda w: 1e-3 * square(w), smallest_loss=1e-31), max_multiplicity=2)
    assert plain.multiplicity == scaled.multiplicity == 1
    spread = np.hypot(plain.llc.stderr, scaled.llc.stderr)
    assert abs(plain.llc.value - scaled.llc.value) < 4 * spread


def test_weights_of_the_multiplicities_sum_to_one():
    law = volume_law(run(), max_multiplicity=3)
    assert sum(law.weights.values()) == pytest.approx(1)
    assert set(law.weights) == set(law.llc_by_multiplicity) == {1, 2, 3}
    own = law.llc_by_multiplicity[law.multiplicity]
    assert law.llc.value == own.value
    assert law.llc.stderr >= own.stderr  # that it may be another is in it
