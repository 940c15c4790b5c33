"""The configs that are shipped, run on small models: their own structure, fewer of everything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.cluster.train import train
from scaleinv_ray.config import load_run_config, load_train_config
from scaleinv_ray.config.reader import parse_yaml
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.runs.analysis import Run, run

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SERIES = Path(__file__).parents[2] / "jobs" / "series"
LENGTH = 24
FEWER = {"sequences": 160, "length": LENGTH, "position": 12}


def shipped(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config of the folder with other numbers; sections keep what is not changed."""
    found = dict(parse_yaml((SERIES / name).read_bytes(), name))
    assert changes.keys() <= found.keys()
    return found | {
        k: found[k] | v if isinstance(found[k], dict) and isinstance(v, dict) else v
        for k, v in changes.items()
    }


def check(result: Run, config: dict[str, Any]) -> None:
    """Nothing failed, everything was measured, and of each kind of capture there are values."""
    rows = tables.decode(result.measurements)
    assert [r["error"] for r in rows if r["status"] == "failed"] == []
    kinds = {m.kind for m in result.plan.measurements}
    checked = load_run_config(config)
    asked = {n for n, kind in KINDS.items() if kind.is_asked(checked.spectroscopy())}
    assert kinds == asked - {"masked_losses"}
    found = {r["invariant"] for r in rows if r["status"] == "ok"}
    # on so few sequences the flow over depth is not defined: it refuses
    assert kinds - {REGISTRY[name].kind for name in found} == {"depth_stack"}
    assert {r["variant"] for r in rows} == {*config["variants"]}
    assert {r["probe"] for r in rows} == {*config["probes"], None}
    assert result.verdicts.num_rows > 0
    assert result.store.exists("report.html")
    assert run(config).computed == 0


def test_spectroscopy_of_the_ladder(ray_session: None, tmp_path: Path) -> None:
    few = {"widths": [16, 32], "depths": {16: 2, 32: 3}, "seeds": [0], "batch": 4, "length": LENGTH}
    ladder = shipped("ladder.yaml", few | {"steps": 4, "out": str(tmp_path / "models")})
    ladder["optimizer"] |= {"warmup": 1}
    train(load_train_config(ladder | {"checkpoints": [0, 4], "depths": few["depths"]}))
    config = shipped("spectroscopy.yaml", {
        "models": [{"ladder": str(tmp_path / "models"), "steps": "all"}],
        "protocol": FEWER, "out": str(tmp_path / "run"),
        "curvature": {"sequences": 4, "num_steps": 12, "num_probes": 2, "sketch": 16},
        "sampling": {"sequences": 8, "batch": 4, "chains": 2, "draws": 12, "burn_in": 4,
                     "localisers": [1.0], "nbetas": [8.0]},
    })  # fmt: skip
    check(run(config), config)
