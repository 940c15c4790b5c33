import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scaleinv_ray.ladder.checkpoint import read_progress
from scaleinv_ray.ladder.folders import DivergedError
from scaleinv_ray.ladder.spec import OptimizerSpec, Rung, TrainSpec, rungs
from scaleinv_ray.ladder.train import train_run


class Killed(RuntimeError):
    pass


def only_rung(spec: TrainSpec) -> Rung:
    (rung,) = rungs(spec)
    return rung


def contents(run: Path) -> dict[str, bytes]:
    """Every file below the run's folder, byte by byte."""
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def kill_after(step: int):
    def on_step(done: int, loss: float) -> None:
        if done == step:
            raise Killed

    return on_step


def test_two_runs_are_equal_bit_by_bit_and_seeds_differ(tiny: TrainSpec, tmp_path: Path) -> None:
    rung = only_rung(tiny)
    torch.manual_seed(1)
    first = contents(train_run(tiny, rung, tmp_path / "a"))
    torch.manual_seed(2)  # the global generator must not matter
    assert contents(train_run(tiny, rung, tmp_path / "b")) == first
    assert {name.split("/")[0] for name in first} == {f"step-00000{s}" for s in (0, 2, 4, 5)}
    other = contents(train_run(tiny, replace(rung, seed=1), tmp_path / "a"))
    for step in ("step-000000", "step-000005"):
        assert other[f"{step}/model.safetensors"] != first[f"{step}/model.safetensors"]


@pytest.mark.parametrize(
    ("step", "optimizer"), [(1, "adamw"), (2, "adamw"), (3, "adamw"), (5, "adamw"), (3, "sgd")]
)
def test_a_killed_run_ends_with_the_same_bits(
    tiny: TrainSpec, tmp_path: Path, step: int, optimizer: str
) -> None:
    spec = replace(tiny, optimizer=replace(tiny.optimizer, name=optimizer))
    rung = only_rung(spec)
    whole = contents(train_run(spec, rung, tmp_path / "whole"))
    with pytest.raises(Killed):
        train_run(spec, rung, tmp_path / "killed", on_step=kill_after(step))
    resumed: list[int] = []
    run = train_run(spec, rung, tmp_path / "killed", on_step=lambda s, _: resumed.append(s))
    saved_before = max(s for s in (0, 2, 4) if s < step or s == 0)
    assert resumed == list(range(saved_before + 1, 6))
    assert contents(run) == whole


def test_half_written_files_are_no_obstacle(tiny: TrainSpec, tmp_path: Path) -> None:
    rung = only_rung(tiny)
    whole = contents(train_run(tiny, rung, tmp_path / "whole"))
    with pytest.raises(Killed):
        train_run(tiny, rung, tmp_path / "killed", on_step=kill_after(3))
    run = tmp_path / "killed" / rung.name
    (run / "_part-step-000004").mkdir()
    (run / "_part-step-000004" / "model.safetensors").write_bytes(b"half")
    (run / "resume" / "_part-state.safetensors").write_bytes(b"half")
    assert contents(train_run(tiny, rung, tmp_path / "killed")) == whole


def test_a_kill_between_checkpoint_and_resume_file(
    tiny: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = only_rung(tiny)
    whole = contents(train_run(tiny, rung, tmp_path / "whole"))
    from scaleinv_ray.ladder import checkpoint

    write = checkpoint.write_resume

    def killed(file: Path, model: object, optimizer: object, progress: dict[str, int]) -> None:
        if progress["step"] == 4:
            raise Killed
        write(file, model, optimizer, progress)  # type: ignore

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_resume", killed)
        with pytest.raises(Killed):
            train_run(tiny, rung, tmp_path / "killed")
    run = tmp_path / "killed" / rung.name
    assert (run / "step-000004").exists()
    assert read_progress(run / "resume" / "state.safetensors")["step"] == 2  # type: ignore
    assert contents(train_run(tiny, rung, tmp_path / "killed")) == whole


def test_finished_runs_are_skipped_and_new_checkpoints_filled_in(
    tiny: TrainSpec, tmp_path: Path
) -> None:
    rung = only_rung(tiny)
    first = contents(train_run(tiny, rung, tmp_path))
    steps: list[int] = []
    run = train_run(tiny, rung, tmp_path, on_step=lambda s, _: steps.append(s))
    assert (steps, contents(run)) == ([], first)
    more = contents(train_run(replace(tiny, checkpoints=(0, 2, 3, 4, 5)), rung, tmp_path))
    assert {name for name in more if name not in first} == {
        f"step-000003/{Path(name).name}" for name in first
    }
    assert {name: more[name] for name in first} == first


def test_another_configuration_is_refused(
    tiny: TrainSpec, corpus_folder: Path, tmp_path: Path
) -> None:
    rung = only_rung(tiny)
    train_run(tiny, rung, tmp_path / "out")
    other = replace(tiny, optimizer=OptimizerSpec(lr=1e-3, weight_decay=0.1, warmup=1))
    with pytest.raises(ValueError, match="optimizer.lr: got 0.001.*trained with 0.01"):
        train_run(other, rung, tmp_path / "out")
    (corpus_folder / "note0.txt").write_text("another text")
    with pytest.raises(ValueError, match="corpus: got .* was trained with"):
        train_run(tiny, rung, tmp_path / "out")


def test_a_half_done_run_of_another_configuration_is_refused(
    tiny: TrainSpec, tmp_path: Path
) -> None:
    spec = replace(tiny, checkpoints=(2, 5))
    rung = only_rung(spec)
    with pytest.raises(Killed):
        train_run(spec, rung, tmp_path, on_step=kill_after(3))
    with pytest.raises(ValueError, match="batch: got 4"):
        train_run(replace(spec, batch=4), rung, tmp_path)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama", "granite"])
def test_a_checkpoint_is_an_ordinary_folder(
    tiny: TrainSpec, tmp_path: Path, architecture: str
) -> None:
    spec = replace(tiny, architecture=architecture, steps=2, checkpoints=(0, 2))
    rung = only_rung(spec)
    losses: list[float] = []
    run = train_run(spec, rung, tmp_path, on_step=lambda _, loss: losses.append(loss))
    folder = run / "step-000002"
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.model_type == architecture
    assert model.config.num_hidden_layers == rung.depth
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings
    training = json.loads((folder / "training.json").read_text())
    assert training["step"] == 2
    assert training["train_tokens"] == 2 * 2 * 16
    assert training["train_loss"] == losses[-1]
    assert (training["width"], training["depth"], training["seed"]) == (16, 1, 0)
    by_kind = training["eval_loss_by_kind"]
    assert training["eval_loss"] == pytest.approx((by_kind["prose"] + by_kind["code"]) / 2)


def test_the_loaded_model_has_the_recorded_loss(tiny: TrainSpec, tmp_path: Path) -> None:
    from scaleinv_ray.ladder.data import evaluation_set, token_stream
    from scaleinv_ray.probes.corpus import load_corpus

    run = train_run(tiny, only_rung(tiny), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(run / "step-000005")
    held_out = token_stream(load_corpus(tiny.corpus), "held_out")
    windows = torch.from_numpy(evaluation_set(held_out, length=tiny.length)["prose"])
    with torch.no_grad():
        logits = model(windows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    recorded = json.loads((run / "step-000005" / "training.json").read_text())
    # float32 sums in another order
    assert loss.item() == pytest.approx(recorded["eval_loss_by_kind"]["prose"], rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_falls_and_the_weights_stay_float32(
    tiny: TrainSpec, tmp_path: Path, dtype: str
) -> None:
    spec = replace(tiny, steps=30, checkpoints=(0, 30), dtype=dtype, batch=4)
    run = train_run(spec, only_rung(spec), tmp_path)
    first, last = (
        json.loads((run / f"step-{step:06d}" / "training.json").read_text()) for step in (0, 30)
    )
    assert last["eval_loss"] < first["eval_loss"] - 1.0
    model = AutoModelForCausalLM.from_pretrained(run / "step-000030")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("rate", "optimizer"), [(1e30, "adamw"), (1e30, "sgd"), (1e4, "adamw")])
def test_a_run_that_diverges_stops_and_says_so_and_marks_its_checkpoint(
    tiny: TrainSpec, tmp_path: Path, rate: float, optimizer: str
) -> None:
    wild = OptimizerSpec(name=optimizer, lr=rate)
    spec = replace(tiny, steps=50, checkpoints=(0, 2, 50), optimizer=wild)
    rung, done = only_rung(spec), []
    said = rf"optimizer.lr: got .*, run d16-s0 diverged at step-.*{tmp_path}/d16-s0"
    with pytest.raises(DivergedError, match=said):
        train_run(spec, rung, tmp_path, on_step=lambda step, _: done.append(step))
    assert len(done) < 50
    told = {
        file.parent.name: json.loads(file.read_text(), parse_constant=pytest.fail)
        for file in sorted(tmp_path.rglob("training.json"))
    }
    *before, last = told.values()
    assert last["diverged"] is True and not any("diverged" in t for t in before)
    with pytest.raises(DivergedError, match=said):
        train_run(spec, rung, tmp_path, on_step=lambda step, _: pytest.fail("trained again"))


def test_global_state_is_left_as_it_was(tiny: TrainSpec, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    train_run(tiny, only_rung(tiny), tmp_path, num_threads=1)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "got a list, allowed: a JSON object"),
        ("{", "not JSON"),
        ("[" * 30_000, "nested too deeply"),
        ('{"config": null}', "config: got None, allowed: a mapping"),
        ("{}", "config: got None"),
    ],
)
def test_what_a_checkpoint_says_of_itself_in_another_form_is_refused(
    tiny: TrainSpec, tmp_path: Path, text: str, said: str
) -> None:
    rung = only_rung(tiny)
    folder = tmp_path / rung.name / "step-000000"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(text)
    with pytest.raises(ValueError, match=rf"step-000000/training\.json: {said}"):
        train_run(tiny, rung, tmp_path)
