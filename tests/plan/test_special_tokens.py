"""What stands before a text: as the tokenizer says, or as the run does."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import ProbeTokens, make_plan
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.plan.tokenizer import Around, around
from tests.plan.document_models import (
    LENGTH,
    PROTOCOL,
    VOCABULARY,
    alphabet,
    config,
    given,
    saved,
)
from tests.plan.encoder_models import CLS, SEP, saved_encoder

BOS = VOCABULARY["[BOS]"]
MASKED = ["behaviour.masked_prediction"]


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
    assert found.left_out == found.around[0] == first and found.around[1] == 0
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
    assert (counted.left_out, counted.around) == (0, (1, 0))
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
    ("settings", "number", "said"),
    [
        (
            {"add_bos_token": "true"},
            1,
            r"tokenizer_config.json: add_bos_token: got 'true', allowed",
        ),
        (
            {"add_bos_token": True, "bos_token": ["[BOS]"]},
            1,
            r"bos_token: got \['\[BOS\]'\], allow",
        ),
        (
            {"add_bos_token": True, "bos_token": "<s>"},
            1,
            r"bos_token: got '<s>', asked for by add_b",
        ),
        ({"add_bos_token": True, "bos_token": None}, -1, r"bos_token_id: got -1, allowed: a whole"),
        ({"add_bos_token": True, "bos_token": None}, True, r"bos_token_id: got True, allowed"),
    ],
)
def test_settings_that_name_no_token_are_refused(
    tmp_path: Path, probe: dict[str, Any], settings: dict[str, Any], number: int, said: str
) -> None:
    folder = saved(tmp_path / "m", alphabet(template=False))
    for name, more in (("tokenizer_config", settings), ("config", {"bos_token_id": number})):
        file = folder / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
    with pytest.raises(ValueError, match=said) as refused:
        make_plan(config(folder, probe, tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"special_tokens": ["[BOX]"]}, r"^special_tokens: got '\[BOX\]', .* has \[UNK\], \[BOS\]"),
        (
            {"protocol": PROTOCOL | {"length": LENGTH + 2}},
            r"got 50 with 1 special tokens before it, model .* has 50 positions; allowed: 1..49",
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


def test_a_tokenizer_without_a_template_leaves_keys_as_they_are(
    tmp_path: Path, probe: dict[str, Any]
) -> None:
    """As that of ladders, whose captures and measurements are not made again."""
    whole = byte_tokenizer().backend_tokenizer
    assert around(whole, tmp_path / "tokenizer.json", "auto", None, encoder=True) == Around()
    found = given(
        make_plan(config(saved(tmp_path / "m", alphabet(template=False)), probe, tmp_path))
    )
    assert found.digest == hashlib.sha256(found.text_ST.tobytes()).hexdigest()[:20]


def test_a_token_that_the_model_lacks_is_refused(tmp_path: Path, probe: dict[str, Any]) -> None:
    tokenizer = alphabet(template=False)
    tokenizer.add_special_tokens(["<new>"])
    folder = saved(tmp_path / "m", tokenizer)
    said = r"special_tokens: got token 33 before a text, model m has tokens 0..32"
    with pytest.raises(ValueError, match=said):
        make_plan(config(folder, probe, tmp_path, special_tokens=["<new>"]))


def test_a_vocabulary_of_other_letters_has_a_beginning_too(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel({"<s>": 0, "漢": 1}, unk_token="[UNK]"))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    file = tmp_path / "tokenizer.json"
    assert around(made, file, "auto", None) == Around((0,))
    assert around(made, file, "none", "<s>") == Around()


def test_shuffled_text_stays_behind_its_beginning(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    for measured in (False, True):
        more = {"variants": ["trained", "shuffled_tokens"], "measure_special_tokens": measured}
        chosen = config(model(), probe, tmp_path, **more)
        plan = make_plan(chosen)
        work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
        (job,) = work.captures
        assert {t.shuffle_seed for t in job.wanted} == {None, 0}
        assert {(t.around, t.left_out) for t in job.wanted} == {((1, 0), int(not measured))}


def test_the_default_length_leaves_room_for_what_stands_before(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    short = {"sequences": 40, "tokens_per_dim": 4}
    for more, length in (({}, LENGTH + 1), ({"special_tokens": "none"}, LENGTH + 2)):
        chosen = config(model(), probe, tmp_path, probes=["induction"], protocol=short, **more)
        assert make_plan(chosen).protocol.length == length


def test_encoders_are_given_what_stands_behind_a_text_too(
    tmp_path: Path, texts: Path, probe: dict[str, Any]
) -> None:
    folder = saved_encoder(tmp_path / "m")
    auto = tf.AutoTokenizer.from_pretrained(folder)
    written = [json.loads(line)["text"] for line in texts.read_text().splitlines()]
    known = {tuple(auto(text[:LENGTH]).input_ids) for text in written if len(text) >= LENGTH}
    found = given(make_plan(config(folder, probe, tmp_path, invariants=MASKED)))
    assert (found.around, found.left_out) == ((1, 1), 1)
    assert {tuple(row) for row in found.tokens_ST.tolist()} <= known
    assert found.text_ST.shape == (40, LENGTH) and (found.tokens_ST[:, -1] == SEP).all()
    bare = given(
        make_plan(config(folder, probe, tmp_path, invariants=MASKED, special_tokens="none"))
    )
    np.testing.assert_array_equal(bare.tokens_ST, found.text_ST)
    more = {"invariants": MASKED, "measure_special_tokens": True}
    counted = given(make_plan(config(folder, probe, tmp_path, **more)))
    assert counted.tokens_ST.shape == counted.text_ST.shape == (40, LENGTH)
    assert {*counted.tokens_ST[:, 0].tolist()} == {CLS} and counted.left_out == 0
    assert len({t.digest for t in (bare, found, counted)}) == 3
    long = PROTOCOL | {"length": LENGTH + 1}
    said = r"got 49 with 2 special tokens around it, model m has 50 positions; allowed: 1\.\.48"
    with pytest.raises(ValueError, match=said):
        make_plan(config(folder, probe, tmp_path, invariants=MASKED, protocol=long))
    short = PROTOCOL | {"length": 2, "position": 1}
    with pytest.raises(ValueError, match=r"protocol.length: got 2, all of it special tokens"):
        make_plan(config(folder, probe, tmp_path, protocol=short, **more))


def test_shuffled_text_stays_between_what_stands_around_it(
    tmp_path: Path, probe: dict[str, Any]
) -> None:
    chosen = config(
        saved_encoder(tmp_path / "m"), probe, tmp_path,
        invariants=MASKED, variants=["trained", "shuffled_tokens"],
    )  # fmt: skip
    plan = make_plan(chosen)
    work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
    (job,) = work.captures
    assert {(t.around, t.left_out) for t in job.wanted} == {((1, 1), 1)}


@pytest.mark.parametrize("mask", [34, 99])
def test_a_mask_that_the_embedding_lacks_is_refused_before_any_capture(
    tmp_path: Path, probe: dict[str, Any], mask: int
) -> None:
    folder = saved_encoder(tmp_path / "m")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mask_token_id": mask}))
    said = rf"mask_token_id: got {mask}, model m has tokens 0\.\.33; allowed: one of them"
    with pytest.raises(ValueError, match=said):
        make_plan(config(folder, probe, tmp_path, invariants=MASKED))
