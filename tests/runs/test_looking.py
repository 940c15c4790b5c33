"""A run and its parts as a notebook shows them: tables, a figure, short reprs."""

from __future__ import annotations

from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import scaleinv_ray as si
from scaleinv_ray.conclude.conservation import judge
from scaleinv_ray.estimate import exact, mean_of, unknown
from scaleinv_ray.invariants.weights import weight_tail
from scaleinv_ray.plan import Plan
from scaleinv_ray.records import Protocol, WeightMatrix
from scaleinv_ray.runs.analysis import Run
from scaleinv_ray.store import Store
from tests.report.synthetic_tables import SEEDS, SIZES, STEPS, synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of the tables of a run that never happened."""
    store = Store(str(tmp_path_factory.mktemp("run")))
    made: dict[str, pa.Table] = synthetic()
    store.write_table("values.parquet", made["values"])
    plan = Plan("known", Protocol(), (), (), MappingProxyType({}), ())
    return Run(store, plan, computed=0, failed=0, verdicts=made["verdicts"])


def test_values_are_one_row_a_model_and_step(run: Run) -> None:
    found = run.values("alpha")
    trained = found[(found["variant"] == "trained") & (found["site"] == "all")]
    assert len(trained) == len(SIZES) * len(SEEDS) * len(STEPS)
    assert not trained.duplicated(["site", "model", "seed", "step"]).any()
    assert sorted(set(found["n_params"])) == sorted(SIZES.values())
    assert found["n_params"].is_monotonic_increasing and found["value"].notna().all()
    assert set(run.values("alpha", depth="late")["depth_bin"]) == {"late"}
    assert set(run.values("alpha", comparison="equal_loss")["quantity"]) == {"alpha"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantity": "alpha_tlde"}, r"got 'alpha_tlde' \(did you mean 'alpha_tilde'\?\), allowed"),
        ({"depth": "deep"}, r"depth: got 'deep', allowed: all, early, late, middle"),
        ({"comparison": "steps"}, r"comparison: got 'steps', allowed: equal_loss, equal_steps"),
    ],
)
def test_what_a_run_has_not_is_named(run: Run, given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run.values(**({"quantity": "alpha_tilde"} | given))


def test_the_summary_has_a_row_a_quantity(run: Run) -> None:
    found = run.summary()
    assert not found.duplicated(["quantity", "site", "probe"]).any()
    assert found.set_index("quantity").loc["alpha_tilde", "verdict"] == "conserved drifting"
    assert found.set_index("quantity").loc["alpha", "beside_nulls"] == "learned"


def test_the_figure_is_the_means_over_seeds_at_the_last_step(run: Run) -> None:
    figure = run.plot("alpha")
    found = run.values("alpha").query("site == 'all'")
    lines = {line.name: line for line in figure.data}
    assert {"trained", "random init"} <= set(lines)
    last = found[(found["variant"] == "trained") & (found["step"] == STEPS[-1])]
    by_size = last.groupby("n_params")["value"]
    np.testing.assert_allclose(lines["trained"].y, by_size.mean().astype(float))
    np.testing.assert_allclose(lines["trained"].error_y.array, by_size.sem().astype(float))
    assert figure.layout.xaxis.type == "log" and figure.layout.title.text == "alpha at step 300"
    assert figure.layout.yaxis.title.text.startswith("Power-law exponent")


def test_a_run_is_a_line_and_a_small_table(run: Run) -> None:
    assert repr(run).startswith("<Run known at ") and len(repr(run)) < 300
    assert "conserved" in repr(run)
    page = run._repr_html_()
    assert run.findings[0][:30] in page and "<table>" in page and len(page) < 5000


def test_records_measurements_and_verdicts_are_short() -> None:
    matrix = WeightMatrix(w_OI=np.eye(64), layer=0, role="query")
    assert repr(matrix) == "<WeightMatrix w_OI float64 [64, 64], layer 0, role query>"
    rng = np.random.default_rng(0)
    measured = weight_tail(WeightMatrix(w_OI=rng.normal(size=(64, 64))), rng=rng)
    assert repr(measured).startswith("<Measured alpha ") and "stable_rank " in repr(measured)
    verdict = judge([10, 100, 1000], [[1.0, 1.01, 0.99]] * 3)
    assert repr(verdict) == f"<Verdict {verdict.verdict.words}: {verdict.reason}>"
    shown: list[Any] = [matrix, measured, verdict]
    for of in shown:
        assert len(repr(of)) < 1200
        assert of._repr_html_().startswith("<b>") and of._repr_html_().count("<tr>") > 1
    assert "float64 [64, 64]" in matrix._repr_html_()


def test_an_estimate_reads_with_its_error() -> None:
    assert str(exact(2.0)) == "2"
    assert str(unknown(0.123456, n=3)) == "0.1235"
    assert str(mean_of([1.0, 2.0, 3.0], "probes")) == "2 ± 0.58"


def test_the_package_says_what_it_has() -> None:
    assert {"run", "inspect", "__version__"} <= set(dir(si))
    assert si.__version__ == version("scaleinv-ray")
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        si.runn  # noqa: B018 - the access is what is tested
