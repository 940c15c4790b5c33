"""Texts and token ids of files: what is read, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaleinv_ray.config import load_run_config
from scaleinv_ray.plan import make_plan
from tests.plan.document_models import (
    LENGTH,
    VOCABULARY,
    alphabet,
    by_labels,
    config,
    given,
    losses,
    saved,
    token_files,
)


def test_texts_of_parquet_and_plain_text(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    texts = [json.loads(line)["text"] for line in Path(probe["file"]).read_text().splitlines()]
    pq.write_table(pa.table({"id": range(66), "sequence": texts}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n")
    column = probe | {"file": str(tmp_path / "a.parquet"), "field": "sequence"}
    plain = probe | {"file": str(tmp_path / "a.txt")}
    categories = pa.array(texts).dictionary_encode()
    pq.write_table(pa.table({"text": categories}), tmp_path / "categories.parquet")
    (tmp_path / "crlf.txt").write_bytes("\r\n".join(texts).encode())
    (tmp_path / "CRLF.TXT").write_bytes("\r\n".join(texts).encode())
    for name in ("categories.parquet", "crlf.txt", "CRLF.TXT"):
        other = given(make_plan(config(model(), probe | {"file": str(tmp_path / name)}, tmp_path)))
        np.testing.assert_array_equal(
            other.tokens_ST, given(make_plan(config(model(), probe, tmp_path))).tokens_ST
        )
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
        pq.write_table(what if isinstance(what, pa.Table) else pa.table(what), file)
    return file


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("a.npy", b"", "allowed .npy"),
        ("a.npy", np.zeros(9, dtype=int), "got 1-d int64, allowed integers"),
        ("a.npy", np.zeros((50, 60)), "got 2-d float64, allowed integers"),
        ("a.npy", np.zeros((50, 60), "timedelta64[s]"), "got 2-d timedelta64.s., allowed integers"),
        ("a.npy", np.zeros((0, 60), dtype=int), "got 40, 0 of 0 .*; allowed: a smaller .* or more"),
        ("a.npy", np.zeros((50, 60), dtype=object), "allowed .npy .*objects"),
        ("a.npy", np.full((50, 60), 33), r"probe m: token ids: got 33..33, allowed 0..32"),
        ("a.npy", np.full((50, 60), -1), r"token ids: got -1..-1"),
        ("a.npy", np.full((50, 60), 2**64 - 1, np.uint64), r"token ids: got 9\d+\.\.9\d+, allowed"),
        ("a.npz", b"PK", r"a.npz', allowed: .npy, .parquet"),
        ("a.txt", b"1 2 3", r"a.txt', allowed: .npy, .parquet"),
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
        (
            {f"{'c' * 60}{i}": ["a"] for i in range(9)},
            r"got columns .*needs 'text' as its field, or",
        ),
        (pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"]), "needs 'text' once"),
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
