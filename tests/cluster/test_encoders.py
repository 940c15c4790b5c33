"""Encoders in a run: one of random weights beside one that was trained here."""

from pathlib import Path

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.runs.analysis import run
from tests.plan.document_models import PROTOCOL, documents, json_file
from tests.plan.encoder_models import saved_encoder

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_an_encoder_that_knows_its_text_beside_one_that_does_not(
    ray_session: None, tmp_path: Path
) -> None:
    models = [saved_encoder(tmp_path / name, steps=n) for name, n in (("new", 0), ("old", 400))]
    text = json_file(tmp_path / "a.jsonl", documents(200, seed=2, tail=9))
    result = run({
        "name": "encoders", "models": [{"path": str(folder)} for folder in models],
        "variants": ["trained", "random_init"], "invariants": "all", "out": str(tmp_path / "run"),
        "probes": [{"name": "mine", "file": str(text), "layout": "documents"}],
        "protocol": PROTOCOL | {"sequences": 128, "tokens_per_dim": 50},
    })  # fmt: skip
    rows = tables.decode(result.measurements)
    assert [r["error"] for r in rows if r["status"] == "failed"] == []
    kinds = {m.kind for m in result.plan.measurements}
    assert kinds == set(KINDS) - {"token_losses", "hessian", "ggn", "chains", "effects", "readings"}
    measured = {r["invariant"] for r in rows if r["status"] == "ok"}
    of_kind = {k: {m.invariant for m in result.plan.measurements if m.kind == k} for k in kinds}
    # 8 units and 128 sequences are fewer than the flows are defined for: those refuse
    assert {k for k, of in of_kind.items() if not measured & of} == {"stream", "depth_stack"}
    loss = {(r["model"], r["variant"]): r["value"] for r in rows if r["quantity"] == "masked_loss"}
    assert loss["old", "trained"] < 1.5 < loss["new", "trained"]
    assert loss["old", "random_init"] == loss["new", "trained"], "the same draw from the config"
    assert loss["new", "trained"] == pytest.approx(np.log(34), abs=0.1)
    lost = [line for line in result.notes if "does not know this text" in line]
    assert len(lost) == 1 and lost[0].startswith("new on mine")
    assert lost[0] in result.store.read_bytes("report.html").decode()
