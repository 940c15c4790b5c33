"""Curvature and chains in a run: captured where the config asks for them, judged, shown."""

from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.config import load_run_config
from scaleinv_ray.plan import make_plan
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.runs.analysis import run
from tests.cluster.conftest import run_config

pytestmark = pytest.mark.ray
CURVATURE = {"sequences": 8, "batch": 4, "num_steps": 4, "num_probes": 2, "sketch": 64}
SAMPLING = {
    "sequences": 16, "batch": 8, "chains": 2, "draws": 12, "burn_in": 4, "nbetas": [30.0],
    "localisers": [1.0],
    "observed": ["induction"],
}  # fmt: skip
ASKED = ["curvature.hessian_density", "curvature.ggn_density", "degeneracy.learning_coefficient"]


def spectroscopy_config(text: Path, models: Path, out: Path) -> dict[str, Any]:
    config = run_config(text, models, out)
    return config | {
        "models": [{"path": str(models / "d16-s0"), "steps": [3, 6]}],
        "null_steps": "last",
        "variants": ["trained", "random_init"],
        "probes": ["prose", "induction"],
        "curvature": CURVATURE | {"blocks": ["model", "layer"]},
        "sampling": SAMPLING,
        "invariants": ASKED,
    }


def test_a_run_captures_what_its_sections_ask_for(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = spectroscopy_config(text_folder, ladder, tmp_path / "out")
    result = run(config)
    rows = tables.decode(result.measurements)
    assert [r["error"] for r in rows if r["status"] == "failed"] == []
    at = {
        (r["invariant"], r["variant"], r["step"], r["probe"], r["site"], r["layer"]) for r in rows
    }
    for name in ASKED[:2]:
        for variant, step in (("trained", 3), ("trained", 6), ("random_init", 6)):
            for probe in ("prose", "induction"):
                for site, layer in (("model", None), ("layer", 0), ("layer", 1)):
                    assert (name, variant, step, probe, site, layer) in at
    depths = {r["depth"] for r in rows if r["site"] == "layer"}
    assert depths == {0.5, 1.0}
    chains = [r for r in rows if r["invariant"] == ASKED[2]]
    assert {(r["step"], r["probe"]) for r in chains} >= {(3, "prose"), (6, "induction")}
    assert run(config).computed == 0


def test_each_actor_gets_chains_or_curvature_of_one_probe(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = load_run_config(spectroscopy_config(text_folder, ladder, tmp_path / "out"))
    plan = make_plan(config)
    work = jobs_for(plan, plan.measurements, config, scratch=tmp_path, run_id="r")
    given = [
        (job.weights.checkpoint.step, job.weights.variant, of.probe, kind)
        for job in work.captures
        for of in job.wanted
        for kind in of.paths
    ]
    assert len(given) == len(work.captures) == len(set(given))
    kinds = {"hessian", "ggn", "chains"}
    assert {g[2:] for g in given} == {(p, k) for p in ("prose", "induction") for k in kinds}


def test_without_its_section_a_named_invariant_is_refused_and_all_leaves_it_out(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = spectroscopy_config(text_folder, ladder, tmp_path / "out")
    del config["sampling"]
    with pytest.raises(ValueError, match="a section 'sampling' in the config"):
        make_plan(load_run_config(config))
    short = config["protocol"] | {"sequences": 5000, "length": 8, "position": 6}
    # the text of the tests is too short for the points that some invariants want
    every = config | {"invariants": "all", "protocol": short, "corpus": "python-stdlib"}
    plan = make_plan(load_run_config(every))
    kinds = {m.kind for m in plan.measurements}
    assert "chains" not in kinds and {"hessian", "ggn"} <= kinds


def test_other_settings_give_other_captures_and_leave_the_rest_alone(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    def keys(**changes: Any) -> dict[str, set[str]]:
        config = spectroscopy_config(text_folder, ladder, tmp_path / "out") | changes
        found: dict[str, set[str]] = {}
        for m in make_plan(load_run_config(config)).measurements:
            found.setdefault(m.kind, set()).add(m.capture_key)
        return found

    first = keys()
    more_steps = keys(curvature=CURVATURE | {"num_steps": 9, "blocks": ["model", "layer"]})
    assert not first["hessian"] & more_steps["hessian"] and not first["ggn"] & more_steps["ggn"]
    assert first["chains"] == more_steps["chains"]
    unobserved = keys(sampling=SAMPLING | {"observed": []})
    assert not first["chains"] & unobserved["chains"]
    assert first["hessian"] == unobserved["hessian"]


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("curvature", {"sequences": 97}, "curvature.sequences: got 97"),
        ("curvature", {"blocks": ["heart"]}, "heart"),
        ("curvature", {"sequences": 9, "batch": 4}, "divisors of 9"),
        ("sampling", {"batch": 1}, "sampling.batch: got 1"),
        ("sampling", {"sampler": "metropolis"}, "metropolis"),
        ("sampling", {"draws": 10, "burn_in": 10}, "burn_in: got 10"),
        ("sampling", {"sequences": 32, "observed": ["rain"]}, "rain"),
    ],
)
def test_settings_that_cannot_be_are_errors_before_anything_starts(
    section: str, value: dict[str, Any], says: str, text_folder: Path, tmp_path: Path
) -> None:
    config = run_config(text_folder, tmp_path / "models", tmp_path / "out")
    with pytest.raises(ValueError, match=says):
        load_run_config(config | {section: value})
