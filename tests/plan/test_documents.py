"""Texts as documents: from their beginning, of their alphabet, with the losses of their models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaleinv_ray.plan import make_plan
from tests.plan.document_models import (
    LENGTH,
    PROTOCOL,
    VOCABULARY,
    by_labels,
    config,
    documents,
    given,
    json_file,
    losses,
)


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


def test_letters_that_are_left_out_are_refused_as_unknown_ones_are(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    file = json_file(tmp_path / "a.jsonl", ["abcABCDEF" * 40] * 50)
    foreign = {"name": "mine", "file": str(file), "layout": "documents"}
    with pytest.raises(ValueError, match=r"probe mine: got 66.7 % of the letters in no token"):
        make_plan(config(model(unknown=False), foreign, tmp_path))


def test_generated_probes_never_draw_what_stands_for_the_unknown(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    plan = make_plan(config(model(), probe, tmp_path, probes=["induction"]))
    assert given(plan).text_ST.min() > 2
