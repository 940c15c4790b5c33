"""Probes of the user's own: what is read, what is refused, and that keys follow the content."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.config import ConfigError, RunConfig, load_run_config
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan.tokens import probe_tokens, tokenizers_of
from scaleinv_ray.probes import build_tokens, text_file
from scaleinv_ray.records import Protocol

PROTOCOL = Protocol(
    sequences=4,
    length=16,
    position=8,
    blocks=2,
    stream_units=2,
    jacobian_positions=2,
    attention_sequences=2,
)


def written(file: Path, *texts: str, field: str = "text") -> Path:
    file.write_text("".join(json.dumps({field: t, "more": 1}) + "\n" for t in texts))
    return file


def tokens(file: Path, *, field: str = "text", sequences: int = 4, seed: int = 0) -> np.ndarray:
    return build_tokens(
        text_file("mine", file, field=field), lambda text: list(text.encode()),
        sequences=sequences, length=16, vocab_size=256, corpus=None,
        rng=np.random.default_rng(seed),
    )  # fmt: skip


def test_texts_follow_each_other_in_an_order_of_the_seed(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", *("abcdefghij"[i] * 14 for i in range(10)))
    rows = tokens(file)
    for row in rows:
        text = bytes(row.tolist()).decode()
        assert text == text[0] * 14 + "\n\n"
    np.testing.assert_array_equal(rows, tokens(file))
    assert not np.array_equal(rows, tokens(file, seed=1))


def test_another_field_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    for start in ("", "\ufeff"):  # a byte order mark, as some editors write
        file.write_text(start + '{"prompt": "' + "x" * 70 + '"}\r\n \n\n', encoding="utf-8")
        assert set(tokens(file, field="prompt").ravel().tolist()) == {ord("x")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b'{"text": "a"}\n{"text": \n',
            r"a.jsonl, line 2: got '\{\"text\": ', allowed: a JSON object",
        ),
        (b'{"text": "a"}\n["text"]\n', "line 2: got .*allowed a JSON object"),
        (b'{"txt": "a"}\n', r"line 1: got fields \['txt'\], needs 'text'"),
        (
            b"{" + b", ".join(b'"field_%d": 1' % i for i in range(99)) + b"}\n",
            r"got fields \['field_0', .{,90} needs 'text' as its field, or another of these",
        ),
        (b'{"text": 3}\n', "line 1: text: got 3, allowed a text"),
        (
            b'{"text": "ab"}\n',
            r"got 4 tokens of field 'text' in .*4 sequences of 16 tokens need 64",
        ),
        (b"", "got 0 tokens of field 'text'"),
        (b"\xff\xfe", "a.jsonl', allowed: .txt or JSON lines in UTF-8, .parquet"),
        (b'{"text": "a\\ud800"}\n', "line 1: text: allowed Unicode text .*surrogates"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        tokens(tmp_path / "a.jsonl")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"probes: got '.*none.jsonl': No such file"):
        tokens(tmp_path / "none.jsonl")


def config(*probes: object) -> RunConfig:
    given = {"name": "x", "models": [{"path": "m"}], "invariants": ["topology.persistence"]}
    return load_run_config(given | {"probes": list(probes), "variants": ["trained"]})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "model"
    byte_tokenizer().save_pretrained(folder)
    file = folder / "tokenizer.json"
    return Checkpoint(
        model="m", seed=0, step=0, architecture="none", n_params=1, n_layers=1, d_model=1, d_mlp=1,
        vocab_size=257, max_positions=None, dtype="float32", weights_digest="", config_digest="",
        tokenizer_file=file, tokenizer_digest=hashlib.sha256(file.read_bytes()).hexdigest(),
    )  # fmt: skip


def test_tokens_and_their_digest_follow_the_content(tmp_path: Path, checkpoint: Checkpoint) -> None:
    file = written(tmp_path / "a.jsonl", *(f"text {i} is long enough" for i in range(10)))
    chosen = config("counting", {"name": "mine", "file": str(file)})
    assert chosen.probe_names == ("counting", "mine")

    def digests() -> dict[str, str]:
        named = tokenizers_of([checkpoint])
        found = probe_tokens(chosen, [checkpoint], PROTOCOL, named=named)
        return {name: probe.digest for (name, _), probe in found.items()}

    before = digests()
    assert list(before) == ["counting", "mine"]
    assert digests() == before
    written(file, *(f"text {i} is changed, and long" for i in range(10)))
    after = digests()
    assert after["mine"] != before["mine"]
    assert after["counting"] == before["counting"]


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        ([{"name": "prose", "file": "a"}], "^probes: got a file named 'prose', allowed: none of"),
        ([{"name": "a", "fil": "b"}], r"^probes\[0\]: unknown key 'fil' \(did you mean 'file'"),
        ([{"name": "a"}], r"^probes\[0\].file: required"),
        ([{"name": "a/b", "file": "a"}], r"^probes\[0\].name: got 'a/b', allowed: letters"),
        ([{"name": "a", "file": "b"}, {"name": "a", "file": "c"}], "^probes: got a more than once"),
        ([3], r"^probes\[0\]: got 3, allowed: a mapping"),
    ],
)
def test_bad_entries_are_refused_before_anything_is_read(probes: list, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(*probes)


def test_a_config_with_a_file_survives_being_written() -> None:
    chosen = config("prose", {"name": "mine", "file": "a.jsonl", "field": "prompt"})
    assert load_run_config(chosen.model_dump(mode="json", exclude_none=True)) == chosen
