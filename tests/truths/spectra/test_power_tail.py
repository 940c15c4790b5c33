"""Power-law tails: Pareto samples and a literal transcription of the definition."""

import math

import numpy as np
import pytest

from scaleinv_ray.invariants.common.covariance import gram_eigenvalues
from scaleinv_ray.invariants.weights import weight_tail
from scaleinv_ray.invariants.weights.power_tail import fit_power_tail, hill_exponent
from scaleinv_ray.records import WeightMatrix


def pareto(alpha: float, size: int, rng: np.random.Generator) -> np.ndarray:
    return (1 - rng.random(size)) ** (-1 / (alpha - 1))


def literal_scan(values) -> dict[str, float]:
    """The definition of Clauset, Shalizi and Newman, number by number."""
    x = sorted(float(v) for v in values)
    n = len(x)
    best = {"D": math.inf}
    for i in range(n - 1):
        tail = x[i:]
        n_i = len(tail)
        alpha = 1 + n_i / math.fsum(math.log(x_j / x[i]) for x_j in tail)
        model = [1 - (x_j / x[i]) ** (1 - alpha) for x_j in tail]
        distance = max(abs(model[k] - k / n_i) for k in range(n_i)) if alpha > 1 else 1.0
        if distance < best["D"]:
            sigma = (alpha - 1) / math.sqrt(n_i)
            best = {"alpha": alpha, "D": distance, "xmin": x[i], "n_tail": n_i, "sigma": sigma}
    return best


SAMPLES = {
    "pareto": lambda rng: pareto(2.5, 300, rng),
    "lognormal": lambda rng: rng.lognormal(0, 2, 257),
    "few": lambda rng: rng.lognormal(0, 1, 6),
    "ties": lambda rng: np.round(pareto(2.0, 200, rng), 1),
    "wishart": lambda rng: gram_eigenvalues(rng.standard_normal((150, 400))),
    "slabs": lambda rng: pareto(3.0, 900, rng),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_scan_equals_the_literal_definition(name):
    values = SAMPLES[name](np.random.default_rng(11))
    fit, literal = fit_power_tail(values), literal_scan(values)
    assert fit.alpha == pytest.approx(literal["alpha"], rel=1e-12)
    assert fit.sigma == pytest.approx(literal["sigma"], rel=1e-12)
    assert fit.distance == pytest.approx(literal["D"], rel=1e-12)
    assert (fit.xmin, fit.n_tail) == (literal["xmin"], literal["n_tail"])


@pytest.mark.parametrize("alpha", [2.0, 3.0, 4.0])
def test_pareto_exponent(alpha):
    rng = np.random.default_rng(int(alpha))
    fits = [fit_power_tail(pareto(alpha, 1000, rng)) for _ in range(40)]
    found = np.array([fit.alpha for fit in fits])
    # sd of one fit is .045-.052 (alpha - 1), its bias below .021 (alpha - 1)
    assert found.mean() == pytest.approx(alpha, abs=0.03 * (alpha - 1))
    assert found.std(ddof=1) / (alpha - 1) == pytest.approx(0.048, abs=0.015)


def test_pareto_exponent_has_the_known_bias_of_the_scan():
    """2.021 +- .052, 3.042 +- .104, 4.063 +- .156: one law in units of alpha - 1."""
    rng = np.random.default_rng(7)
    found = np.array([fit_power_tail(pareto(2.0, 1000, rng)).alpha for _ in range(200)])
    assert found.mean() == pytest.approx(2.021, abs=4 * 0.052 / math.sqrt(200))
    assert found.std(ddof=1) == pytest.approx(0.052, rel=0.25)
    values = pareto(2.0, 1000, rng)  # ln x scales with 1 / (alpha - 1), and the fit with it
    for alpha in (3.0, 4.0):
        fit = fit_power_tail(values ** (1 / (alpha - 1)))
        assert fit.alpha - 1 == pytest.approx((alpha - 1) * (fit_power_tail(values).alpha - 1))


@pytest.mark.parametrize("alpha", [2.0, 3.0, 4.0])
def test_hill_exponent_of_pareto_values(alpha):
    rng = np.random.default_rng(8)
    found = [hill_exponent(pareto(alpha, 1000, rng)) for _ in range(100)]
    # k exceedances are exponential: 1 / (alpha_hat - 1) has relative sd 1 / sqrt k, k = 500
    sd = (alpha - 1) / math.sqrt(500)
    assert np.mean(found) == pytest.approx(alpha, abs=4 * sd / 10 + (alpha - 1) / 500)
    assert np.std(found, ddof=1) == pytest.approx(sd, rel=0.25)


def test_stated_error_of_alpha_covers_the_scatter():
    rng = np.random.default_rng(4)
    records = [WeightMatrix(w_OI=np.diag(np.sqrt(pareto(3.0, 100, rng)))) for _ in range(120)]
    found = [weight_tail(r, rng=rng, num_null=2).values["alpha"] for r in records]
    scatter = np.std([e.value for e in found], ddof=1)
    assert np.mean([e.stderr for e in found]) == pytest.approx(scatter, rel=0.25)


def test_body_below_the_tail_is_left_out():
    rng = np.random.default_rng(5)
    body, tail = rng.random(700), pareto(3.0, 300, rng)
    fit = fit_power_tail(np.concatenate([body, tail]))
    assert fit.alpha == pytest.approx(3.0, abs=0.4)  # sd .15
    assert 150 < fit.n_tail < 450


def test_weight_tail_of_a_matrix_with_pareto_eigenvalues():
    rng = np.random.default_rng(6)
    left, _ = np.linalg.qr(rng.standard_normal((600, 600)))
    right, _ = np.linalg.qr(rng.standard_normal((600, 600)))
    x = pareto(2.0, 600, rng)
    result = weight_tail(WeightMatrix(w_OI=left * np.sqrt(x) @ right), rng=rng, num_null=3)
    expected, values = literal_scan(x), result.values
    p = x / x.sum()
    assert values["alpha"].value == pytest.approx(expected["alpha"], rel=1e-8)
    assert values["alpha"].stderr == pytest.approx(1.6 * expected["sigma"], rel=1e-8)
    assert result.flags["n_tail"] == expected["n_tail"]
    assert result.flags["D"] == pytest.approx(expected["D"], rel=1e-7)
    assert values["alpha_weighted"].value == pytest.approx(
        expected["alpha"] * math.log10(x.max()), rel=1e-8
    )
    assert values["stable_rank"].value == pytest.approx(x.sum() / x.max(), rel=1e-9)
    assert values["entropy"].value == pytest.approx(
        -(p * np.log(p)).sum() / math.log(600), rel=1e-9
    )
    assert values["log_norm"].value == pytest.approx(math.log10(x.sum()), rel=1e-9)
    assert values["log_spectral_norm"].value == pytest.approx(math.log10(x.max()), rel=1e-9)
