"""From measurements to verdicts and predictions."""

import json

import numpy as np
import pytest
from scipy import stats

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.conclude.conservation.judging import judge
from scaleinv_ray.conclude.conservation.verdicts_table import judge_table
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
    assert tables.encode(verdicts, SCHEMAS["verdicts"]).num_rows == 6 * 4  # quantities x depth bins
    assert tables.encode(predictions, SCHEMAS["predictions"]).num_rows > 0
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
    assert found["estimator_share"] is None  # no blocks of sequences are kept


def with_blocks(rows, blocks_of):
    """Rows with samples: value times (1 + blocks), whose error is theirs."""
    made = []
    for row in rows:
        samples = row["value"] * (1 + blocks_of(row))
        stderr = float(samples.std(ddof=1) / np.sqrt(len(samples)))
        made.append(row | {"samples": samples.tolist(), "stderr": stderr})
    return made


def test_the_share_of_the_estimator_is_what_models_do_not_share():
    rng = np.random.default_rng(5)
    common, own = 0.1 * rng.normal(size=8), {}

    def of_model(row):
        return own.setdefault((row["n_params"], row["seed"]), 0.02 * rng.normal(size=8))

    rows = measured("law", lambda v, i: 3.0 * 2.0**i)
    found = {
        name: at(judge_table(with_blocks(rows, blocks), quantities={})[0], depth_bin="all")[0]
        for name, blocks in (
            ("shared", lambda row: common),
            ("own", of_model),
            ("both", lambda row: common + of_model(row)),
        )
    }
    values = [[r["value"] for r in at(rows, n_params=n, layer=0)] for n in SIZES]
    away = np.array([own[n, s] for n in SIZES for s in range(3)]).reshape(4, 3, 8)
    left = away - away.mean(axis=2, keepdims=True)
    left -= left.mean(axis=1, keepdims=True)
    share = (left**2).sum() / 8 / 7 / (4 * 2) / judge(SIZES, values).seed_variance
    assert found["shared"]["estimator_share"] == pytest.approx(0, abs=1e-9)
    for name in ("own", "both"):
        assert found[name]["estimator_share"] == pytest.approx(share, rel=1e-6)


def test_of_weights_exact_values_have_no_share_and_fits_an_unknown_one():
    rows = [row | {"probe": None} for row in measured("law", lambda v, i: 3.0 * 2.0**i)]

    def share(made):
        return at(judge_table(made, quantities={})[0], depth_bin="all")[0]["estimator_share"]

    assert share([row | {"stderr": 0.0, "error_kind": "exact"} for row in rows]) == 0.0
    assert share([row | {"stderr": 0.1, "error_kind": "fit"} for row in rows]) is None
    tiles = with_blocks(rows, lambda row: 0.01 * np.arange(4))
    values = [[r["value"] for r in at(rows, n_params=n, layer=0)] for n in SIZES]
    relative = np.std(0.01 * np.arange(4), ddof=1) / 2 / LAYERS**0.5
    expected = relative**2 / judge(SIZES, values).seed_variance
    assert share(tiles) == pytest.approx(expected, rel=0.05)


def test_random_init_gives_the_class_and_the_others_are_reported(tabled):
    _, (verdicts, _) = tabled
    (flat,) = at(verdicts, quantity="flat", depth_bin="all")
    assert flat["null_class"] == "learned"
    assert "shuffled weights: learned" in flat["reason"]
    assert "shuffled tokens: learned" in flat["reason"]
    (law,) = at(verdicts, quantity="law", depth_bin="all")
    assert law["null_class"] is None
    only_shuffled = measured("flat", lambda v, i: 2.0, variants=("trained", "shuffled_tokens"))
    (row,) = at(judge_table(only_shuffled, quantities={})[0], depth_bin="all")
    assert row["null_class"] is None
    assert "shuffled tokens: trivial" in row["reason"]


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


def test_controls_and_the_same_question_again_are_not_counted():
    rows = measured("a", lambda v, i: 1.0) + measured("bb", lambda v, i: 1.0, sd=0.02)
    alone, _ = judge_table(rows, quantities={})
    with_control = [*rows, *measured("ccc", lambda v, i: 1.0 + 0.005 * i)]
    claims = {("spectra.rank", "ccc"): Quantity(law="none", control=True)}
    verdicts, _ = judge_table(with_control, quantities=claims)
    for found in at(verdicts, control=False):
        (same,) = at(alone, quantity=found["quantity"], depth_bin=found["depth_bin"])
        assert found["q"] == same["q"]
    controls = at(verdicts, control=True)
    assert {r["quantity"] for r in controls} == {"ccc"}
    assert {r["q"] for r in controls} == {None}
    # whole depth apart from its thirds
    whole = [r | {"depth": None} for r in rows]
    for found in at(judge_table(whole, quantities={})[0]):
        (same,) = at(alone, quantity=found["quantity"], depth_bin="all")
        assert found["q"] == same["q"]


def losses(rows):
    """The same rows at a second checkpoint besides, with held-out losses."""
    return [
        r | {"step": step, "train_tokens": 10 * step, "eval_loss": loss}
        for r in rows
        for step, loss in ((100, 4.0), (200, 3.0 - 1e-8 * r["n_params"]))
    ]


def test_only_the_comparisons_asked_for_and_q_within_each():
    rows = losses(measured("a", lambda v, i: 1.0) + measured("bb", lambda v, i: 1.0, sd=0.02))
    both, _ = judge_table(rows, quantities={})
    assert {r["comparison"] for r in both} == {"equal_steps", "equal_loss"}
    for name in ("equal_steps", "equal_loss"):
        verdicts, predictions = judge_table(rows, quantities={}, comparisons=[name])
        assert verdicts == at(both, comparison=name)
        assert {r["comparison"] for r in predictions} == {name}
    with pytest.raises(ValueError, match="comparisons: got"):
        judge_table(rows, quantities={}, comparisons=["equal_time"])


def test_the_margin_of_the_run_where_none_is_declared():
    rows = measured("a", lambda v, i: 1.0, depth=None)
    claims = {("spectra.rank", "a"): Quantity(law="constant", unit=2.0)}
    ((found,), _) = judge_table(rows, quantities=claims, margin=0.3)
    assert (found["margin"], found["unit"], found["law"]) == (0.3, 2.0, "constant")
    claims = {("spectra.rank", "a"): Quantity(law="constant", margin=0.2)}
    ((found,), _) = judge_table(rows, quantities=claims, margin=0.3)
    assert found["margin"] == 0.2


@pytest.mark.parametrize(
    ("law", "growth", "contradicts"),
    [("constant", 2.0, True), ("constant", 1.0, False), ("power_law", 1.0, True),
     ("power_law", 2.0, False), ("none", 2.0, False)],
)  # fmt: skip
def test_a_verdict_against_the_claim_says_so(law, growth, contradicts):
    rows = measured("a", lambda v, i: growth**i, depth=None)
    claims = {("spectra.rank", "a"): Quantity(law=law)}
    ((found,), _) = judge_table(rows, quantities=claims)
    assert found["law"] == law
    assert found["verdict"] == ("conserved" if growth == 1.0 else "scales")
    said = f"claimed in advance: {law.replace('_', ' ')}"
    assert found["reason"].endswith(said) == contradicts


def test_integers_are_compared_exactly_and_then_in_ones():
    claims = {("spectra.rank", "a"): Quantity(law="integer")}
    same = measured("a", lambda v, i: 3.0, sd=0.0, depth=None)
    ((found,), _) = judge_table(same, quantities=claims)
    assert found["verdict"] == "conserved_exact"
    # zero among them, which has no logarithm
    steps = measured("a", lambda v, i: float(i // 2), sd=0.0, depth=None)
    ((found,), _) = judge_table(steps, quantities=claims)
    assert (found["verdict"], found["unit"]) == ("not_conserved", 1.0)


def refuse(rows, text="too few"):
    return [r | {"status": "refused", "value": None, "error": text} for r in rows]


def test_a_dropped_seed_is_counted_and_the_reason_given():
    rows = measured("a", lambda v, i: 1.0)
    rows[0] |= refuse(rows[:1])[0]
    verdicts, _ = judge_table(rows, quantities={})
    (found,) = at(verdicts, depth_bin="all")
    assert (found["n_models"], found["n_seeds"], found["n_refused"]) == (4, 2, 1)
    assert "1 of 12 models dropped: too few" in found["reason"]
    (late,) = at(verdicts, depth_bin="late")
    assert (late["n_seeds"], late["n_refused"]) == (3, 0)


def test_a_place_without_any_value_is_one_refused_row():
    rows = losses(refuse(measured("a", lambda v, i: 1.0)))
    verdicts, predictions = judge_table(rows, quantities={})
    (found,) = verdicts
    assert (found["verdict"], found["comparison"]) == ("refused", "equal_steps")
    assert (found["depth_bin"], found["step"], found["n_refused"]) == ("all", 200, 12)
    assert "12 of 12 models dropped: too few" in found["reason"]
    assert found["conservation_error"] is None
    assert found["q"] is None
    assert predictions == []
    assert tables.encode(verdicts, SCHEMAS["verdicts"]).num_rows == 1


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ("probe: got 'prose', defined on 'induction'", "not_asked"),
        ("needs max_dimension 2, got 1", "not_asked"),
        ("distinct rows: got 52 of 512", "refused"),
        ("OSError: No space left on device", "undetermined"),
    ],
)
def test_what_nobody_asked_for_is_apart_from_what_could_not_be_had(error, verdict):
    verdicts, _ = judge_table(refuse(measured("a", lambda v, i: 1.0), error), quantities={})
    assert {found["verdict"] for found in verdicts} == {verdict}


def test_the_error_of_conservation_is_in_units_where_one_is_declared():
    rows = measured("a", lambda v, i: 0.01 + i * 1e-9 if v == "trained" else 1.0)
    for row in rows:
        row["value"] += row["n_params"] * 1e-3
    units = {("spectra.rank", "a"): Quantity(law="none", unit=2.0)}
    (found,) = at(judge_table(rows, quantities=units)[0], depth_bin="all")
    assert found["conservation_error"] == pytest.approx(1e-3 * (SIZES[-1] - SIZES[0]) / 2, rel=1e-3)


def test_what_the_configuration_excludes_is_not_missing():
    rows = refuse(measured("a", lambda v, i: 1.0), "a: needs max_dimension 2, got 1")
    assert judge_table(rows, quantities={}) == ([], [])
    # elsewhere the whole record was refused, for another reason
    other = [r | {"site": "resid_pre"} for r in refuse(measured("a", lambda v, i: 1.0))]
    assert judge_table([*rows, *other], quantities={}) == ([], [])


@pytest.mark.parametrize("wanted", ["equal_steps", "final"])
def test_steps_of_their_own_change_no_verdict(wanted):
    """A series of finished models is judged as if nothing had said their steps."""
    both = measured("a", lambda v, i: 1.0, variants=("trained", "random_init"))
    without, _ = judge_table([r | {"step": None} for r in both], quantities={})
    own = [r | {"step": r["n_params"]} for r in both]
    verdicts, predictions = judge_table(own, quantities={}, comparisons=[wanted])
    assert {r["comparison"] for r in verdicts} == {"final"}
    assert {r["verdict"] for r in verdicts} == {"conserved"} and predictions
    said = ("step", "comparison", "reason")
    numbers = [{k: v for k, v in r.items() if k not in said} for r in verdicts]
    assert numbers == [{k: v for k, v in r.items() if k not in said} for r in without]
    assert all("no step in common: each at its last checkpoint" in r["reason"] for r in verdicts)


@pytest.mark.parametrize("wanted", ["equal_steps", "equal_tokens", "final"])
def test_the_same_checkpoints_are_judged_once_whatever_is_asked(wanted):
    rows = [r | {"train_tokens": 5} for r in measured("a", lambda v, i: 1.0)]
    verdicts, _ = judge_table(rows, quantities={}, comparisons=[wanted])
    assert {r["comparison"] for r in verdicts} == {"equal_steps"}


def test_a_null_missing_at_a_size_is_named():
    rows = measured("a", lambda v, i: 1.0, variants=("trained", "random_init"), depth=None)
    rows = [r for r in rows if r["variant"] == "trained" or r["n_params"] > SIZES[0]]
    ((found,), _) = judge_table(rows, quantities={})
    assert found["null_class"] is None
    assert "random_init: missing at sizes 1,000,000" in found["reason"]


def test_nothing_gives_empty_tables():
    assert judge_table([], quantities={}) == ([], [])
