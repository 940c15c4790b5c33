"""What every registered invariant owes: reproducible, complete, finite or refused, symmetric."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scaleinv_ray.invariants
from scaleinv_ray.bounds import BOUNDS
from scaleinv_ray.contract import REGISTRY, Invariant, Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.records import (
    Activations,
    Attention,
    Chains,
    DepthStack,
    Effects,
    Jacobians,
    Lanczos,
    MaskedLosses,
    Moments,
    Readings,
    Record,
    TokenLosses,
    WeightMatrix,
)
from tests.invariants.synthetic_chains import gaussian_chains

assert scaleinv_ray.invariants
SMALL: dict[str, dict[str, Any]] = {
    "renormalization.size_flow": {"num_halvings": 1},
    "renormalization.depth_flow": {"num_units": 32},
    "topology.persistence": {"num_points": 30, "num_subsamples": 3},
    "topology.order_complex": {"num_points": 30, "num_subsamples": 3, "num_gaussian": 2},
    "topology.significant_betti": {"num_points": 60, "num_subsamples": 3},
    "topology.torsion_check": {"num_points": 60, "num_subsamples": 3, "num_landmarks": 30},
    "topology.merge_tree": {"num_points": 64, "num_subsamples": 3, "num_sizes": 3},
    "topology.spectral_persistence": {
        "num_points": 60,
        "num_subsamples": 3,
        "num_neighbours": 8,
    },
    "topology.euler_characteristic": {
        "num_points": 60,
        "num_subsamples": 3,
        "least_gap_errors": 0.0,
    },
    "geometry.neighbour_overlap": {"num_points": 60, "num_subsamples": 3, "num_neighbours": 10},
    "geometry.merge_height_correlation": {"num_points": 60, "num_subsamples": 3},
    "topology.diagram_distance": {"num_points": 40, "num_subsamples": 4},
    "geometry.neighbour_dimension": {
        "num_points": 150,
        "num_subsamples": 3,
        "neighbour_order": 4,
        "max_neighbour_order": 16,
    },
}
D = 16


def _weights(rng: np.random.Generator) -> Record:
    return WeightMatrix(w_OI=rng.normal(size=(48, 96)) @ np.diag(np.linspace(0.2, 2, 96)))


def _rows(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    mix = rng.normal(size=(width, width)) * np.linspace(0.1, 1, width)
    return rng.normal(size=(count, width)) @ mix


def _moments(rng: np.random.Generator) -> Record:
    x_BTD = _rows(rng, 8 * 200, D).reshape(8, 200, D)
    second = np.einsum("bti,btj->bij", x_BTD, x_BTD) / 200
    return Moments(count_B=np.full(8, 200), mean_BD=x_BTD.mean(1), second_BDD=second)


def _cloud(rng: np.random.Generator) -> Record:
    ids = np.arange(200)
    return Activations(
        x_TD=_rows(rng, 200, D), sequence_T=ids, position_T=np.full(200, 64), sampling="cloud"
    )


def _stream(rng: np.random.Generator) -> Record:
    units, sequences, length = 64, 80, 40
    x_TD = _rows(rng, sequences * length, units)
    return Activations(
        x_TD=x_TD,
        sequence_T=np.repeat(np.arange(sequences), length),
        position_T=np.tile(np.arange(length), sequences),
        sampling="stream",
    )


def _jacobians(rng: np.random.Generator) -> Record:
    j = np.eye(D) + 0.3 * rng.normal(size=(3, D, D)) / np.sqrt(D)
    return Jacobians(
        j_TDD=j,
        h_TD=rng.normal(size=(3, D)),
        e_TD=rng.normal(size=(3, D)),
        u_VD=rng.normal(size=(5, D)),
    )


def _depth_stack(rng: np.random.Generator) -> Record:
    depth, rows, width = 5, 2000, 2 * D
    layers = [_rows(rng, rows, width)]
    for _ in range(depth):
        a_DD = np.eye(width) + 0.2 * rng.normal(size=(width, width)) / np.sqrt(width)
        layers.append(layers[-1] @ a_DD + 0.1 * rng.normal(size=(rows, width)))
    return DepthStack(x_LTD=np.array(layers), sequence_T=np.arange(rows))


def _attention(rng: np.random.Generator) -> Record:
    sequences, length = 4, 24
    distance_TT = np.subtract.outer(np.arange(length), np.arange(length))
    logits = -0.8 * np.log1p(np.abs(distance_TT)) + rng.normal(size=(sequences, length, length))
    a_STT = np.where(distance_TT >= 0, np.exp(logits), 0.0)
    return Attention(a_STT=a_STT / a_STT.sum(axis=2, keepdims=True))


def _token_losses(rng: np.random.Generator) -> Record:
    return TokenLosses(loss_ST=rng.exponential(size=(20, 63)))


def _masked_losses(rng: np.random.Generator) -> Record:
    position_SM = np.sort(rng.permuted(np.tile(np.arange(64), (20, 1)), axis=1)[:, :10], axis=1)
    return MaskedLosses(loss_SM=rng.exponential(size=(20, 10)), position_SM=position_SM)


def _lanczos(rng: np.random.Generator) -> Lanczos:
    nodes_RK = np.sort(rng.exponential(size=(4, 12)), axis=1)
    weights_RK = rng.dirichlet(np.ones(12), size=4)
    sketch_RKM = rng.normal(size=(4, 12, 32)) / math.sqrt(32)
    return Lanczos(
        nodes_RK=nodes_RK, weights_RK=weights_RK, sketch_RKM=sketch_RKM, dim=100, weight_norm=3.0
    )


def _chains(rng: np.random.Generator) -> Chains:
    curvature_D = np.linspace(0.2, 1, 30)
    nbetas = [300.0] * 2 + [1000.0] * 2 + [3000.0] * 2
    return gaussian_chains(
        rng,
        curvature_D=curvature_D,
        nbetas=nbetas,
        gammas=[1e-7 * nbeta * (1 + 9 * (k % 2)) for k, nbeta in enumerate(nbetas)],
        num_draws=300,
        observed_QD=np.array([curvature_D, np.ones(30), rng.uniform(size=30)]),
        probe="probe0",
    )


def _effects(rng: np.random.Generator) -> Effects:
    effect_NS = rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 12))
    return Effects(
        effect_NS=effect_NS,
        exact_N=np.ones(8, dtype=np.int8),
        layer_N=np.arange(8) // 4,
        head_N=np.arange(8) % 4,
        clean_S=1 + rng.uniform(size=12),
        corrupted_S=-rng.uniform(size=12),
        all_S=effect_NS.sum(axis=0) - 5,
        size_K=np.array([1, 3, 8]),
        along_KH=np.array([[-1.0], [-2.0], [-4.0]]) + 0.1 * rng.normal(size=(3, 6)),
        kept_F=np.array([0.1, 0.5, 1.0]),
        alone_FH=np.array([[0.0], [0.8], [1.0]]) + 0.1 * rng.normal(size=(3, 6)),
        random_alone_GFQ=rng.normal(size=(4, 3, 4)),
        random_DKR=np.array([[-0.5], [-1.5], [-4.0]]) + 0.1 * rng.normal(size=(5, 3, 4)),
        between_MMS=np.triu(rng.lognormal(size=(10, 10)), 1)[..., None] + np.zeros(12),
        num_edges=40,
        num_layers=2,
        probe="probe0",
    )


def _read(rng: np.random.Generator) -> Readings:
    return Readings(
        leaves_K=np.array([1, 2, 4]),
        agreed_KH=np.array([[0.3], [0.5], [0.8]]) + 0.02 * rng.normal(size=(3, 12)),
        majority_H=0.2 + 0.02 * rng.normal(size=12),
        previous_LS=np.array([[0.1], [0.5], [0.9]]) + 0.02 * rng.normal(size=(3, 11)),
        previous_control_LS=0.1 + 0.02 * rng.normal(size=(3, 11)),
        repeated_LU=np.array([[0.5], [0.6], [0.9]]) + 0.02 * rng.normal(size=(3, 12)),
        repeated_control_LU=0.5 + 0.02 * rng.normal(size=(3, 12)),
        previous_chance=0.1,
        repeated_chance=0.5,
        decisions=120,
        probe="probe0",
    )


def _trajectory(record: Record) -> list[Record]:
    """The record at three steps of a run, the last one as it is."""
    name = record.arrays[0]
    first = getattr(record, name)
    slope = 0.4 if isinstance(record, Effects) else 0.2  # an onset is where half is passed
    return [
        dataclasses.replace(record, **{name: first * (1 - slope * k)}, step=30 - 10 * k)
        for k in (2, 1, 0)
    ]


MAKE: dict[str, Callable[[np.random.Generator], Record]] = {
    "weights": _weights,
    "moments": _moments,
    "cloud": _cloud,
    "stream": _stream,
    "jacobians": _jacobians,
    "depth_stack": _depth_stack,
    "attention": _attention,
    "token_losses": _token_losses,
    "masked_losses": _masked_losses,
    "hessian": _lanczos,
    "ggn": lambda rng: dataclasses.replace(_lanczos(rng), operator="ggn"),
    "chains": _chains,
    "effects": _effects,
    "readings": _read,
}


def make(spec: Invariant, rng: np.random.Generator) -> Record:
    """A record of the kind that it reads."""
    return MAKE[spec.kind](rng)


def partner(record: Record) -> Record:
    """The same rows as another model might have them."""
    assert isinstance(record, Activations)
    rng = np.random.default_rng(9)
    noise_TD = 0.3 * record.x_TD.std() * rng.normal(size=record.x_TD.shape)
    return dataclasses.replace(record, x_TD=record.x_TD @ _orthogonal(rng, D) + noise_TD)


def _orthogonal(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def _act(record: Record, f: Callable[[np.ndarray], np.ndarray], name: str) -> Record:
    return dataclasses.replace(record, **{name: f(getattr(record, name))})


def _moments_of(record: Moments, a_DD: np.ndarray, shift_D: np.ndarray) -> Moments:
    """Moments of x A + v."""
    mean = record.mean_BD @ a_DD
    second = a_DD.T @ record.second_BDD @ a_DD
    cross = mean[:, :, None] * shift_D[None, None, :]
    second = second + cross + cross.transpose(0, 2, 1) + np.outer(shift_D, shift_D)
    return dataclasses.replace(record, mean_BD=mean + shift_D, second_BDD=second)


def _linear(record: Record, a_DD: np.ndarray, shift_D: np.ndarray) -> Record:
    if isinstance(record, Moments):
        return _moments_of(record, a_DD, shift_D)
    if isinstance(record, Jacobians):
        rows = {n: getattr(record, n) @ a_DD for n in ("h_TD", "e_TD", "u_VD")}  # a_DD orthogonal
        return dataclasses.replace(record, j_TDD=a_DD.T @ record.j_TDD @ a_DD, **rows)
    return _act(record, lambda x: x @ a_DD + shift_D, record.arrays[0])


def _width(record: Record) -> int:
    return getattr(record, record.arrays[0]).shape[-1]


def transform(record: Record, symmetry: str, rng: np.random.Generator) -> Record | None:
    """The record under a random element of the symmetry group; None where it has no meaning."""
    if isinstance(record, WeightMatrix):
        o, i = record.w_OI.shape
        maps: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "rotation": lambda w: _orthogonal(rng, o) @ w @ _orthogonal(rng, i),
            "permutation": lambda w: w[rng.permutation(o)][:, rng.permutation(i)],
            "transpose": lambda w: w.T,
            "scale": lambda w: 7.5 * w,
        }
        return _act(record, maps[symmetry], "w_OI") if symmetry in maps else None
    width = D if isinstance(record, Moments) else _width(record)
    eye, zero = np.eye(width), np.zeros(width)
    if symmetry == "rotation":
        return _linear(record, _orthogonal(rng, width), zero)
    if symmetry == "permutation":
        return _linear(record, eye[:, rng.permutation(width)], zero)
    if symmetry == "scale":
        return None if isinstance(record, Jacobians) else _linear(record, 7.5 * eye, zero)
    if symmetry == "translation":
        return _linear(record, eye, rng.normal(size=width))
    if symmetry == "mean_shift" and isinstance(record, Activations | DepthStack):
        rows_shape = getattr(record, record.arrays[0]).shape[:-1]
        c_T = rng.normal(size=rows_shape)
        return _act(record, lambda x: x + c_T[..., None], record.arrays[0])
    if isinstance(record, Attention):
        return None
    if symmetry == "unit_rescaling":
        return _linear(record, np.diag(rng.uniform(0.2, 5, size=width)), zero)
    if symmetry == "similarity" and isinstance(record, Jacobians):
        s = _orthogonal(rng, width) * rng.uniform(0.5, 2, size=width)
        inverse = np.linalg.inv(s)  # columns v -> S^-1 v, so rows of e by S^-T, of u by S
        assert record.h_TD is not None and record.e_TD is not None and record.u_VD is not None
        return dataclasses.replace(
            record,
            j_TDD=inverse @ record.j_TDD @ s,
            h_TD=record.h_TD @ inverse.T,
            e_TD=record.e_TD @ inverse.T,
            u_VD=record.u_VD @ s,
        )
    return None


def _apply(spec: Invariant, record: Record, other: Record | None = None) -> Measured:
    """The invariant of a record; of a pair the second one is another model at the same rows."""
    parameters = dict(spec.parameters) | SMALL.get(spec.name, {})
    arguments: tuple[Any, ...] = (record,)
    if spec.signature == "pair":
        arguments = (record, other or partner(record))
    elif spec.signature == "trajectory":
        arguments = (_trajectory(record),)
    return spec.function(*arguments, rng=np.random.default_rng(3), **parameters)


ALL = [pytest.param(spec, id=name) for name, spec in sorted(REGISTRY.items())]


@pytest.mark.parametrize("spec", ALL)
def test_the_same_draws_give_the_same_result(spec: Invariant) -> None:
    record = make(spec, np.random.default_rng(1))
    first, second = _apply(spec, record), _apply(spec, record)
    for name, estimate in first.values.items():
        other = second.values[name]
        if isinstance(estimate, Refused):
            assert str(estimate) == str(other)
        else:
            assert estimate == other


@pytest.mark.parametrize("spec", ALL)
def test_exactly_the_declared_quantities_and_curves(spec: Invariant) -> None:
    measured = _apply(spec, make(spec, np.random.default_rng(1)))
    assert set(measured.values) == set(spec.quantities)
    assert set(measured.curves) <= set(spec.curves)
    assert any(isinstance(v, Estimate) for v in measured.values.values())
    for curve in measured.curves.values():
        assert curve.x.shape == curve.y.shape and curve.x.ndim == 1
        assert np.isfinite(curve.y).all()


@pytest.mark.parametrize("spec", ALL)
def test_arrays_of_the_record_are_left_alone(spec: Invariant) -> None:
    record = make(spec, np.random.default_rng(1))
    arrays = {n: a for n in record.arrays if (a := getattr(record, n)) is not None}
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)  # as a memory-mapped capture is
    _apply(spec, record)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("spec", ALL)
def test_nan_is_refused(spec: Invariant) -> None:
    record = make(spec, np.random.default_rng(1))
    name = "mean_BD" if isinstance(record, Moments) else record.arrays[0]
    values = getattr(record, name).copy()
    values.flat[5] = np.nan
    with pytest.raises(Refused):
        _apply(
            spec,
            dataclasses.replace(record, **{name: values}),
            partner(record) if spec.signature == "pair" else None,
        )


@pytest.mark.parametrize(
    ("spec", "symmetry"),
    [
        pytest.param(spec, symmetry, id=f"{name}-{symmetry}")
        for name, spec in sorted(REGISTRY.items())
        for symmetry in spec.symmetries
        # a shift by row is no function of the moments: tested with the family
        if (spec.kind, symmetry) != ("moments", "mean_shift")
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_declared_symmetries_hold(spec: Invariant, symmetry: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    record = make(spec, rng)
    if symmetry == "mean_shift":
        record = dataclasses.replace(record, removes_mean=True)
    moved = transform(record, symmetry, rng)
    assert moved is not None, f"no transformation {symmetry} for {spec.kind}"
    if spec.signature == "pair":  # each model has its own basis: the second one alone is moved
        other = partner(record)
        before = _apply(spec, record, other)
        after = _apply(spec, record, transform(other, symmetry, rng))
    else:
        before, after = _apply(spec, record), _apply(spec, moved)
    for name, estimate in before.values.items():
        other = after.values[name]
        if isinstance(estimate, Estimate):
            assert isinstance(other, Estimate), name
            assert other.value == pytest.approx(estimate.value, rel=1e-6, abs=1e-8), name


@pytest.mark.parametrize("spec", ALL)
def test_every_number_has_a_range_that_its_planned_value_is_in(spec: Invariant) -> None:
    numbers = {n for n, v in spec.parameters.items() if type(v) in {int, float}}
    assert numbers <= {*BOUNDS, *spec.bounds}
    spec.check({})
    for name in numbers:
        for absurd in (-60, 10**12):
            with pytest.raises(ValueError, match=rf"^{name}: got {absurd}, allowed: "):
                spec.check({name: absurd})


@pytest.mark.parametrize("spec", REGISTRY.values(), ids=REGISTRY)
def test_every_quantity_says_in_one_line_what_it_means(spec: Invariant) -> None:
    for said in spec.curves.values():
        # both axes, short enough to stand beside a figure
        y, x = said.split("; ")
        assert y[0].isupper() and 0 < len(x) < 60 > len(y)
    meanings = [quantity.meaning for quantity in spec.quantities.values()]
    assert len(set(meanings)) == len(meanings)
    for meaning in meanings:
        what, _, how_to_read = meaning.partition(";")
        # a label for an axis, and how to read it; for readers who do not know our names
        assert 10 < len(what) <= 100 and len(meaning) <= 120, meaning
        assert not set("_\n|`.") & set(what), meaning
        assert meaning == meaning.strip() and not meaning.endswith("."), meaning
        assert how_to_read.strip() or ";" not in meaning


def test_every_invariant_has_a_truth() -> None:
    text = "".join(p.read_text() for p in (Path(__file__).parents[1] / "truths").rglob("*.py"))
    for spec in REGISTRY.values():
        assert spec.function.__name__ in text, f"{spec.name} has no test in tests/truths"
