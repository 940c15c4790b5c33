"""Whose a run folder is: a series and a protocol."""

from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.runs.analysis import check_claim, claim
from scaleinv_ray.store import Store


def config(tmp_path: Path, **protocol: Any) -> RunConfig:
    return load_run_config({
        "name": "x", "models": [{"path": str(tmp_path / "m")}], "out": str(tmp_path),
        "invariants": {"all": {}, "topology.persistence": {"num_points": 100}},
        "protocol": {"sequences": 64} | protocol,
    })  # fmt: skip


def test_what_one_kind_alone_reads_may_be_changed_in_a_run_folder(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    claim(store, config(tmp_path))
    own = {"vocab_rows": 8, "attention_sequences": 2, "stream_units": 9, "tokens_per_dim": 20}
    check_claim(store, config(tmp_path, **own, blocks=4))
    for name, value in (("length", 96), ("sequences", 65), ("jacobian_positions", 3)):
        said = f"^protocol.{name}: got {value}, .*run holds protocol {name} .*; allowed: the same"
        with pytest.raises(ValueError, match=said):
            check_claim(store, config(tmp_path, **{name: value}))
