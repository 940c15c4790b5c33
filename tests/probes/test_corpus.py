import shutil
import warnings
from pathlib import Path

import pytest

from scaleinv_ray.probes.corpus import Corpus, documentation, load_corpus


@pytest.fixture(scope="module")
def stdlib() -> Corpus:
    return load_corpus("python-stdlib")


def names(documents: object) -> set[str]:
    return {d.name for d in documents}  # type: ignore[attr-defined]


def test_sides_are_disjoint_and_both_have_both_kinds(texts: Path) -> None:
    corpus = load_corpus(texts, held_out_fraction=0.25)
    assert not names(corpus.train) & names(corpus.held_out)
    assert len(corpus.train) + len(corpus.held_out) == 40
    for kind in ("prose", "code"):
        assert len(corpus.documents("held_out", kind)) == 5
        assert len(corpus.documents("train", kind)) == 15


def test_docstrings_and_source_of_a_module_are_on_one_side(stdlib: Corpus) -> None:
    assert not names(stdlib.train) & names(stdlib.held_out)
    code = names(stdlib.documents("held_out", "code"))
    modules = {n for n in names(stdlib.documents("held_out", "prose")) if n.endswith(".py")}
    assert code and code == modules


def test_stdlib_has_its_modules_and_topics_but_no_tests(stdlib: Corpus) -> None:
    everything = names(stdlib.train) | names(stdlib.held_out)
    assert {"json/decoder.py", "argparse.py", "topics/assert"} <= everything
    folders = {part for name in everything for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "encodings", "pydoc_data"}


def test_stdlib_prose_is_what_the_docstrings_say(stdlib: Corpus) -> None:
    prose = stdlib.documents("train", "prose") + stdlib.documents("held_out", "prose")
    argparse = next(d for d in prose if d.name == "argparse.py")
    assert argparse.text.startswith("Command-line parsing library")
    assert "import sys" not in argparse.text.splitlines()


def test_digest_depends_on_contents_not_on_the_place(texts: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "texts"
    shutil.copytree(texts, copy)
    before = load_corpus(texts)
    assert load_corpus(copy) == before
    (copy / "note3.txt").write_text("changed")
    assert load_corpus(copy).digest != before.digest


def test_binary_and_hidden_files_are_left_out(texts: Path) -> None:
    before = load_corpus(texts)
    (texts / "image.bin").write_bytes(b"\xff\xfe\x00\x80")
    (texts / "zeros.txt").write_bytes(b"text\0")
    (texts / ".git").mkdir()
    (texts / ".git" / "config").write_text("hidden")
    after = load_corpus(texts)
    assert after.skipped == 2
    assert (after.train, after.held_out, after.digest) == (
        before.train,
        before.held_out,
        before.digest,
    )


def test_documentation_reads_nested_definitions_without_warnings() -> None:
    source = (
        'if True:\n    class A:\n        "One."\n        def f(self):\n            "Two \\d."\n'
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert documentation(source) == "One.\n\nTwo \\d."
    assert documentation("def broken(:") == ""


def test_of_a_single_file_the_last_lines_are_held_out(tmp_path: Path) -> None:
    file = tmp_path / "single.txt"
    file.write_text("".join(f"line {i}\n" for i in range(40)))
    corpus = load_corpus(file)
    (train,), (rest,) = corpus.train, corpus.held_out
    assert train.text + rest.text == file.read_text()
    assert rest.text.startswith("line 36\n"), "a tenth, whole lines"


def test_refusals(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="corpus: got no text"):
        load_corpus(empty)
    with pytest.raises(ValueError, match="corpus: got '.*missing', allowed"):
        load_corpus(tmp_path / "missing")
    single = tmp_path / "single.txt"
    single.write_text("only one")
    with pytest.raises(ValueError, match="corpus: got a single file"):
        load_corpus([single])
    with pytest.raises(ValueError, match="held_out_fraction: got 1.0"):
        load_corpus("python-stdlib", held_out_fraction=1.0)
