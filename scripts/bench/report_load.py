"""How soon the report of a large run can be used: 100,000 measurements in headless Chromium.

First view: from the start of navigation until the verdict board is painted and answers (the page
sets the performance mark `first-view` after the frame in which the board is painted). Target: under
2 s in every run. Besides: a search in the board, and the first figure after a jump to its family,
which unpacks the points, the curves and plotly. Every run is a browser of its own, so that nothing
is cached. Prints the size of the file and seconds; its last line is one JSON object.
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _table import machine, record
from playwright.sync_api import Browser, sync_playwright

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.value_rows import value_rows
from scaleinv_ray.conclude.columns import rows_of, table_of
from scaleinv_ray.conclude.concluding import JUDGED
from scaleinv_ray.conclude.conclusions import CONCLUSIONS, SCHEMAS
from scaleinv_ray.report import render

RUNS = 5
TARGET_S = 2.0
SIZES = (10**6, 4 * 10**6, 16 * 10**6, 64 * 10**6, 256 * 10**6, 10**9)
SEEDS = (0, 1, 2)
STEPS = (0, 100, 1000, 10_000, 100_000)
NULLS = ("random_init", "shuffled_weights", "shuffled_tokens")
LAYERS = 12
QUANTITIES = [
    (f"family{f}", f"family{f}.invariant{i}", f"quantity_{f}_{i}_{q}")
    for f, i, q in product(range(10), range(2), range(3))
][:58]
UNITS = [
    (size, seed, step, variant)
    for size, seed in product(SIZES, SEEDS)
    for step, variant in [*((s, "trained") for s in STEPS), *((STEPS[-1], v) for v in NULLS)]
]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip


def unit(size: int, seed: int, step: int, variant: str) -> dict[str, Any]:
    """Key columns of a unit."""
    model = f"n{size}-s{seed}"
    return {
        "run_id": "bench", "unit": f"bench/{model}/{step}/{variant}", "unit_b": None,
        "series": "bench", "model": model, "architecture": "gpt_neox", "n_params": size,
        "n_layers": LAYERS, "d_model": 64, "seed": seed, "step": step, "train_tokens": 2048 * step,
        "eval_loss": 3.0 + 1 / (1 + step), "variant": variant, "probe": "prose",
        "probe_tokens": 524_288, "protocol": "protocol",
    }  # fmt: skip


def place(family: str, invariant: str, layer: int) -> dict[str, Any]:
    """Key columns of a place and an invariant."""
    return {
        "layer": layer, "depth": (layer + 1) / LAYERS, "role": None, "head": None,
        "site": "resid_post", "capture": "cloud", "family": family, "invariant": invariant,
        "version": 1,
    }  # fmt: skip


def key(rng: np.random.Generator) -> str:
    """Twenty hexadecimal digits that do not compress."""
    return rng.bytes(10).hex()


def measurements(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for size, seed, step, variant in UNITS:
        own = unit(size, seed, step, variant)
        digest = rng.bytes(32).hex()
        for i, (family, invariant, quantity) in enumerate(QUANTITIES):
            for layer in range(LAYERS):
                value = (1 + 0.02 * rng.standard_normal()) * size ** (0.01 * (i % 20))
                yield {
                    **own, **place(family, invariant, layer), "key": key(rng),
                    "quantity": quantity, "law": "power_law", "value": value,
                    "stderr": 0.02 * value, "n": 20, "error_kind": "subsamples", "samples": None,
                    "params": '{"num_points": 400, "num_subsamples": 20}',
                    "flags": {"n_tail": str(rng.integers(100))}, "status": "ok", "error": None,
                    "weights_digest": digest, "wall_s": 0.1, "code_version": "0.1.0+bench",
                }  # fmt: skip


def curves(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    x = np.linspace(0, 2, 60)
    for size, seed, invariant, layer in product(SIZES, SEEDS, range(10), range(LAYERS)):
        family = f"family{invariant}"
        yield {
            **unit(size, seed, STEPS[-1], "trained"),
            **place(family, f"{family}.invariant0", layer), "key": key(rng), "params": "{}",
            "curve": "curve", "x": x.tolist(), "y_stderr": None,
            "y": (np.exp(-x) + 0.01 * rng.standard_normal(60)).tolist(),
        }  # fmt: skip


def diagrams(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for size, seed, variant in product(SIZES, SEEDS, ("trained", *NULLS)):
        for layer in range(LAYERS):
            birth = rng.uniform(size=200)
            yield {
                **unit(size, seed, STEPS[-1], variant), "key": key(rng), "params": "{}",
                **place("family0", "family0.invariant0", layer), "diagram": "rips",
                "dimension": [0] * 150 + [1] * 50, "birth": birth.tolist(),
                "death": (birth + rng.exponential(size=200)).tolist(),
            }  # fmt: skip


def verdicts() -> Iterator[dict[str, Any]]:
    bins = ("all", "early", "middle", "late")
    comparisons = ("equal_steps", "equal_tokens", "equal_loss")
    kinds = ("conserved", "scales", "not_conserved", "undetermined")
    for i, ((family, invariant, quantity), depth, comparison) in enumerate(
        product(QUANTITIES, bins, comparisons)
    ):
        yield dict.fromkeys(SCHEMAS["verdicts"].names) | {
            "series": "bench", "probe": "prose", "family": family, "invariant": invariant,
            "quantity": quantity, "site": "resid_post", "depth_bin": depth, "step": STEPS[-1],
            "comparison": comparison, "law": "power_law", "control": False, "margin": 0.1,
            "conservation_error": 0.001 * i, "certified_change": 0.002 * i,
            "verdict": kinds[i % 4], "form": "power", "exponent": 0.01 * (i % 20),
            "exponent_low": 0.0, "exponent_high": 0.3, "q": 0.01, "null_class": "learned",
            "n_models": len(SIZES), "n_seeds": len(SEEDS),
            "reason": f"power fits and predicts the largest size from the others, row {i}",
        }  # fmt: skip


def seconds(browser: Browser, uri: str, *, family: str = "family3") -> dict[str, float]:
    """One visit: seconds to the first view, of a search, and to the first figure."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(uri)
    page.bring_to_front()
    mark = "performance.getEntriesByName('first-view')[0]"
    page.wait_for_function(mark)
    first = page.evaluate(f"{mark}.startTime") / 1e3
    assert page.locator("#verdict-table tbody tr").count() > 0
    searched = page.evaluate("""() => {
        const start = performance.now();
        document.getElementById("search").value = "quantity_5";
        document.getElementById("search").dispatchEvent(new Event("input", { bubbles: true }));
        return (performance.now() - start) / 1000;
    }""")
    start = time.perf_counter()
    page.evaluate(f"document.getElementById('family-{family}').scrollIntoView()")
    page.locator(f"#family-{family} .main-svg").first.wait_for()
    figure = time.perf_counter() - start
    page.close()
    return {"first_view_s": first, "search_s": searched, "first_figure_s": figure}


def main() -> None:
    rng = np.random.default_rng(0)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    measured = tables.encode(measurements(rng), tables.MEASUREMENTS)
    made: dict[str, pa.Table] = {
        "measurements": measured,
        "values": table_of(value_rows(rows_of(measured, JUDGED)), SCHEMAS["values"]),
        "curves": tables.encode(curves(rng), tables.CURVES),
        "diagrams": tables.encode(diagrams(rng), tables.DIAGRAMS),
        "verdicts": tables.encode(verdicts(), SCHEMAS["verdicts"]),
    }
    rows = made["measurements"].num_rows
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        start = time.perf_counter()
        out = Path(folder) / "report.html"
        figures = {conclusion.name: conclusion.figure for conclusion in CONCLUSIONS}
        out.write_bytes(render(made, title="bench", facts={}, figures=figures))
        writing, size_mb = time.perf_counter() - start, out.stat().st_size / 1e6
        for _ in range(RUNS):
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            found.append(seconds(browser, out.as_uri()))
            browser.close()
    median = {name: statistics.median(run[name] for run in found) for name in found[0]}
    worst = max(run["first_view_s"] for run in found)
    print(f"{rows:,} measurements, {size_mb:.1f} MB, written in {writing:.1f} s")
    for name, value in median.items():
        print(f"{name}: median {value:.2f} of {RUNS}")
    record("report_load", [
        (f"file with {rows:,} measurements", "-", f"{size_mb:.1f} MB, written in {writing:.1f} s"),
        ("first view, longest of 5", f"< {TARGET_S:g} s", f"{worst:.2f} s"),
        ("first view, median", "-", f"{median['first_view_s']:.2f} s"),
        ("search in the board, median", "-", f"{1e3 * median['search_s']:.0f} ms"),
        ("first figure after a jump, median", "-", f"{median['first_figure_s']:.2f} s"),
    ])  # fmt: skip
    print(json.dumps({
        "bench": "report_load", "measurements": rows, "file_mb": round(size_mb, 2),
        "write_s": round(writing, 2), "runs": RUNS, "first_view_max_s": round(worst, 3),
        **{name: round(value, 3) for name, value in median.items()}, "target_s": TARGET_S,
        "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
