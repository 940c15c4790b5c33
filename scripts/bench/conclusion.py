"""Concluding a large run: judging, all tables and the page, and what a browser makes of the page.

Tables as real invariants write them (`_synthetic_run`), concluded in a process of its own, whose
peak of memory it is; then the page in Chromium. Targets: a million rows within 60 s and 2 GB, a
page under 10 MB, its first view within 2 s. Prints a line a case and, as its last line, one JSON
object.
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _synthetic_run import Shape, write_run
from _table import machine, record
from playwright.sync_api import sync_playwright
from report_load import ARGUMENTS, seconds

VISITS = 3
CASES = {
    "1,280 models of 32 sizes": Shape(32, 40, steps=(1000,), nulls=(), layers=7),
    "128 runs, 6 checkpoints, 2 nulls, with emergence": Shape(16, 8, layers=9),
}


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Writes the tables in another process, so that the peak is that of the conclusion."""
    subprocess.run([sys.executable, __file__, "write", case, str(folder)], check=True)
    ran = subprocess.run(
        [sys.executable, __file__, "conclude", str(folder)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1])


def conclude(folder: Path) -> dict[str, Any]:
    from scaleinv_ray.conclude.concluding import conclude as concluded
    from scaleinv_ray.config import load_run_config
    from scaleinv_ray.store import Store

    config = load_run_config(json.loads((folder / "bench.json").read_text()))
    store = Store(folder)
    start, cpu = time.perf_counter(), time.process_time()
    verdicts = concluded(store, config).num_rows
    return {
        "rows": store.read_table("measurements/all-bench.parquet", ["key"]).num_rows,
        "verdicts": verdicts,
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "page_mb": round((folder / "report.html").stat().st_size / 1e6, 1),
    }


def opened(page: Path) -> list[dict[str, float]]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    found = []
    with sync_playwright() as playwright:
        for _ in range(VISITS):
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            found.append(seconds(browser, page.as_uri(), family="topology"))
            browser.close()
    return found


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[-1])
        if sys.argv[1] == "write":
            config = write_run(folder, CASES[sys.argv[2]])[1]
            (folder / "bench.json").write_text(config.model_dump_json(exclude_none=True))
        else:
            print(json.dumps(conclude(folder)))
        return
    rows, found = [], {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            of = found[case] = measure(case, Path(name))
            visits = opened(Path(name) / "report.html")
        of |= {
            key: round(statistics.median(visit[key] for visit in visits), 2)
            for key in ("first_view_s", "first_figure_s")
        }
        what = f"{of['rows']:,} rows, {case}"
        took = f"{of['wall_s']} s ({of['cpu_s']} s of CPU), {of['peak_gb']} GB"
        rows += [
            (f"{what}: all tables and the page", "<= 60 s, 2 GB", took),
            ("its page", "<= 10 MB", f"{of['page_mb']} MB"),
            ("first view, median of 3", "<= 2 s", f"{of['first_view_s']} s"),
            ("first figure after a jump, median", "-", f"{of['first_figure_s']} s"),
        ]
        print(f"{case}: {of}")
    record("conclusion", rows)
    print(json.dumps({"bench": "conclusion", "cases": found, "machine": machine()}))


if __name__ == "__main__":
    main()
