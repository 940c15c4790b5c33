"""Verdicts on single series: hand-checked numbers, symmetries, refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from scaleinv_ray.conclude.conservation.fits import LOGARITHMIC, RAW, Means, fit, refit
from scaleinv_ray.conclude.conservation.hypothesis_tests import (
    brown_forsythe_mehrotra_p,
    brown_forsythe_p,
    evidence,
    moments,
    moments_left_out,
    sizes_of,
)
from scaleinv_ray.conclude.conservation.judging import judge
from scaleinv_ray.conclude.conservation.verdict import Verdicts

SIZES = [1e6, 4e6, 16e6, 64e6, 256e6]


def spread(mean_K, sd=0.02, seeds=3):
    """Series with exactly these means of ln I and exactly this seed variance at every size."""
    offsets = np.linspace(-1, 1, seeds)
    offsets *= sd / offsets.std(ddof=1)
    return [np.exp(m + offsets).tolist() for m in mean_K]


def test_flat_series_by_hand():
    found = judge(SIZES, spread([0.0] * 5))
    width = stats.t.ppf(0.95, 10) * math.sqrt(0.02**2 * 2 / 3)
    assert found.verdict is Verdicts.CONSERVED
    assert found.form == "constant"
    assert found.certified_change == pytest.approx(math.expm1(width))
    assert found.tost_p == pytest.approx(stats.t.sf(math.log(1.1) / math.sqrt(0.02**2 * 2 / 3), 10))
    assert found.seed_variance == pytest.approx(0.02**2)
    assert found.q_statistic == pytest.approx(0, abs=1e-12)
    assert found.i2 == 0
    assert found.stable


def test_line_and_heterogeneity_against_scipy():
    mean_K = np.array([0.0, 0.3, 0.5, 0.9, 1.1])
    found = judge(SIZES, spread(mean_K))
    line = stats.linregress(np.log(SIZES), mean_K)
    anova = stats.f_oneway(*[np.log(v) for v in spread(mean_K)])
    assert found.exponent == pytest.approx(line.slope)
    assert found.slope_p_residual == pytest.approx(line.pvalue)
    assert found.f_statistic == pytest.approx(anova.statistic)
    assert found.heterogeneity_p == pytest.approx(anova.pvalue)
    assert found.i2 == pytest.approx(1 - 4 / found.q_statistic)
    half = stats.t.ppf(0.975, 3) * line.stderr
    assert found.exponent_high - found.exponent == pytest.approx(half)
    # equal weights: Paule-Mandel solves sum (m - mean)^2 / (tau2 + s2 / 3) = k - 1
    assert found.tau2 == pytest.approx(mean_K.var(ddof=1) - 0.02**2 / 3, rel=1e-4)


def test_power_law_predicts_the_largest():
    found = judge(SIZES, spread(0.5 * np.log(SIZES)))
    assert found.verdict is Verdicts.SCALES
    assert found.form == "power"
    assert found.exponent == pytest.approx(0.5)
    assert found.held_out_error == pytest.approx(0, abs=1e-9)
    assert found.naive_error == pytest.approx(0.5 * math.log(4))
    assert found.prediction.predicted == pytest.approx(math.sqrt(256e6))
    assert found.prediction.low < found.prediction.observed < found.prediction.high
    assert found.conservation_error == pytest.approx(15.0)


def test_logarithm_and_offset_power_are_told_from_a_power_law():
    sizes = [1e6 * 3**i for i in range(8)]
    z = np.log(sizes) - np.log(sizes[0])
    log = judge(sizes, spread(np.log(1 + 3 * z), sd=0.01))
    offset = judge(sizes, spread(np.log(1 + 4 * np.exp(-0.6 * z)), sd=0.01))
    assert (log.verdict, log.form) == (Verdicts.SCALES, "log")
    assert (offset.verdict, offset.form) == (Verdicts.SCALES, "offset_power")
    assert offset.stable


def test_drift_within_the_margin():
    found = judge(SIZES, spread(0.03 * np.linspace(0, 1, 5), sd=0.002))
    assert found.verdict is Verdicts.CONSERVED_DRIFTING
    assert found.verdict.is_conserved
    assert found.form == "power"


def test_drift_that_no_law_describes_has_no_form():
    # a bend at the end: no form predicts the largest size better than the next smaller one
    found = judge(SIZES, spread([0.0, 0.01, 0.02, 0.03, 0.025], sd=0.0005))
    assert found.verdict is Verdicts.CONSERVED_DRIFTING
    assert found.form is None
    assert found.prediction is not None


def test_u_shape_is_not_conserved():
    found = judge(SIZES, spread([0.3, 0.1, 0.0, 0.1, 0.3]))
    assert found.verdict is Verdicts.NOT_CONSERVED
    assert found.form is None


def test_noise_is_undetermined_and_says_how_many_seeds():
    found = judge(SIZES, spread([0.0, 0.02, -0.02, 0.01, 0.0], sd=math.log(1.1) / 2))
    assert found.verdict is Verdicts.UNDETERMINED
    assert found.seeds_needed == 8


def test_equal_values_are_conserved_exactly_zero_included():
    for value in (3.0, 0.0, -2.0):
        found = judge(SIZES, [[value] * 2] * 5)
        assert found.verdict is Verdicts.CONSERVED_EXACT
        assert found.certified_change == 0


def test_integers_that_step_have_no_variance_and_are_not_conserved():
    found = judge(SIZES, [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [1.0, 1.0]])
    assert found.verdict is Verdicts.NOT_CONSERVED
    assert found.heterogeneity_p == 0


def test_one_outlying_seed_shows_when_it_is_left_out():
    values = spread([0.0] * 5)
    values[2][0] = 1.4
    found = judge(SIZES, values)
    assert found.verdict is Verdicts.UNDETERMINED
    assert found.stable is False
    assert found.left_out[6].is_conserved  # the first seed of the third size
    assert sum(v.is_conserved for v in found.left_out) == 1


@pytest.mark.parametrize("unequal_counts", [False, True])
def test_unequal_variances_use_welch(unequal_counts):
    rng = np.random.default_rng(0)
    values = [np.exp(s * rng.normal(size=4)).tolist() for s in (0.001, 0.002, 0.001, 0.03)]
    if unequal_counts:
        values[1] = values[1][:3]
    found = judge(SIZES[:4], values)
    assert found.unequal_variances
    logs = [np.log(v) for v in values]
    widths = []
    for i in range(4):
        for j in range(i):
            interval = stats.ttest_ind(logs[i], logs[j], equal_var=False).confidence_interval(0.9)
            widths.append(max(abs(interval.low), abs(interval.high)))
    assert math.log1p(found.certified_change) == pytest.approx(max(widths))
    f_star = anova_oneway(logs, use_var="bf")
    assert found.heterogeneity_p == pytest.approx(f_star.pvalue)


def test_batched_tests_agree_with_scipy_and_statsmodels():
    rng = np.random.default_rng(1)
    y_BKS = rng.normal(size=(20, 5, 6)) * rng.uniform(0.5, 3, size=(20, 5, 1))
    y_BKS[:, 1, 4:] = np.nan
    y_BKS[:, 3, 5] = np.nan
    given = moments(y_BKS)
    for b, y_KS in enumerate(y_BKS):
        groups = [seeds[~np.isnan(seeds)] for seeds in y_KS]
        assert brown_forsythe_p(sizes_of(y_BKS))[b] == pytest.approx(stats.levene(*groups).pvalue)
        expected = anova_oneway(groups, use_var="bf").pvalue
        assert brown_forsythe_mehrotra_p(given)[b] == pytest.approx(expected)


def test_batch_rows_do_not_touch_each_other():
    y_BKS = np.random.default_rng(2).normal(size=(7, 5, 3))
    x_K = np.log(SIZES)
    together = evidence(x_K, moments(y_BKS), delta=0.1)
    alone = evidence(x_K, moments(y_BKS[3:4]), delta=0.1)
    for name in vars(alone):
        assert getattr(together, name)[3] == pytest.approx(getattr(alone, name)[0], nan_ok=True)


@pytest.mark.parametrize("mean_K", [[0.0] * 5, 0.3 * np.arange(5), [0.3, 0.1, 0.0, 0.1, 0.3]])
def test_order_of_sizes_and_seeds_and_scale_change_nothing(mean_K):
    rng = np.random.default_rng(3)
    values = [np.exp(m + 0.02 * rng.normal(size=3)).tolist() for m in mean_K]
    found = judge(SIZES, values)
    order = rng.permutation(5)
    shuffled = judge(
        [SIZES[i] for i in order], [rng.permutation(values[i]).tolist() for i in order]
    )
    scaled = judge(SIZES, [[-1e4 * v for v in seeds] for seeds in values])
    in_units = judge(SIZES, np.log(values).tolist(), margin=math.log(1.1), unit=1.0)
    for other in (shuffled, scaled, in_units):
        assert other.verdict is found.verdict
        assert other.slope_p == pytest.approx(found.slope_p, rel=1e-6)
        assert sorted(other.left_out) == sorted(found.left_out)
    assert scaled.certified_change == pytest.approx(found.certified_change)
    assert scaled.prediction.predicted == pytest.approx(-1e4 * found.prediction.predicted)
    assert in_units.certified_change == pytest.approx(math.log1p(found.certified_change))


@pytest.mark.parametrize(
    ("sizes", "values", "text"),
    [
        (SIZES[:3], [[1.0, 1.1]] * 3, "3 sizes, needs 4"),
        (SIZES[:3], [[1.0]] * 3, "3 sizes, needs 4"),
        ([1e6, 2e6, 3e6, 4e6], [[1.0, 1.1]] * 4, "size is 4, needs 8"),
        (SIZES, [[1.0, 1.1]] * 4 + [[1.0]], "one seed at 1 of 5 sizes"),
        (SIZES, [[1.0], [1.1], [0.9], [1.0], [1.0]], "one seed at 5 of 5 sizes"),
    ],
)
def test_what_is_missing_is_said_and_never_judged(sizes, values, text):
    found = judge(sizes, values)
    assert found.verdict is Verdicts.UNDETERMINED
    assert text in found.reason
    assert found.left_out == ()
    assert found.conservation_error == pytest.approx(0 if len(values) < 5 else 0.0, abs=0.06)
    assert (found.seeds_needed is not None) == ("seed" in text)


@pytest.mark.parametrize(
    ("sizes", "values", "unit", "text"),
    [
        (SIZES, [[1.0, 1.0]] * 3 + [[-1.0, -1.0]] * 2, None, "one sign"),
        (SIZES, [[1.0, 0.0]] * 5, None, "one sign"),
        (SIZES, [[1.0, math.nan]] * 5, None, "finite"),
        (SIZES, [[1.0, math.inf]] * 5, None, "finite"),
        (SIZES, [[1.0]] * 4, None, "got 4 sizes"),
        (SIZES, [[1.0]] * 4 + [[]], None, "without seeds"),
        ([1e6] * 5, [[1.0]] * 5, None, "distinct"),
        (SIZES, [[1.0]] * 5, 0.0, "unit"),
    ],
)
def test_refusals(sizes, values, unit, text):
    with pytest.raises(ValueError, match=text):
        judge(sizes, values, unit=unit)
    with pytest.raises(ValueError, match="margin"):
        judge(SIZES, [[1.0]] * 5, margin=0.0)


def test_mixed_signs_are_judged_in_units():
    values = [[0.01, -0.01, 0.0]] * 5
    assert judge(SIZES, values, margin=0.1, unit=1.0).verdict is Verdicts.CONSERVED
    assert judge(SIZES, values, margin=0.1, unit=0.1).verdict is Verdicts.UNDETERMINED


def left_out_of(y_KS):
    """The series, then with each seed of the sizes that have three or more left out."""
    batch = [y_KS]
    for size, seed in zip(*np.nonzero(~np.isnan(y_KS)), strict=True):
        if (~np.isnan(y_KS[size])).sum() >= 3:
            batch.append(y_KS.copy())
            batch[-1][size, seed] = np.nan
    return np.stack(batch)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_seeds_left_out_of_a_batch_are_series_of_their_own(spread):
    rng = np.random.default_rng(4)
    y_KS = rng.normal(size=(5, 4)) * np.array([[1.0], [spread], [1.0], [1.0], [1.0]])
    y_KS[1, 3] = y_KS[2, 2:] = np.nan
    x_K, together = np.log(SIZES), moments_left_out(y_KS)
    assert together.unequal_B[0] == (spread > 1)
    found = evidence(x_K, together, delta=0.1)
    for b, left_KS in enumerate(left_out_of(y_KS)):
        alone = replace(moments(left_KS[None]), unequal_B=together.unequal_B[b : b + 1])
        for name in vars(alone):
            assert getattr(alone, name)[0] == pytest.approx(getattr(together, name)[b], nan_ok=True)
        expected = evidence(x_K, alone, delta=0.1)
        for name in vars(expected):
            pair = getattr(found, name)[b], getattr(expected, name)[0]
            assert pair[0] == pytest.approx(pair[1], nan_ok=True), name


@pytest.mark.parametrize(
    ("forms", "name", "coefficients"),
    [
        (LOGARITHMIC, "log", [0.3, 0.2]),
        (LOGARITHMIC, "offset_power", [0.5, -0.7, math.log(0.6)]),
        (RAW, "offset_power", [1.0, 2.0, math.log(0.6)]),
    ],
)
def test_many_fits_at_once_are_those_one_by_one(forms, name, coefficients):
    rng = np.random.default_rng(5)
    z_K, form = np.linspace(0.0, 6.0, 9), forms[name]
    curve_K = form.evaluate(np.array(coefficients), z_K)[0]
    mean_BK = curve_K + 0.003 * rng.normal(size=(12, 9))
    weight_BK = rng.integers(2, 5, size=mean_BK.shape)
    start = fit(name, forms, Means(z_K, curve_K, np.ones(9))).coefficients_C
    found_BC, settled_B = refit(form, z_K, mean_BK, weight_BK, start)
    assert settled_B.all()
    for mean_K, weight_K, found_C in zip(mean_BK, weight_BK, found_BC, strict=True):
        alone = fit(name, forms, Means(z_K, mean_K, weight_K), start=start)
        assert found_C == pytest.approx(alone.coefficients_C, rel=1e-4, abs=1e-6)


def test_seeds_left_out_where_the_law_is_no_line():
    rng = np.random.default_rng(6)
    sizes = [1e6 * 3**k for k in range(8)]
    values = [
        [(1 + 2 * (n / 1e6) ** -0.5) * (1 + 0.004 * rng.normal()) for _ in range(4)] for n in sizes
    ]
    found = judge(sizes, values)
    assert (found.verdict, found.form) == (Verdicts.SCALES, "offset_power")
    assert len(found.left_out) == 32 and set(found.left_out) == {Verdicts.SCALES}
