"""The file that `scaleinv new-invariant` writes: it works as it is, and its truth with it."""

from __future__ import annotations

import keyword
from pathlib import Path

from scaleinv_ray.inputs.wording import shown

INVARIANT = '''"""An invariant of one's own: `plugins: [NAME.py]` in the config of a run."""

import numpy as np

from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import mean_of
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Activations


@invariant(
    quantities={
        "NAME": Quantity(
            law="constant",
            margin=0.10,
            meaning="Upper quantile of the rows' norms over their median; 1 where all are equal",
        )
    },
    symmetries=("rotation", "scale"),
    scheme="cloud",
)
def NAME(cloud: Activations, *, rng: np.random.Generator, quantile: float = 0.9) -> Measured:
    """Ratio of an upper quantile of the rows' norms to their median.

    The error is taken over eight groups of rows, each with sequences of its own.

    Args:
        cloud: x_TD, a row a sequence.
        rng: deals the rows into groups.
        quantile: of the norms, in 1/2..1.

    Raises:
        Refused: for fewer than 80 rows, and where half of the rows are zero.
    """
    sound(cloud)  # refuses what is empty, not finite, or of another shape
    norms_T = np.linalg.norm(cloud.x_TD.astype(np.float64), axis=1)
    if len(norms_T) < 80:
        raise Refused(f"needs 80 rows, got {len(norms_T)}")
    groups = np.array_split(rng.permutation(norms_T), 8)
    medians = [np.median(group) for group in groups]
    if min(medians) == 0:  # a number that cannot honestly be had is refused, never NaN
        raise Refused("half of the rows are zero")
    ratios = [np.quantile(g, quantile) / m for g, m in zip(groups, medians, strict=True)]
    return Measured({"NAME": mean_of(ratios, "subsamples")})
'''
TRUTH = '''"""Truths of the invariant in NAME.py: `pytest test_NAME.py`."""

import numpy as np
import pytest
from NAME import NAME

from scaleinv_ray.contract import Refused
from scaleinv_ray.records import Activations


def cloud(x_TD: np.ndarray) -> Activations:
    rows = np.arange(len(x_TD))
    return Activations(x_TD=x_TD, sequence_T=rows, position_T=rows, sampling="cloud")


def measured(x_TD: np.ndarray) -> float:
    """The value, always with the same draws."""
    return NAME(cloud(x_TD), rng=np.random.default_rng(0)).values["NAME"].value


def test_rows_of_one_length_have_ratio_one() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 5))
    assert measured(rows / np.linalg.norm(rows, axis=1, keepdims=True)) == pytest.approx(1)


def test_lengths_that_are_uniform_have_the_ratio_of_their_quantiles() -> None:
    lengths = np.random.default_rng(1).uniform(size=(40_000, 1))
    assert measured(lengths) == pytest.approx(0.9 / 0.5, rel=0.02)


def test_it_is_the_same_in_another_basis_and_unit() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 5))
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))[0]
    assert measured(7 * rows @ turned) == pytest.approx(measured(rows))


def test_what_cannot_honestly_be_had_is_refused() -> None:
    for rows in (np.zeros((200, 5)), np.full((200, 5), np.nan), np.ones((10, 5))):
        with pytest.raises(Refused):
            measured(rows)
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
