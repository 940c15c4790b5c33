"""The page without a browser: what is in it, what is not, and how it is written."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from plotly.offline import get_plotlyjs

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.report import page
from scaleinv_ray.report.figures.curves import NUM_POINTS, common_grid, mean_curves
from scaleinv_ray.report.figures.over_scale import over_seeds
from scaleinv_ray.report.summary import judged, paired, paragraph
from tests.report.pages import FIGURES, unpacked, write_report
from tests.report.synthetic_tables import SIZES, measurement, synthetic, values_of, verdict

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\u2028"


def rendered(run: dict[str, pa.Table], *, title: str, facts: dict[str, str]) -> str:
    return page.render(run, title=title, facts=facts, figures=FIGURES).decode("utf-8")


class Elements(HTMLParser):
    """Tags with their attributes, and the texts of the scripts that hold data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.packed: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(text)

    @property
    def data(self) -> str:
        return self.packed["data"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.packed[self._inside] = self.packed.get(self._inside, "") + data


@pytest.fixture(scope="module")
def run() -> dict[str, pa.Table]:
    return synthetic()


@pytest.fixture(scope="module")
def text(run: dict[str, pa.Table]) -> str:
    return rendered(run, title="A run", facts={"Series": "ladder"})


def measurements(*rows: dict[str, Any]) -> pa.Table:
    return tables.encode(rows, tables.MEASUREMENTS)


def test_nothing_is_loaded_from_elsewhere(text: str) -> None:
    for tag, attributes in Elements(text).tags:
        for name in ("src", "href", "srcset", "action"):
            target = attributes.get(name) or ""
            assert target.startswith(("#", "data:")) or not target, (tag, target)
    style = page.resource("board/page.css")
    assert "url(" not in style and "@import" not in style
    plotly = gzip.decompress(base64.b64decode(Elements(text).packed["plotly"]))
    assert plotly.decode("utf-8") == get_plotlyjs()
    assert "plotly.js v" not in text


def test_strings_of_the_run_stay_strings(tmp_path: Path) -> None:
    rows = [
        measurement(quantity=HOSTILE, family=HOSTILE),
        measurement(status="failed", value=None, error=HOSTILE),
    ]
    table = measurements(*rows)
    run = {
        "measurements": table,
        "values": values_of(table),
        "verdicts": tables.encode([verdict(reason=HOSTILE)], SCHEMAS["verdicts"]),
    }
    out = write_report(run, title=HOSTILE, facts={HOSTILE: HOSTILE}, out=tmp_path / "report.html")
    elements = Elements(out.read_text(encoding="utf-8"))
    plain = Elements(rendered({}, title="t", facts={"a": "b"}))
    assert [t for t, _ in elements.tags].count("script") == [t for t, _ in plain.tags].count(
        "script"
    )
    assert not [t for t, _ in elements.tags if t == "img"]
    data = json.loads(elements.data)
    assert data["families"] == [HOSTILE]
    assert data["verdicts"]["columns"]["reason"] == [HOSTILE]
    assert unpacked(elements.packed["points"])["slices"][0]["family"] == HOSTILE
    assert HOSTILE in unpacked(elements.packed["rows"])["rows"]["columns"]["error"]


def test_a_title_that_reads_like_a_mark_stays_a_title() -> None:
    assert "<h1>%%DATA%%</h1>" in rendered({}, title="%%DATA%%", facts={})


def test_an_empty_run_says_so() -> None:
    text = rendered({}, title="Empty", facts={})
    assert "No verdicts have been reached yet." in text
    assert "This run has no measurements yet." in text
    assert json.loads(Elements(text).data)["families"] == []
    assert unpacked(Elements(text).packed["points"])["slices"] == []


def test_tables_of_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tables: got \['verdict'\], allowed"):
        rendered({"verdict": SCHEMAS["verdicts"].empty_table()}, title="t", facts={})


def test_rows_without_a_value_are_counted_and_in_no_mean() -> None:
    lost = {"value": None, "stderr": None}
    run = measurements(
        measurement(value=2.0),
        measurement(seed=1, value=4.0),
        measurement(seed=2, status="refused", error="too few", **lost),
        measurement(seed=3, status="refused", error="too few", **lost),
        measurement(seed=4, status="failed", error="broke", **lost),
    )
    text = rendered({"measurements": run}, title="t", facts={})
    assert '<strong id="num-refused">2</strong>' in text
    assert '<strong id="num-failed">1</strong>' in text
    assert re.search(r"<td>too few</td><td class=\"number\">2</td>", text)
    points = over_seeds(values_of(run))[0]["points"]["trained"]
    assert points[0][:5] == [SIZES[32], 300, 3.0, pytest.approx(np.sqrt(2), rel=1e-5), 2]


def test_a_run_in_which_everything_failed_is_drawn() -> None:
    run = measurements(measurement(value=None, stderr=None, status="failed", error="broke"))
    elements = Elements(rendered({"measurements": run}, title="t", facts={}))
    assert json.loads(elements.data)["families"] == []


def test_seeds_are_the_replicates_not_layers() -> None:
    rows = [
        measurement(seed=seed, layer=layer, depth=(layer + 1) / 3, value=10.0 * seed + layer)
        for seed in (0, 1)
        for layer in (0, 1, 2)
    ]
    slices = {
        s["bin"]: s["points"]["trained"][0] for s in over_seeds(values_of(measurements(*rows)))
    }
    mean, sd, seeds = slices["all"][2:5]
    assert (mean, seeds) == (6.0, 2)
    assert sd == pytest.approx(10 / np.sqrt(2), rel=1e-5)
    assert [slices[b][2] for b in ("early", "middle", "late")] == [5.0, 6.0, 7.0]


REFUSED = {"value": None, "stderr": None, "status": "refused", "error": "too few"}


def layers(seed: int, *values: float | None) -> list[dict[str, Any]]:
    """Rows of one seed, a layer a value; none is a refusal."""
    return [
        measurement(
            seed=seed,
            model=f"d32-s{seed}",
            layer=i,
            depth=None,
            **(REFUSED if value is None else {"value": value}),
        )
        for i, value in enumerate(values)
    ]


def test_a_seed_that_lacks_a_layer_is_no_mean_over_other_layers() -> None:
    rows = layers(0, 1.0, 3.0) + layers(1, 2.0, 4.0) + layers(2, None, 100.0)
    rows += layers(3, None, None)
    (found,) = over_seeds(values_of(measurements(*rows)))
    assert found["points"]["trained"][0][2:5] == [2.5, pytest.approx(np.sqrt(0.5), rel=1e-5), 2]
    assert found["left_out"] == [["trained", SIZES[32], 300, "too few", 2]]


def test_a_layer_that_all_seeds_lack_leaves_none_out() -> None:
    rows = layers(0, None, 3.0) + layers(1, None, 4.0)
    (found,) = over_seeds(values_of(measurements(*rows)))
    assert found["points"]["trained"][0][2] == 3.5
    assert found["left_out"] == []


def test_seeds_that_lack_different_layers_have_no_point() -> None:
    whole = {"step": 10}
    rows = layers(0, None, 3.0) + layers(1, 4.0, None)
    rows += [{**row, **whole} for row in layers(0, 1.0, 1.0)]
    (found,) = over_seeds(values_of(measurements(*rows)))
    assert [point[1] for point in found["points"]["trained"]] == [10]
    assert found["left_out"] == [["trained", SIZES[32], 300, "too few", 2]]


def test_geometric_means_are_given_where_values_have_one_sign() -> None:
    def last(*values: float) -> list[Any]:
        rows = [row for seed, value in enumerate(values) for row in layers(seed, value)]
        return over_seeds(values_of(measurements(*rows)))[0]["points"]["trained"][0][5:7]

    assert last(1.0, 4.0) == [2.0, pytest.approx(np.log(4) / np.sqrt(2), rel=1e-5)]
    assert last(-1.0, -4.0)[0] == -2.0
    assert last(-1.0, 4.0) == [None, None]
    assert last(0.0, 4.0) == [None, None]
    assert last(3.0) == [3.0, None]


def test_one_seed_has_no_deviation() -> None:
    points = over_seeds(values_of(measurements(measurement())))[0]["points"]["trained"]
    assert points[0][3] is None


def test_paired_rows_are_counted_not_drawn() -> None:
    table = measurements(measurement(unit_b="other"), measurement(value=7.0))
    assert paired(table) == 1
    assert over_seeds(values_of(table))[0]["points"]["trained"][0][2] == 7.0


def test_page_grows_with_sizes_and_steps_not_with_rows(run: dict[str, pa.Table]) -> None:
    """Eight times the rows: the same number of points."""
    small = run["measurements"]
    big = pa.concat_tables([small] * 8)
    assert over_seeds(values_of(small)) == over_seeds(values_of(big))


def test_summary_counts_verdicts_and_nulls() -> None:
    rows = [
        verdict(verdict="conserved", null_class="trivial"),
        verdict(verdict="conserved_exact", null_class="learned"),
        verdict(verdict="conserved_drifting", null_class="null_undetermined"),
        verdict(verdict="not_conserved", null_class="learned"),
        verdict(verdict="conserved", depth_bin="early"),
    ]
    table = tables.encode(rows, SCHEMAS["verdicts"])
    text = paragraph(judged(table), tables.MEASUREMENTS.empty_table())
    assert "Of 4 judgements over the whole depth: 3 conserved and 1 not conserved." in text
    assert "1 trivial" in text and "1 learned" in text and "1 not told apart" in text


def test_roles_and_other_comparisons_are_not_counted_twice() -> None:
    rows = [
        verdict(site="all", verdict="scales"),
        verdict(site="attn_q", verdict="scales"),
        verdict(site="all", verdict="scales", comparison="equal_tokens", step=None),
    ]
    found = judged(tables.encode(rows, SCHEMAS["verdicts"]))
    assert [row["is_part"] for row in found] == [False, True, False]
    text = paragraph(found, tables.MEASUREMENTS.empty_table())
    assert "Of 1 judgement over the whole depth at equal steps: 1 scaling." in text


def test_weights_are_drawn_by_role_and_together() -> None:
    rows = [
        measurement(site=None, role=role, value=value)
        for role, value in (("up", 1.0), ("down", 3.0))
    ]
    rows.append(measurement(site=None, role="embed", layer=None, depth=None, value=99.0))
    found = over_seeds(values_of(measurements(*rows)))
    means = {s["site"]: s["points"]["trained"][0][2] for s in found if s["bin"] == "all"}
    assert means == {"up": 1.0, "down": 3.0, "embed": 99.0, "all": 2.0}


def test_controls_are_no_findings() -> None:
    rows = [verdict(verdict="scales", control=False), verdict(verdict="conserved", control=True)]
    text = paragraph(judged(tables.encode(rows, SCHEMAS["verdicts"])), measurements())
    assert "Of 1 judgement: 1 scaling." in text
    assert "Controls are not counted." in text
    alone = judged(tables.encode(rows[1:], SCHEMAS["verdicts"]))
    assert "There are verdicts on controls only." in paragraph(alone, measurements())


def test_summary_says_that_one_seed_decides_nothing() -> None:
    rows = judged(tables.encode([verdict(n_seeds=1)], SCHEMAS["verdicts"]))
    text = paragraph(rows, tables.MEASUREMENTS.empty_table())
    assert "With 1 seed a size, undetermined is the best verdict possible." in text


def test_curves_are_averaged_over_layers_then_seeds(run: dict[str, pa.Table]) -> None:
    base = run["curves"].slice(0, 1).to_pylist(maps_as_pydicts="strict")[0]
    heights = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 5.0, (1, 1): 7.0}  # seed, layer
    rows = [
        {**base, "seed": seed, "layer": layer, "depth": None, "x": [0.0, 1.0], "y": [h, 2 * h]}
        for (seed, layer), h in heights.items()
    ]
    untrained = {**rows[0], "variant": "random_init", "y": [99.0, 99.0]}
    early = {**rows[0], "step": 10, "y": [99.0, 99.0]}
    figures = mean_curves(tables.encode([*rows, untrained, early], tables.CURVES))
    (line,) = figures[0]["lines"]
    assert (line["x"], line["y"], line["seeds"]) == ([0.0, 1.0], [4.0, 8.0], 2)
    assert line["sd"] == pytest.approx([np.sqrt(8), 2 * np.sqrt(8)], rel=1e-3)


def curve(run: dict[str, pa.Table], **changes: Any) -> dict[str, Any]:
    base = run["curves"].slice(0, 1).to_pylist(maps_as_pydicts="strict")[0]
    return {**base, "depth": None, "x": [0.0, 1.0], **changes}


def level(figures: list[dict[str, Any]]) -> list[float]:
    return [line["y"][0] for line in figures[0]["lines"]]


def test_two_models_of_one_seed_number_are_two_replicates(run: dict[str, pa.Table]) -> None:
    rows = [curve(run, model=m, layer=i, y=[y, y]) for m, i, y in (("a", 0, 1.0), ("b", 0, 3.0))]
    (line,) = mean_curves(tables.encode(rows, tables.CURVES))[0]["lines"]
    assert (line["seeds"], line["y"], line["sd"][0]) == (2, [2.0, 2.0], pytest.approx(2**0.5, 1e-3))


def test_curves_are_those_of_the_last_common_step(run: dict[str, pa.Table]) -> None:
    small, large = {"n_params": 100, "model": "a"}, {"n_params": 200, "model": "b"}
    rows = [
        curve(run, **model, step=step, y=[float(step), 0.0])
        for model, steps in ((small, (10, 30, 100)), (large, (10, 30)))
        for step in steps
    ]
    figures = mean_curves(tables.encode(rows, tables.CURVES))
    assert (level(figures), figures[0]["when"]) == ([30.0, 30.0], "step 30")
    apart = [row for row in rows if (row["model"] == "a") == (row["step"] == 100)]
    figures = mean_curves(tables.encode(apart, tables.CURVES))
    assert (level(figures), figures[0]["when"]) == ([100.0, 30.0], "last step of each model")


def test_a_seed_that_lacks_a_curve_is_left_out(run: dict[str, pa.Table]) -> None:
    rows = [
        curve(run, model=f"s{seed}", seed=seed, layer=layer, y=[y, y])
        for seed, layer, y in ((0, 0, 1.0), (0, 1, 3.0), (1, 1, 100.0))
    ]
    figures = mean_curves(tables.encode(rows, tables.CURVES))
    assert (level(figures), figures[0]["replicates_left_out"]) == ([2.0], 1)


def test_curves_on_unequal_grids_meet_where_both_are_known() -> None:
    grid = common_grid([np.linspace(0, 2, 50), np.linspace(1, 3, 70)])
    assert grid is not None
    assert (grid[0], grid[-1], len(grid)) == (1.0, 2.0, NUM_POINTS)
    assert common_grid([np.array([0.0, 1.0]), np.array([2.0, 3.0])]) is None


def test_thinning_keeps_the_ends_and_the_head_of_a_spectrum() -> None:
    rank = np.arange(1.0, 5001.0)
    grid = common_grid([rank, rank])
    assert grid is not None
    assert len(grid) <= NUM_POINTS
    assert grid[:3].tolist() == [1.0, 2.0, 3.0]
    assert grid[-1] == 5000.0


def test_poles_are_pooled_and_thinned(run: dict[str, pa.Table]) -> None:
    poles = [f for f in mean_curves(run["curves"]) if f["kind"] == "poles"]
    whole = next(f for f in poles if f["bin"] == "all")
    assert [line["total"] for line in whole["lines"]] == [12 * width for width in SIZES]
    assert all(len(line["x"]) <= 600 for line in whole["lines"])


def test_what_has_to_be_known_first_stands_in_the_head() -> None:
    notes = ["2 tokenizers in one series: a (d32); b (d64)", HOSTILE]
    text = page.render({}, title="Run", facts={}, notes=notes, figures=FIGURES).decode()
    head = text.split("</header>")[0]
    assert notes[0] in head and 'role="note"' in head
    assert "<img src=x" not in text
    assert 'role="note"' not in rendered({}, title="Run", facts={})
