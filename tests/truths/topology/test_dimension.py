"""Clouds whose dimension is known, and the likelihood that Gride maximises."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import betaln

from scaleinv_ray.invariants.common.clouds import neighbour_distances
from scaleinv_ray.invariants.geometry import (
    gride_dimension,
    neighbour_dimension,
    twonn_dimension,
)
from scaleinv_ray.records import Activations


def cloud_of(x_TD: np.ndarray) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud")


def embedded(x_PD: np.ndarray, rng: np.random.Generator, width: int = 256) -> np.ndarray:
    frame, _ = np.linalg.qr(rng.normal(size=(width, x_PD.shape[1])))
    return x_PD @ frame.T


def sphere(dimension: int, rng: np.random.Generator) -> np.ndarray:
    x_PD = rng.normal(size=(5000, dimension + 1))
    return x_PD / np.linalg.norm(x_PD, axis=1, keepdims=True)


def swiss_roll(rng: np.random.Generator) -> np.ndarray:
    t = 1.5 * np.pi * (1 + 2 * rng.random(5000))
    return np.stack([t * np.cos(t), 21 * rng.random(5000), t * np.sin(t)], axis=1)


@pytest.mark.parametrize(
    ("name", "at_one", "scatter"),
    # 5000 points, n1 = 1: the value of one cloud, and the standard deviation over eight clouds.
    [
        ("sphere_10", 9.32, 0.3),
        ("sphere_20", 17.4, 0.4),
        ("roll", 1.93, 0.05),
        ("normal", 38.7, 0.8),
    ],
)
def test_embedded_manifolds(name: str, at_one: float, scatter: float) -> None:
    rng = np.random.default_rng(3)
    x_PD = {
        "sphere_10": lambda: sphere(10, rng),
        "sphere_20": lambda: sphere(20, rng),
        "roll": lambda: swiss_roll(rng),
        "normal": lambda: rng.normal(size=(5000, 64)),
    }[name]()
    x_PD = embedded(x_PD - x_PD.mean(axis=0), rng)
    distance_PK = neighbour_distances(x_PD, num_neighbours=2)
    # The difference of two clouds, at three of its standard deviations.
    assert twonn_dimension(distance_PK) == pytest.approx(at_one, abs=3 * scatter * np.sqrt(2))


def test_noise_is_seen_at_the_small_scale_only() -> None:
    rng = np.random.default_rng(4)
    x_PD = embedded(sphere(2, rng), rng) + 0.01 * rng.normal(size=(5000, 256))
    distance_PK = neighbour_distances(x_PD - x_PD.mean(axis=0), num_neighbours=128)
    small, large = (gride_dimension(distance_PK, neighbour_order=n1) for n1 in (1, 64))
    assert small == pytest.approx(41, abs=3)
    assert large == pytest.approx(3.4, abs=0.1)


def test_directions_of_a_ball_lie_on_its_sphere() -> None:
    # Radii from 1 to 2 in R^3, and the mean at the centre: the view of directions is a sphere.
    rng = np.random.default_rng(8)
    x_TD = sphere(2, rng)[:1000] * rng.uniform(1, 2, size=(1000, 1))
    x_TD = np.concatenate([x_TD, -x_TD])
    found = [
        neighbour_dimension(
            cloud_of(embedded(x_TD, rng, width=12)),
            rng=rng,
            num_points=1500,
            num_subsamples=5,
            unit_norm=unit_norm,
        ).values["gride"]
        for unit_norm in (False, True)
    ]
    for value, dimension in zip(found, (3, 2), strict=True):
        # Boundaries of the shell lower its value.
        assert value.value == pytest.approx(
            dimension, abs=4 * value.stderr + 0.15 * (dimension - 2)
        )


@pytest.mark.parametrize("neighbour_order", [2, 8, 32])
def test_gride_maximises_its_likelihood(neighbour_order: int) -> None:
    rng = np.random.default_rng(5)
    distance_PK = neighbour_distances(rng.normal(size=(300, 6)), num_neighbours=64)
    near, far = neighbour_order, 2 * neighbour_order
    log_mu = np.log(distance_PK[:, far - 1] / distance_PK[:, near - 1])

    def minus_log_likelihood(d: float) -> float:
        terms = np.log(d) + (far - near - 1) * np.log(np.expm1(d * log_mu))
        return -float((terms - (d * (far - 1) + 1) * log_mu - betaln(far - near, near)).sum())

    best = minimize_scalar(minus_log_likelihood, bounds=(0.1, 50), method="bounded")
    found = gride_dimension(distance_PK, neighbour_order=neighbour_order)
    assert found == pytest.approx(best.x, rel=1e-5)
    assert minus_log_likelihood(found) <= best.fun + 1e-9


def test_gride_of_ratios_drawn_from_its_law() -> None:
    # mu^-d is the ratio of the n1-th to the n2-th arrival of a Poisson process: Beta(n1, n2 - n1).
    rng = np.random.default_rng(6)
    for neighbour_order in (1, 4, 64):
        ratio_P = rng.beta(neighbour_order, neighbour_order, size=20_000) ** (1 / 7.0)
        distance_PK = np.ones((20_000, 2 * neighbour_order))
        distance_PK[:, neighbour_order - 1] = ratio_P
        found = gride_dimension(distance_PK, neighbour_order=neighbour_order)
        assert found == pytest.approx(7, rel=4 / np.sqrt(20_000))


def test_error_is_the_scatter_between_clouds() -> None:
    rng = np.random.default_rng(7)
    found = [
        neighbour_dimension(
            cloud_of(rng.normal(size=(300, 8))),
            rng=rng,
            num_points=300,
            num_subsamples=5,
            neighbour_order=8,
            max_neighbour_order=16,
        )
        for _ in range(50)
    ]
    for name in ("twonn", "gride"):
        scatter = np.std([m.values[name].value for m in found], ddof=1)
        claimed = np.sqrt(np.mean([m.values[name].stderr ** 2 for m in found]))
        # 50 clouds know the scatter to 10 %, 200 degrees of freedom the error to 5 %.
        assert claimed == pytest.approx(scatter, rel=0.3)
