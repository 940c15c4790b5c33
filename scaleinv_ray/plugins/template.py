"""The file that `scaleinv new-invariant` writes: it works as it is, and its truth with it."""

from __future__ import annotations

import keyword
from pathlib import Path

from scaleinv_ray.inputs.wording import shown

INVARIANT = '''"""Invariants of my own; in a config `plugins: [NAME.py]` has them measured."""

import numpy as np

from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import unknown
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Activations


@invariant(
    scheme="cloud",
    quantities={
        "ratio": Quantity(
            law="constant",
            margin=0.10,
            meaning="Upper quantile of the rows' norms over their median; 1 where all are equal",
        )
    },
    symmetries=("rotation", "scale"),
)
def NAME(cloud: Activations, *, rng: np.random.Generator) -> Measured:
    """Ratio of the upper tenth of the rows' norms to their median."""
    sound(cloud)
    norm_T = np.linalg.norm(cloud.x_TD.astype(np.float64), axis=1)
    median = float(np.median(norm_T))
    if median == 0:  # never NaN: what cannot be had is refused, with the reason
        raise Refused("x_TD: got rows of norm 0, their ratio is not defined")
    value = float(np.quantile(norm_T, 0.9)) / median
    return Measured({"ratio": unknown(value, n=norm_T.size)})
'''
TRUTH = '''"""What NAME is where the answer is known."""

import numpy as np
import pytest
from NAME import NAME

from scaleinv_ray.contract import Refused
from scaleinv_ray.records import Activations


def cloud(x_TD: np.ndarray) -> Activations:
    row_T = np.arange(len(x_TD))
    return Activations(x_TD=x_TD, sequence_T=row_T, position_T=0 * row_T, sampling="cloud")


def test_rows_of_equal_norm_have_the_ratio_one() -> None:
    x_TD = np.random.default_rng(0).normal(size=(100, 8))
    x_TD /= np.linalg.norm(x_TD, axis=1, keepdims=True)
    found = NAME(cloud(x_TD), rng=np.random.default_rng(0))
    assert found.values["ratio"].value == pytest.approx(1)


def test_rows_of_norm_zero_are_refused() -> None:
    with pytest.raises(Refused, match="rows of norm 0"):
        NAME(cloud(np.zeros((10, 4))), rng=np.random.default_rng(0))
'''


def write_new(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes NAME.py and test_NAME.py.

    Args:
        name: of the file and its function.
        folder: where they go.

    Returns:
        Their paths.

    Raises:
        ValueError: where the name is none of a function, or a file is there already.
    """
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise ValueError(f"name: got {shown(name, 60)}, allowed: a name of a function, as my_ratio")
    texts = {folder / f"{name}.py": INVARIANT, folder / f"test_{name}.py": TRUTH}
    if there := [path.name for path in texts if path.exists()]:
        raise ValueError(f"name: got {name!r}, {there[0]} exists; allowed: a new name")
    for path, text in texts.items():
        path.write_text(text.replace("NAME", name), encoding="utf-8")
    first, second = texts
    return first, second
