"""Models are given what they were trained on: special tokens, documents, ids of files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, pre_tokenizers, processors

from scaleinv_ray import tables
from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.conclude.concluding import conclude
from scaleinv_ray.conclude.sanity import Sanity, sanity_notes
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.plan import Plan, ProbeTokens, make_plan, plan_rows
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.plan.look import look_lines
from scaleinv_ray.store import Store, read_records
from tests.plan.document_models import (
    LENGTH,
    VOCABULARY,
    alphabet,
    documents,
    json_file,
    saved,
)

PROTOCOL = {
    "sequences": 40, "length": LENGTH, "position": 20, "tokens_per_dim": 4, "stream_units": 8,
    "jacobian_positions": 2, "attention_sequences": 2, "vocab_rows": 8,
}  # fmt: skip
BOS = VOCABULARY["[BOS]"]


def config(model: Path, probe: dict[str, Any], out: Path, **more: Any) -> RunConfig:
    given = {
        "name": "x", "models": [{"path": str(model)}], "variants": ["trained"], "probes": [probe],
        "protocol": PROTOCOL, "invariants": ["behaviour.capabilities"], "out": str(out),
    }  # fmt: skip
    return load_run_config(given | more)


def given(plan: Plan) -> ProbeTokens:
    (tokens,) = plan.tokens.values()
    return tokens


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = documents(6, seed=3, length=12)
    return json_file(
        tmp_path_factory.mktemp("texts") / "a.jsonl", documents(60, seed=2, tail=9) + few
    )


@pytest.fixture
def probe(texts: Path) -> dict[str, Any]:
    return {"name": "mine", "file": str(texts), "layout": "documents"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A template or none, and training steps -> folder of the model."""
    made: dict[tuple[Any, ...], Path] = {}

    def make(width: int = 16, steps: int = 0, **of: bool) -> Path:
        at = (width, steps, *of.items())
        if at not in made:
            folder = tmp_path_factory.mktemp("models") / f"w{width}"
            made[at] = saved(folder, alphabet(**of), width=width, steps=steps)
        return made[at]

    return make


def losses(plan: Plan, config: RunConfig) -> tuple[np.ndarray, Any]:
    """Losses [sequences, tokens] that a run captures, and the outcome of the capture."""
    scratch = Path(config.out) / "captures"
    work = jobs_for(plan, plan.measurements, config, scratch=scratch, run_id="r")
    (job,) = work.captures
    outcome = Capturer(num_threads=1, num_gpus=0).capture(job, work.tokens)
    assert not outcome.failed
    (record,) = read_records(Path(job.paths()[0]))
    return record.loss_ST, outcome


def by_labels(folder: Path, tokens_ST: np.ndarray, left_out: int) -> list[float]:
    """Loss of each document as the model's own class says it."""
    net = tf.AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for row in torch.from_numpy(tokens_ST.astype(np.int64)):
        labels = row.clone()
        labels[: left_out + bool(left_out)] = -100  # nobody has asked for the tag
        with torch.inference_mode():
            found.append(float(net(input_ids=row[None], labels=labels[None]).loss))
    return found


# --- special tokens

Change = Callable[[Tokenizer], None]


def _template(single: str) -> Change:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("[BOS]", BOS), ("[PAD]", VOCABULARY["[PAD]"])]
        )

    return change


def _bert(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.BertProcessing(("[PAD]", 2), ("[BOS]", 1))


def _roberta(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.RobertaProcessing(("[PAD]", 2), ("[BOS]", 1))


def _bytes_then_template(tokenizer: Tokenizer) -> None:
    template = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", BOS)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template])


def _nothing(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer])


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (_template("[BOS] $A"), 1),
        (_template("[BOS] [PAD] $A [PAD]"), 2),
        (_template("$A [PAD]"), 0),
        (_bert, 1),
        (_roberta, 1),
        (_bytes_then_template, 1),
        (_nothing, 0),
    ],
)
def test_sequences_begin_as_the_tokenizer_begins_a_text(
    tmp_path: Path, texts: Path, probe: dict[str, Any], change: Change, first: int
) -> None:
    tokenizer = alphabet(template=False)
    change(tokenizer)
    folder = saved(tmp_path / "m", tokenizer)
    found = given(make_plan(config(folder, probe, tmp_path)))
    auto = tf.AutoTokenizer.from_pretrained(folder)
    known = {
        tuple(auto(json.loads(line)["text"]).input_ids[: first + LENGTH])
        for line in texts.read_text().splitlines()
    }
    assert found.left_out == found.beginning == first
    assert found.tokens_ST.shape == (40, first + LENGTH)
    assert {tuple(row) for row in found.tokens_ST.tolist()} <= known


def test_what_stands_before_a_text_can_be_chosen(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    def made(folder: Path, **more: Any) -> ProbeTokens:
        return given(make_plan(config(folder, probe, tmp_path, **more)))

    auto, bare = made(model()), made(model(), special_tokens="none")
    other = made(model(template=False), special_tokens=["[PAD]", "[BOS]"])
    assert (auto.tokens_ST[:, 0] == BOS).all() and bare.left_out == 0
    np.testing.assert_array_equal(other.tokens_ST[:, :2], [[2, 1]] * 40)
    for tokens in (auto, other):  # the same text in each
        np.testing.assert_array_equal(tokens.text_ST, bare.tokens_ST)
    assert bare.digest == made(model(template=False)).digest, "as without a template"
    counted = made(model(), measure_special_tokens=True)
    assert (counted.left_out, counted.beginning) == (0, 1)
    np.testing.assert_array_equal(counted.tokens_ST, auto.tokens_ST[:, :LENGTH])
    assert len({t.digest for t in (auto, bare, other, counted)}) == 4


def test_settings_of_a_tokenizer_count_where_it_has_no_template(
    tmp_path: Path, probe: dict[str, Any]
) -> None:
    folder = saved(tmp_path / "m", alphabet(template=False))
    file = folder / "tokenizer_config.json"
    before = json.loads(file.read_text())
    for settings, first in (
        ({}, 0),
        ({"add_bos_token": False}, 0),
        ({"add_bos_token": True}, 1),
        ({"add_bos_token": True, "bos_token": {"content": "[BOS]"}}, 1),
        ({"add_bos_token": True, "bos_token": None}, 1),  # config.json has its id
    ):
        file.write_text(json.dumps(before | settings))
        found = given(make_plan(config(folder, probe, tmp_path)))
        assert found.left_out == first
        assert first == 0 or (found.tokens_ST[:, 0] == BOS).all()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"special_tokens": ["[BOX]"]}, r"^special_tokens: got '\[BOX\]', .* has \[UNK\], \[BOS\]"),
        (
            {"protocol": PROTOCOL | {"length": LENGTH + 2}},
            r"got 50 behind 1 special tokens, model .* has 50 positions; allowed 1..49",
        ),
    ],
)
def test_what_does_not_fit_before_a_text_is_refused(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path], more: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make_plan(config(model(), probe, tmp_path, **more))


@pytest.mark.parametrize("wrong", ["first", [], [3], None, {"a": 1}, ""])
def test_special_tokens_are_a_word_or_names(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"special_tokens: got .*allowed: 'auto', 'none' or a lis"):
        config(tmp_path, {"name": "a", "file": "b"}, tmp_path, special_tokens=wrong)


# --- layouts


@pytest.mark.parametrize("template", [True, False])
def test_losses_of_documents_are_those_of_the_models_own_class(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path], template: bool
) -> None:
    folder = model(template=template)
    chosen = config(folder, probe, tmp_path)
    plan = make_plan(chosen)
    loss_ST, _ = losses(plan, chosen)
    found = given(plan)
    assert loss_ST.shape == (40, LENGTH - 1)
    expected = by_labels(folder, found.tokens_ST, found.left_out)
    np.testing.assert_allclose(loss_ST.mean(axis=1), expected, atol=1e-6)


def test_documents_begin_at_their_beginning_and_short_ones_are_left_out(
    tmp_path: Path, texts: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    found = given(make_plan(config(model(), probe, tmp_path)))
    assert found.said == (
        f"60 of 66 documents in {texts} have 48 tokens or more, 40 of them are read",
    )
    tags = {VOCABULARY["1"], VOCABULARY["2"]}
    assert {int(i) for i in found.text_ST[:, 0]} == tags
    assert not tags & {int(i) for i in found.text_ST[:, 1:].ravel()}
    many = PROTOCOL | {"sequences": 61}
    with pytest.raises(ValueError, match=r"sequences: got 61, 60 of 66 documents .*up to 60"):
        make_plan(config(model(), probe, tmp_path, protocol=many))


def test_long_documents_are_read_no_further_than_needed(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    long = [text * 2000 for text in documents(40, seed=2)]
    file = json_file(tmp_path / "long.jsonl", long)
    probe = {"name": "mine", "file": str(file), "layout": "documents"}
    found = given(make_plan(config(model(), probe, tmp_path)))
    spelled = {tuple(VOCABULARY[c] for c in text[:LENGTH]) for text in long}
    assert {tuple(row) for row in found.text_ST.tolist()} == spelled


def test_line_breaks_never_become_an_unknown_token(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    packed = probe | {"layout": "packed"}
    with pytest.raises(ValueError, match=r"got 3.* % \[UNK\], .*line breaks.*layout: documents"):
        make_plan(config(model(), packed, tmp_path))
    # one that leaves them out has none
    assert given(make_plan(config(model(unknown=False), packed, tmp_path))).text_ST.min() > 2


def test_a_text_of_another_alphabet_is_refused(tmp_path: Path, model: Callable[..., Path]) -> None:
    file = json_file(tmp_path / "a.jsonl", ["ABC" * 40] * 50)
    foreign = {"name": "mine", "file": str(file), "layout": "documents"}
    with pytest.raises(ValueError, match=r"probe mine: got 100 % \[UNK\].*texts of this alphabet"):
        make_plan(config(model(), foreign, tmp_path))
    text = r"tokenizer.json: probe prose: got 25.* % \[UNK\]"
    with pytest.raises(ValueError, match=text):
        make_plan(config(model(), foreign, tmp_path, probes=["prose"]))


def test_generated_probes_never_draw_what_stands_for_the_unknown(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    plan = make_plan(config(model(), probe, tmp_path, probes=["induction"]))
    assert given(plan).text_ST.min() > 2


# --- files


def test_texts_of_parquet_and_plain_text(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    texts = [json.loads(line)["text"] for line in Path(probe["file"]).read_text().splitlines()]
    pq.write_table(pa.table({"id": range(66), "sequence": texts}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n")
    column = probe | {"file": str(tmp_path / "a.parquet"), "field": "sequence"}
    plain = probe | {"file": str(tmp_path / "a.txt")}
    lines, of_column, of_lines = (
        given(make_plan(config(model(), p, tmp_path))) for p in (probe, column, plain)
    )
    np.testing.assert_array_equal(of_column.tokens_ST, lines.tokens_ST)
    np.testing.assert_array_equal(of_lines.tokens_ST, lines.tokens_ST)
    # packed, plain text is one text: what stands between its lines is its own
    bare = model(unknown=False)
    whole = given(make_plan(config(bare, plain | {"layout": "packed"}, tmp_path)))
    spelled = [VOCABULARY[c] for c in "".join(texts)]
    assert whole.text_ST.ravel().tolist() == spelled[: whole.text_ST.size]


def token_files(folder: Path) -> dict[str, Path]:
    ids_NT = np.random.default_rng(0).integers(33, size=(50, LENGTH + 3))
    np.save(folder / "a.npy", ids_NT.astype(np.uint16))
    rows = ids_NT.tolist()
    pq.write_table(pa.table({"input_ids": rows}), folder / "lists.parquet")
    ragged = [[1, 2], *rows]
    pq.write_table(pa.table({"input_ids": ragged}), folder / "ragged.parquet")
    fixed = pa.array(rows, pa.list_(pa.int32(), LENGTH + 3))
    pq.write_table(pa.table({"input_ids": fixed}), folder / "fixed.parquet")
    names = ("a.npy", "lists.parquet", "ragged.parquet", "fixed.parquet")
    return {name: folder / name for name in names}


def test_ids_of_a_file_are_taken_as_they_are(tmp_path: Path, model: Callable[..., Path]) -> None:
    files = token_files(tmp_path)
    rows = np.load(files["a.npy"])[:40, :LENGTH]
    bare = tmp_path / "without"
    saved(bare, alphabet())
    (bare / "tokenizer.json").unlink()
    for folder in (model(), bare):
        for name, file in files.items():
            found = given(make_plan(config(folder, {"name": "m", "tokens": str(file)}, tmp_path)))
            np.testing.assert_array_equal(found.tokens_ST, rows)
            known = 51 if name == "ragged.parquet" else 50
            assert found.said[0].startswith(f"50 of {known} sequences in {file} have 48 tokens")
    chosen = config(bare, {"name": "m", "tokens": str(files["a.npy"])}, tmp_path)
    loss_ST, _ = losses(make_plan(chosen), chosen)
    np.testing.assert_allclose(loss_ST.mean(axis=1), by_labels(bare, rows, 0), atol=1e-6)


def _written(folder: Path, name: str, what: Any) -> Path:
    file = folder / name
    if isinstance(what, bytes):
        file.write_bytes(what)
    elif isinstance(what, np.ndarray):
        np.save(file, what)
    else:
        pq.write_table(pa.table(what), file)
    return file


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("a.npy", b"", "allowed .npy"),
        ("a.npy", np.zeros(9, dtype=int), "got 1-d int64, allowed integers"),
        ("a.npy", np.zeros((50, 60)), "got 2-d float64, allowed integers"),
        ("a.npy", np.zeros((50, 60), dtype=object), "allowed .npy .*objects"),
        ("a.npy", np.full((50, 60), 33), r"probe m: token ids: got 33..33, allowed 0..32"),
        ("a.npy", np.full((50, 60), -1), r"token ids: got -1..-1"),
        ("a.npy", np.zeros((50, 20), dtype=int), "sequences: got 40, 0 of 50 sequences in .*sm"),
        ("a.npy", np.zeros((5, 60), dtype=int), "got 40, 5 of 5 sequences in"),
        ("a.parquet", b"PAR1", "allowed Parquet"),
        ("a.parquet", {"ids": [[1]]}, r"got columns \['ids'\], needs 'input_ids'"),
        ("a.parquet", {"input_ids": ["a"]}, "input_ids: got string, allowed lists of integers"),
        ("a.parquet", {"input_ids": [[0.5]]}, "got lists of double"),
        ("a.parquet", {"input_ids": [[1], None]}, "got empty values"),
    ],
)
def test_files_of_ids_that_are_none_are_refused(
    tmp_path: Path, model: Callable[..., Path], name: str, what: Any, said: str
) -> None:
    file = _written(tmp_path, name, what)
    with pytest.raises(ValueError, match=said) as refused:
        make_plan(config(model(), {"name": "m", "tokens": str(file)}, tmp_path))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (b"x", "allowed Parquet"),
        ({"txt": ["a"]}, r"got columns \['txt'\], needs 'text'"),
        ({"text": [1]}, "text: got int64, allowed texts"),
        ({"text": ["a", None]}, "row 1: text: got no value"),
    ],
)
def test_columns_that_are_no_texts_are_refused(
    tmp_path: Path, model: Callable[..., Path], what: Any, said: str
) -> None:
    file = _written(tmp_path, "a.parquet", what)
    with pytest.raises(ValueError, match=said):
        make_plan(config(model(), {"name": "m", "file": str(file)}, tmp_path))


def test_entries_of_token_files(tmp_path: Path) -> None:
    chosen = config(tmp_path, {"name": "m", "tokens": "a.npy"}, tmp_path)
    assert load_run_config(chosen.model_dump(mode="json", exclude_none=True)) == chosen
    with pytest.raises(ValueError, match=r"probes\[0\]: unknown key 'layout'"):
        config(tmp_path, {"name": "m", "tokens": "a.npy", "layout": "packed"}, tmp_path)
    with pytest.raises(ValueError, match=r"probes\[0\].layout: .*'packed'"):
        config(tmp_path, {"name": "m", "file": "a", "layout": "padded"}, tmp_path)


# --- looks


def test_the_plan_shows_what_models_are_given(
    tmp_path: Path, texts: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    ids = {"name": "ids", "tokens": str(token_files(tmp_path)["a.npy"])}
    plan = make_plan(config(model(), probe, tmp_path, probes=[probe, ids]))
    head, shares, first, second, said, of_ids, *_ = look_lines(plan)
    assert head.startswith("tokenizer ") and "3.50 (vocabulary 33)" in head
    assert shares.startswith("  mine: 1 tokens a character, 0 % unknown, 0 % special")
    text = "".join(first.split("|")[1:])
    assert first.startswith("    [BOS]|") and text in texts.read_text() and first != second
    assert said.strip() == plan.tokens["mine", next(iter(plan.tokens))[1]].said[0]
    assert of_ids.startswith("  ids: token ids as they are")


def test_the_head_of_the_report_says_that_a_model_does_not_know_its_text(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    chosen = config(model(), probe, tmp_path / "run")
    plan, store = make_plan(chosen), Store(chosen.out)
    work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
    outcome = Capturer(num_threads=1, num_gpus=0).capture(work.captures[0], work.tokens)
    for job in work.measurements:
        measure(job, store)
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, set()), tables.PLAN))
    (checkpoint,) = plan.last
    line = "w16 on mine: this model does not know this text: "
    for factor in (1, 2):  # untrained, it pays chance; then more than that
        said: list[str] = []
        paid = {name: factor * loss for name, loss in outcome.losses.items()}
        Sanity(store, plan, lambda event, text, said=said: said.append(text))(checkpoint, paid)
        conclude(store, chosen)
        assert (line in store.read_bytes("report.html").decode()) == bool(said)
        assert factor == 1 or said[0].startswith(line)


def test_controls_streams_and_models_without_losses_are_not_asked(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    probes = [probe, "induction"]
    variants = ["trained", "random_init", "shuffled_tokens"]
    chosen = config(model(), probe, tmp_path, probes=probes, variants=variants)
    plan = make_plan(chosen)
    work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
    asked = [
        (job.weights.variant, t.probe, t.shuffle_seed)
        for job in work.captures
        for t in job.targets
        if t.sanity
    ]
    assert asked == [("trained", "mine", None)]


@pytest.mark.slow
def test_a_series_that_knows_its_text_and_one_that_does_not(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    """As documents a larger model is better; packed, or without its first token, each is lost."""
    found: dict[tuple[str, int], float] = {}
    store = Store(tmp_path / "run")
    packed = probe | {"layout": "packed"}
    for width in (8, 32):
        folder = model(width, 400, unknown=False)
        for name, asked, more in (
            ("documents", probe, {}),
            ("packed", packed, {}),
            ("bare", probe, {"special_tokens": "none"}),
        ):
            chosen = config(folder, asked, tmp_path / f"{name}{width}", **more)
            plan = make_plan(chosen)
            loss_ST, outcome = losses(plan, chosen)
            found[name, width] = float(loss_ST.mean())
            assert outcome.losses["mine"] == pytest.approx(loss_ST[:32].mean(), abs=1e-6)
            if name == "documents":
                tokens = given(plan)
                expected = by_labels(folder, tokens.tokens_ST, tokens.left_out)
                np.testing.assert_allclose(loss_ST.mean(axis=1), expected, atol=1e-6)
            said: list[str] = []
            (checkpoint,) = plan.last
            Sanity(store, plan, lambda event, text, said=said: said.append(text))(
                checkpoint, outcome.losses
            )
            notes = sanity_notes(store, [(f"w{width}", "mine")])
            assert notes == said
            assert bool(notes) == (name != "documents")
            assert all("this model does not know this text" in line for line in notes)
    assert found["documents", 32] < found["documents", 8]
    for width in (8, 32):
        assert found["packed", width] > found["documents", width] + 1
        assert found["bare", width] > found["documents", width]
