"""A checkpoint measured tensor by tensor gives the table that it gives in one piece."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from scaleinv_ray import tables
from scaleinv_ray.checkpoints import Checkpoint, from_folder
from scaleinv_ray.cluster.scratch.placement import TRIES
from scaleinv_ray.conclude.concluding import compact, completed
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure import tensor_tasks as parts
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.measure.tensor_tasks import (
    Parts,
    largest_first,
    memory_of,
    parts_of,
    perform,
    task_bytes,
    write_failed,
)
from scaleinv_ray.plan.jobs import FAILED, MeasureJob, Part, WeightSource
from scaleinv_ray.records import Variant
from scaleinv_ray.store import Store
from tests.cluster.synthetic_work import LABELS, execute

MEASURED_PEAKS = {
    # of a process that measures one tensor in bfloat16, MB; the invariant that took most
    ((4096, 1024), "weights.shuffle_null"): 508,
    ((8192, 2048), "weights.shuffle_null"): 805,
    ((25000, 1024), "weights.fixed_aspect_tail"): 884,
    ((4096, 1024), "holomorphy.stieltjes_poles"): 646,
    ((8192, 2048), "holomorphy.stieltjes_poles"): 1342,
}
INVARIANT, PARAMS = "weights.weight_tail", '{"num_null": 2}'
WIDTH, MLP, LAYERS, VOCABULARY = 16, 64, 2, 50
CONFIG = {
    "model_type": "gpt_neox", "hidden_size": WIDTH, "intermediate_size": MLP,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "vocab_size": VOCABULARY,
    "max_position_embeddings": 32, "tie_word_embeddings": False,
}  # fmt: skip


def _tensors() -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "gpt_neox.embed_in.weight": (VOCABULARY, WIDTH),
        "embed_out.weight": (VOCABULARY, WIDTH),
        "gpt_neox.final_layer_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        at = f"gpt_neox.layers.{layer}"
        shapes |= {
            f"{at}.attention.query_key_value.weight": (3 * WIDTH, WIDTH),
            f"{at}.attention.dense.weight": (WIDTH, WIDTH),
            f"{at}.mlp.dense_h_to_4h.weight": (MLP, WIDTH),
            f"{at}.mlp.dense_4h_to_h.weight": (WIDTH, MLP),
        }
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A checkpoint of two shards, the names of which are not in the order of the tensors."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = _tensors()
    names = sorted(tensors)
    shards = {"model-00002-of-00002": names[::2], "model-00001-of-00002": names[1::2]}
    for shard, held in shards.items():
        save_file({n: tensors[n] for n in held}, folder / f"{shard}.safetensors")
    index = {n: f"{shard}.safetensors" for shard, held in shards.items() for n in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return from_folder(folder)[0]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint counts as large."""
    monkeypatch.setattr(parts, "LARGE_BYTES", 0)


def _whole(checkpoint: Checkpoint, variant: Variant = "trained", **more: bool) -> MeasureJob:
    """A measurement with its parts."""
    source = WeightSource(checkpoint, variant, **more)
    job = MeasureJob("k", INVARIANT, PARAMS, 7, source, LABELS)
    return replace(job, parts=parts_of(job))


def _pieces(job: MeasureJob) -> list[MeasureJob]:
    return [replace(job, parts=(), part=part) for part in job.parts]


def _rows(store: Store, name: str) -> list[dict[str, object]]:
    found = tables.decode(store.read_table(f"{name}.parquet"))
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in found]


@pytest.mark.parametrize(
    ("variant", "per_head"), [("trained", False), ("trained", True), ("shuffled_weights", False)]
)
def test_parts_give_the_table_of_the_whole(
    checkpoint: Checkpoint, large: None, tmp_path: Path, variant: Variant, per_head: bool
) -> None:
    job = _whole(checkpoint, variant, per_head=per_head)
    assert len(job.parts) == 2 + 4 * LAYERS
    whole, divided = Store(tmp_path / "whole"), Store(tmp_path / "divided")
    made = measure(replace(job, parts=()), whole)
    for piece in reversed(_pieces(job)):  # in any order
        perform(piece, divided)
    assert not divided.exists("measurements/k.parquet")
    outcome = perform(job, divided)
    assert outcome.counts == made.counts and outcome.error is None
    for name in ("measurements/k", "curves/k"):
        assert _rows(whole, name) == _rows(divided, name)
    assert divided.names("parts") == []


def test_a_poisoned_tensor_fails_alone_and_is_made_again_by_the_next_run(
    checkpoint: Checkpoint, large: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    job = _whole(checkpoint)
    pieces = _pieces(job)
    poisoned = next(p for p in pieces if p.part and "layers.1.mlp.dense_h_to_4h" in p.part.tensor)
    for piece in pieces:
        if piece is poisoned:
            write_failed(store, piece, "OutOfMemoryError: killed")
        else:
            perform(piece, store)
    outcome = perform(job, store)
    assert outcome.counts["failed"] > 0
    assert completed(store) == set() and store.exists(f"measurements/k{FAILED}")
    rows = tables.decode(store.read_table(f"measurements/k{FAILED}"))
    failed = [r for r in rows if r["status"] == "failed"]
    assert {(r["layer"], r["role"], r["depth"]) for r in failed} == {(1, "mlp_in", 1.0)}
    assert all("dense_h_to_4h.weight: OutOfMemoryError" in r["error"] for r in failed)
    assert len(rows) - len(failed) == outcome.counts["ok"] + outcome.counts["refused"] > 0

    left = Parts(store).of(replace(job, parts=()))
    assert [j.part for j in left] == [poisoned.part], "the others stay"
    perform(left[0], store)
    assert perform(job, store).counts["failed"] == 0
    assert completed(store) == {"k"} and store.names("parts") == []
    assert not store.exists(f"measurements/k{FAILED}")


def test_parts_are_taken_up_where_they_were_left(
    checkpoint: Checkpoint, large: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    job = replace(_whole(checkpoint), parts=())
    tracker = Parts(store)
    pieces = tracker.of(job)
    seconds = [p.part.seconds for p in pieces if p.part]
    assert len(pieces) == 2 + 4 * LAYERS and seconds == sorted(seconds, reverse=True)
    for piece in pieces[:3]:
        perform(piece, store)
        assert tracker.done(piece) is None
    again = Parts(store)
    missing = again.of(job)
    assert {p.name for p in missing} == {p.name for p in pieces[3:]}
    for piece in missing:
        perform(piece, store)
        last = again.done(piece)
    assert last is not None and perform(last, store).counts["failed"] == 0
    assert [j.key for j in Parts(store).of(replace(job, key="small", source="file"))] == ["small"]


def test_parts_of_what_is_done_are_swept(
    checkpoint: Checkpoint, large: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    job = _whole(checkpoint)
    for piece in _pieces(job):
        perform(piece, store)
    perform(job, store)
    perform(_pieces(job)[0], store)  # as a run leaves it that is killed before it deletes them
    perform(_pieces(replace(job, key="other"))[0], store)
    compact(store)
    assert [n.partition("-")[0] for n in store.names("parts")] == ["other", "other"]


def test_a_missing_part_is_no_measurement(
    checkpoint: Checkpoint, large: None, tmp_path: Path
) -> None:
    job = _whole(checkpoint)
    store = Store(tmp_path / "out")
    for piece in _pieces(job)[1:]:
        perform(piece, store)
    with pytest.raises(ValueError, match="got no part k-00000, needs all 10"):
        perform(job, store)
    assert completed(store) == set()


def test_what_is_made_in_one_piece(checkpoint: Checkpoint, large: None) -> None:
    source = WeightSource(checkpoint, "trained")
    job = MeasureJob("k", INVARIANT, PARAMS, 7, source, LABELS)
    assert len(parts_of(job)) == 10
    assert parts_of(replace(job, source="capture.arrow")) == ()
    assert parts_of(replace(job, invariant="conserved.drift", params="{}", more=(source,))) == ()
    built = replace(source, variant="random_init")
    assert parts_of(replace(job, source=built)) == (), "there is no step 0"
    gone = replace(source, checkpoint=replace(checkpoint, folder=Path("/nowhere")))
    assert parts_of(replace(job, source=gone)) == (), "the task says what is wrong"


def test_a_hub_that_cannot_say_what_it_has_is_the_tasks_affair(
    checkpoint: Checkpoint, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    raised: list[Exception] = [
        errors.HTTPError("cut off"), errors.NotASafetensorsRepoError("none"),
        errors.SafetensorsParsingError("torn"),
    ]  # fmt: skip

    def asked(*_: object, **__: object) -> None:
        raise raised.pop()

    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "get_safetensors_metadata", asked)
    there = replace(checkpoint, folder=None, repo="lab/m", commit="c" * 40)
    job = MeasureJob("k", INVARIANT, PARAMS, 7, WeightSource(there, "trained"), LABELS)
    while raised:
        assert parts_of(job) == ()


def test_small_checkpoints_are_not_divided(checkpoint: Checkpoint) -> None:
    job = MeasureJob("k", INVARIANT, PARAMS, 7, WeightSource(checkpoint, "trained"), LABELS)
    assert parts_of(job) == ()
    other = replace(job, key="z", source="file")
    assert largest_first([other, job]) == [other, job]


def test_large_checkpoints_go_first(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(n_params: int) -> MeasureJob:
        source = WeightSource(replace(checkpoint, n_params=n_params), "trained")
        return MeasureJob(str(n_params), INVARIANT, PARAMS, 7, source, LABELS)

    monkeypatch.setattr(parts, "LARGE_BYTES", 4_000)
    jobs = [of(10), of(2_000), of(5), of(9_000)]
    assert [j.key for j in largest_first(jobs)] == ["9000", "2000", "10", "5"]


def test_memory_is_asked_for_by_shape() -> None:
    for (shape, invariant), found in MEASURED_PEAKS.items():
        asked = task_bytes(shape, 2, invariant) / 1e6
        assert found <= asked <= 1.3 * found, (shape, invariant)
    part = Part("t", 0, memory=2_000, seconds=1.0)
    job = MeasureJob("k", INVARIANT, PARAMS, 7, "file", LABELS)
    group = [job, replace(job, part=part)]
    assert memory_of([job], asked=None, largest=1e9) is None
    assert memory_of([job], asked=5, largest=1e9) == 5
    assert memory_of(group, asked=None, largest=1e9) == 2_000
    assert memory_of(group, asked=3_000, largest=1e9) == 3_000
    assert memory_of(group, asked=None, largest=1_500.5) == 1_500, "or it would wait for ever"


@pytest.mark.ray
def test_a_run_in_parts_gives_the_tables_of_a_run_in_one_piece(
    checkpoint: Checkpoint, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource(checkpoint, "trained")
    jobs = [
        MeasureJob("k", INVARIANT, PARAMS, 7, source, LABELS),
        MeasureJob("s", "weights.weight_spikes", "{}", 7, source, LABELS),
    ]
    whole, divided = Store(tmp_path / "whole"), Store(tmp_path / "divided")
    made = execute(whole, jobs)
    assert not [e for e in made if e["event"] == "part"]
    monkeypatch.setattr(parts, "LARGE_BYTES", 0)
    events = execute(divided, jobs)
    of_parts = [e for e in events if e["event"] == "part"]
    assert len(of_parts) == 2 * (2 + 4 * LAYERS) and not any(e["error"] for e in of_parts)
    measured = [e for e in events if e["event"] == "measured"]
    assert sorted(e["key"] for e in measured) == ["k", "s"]
    assert completed(divided) == {"k", "s"} and divided.names("parts") == []
    for key in ("k", "s"):
        assert _rows(whole, f"measurements/{key}") == _rows(divided, f"measurements/{key}")


@pytest.mark.ray
def test_a_tensor_that_kills_its_worker_takes_no_other_with_it(
    checkpoint: Checkpoint, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, driver, divide = tmp_path / "log", os.getpid(), parts.parts_of

    class Poison(Part):  # defined here, so that workers get it by value
        def __getattribute__(self, name: str) -> object:
            if name == "tensor" and os.getpid() != driver:
                with log.open("a") as stream:
                    stream.write(f"{os.getpid()}\n")
                os._exit(1)
            return super().__getattribute__(name)

    def poisoned(job: MeasureJob) -> tuple[Part, ...]:
        return tuple(Poison(**vars(p)) if "1.mlp.dense_h" in p.tensor else p for p in divide(job))

    monkeypatch.setattr(parts, "LARGE_BYTES", 0)
    monkeypatch.setattr(parts, "parts_of", poisoned)
    store = Store(tmp_path / "out")
    source = WeightSource(checkpoint, "trained")
    job = MeasureJob("k", INVARIANT, PARAMS, 7, source, LABELS)
    events = execute(store, [job], ClusterOptions(workers=1))
    pids = log.read_text().split()
    # a kill in a group is a try of the first in it that is not done, which may be another
    assert TRIES <= len(pids) == len(set(pids)) <= TRIES + 1
    failed = [e for e in events if e["event"] == "part" and e["error"]]
    assert len(failed) == 1 and "WorkerCrashedError" in failed[0]["error"]
    rows = tables.decode(store.read_table(f"measurements/k{FAILED}"))
    assert {r["error"].partition(":")[0] for r in rows if r["status"] == "failed"} == {
        failed[0]["tensor"]
    }
    assert sum(n.endswith(".curves.parquet") for n in store.names("parts")) == 1 + 4 * LAYERS
    monkeypatch.setattr(parts, "parts_of", divide)
    again = execute(store, [job])
    assert [e["tensor"] for e in again if e["event"] == "part"] == [failed[0]["tensor"]]
    assert completed(store) == {"k"} and store.names("parts") == []
