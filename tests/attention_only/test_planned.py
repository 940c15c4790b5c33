"""What a run plans for a model without an MLP: all kinds of captures but the stream of units."""

from pathlib import Path

from scaleinv_ray.config import load_run_config
from scaleinv_ray.ladder.architectures import build_model
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.spec import Rung, TrainSpec
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import make_plan


def test_a_stream_is_not_planned_where_there_is_no_mlp(tmp_path: Path) -> None:
    spec = TrainSpec(
        name="x", architecture="attention_only", widths=(16,), depth=2, head_dim=8, length=16
    )
    model = build_model(spec, Rung(16, 2, 0))
    write_checkpoint(
        tmp_path / "m", model, byte_tokenizer(),
        {"step": 1, "seed": 0, "train_tokens": 1, "eval_loss": 1.0},
    )  # fmt: skip
    protocol = {
        "sequences": 5000, "length": 16, "position": 8, "stream_units": 4, "vocab_rows": 8,
    }  # fmt: skip
    config = {
        "name": "x", "models": [{"path": str(tmp_path / "m")}], "variants": ["trained"],
        "probes": ["induction", "counting"], "protocol": protocol, "invariants": "all",
    }  # fmt: skip
    plan = make_plan(load_run_config(config))
    kinds = {m.kind for m in plan.measurements}
    assert {"weights", "cloud", "moments", "attention", "token_losses", "jacobians"} <= kinds
    assert "stream" not in kinds
    assert {m.unit.checkpoint.architecture for m in plan.measurements} == {
        "scaleinv_attention_only"
    }
