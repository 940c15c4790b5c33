"""From a config to units and measurements, on folders of records: nothing is captured here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scaleinv_ray.invariants
from scaleinv_ray.checkpoints import Checkpoint, resolve, write_records_manifest
from scaleinv_ray.config import load_run_config
from scaleinv_ray.contract import REGISTRY, Measured, Refused
from scaleinv_ray.plan import Unit, grouping, make_plan, pairs_of, plan_rows, rng_seed
from scaleinv_ray.plan.fitting import too_little
from scaleinv_ray.records import Activations, Moments, Protocol, Variant, WeightMatrix
from scaleinv_ray.store import write_records

assert scaleinv_ray.invariants
ROWS = 40


def net(root: Path, width: int, seed: int, *, steps: tuple[int, ...] = (0, 5)) -> dict[str, str]:
    """A folder of records: weights and a cloud at every step."""
    folder = root / f"d{width}-s{seed}"
    rng = np.random.default_rng([width, seed])
    units = []
    for step in steps:
        weights, cloud = f"w{step}.arrow", f"c{step}.arrow"
        matrix = WeightMatrix(w_OI=rng.normal(size=(width, width)), layer=0, num_layers=1)
        write_records(folder / weights, [matrix], kind="weights", facts={})
        index = np.arange(ROWS)
        rows = Activations(
            x_TD=rng.normal(size=(ROWS, width)), sequence_T=index, position_T=index,
            sampling="cloud", site="resid_post", layer=0, num_layers=1,
        )  # fmt: skip
        write_records(folder / cloud, [rows], kind="cloud", facts={})
        captures = [
            {"kind": "weights", "probe": None, "file": weights},
            {"kind": "cloud", "probe": "made", "file": cloud},
        ]
        units.append({
            "seed": seed, "step": step, "variant": "trained", "train_tokens": None,
            "eval_loss": None, "captures": captures,
        })  # fmt: skip
    write_records_manifest(
        folder, units=units, model=f"d{width}", architecture="linear", n_params=width**2,
        n_layers=1, d_model=width,
    )  # fmt: skip
    return {"records": str(folder)}


def _config(models: list[dict[str, str]], *names: str) -> dict[str, Any]:
    return {"name": "made", "models": models, "invariants": list(names), "out": "nowhere"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    root = tmp_path_factory.mktemp("nets")
    return [net(root, width, seed) for width in (4, 6, 8) for seed in (0, 1)]


def test_records_are_read_where_they_are(models: list[dict[str, str]]) -> None:
    names = ("weights.weight_tail", "topology.persistence")
    config = _config(models, *names) | {"protocol": {"sequences": 400}}
    plan = make_plan(load_run_config(config))
    assert {u.variant for u in plan.units} == {"trained"}, "no null is made of foreign records"
    assert len(plan.units) == 12
    assert {(m.invariant, m.probe) for m in plan.measurements} == {
        (names[0], None),
        (names[1], "made"),
    }
    assert len(plan.measurements) == 24
    assert sum(row["bytes"] for row in plan_rows(plan, set())) == 0


def test_the_seed_of_a_draw_knows_no_model(models: list[dict[str, str]]) -> None:
    config = _config(models, "topology.persistence") | {"protocol": {"sequences": 400}}
    plan = make_plan(load_run_config(config))
    assert len({rng_seed(plan.protocol, m) for m in plan.measurements}) == 1


def test_what_cannot_be_read_is_refused(models: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"critical_exponents: got no capture of kind 'stream'"):
        make_plan(load_run_config(_config(models, "renormalization.critical_exponents")))


def _unit(n_params: int, seed: int, tokenizer: str = "bytes", variant: Variant = "trained") -> Unit:
    checkpoint = Checkpoint(
        model=f"n{n_params}-s{seed}-{tokenizer}", seed=seed, step=5, architecture="gpt2",
        n_params=n_params, n_layers=1, d_model=4, d_mlp=16, vocab_size=9, max_positions=None,
        dtype="float32", weights_digest=f"{n_params} {seed}", config_digest="",
        tokenizer_digest=tokenizer,
    )  # fmt: skip
    return Unit("made", checkpoint, variant)


def test_pairs_share_seed_or_size_and_tokens() -> None:
    variants: tuple[Variant, ...] = ("trained", "random_init", "shuffled_tokens")
    units = [
        _unit(n, seed, tokenizer, variant)
        for variant in variants
        for tokenizer in ("bytes", "words")
        for seed in (1, 0)
        for n in (30, 10, 20)
    ]
    found = [
        tuple((u.checkpoint.n_params, u.checkpoint.seed) for u in pair)
        for pair in pairs_of(units)
        if {(u.variant, u.checkpoint.tokenizer_digest) for u in pair} == {("trained", "bytes")}
    ]
    of_size = [((n, 0), (n, 1)) for n in (10, 20, 30)]
    of_seed = [((a, s), (b, s)) for s in (0, 1) for a, b in ((10, 20), (10, 30), (20, 30))]
    assert len(found) == len(set(found)) and set(found) == {*of_size, *of_seed}
    assert found == sorted(found), "the smaller model first, in order"
    assert len(pairs_of(units)) == 4 * len(found), "two variants have pairs, and two tokenizers"


def test_too_many_pairs_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match=r"models: got 250,278 pairs of equal seed or equal size"):
        pairs_of([_unit(10, seed) for seed in range(708)])


def test_no_pairs_are_made_where_nothing_reads_them(
    models: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "MOST_PAIRS", 0)
    protocol = {"protocol": {"sequences": 1000}}
    alone = make_plan(load_run_config(_config(models, "weights.weight_tail") | protocol))
    assert len(alone.measurements) == 12
    with pytest.raises(ValueError, match=r"models: got 9 pairs of equal seed or equal size, allow"):
        make_plan(load_run_config(_config(models, "geometry.neighbour_overlap") | protocol))


def test_changed_files_are_other_units(tmp_path: Path) -> None:
    source = net(tmp_path, 4, 0)
    before = {c.step: c.weights_digest for c in resolve([source], cache_dir=tmp_path)}
    rng = np.random.default_rng(5)
    matrix = WeightMatrix(w_OI=rng.normal(size=(4, 4)), layer=0, num_layers=1)
    write_records(tmp_path / "d4-s0" / "w5.arrow", [matrix], kind="weights", facts={})
    after = {c.step: c.weights_digest for c in resolve([source], cache_dir=tmp_path)}
    assert after[0] == before[0] and after[5] != before[5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": None}, "needs"),
        ({"units": [{"seed": 0}]}, r"units\[0\]: got"),
        ({"file": "absent.arrow"}, "no such file"),
        ({"kind": "dreams"}, "needs kind"),
        ({"variant": "dreamt"}, "variant: got 'dreamt'"),
    ],
)
def test_bad_manifests(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    net(tmp_path, 4, 0)
    path = tmp_path / "d4-s0" / "records.json"
    manifest = json.loads(path.read_text())
    ((name, value),) = change.items()
    if name == "model":
        del manifest["model"]
    elif name == "units":
        manifest["units"] = value
    elif name == "variant":
        manifest["units"][0]["variant"] = value
    else:
        manifest["units"][0]["captures"][0][name] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=text):
        resolve([{"records": str(path.parent)}])


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder without records\.json"):
        resolve([{"records": str(tmp_path)}])


def test_a_protocol_too_small_for_an_invariant_is_said_before_it_is_measured() -> None:
    specs = [REGISTRY["representation.participation"], REGISTRY["behaviour.capabilities"]]
    assert too_little(specs, Protocol()) == []
    (said,) = too_little(specs, Protocol(tokens_per_dim=49))
    assert said == (
        "protocol.tokens_per_dim: got 49, representation.participation needs 50: it will have no "
        "values"
    )


@pytest.mark.parametrize("name", [n for n, spec in REGISTRY.items() if spec.least])
def test_the_least_that_is_said_is_where_values_begin(name: str) -> None:
    spec, dim = REGISTRY[name], 16
    blocks, tokens = spec.least["blocks"], spec.least["tokens_per_dim"]

    def measured(num_blocks: int, per_dim: int) -> Measured:
        count = -(-per_dim * dim // num_blocks)
        x_BTD = np.random.default_rng(0).standard_normal((num_blocks, count, dim))
        second_BDD = np.einsum("bti,btj->bij", x_BTD, x_BTD) / count
        made = Moments(
            count_B=np.full(num_blocks, count), mean_BD=x_BTD.mean(axis=1), second_BDD=second_BDD
        )
        return spec.function(made, rng=np.random.default_rng(0))

    assert not any(isinstance(v, Refused) for v in measured(blocks, tokens).values.values())
    with pytest.raises(Refused, match="needs 50"):
        measured(blocks, tokens - 1)
    with pytest.raises(Refused, match=f"needs {blocks}"):
        measured(blocks - 1, tokens)
