"""JSON of others, and the manifests of captures made elsewhere: read strictly."""

import json
from pathlib import Path

import pytest

from scaleinv_ray import checkpoints
from scaleinv_ray.inputs.json_files import parse_json, read_json
from tests.plan.test_plan import net


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"not JSON \(empty\)"),
        (b"null", "got null, allowed: a JSON object"),
        (b"[]", "got a list, allowed: a JSON object"),
        (b'"text"', "got a text"),
        (b"true", "got true or false"),
        (b"3", "got a number"),
        (b"{'a': 1}", "not JSON .*double quotes"),
        (b"{", "not JSON"),
        (b"[" * 30_000, "nested too deeply, allowed 100 levels"),
        (b'{"a":' * 30_000, "nested too deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested too deeply"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "a byte order mark"),
        (b'{"a": 1, "a": 2}', "'a' stands twice, with two values"),
        (b'{"a": {"b": "\\ud800"}}', "half a surrogate pair"),
        (b'{"\\udfff": 1}', "half a surrogate pair"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of too many digits"),
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^x: {said}|^x: .*{said}") as refused:
        parse_json(data, "x")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_what_is_meant_is_read() -> None:
    assert parse_json(b'{"a": 1, "a": 1, "b": [{"c": NaN}]}', "x")["a"] == 1
    deep = b'{"a":' * 99 + b"1" + b"}" * 99
    assert list(parse_json(deep, "x")) == ["a"]
    for number in (b"NaN", b"-Infinity", b"1e999"):
        with pytest.raises(ValueError, match=r"a: got .*allowed: finite numbers"):
            parse_json(b'{"a": ' + number + b"}", "x", finite=True)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder: not a file"):
        read_json(tmp_path / "folder")
    with pytest.raises(ValueError, match="none: no such file"):
        read_json(tmp_path / "none")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(100_000_001)  # takes no room on the disk
    with pytest.raises(ValueError, match="large: got 100000001 bytes, allowed 100000000"):
        read_json(tmp_path / "large")


# ------------------------------------------------------------------ captures made elsewhere


def spoilt(tmp_path: Path, change: dict) -> Path:
    """A folder of captures whose manifest has other values."""
    folder = Path(net(tmp_path, 4, 0)["records"])
    manifest = json.loads((folder / "records.json").read_text())
    unit = manifest["units"][0]
    for name, value in change.items():
        where = next(d for d in (manifest, unit, unit["captures"][0]) if name in d)
        where[name] = value
    (folder / "records.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "/etc/hostname"}, "file: got '/etc/hostname', allowed: a path in the folder"),
        ({"file": "../secret.arrow"}, "file: got '../secret.arrow', allowed: a path in the folder"),
        ({"file": "a/../../secret.arrow"}, "allowed: a path in the folder"),
        ({"file": "linked.arrow"}, "linked.arrow: a link to .*secret.arrow', outside the folder"),
        ({"file": "away/secret.arrow"}, "a link to .*, outside the folder"),
        ({"file": "gone.arrow"}, "gone.arrow: a link to 'nowhere', which is not there"),
        ({"file": "."}, "allowed: a path in the folder"),
        ({"file": 3}, "file: got 3, allowed: a text"),
        ({"file": "x\0y"}, "file: got .*allowed: a text"),
        ({"file": "x" * 9999}, "file: got 'x+.*allowed: a text of 1..500"),
        ({"kind": ["cloud"]}, "needs kind"),
        ({"probe": 3}, "probe: got 3"),
        ({"kind": "cloud", "probe": "made"}, "cloud of probe made stands twice"),
        ({"captures": None}, "captures: got None, allowed: a list of objects"),
        ({"captures": []}, r"captures: got \[\], allowed: a list of objects"),
        ({"captures": ["x"]}, "allowed: a list of objects"),
        ({"variant": []}, r"variant: got \[\], allowed trained"),
        ({"seed": None}, "seed: got null"),
        ({"seed": "0"}, "seed: got '0'"),
        ({"step": -1}, "step: got -1"),
        ({"eval_loss": float("inf")}, "eval_loss: got inf|got inf, allowed: finite"),
        ({"train_tokens": {}}, "train_tokens: got {}"),
        ({"units": {}}, "units: got {}, allowed: a list of objects"),
        ({"units": []}, r"units: got \[\], allowed: a list of objects"),
        ({"units": [None]}, "units: got .None., allowed: a list of objects"),
        ({"model": 3}, "model: got 3, allowed: a text"),
        ({"model": "m" * 4000}, "model: got 'm+.*allowed: a text of 1..500"),
        ({"n_params": "many"}, "n_params: got 'many', allowed: a whole number from 1"),
        ({"n_params": 0}, "n_params: got 0"),
        ({"d_model": None}, "d_model: got null"),
        ({"n_layers": 2**70}, "n_layers: got 1180591620717411303424"),
    ],
)
def test_a_manifest_of_other_values_is_refused(change: dict, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret.arrow").write_text("secret")
    folder = spoilt(tmp_path, change)
    (folder / "linked.arrow").symlink_to("../secret.arrow")
    (folder / "away").symlink_to("..")
    (folder / "gone.arrow").symlink_to("nowhere")
    with pytest.raises(ValueError, match=said) as refused:
        checkpoints.from_records(folder, cache_dir=tmp_path / "cache")
    text = str(refused.value).replace(str(folder), "")
    assert "\n" not in text and len(text) < 300


@pytest.mark.parametrize("text", ["null", "[]", '"x"', "[" * 30_000, "{", "", "\ufeff{}"])
def test_a_manifest_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    folder = Path(net(tmp_path, 4, 0)["records"])
    (folder / "records.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"records\.json: (not JSON|got|nested)"):
        checkpoints.from_records(folder)


def test_captures_may_lie_below_their_manifest(tmp_path: Path) -> None:
    folder = Path(net(tmp_path, 4, 0)["records"])
    (folder / "below").mkdir()
    manifest = json.loads((folder / "records.json").read_text())
    for capture in manifest["units"][0]["captures"]:
        (folder / capture["file"]).rename(folder / "below" / capture["file"])
        (folder / capture["file"]).symlink_to(f"below/{capture['file']}")  # a link that stays
    first = manifest["units"][0]["captures"][0]
    first["file"] = f"below/{first['file']}"
    (folder / "records.json").write_text(json.dumps(manifest))
    found = checkpoints.from_records(folder, cache_dir=tmp_path / "cache")
    assert found[0].captures[0][2] == folder / first["file"]
