"""A tiny trained ladder and its analysis, shared by the tests of the whole."""

from pathlib import Path
from typing import Any

import pytest

WIDTHS = (16, 32, 48, 64)
SEEDS = (0, 1)


def ladder_config(text: Path, out: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "architecture": "gpt_neox",
        "widths": list(WIDTHS),
        "depth": 2,
        "head_dim": 16,
        "seeds": list(SEEDS),
        "corpus": [str(text)],
        "batch": 4,
        "length": 64,
        "steps": 6,
        "checkpoints": [0, 3, 6],
        "optimizer": {"name": "adamw", "lr": 0.003},
        "out": str(out),
    }


def run_config(text: Path, models: Path, out: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "models": [{"ladder": str(models), "steps": [3, 6]}],
        "probes": ["prose"],
        "corpus": [str(text)],
        "protocol": {
            "sequences": 96,
            "length": 48,
            "position": 40,
            "stream_units": 64,
            "jacobian_positions": 2,
            "vocab_rows": 8,
        },
        "invariants": {
            "weights.weight_tail": {},
            "representation.covariance_decay": {},
            "renormalization.critical_exponents": {},
            "topology.persistence": {"num_points": 30, "num_subsamples": 3, "max_dimension": 1},
            "geometry.neighbour_dimension": {
                "num_points": 80,
                "num_subsamples": 2,
                "neighbour_order": 4,
                "max_neighbour_order": 16,
            },
            "holomorphy.resolvent_counts": {},
        },
        "captures": "discard",
        "out": str(out),
    }


@pytest.fixture(scope="session")
def ladder(text_folder: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the trained runs."""
    from scaleinv_ray.cluster.train import train
    from scaleinv_ray.config import load_train_config

    out = tmp_path_factory.mktemp("ladder") / "models"
    train(load_train_config(ladder_config(text_folder, out)))
    return out


@pytest.fixture(scope="session")
def analysed(
    text_folder: Path, ladder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Any]:
    """The config of the tiny analysis and its finished run."""
    from scaleinv_ray.runs.analysis import run

    config = run_config(text_folder, ladder, tmp_path_factory.mktemp("run") / "out")
    return config, run(config)
