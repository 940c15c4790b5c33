"""A run folder with the tables of a large run, made of nothing: the rows that real invariants give.

Values are constant, or a power, a logarithm, an offset power or no law of the number of parameters;
they turn once in training and scatter over seeds. One unit in forty lacks what it was asked for. No
file of a model and no capture exists.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray import invariants, tables
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.store import Store

assert invariants, "importing the package registers the invariants"
ROLES = ("q", "k", "v", "o", "up", "down")
SITES = {"weights": None, "token_losses": None, "stream": "mlp_hidden"}
MEASURED = (
    "behaviour.capabilities", "geometry.neighbour_dimension", "geometry.neighbour_overlap",
    "holomorphy.logit_residues", "holomorphy.resolvent_counts",
    "renormalization.critical_exponents", "renormalization.kurtosis_flow",
    "representation.covariance_decay",
    "representation.participation", "stability.order_chaos", "topology.persistence",
    "weights.weight_tail",
)  # fmt: skip
CURVES = {
    "topology.persistence": "betti_1",
    "renormalization.critical_exponents": "variance_flow",
    "representation.covariance_decay": "spectrum",
}
REFUSED_OF = 40


@dataclass(frozen=True)
class Shape:
    """How many models of which steps, and how deep the smallest is.

    Attributes:
        sizes: numbers of parameters, a factor of 1.5 apart, or less where they are many.
        seeds: of every size.
        steps: trained checkpoints of each run.
        nulls: variants measured at the last step.
        layers: blocks of the smaller half of the sizes; the others have one more.
        curve_seeds: seeds of each size that have curves and diagrams.
    """

    sizes: int
    seeds: int
    steps: tuple[int, ...] = (0, 10, 100, 1000, 10_000, 100_000)
    nulls: tuple[str, ...] = ("random_init", "shuffled_tokens")
    layers: int = 7
    curve_seeds: int = 2

    @property
    def ln_factor(self) -> float:
        """Of the sizes."""
        return math.log(1.5) * min(1.0, 32 / self.sizes)


@dataclass(frozen=True)
class Unit:
    """A model at a step in a variant; x is ln of its size over the smallest."""

    number: int
    size: int
    x: float
    seed: int
    step: int
    variant: str
    n_layers: int

    def columns(self) -> dict[str, Any]:
        """The key columns that all its rows share."""
        n_params = round(1e6 * math.exp(self.x))
        model = f"d{32 + 16 * self.size}-s{self.seed}"
        return {
            "run_id": "bench", "unit": f"bench/{model}/{self.step}/{self.seed}/{self.variant}",
            "unit_b": None, "series": "bench", "model": model, "architecture": "gpt_neox",
            "n_params": n_params, "n_layers": self.n_layers, "d_model": 32 + 16 * self.size,
            "seed": self.seed, "step": self.step, "train_tokens": 2048 * self.step,
            "eval_loss": 2.0 + 1 / (1 + self.step) + 0.3 * math.exp(-0.1 * self.x),
            "variant": self.variant, "protocol": "protocol",
        }  # fmt: skip


def units(shape: Shape) -> Iterator[Unit]:
    """All units, by size and seed."""
    at = [*((s, "trained") for s in shape.steps), *((shape.steps[-1], v) for v in shape.nulls)]
    number = 0
    for size in range(shape.sizes):
        for seed in range(shape.seeds):
            for step, variant in at:
                deep = shape.layers + (2 * size >= shape.sizes)
                yield Unit(number, size, shape.ln_factor * size, seed, step, variant, deep)
                number += 1


@cache
def _places(n_layers: int) -> pa.Table:
    """Everything that is measured of one unit: the columns that name the place and the quantity."""
    rows = []
    for name in MEASURED:
        spec = REGISTRY[name]
        if spec.signature != "one":
            continue
        layers = [None] if spec.kind == "token_losses" else list(range(n_layers))
        for layer in layers:
            for role in ROLES if spec.kind == "weights" else (None,):
                rows += [
                    {
                        "probe": None if spec.kind == "weights" else "prose", "layer": layer,
                        "depth": None if layer is None else (layer + 1) / n_layers, "role": role,
                        "head": None, "site": SITES.get(spec.kind, "resid_post"),
                        "capture": spec.kind, "family": spec.family, "invariant": name,
                        "version": spec.version, "quantity": quantity, "law": claim.law,
                    }
                    for quantity, claim in spec.quantities.items()
                ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def measurements(shape: Shape) -> pa.Table:
    """Rows of tables.MEASUREMENTS, one part a unit."""
    return pa.concat_tables([_of_unit(unit, shape) for unit in units(shape)]).combine_chunks()


def _of_unit(unit: Unit, shape: Shape) -> pa.Table:
    places = _places(unit.n_layers)
    num = places.num_rows
    rng = np.random.default_rng(unit.number)
    at = np.unique(np.array(places["quantity"].to_pylist()), return_inverse=True)[1]
    trained = unit.variant == "trained"
    share = np.log1p(unit.step) / np.log1p(shape.steps[-1]) if trained else 0.3
    turn = 1 / (1 + np.exp(-12 * (share - 0.2 - 0.6 * (at % 7) / 7)))
    x = unit.x
    laws = [0.0, 0.3 * x, np.log1p(0.1 * x), np.log1p(2 * np.exp(-0.7 * x)), 0.1 * np.sin(2 * x)]
    value = (1 + turn) * np.exp(np.array(laws)[at % len(laws)])
    value *= np.exp(0.02 * rng.standard_normal(num) + 0.01 * rng.standard_normal())
    lost = np.full(num, unit.number % REFUSED_OF == REFUSED_OF - 1) & (at % 5 == 0)
    stderr = np.where(at % 9 == 0, np.nan, 0.02 * value)
    keys = [rng.bytes(10).hex() for _ in range(len(MEASURED))]
    names = places["invariant"].to_pylist()
    constant: dict[str, Any] = unit.columns() | {
        "probe_tokens": 524_288, "params": '{"num_points": 400}', "samples": None,
        "weights_digest": rng.bytes(32).hex(), "wall_s": 0.1, "code_version": "0.1.0+bench",
    }  # fmt: skip
    own = {
        "key": [keys[MEASURED.index(name)] for name in names],
        "value": pa.array(value, mask=lost),
        "stderr": pa.array(stderr, mask=lost | np.isnan(stderr)),
        "n": pa.array(np.full(num, 20), mask=lost),
        "flags": [[("n_tail", str(a % 50))] for a in at],
        "error_kind": np.where(lost, "none", "subsamples"),
        "status": np.where(lost, "refused", "ok"),
        "error": pa.array(np.where(lost, "got a tail of 3 values, needs 10", ""), mask=~lost),
    }  # fmt: skip
    columns = [
        pa.array(own[f.name], f.type) if f.name in own
        else places[f.name].cast(f.type) if f.name in places.column_names
        else pa.array([constant[f.name]] * num, f.type)
        for f in tables.MEASUREMENTS
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=tables.MEASUREMENTS)


def curves(shape: Shape) -> Iterator[dict[str, Any]]:
    """A curve a layer of three invariants, of the last step."""
    x = np.linspace(0.05, 2, 60)
    for unit in units(shape):
        if unit.step != shape.steps[-1] or unit.seed >= shape.curve_seeds:
            continue
        rng = np.random.default_rng([1, unit.number])
        for name, curve in CURVES.items():
            for layer in range(unit.n_layers):
                y = np.exp(-x * math.exp(0.02 * unit.x)) * (1 + 0.01 * rng.standard_normal(60))
                yield unit.columns() | _place(name, layer, unit, rng) | {
                    "curve": curve, "x": x.tolist(), "y": y.tolist(),
                    "y_stderr": (0.01 * y).tolist(),
                }  # fmt: skip


def diagrams(shape: Shape) -> Iterator[dict[str, Any]]:
    """A diagram a layer, of the last step."""
    for unit in units(shape):
        if unit.step != shape.steps[-1] or unit.seed >= shape.curve_seeds:
            continue
        rng = np.random.default_rng([2, unit.number])
        for layer in range(unit.n_layers):
            birth = rng.uniform(size=100)
            yield unit.columns() | _place("topology.persistence", layer, unit, rng) | {
                "diagram": "rips", "dimension": [0] * 80 + [1] * 20, "birth": birth.tolist(),
                "death": (birth + rng.exponential(size=100)).tolist(),
            }  # fmt: skip


def _place(name: str, layer: int, unit: Unit, rng: np.random.Generator) -> dict[str, Any]:
    spec = REGISTRY[name]
    return {
        "layer": layer, "depth": (layer + 1) / unit.n_layers, "role": None, "head": None,
        "site": SITES.get(spec.kind, "resid_post"), "capture": spec.kind, "family": spec.family,
        "invariant": name, "version": spec.version, "key": rng.bytes(10).hex(), "params": "{}",
        "probe": "prose", "probe_tokens": 524_288,
    }  # fmt: skip


def write_run(folder: Path, shape: Shape) -> tuple[Store, RunConfig]:
    """Writes measurements, curves, diagrams and a plan of them all.

    Args:
        folder: of the run.
        shape: how large it is.

    Returns:
        The store and a config under which the run can be concluded.
    """
    store = Store(folder)
    made = {
        "measurements": measurements(shape),
        "curves": tables.encode(curves(shape), tables.CURVES),
        "diagrams": tables.encode(diagrams(shape), tables.DIAGRAMS),
    }
    for name, table in made.items():
        store.write_table(f"{name}/all-bench.parquet", table)
    keys = sorted({key for table in made.values() for key in table["key"].to_pylist()})
    blank: dict[str, Any] = dict.fromkeys(tables.PLAN.names)
    store.write_table(
        "plan.parquet", tables.encode((blank | {"key": key} for key in keys), tables.PLAN)
    )
    return store, load_run_config({
        "name": "bench", "models": [{"path": "nowhere"}], "invariants": ["weights.weight_tail"],
        "out": str(folder),
    })  # fmt: skip
