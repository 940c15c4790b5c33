"""What a user writes: the config of a run and of a ladder, checked before anything starts.

YAML into frozen models. One rule for all paths: `~` is the home folder, what is relative starts at
the folder of the config (of a mapping, in Python: at the working directory), and URIs stay as they
are. Whatever is wrong ends in one ConfigError that names the field, what was
given, what is allowed, and the nearest known name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.config.design import DesignConfig
from scaleinv_ray.config.loading import load
from scaleinv_ray.config.programs import ProgramsConfig
from scaleinv_ray.config.reader import ConfigError
from scaleinv_ray.config.run import CapabilityFile, RunConfig
from scaleinv_ray.config.train import TrainConfig

__all__ = [
    "CapabilityFile",
    "ConfigError",
    "DesignConfig",
    "ProgramsConfig",
    "RunConfig",
    "TrainConfig",
    "load_design_config",
    "load_programs_config",
    "load_run_config",
    "load_train_config",
]


def load_programs_config(source: str | Path | Mapping[str, Any]) -> ProgramsConfig:
    """The config of a set of programs, checked; ConfigError says what is wrong with it.

    Args:
        source: a YAML file, or what it would hold.
    """
    return load(ProgramsConfig, source)


def load_run_config(
    source: str | Path | Mapping[str, Any], *, folder: str | Path | None = None
) -> RunConfig:
    """The config of a run, checked; ConfigError says what is wrong with it.

    Args:
        source: a YAML file, or what it would hold.
        folder: where relative paths start; by default the file's folder. A mapping's paths stay
            as they are by default, relative to the working directory.

    Returns:
        The config, its paths absolute where the folder is known. Models are looked for when they
        are resolved, not here.
    """
    return load(RunConfig, source, folder=folder)


def load_train_config(
    source: str | Path | Mapping[str, Any], *, folder: str | Path | None = None
) -> TrainConfig:
    """The config of a ladder, checked; ConfigError says what is wrong with it.

    Args:
        source: a YAML file, or what it would hold.
        folder: as of `load_run_config`.

    Returns:
        The config, its paths absolute where the folder is known.
    """
    return load(TrainConfig, source, folder=folder)


def load_design_config(
    source: str | Path | Mapping[str, Any], *, folder: str | Path | None = None
) -> DesignConfig:
    """The config of a design, checked; ConfigError says what is wrong with it.

    Args:
        source: a YAML file, or what it would hold.
        folder: as of `load_run_config`.

    Returns:
        The config, its paths absolute where the folder is known.
    """
    return load(DesignConfig, source, folder=folder)
