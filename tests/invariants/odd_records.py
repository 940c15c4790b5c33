"""Records as broken files, dead layers and careless users make them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from scaleinv_ray.records import Chains, Lanczos, Record

IDS = {"sequence_T", "position_T"}
SIZES = [1e-300, 1e-170, 1e-60, 1e-39, 1e-20, 1e20, 1e38, 1e60, 1e160, 1e300]
ENTRIES = [0.0, -1.0, 1e-300, 1e-39, 1e-30, 1e30, 1e39, 1e160, np.inf, -np.inf, np.nan]
DTYPES = ["float16", "float32", "int8", "uint8", "int64", "bool", "complex128", "object", "str"]
FIELDS: dict[type[Record], dict[str, list[Any]]] = {
    Record: {
        "removes_mean": [True],
        "layer": [None, 0, 7],
        "num_layers": [None, 1, 8],
        "step": [None, 0, 5],
    },
    Lanczos: {"dim": [0, 1, 2, 10**9], "weight_norm": [None, 0.0, -1.0, np.nan, 1e200]},
    Chains: {
        "dim": [0, 1, 10**9],
        "num_samples": [0, 1],
        "batch": [0, 1, 10**9],
        "burn_in": [0, 299, 300, 10**6],
        "observed": [None, "", "a", "a,b,c,d", "a,a"],
        "loss_kind": ["squared_error"],
        "noise": [None, 0.0, -1.0, np.nan],
        "largest_curvature": [None, 0.0, -1.0, np.nan, np.inf],
        "lowest_curvature": [None, -5.0, np.nan],
        "gradient_noise": [None, 0.0, np.nan],
        "restored": [False],
        "sampler": ["mala", "sgld_cv", "unheard of"],
    },
}


def _numeric(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "fiu"


def _spoiled(values: np.ndarray, at: int, entry: float) -> np.ndarray:
    out = values.astype(np.float64)
    if out.size:
        out.flat[at % out.size] = entry
    return out


def _taken(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    return np.take(values, range(min(count, values.shape[axis])), axis=axis)


def _shuffled(values: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(values)


@st.composite
def _of_array(draw: st.DrawFn, values: np.ndarray) -> Any:
    """One array, changed in one way."""
    axis = draw(st.integers(0, max(values.ndim - 1, 0)))
    changes: dict[str, Callable[[], Any]] = {
        "size": lambda: values * draw(st.sampled_from(SIZES)),
        "negative": lambda: np.negative(values),
        "zero": lambda: np.zeros_like(values),
        "constant": lambda: np.full_like(values, draw(st.sampled_from([1, 2, 3]))),
        "entry": lambda: _spoiled(
            values, draw(st.integers(0, 10**6)), draw(st.sampled_from(ENTRIES))
        ),
        "dtype": lambda: values.astype(draw(st.sampled_from(DTYPES))),
        "short": lambda: _taken(values, axis, draw(st.integers(0, 5))),
        "equal rows": lambda: np.repeat(values[:1], len(values), axis=0),
        "rank one": lambda: (values[..., :1] * np.ones(values.shape[-1:])).astype(values.dtype),
        "halves": lambda: np.where(np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) % 2,
                                   values, values[:1]).astype(values.dtype),
        "dead units": lambda: (values * (np.arange(values.shape[-1]) < 3)).astype(values.dtype),
        "order": lambda: _shuffled(values, draw(st.integers(0, 3))),
        "noise": lambda: np.random.default_rng(draw(st.integers(0, 3))).normal(size=values.shape),
        "flat": lambda: values.reshape(-1),
        "deep": lambda: values[None],
        "list": values.tolist,
        "none": lambda: None,
    }  # fmt: skip
    change = changes[draw(st.sampled_from(sorted(changes)))]
    with np.errstate(all="ignore"):
        return change()


@st.composite
def _together(draw: st.DrawFn, record: Record) -> Record:
    """Every array that has an axis cut along it, so that shapes agree."""
    letters = sorted({c for n in record.arrays for c in n.rpartition("_")[2]})
    letter, count = draw(st.sampled_from(letters)), draw(st.integers(0, 9))
    changed = {}
    for name in record.arrays:
        values = getattr(record, name)
        if values is None:
            continue
        for axis, c in enumerate(name.rpartition("_")[2]):
            if c == letter:
                values = _taken(values, axis, count)
        changed[name] = values
    return dataclasses.replace(record, **changed)


@st.composite
def odd(draw: st.DrawFn, record: Record) -> Record:
    """A record with one or two things wrong or unusual in it.

    Args:
        draw: of hypothesis.
        record: a good one.

    Returns:
        The record, changed.
    """
    for _ in range(draw(st.integers(1, 2))):
        how = draw(st.sampled_from(["array", "array", "array", "together", "field"]))
        if how == "array":
            names = [n for n in record.arrays if _numeric(getattr(record, n))]
            if not names:
                continue
            name = draw(st.sampled_from(names))
            values = getattr(record, name)
            if values.ndim and len(values):
                record = dataclasses.replace(record, **{name: draw(_of_array(values))})
        elif how == "together":
            arrays = [getattr(record, n) for n in record.arrays]
            named = [n.rpartition("_")[2] for n in record.arrays]
            if all(
                a is None or (_numeric(a) and a.ndim == len(n))
                for a, n in zip(arrays, named, strict=True)
            ):
                record = draw(_together(record))
        else:
            fields = FIELDS[Record] | FIELDS.get(type(record), {})
            name = draw(st.sampled_from(sorted(fields)))
            record = dataclasses.replace(record, **{name: draw(st.sampled_from(fields[name]))})
    return record
