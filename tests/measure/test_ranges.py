"""A checkpoint measured range by range gives the table that it gives in one piece."""

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
from scaleinv_ray.cluster.driving import results
from scaleinv_ray.cluster.driving.results import together
from scaleinv_ray.cluster.scratch.placement import TRIES
from scaleinv_ray.conclude.concluding import compact, read_folder
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure import ranges
from scaleinv_ray.measure.inventory import take_inventory, whole_ranges
from scaleinv_ray.measure.measuring import measure, write_failed
from scaleinv_ray.measure.ranges import largest_first, memory_of, ranges_of, task_bytes
from scaleinv_ray.plan.jobs import FAILED, MeasureJob, Range, WeightSource
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
    monkeypatch.setattr(ranges, "LARGE_BYTES", 0)


def _job(checkpoint: Checkpoint, variant: Variant = "trained", **more: bool) -> MeasureJob:
    return MeasureJob("k", INVARIANT, PARAMS, 7, WeightSource(checkpoint, variant, **more), LABELS)


def _in_order(job: MeasureJob) -> list[MeasureJob]:
    return sorted(ranges_of(job), key=lambda j: j.stem)


def _rows(store: Store, folder: str, key: str = "k") -> list[dict[str, object]]:
    found = tables.decode(read_folder(store, folder))
    return [{k: v for k, v in r.items() if k != "wall_s"} for r in found if r["key"] == key]


@pytest.mark.parametrize(
    ("variant", "per_head"), [("trained", False), ("trained", True), ("shuffled_weights", False)]
)
def test_ranges_give_the_rows_of_the_whole(
    checkpoint: Checkpoint, large: None, tmp_path: Path, variant: Variant, per_head: bool
) -> None:
    job = _job(checkpoint, variant, per_head=per_head)
    assert len(ranges_of(job)) == 2 + 4 * LAYERS
    whole, divided = Store(tmp_path / "whole"), Store(tmp_path / "divided")
    made = measure(job, whole)
    first, *others = reversed(_in_order(job))  # in any order
    outcomes = [measure(piece, divided) for piece in others]
    assert take_inventory(divided).done == set() and _rows(divided, "measurements") == []
    total = together([*outcomes, measure(first, divided)])
    assert total.counts == made.counts and total.error is None
    for _ in range(2):
        for folder in ("measurements", "curves"):
            assert _rows(whole, folder) == _rows(divided, folder) != []
        assert take_inventory(divided).done == {"k"}
        compact(divided)
    assert len(divided.names("measurements")) == len(divided.names("curves")) == 1


def test_a_poisoned_tensor_fails_alone_and_is_made_again_by_the_next_run(
    checkpoint: Checkpoint, large: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    pieces = _in_order(_job(checkpoint))
    poisoned = next(p for p in pieces if p.only and "layers.1.mlp.dense_h_to_4h" in p.only.tensor)
    for piece in pieces:
        if piece is poisoned:
            write_failed(store, piece, "OutOfMemoryError: killed")
        else:
            measure(piece, store)
    assert take_inventory(store).done == set() and store.exists(f"{poisoned.name}{FAILED}")
    rows = tables.decode(read_folder(store, "measurements"))
    failed = [r for r in rows if r["status"] == "failed"]
    assert {(r["layer"], r["role"], r["depth"]) for r in failed} == {(1, "mlp_in", 1.0)}
    assert all("dense_h_to_4h.weight: OutOfMemoryError" in r["error"] for r in failed)
    assert len(rows) > len(failed) > 0
    assert whole_ranges(store) == {p.stem for p in pieces} - {poisoned.stem}, "the others stay"
    measure(poisoned, store)
    assert take_inventory(store).done == {"k"} and not store.exists(f"{poisoned.name}{FAILED}")


def test_the_longest_goes_first_and_what_is_no_matrix_has_no_range(
    checkpoint: Checkpoint, large: None
) -> None:
    ranges = [j.only for j in ranges_of(_job(checkpoint)) if j.only]
    seconds = [only.seconds for only in ranges]
    assert seconds == sorted(seconds, reverse=True)
    assert sorted(only.index for only in ranges) == list(range(10)) and ranges[0].count == 10
    assert not [only for only in ranges if "layer_norm" in only.tensor]


def test_what_is_made_in_one_piece(checkpoint: Checkpoint, large: None) -> None:
    job = _job(checkpoint)
    source = WeightSource(checkpoint, "trained")
    gone = replace(source, checkpoint=replace(checkpoint, folder=Path("/nowhere")))
    for whole in (
        replace(job, source="capture.arrow"),
        replace(job, invariant="conserved.drift", params="{}", more=(source,)),
        replace(job, source=replace(source, variant="random_init")),  # there is no step 0
        replace(job, source=gone),  # the task says what is wrong
        ranges_of(job)[0],
    ):
        assert ranges_of(whole) == [whole]


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
    job = _job(replace(checkpoint, folder=None, repo="lab/m", commit="c" * 40))
    while raised:
        assert ranges_of(job) == [job]


def test_small_checkpoints_are_not_divided(checkpoint: Checkpoint) -> None:
    job = _job(checkpoint)
    assert ranges_of(job) == [job]
    other = replace(job, key="z", source="file")
    assert largest_first([other, job]) == [other, job]


def test_large_checkpoints_go_first(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(n_params: int) -> MeasureJob:
        source = WeightSource(replace(checkpoint, n_params=n_params), "trained")
        return MeasureJob(str(n_params), INVARIANT, PARAMS, 7, source, LABELS)

    monkeypatch.setattr(ranges, "LARGE_BYTES", 4_000)
    jobs = [of(10), of(2_000), of(5), of(9_000)]
    assert [j.key for j in largest_first(jobs)] == ["9000", "2000", "10", "5"]


def test_memory_is_asked_for_by_shape() -> None:
    for (shape, invariant), found in MEASURED_PEAKS.items():
        asked = task_bytes(shape, 2, invariant) / 1e6
        assert found <= asked <= 1.3 * found, (shape, invariant)
    only = Range("t", 0, 1, memory=2_000, seconds=1.0)
    job = MeasureJob("k", INVARIANT, PARAMS, 7, "file", LABELS)
    group = [job, replace(job, only=only)]
    assert memory_of([job], asked=None, largest=1e9) is None
    assert memory_of([job], asked=5, largest=1e9) == 5
    assert memory_of(group, asked=None, largest=1e9) == 2_000
    assert memory_of(group, asked=3_000, largest=1e9) == 3_000
    assert memory_of(group, asked=None, largest=1_500.5) == 1_500, "or it would wait for ever"


@pytest.mark.ray
def test_a_run_by_ranges_gives_the_tables_of_a_run_in_one_piece(
    checkpoint: Checkpoint, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource(checkpoint, "trained")
    jobs = [
        MeasureJob("k", INVARIANT, PARAMS, 7, source, LABELS),
        MeasureJob("s", "weights.weight_spikes", "{}", 7, source, LABELS),
    ]
    whole, divided = Store(tmp_path / "whole"), Store(tmp_path / "divided")
    made = execute(whole, jobs)
    assert not [e for e in made if e["event"] == "range"]
    monkeypatch.setattr(ranges, "LARGE_BYTES", 0)
    events = execute(divided, jobs)
    made = [e for e in events if e["event"] == "range"]
    assert len(made) == 2 * (2 + 4 * LAYERS) and not any(e["error"] for e in made)
    measured = [e for e in events if e["event"] == "measured"]
    assert sorted(e["key"] for e in measured) == ["k", "s"]
    assert take_inventory(divided).done == {"k", "s"}
    for key in ("k", "s"):
        assert _rows(whole, "measurements", key) == _rows(divided, "measurements", key) != []
    again = execute(divided, jobs)
    assert [e["event"] for e in again if e["event"] in {"range", "measured"}] == [
        "range", "measured",
    ] * 2, "what is all there ends with any of its ranges"  # fmt: skip


@pytest.mark.ray
def test_a_tensor_that_kills_its_worker_takes_no_other_with_it(
    checkpoint: Checkpoint, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, driver = tmp_path / "log", os.getpid()

    class Poison(Range):  # defined here, so that workers get it by value
        def __getattribute__(self, name: str) -> object:
            if name == "tensor" and os.getpid() != driver:
                with log.open("a") as stream:
                    stream.write(f"{os.getpid()}\n")
                os._exit(1)
            return super().__getattribute__(name)

    def poisoned(job: MeasureJob) -> list[MeasureJob]:
        return [
            replace(j, only=Poison(**vars(j.only)))
            if j.only and "1.mlp.dense_h" in j.only.tensor
            else j
            for j in ranges_of(job)
        ]

    monkeypatch.setattr(ranges, "LARGE_BYTES", 0)
    monkeypatch.setattr(results, "ranges_of", poisoned)
    store = Store(tmp_path / "out")
    job = _job(checkpoint)
    events = execute(store, [job], ClusterOptions(workers=1))
    pids = log.read_text().split()
    # a kill in a group is a try of the first in it that is not done, which may be another
    assert TRIES <= len(pids) == len(set(pids)) <= TRIES + 1
    failed = [e for e in events if e["event"] == "range" and e["error"]]
    assert len(failed) == 1 and "WorkerCrashedError" in failed[0]["error"]
    (measured,) = [e for e in events if e["event"] == "measured"]
    assert measured["failed"] == 1 and measured["error"] == failed[0]["error"]
    rows = tables.decode(read_folder(store, "measurements"))
    assert {r["error"].partition(":")[0] for r in rows if r["status"] == "failed"} == {
        failed[0]["tensor"]
    }
    assert len(whole_ranges(store)) == 1 + 4 * LAYERS
    monkeypatch.setattr(results, "ranges_of", ranges_of)
    again = execute(store, [job])
    assert [e["tensor"] for e in again if e["event"] == "range"] == [failed[0]["tensor"]]
    assert take_inventory(store).done == {"k"}
