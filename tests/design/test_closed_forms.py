"""Closed forms of a wanted value: exact integrals, known values, and where nothing is said."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from scaleinv_ray.design.closed_forms import (
    Initialised,
    NoFormulaError,
    UnreachableError,
    check_chi,
    chi_of_layers,
    initialised,
    stable_rank,
)
from scaleinv_ray.design.space import Choices, Interval
from scaleinv_ray.design.theory import Asked, predicted, solutions

CHI = Asked("stability.order_chaos", "chi", 1.5, 0.05, layer=0)
MODEL = {
    "architecture": "gpt2", "width": 128, "depth": 3, "init_scale": 1.0, "lr": 1e-3,
    "optimizer": "adamw", "schedule": "constant", "step": 0,
}  # fmt: skip


def block(q: float) -> Initialised:
    """Embeddings of variance 1, output matrices of sd .5 / sqrt(D)."""
    root = math.sqrt(128)
    return Initialised(
        width=128, depth=3, std_in=q / root, std_out=0.5 / root, variance=1.0, parallel=True,
        eps=0.0, attended=1e9,
    )  # fmt: skip


def test_small_slopes_are_those_of_the_half_line() -> None:
    # gelu'(0) = 1/2 and gelu(x) = x / 2: chi - 1 = r D s2^2 q^2 / 4, and v grows by as much
    layers = chi_of_layers(block(0.01))
    first = 4 * 0.25 * 1e-4 / 4
    assert layers[0] - 1 == pytest.approx(first * (1 + 1 / 128), rel=1e-3)
    assert (layers[0] - 1) / (layers[2] - 1) == pytest.approx(1 + 2 * first, rel=1e-6)


def test_chi_falls_towards_one_over_the_layers() -> None:
    layers = chi_of_layers(replace(block(1.0), depth=400))
    assert all(a > b > 1 for a, b in pairwise(layers))
    # the branch adds as much each time: chi - 1 ~ 1 / layer
    assert (layers[199] - 1) / (layers[399] - 1) == pytest.approx(2.0, rel=0.05)


def test_the_integrals_are_those_of_gelu() -> None:
    from scipy import integrate, special

    def density(z: float) -> float:
        return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def slope(x: float) -> float:
        return float(special.ndtr(x)) + x * density(x)

    square = integrate.quad(lambda z: slope(0.8 * z) ** 2 * density(z), -10, 10)[0]
    found = chi_of_layers(block(0.8))[0]
    assert found == pytest.approx(1 + 4 * 0.25 * 0.64 * square * (1 + 1 / 128), rel=1e-9)


def test_where_the_derivative_of_the_softmax_is_not_small_nothing_is_said() -> None:
    with pytest.raises(NoFormulaError, match=r"got q = 2\.00.*only a measurement decides"):
        chi_of_layers(block(2.0))
    with pytest.raises(NoFormulaError, match="attention 43.7% of the stream"):
        chi_of_layers(initialised("gpt2", width=128, depth=3, init_scale=2.0))
    with pytest.raises(NoFormulaError, match="architecture: got llama"):
        initialised("llama", width=128, depth=3, init_scale=1.0)


def test_no_residual_block_has_chi_of_one() -> None:
    with pytest.raises(UnreachableError, match="got chi = 1, allowed > 1"):
        check_chi(1.0)
    one = Asked("stability.order_chaos", "chi", 1.0, 0.05, layer=0)
    with pytest.raises(UnreachableError, match="vanishes at no finite depth"):
        solutions(one, {"init_scale": Interval(0.1, 3.0)}, MODEL)


def test_stable_rank_is_that_of_drawn_matrices() -> None:
    rng = np.random.default_rng(0)
    for shape in ((96, 96), (96, 384)):
        drawn = [np.linalg.svd(rng.standard_normal(shape), compute_uv=False) for _ in range(20)]
        ranks = [float((s**2).sum() / s[0] ** 2) for s in drawn]
        error = np.std(ranks, ddof=1) / math.sqrt(20)
        assert abs(np.mean(ranks) - stable_rank(*shape)) < 4 * error + 0.005 * np.mean(ranks)


def test_solutions_have_the_target() -> None:
    for target in (1.2, 1.5):
        asked = Asked("stability.order_chaos", "chi", target, 0.05, layer=0)
        [point] = solutions(asked, {"init_scale": Interval(0.3, 3.0)}, MODEL)
        assert predicted(asked, {**MODEL, **point}) == pytest.approx(target, rel=1e-6)


def test_of_lists_the_values_are_taken_that_are_within_the_margin() -> None:
    asked = Asked("weights.weight_tail", "stable_rank", 33.0, 0.05, role="query")
    points = solutions(asked, {"width": Choices((64, 128, 256))}, MODEL)
    assert points == [{"width": 128}]
    space = {"width": Choices((64, 128)), "init_scale": Interval(0.3, 3.0)}
    points = solutions(CHI, space, MODEL)
    assert [point["width"] for point in points] == [128, 64]
    for point in points:
        assert predicted(CHI, {**MODEL, **point}) == pytest.approx(1.5)


def test_the_edge_of_stability_is_that_of_gradient_descent() -> None:
    asked = Asked("curvature.hessian_density", "lambda_max", 40.0, 0.1)
    space = {"lr": Interval(0.01, 0.2)}
    with pytest.raises(NoFormulaError, match="got adamw, constant, at 0"):
        solutions(asked, space, MODEL)
    [point] = solutions(asked, space, {**MODEL, "optimizer": "sgd", "step": 800})
    assert point["lr"] == pytest.approx(0.05)


def test_of_anything_else_nothing_is_known() -> None:
    other = Asked("representation.covariance_decay", "rankme", 10.0, 0.05)
    with pytest.raises(NoFormulaError, match="no closed form of representation.covariance_decay"):
        predicted(other, MODEL)
    with pytest.raises(NoFormulaError, match="layer: got 7 of a model of 3"):
        predicted(Asked("stability.order_chaos", "chi", 1.5, 0.05, layer=7), MODEL)
    with pytest.raises(NoFormulaError, match="at: got 10, the formula is that of an untrained"):
        predicted(CHI, {**MODEL, "step": 10})
