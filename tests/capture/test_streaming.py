"""Layer-major streaming gives what a resident model gives, and reads every weight once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.capture.streaming.layers import as_array, as_tensor, stream
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.capture.streaming.records import streamed_records
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.checkpoints.weights.nulls import materialise
from scaleinv_ray.kinds import one_pass_kinds
from scaleinv_ray.records import Record
from scaleinv_ray.store import read_record, write_record
from scaleinv_ray.store.states import StateFiles
from tests.capture.conftest import CAUSAL, LAYERS, PROTOCOL

BATCH = 48  # 160 sequences: the last batch is smaller


def _differences(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> list[str]:
    """Where two sets of records differ in any label or bit."""
    if {k: len(v) for k, v in first.items()} != {k: len(v) for k, v in second.items()}:
        return [f"{sorted(first)} and {sorted(second)}, or how many there are of each"]
    found = []
    for kind, records in first.items():
        for i, (a, b) in enumerate(zip(records, second[kind], strict=True)):
            if a.labels() != b.labels():
                found.append(f"{kind} {i}: {a.labels()} and {b.labels()}")
            found += [
                f"{kind} {i}: {name}"
                for name in a.arrays
                if not np.array_equal(getattr(a, name), getattr(b, name))
            ]
    return found


@pytest.mark.parametrize("name", CAUSAL)
def test_bit_equal_to_the_resident_model(
    name: str,
    folder: Callable[[str], Path],
    model: Callable[[str], tf.PreTrainedModel],
    tokens_ST: np.ndarray,
    tmp_path: Path,
) -> None:
    streamed = StreamedModel.open(folder(name))
    kinds = one_pass_kinds()
    got = streamed_records(
        streamed, tokens_ST, PROTOCOL, StateFiles(tmp_path), kinds=kinds, batch_size=BATCH
    )
    resident = forward_records(model(name), tokens_ST, PROTOCOL, kinds=kinds, batch_size=BATCH)
    assert _differences(got, resident) == []
    assert all(p.is_meta for p in streamed.model.parameters()), "no weight stays in memory"


def file_bytes(folder: Path) -> dict[str, int]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {n: file.get_tensor(n).nbytes for n in file.keys()}  # noqa: SIM118


def tied_bytes(streamed: StreamedModel) -> int:
    """A tied head is read beside the embedding, for the two are never in memory at once."""
    tied = streamed.model.config.tie_word_embeddings
    return streamed.model.get_input_embeddings().weight.nbytes if tied else 0


@pytest.mark.parametrize("name", ["gpt2", "neox_parallel", "llama", "qwen2", "opt"])
def test_every_weight_is_read_once(
    name: str, folder: Callable[[str], Path], tokens_ST: np.ndarray, tmp_path: Path
) -> None:
    streamed = StreamedModel.open(folder(name))
    streamed_records(
        streamed,
        tokens_ST,
        PROTOCOL,
        StateFiles(tmp_path),
        kinds=one_pass_kinds(),
        batch_size=BATCH,
    )
    sizes = file_bytes(folder(name))
    assert streamed.bytes_read == sum(sizes.values()) + tied_bytes(streamed)


def test_what_is_not_finite_is_counted_as_of_a_resident_model(
    folder: Callable[[str], Path], tokens_ST: np.ndarray, tmp_path: Path
) -> None:
    source, broken = folder("neox_parallel"), tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors["gpt_neox.layers.0.mlp.dense_4h_to_h.bias"][3] = torch.inf
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    asked: dict[str, Any] = {"kinds": one_pass_kinds(), "batch_size": BATCH}
    with pytest.raises(ValueError, match="not finite .* layer 0.* layer 1") as resident:
        forward_records(load_model(broken), tokens_ST, PROTOCOL, **asked)
    states, streamed = StateFiles(tmp_path), StreamedModel.open(broken)
    with pytest.raises(ValueError, match="not finite") as found:
        streamed_records(streamed, tokens_ST, PROTOCOL, states, **asked)
    assert str(found.value) == str(resident.value)


def test_a_pass_that_was_interrupted_goes_on_where_it_stopped(
    folder: Callable[[str], Path],
    model: Callable[[str], tf.PreTrainedModel],
    tokens_ST: np.ndarray,
    tmp_path: Path,
) -> None:
    kinds = frozenset({"cloud", "moments", "depth_stack", "token_losses"})
    states = StateFiles(tmp_path, keep=True)

    class Stop(Exception):
        pass

    class Failing(StateFiles):
        def complete(self, level: int) -> bool:
            if level > 1:
                return False
            return super().complete(level)

        def write(self, level: int) -> Any:
            if level > 1:
                raise Stop
            return super().write(level)

    with pytest.raises(Stop):
        first = StreamedModel.open(folder("llama"))
        stream(first, tokens_ST, Failing(tmp_path, keep=True), batch_size=BATCH)
    assert states.latest() == 1
    second = StreamedModel.open(folder("llama"))
    got = streamed_records(second, tokens_ST, PROTOCOL, states, kinds=kinds, batch_size=BATCH)
    expected = forward_records(model("llama"), tokens_ST, PROTOCOL, kinds=kinds, batch_size=BATCH)
    assert _differences(got, expected) == []
    read_once = first.bytes_read
    assert second.bytes_read < 2 * read_once
    third = StreamedModel.open(folder("llama"))
    stream(third, tokens_ST, states, batch_size=BATCH)
    block_bytes = sum(p.nbytes for p in third.architecture.layers(third.model)[0].parameters())
    assert LAYERS == 2 and third.bytes_read < block_bytes, "no block is read again"


def test_a_stream_does_not_begin_in_the_middle(
    folder: Callable[[str], Path], tokens_ST: np.ndarray, tmp_path: Path
) -> None:
    states = StateFiles(tmp_path, keep=True)
    streamed = StreamedModel.open(folder("llama"))
    stream(streamed, tokens_ST, states, batch_size=BATCH)
    with pytest.raises(ValueError, match="a stream needs to begin at level 0"):
        streamed_records(
            streamed, tokens_ST, PROTOCOL, states, kinds=frozenset({"stream"}), batch_size=BATCH
        )


def test_shuffled_weights_are_those_of_the_resident_variant(
    folder: Callable[[str], Path], tokens_ST: np.ndarray, tmp_path: Path
) -> None:
    kinds = frozenset({"cloud"})
    resident = materialise(folder("neox_parallel"), "shuffled_weights", 3).model
    streamed = StreamedModel.open(folder("neox_parallel"), variant="shuffled_weights", seed=3)
    got = streamed_records(
        streamed, tokens_ST, PROTOCOL, StateFiles(tmp_path), kinds=kinds, batch_size=BATCH
    )
    expected = forward_records(resident, tokens_ST, PROTOCOL, kinds=kinds, batch_size=BATCH)
    assert _differences(got, expected) == []


def test_bfloat16_states_keep_their_bits(
    folder: Callable[[str], Path], tokens_ST: np.ndarray, tmp_path: Path
) -> None:
    options = LoadOptions(dtype=torch.bfloat16)
    kinds = frozenset({"cloud"})
    streamed = StreamedModel.open(folder("llama"), options)
    states = StateFiles(tmp_path)
    got = streamed_records(streamed, tokens_ST, PROTOCOL, states, kinds=kinds, batch_size=BATCH)
    assert states.read(LAYERS, 0, 2).dtype == np.uint16
    resident = load_model(folder("llama"), options)
    expected = forward_records(resident, tokens_ST, PROTOCOL, kinds=kinds, batch_size=BATCH)
    assert _differences(got, expected) == []


def test_arrays_and_tensors_are_inverse() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = torch.randn(3, 4, dtype=torch.float64).to(dtype)
        assert torch.equal(as_tensor(as_array(x), dtype), x)


def test_states_across_batches_and_incomplete_levels(tmp_path: Path) -> None:
    states = StateFiles(tmp_path)
    x_STD = np.random.default_rng(0).normal(size=(10, 4, 3)).astype(np.float32)
    with states.write(0) as write:
        write(x_STD[:4])
        write(x_STD[4:])
    np.testing.assert_array_equal(states.read(0, 2, 5), x_STD[2:7])
    with pytest.raises(ValueError, match="got 10 sequences, needs 12"):
        states.read(0, 8, 4)
    with pytest.raises(RuntimeError, match="halfway"), states.write(1) as write:
        write(x_STD[:4])
        raise RuntimeError("halfway")
    assert not states.complete(1) and states.latest() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["level-0000.arrow"]


def test_a_level_that_the_disk_has_no_room_for_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    states = StateFiles(tmp_path)
    monkeypatch.setattr("scaleinv_ray.store.states.os.fsync", full)
    with pytest.raises(OSError, match="No space left"), states.write(0) as write:
        write(np.zeros((2, 4, 3), dtype=np.float32))
    assert states.latest() is None and list(tmp_path.iterdir()) == []


def test_a_missing_tensor_is_named(folder: Callable[[str], Path], tmp_path: Path) -> None:
    source = folder("llama")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks the tensor of model\.layers\.1\.mlp\.up_proj"):
        StreamedModel.open(tmp_path)


def test_moments_are_handed_over_block_by_block(
    folder: Callable[[str], Path],
    model: Callable[[str], tf.PreTrainedModel],
    tokens_ST: np.ndarray,
    tmp_path: Path,
) -> None:
    states = StateFiles(tmp_path)
    seen: list[tuple[int | None, int | None]] = []

    def keep(kind: str, record: Record) -> Record:
        seen.append((record.layer, states.latest()))
        path = tmp_path / f"{kind}-{record.layer}.arrow"
        write_record(path, record, kind=kind, facts={})
        return read_record(path)

    kinds = frozenset({"moments", "cloud"})
    got = streamed_records(
        StreamedModel.open(folder("gpt2")), tokens_ST, PROTOCOL, states,
        kinds=kinds, batch_size=BATCH, keep=keep,
    )  # fmt: skip
    expected = forward_records(model("gpt2"), tokens_ST, PROTOCOL, kinds=kinds, batch_size=BATCH)
    assert _differences(got, expected) == []
    assert seen == [(layer, layer + 1) for layer in range(LAYERS)], "as soon as a block is done"
