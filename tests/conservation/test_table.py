"""From measurements to verdicts and predictions."""

import json

import numpy as np
import pytest
from scipy import stats

from scaleinv_ray import tables
from scaleinv_ray.conservation import judge, judge_table
from scaleinv_ray.contract import Quantity

SIZES = (1_000_000, 4_000_000, 16_000_000, 64_000_000)
LAYERS = 3


def measured(quantity, mean_of, *, sd=0.01, seeds=3, variants=("trained",), **told):
    """Rows of a quantity with mean mean_of(variant, i) at size i; layers agree within a model."""
    rng = np.random.default_rng(len(quantity))
    rows = []
    for variant in variants:
        for i, n in enumerate(SIZES):
            for seed in range(seeds):
                value = mean_of(variant, i) * np.exp(sd * rng.normal())
                for layer in range(LAYERS):
                    rows.append(
                        dict.fromkeys(tables.MEASUREMENTS.names)
                        | {
                            "series": "s", "model": f"d{i}-s{seed}", "n_params": n, "seed": seed,
                            "step": 100, "train_tokens": 1000, "variant": variant, "probe": "prose",
                            "protocol": "p", "layer": layer, "depth": (layer + 1) / LAYERS,
                            "site": "resid_post", "family": "spectra", "invariant": "spectra.rank",
                            "version": 1, "quantity": quantity, "law": "constant",
                            "value": value, "stderr": 0.003 * value, "params": "{}", "status": "ok",
                        }
                        | told
                    )  # fmt: skip
    return rows


def at(rows, **key):
    return [r for r in rows if key.items() <= r.items()]


@pytest.fixture(scope="module")
def tabled():
    rows = [
        *measured("flat", lambda v, i: 2.0 if v == "trained" else 2.0 * 2.0**i,
                  variants=("trained", "random_init", "shuffled_weights", "shuffled_tokens")),
        *measured("law", lambda v, i: 3.0 * 2.0**i),
        *measured("one seed", lambda v, i: 1.0, seeds=1),
        *measured("zero", lambda v, i: 0.0),
        *measured("mixed", lambda v, i: -1.0 if i else 1.0),
        *measured("in units", lambda v, i: -1.0 if i else 1.0),
    ]  # fmt: skip
    quantities = {("spectra.rank", "in units"): Quantity(law="constant", margin=0.5, unit=1.0)}
    return rows, judge_table(rows, quantities=quantities, margin=0.1)


def test_rows_are_exactly_those_of_the_schemas(tabled):
    _, (verdicts, predictions) = tabled
    assert tables.encode(verdicts, tables.VERDICTS).num_rows == 6 * 4  # quantities x depth bins
    assert tables.encode(predictions, tables.PREDICTIONS).num_rows > 0
    json.dumps([verdicts, predictions], allow_nan=False)


def test_verdicts(tabled):
    _, (verdicts, _) = tabled
    found = {r["quantity"]: r["verdict"] for r in at(verdicts, depth_bin="all")}
    assert found == {
        "flat": "conserved",
        "law": "scales",
        "one seed": "undetermined",
        "zero": "conserved_exact",
        "mixed": "undetermined",
        "in units": "not_conserved",
    }
    (mixed,) = at(verdicts, quantity="mixed", depth_bin="all")
    assert "unit is declared" in mixed["reason"]
    (in_units,) = at(verdicts, quantity="in units", depth_bin="all")
    assert (in_units["margin"], mixed["margin"]) == (0.5, 0.1)


def test_the_judge_sees_one_value_a_model(tabled):
    rows, (verdicts, _) = tabled
    (found,) = at(verdicts, quantity="law", depth_bin="late")
    values = [
        [r["value"] for r in at(rows, quantity="law", n_params=n, layer=LAYERS - 1)] for n in SIZES
    ]
    alone = judge(SIZES, values)
    assert found["exponent"] == pytest.approx(alone.exponent)
    assert found["certified_change"] == pytest.approx(alone.certified_change)
    assert (found["n_models"], found["n_seeds"], found["step"]) == (4, 3, 100)
    share = (0.003**2) / alone.seed_variance
    assert found["estimator_share"] == pytest.approx(share, rel=1e-6)
    (over_layers,) = at(verdicts, quantity="law", depth_bin="all")
    assert over_layers["estimator_share"] == pytest.approx(share / LAYERS, rel=1e-6)


def test_random_init_gives_the_class_and_the_others_are_reported(tabled):
    _, (verdicts, _) = tabled
    (flat,) = at(verdicts, quantity="flat", depth_bin="all")
    assert flat["null_class"] == "learned"
    assert "shuffled_weights: learned" in flat["reason"]
    assert "shuffled_tokens: learned" in flat["reason"]
    (law,) = at(verdicts, quantity="law", depth_bin="all")
    assert law["null_class"] is None
    only_shuffled = measured("flat", lambda v, i: 2.0, variants=("trained", "shuffled_tokens"))
    (row,) = at(judge_table(only_shuffled, quantities={})[0], depth_bin="all")
    assert row["null_class"] is None
    assert "shuffled_tokens: trivial" in row["reason"]


def test_predictions_are_of_sizes_from_smaller_ones(tabled):
    _, (_, predictions) = tabled
    (found,) = at(predictions, quantity="law", depth_bin="all", form="power")
    assert found["n_params"] == SIZES[3]
    assert found["fitted_on"] == list(SIZES[:3])
    assert found["model"] == "d3-s0, d3-s1, d3-s2"
    assert found["low"] < 24.0 < found["high"]
    assert found["covered"]
    assert found["error"] < 0.1 < found["naive_last_error"] < found["naive_mean_error"]
    assert at(predictions, quantity="mixed") == []


def test_q_is_benjamini_hochberg_within_test_and_family():
    rows = [
        *measured("a", lambda v, i: 1.0),
        *measured("bb", lambda v, i: 1.0, sd=0.02),
        *measured("ccc", lambda v, i: 1.0 + 0.005 * i),
        *measured("dddd", lambda v, i: 1.0, family="topology"),
    ]
    rows = [r | {"depth": None} for r in rows]
    verdicts, _ = judge_table(rows, quantities={})
    assert {r["verdict"] for r in verdicts} <= {"conserved", "conserved_drifting"}
    for family in ("spectra", "topology"):
        mine = at(verdicts, family=family)
        p = []
        for found in mine:
            values = [
                [r["value"] for r in at(rows, quantity=found["quantity"], n_params=n, layer=0)]
                for n in SIZES
            ]
            p.append(judge(SIZES, values).tost_p)
        assert [r["q"] for r in mine] == pytest.approx(stats.false_discovery_control(p))


def test_empty_and_refused_rows_give_empty_tables():
    assert judge_table([], quantities={}) == ([], [])
    refused = [r | {"status": "refused"} for r in measured("a", lambda v, i: 1.0)]
    assert judge_table(refused, quantities={}) == ([], [])
