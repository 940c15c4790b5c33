"""Random elements of the symmetries that invariants of clouds declare."""

from collections.abc import Callable

import numpy as np


def rotated(x_TD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frame, _ = np.linalg.qr(rng.normal(size=(x_TD.shape[1], x_TD.shape[1])))
    return x_TD @ frame


TRANSFORMATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "rotation": rotated,
    "scale": lambda x_TD, rng: x_TD * 10.0 ** rng.uniform(-30, 30),
    "translation": lambda x_TD, rng: x_TD + 100 * rng.normal(size=x_TD.shape[1]),
    "permutation": lambda x_TD, rng: x_TD[:, rng.permutation(x_TD.shape[1])],
    "mean_shift": lambda x_TD, rng: x_TD + 100 * rng.normal(size=(len(x_TD), 1)),
}
