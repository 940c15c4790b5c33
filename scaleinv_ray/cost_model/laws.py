"""Laws of cost and the table of their constants: seconds of an invariant on a record."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.config.reader import parse_yaml
from scaleinv_ray.contract import REGISTRY

LARGE_BYTES = 256_000_000
"""Weights of more bytes than this, as stored, are measured in parts, a task for each tensor."""
Shape = tuple[int, ...]


class Law(NamedTuple):
    """Seconds of an invariant on one record.

    Attributes:
        floor: seconds whatever the size, at the reference parameters.
        slope: seconds for a unit of work.
        params: name of a parameter -> (its reference value, exponent).
        stored: bytes of its rows, curves and diagrams.
    """

    floor: float
    slope: float
    params: Mapping[str, tuple[float, float]]
    stored: float = 0.0


class Device(NamedTuple):
    """What one capture actor computes and reads with.

    Attributes:
        name: as in the table.
        flops: sustained floating-point operations a second of large products.
        values: activations a second through what is no product: norms, nonlinearities, hooks.
        backward: as flops, of the backward passes of Jacobians.
        call_s: seconds of a block's call on the shortest input.
        load: bytes of weights a second into memory.
        measured: whether the figures were measured, or are assumed.
    """

    name: str
    flops: float
    values: float
    backward: float
    call_s: float
    load: float
    measured: bool


class Calibration(NamedTuple):
    """The table of constants.

    Attributes:
        machine: on which they were measured.
        laws: by invariant.
        devices: by name.
        constants: seconds and bytes that belong to no invariant, see `constants.yaml`.
    """

    machine: str
    laws: Mapping[str, Law]
    devices: Mapping[str, Device]
    constants: Mapping[str, float]


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """The packaged table."""
    name = "constants.yaml"
    return parse(parse_yaml((files("scaleinv_ray.cost_model") / name).read_bytes(), name))


def parse(table: Mapping[str, Any]) -> Calibration:
    """A table of constants from its YAML.

    Args:
        table: machine, invariants, devices, constants.

    Returns:
        The same, typed.
    """
    laws = {
        name: Law(**{**law, "params": {k: (v[0], v[1]) for k, v in law["params"].items()}})
        for name, law in table["invariants"].items()
    }
    devices = {name: Device(name, **of) for name, of in table["devices"].items()}
    return Calibration(table["machine"], laws, devices, table["constants"])


def matrix_work(shape: Sequence[int]) -> float:
    """Operations on a weight matrix: 2 N M^2 of its Gram matrix and 4 M^3 of its eigenvalues.

    Args:
        shape: O, I; further dimensions are inputs.

    Returns:
        The operations, M the smaller side.

    >>> matrix_work((10, 100))
    24000.0
    """
    sides = shape[0], math.prod(shape[1:])
    small, large = float(min(sides)), float(max(sides))
    return 2 * large * small**2 + 4 * small**3


def matrices(checkpoint: Checkpoint) -> Counter[Shape]:
    """Weight matrices of a transformer, by shape, from its sizes.

    Args:
        checkpoint: depth, width, width of the MLP, vocabulary and parameters.

    Returns:
        Shape -> how many: four D x D a block, the embeddings (one where they are tied) and as many
        D x D_mlp as bring the sum nearest to the parameters (2, or 3 of a gated MLP).

    """
    c = checkpoint
    d_mlp = c.d_mlp or 4 * c.d_model
    square = 4 * c.n_layers * c.d_model**2

    def off(embeddings: int, mlps: int) -> float:
        whole = square + c.d_model * (embeddings * c.vocab_size + mlps * c.n_layers * d_mlp)
        return abs(whole - c.n_params)

    embeddings, mlps = min(((e, m) for e in (1, 2) for m in (2, 3)), key=lambda at: off(*at))
    return Counter({
        (c.d_model, c.d_model): 4 * c.n_layers,
        (d_mlp, c.d_model): mlps * c.n_layers,
        (c.vocab_size, c.d_model): embeddings,
    })


def law_seconds(law: Law, work: float, params: Mapping[str, Any]) -> float:
    """Seconds of an invariant on one record.

    Returns:
        (floor + slope work) x the product of (value / reference)^exponent.

    >>> law_seconds(Law(0.1, 0.002, {"num_points": (100, 2.0)}), 50, {"num_points": 200})
    0.8
    """
    seconds = law.floor + law.slope * work
    for name, (reference, exponent) in law.params.items():
        seconds *= (float(params.get(name, reference)) / reference) ** exponent
    return seconds


def weight_seconds(invariant: str, params: str, shape: Sequence[int]) -> float:
    """Seconds of an invariant on one stored weight tensor.

    Args:
        params: canonical JSON of its parameters.

    Returns:
        By its law; at 10 GFLOP/s where it has none.
    """
    law = calibration().laws.get(invariant, Law(0.0, 1e-10, {}))
    return law_seconds(law, matrix_work(shape), task_params(invariant, params))


@lru_cache(maxsize=256)
def task_params(invariant: str, params: str) -> dict[str, Any]:
    """All parameters of a measurement: those given, else the defaults."""
    given = json.loads(params)
    known = REGISTRY[invariant].parameters if invariant in REGISTRY else {}
    return {**known, **given}
