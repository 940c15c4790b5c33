"""What a user writes: the config of a run and of a ladder, checked before anything starts.

YAML into frozen models. Whatever is wrong ends in one ConfigError that names the field, what was
given, what is allowed, and the nearest known name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.config.loading import ConfigError, load
from scaleinv_ray.config.run import CapabilityFile, ProtocolOptions, RunConfig
from scaleinv_ray.config.train import TrainConfig

__all__ = [
    "CapabilityFile",
    "ConfigError",
    "ProtocolOptions",
    "RunConfig",
    "TrainConfig",
    "load_run_config",
    "load_train_config",
]


def load_run_config(source: str | Path | Mapping[str, Any]) -> RunConfig:
    """The config of a run, checked; ConfigError says what is wrong with it.

    Args:
        source: a YAML file, or what it would hold.

    Returns:
        The config. Models are looked for when they are resolved, not here.
    """
    return load(RunConfig, source)


def load_train_config(source: str | Path | Mapping[str, Any]) -> TrainConfig:
    """The config of a ladder, checked; ConfigError says what is wrong with it.

    Args:
        source: a YAML file, or what it would hold.

    Returns:
        The config.
    """
    return load(TrainConfig, source)
