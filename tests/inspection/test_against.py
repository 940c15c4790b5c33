"""A series to stand beside, in a folder, a table or a bucket; and invariants of one's own."""

import json
import shutil
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
from scaleinv_ray.contract import REGISTRY, forget
from scaleinv_ray.inspection.reference import At, Member, of_series
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.measure.written_config import sealed
from scaleinv_ray.plugins import loading
from scaleinv_ray.store import Store
from tests.inspection.test_inspection import measured_row

SIZES = (500, 1000, 2000, 4000)
MEMBERS = [Member(f"m{n}-s{s}", s, n, f"w{n}-{s}") for n in SIZES for s in range(3)]
AT = At("weights.weight_tail", "log_norm", "query", None)
CONFIG = {
    "name": "known", "models": [{"path": "m"}], "invariants": {"weights.weight_tail": {}},
    "protocol": {"sequences": 24, "length": 32, "position": 24, "blocks": 4},
}  # fmt: skip


def write_series(store: Store) -> None:
    """A run folder of twelve models at two steps, with one quantity."""
    rng = np.random.default_rng(0)
    rows = [
        measured_row(AT, 1.0 + 0.01 * rng.standard_normal(), member, step)
        for member in MEMBERS
        for step in (0, 7)
    ]
    store.write_bytes("config.yaml", sealed(write_yaml(CONFIG)))
    store.write_table("measurements/all-known.parquet", tables.encode(rows, tables.MEASUREMENTS))
    plan = [dict.fromkeys(tables.PLAN.names) | {"key": key} for key in {row["key"] for row in rows}]
    store.write_table("plan.parquet", tables.encode(plan, tables.PLAN))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a tokenizer: its weights alone are measured."""
    torch.manual_seed(0)
    small = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=20, n_positions=16)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    GPT2LMHeadModel(small).save_pretrained(folder)
    return folder


def inspected(*arguments: str) -> dict[str, Any]:
    ran = CliRunner().invoke(app, ["inspect", *arguments, "--budget", "1", "--json"])
    assert ran.exception is None, ran.exception
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def test_a_folder_and_its_table_are_the_same_series(weights: Path, tmp_path: Path) -> None:
    write_series(Store(tmp_path / "run"))
    table = tmp_path / "run" / "series.parquet"
    shutil.copy(tmp_path / "run" / "measurements" / "all-known.parquet", table)
    of_folder, of_table = of_series(str(tmp_path / "run")), of_series(str(table))
    assert of_folder.values == of_table.values and [*of_folder.members] == MEMBERS
    for uri in (str(tmp_path / "run"), str(table)):
        card = inspected(str(weights), "--against", uri)["card"]
        assert (card["series"], card["ranked"], card["num_ranked"]) == ("known", "sizes", 4)
        assert card["provenance"].startswith(f"{uri}, step 7, ")


def test_a_series_in_a_bucket_is_that_of_a_folder_and_its_keys_are_not_shown(
    weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("moto", reason="needs moto[server]")
    from tests.cluster.buckets import bucket_server

    write_series(Store(tmp_path / "run"))
    with bucket_server() as bucket:
        write_series(Store(bucket.format("known")))
        Store(bucket.format("alone")).write_table(
            "series.parquet",
            Store(bucket.format("known")).read_table("measurements/all-known.parquet"),
        )
        there = of_series(bucket.format("known"))
        assert there.values == of_series(str(tmp_path / "run")).values
        said = inspected(str(weights), "--against", bucket.format("known"))
        assert said["card"]["num_ranked"] == len(SIZES)
        assert said["card"]["provenance"].startswith("s3://runs/known, step 7, ")
        assert "k:s@" not in json.dumps(said)
        with pytest.raises(
            ValueError, match=r"^against: got 's3://runs/alone/series.parquet' of pr"
        ):
            of_series(bucket.format("alone/series.parquet"))
        with pytest.raises(ValueError, match=r"got 's3://runs/nowhere' without config.yaml"):
            of_series(bucket.format("nowhere"))


MINE = '''
import numpy as np
from scaleinv_ray.contract import Measured, Quantity, invariant
from scaleinv_ray.estimate import exact
from scaleinv_ray.records import WeightMatrix

@invariant(quantities={"norm": Quantity(law="none", meaning="Frobenius norm")})
def size(w: WeightMatrix, *, rng: np.random.Generator) -> Measured:
    """Frobenius norm."""
    return Measured({"norm": exact(np.linalg.norm(w.w_OI))})
'''


def test_an_invariant_of_ones_own_comes_first(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    try:
        rows = inspected(str(weights), "--plugin", str(tmp_path / "mine.py"))["values"]
        (whole,) = [r for r in rows if r["invariant"] == "mine.size" and r["site"] == "all"]
        assert whole["value"] == pytest.approx(whole["shuffled"], rel=0.01), "the entries are mixed"
        without = si.inspect(weights, budget_s=1)
        assert "mine.size" not in {line.at.invariant for line in without.lines}
        assert "mine.size" not in without.left_out
    finally:
        forget([REGISTRY["mine.size"].function.__module__])
        loading._LOADED.clear()


def _of(*names: str) -> tuple[str, ...]:
    return tuple(n for n in ("config.yaml", "plan.parquet", "measurements") if n not in names)


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        (_of(), "against: got '.*run' without config.yaml; allowed: the folder of a run"),
        (_of("config.yaml"), "against: got '.*run' without plan.parquet; allowed: the folder"),
        (_of("config.yaml", "plan.parquet"), "without measurements of trained models, allowed"),
    ],
)
def test_a_folder_that_is_no_whole_run_is_told_what_it_lacks(
    lacks: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    write_series(Store(tmp_path / "run"))
    for name in lacks:
        if (place := tmp_path / "run" / name).is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
    with pytest.raises(ValueError, match=says):
        of_series(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "against: got '', allowed: the folder of a run"),
        ("nowhere", "against: got '.*nowhere', no such folder; allowed"),
        ("nowhere.parquet", "against: got '.*nowhere.parquet', no such file; allowed"),
        ("run/config.yaml", "against: got '.*config.yaml', a file; allowed"),
        ("run/plan.parquet", "got '.*plan.parquet' of key, capture_key, .*, no measurements"),
    ],
)
def test_what_is_no_series_is_named(name: str, says: str, tmp_path: Path) -> None:
    write_series(Store(tmp_path / "run"))
    with pytest.raises(ValueError, match=says):
        of_series(str(tmp_path / name) if name else "")


def test_a_series_in_which_everything_failed_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    write_series(store)
    rows = store.read_table("measurements/all-known.parquet").to_pylist()
    failed = [row | {"value": None, "status": "failed", "error": "x"} for row in rows]
    store.write_table("measurements/all-known.parquet", tables.encode(failed, tables.MEASUREMENTS))
    with pytest.raises(ValueError, match="no trained model has a value at its last step"):
        of_series(str(tmp_path / "run"))


def test_what_a_model_is_too_small_for_is_left_out_and_the_rest_is_measured(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "run")
    write_series(store)
    wide = CONFIG | {"protocol": CONFIG["protocol"] | {"stream_units": 88}}  # type: ignore[operator]
    wide["invariants"] = {"weights.weight_tail": {}, "renormalization.size_flow": {}}
    store.write_bytes("config.yaml", sealed(write_yaml(wide)))
    small = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=300, n_positions=64)
    small.bos_token_id = small.eos_token_id = None
    GPT2LMHeadModel(small).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    left = inspected(str(tmp_path / "model"), "--against", str(tmp_path / "run"))["left_out"]
    why = left["renormalization.size_flow"]
    assert why.startswith("protocol.stream_units: got 88, allowed 1..15"), why


def test_a_card_says_what_a_broken_model_has_no_values_of(weights: Path, tmp_path: Path) -> None:
    write_series(Store(tmp_path / "run"))
    model = GPT2LMHeadModel.from_pretrained(weights)
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    asked = ["assess", str(tmp_path / "broken"), "--against", str(tmp_path / "run")]
    said = CliRunner().invoke(app, [*asked, "--budget", "1"]).stdout
    assert "without a value, but in the series:" in said and "not finite" in said


@pytest.mark.parametrize("parent", ["", "nowhere"])
def test_a_parent_that_is_not_there_is_named_so(parent: str, weights: Path) -> None:
    asked = ["assess", str(weights), "--parent", parent, "--budget", "1"]
    said = str(CliRunner().invoke(app, asked).exception)
    assert said.startswith(f"parent: got {parent!r}, no folder; allowed"), said
