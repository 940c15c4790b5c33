"""What settings are judged by: records that do not fit together are refused, not read."""

import dataclasses

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.degeneracy.chain_verdict import judged_settings
from tests.invariants.synthetic_chains import gaussian_chains


@pytest.mark.parametrize(
    "name", ["virial_NCS", "drift_NCS", "acceptance_NC", "heating_N", "dispersed_C"]
)
def test_optional_arrays_of_another_shape_are_refused(name: str) -> None:
    chains = gaussian_chains(
        np.random.default_rng(0), curvature_D=np.ones(3), num_draws=20,
        dispersed_C=np.zeros(8, dtype=np.int64),
    )  # fmt: skip
    (setting,) = judged_settings(chains)
    assert setting.llc is not None
    short = dataclasses.replace(chains, **{name: getattr(chains, name)[..., :-1]})
    with pytest.raises(Refused, match=rf"{name}: got shape"):
        judged_settings(short)
    without = dataclasses.replace(chains, **{name: None})
    assert judged_settings(without)[0].llc == setting.llc
