"""The list of kinds, and a kind of one's own: an entry and a file's worth of collector, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from scaleinv_ray import contract, tables
from scaleinv_ray.capture import by_kind
from scaleinv_ray.capture.makers import COLLECTORS, FINAL, PASSES, PassRequest, collects, passes
from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.conclude.concluding import conclude
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.contract import Measured, Quantity, invariant
from scaleinv_ray.cost_model import price
from scaleinv_ray.estimate import mean_of
from scaleinv_ray.kinds import KINDS, Kind, of_tokens, one_pass_kinds
from scaleinv_ray.ladder.architectures import build_model
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.spec import Rung, TrainSpec
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.plan import Plan, make_plan, plan_rows
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.records import Activations, Protocol, Record
from scaleinv_ray.store import Store, read_records

assert by_kind, "importing the package registers what makes the records"
NAME = "logit_entropies"
WIDTHS, SEEDS = (16, 24, 32, 48), (0, 1)


def test_every_kind_of_tokens_has_one_maker() -> None:
    assert set(COLLECTORS) == one_pass_kinds()
    assert set(PASSES) == of_tokens() - one_pass_kinds()
    assert all(name == kind.name for name, kind in KINDS.items())


def test_every_kind_is_read_by_an_invariant() -> None:
    assert {spec.kind for spec in contract.REGISTRY.values()} == set(KINDS)


def test_a_maker_of_a_kind_that_is_none_of_its_sort_is_refused() -> None:
    with pytest.raises(TypeError, match="kind: got 'dreams' with one_pass=True, allowed"):
        collects("dreams")
    with pytest.raises(TypeError, match="kind: got 'cloud' with one_pass=False, allowed"):
        passes("cloud")
    assert set(COLLECTORS) == one_pass_kinds(), "nothing was registered"


def test_kinds_with_the_same_records_are_told_apart_by_the_scheme() -> None:
    def rows(record: Activations, *, rng: np.random.Generator) -> Measured:
        return Measured({})

    for scheme, said in (
        (None, r"got None, allowed \('cloud', 'stream'\) for Activations"),
        ("hessian", r"got 'hessian', allowed \('cloud', 'stream'\)"),
    ):
        with pytest.raises(TypeError, match=f"scheme: {said}"):
            invariant(quantities={}, scheme=scheme)(rows)

    def nothing(record: Record, *, rng: np.random.Generator) -> Measured:
        return Measured({})

    with pytest.raises(TypeError, match="record: got Record, which no kind of capture has"):
        invariant(quantities={})(nothing)


# --------------------------------------------------------------- a kind of one's own


@dataclass(frozen=True, kw_only=True)
class LogitEntropies(Record):
    """Entropy in nats of the next token after every token, entropy_ST."""

    arrays: ClassVar[tuple[str, ...]] = ("entropy_ST",)
    entropy_ST: np.ndarray


class EntropyCollector:
    """Of all logits of a probe."""

    sites = frozenset({FINAL})

    def __init__(self, asked: PassRequest) -> None:
        self._asked = asked
        self._parts: list[np.ndarray] = []

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        if site in self.sites:
            model = self._asked.model
            logits_BTV = model.get_submodule(self._asked.architecture.head)(x_BTD).float()
            entropy_BT = torch.distributions.Categorical(logits=logits_BTV).entropy()
            self._parts.append(entropy_BT.numpy())

    def complete(self, seen: int) -> bool:
        return seen >= len(self._asked.tokens_ST)

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        entropy_ST = np.concatenate(self._parts)
        return {NAME: [LogitEntropies(entropy_ST=entropy_ST, site="logits", **labels)]}


def entropy(record: LogitEntropies, *, rng: np.random.Generator) -> Measured:
    """Mean over tokens, its error over sequences."""
    return Measured({"mean": mean_of(record.entropy_ST.mean(axis=1), "sequences")})


def _check(c: Any, p: Protocol) -> None:
    if p.sequences < 2:
        raise ValueError(f"protocol.sequences: got {p.sequences}, allowed 2.. ({NAME})")


@pytest.fixture
def new_kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Registers the kind, what makes it and an invariant that reads it; takes them out again."""
    kind = Kind(
        name=NAME,
        record=LogitEntropies,
        one_pass=True,
        num_bytes=lambda c, p, _: p.sequences * p.length * 4,
        num_records=lambda c: 1,
        work=lambda width, layers, p: float(p.sequences * p.length),
        of_losses=True,
        check=_check,
    )
    monkeypatch.setitem(KINDS, NAME, kind)
    collects(NAME)(lambda asked, kinds: EntropyCollector(asked))
    # as a file of the package: workers have no module of tests
    monkeypatch.setattr(entropy, "__module__", "scaleinv_ray.invariants.test_kinds")
    invariant(quantities={"mean": Quantity("constant")})(entropy)
    yield "test_kinds.entropy"
    del COLLECTORS[NAME], contract._REGISTRY["test_kinds.entropy"]


@pytest.fixture
def config(new_kind: str, tmp_path: Path) -> RunConfig:
    for width in WIDTHS:
        for seed in SEEDS:
            spec = TrainSpec(name="x", widths=(width,), depth=2, head_dim=8, length=16)
            model = build_model(spec, Rung(width, 2, seed))
            facts = {"step": 1, "seed": seed, "train_tokens": 1, "eval_loss": 1.0}
            folder = tmp_path / "models" / f"d{width}-s{seed}" / "step-000001"
            write_checkpoint(folder, model, byte_tokenizer(), facts)
    return load_run_config({
        "name": "x", "models": [{"ladder": str(tmp_path / "models")}],
        "variants": ["trained", "shuffled_tokens"], "probes": ["counting"],
        "protocol": {"sequences": 12, "length": 16, "position": 8},
        "invariants": [new_kind], "out": str(tmp_path / "out"),
    })  # fmt: skip


def _made(plan: Plan, config: RunConfig, scratch: Path, load: str) -> tuple[Store, list[Path]]:
    """Captures and measurements of a plan, made in this process."""
    store = Store(str(scratch))
    cluster = config.cluster.model_copy(update={"load": load})
    config = config.model_copy(update={"cluster": cluster})
    work = jobs_for(plan, plan.measurements, config, scratch=scratch / "captures", run_id="r")
    for job in work.captures:
        outcome = Capturer(num_threads=1, num_gpus=0).capture(job, work.tokens)
        assert outcome.load == load and not outcome.failed
    for measured in work.measurements:
        assert measure(measured, store).counts == {"ok": 1, "refused": 0, "failed": 0}
    return store, [Path(path) for job in work.captures for path in job.paths()]


def test_a_new_kind_is_planned_captured_measured_and_reported(
    config: RunConfig, new_kind: str, tmp_path: Path
) -> None:
    plan = make_plan(config)
    models = len(WIDTHS) * len(SEEDS)
    rows = list(plan_rows(plan, set()))
    assert {(r["kind"], r["probe"], r["bytes"]) for r in rows} == {(NAME, "counting", 768)}
    assert len(rows) == 2 * models, "trained, and with shuffled tokens"
    cost = price(plan, plan.measurements)
    assert [tuple(c) for c in cost.captures] == [(NAME, 2 * models, 2 * models * 768)]
    assert cost.passes == 2 * models and cost.unpriced == (new_kind,)

    store, files = _made(plan, config, tmp_path / "resident", "resident")
    _, again = _made(plan, config, tmp_path / "streamed", "streamed")
    for path, other in zip(files, again, strict=True):
        (record,), (streamed,) = read_records(path), read_records(other)
        assert isinstance(record, LogitEntropies) and isinstance(streamed, LogitEntropies)
        assert record.entropy_ST.shape == (12, 16) and record.labels() == streamed.labels()
        assert (0 < record.entropy_ST).all() and (record.entropy_ST <= np.log(256) + 1e-5).all()
        np.testing.assert_array_equal(record.entropy_ST, streamed.entropy_ST)

    store.write_table("plan.parquet", tables.encode(rows, tables.PLAN))
    verdicts = tables.decode(conclude(store, config))
    assert {(v["invariant"], v["quantity"]) for v in verdicts} == {(new_kind, "mean")}
    assert new_kind in store.read_bytes("report.html").decode()


def test_what_a_new_kind_refuses_is_refused_by_the_plan(config: RunConfig) -> None:
    protocol = replace(config.protocol, sequences=1, blocks=1)
    with pytest.raises(ValueError, match=rf"protocol.sequences: got 1, allowed 2.. \({NAME}\)"):
        make_plan(config.model_copy(update={"protocol": protocol}))
