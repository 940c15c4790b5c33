"""Pairs of models between ceiling and floor."""

import json

import numpy as np
import pytest

from scaleinv_ray.conclude.universality.pairs import ceiling_table
from tests.conclude.measured_rows import measurement

COLUMNS = {
    "series", "probe", "family", "invariant", "quantity", "site", "depth_bin", "step", "variant",
    "model_a", "model_b", "n_params_a", "n_params_b", "value", "stderr", "ceiling", "ceiling_low",
    "ceiling_high", "floor", "relative", "n_pairs", "reason",
}  # fmt: skip
SIZES = (10, 20)


def unit(n, seed):
    return f"s/org/m{n}/100/{seed}/trained"


def single(seeds=3):
    return [
        measurement(n_params=n, model=f"org/m{n}", seed=s, unit=unit(n, s))
        for n in SIZES for s in range(seeds)
    ]  # fmt: skip


def pair(a, b, value, **told):
    (n, s), (m, t) = a, b
    return measurement(n_params=n, model=f"org/m{n}", seed=s, unit=unit(n, s), unit_b=unit(m, t),
                       value=value, stderr=0.01) | told  # fmt: skip


def rows(seeds=3, across=(0.6, 0.7, 0.8), same=0.9, floor=0.1):
    out = single(seeds)
    for s in range(seeds):
        out.append(pair((10, s), (20, s), across[s]))
        out.append(pair((10, s), (20, s), floor, quantity="q_permuted"))
        for t in range(s + 1, seeds):
            out += [pair((n, s), (n, t), same + 0.01 * (s + t)) for n in SIZES]
    return out


def test_by_hand():
    (found,) = ceiling_table(rows())
    assert set(found) == COLUMNS
    json.dumps(found, allow_nan=False)
    assert (found["model_a"], found["model_b"]) == ("org/m10", "org/m20")
    assert (found["n_params_a"], found["n_params_b"], found["n_pairs"]) == (10, 20, 3)
    assert found["value"] == pytest.approx(0.7)
    assert found["stderr"] == pytest.approx(0.1 / np.sqrt(3))
    assert found["ceiling"] == pytest.approx(0.92)  # mean of .91, .92, .93 at both sizes
    assert found["ceiling_low"] < 0.92 < found["ceiling_high"]
    assert found["floor"] == pytest.approx(0.1)
    assert found["relative"] == pytest.approx(0.6 / 0.82)
    assert found["reason"] == ""
    assert ceiling_table(rows()[::-1]) == [found]


def test_the_smaller_model_comes_first_and_depth_bins_are_kept():
    swapped = [
        r | {"unit": r["unit_b"], "unit_b": r["unit"], "n_params": 20, "model": "org/m20"}
        if r["unit_b"] and r["n_params"] == 10 and "m20" in r["unit_b"]
        else r
        for r in rows()
    ]
    (found,) = ceiling_table(swapped)
    assert (found["n_params_a"], found["value"]) == (10, pytest.approx(0.7))
    layered = [r | {"layer": i, "depth": (i + 1) / 2} for r in rows() for i in (0, 1)]
    assert [r["depth_bin"] for r in ceiling_table(layered)] == ["all", "late", "middle"]


def test_what_is_missing_is_said():
    (alone,) = ceiling_table([*single(1), pair((10, 0), (20, 0), 0.5)])
    assert (alone["ceiling"], alone["floor"], alone["relative"]) == (None, None, None)
    assert alone["stderr"] == 0.01
    assert alone["reason"] == "no pair of seeds of one size; no permuted control"
    (two,) = ceiling_table(rows(seeds=2, across=(0.6, 0.8)))
    assert two["ceiling"] == pytest.approx(0.91)
    refused = rows()
    for row in refused:
        if row["unit_b"] == unit(20, 1) and row["n_params"] == 10:
            row |= {"status": "refused", "value": None, "error": "too few"}
    (found,) = ceiling_table(refused)
    assert (found["n_pairs"], found["value"]) == (2, pytest.approx(0.7))
    assert found["reason"] == "1 of 3 pairs dropped: too few"


def test_pairs_that_share_a_model_have_no_error():
    shared = [*single(), pair((10, 0), (20, 0), 0.5), pair((10, 0), (20, 1), 0.7)]
    (found,) = ceiling_table(shared)
    assert (found["value"], found["stderr"]) == (pytest.approx(0.6), None)


def test_no_pairs_no_rows_and_unknown_units_are_refused():
    assert ceiling_table(single()) == []
    with pytest.raises(ValueError, match="unit_b"):
        ceiling_table([pair((10, 0), (20, 0), 0.5)])
