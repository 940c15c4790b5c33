"""A name and one path are a config: all else fits itself to the model and the bundled text."""

import json
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.cli import main
from scaleinv_ray.inspection.reference import Settings
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.measure.written_config import config_of
from scaleinv_ray.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_name_and_a_path_come_to_a_report(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    torch.manual_seed(0)
    small = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=257, n_positions=128)
    GPT2LMHeadModel(small).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "c.yaml").write_text("name: mine\nmodels: [{path: model}]\n")
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["scaleinv", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        assert stop.value.code in {0, None}, out.err
        return out.out

    planned = said("plan", "c.yaml")
    assert "the most that the series has" in planned and "points fitted to the" in planned
    assert "verdicts: all will be undetermined: 1 sizes, needs 4" in planned
    told = json.loads(said("run", "c.yaml", "--json"))
    assert told["failed"] == 0 and told["computed"] > 50
    assert told["next"].startswith("a verdict needs 4 sizes, got 1: more under models:")
    store = Store(tmp_path / "runs" / "mine")
    assert "merge_tree" in Path(told["report"]).read_text(encoding="utf-8")

    written = config_of(store)
    assert written.protocol.sequences < 8192, "as many as the bundled text has"
    rows = written.protocol.sequences
    of_run = Settings.of(written).invariants["topology.merge_tree"]["num_points"]
    assert 1 < of_run <= rows // 2, "what stands beside this run is measured with the same points"
    assert json.loads(said("run", "c.yaml", "--json"))["computed"] == 0
    counts = json.loads(said("status", str(store.uri), "--json"))
    assert counts["state"] == "ended"
