"""Draws the figures of the gallery that need no run: programs and jets. Wants chromium.

.venv/bin/python scripts/site/figures.py
"""

import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml

from scaleinv_ray.config import load_programs_config
from scaleinv_ray.report.drawing import Curve, curves
from scaleinv_ray.report.programs import STYLE
from scaleinv_ray.runs.programs import compare_programs
from scaleinv_ray.singularities import ade_polynomial, contact_loci, monomial

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
LONGEST = 29
FORMS = {
    "xy": monomial(1, 1),
    "x² − y³": ade_polynomial("A", 2, -1),
    "x² − y⁵": ade_polynomial("A", 4, -1),
    "x³ + y⁵": ade_polynomial("E", 8, 1),
}


def programs(folder: Path) -> str:
    """Error correction beside none: the last two circuits of the job."""
    job = yaml.safe_load((ROOT / "jobs" / "programs.yaml").read_text())
    config = {"name": "correction", "out": str(folder), "machines": job["machines"][-2:]}
    page = Path(compare_programs(load_programs_config(config))).read_text()
    return page.replace('<header class="top">', '<header class="top" hidden>')


def jets() -> str:
    """N - dim J_m / (m + 1) over m + 1: the threshold is the least of them."""
    lines = []
    for name, form in FORMS.items():
        found = contact_loci(form, LONGEST)
        bound_M = [form.num_variables - d / (m + 1) for m, d in enumerate(found.dimensions)]
        lines.append(Curve(f"{name}: {found.threshold}", np.array(bound_M)))
    css = (files("scaleinv_ray.report") / "board" / "page.css").read_text()
    drawn = curves(np.arange(1, LONGEST + 2.0), lines, x_name="m + 1", y_name="N − dim J/(m+1)")
    style = f"<style>{css}{STYLE} body {{ padding: 14px }} svg {{ overflow: visible }}</style>"
    return f'<!doctype html><html data-theme="light"><meta charset="utf-8">{style}{drawn}'


def shot(page: str, name: str, size: str, folder: Path) -> None:
    """Writes a picture of a page."""
    (folder / "shown.html").write_text(page)
    command = [
        "chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu",
        f"--user-data-dir={folder / 'browser'}", f"--window-size={size}",
        f"--screenshot={FIGURES / name}", (folder / "shown.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        shot(programs(Path(made)), "programs.png", "1180,1060", Path(made))
        shot(jets(), "jets.png", "760,390", Path(made))
