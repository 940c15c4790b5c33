"""Tokenizers of models: settings of training, files of every shape, several in one series."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from scaleinv_ray import probes
from scaleinv_ray.invariants.behaviour import capabilities
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan.tokenizer import (
    bytes_per_token,
    encode,
    names_of,
    read_tokenizer,
    token_bytes,
)
from scaleinv_ray.probes import ProbeRequest, load_corpus
from scaleinv_ray.records import TokenLosses

TEXT = "the quick brown fox jumps over the lazy dog: naïve café, 漢字 and ☃ e\u0301\n"
CUT = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PAD = {
    "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 256,
    "pad_type_id": 0, "pad_token": "<|endoftext|>",
}  # fmt: skip


def byte_level(*, merges: int = 40, prefix: bool = False) -> Tokenizer:
    """Byte pairs as GPT-2 has them."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    return made


def sentence_pieces() -> Tokenizer:
    """Byte pairs with a mark for spaces and single bytes to fall back to, as Llama has them."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"),
    ])  # fmt: skip
    single = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<unk>", *single], show_progress=False
    )
    made.train_from_iterator(["the quick brown fox"] * 3, trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = []  # they are of the vocabulary, not texts of their own
    return Tokenizer.from_str(json.dumps(content))


def words() -> Tokenizer:
    """Whole words, others unknown, spaces dropped."""
    made = Tokenizer(models.WordLevel({"the": 0, "fox": 1, "[UNK]": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


TOKENIZERS = {
    "bytes": byte_tokenizer().backend_tokenizer,
    "byte pairs": byte_level(),
    "with a space before": byte_level(prefix=True),
    "sentence pieces": sentence_pieces(),
}


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "tokenizer.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read(file: Path) -> Tokenizer:
    return read_tokenizer(file, hashlib.sha256(file.read_bytes()).hexdigest())


def test_a_tokenizer_exchanged_after_its_digest_was_taken_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, byte_level().to_str())
    planned = hashlib.sha256(file.read_bytes()).hexdigest()
    written(tmp_path, words().to_str())
    with pytest.raises(ValueError, match=r"tokenizer\.json: changed since it was planned"):
        read_tokenizer(file, planned)


@pytest.mark.parametrize(
    "settings",
    [{"truncation": CUT}, {"padding": PAD}, {"truncation": CUT, "padding": PAD}, "dropout"],
    ids=["truncation", "padding", "both", "dropout of merges"],
)
def test_settings_of_training_do_not_change_the_tokens(tmp_path: Path, settings: Any) -> None:
    content = json.loads(byte_level().to_str())
    clean = read(written(tmp_path, json.dumps(content)))
    if settings == "dropout":
        content["model"]["dropout"] = 0.5
    else:
        content |= settings
    file = written(tmp_path, json.dumps(content))
    changed = read(file)
    text = TEXT * 20
    assert encode(changed, file, text) == encode(clean, file, text)
    assert len(encode(changed, file, text)) > 64


def test_a_tokenizer_keeps_what_is_its_own(tmp_path: Path) -> None:
    made = byte_level()
    made.normalizer = normalizers.Lowercase()
    file = written(tmp_path, made.to_str())
    assert encode(read(file), file, "THE Fox") == made.encode("the fox").ids


BASE = byte_tokenizer().backend_tokenizer.to_str()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "EOF"), ("[]", "sequence"), ("null", "null"), ('"x"', "string"), ("[" * 30_000, "got"),
        (b"\x80\x00\xff", "not UTF-8 at byte 0"), (b"\xef\xbb\xbf" + BASE.encode(), "expected"),
        ('{"version": "1.0", "model": {"type": "Newer", "vocab": {}}}', "a newer library"),
        (BASE.replace('"1.0"', '"9.0"'), "9.0"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ],
    ids=["empty", "list", "null", "text", "deep", "binary", "mark", "newer", "version", "pointer"],
)  # fmt: skip
def test_what_is_no_tokenizer_is_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(ValueError, match="tokenizer.json: ") as refused:
        read(file)
    told = str(refused.value)
    assert told.startswith(str(file)) and said in told
    assert "\n" not in told and len(told.removeprefix(str(file))) < 250


def test_a_text_that_no_token_spells_names_the_file(tmp_path: Path) -> None:
    no_unknown = Tokenizer(models.WordLevel({"the": 0}, unk_token="[UNK]"))
    file = written(tmp_path, no_unknown.to_str())
    with pytest.raises(ValueError, match=r"tokenizer\.json: cannot encode 'fox'"):
        encode(read(file), file, "fox")


def test_files_of_one_tokenizer_have_one_name(tmp_path: Path) -> None:
    content = json.loads(byte_level().to_str())
    variants = {
        "as it is": json.dumps(content),
        "indented": json.dumps(content, indent=2),
        "cut": json.dumps(content | {"truncation": CUT, "padding": PAD}),
        "other": byte_level(merges=20).to_str(),
        "broken": "{",
    }
    digests = {n: hashlib.sha256(text.encode()).hexdigest() for n, text in variants.items()}
    files = {}
    for name, text in variants.items():
        (tmp_path / name).mkdir()
        files[digests[name]] = written(tmp_path / name, text)
    found = names_of(files)
    names = {name: found[digest] for name, digest in digests.items()}
    assert names["as it is"] == names["indented"] == names["cut"]
    assert len({names["as it is"], names["other"], names["broken"]}) == 3


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_bytes_of_tokens_are_those_of_the_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    for text in (TEXT, "  two  spaces ", "漢字漢字", "é", "a\n\n", "☃"):
        found = tokenizer.encode(text, add_special_tokens=False)
        sizes = token_bytes(text, found.tokens, found.offsets)
        assert sum(sizes) == len(text.encode())
        assert min(sizes) >= 0
        if name in {"bytes", "byte pairs"}:
            # its vocabulary spells every byte with a symbol; what is not composed stays as it is
            assert sizes == [len(token) for token in found.tokens]


def test_a_character_of_several_tokens_is_divided_as_it_is_spelled() -> None:
    fallback = ["▁", "<0xE2>", "<0x98>", "<0x83>"]
    assert token_bytes(" ☃", fallback, [(0, 1), (1, 2), (1, 2), (1, 2)]) == [1, 1, 1, 1]
    # a space that the text does not have costs no byte
    assert token_bytes("the ", ["▁", "the▁"], [(0, 1), (0, 4)]) == [0, 4]
    # what no token names is the next one's
    assert token_bytes("the  fox", ["the", "fox"], [(0, 3), (5, 8)]) == [3, 5]


def made_of(tokenizer: Tokenizer, probe: str, tmp_path: Path) -> Any:
    """Bytes of a token of a probe, its tokens, and the tokenizer's file."""
    folder = tmp_path / "texts"
    folder.mkdir(exist_ok=True)
    for i in range(4):
        (folder / f"{i}.txt").write_text(f"{i} " + TEXT * 40)
        (folder / f"{i}.py").write_text(f"{i} " + TEXT * 40)
    file = written(tmp_path, tokenizer.to_str())
    made = read(file)

    def request() -> ProbeRequest:
        return ProbeRequest(
            encode=partial(encode, made, file), sequences=12, length=24,
            vocab_size=made.get_vocab_size(), corpus=load_corpus([folder]),
            rng=np.random.default_rng(1),
        )  # fmt: skip

    tokens_ST = probes.build_tokens(probe, **vars(request()))
    found = bytes_per_token(made, file, probes.find(probe), request(), tokens_ST)
    return found, tokens_ST, made


@pytest.mark.parametrize("probe", ["prose", "code", "arithmetic", "shuffled"])
def test_equal_nats_a_byte_are_equal_whatever_the_tokens(tmp_path: Path, probe: str) -> None:
    # a model that pays half a nat for every byte, whatever its tokens are
    for name in ("bytes", "byte pairs"):
        size, tokens_ST, tokenizer = made_of(TOKENIZERS[name], probe, tmp_path)
        bytes_V = np.array([len(tokenizer.id_to_token(i) or "") for i in range(300)])
        loss_ST = 0.5 * bytes_V[tokens_ST[:, 1:]]
        found = capabilities(TokenLosses(loss_ST=loss_ST), rng=np.random.default_rng(0))
        loss = found.values["loss"]
        assert loss.value / size.mean == pytest.approx(0.5, rel=1e-12)
        assert loss.stderr == pytest.approx(0.5 * size.stderr, abs=1e-12)
        spelled = name == "bytes" or probe == "arithmetic"  # no merge of figures was learned
        assert (size.mean == 1.0) == spelled


@pytest.mark.parametrize("probe", ["induction", "rare"])
def test_tokens_out_of_the_vocabulary_have_no_bytes(tmp_path: Path, probe: str) -> None:
    assert made_of(TOKENIZERS["byte pairs"], probe, tmp_path)[0] is None


def test_unknown_words_have_no_bytes(tmp_path: Path) -> None:
    assert made_of(words(), "prose", tmp_path)[0] is None


def test_bytes_of_pieces_do_not_count_the_space_put_before(tmp_path: Path) -> None:
    size, tokens_ST, tokenizer = made_of(TOKENIZERS["sentence pieces"], "names", tmp_path)
    # within a sequence tokens spell the text, with a mark for a space and bytes of what is unknown
    spelled = [tokenizer.id_to_token(i) for i in tokens_ST[:, 1:].ravel()]
    sizes = [1 if p.startswith("<0x") else len(p.replace("▁", " ").encode()) for p in spelled]
    assert size.mean == pytest.approx(np.mean(sizes), rel=1e-12)
