"""Universality classes: numbers by hand, refusals, and the table."""

import json

import numpy as np
import pytest
from scipy import stats

from scaleinv_ray.conclude.universality.agreement import (
    Agreement,
    own_covariances,
    pooled_covariances,
    universality_classes,
)
from scaleinv_ray.conclude.universality.classes import INVARIANT, classes_table
from scaleinv_ray.contract import Quantity
from tests.conclude.measured_rows import curve, measurement

CLAIMS = {
    (INVARIANT, "alpha_tilde"): Quantity(law="constant", margin=0.05),
    (INVARIANT, "mu"): Quantity(law="constant", margin=0.1, unit=0.5),
}
COLUMNS = {
    "series", "probe", "family", "invariant", "site", "depth_bin", "step", "comparison", "n_params",
    "outcome", "class", "members", "exponents", "centre", "margins", "distance", "width", "apart",
    "p", "quality", "n_systems", "n_classes", "n_seeds", "reason",
}  # fmt: skip


def test_a_pair_by_hand():
    vectors, covariance = np.array([[1.0, 0.0], [1.3, 0.4]]), np.array([0.02 * np.eye(2)] * 2)
    found = universality_classes(vectors, covariance, ["a", "b"], margin_E=np.ones(2)).pairs[
        "a", "b"
    ]
    assert found.distance == pytest.approx(0.5 / 0.2)
    assert found.p == pytest.approx(stats.chi2.sf(6.25, 2))
    assert found.width == pytest.approx(0.4 + stats.norm.ppf(0.95) * 0.2)
    assert found.outcome is Agreement.SAME  # within the margin, though significant


def test_pooled_hotelling_is_the_two_sample_test():
    rng = np.random.default_rng(0)
    sample = [rng.normal(size=(6, 2)), rng.normal(size=(6, 2)) + 0.5]
    covariance, df = pooled_covariances(sample)
    means = np.array([v.mean(axis=0) for v in sample])
    pair = universality_classes(means, covariance, ["a", "b"], margin_E=np.ones(2), df=df)
    d = means[0] - means[1]
    t2 = d @ np.linalg.solve(covariance.sum(axis=0), d)
    assert pair.pairs["a", "b"].p == pytest.approx(stats.f.sf(t2 * 9 / (10 * 2), 2, 9))


def test_own_covariances_use_welch_for_each_exponent():
    rng = np.random.default_rng(1)
    sample = [rng.normal(size=(4, 1)), 5 * rng.normal(size=(7, 1))]
    covariance, df = own_covariances(sample)
    means = np.array([v.mean(axis=0) for v in sample])
    found = universality_classes(means, covariance, ["a", "b"], margin_E=np.ones(1), df=df)
    welch = stats.ttest_ind(sample[0][:, 0], sample[1][:, 0], equal_var=False)
    assert found.pairs["a", "b"].p == pytest.approx(welch.pvalue)


def test_units_of_the_exponents_and_order_of_the_systems_change_nothing():
    rng = np.random.default_rng(2)
    vectors = np.array([[1.0, 0.5], [1.01, 0.52], [2.0, 0.5]])
    root = rng.normal(size=(2, 2)) * 0.01
    covariance = np.array([root @ root.T + 1e-5 * np.eye(2)] * 3)
    margin, unit = np.array([0.1, 0.2]), np.array([3.0, 7.0])
    names = ["a", "b", "c"]
    found = universality_classes(vectors, covariance, names, margin_E=margin, df=4.0)
    scaled = universality_classes(
        vectors * unit, covariance * np.outer(unit, unit), names, margin_E=margin * unit, df=4.0
    )
    turned = universality_classes(vectors[::-1], covariance, names[::-1], margin_E=margin, df=4.0)
    assert found.classes == scaled.classes == (("a", "b"), ("c",))
    assert [set(c) for c in turned.classes] == [{"a", "b"}, {"c"}]
    assert scaled.pairs["a", "c"].p == pytest.approx(found.pairs["a", "c"].p)
    assert found.distance(["c"]) == 0
    assert found.width(["c"]) is None


def test_without_error_equal_is_the_same_and_other_is_different():
    zero = np.zeros((2, 1, 1))
    margin, names = np.array([0.1]), ["a", "b"]
    same = universality_classes(np.ones((2, 1)), zero, names, margin_E=margin, df=2.0)
    assert same.outcome is Agreement.SAME
    other = universality_classes(np.array([[1.0], [2.0]]), zero, names, margin_E=margin, df=2.0)
    assert other.outcome is Agreement.DIFFERENT
    assert other.pairs["a", "b"].p == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"names": ["a", "a"]}, "names"),
        ({"names": ["a"]}, "names"),
        ({"margin_E": np.array([0.0])}, "margin_E"),
        ({"df": 0.0}, "margin_E"),
        ({"covariance_GEE": np.ones((2, 2, 2))}, "covariance_GEE"),
        ({"vector_GE": np.array([[np.nan], [1.0]])}, "finite"),
    ],
)
def test_refusals(change, text):
    given = {
        "vector_GE": np.ones((2, 1)), "covariance_GEE": np.ones((2, 1, 1)), "names": ["a", "b"],
        "margin_E": np.ones(1),
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=text):
        universality_classes(**given)
    with pytest.raises(ValueError, match="replicates"):
        pooled_covariances([np.ones((1, 2)), np.ones((1, 2))])
    with pytest.raises(ValueError, match="replicates"):
        own_covariances([np.ones((1, 2)), np.ones((3, 2))])


def exponents(n, variant="trained", *, alpha=1.3, seeds=3, **told):
    rng = np.random.default_rng(n)
    return [
        measurement(n_params=n, model=f"m{n}", seed=seed, variant=variant, invariant=INVARIANT,
                    family="renormalization", quantity=name, value=value + 0.005 * rng.normal(),
                    architecture="gpt2", **told)
        for seed in range(seeds) for name, value in (("alpha_tilde", alpha), ("mu", 0.5))
    ]  # fmt: skip


def flows(n, variant="trained", *, bend=0.0):
    rng = np.random.default_rng(n)
    x = np.array([1.0, 2.0, 4.0, 8.0])
    return [
        curve(x, x ** (1.3 + bend) * (1 + 0.01 * rng.normal(size=4)), n_params=n, model=f"m{n}",
              seed=seed, variant=variant, invariant=INVARIANT, family="renormalization",
              curve="variance_flow", architecture="gpt2")
        for seed in range(3)
    ]  # fmt: skip


def test_sizes_nulls_and_architectures_in_the_table():
    rows = [r for n in (10, 20, 30) for r in exponents(n)]
    rows += [r for n in (10, 20, 30) for r in exponents(n, "random_init", alpha=1.6)]
    rows += [r | {"series": "other", "architecture": "llama"} for r in rows[:6]]
    curves = [c for n in (10, 20, 30) for v in ("trained", "random_init") for c in flows(n, v)]
    out = classes_table(rows, quantities=CLAIMS, curve_rows=curves)
    assert all(set(row) == COLUMNS for row in out)
    json.dumps(out, allow_nan=False)
    (sizes,) = [r for r in out if r["comparison"] == "sizes" and r["series"] == "s"]
    assert (sizes["outcome"], sizes["members"]) == ("same_class", ["10", "20", "30"])
    assert sizes["exponents"] == ["alpha_tilde", "mu"]
    assert sizes["width"] < 1
    assert sizes["quality"] < 4
    assert sizes["margins"] == pytest.approx([np.log(1.05) * 1.3, 0.05], rel=0.02)
    nulls = [r for r in out if r["comparison"] == "random_init"]
    assert {r["n_params"] for r in nulls} == {10, 20, 30}
    assert {r["outcome"] for r in nulls} == {"different"}
    assert {tuple(r["members"]) for r in nulls} == {("trained",), ("random_init",)}
    (across,) = [r for r in out if r["comparison"] == "architectures"]
    assert across["series"] is None
    assert across["members"] == ["other/llama", "s/gpt2"]


def test_exponents_agree_but_scaling_functions_do_not():
    rows = [r for n in (10, 20) for r in exponents(n)]
    curves = flows(10) + flows(20, bend=0.5)
    out = classes_table(rows, quantities=CLAIMS, curve_rows=curves)
    assert {r["outcome"] for r in out} == {"different"}
    assert "scaling functions differ" in out[0]["reason"]
    alone = classes_table(rows, quantities=CLAIMS)
    assert [r["outcome"] for r in alone] == ["same_class"]
    assert "without scaling functions" in alone[0]["reason"]


def test_one_seed_decides_nothing():
    rows = [r for n in (10, 20) for r in exponents(n, seeds=1)]
    (found,) = classes_table(rows, quantities=CLAIMS)
    assert set(found) == COLUMNS
    assert found["outcome"] == "undetermined"
    assert "two replicates" in found["reason"]
    assert classes_table([], quantities=CLAIMS) == []
