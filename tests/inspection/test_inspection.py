"""One checkpoint in one call, beside its twins and a series; nothing here needs a cluster."""

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

import scaleinv_ray as si
from scaleinv_ray import tables
from scaleinv_ray.cli import app
from scaleinv_ray.config.reader import write_yaml
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.inspection import Inspection
from scaleinv_ray.inspection.findings import Assessment, assessed
from scaleinv_ray.inspection.reference import At, Member, Reference, Settings, of_series, packaged
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.measure.written_config import sealed
from scaleinv_ray.store import Store

BUDGET_S = 2.5
LOSS = At("behaviour.capabilities", "loss", "logits", "prose")
NORM = At("weights.weight_tail", "log_norm", "all", None)
TOKENIZER = "t" * 12


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=257, n_positions=64,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def folder(model: GPT2LMHeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(where)
    byte_tokenizer().save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def series(text_folder: Path) -> Reference:
    """How a series was measured; of its values there are none."""
    protocol = {
        "sequences": 24, "length": 32, "position": 24, "tokens_per_dim": 8, "blocks": 4,
        "stream_units": 8, "jacobian_positions": 2, "attention_sequences": 2, "vocab_rows": 16,
    }  # fmt: skip
    invariants = {
        "weights.weight_tail": {"num_null": 2, "precision": "float64"},
        "behaviour.capabilities": {},
    }
    return Reference(
        name="known",
        provenance="made up",
        settings=Settings(("prose",), protocol, invariants, (str(text_folder),)),
        versions={name: REGISTRY[name].version for name in invariants},
        tokenizers=[TOKENIZER],
        step=0,
        members=[],
        values={},
    )


@pytest.fixture(scope="module")
def found(folder: Path, series: Reference) -> Inspection:
    return si.inspect(folder, against=series, budget_s=BUDGET_S)


def test_a_gpt2_of_random_weights_has_values_beside_its_twins(found: Inspection) -> None:
    by_place = {line.at: line for line in found.lines}
    loss = by_place[LOSS]
    assert loss.value.value == pytest.approx(math.log(257), abs=0.1)
    assert loss.untrained is not None and loss.shuffled is not None
    assert loss.z_untrained == pytest.approx(
        (loss.value.value - loss.untrained.value)
        / math.hypot(loss.value.stderr or 0, loss.untrained.stderr or 0)
    )
    norm = by_place[NORM]
    assert norm.shuffled is not None
    assert norm.value.value == pytest.approx(norm.shuffled.value, abs=0.02)
    assert {"weights", "behaviour"} <= set(found.sentences)
    assert "stand" in found.sentences["behaviour"]


def test_what_the_time_does_not_allow_is_named(found: Inspection) -> None:
    late = [name for name, why in found.left_out.items() if why.startswith("beyond the budget")]
    assert late
    assert not {line.at.invariant for line in found.lines} & set(late)


def test_it_is_read_as_json_and_as_a_table(found: Inspection) -> None:
    said = json.loads(found.to_json())
    assert {row["quantity"] for row in said["values"]} >= {"loss", "log_norm"}
    assert said["card"]["verdict"].startswith("cannot say: no quantity in common")
    shown = found._repr_html_()
    assert all(f"{family}: " in shown for family in found.sentences)
    assert "beyond the budget (--budget): " in shown
    rows = [line for line in found.lines if line.brief and not line.control and line.at.probe]
    assert rows and all(f"{line.family} on" in shown for line in rows)  # a name may be folded
    assert len(repr(found)) < 250


def test_the_command_says_it_as_json(folder: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(folder), "--budget", "1", "--json"])
    assert result.exception is None
    said = json.loads(result.stdout)
    assert said["model"] == "tiny"
    assert "beyond the budget of 1 s" in said["left_out"]["behaviour.capabilities"]
    assert said["card"]["ranked"] == "sizes"
    assert said["card"]["verdict"].startswith("cannot say: p = ")
    assert said["card"]["verdict"].endswith("with 4 sizes; 0.1 needs 9")


def around(
    found: Inspection, series: Reference, *, spread: float = 0.01, seed: int = 0
) -> Reference:
    """A series of twelve models, three of this size, that scatter about the values of this one."""
    rng = np.random.default_rng(seed)
    sizes = [found.n_params // 4, found.n_params // 2, found.n_params, 2 * found.n_params]
    members = [Member(f"m{n}", s, n, f"w{n}-{s}") for n in sizes for s in range(3)]
    values = {
        line.at: [line.value.value + spread * e for e in rng.standard_normal(len(members))]
        for line in found.lines
        if line.at.invariant in series.versions
    }
    return replace(series, members=members, values=values)


def beside(found: Inspection, series: Reference, **of: Any) -> Assessment:
    given = {"weights": "new", "tokenizer": TOKENIZER, "tokens": {}} | of
    return assessed(found.lines, series, n_params=found.n_params, **given)


def verdict(found: Inspection, assessment: Assessment, level: float = 0.1) -> str:
    return replace(found, assessment=assessment, level=level).verdict


def test_the_card_of_a_model_in_the_middle_of_its_series(
    found: Inspection, series: Reference
) -> None:
    inside = beside(found, around(found, series))
    assert verdict(found, inside).startswith("in family: p = ")
    assert "smallest possible 0.0769 with 12 models" in verdict(found, inside)
    assert verdict(found, inside, 0.05).endswith("0.05 needs 19")
    assert inside.card is not None
    assert not [i for i in inside.card.intervals if i.outside]


def test_the_card_of_a_model_that_is_out_names_where(found: Inspection, series: Reference) -> None:
    near = around(found, series)
    values = {at: of if at != NORM else [v + 3 for v in of] for at, of in near.values.items()}
    out = beside(found, replace(near, values=values))
    assert verdict(found, out).startswith("out of family: p = 0.0769")
    assert "most at weights.weight_tail log_norm at all" in verdict(found, out)
    assert replace(found, assessment=out).is_out
    assert not replace(found, assessment=out, level=0.05).is_out
    assert out.card is not None
    assert out.card.groups["weights"].p < out.card.groups["behaviour"].p


def test_a_model_of_the_series_is_not_compared_with_itself(
    found: Inspection, series: Reference
) -> None:
    near = around(found, series)
    itself = beside(found, near, weights=near.members[7].weights)
    assert itself.card is not None
    assert itself.card.num_ranked == 11
    assert itself.notes == (
        "the model, or its parent, is one of the series and was left out of it",
    )


def test_losses_in_other_tokens_and_values_of_other_versions_are_not_compared(
    found: Inspection, series: Reference
) -> None:
    near = around(found, series)
    other = beside(found, near, tokenizer="another")
    assert other.card is not None
    assert set(other.card.groups) == {"weights"}
    assert "another tokenizer" in other.notes[0]
    older = beside(found, replace(near, versions=near.versions | {"weights.weight_tail": 1}))
    assert older.card is not None
    assert set(older.card.groups) == {"behaviour"}


def test_a_series_is_the_same_when_it_is_read_again(found: Inspection, series: Reference) -> None:
    near = around(found, series)
    again = Reference.from_json(near.to_json())
    assert again.members == near.members
    assert again.settings.invariants == near.settings.invariants
    assert again.values[NORM] == pytest.approx(near.values[NORM], rel=1e-6)


def test_values_on_another_text_are_not_compared(found: Inspection, series: Reference) -> None:
    near = replace(around(found, series), tokens={"prose": ["one"]})
    same = beside(found, near, tokens={"prose": "one"})
    other = beside(found, near, tokens={"prose": "two"})
    assert same.card is not None and other.card is not None
    assert (set(same.card.groups), same.notes) == ({"weights", "behaviour"}, ())
    assert set(other.card.groups) == {"weights"}
    assert other.notes == ("other text than the series': values on prose left out",)


def rounded(model: GPT2LMHeadModel, levels: int) -> GPT2LMHeadModel:
    """The model with the rows of its matrices rounded to so many levels on either side of zero."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, w in other.named_parameters():
            if w.ndim == 2 and ".h." in name:
                step = w.abs().amax(dim=1, keepdim=True) / levels
                w.copy_((w / step).round() * step)
    return other


def test_rounding_to_eight_bits_is_seen_beside_the_parent_alone(series: Reference) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=32, n_head=2, vocab_size=257, n_positions=64,
        bos_token_id=None, eos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    parent = GPT2LMHeadModel(config).eval()
    many = replace(series, settings=replace(
        series.settings,
        protocol={**series.settings.protocol, "sequences": 300, "blocks": 8},
        corpus="python-stdlib",
    ))  # fmt: skip
    given = {"tokenizer": byte_tokenizer(), "against": many, "budget_s": 1.0}
    small = si.inspect(rounded(parent, 127), parent=parent, **given)
    (loss, *_) = small.changed
    assert loss.name == "behaviour.capabilities loss at logits on prose"
    assert "quantities changed (false discovery rate 0.1)" in small.paired
    # each has an error of its own, far above the difference
    (now,) = (line.value for line in small.lines if line.at == LOSS)
    assert now.stderr is not None and abs(loss.difference) < now.stderr / 4
    itself = si.inspect(parent, parent=parent, **given)
    assert not itself.changed
    assert {change.p for change in itself.changes} == {1.0}
    said = json.loads(small.to_json())["parent"]
    assert (said["name"], len(said["changes"])) == ("GPT2LMHeadModel", len(small.changes))
    assert "changed (false discovery rate 0.1)" in " ".join(small._repr_html_().split())


def test_assess_says_what_changed_since_the_parent_and_nothing_of_the_values(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=32, n_head=2, vocab_size=257, n_positions=128,
        bos_token_id=None, eos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    parent = GPT2LMHeadModel(config).eval()
    for name, of in (("parent", parent), ("int8", rounded(parent, 127))):
        of.save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
    model, made_of = str(tmp_path / "int8"), str(tmp_path / "parent")
    asked = ["assess", model, "--parent", made_of, "--budget", "1"]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0
    assert re.search(r"^card: cannot say: p = .* with 4 sizes", said.stdout, re.M)
    assert re.search(r"^parent: .*: [1-9]\d* of \d+ quantities changed", said.stdout, re.M)
    assert "untrained" not in said.stdout
    itself = CliRunner().invoke(app, ["assess", made_of, "--parent", made_of, "--budget", "1"])
    assert re.search(r"^parent: .*: 0 of \d+ quantities changed", itself.stdout, re.M)


def test_a_parent_of_another_shape_is_refused(folder: Path, series: Reference) -> None:
    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=257))
    with pytest.raises(ValueError, match="^parent: got GPT2LMHeadModel with other parameters"):
        si.inspect(folder, parent=other, tokenizer=byte_tokenizer(), against=series, budget_s=1)


def test_a_live_model_is_what_its_folder_is(
    model: GPT2LMHeadModel, found: Inspection, series: Reference
) -> None:
    live = si.inspect(model, tokenizer=byte_tokenizer(), against=series, budget_s=BUDGET_S)
    assert live.model == "GPT2LMHeadModel"
    assert [line.at for line in live.lines] == [line.at for line in found.lines]
    assert [line.value for line in live.lines] == [line.value for line in found.lines]


def test_of_a_model_without_a_tokenizer_weights_are_measured(
    model: GPT2LMHeadModel, series: Reference
) -> None:
    alone = si.inspect(model, against=series, budget_s=1)
    assert "weights" in alone.sentences
    assert all(line.at.probe is None for line in alone.lines)
    assert "no tokenizer.json" in alone.left_out["behaviour.capabilities"]


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_folder_is_a_series(
    found: Inspection, series: Reference, tmp_path: Path, finished: bool
) -> None:
    """Models are set beside each other at the last step that all have, or each at its own end."""
    near = around(found, series)
    said = series.settings
    config = {
        "name": "known", "models": [{"path": str(tmp_path)}], "probes": list(said.probes),
        "protocol": dict(said.protocol), "invariants": dict(said.invariants),
        "corpus": list(said.corpus),
    }  # fmt: skip
    rows = [
        measured_row(at, value, member, step)
        for at, of in near.values.items()
        if at.site != "all"
        for value, member in zip(of, near.members, strict=True)
        for step in (0, member.n_params if finished else 7)
    ]
    store = Store(str(tmp_path))
    store.write_bytes("config.yaml", sealed(write_yaml(config)))
    store.write_table("measurements/all-known.parquet", tables.encode(rows, tables.MEASUREMENTS))
    plan = [
        dict.fromkeys(tables.PLAN.names)
        | {"key": key, "tokenizer": TOKENIZER, "probe": "prose", "tokens": "t"}
        for key in sorted({row["key"] for row in rows})
    ]
    store.write_table("plan.parquet", tables.encode(plan, tables.PLAN))
    (table,) = (tmp_path / "measurements").iterdir()
    with pytest.raises(ValueError, match="^against: got .* of protocol p without config.yaml"):
        of_series(str(table))
    alone = shutil.copy(table, tmp_path / "series.parquet")
    assert of_series(str(alone)).values[LOSS] == near.values[LOSS]
    read = of_series(str(tmp_path))
    assert (read.name, read.step, read.tokenizers) == (
        "known",
        None if finished else 7,
        [TOKENIZER],
    )
    assert ("each at its last step" in read.provenance) == finished
    assert list(read.members) == near.members
    assert read.versions == near.versions
    assert read.tokens == {"prose": ["t"]}
    assert read.values[LOSS] == near.values[LOSS]
    assert read.settings.protocol == said.protocol
    card = beside(found, read).card
    assert card is not None
    assert card.num_ranked == 12


def measured_row(at: At, value: float, member: Member, step: int) -> dict[str, Any]:
    spec = REGISTRY[at.invariant]
    of_weights = at.probe is None
    inside = of_weights and "embed" not in str(at.site)
    place = {"layer": 0, "depth": 0.5} if inside or not of_weights else {}
    return dict.fromkeys(tables.MEASUREMENTS.names) | {
        "run_id": "r", "key": f"{at.invariant} {member.model} {member.seed} {step}",
        "unit": f"known/{member.model}/{step}/{member.seed}/trained", "series": "known",
        "model": member.model, "n_params": member.n_params, "n_layers": 1, "seed": member.seed,
        "step": step, "variant": "trained", "probe": at.probe, "protocol": "p", "family":
        spec.family, "invariant": at.invariant, "version": spec.version, "quantity": at.quantity,
        "law": "none", "value": value if step else value - 7, "status": "ok", "params": "{}",
        "flags": {},
        "role": at.site if of_weights else None, "site": None if of_weights else at.site,
        "weights_digest": member.weights, "code_version": "c", "capture": spec.kind,
        "error_kind": "none", "n": 1, **place,
    }  # fmt: skip


def test_a_model_without_text_reads_token_ids(
    model: GPT2LMHeadModel, series: Reference, tmp_path: Path
) -> None:
    file = tmp_path / "ids.npy"
    np.save(file, np.random.default_rng(0).integers(0, 257, (12, 30)))
    read = si.inspect(model, against=series, tokens=str(file), budget_s=1)
    loss = next(line for line in read.lines if line.at == LOSS._replace(probe="tokens"))
    assert loss.value.value == pytest.approx(math.log(257), abs=0.1)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            np.arange(12),
            r"^tokens: .*ids.npy: got 1-d int64, allowed integers \[sequences, tokens\]",
        ),
        (np.ones((2, 30)), "ids.npy: got 2-d float64"),
        (np.full((12, 30), 400), r"token ids: got 400..400, allowed 0..256 \(vocab_size\)"),
    ],
)
def test_token_ids_that_are_none_are_refused(
    written: np.ndarray, message: str, model: GPT2LMHeadModel, series: Reference, tmp_path: Path
) -> None:
    file = tmp_path / "ids.npy"
    np.save(file, written)
    with pytest.raises(ValueError, match=message):
        si.inspect(model, against=series, tokens=file, budget_s=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "no/such/folder"}, "^model: got 'no/such/folder', no folder; allowed: a folder"),
        ({"revision": "main"}, "^revision: got 'main' of the folder .*; allowed for a hub's model"),
        ({"budget_s": 0}, "^budget: got 0, allowed: more than 0"),
        ({"level": 0.7}, "^level: got 0.7, allowed: more than 0, at most 0.5"),
        (
            {"against": "nowhere"},
            "^against: got '.*nowhere', no such folder; allowed: the folder of a run",
        ),
    ],
)
def test_mistakes_are_named(given: dict[str, object], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        si.inspect(**({"model": folder} | given))  # type: ignore[arg-type]


def test_the_packaged_series_can_stand_beside_what_is_measured_today() -> None:
    demo = packaged()
    assert [m.n_params for m in demo.members[::3]] == [67_328, 232_960, 496_896, 859_136]
    assert "scaleinv demo" in demo.provenance
    versions = {name: REGISTRY[name].version for name in demo.versions}
    assert versions == demo.versions, "write it anew with scripts/reference_series"
    assert sum(None not in of for of in demo.values.values()) > 80
