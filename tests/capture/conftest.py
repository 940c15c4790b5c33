"""Tiny models of every architecture, saved as safetensors once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers as tf

from scaleinv_ray.checkpoints.weights.loading import load_model
from scripts.tiny_models import (
    CAUSAL,
    CONFIGS,
    LAYERS,
    POSITIONS,
    PROTOCOL,
    VOCABULARY,
    WIDTH,
    tiny_tokens,
    write_tiny,
)

__all__ = [
    "CAUSAL",
    "CONFIGS",
    "LAYERS",
    "POSITIONS",
    "PROTOCOL",
    "VOCABULARY",
    "WIDTH",
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of an architecture -> folder of its tiny model."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = write_tiny(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="session")
def model(folder: Callable[[str], Path]) -> Callable[[str], tf.PreTrainedModel]:
    """Name of an architecture -> its tiny model; shared, so not to be changed."""
    loaded: dict[str, tf.PreTrainedModel] = {}

    def load(name: str) -> tf.PreTrainedModel:
        if name not in loaded:
            loaded[name] = load_model(folder(name))
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def tokens_ST() -> np.ndarray:
    return tiny_tokens()
