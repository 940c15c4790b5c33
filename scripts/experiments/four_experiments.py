"""Four questions to ladders of one's own: exponents, topology, residues, emergence of copying.

Trains GPT-2 over width (five seeds), over depth and Llama over width (three seeds each), measures
them alike, writes down what the smaller widths predict for the largest, trains that one, compares.
Every stage goes on where it was ended. Without `--held-out` it stops when the predictions are
written: they are to be kept (a commit) before the largest width is trained.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from _experiment import table
from scipy import stats

from scaleinv_ray import run
from scaleinv_ray.cluster.train import train
from scaleinv_ray.config import RunConfig, TrainConfig, load_run_config, load_train_config
from scaleinv_ray.config.reader import read_mapping

SERIES = Path(__file__).parents[2] / "jobs" / "series"
HELD_OUT = "d192"
LADDERS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {},
    "llama": {"architecture": "llama", "widths": [32, 64, 128], "seeds": [0, 1, 2]},
    "depth_2": {"depth": 2, "widths": [64], "seeds": [0, 1, 2]},
    "depth_8": {"depth": 8, "widths": [64], "seeds": [0, 1, 2]},
    "depth_12": {"depth": 12, "widths": [64], "seeds": [0, 1, 2]},
    "gpt2_held_out": {"widths": [192]},
}
"""What differs from gpt2_ladder_models.yaml."""
CONTROLS = {
    "alpha_tilde": ("alpha_tilde_rotated", "alpha_tilde_permuted", "alpha_tilde_latent"),
    "mu": ("mu_rotated", "mu_permuted", "mu_latent"),
    "consistency": ("consistency_surrogate",),
    "total_persistence_0": ("total_persistence_0_gaussian",),
    "total_persistence_1": ("total_persistence_1_gaussian",),
    "log_ratio_max_1": ("log_ratio_max_1_gaussian",),
    "count_inside_unit": ("count_inside_unit_null",),
    "count_ring": ("count_ring_null",),
    "count_near_one": ("count_near_one_null",),
    "mean_log_singular": ("mean_log_singular_null",),
    "max_log_singular": ("max_log_singular_null",),
}
"""Quantity -> what the same model gives without what the quantity is said to show."""
QUICK: Mapping[str, Any] = {
    "train": {
        "widths": [16, 32, 48], "depth": 2, "head_dim": 8, "seeds": [0, 1], "steps": 6, "batch": 4,
        "checkpoints": [0, 3, 6], "optimizer": {"warmup": 2},
    },
    "ladders": {
        "gpt2": {}, "llama": {"architecture": "llama"}, "gpt2_held_out": {"widths": [64]},
        "depth_2": {"depth": 1, "widths": [32]}, "depth_8": {"depth": 3, "widths": [32]},
        "depth_12": {"depth": 4, "widths": [32]},
    },
    "run": {
        "protocol": {
            "sequences": 96, "length": 48, "position": 40, "tokens_per_dim": 5, "stream_units": 32,
            "jacobian_positions": 2, "blocks": 2,
        },
        "invariants": {
            "holomorphy.resolvent_counts": {}, "behaviour.capabilities": {},
            "representation.covariance_decay": {},
        },
    },
}  # fmt: skip


def ladder(name: str, out: Path, *, quick: bool) -> TrainConfig:
    """One of `LADDERS`, into a folder of its own."""
    base = dict(read_mapping(SERIES / "gpt2_ladder_models.yaml"))
    changes = QUICK["ladders"][name] if quick else LADDERS[name]
    small = QUICK["train"] if quick else {}
    return load_train_config({**base, **small, **changes, "out": str(out / name)})


def models_of(series: str, out: Path, *, quick: bool) -> list[Mapping[str, Any]]:
    """What stands under `models` for a series: of a folder, or of one width at several depths."""
    if series != "depth":
        names = [series, "gpt2_held_out"] if series == "gpt2" else [series]
        return [{"ladder": str(out / name)} for name in names if (out / name).exists()]
    width = 32 if quick else 64
    seeds = ladder("depth_2", out, quick=quick).seeds
    return [
        {"path": str(out / name / f"d{width}-s{seed}"), "name": f"{name}-s{seed}", "seed": seed}
        for name in ("depth_2", "gpt2", "depth_8", "depth_12")
        for seed in seeds
    ]


def measured(series: str, out: Path, *, quick: bool) -> Path:
    """Analyses a series; its folder, where what is measured already stays."""
    base = dict(read_mapping(SERIES / "gpt2_ladder.yaml")) | (QUICK["run"] if quick else {})
    config: RunConfig = load_run_config({
        **base,
        "name": series,
        "models": models_of(series, out, quick=quick),
        "conservation": base["conservation"] if series == "gpt2" else {},
        "out": str(out / "runs" / series),
    })  # fmt: skip
    run(config)
    return Path(config.out)


def at_end(folder: Path, name: str) -> pd.DataFrame:
    """The rows of a table over the whole depth, at the last step that all models share."""
    rows = pq.read_table(folder / f"{name}.parquet").to_pandas()
    rows = rows[(rows["comparison"] == "equal_steps") & (rows["depth_bin"] == "all")]
    return rows[rows["step"] == rows["step"].max()]


def verdicts(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Each quantity with its verdict and its class beside the nulls, a column a series."""
    parts = []
    for series, folder in folders.items():
        rows = at_end(folder, "verdicts")
        rows = rows[~rows["control"]].set_index(["probe", "invariant", "quantity", "site"])
        said = rows["verdict"] + " / " + rows["null_class"].fillna("-")
        parts.append(said.rename(series)[~said.index.duplicated()])
    return pd.concat(parts, axis=1).reset_index()


def beyond_controls(folder: Path) -> Iterator[dict[str, Any]]:
    """Each quantity less its control in the same model: over models, and its slope in ln N."""
    rows = at_end(folder, "values")
    rows = rows[rows["counted"]]
    key = ["variant", "probe", "site", "model", "seed", "n_params"]
    wide = rows.pivot_table(index=key, columns="quantity", values="value")
    for quantity, controls in CONTROLS.items():
        for control in (c for c in controls if c in wide and quantity in wide):
            paired = (wide[quantity] - wide[control]).dropna()
            for (variant, probe, site), of in paired.groupby(key[:3]):
                if len(of) > 2:
                    yield {"quantity": quantity, "control": control, "variant": variant,
                           "probe": probe, "site": site, **_difference(of)}  # fmt: skip


def _difference(of: pd.Series) -> dict[str, Any]:
    """Mean of a difference over models, and whether it grows with size."""
    n_params = of.index.get_level_values("n_params").to_numpy(float)
    sizes = [values for _, values in of.groupby(level="n_params")]
    stderr = of.std(ddof=1) / np.sqrt(len(of))
    found = {"models": len(of), "difference": of.mean(), "stderr": stderr, "slope": None}
    found |= {"smallest": sizes[0].mean(), "largest": sizes[-1].mean()}
    if len(sizes) > 2:
        line = stats.linregress(np.log(n_params), of.to_numpy())
        half = stats.t.ppf(0.975, len(of) - 2) * line.stderr
        found |= {"slope": line.slope, "slope_half_width": half}
    return found


def hits(folder: Path, claimed: Path, model: str) -> pd.DataFrame:
    """What was predicted of the held-out width beside what was found there."""
    predicted = pq.read_table(claimed).to_pandas()
    key = ["probe", "invariant", "quantity", "site", "depth_bin"]
    found = pq.read_table(folder / "values.parquet").to_pandas()
    last = found["step"] == found["step"].max()
    trained = (found["variant"] == "trained") & (found["comparison"] == "equal_steps")
    found = found[last & trained & found["counted"]]
    largest = found[found["n_params"] == found["n_params"].max()]
    observed = largest.groupby(key, dropna=False)["value"].agg(["mean", "std", "count"])
    joined = predicted.merge(observed.reset_index(), on=key)
    joined["seeds_inside"] = [
        float(np.mean(_seeds_inside(largest, row, key))) for _, row in joined.iterrows()
    ]
    return joined.assign(model=model)


def _seeds_inside(values: pd.DataFrame, row: pd.Series, key: list[str]) -> np.ndarray:
    same = np.logical_and.reduce([
        (values[k] == row[k]) | (values[k].isna() & pd.isna(row[k])) for k in key
    ])
    of = values.loc[same, "value"]
    return ((of >= row["low"]) & (of <= row["high"])).to_numpy()


def claim(folder: Path, kept: Path) -> int:
    """Keeps what a run predicts of the held-out width; what is kept already stays."""
    rows = pq.read_table(folder / "predictions.parquet").to_pandas()
    rows = rows[(rows["model"] == HELD_OUT) & (rows["comparison"] == "equal_steps")]
    rows = rows[rows["low"].notna()]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(kept, index=False)
    return len(rows)


def main() -> None:
    """Trains, measures, claims; with `--held-out` trains the largest width and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/findings"))
    parser.add_argument("--kept", type=Path, help="folder of the claims and the tables")
    parser.add_argument("--held-out", action="store_true", help="train the held-out width")
    parser.add_argument("--quick", action="store_true", help="a check of the script, no result")
    options = parser.parse_args()
    out, quick = options.out, options.quick
    kept = options.kept or out / "kept"
    claimed = kept / "claimed.parquet"
    if options.held_out and not claimed.exists():
        parser.error(f"--held-out: {claimed} is not there: first without")
    wanted = [n for n in LADDERS if n != "gpt2_held_out" or options.held_out]
    for name in wanted:
        train(ladder(name, out, quick=quick))
    folders = {series: measured(series, out, quick=quick) for series in ("gpt2", "depth", "llama")}
    said = {"claims": claim(folders["gpt2"], claimed), "held_out": options.held_out}
    tables = {"verdicts": verdicts(folders)}
    tables |= {f"controls_{s}": pd.DataFrame(beyond_controls(f)) for s, f in folders.items()}
    if options.held_out:
        tables["hits"] = hits(folders["gpt2"], claimed, HELD_OUT)
        said["seeds_inside"] = float(tables["hits"]["seeds_inside"].mean())
    for name, rows in tables.items():
        rows.to_parquet(kept / f"{name}.parquet", index=False)
        print(name, table(rows.head(200).to_dict("records")), sep="\n")
    print(json.dumps({"experiment": "four_experiments", "quick": quick, **said}))


if __name__ == "__main__":
    main()
