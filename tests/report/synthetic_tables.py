"""Tables of a run that never happened: six families, four sizes, three seeds, nulls, failures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.value_rows import value_rows
from scaleinv_ray.conclude.columns import rows_of, table_of
from scaleinv_ray.conclude.concluding import JUDGED
from scaleinv_ray.conclude.conclusions import SCHEMAS

SIZES = {32: 120_000, 64: 460_000, 96: 1_020_000, 128: 1_800_000}
SEEDS = (0, 1, 2)
STEPS = (0, 10, 30, 100, 300)
VARIANTS = ("trained", "random_init", "shuffled_weights", "shuffled_tokens")
LAYERS = 4
SITE = "resid_post"

# family, invariant, quantity, law, value at the smallest size, exponent over size, verdict, null
QUANTITIES = (
    ("weights", "power_law", "alpha", "constant", 3.4, 0.0, "conserved", "learned"),
    ("weights", "power_law", "alpha_weighted", "none", 2.1, 0.11, "not_conserved", None),
    ("weights", "stable_rank", "stable_rank", "power_law", 9.0, 0.31, "scales", "trivial"),
    ("representation", "spectrum", "exponent", "constant", 1.08, 0.0, "conserved", "learned"),
    ("representation", "rank", "rankme", "power_law", 14.0, 0.42, "scales", "architectural"),
    ("representation", "rank", "participation_ratio", "power_law", 6.0, 0.2, "undetermined", None),
    ("renormalization", "flow", "alpha_tilde", "constant", 0.82, 0.0, "conserved_drifting", None),
    ("renormalization", "flow", "mu", "constant", 1.3, 0.03, "undetermined", "null_undetermined"),
    (
        "topology",
        "persistence",
        "total_persistence_0",
        "power_law",
        21.0,
        0.12,
        "scales",
        "learned",
    ),
    (
        "topology",
        "persistence",
        "total_persistence_1",
        "power_law",
        3.2,
        0.0,
        "conserved",
        "trivial",
    ),
    ("topology", "betti", "betti_peak_1", "integer", 40.0, 0.05, "not_conserved", None),
    ("geometry", "dimension", "twonn", "constant", 7.5, 0.0, "conserved", "null_undetermined"),
    ("geometry", "dimension", "gride", "constant", 6.9, 0.08, "not_conserved", None),
    ("holomorphy", "resolvent", "count_inside_unit", "none", 11.0, 0.6, "scales", "architectural"),
    ("holomorphy", "resolvent", "count_near_one", "none", 5.0, 0.1, "undetermined", None),
)
UNITS = {"mu": 0.5}
"""Quantities judged in units of their own."""
SHIFT = {"trained": 1.0, "random_init": 0.72, "shuffled_weights": 0.8, "shuffled_tokens": 0.93}


def unit(width: int, seed: int, step: int, variant: str) -> dict[str, Any]:
    """Key columns of a unit."""
    return {
        "run_id": "synthetic",
        "key": f"{width}-{seed}-{step}-{variant}",
        "unit": f"d{width}-s{seed}@{step}/{variant}",
        "unit_b": None,
        "series": "ladder",
        "model": f"d{width}",
        "architecture": "gpt_neox",
        "n_params": SIZES[width],
        "n_layers": LAYERS,
        "d_model": width,
        "seed": seed,
        "step": step,
        "train_tokens": step * 2048,
        "eval_loss": 5.5 - 0.5 * math.log1p(step) ** 0.5,
        "variant": variant,
        "probe": "prose",
        "probe_tokens": 524_288,
        "protocol": "p0",
    }


def place(family: str, invariant: str, layer: int) -> dict[str, Any]:
    """Key columns of a place in the model and of an invariant."""
    weights = family == "weights"
    return {
        "layer": layer,
        "depth": (layer + 1) / LAYERS,
        "role": "attn_q" if weights else None,
        "head": None,
        "site": None if weights else SITE,
        "capture": "weights" if weights else "cloud",
        "family": family,
        "invariant": f"{family}.{invariant}",
        "version": 1,
    }


def units() -> Iterator[tuple[int, int, int, str]]:
    """Every width, seed, step and variant; nulls at the last step only."""
    for width in SIZES:
        for seed in SEEDS:
            yield from ((width, seed, step, "trained") for step in STEPS)
            yield from ((width, seed, STEPS[-1], variant) for variant in VARIANTS[1:])


def value_at(base: float, exponent: float, width: int, step: int) -> float:
    """Exact power law in size, approached over training."""
    trained = 1 - 0.3 * math.exp(-step / 40)
    return base * (SIZES[width] / SIZES[32]) ** exponent * trained


def measurement(**changes: Any) -> dict[str, Any]:
    """A row of the measurements."""
    row = {
        **unit(32, 0, 300, "trained"),
        **place("topology", "persistence", 0),
        "quantity": "total_persistence_1",
        "law": "constant",
        "value": 1.0,
        "stderr": 0.1,
        "n": 20,
        "error_kind": "subsamples",
        "samples": None,
        "params": "{}",
        "flags": {},
        "status": "ok",
        "error": None,
        "weights_digest": "00",
        "wall_s": 0.1,
        "code_version": "0",
    }
    return {**row, **changes}


def _measurements() -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for width, seed, step, variant in units():
        for family, invariant, quantity, law, base, exponent, _, _ in QUANTITIES:
            noise = 1 + 0.02 * rng.standard_normal()
            value = value_at(base, exponent, width, step) * SHIFT[variant] * noise
            for layer in range(LAYERS):
                row = measurement(
                    **unit(width, seed, step, variant),
                    **place(family, invariant, layer),
                    quantity=quantity,
                    law=law,
                    value=value * (0.9 + 0.2 * layer / (LAYERS - 1)),
                )
                if quantity == "gride" and width == 32 and layer == 0:
                    reason = "num_points: got 200, needs 1600"
                    row.update(value=None, stderr=None, status="refused", error=reason)
                if quantity == "mu" and (seed, layer, variant) == (2, 3, "shuffled_tokens"):
                    row.update(
                        value=None, stderr=None, status="failed", error="SVD did not <converge>"
                    )
                yield row


def _curve(curve: str, width: int, seed: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([width, seed, layer])
    if curve == "poles":
        angle, radius = rng.uniform(0, 2 * np.pi, width), np.sqrt(rng.uniform(0, 1.2, width))
        return radius * np.cos(angle), radius * np.sin(angle)
    if curve == "eigenvalues":
        rank = np.arange(1.0, 8 * width + 1)
        return rank, 3 * rank**-1.1 * np.exp(0.05 * rng.standard_normal(rank.size))
    x = np.linspace(0, 2, 60)
    centre = 0.8 + 0.1 * math.log(width / 32)
    return x, width**0.2 * 20 * np.exp(-(((x - centre) / 0.3) ** 2)) * (
        1 + 0.05 * rng.standard_normal()
    )


def _curves() -> Iterator[dict[str, Any]]:
    stored = (
        ("topology", "betti", "betti_curve_1"),
        ("topology", "betti", "betti_curve_0"),
        ("representation", "spectrum", "eigenvalues"),
        ("holomorphy", "resolvent", "poles"),
    )
    for width in SIZES:
        for seed in SEEDS:
            for family, invariant, curve in stored:
                for layer in range(LAYERS):
                    x, y = _curve(curve, width, seed, layer)
                    yield {
                        **unit(width, seed, STEPS[-1], "trained"),
                        **place(family, invariant, layer),
                        "params": "{}",
                        "curve": curve,
                        "x": x.tolist(),
                        "y": y.tolist(),
                        "y_stderr": None,
                    }


def verdict(**changes: Any) -> dict[str, Any]:
    """A row of the verdicts."""
    row = dict.fromkeys(SCHEMAS["verdicts"].names)
    row.update(
        series="ladder",
        probe="prose",
        family="topology",
        invariant="topology.persistence",
        quantity="total_persistence_1",
        site=SITE,
        depth_bin="all",
        step=STEPS[-1],
        comparison="equal_steps",
        margin=0.10,
        verdict="undetermined",
        form="constant",
        n_models=len(SIZES),
        n_seeds=len(SEEDS),
        reason="",
    )
    return {**row, **changes}


def _reason(kind: str) -> str:
    if kind.startswith("conserved"):
        return "every pair of sizes within the margin of 10 %"
    if kind == "scales":
        return "slope and heterogeneity significant, no lack of fit; predicts the largest size"
    if kind == "not_conserved":
        return "sizes differ (Q p = 0.0031), lack of fit p = 0.012"
    return "W = 0.13 against a margin of 0.095: the seeds do not decide"


NUM_VERDICTS = 4 * (len(QUANTITIES) + sum(row[0] == "weights" for row in QUANTITIES))


def _verdicts() -> Iterator[dict[str, Any]]:
    span = SIZES[128] / SIZES[32]
    for i, (family, invariant, quantity, law, _, exponent, kind, null) in enumerate(QUANTITIES):
        for j, depth_bin in enumerate(("all", "early", "middle", "late")):
            row = verdict(
                family=family,
                invariant=f"{family}.{invariant}",
                quantity=quantity,
                site="all" if family == "weights" else SITE,
                depth_bin=depth_bin,
                law=law,
                control=False,
                unit=UNITS.get(quantity),
                n_refused=2 if quantity == "gride" else 0,
                conservation_error=abs(span**exponent - 1) + 0.004 * (i + 1) + 0.001 * j,
                certified_change=abs(span**exponent - 1) + 0.011 * (i + 1),
                verdict=kind,
                form="power" if kind == "scales" else "constant",
                exponent=exponent + 0.001 * i,
                exponent_low=exponent - 0.02,
                exponent_high=exponent + 0.02,
                slope_p=0.4 / (1 + 100 * exponent),
                heterogeneity_p=0.3 / (1 + 100 * exponent),
                q=0.01 * (i + 1),
                I2=0.3,
                lack_of_fit_p=0.4,
                held_out_error=0.021,
                naive_error=0.043,
                estimator_share=0.2,
                null_class=null,
                rho=0.05,
                seeds_needed=9 if kind == "undetermined" else None,
                reason=_reason(kind),
            )
            yield row
            if family == "weights":
                yield {**row, "site": "attn_q"}


def _predictions() -> Iterator[dict[str, Any]]:
    for family, invariant, quantity, _, base, exponent, kind, _ in QUANTITIES:
        if kind != "scales":
            continue
        predicted = value_at(base, exponent, 128, STEPS[-1])
        for depth_bin in ("all", "early", "middle", "late"):
            yield {
                "series": "ladder",
                "probe": "prose",
                "family": family,
                "invariant": f"{family}.{invariant}",
                "quantity": quantity,
                "site": "all" if family == "weights" else SITE,
                "depth_bin": depth_bin,
                "step": STEPS[-1],
                "comparison": "equal_steps",
                "model": "d128",
                "n_params": SIZES[128],
                "form": "power",
                "fitted_on": [SIZES[w] for w in (32, 64, 96)],
                "predicted": predicted,
                "low": predicted * 0.93,
                "high": predicted * 1.08,
                "level": 0.9,
                "observed": predicted * 1.01,
                "observed_stderr": 0.01 * predicted,
                "error": 0.01,
                "naive_last_error": 0.04,
                "naive_mean_error": 0.2,
                "covered": True,
            }


def values_of(measurements: pa.Table) -> pa.Table:
    """The values that a conclusion writes of measurements."""
    return table_of(value_rows(rows_of(measurements, JUDGED)), SCHEMAS["values"])


def synthetic() -> dict[str, pa.Table]:
    """Every table a report reads."""
    measurements = tables.encode(_measurements(), tables.MEASUREMENTS)
    return {
        "measurements": measurements,
        "values": values_of(measurements),
        "curves": tables.encode(_curves(), tables.CURVES),
        "verdicts": tables.encode(_verdicts(), SCHEMAS["verdicts"]),
        "predictions": tables.encode(_predictions(), SCHEMAS["predictions"]),
    }
