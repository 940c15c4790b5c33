"""Folders that the Hugging Face Trainer leaves behind: made by it, then changed as users do."""

import json
import shutil
from pathlib import Path

import pytest

from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints.files import headers


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of a tiny model, saved every two, with the final model and state at the root."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    out = tmp_path_factory.mktemp("trained") / "tiny-llama"
    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        vocab_size=20, max_position_embeddings=16,
    )  # fmt: skip
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.arange(64).reshape(8, 8) % 20]
    arguments = TrainingArguments(
        str(out), max_steps=4, save_steps=2, per_device_train_batch_size=2, use_cpu=True,
        report_to=[], disable_tqdm=True, dataloader_pin_memory=False, save_strategy="steps",
        include_num_input_tokens_seen=True,
    )  # fmt: skip
    trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "tiny-llama")


def steps_of(run: Path, **options: object) -> list[int | None]:
    return [c.step for c in checkpoints.from_folder(run, cache_dir=run.parent / "cache", **options)]


def unused(run: Path, **options: object) -> str:
    (line,) = checkpoints.unused([{"path": str(run), **options}])
    return line


def tell(folder: Path, **state: object) -> None:
    file = folder / "trainer_state.json"
    told = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(told | state))


def test_checkpoints_are_steps_and_what_is_not_read_is_counted(run: Path, tmp_path: Path) -> None:
    found = checkpoints.from_folder(run, cache_dir=tmp_path / "cache")
    assert [(c.model, c.step, c.train_tokens) for c in found] == [
        ("tiny-llama", 2, 32), ("tiny-llama", 4, 64),
    ]  # fmt: skip
    line = unused(run)
    assert line.startswith(f"{run}: not used: the model at the root (step 4 is checkpoint-4); ")
    for part in ("training_args.bin x3", "optimizer.pt x2", "scheduler.pt x2", "rng_state.pth x2"):
        assert part in line


def test_a_run_without_a_model_at_its_root(run: Path, tmp_path: Path) -> None:
    for file in (p for p in run.iterdir() if p.is_file()):
        file.unlink()
    assert steps_of(run) == [2, 4]
    assert steps_of(run, steps="last") == [4]
    (one,) = checkpoints.from_folder(run / "checkpoint-2", cache_dir=tmp_path / "cache")
    assert (one.model, one.step, one.train_tokens) == ("tiny-llama", 2, 32)
    with pytest.raises(ValueError, match=r"steps: got \[3\], available \[2, 4\]$"):
        steps_of(run, steps=[3])
    with pytest.raises(ValueError, match="step: got 7, allowed none: it is a run of steps"):
        steps_of(run, step=7)


def test_a_last_model_beyond_the_last_checkpoint_is_a_step(run: Path) -> None:
    shutil.rmtree(run / "checkpoint-4")
    assert steps_of(run) == [2, 4], "trainer_state.json at the root"
    (run / "trainer_state.json").unlink()
    assert steps_of(run) == [2, 4], "max_steps of the last checkpoint"
    assert steps_of(run, steps="last") == [4]
    assert steps_of(run, step=5) == [2, 5], "the config"
    (run / "training.json").write_text('{"step": 3}')
    assert steps_of(run) == [2, 3], "training.json at the root"
    with pytest.raises(ValueError, match=r"step: got 5, training\.json says 3"):
        steps_of(run, step=5)


def test_a_last_model_whose_step_nobody_knows_is_said(run: Path) -> None:
    shutil.rmtree(run / "checkpoint-4")
    (run / "trainer_state.json").unlink()
    tell(run / "checkpoint-2", best_model_checkpoint=str(run / "checkpoint-2"))
    assert steps_of(run) == [2]
    assert "the model at the root (the last step or the best one: give step)" in unused(run)
    assert steps_of(run, step=4) == [2, 4]
    (run / "checkpoint-2" / "trainer_state.json").unlink()
    assert steps_of(run) == [2]
    assert "nothing says its step: give step, or trainer_state.json" in unused(run)
    with pytest.raises(ValueError, match="step: got 2, which is checkpoint-2; allowed: another"):
        steps_of(run, step=2)


def test_a_folder_and_its_state_must_agree(run: Path) -> None:
    (run / "checkpoint-2").rename(run / "checkpoint-3")
    with pytest.raises(ValueError, match=r"step: got 3, trainer_state\.json says 2"):
        steps_of(run)
    (run / "checkpoint-4" / "training.json").write_text('{"step": 5}')
    with pytest.raises(ValueError, match=r"training\.json says 5, trainer_state\.json says 4"):
        steps_of(run / "checkpoint-4")
    (run / "checkpoint-4" / "training.json").write_text('{"train_tokens": 5}')
    tell(run / "checkpoint-4", num_input_tokens_seen=7)
    with pytest.raises(ValueError, match=r"train_tokens: training\.json says 5, trainer_state"):
        steps_of(run / "checkpoint-4")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"global_step": "2"}, r"global_step: got '2', allowed: a whole number from 0"),
        ({"global_step": True}, "global_step: got True"),
        ({"global_step": -1}, "global_step: got -1"),
        ({"global_step": 2.5}, r"global_step: got 2\.5"),
        ({"max_steps": 2**63}, "max_steps: got 9223372036854775808"),
        ({"num_input_tokens_seen": []}, r"num_input_tokens_seen: got \[\]"),
    ],
)
def test_a_state_of_other_values_is_refused(run: Path, state: dict, said: str) -> None:
    tell(run / "checkpoint-2", **state)
    with pytest.raises(ValueError, match=rf"trainer_state\.json: {said}"):
        steps_of(run)


def test_losses_of_a_log_that_are_no_numbers_do_not_matter(run: Path) -> None:
    tell(run / "checkpoint-2", log_history=[{"loss": float("nan")}])
    assert steps_of(run) == [2, 4]


def test_other_folders_of_a_run_are_said_with_the_reason(run: Path) -> None:
    (run / "runs").mkdir()
    shutil.copytree(run / "checkpoint-2", run / "tmp-checkpoint-6")
    shutil.copytree(run / "checkpoint-2", run / "merged-checkpoint-2")
    (run / "global_step4").mkdir()
    (run / "global_step4" / "mp_rank_00_model_states.pt").write_text("")
    shutil.copytree(run / "checkpoint-4", run / "best")
    assert steps_of(run) == [2, 4]
    line = unused(run)
    for part in (
        "runs/ (no step in its name)", "tmp-checkpoint-6/ (not finished)",
        "merged-checkpoint-2/ (its name gives a run of its own)",
        "global_step4/ (a DeepSpeed checkpoint", "best/ (no step in its name)", "and 1 more",
    ):  # fmt: skip
        assert part in line, line


def test_a_ladder_of_such_runs_says_it_once(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "runs" / "a")
    shutil.copytree(run, tmp_path / "runs" / "b")
    found = checkpoints.from_ladder(tmp_path / "runs", cache_dir=tmp_path / "cache")
    assert [(c.model, c.step) for c in found] == [("a", 2), ("a", 4), ("b", 2), ("b", 4)]
    (line,) = checkpoints.unused([{"ladder": str(tmp_path / "runs")}])
    assert line.startswith(f"{tmp_path / 'runs'}: not used: ") and "optimizer.pt x4" in line
    with pytest.raises(ValueError, match=r"a folder of runs \(a, b\); allowed: .*ladder"):
        checkpoints.from_folder(tmp_path / "runs")


def test_nothing_is_said_where_all_is_read(run: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        for step in (2, 4):
            (run / f"checkpoint-{step}" / name).unlink()
    (run / headers.WEIGHTS).unlink()
    assert unused(run).endswith("not used: training_args.bin")
    (run / "training_args.bin").unlink()
    assert checkpoints.unused([{"path": str(run)}]) == []


def test_one_step_is_one_folder(run: Path) -> None:
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-0004")
    with pytest.raises(ValueError, match="checkpoint-0004 and checkpoint-4 are both step 4"):
        steps_of(run)


def test_steps_and_tokens_of_a_folder_from_the_config(run: Path) -> None:
    for file in run.rglob("trainer_state.json"):
        file.unlink()

    def tokens(path: Path, **options: object) -> list[tuple[int | None, int | None]]:
        found = checkpoints.from_folder(path, cache_dir=run.parent / "cache", **options)
        return [(c.step, c.train_tokens) for c in found]

    assert tokens(run) == [(2, None), (4, None)]
    assert tokens(run, tokens_per_step=16) == [(2, 32), (4, 64)]
    assert tokens(run, steps=[4], tokens=70) == [(4, 70)]
    with pytest.raises(ValueError, match="tokens: got 70 for 2 steps, allowed: tokens_per_step"):
        tokens(run, tokens=70)
    alone = shutil.copytree(run / "checkpoint-4", run.parent / "finished")
    assert tokens(alone, step=180_000, tokens_per_step=10) == [(180_000, 1_800_000)]
    assert tokens(alone, tokens=5) == [(None, 5)]
    with pytest.raises(ValueError, match=r"tokens_per_step: got 10, and nothing says the step"):
        tokens(alone, tokens_per_step=10)
    (alone / "training.json").write_text('{"step": 7, "train_tokens": 70}')
    assert tokens(alone) == tokens(alone, tokens_per_step=10) == [(7, 70)]
    with pytest.raises(ValueError, match=r"train_tokens: got 7, training\.json says 70"):
        tokens(alone, tokens_per_step=1)
