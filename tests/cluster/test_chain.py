"""A model in a chain of actors gives what a resident one gives, and a chain that breaks is lost."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
import transformers as tf

from scaleinv_ray.capture.chained import Link, Request, joined, split
from scaleinv_ray.capture.forward import FORWARD_KINDS
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.cluster import actors, chain, members
from scaleinv_ray.cluster.actors import CaptureActor, Capturer
from scaleinv_ray.cluster.chain import NotJoinedError, chained
from scaleinv_ray.cluster.members import Member
from scaleinv_ray.cluster.pending import LOST
from scaleinv_ray.plan.costs import Load, Loading, model_bytes
from scaleinv_ray.plan.jobs import CaptureJob, Target, WeightSource
from scaleinv_ray.records import Protocol
from tests.cluster.test_nodes import isolated, namespaces

pytestmark = pytest.mark.ray
assert namespaces, "a fixture"
LAYERS, WIDTH, VOCABULARY = 5, 32, 50
PROTOCOL = Protocol(
    sequences=96, length=24, position=20, tokens_per_dim=40, blocks=4, stream_units=32,
    jacobian_positions=1, attention_sequences=1, vocab_rows=4,
)  # fmt: skip
HEAD_BYTES = 4 * (VOCABULARY + 2) * WIDTH
"""Of final norm and head, which are read when losses are first wanted."""
BATCH = 40  # 96 sequences: the last batch is smaller
CHECKPOINT = Checkpoint(
    model="m", seed=0, step=0, architecture="gpt_neox", n_params=40_000, n_layers=LAYERS,
    d_model=WIDTH, d_mlp=64, vocab_size=VOCABULARY, max_positions=32, dtype="float32",
    weights_digest="", config_digest="",
)  # fmt: skip


def weights_in(path: Path) -> WeightSource:
    """A small model in a folder; made there where there is none."""
    if not path.exists():
        config = tf.GPTNeoXConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
            intermediate_size=64, vocab_size=VOCABULARY, max_position_embeddings=32,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.save_pretrained(path)
    return WeightSource(replace(CHECKPOINT, folder=path), "trained")


@pytest.fixture(scope="module")
def weights(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> WeightSource:
    return weights_in(tmp_path_factory.mktemp("models") / "small")


def job_of(weights: WeightSource, out: Path, load: Load, **changes: Any) -> CaptureJob:
    kinds = sorted({*FORWARD_KINDS, "attention"})
    targets = (
        Target("prose", "t", None, {kind: str(out / f"{kind}.arrow") for kind in kinds}),
        Target("prose", "t", 7, {"cloud": str(out / "shuffled.arrow")}),
    )
    given = {"targets": targets, "batch_size": BATCH, "load": load, **changes}
    return CaptureJob(weights=weights, protocol=PROTOCOL, **given)


TOKENS = {"t": np.random.default_rng(1).integers(VOCABULARY, size=(96, 24), dtype=np.int32)}


def alive(*, wait: bool = True) -> list[Any]:
    """Members that are not dead; Ray may take a moment to note what was killed."""
    for _ in range(100):
        known = ray._private.state.actors().values()
        found = [a for a in known if a["ActorClassName"] == "Member" and a["State"] != "DEAD"]
        if not (wait and found):
            break
        time.sleep(0.1)
    return found


def check_nothing_is_left(out: Path) -> None:
    assert alive() == []
    for _ in range(100):  # what they held is free again
        total, free = ray.cluster_resources()["memory"], ray.available_resources()["memory"]
        if total == free:
            break
        time.sleep(0.1)
    assert total == free
    assert not [p.name for p in out.iterdir() if not p.name.endswith(".arrow")]
    assert not list(out.glob("_part-*"))


@pytest.fixture(scope="module")
def resident(weights: WeightSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("resident")
    outcome = Capturer(num_threads=1, num_gpus=0).capture(job_of(weights, out, "resident"), TOKENS)
    assert outcome.load == "resident" and not outcome.failed
    return out


def test_the_head_of_a_chain_writes_the_files_of_a_resident_model(
    weights: WeightSource, resident: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "CHUNK_BYTES", 10_000)  # of larger files
    monkeypatch.setattr(actors, "available_memory", lambda: model_bytes(CHECKPOINT))
    monkeypatch.setattr(actors, "joinable", lambda *_: 2)
    made = Capturer(num_threads=1, num_gpus=0).capture(job_of(weights, tmp_path, "auto"), TOKENS)
    assert made.load == "chained" and "in each of 2 actors" in made.reason
    (error,) = made.failed.values()
    assert "kinds: got ['attention'] of a chain" in error
    assert len(made.written) == len(FORWARD_KINDS) + 1
    for path in made.written:
        assert Path(path).read_bytes() == (resident / Path(path).name).read_bytes()
    check_nothing_is_left(tmp_path)


def test_a_model_is_streamed_where_the_others_find_no_place(
    weights: WeightSource, resident: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_reserved", lambda _: 10**15)
    monkeypatch.setattr(chain, "JOIN_S", 0.3)
    made = Capturer(num_threads=1, num_gpus=0).capture(job_of(weights, tmp_path, "chained"), TOKENS)
    assert (made.load, made.reason) == (
        "streamed", "no chain: no place for 1 more actors within 0.3 s",
    )  # fmt: skip
    for path in made.written:
        assert Path(path).read_bytes() == (resident / Path(path).name).read_bytes()
    check_nothing_is_left(tmp_path)


def test_what_the_members_of_a_node_need_has_to_fit_into_it(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "available_memory", lambda: 2_800_000_000)
    own, fits = Member(num_threads=1, num_gpus=0), Loading("chained", "it fits", 2)
    chain._check_room([own], [2_000_000_000], fits, 1)
    with pytest.raises(NotJoinedError, match="has 1.40 GB, its blocks need 2.60 GB"):
        chain._check_room([own], [2_000_000_000], fits, 2)
    chain._check_room([own], [2_000_000_000], Loading("chained", "cluster.load", 2), 2)


def test_a_chain_raises_what_a_member_does_and_is_lost_with_it(
    weights: WeightSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"kinds": frozenset({"cloud", "moments"}), "batch_size": BATCH}
    begin, take = Member.begin, Member.take

    def kill_after_the_first_batch(self: Member, first: int, *more: Any) -> Any:
        if first == BATCH:
            os.kill(alive(wait=False)[0]["Pid"], signal.SIGKILL)
        return take(self, first, *more)

    formed = chained(weights, Loading("chained", "", 2), num_threads=1, num_gpus=0, sharing=1)
    with formed as made:
        stored = sum(f.stat().st_size for f in weights.folder().glob("*.safetensors"))
        assert stored - 20_000 < made.bytes_read + HEAD_BYTES < stored, "but for the file's header"
        with monkeypatch.context() as patched, pytest.raises(ValueError, match=r"shape \(96, 20\)"):
            # the head lets it pass, so that it is the other member that refuses
            patched.setattr(Member, "begin", lambda self, _, *m: begin(self, TOKENS["t"], *m))
            made.records(TOKENS["t"][:, :20], PROTOCOL, tmp_path / "states-a", **asked)
        monkeypatch.setattr(Member, "take", kill_after_the_first_batch)
        with pytest.raises(ray.exceptions.RayActorError) as lost:
            made.records(TOKENS["t"], PROTOCOL, tmp_path / "states-a", **asked)
    # as the driver has it from a head that raised it
    raised = ray.exceptions.RayTaskError("capture", "", lost.value).as_instanceof_cause()
    assert isinstance(raised, LOST)
    assert alive() == []


def test_a_killed_head_takes_the_members_with_it(weights: WeightSource, tmp_path: Path) -> None:
    head = CaptureActor.options(num_cpus=1).remote(num_threads=1, num_gpus=0)
    head.capture.remote(job_of(weights, tmp_path, "chained"), TOKENS)
    for _ in range(1200):
        if found := [a for a in alive(wait=False) if a["State"] == "ALIVE"]:
            break
        time.sleep(0.05)
    ray.kill(head)
    assert found and alive() == []


def test_members_read_out_their_own_files_alone(weights: WeightSource, tmp_path: Path) -> None:
    member = Member(num_threads=1, num_gpus=0)
    member.hold(weights, 0, 2)
    request = Request(PROTOCOL, frozenset({"cloud"}), BATCH)
    member.begin(TOKENS["t"], request, str(tmp_path / "states-x"))
    with pytest.raises(ValueError, match="allowed files in"):
        member.read(str(tmp_path / "secret"), 0, 1)
    member.leave()
    assert not list(tmp_path.glob("states-x/*"))


def test_the_members_share_the_blocks_evenly_by_bytes(weights: WeightSource) -> None:
    streamed = StreamedModel.open(weights.folder())
    parts = split(streamed, 3)
    assert [i for r, _ in parts for i in r] == [*range(LAYERS)]
    before, after = streamed.end_bytes()
    assert sum(size for _, size in parts) == sum(streamed.block_bytes()) + before + after
    block = max(streamed.block_bytes())
    assert max(s for _, s in parts) <= sum(s for _, s in parts) / 3 + block + max(before, after)
    with pytest.raises(ValueError, match=r"chain: got 6 actors, allowed 2\.\.5 \(blocks\)"):
        split(streamed, 6)


def test_a_range_may_lie_on_several_devices(weights: WeightSource) -> None:
    found = []
    for devices in (("cpu",), ("cpu", "cpu")):
        with StreamedModel.open(weights.folder()).span(range(1, 4), devices) as through:
            found.append(through(torch.ones(2, 8, WIDTH)))
    assert torch.equal(*found)


@pytest.mark.gpu
def test_a_chain_on_gpus_agrees_with_the_cpu(weights: WeightSource) -> None:
    if torch.cuda.device_count() < 1:
        pytest.skip("needs a GPU")
    request = Request(PROTOCOL, frozenset({"cloud", "token_losses"}), BATCH)
    found = []
    for devices in (("cpu",), tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))):
        links = [
            Link(StreamedModel.open(weights.folder()), layers, devices)
            for layers in (range(3), range(3, LAYERS))
        ]
        for link in links:
            link.begin(TOKENS["t"], request)
        x = links[0].take(0, 96)
        links[1].take(0, 96, x)
        found.append(joined([link.end() for link in links]))
    for a, b in zip(found[0]["cloud"], found[1]["cloud"], strict=True):
        np.testing.assert_allclose(a.x_TD, b.x_TD, atol=1e-4)  # float32 in another order
    a, b = found[0]["token_losses"][0], found[1]["token_losses"][0]
    np.testing.assert_allclose(a.loss_ST, b.loss_ST, atol=1e-4)


@pytest.mark.slow
@pytest.mark.root
def test_a_chain_over_three_nodes_and_the_loss_of_one(namespaces: Path, tmp_path: Path) -> None:
    found = isolated("spread", tmp_path, namespaces, program="isolated_chain")
    assert found["load"] == "chained" and "in each of 3 actors" in found["reason"]
    assert found["written"] == found["whole"] - 1 and found["differ"] == [], "but for attention"
    assert found["nodes"] == 2 and not found["on_head"], "a node each"
    assert found["error"] and found["left"] == []
