"""Figures of docs/findings.md: `findings_figures.py RUNS TABLES OUT`.

RUNS has the folders gpt2, depth and llama of `four_experiments.py`, concluded (`scaleinv report`);
TABLES has hits.parquet and circuits.parquet. Points are means over seeds with standard errors.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("svg")
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "findings", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "axes.titlesize": 9, "legend.fontsize": 8,
    "figure.facecolor": "white",
}  # fmt: skip
SIZE = (7.2, 2.7)
VARIANTS = {
    "trained": "#0b6e63", "random_init": "#b5540a", "shuffled_weights": "#6b5ca5",
    "shuffled_tokens": "#888888",
}  # fmt: skip
WORDS = {
    "trained": "trained", "random_init": "untrained", "shuffled_weights": "weights shuffled",
    "shuffled_tokens": "tokens shuffled",
}  # fmt: skip
SERIES = {"gpt2": "GPT-2, width", "depth": "GPT-2, depth", "llama": "Llama, width"}
MARKS = {"gpt2": ("o", "#0b6e63"), "depth": ("s", "#6b5ca5"), "llama": ("^", "#b5540a")}
Values = Mapping[str, pd.DataFrame]


def at_end(values: pd.DataFrame, quantity: str, *, probe: str = "prose") -> pd.DataFrame:
    """A quantity over the whole depth at the last step."""
    whole = (values["depth_bin"] == "all") & (values["comparison"] == "equal_steps")
    here = (values["quantity"] == quantity) & (values["probe"] == probe) & values["counted"]
    last = values["step"] == values["step"].max()
    return values[whole & here & last & (values["site"] != "resid_pre")]


def over_sizes(axes: Axes, of: pd.DataFrame, name: str, color: str, mark: str = "o") -> None:
    """Means over seeds by size."""
    found = of.groupby("n_params")["value"].agg(["mean", "sem"])
    axes.errorbar(
        found.index, found["mean"], found["sem"].fillna(0), label=name, color=color, marker=mark,
        ms=4, lw=1.2, capsize=2,
    )  # fmt: skip


def less(values: pd.DataFrame, quantity: str, control: str) -> pd.DataFrame:
    """A quantity less its control in the same model."""
    key = ["variant", "model", "seed", "n_params"]
    one, other = (at_end(values, name).set_index(key)["value"] for name in (quantity, control))
    return (one - other).dropna().reset_index()


def panels(titles: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """Two or three axes side by side over model size."""
    figure, axes = plt.subplots(1, len(titles), figsize=SIZE, layout="constrained")
    for at, title in zip(axes, titles, strict=True):
        at.set_title(title, loc="left")
        at.set_xscale("log")
        at.set_xlabel("parameters")
    return figure, axes


def exponents(values: Values) -> Figure:
    """Exponents beside what surrogates of the same model give."""
    figure, axes = panels(["variance exponent", "spectral exponent"])
    controls = {"": "of the model", "_latent": "few latent factors", "_permuted": "units permuted"}
    controls["_rotated"] = "units rotated"
    colors = list(VARIANTS.values())
    for at, quantity in zip(axes, ("alpha_tilde", "mu"), strict=True):
        for (suffix, name), color in zip(controls.items(), colors, strict=True):
            of = at_end(values["gpt2"], quantity + suffix)
            over_sizes(at, of[of["variant"] == "trained"], name, color)
    axes[1].legend()
    return figure


def topology(values: Values) -> Figure:
    """Loops and components less those of Gaussian clouds."""
    figure, axes = panels(["longest loop less Gaussian's", "length of components less Gaussian's"])
    for at, quantity in zip(axes, ("log_ratio_max_1", "total_persistence_0"), strict=True):
        of = less(values["gpt2"], quantity, f"{quantity}_gaussian")
        for variant, color in VARIANTS.items():
            over_sizes(at, of[of["variant"] == variant], WORDS[variant], color)
        at.axhline(0, color="black", lw=0.6)
    axes[0].legend()
    return figure


def poles(values: Values) -> Figure:
    """Eigenvalues inside the unit circle less those of random matrices."""
    figure, axes = panels(["GPT-2 over width", "three series, trained"])
    names = "count_inside_unit", "count_inside_unit_null"
    of = less(values["gpt2"], *names)
    for variant, color in VARIANTS.items():
        over_sizes(axes[0], of[of["variant"] == variant], WORDS[variant], color)
    for series, (mark, color) in MARKS.items():
        found = less(values[series], *names)
        over_sizes(axes[1], found[found["variant"] == "trained"], SERIES[series], color, mark)
    for at in axes:
        at.axhline(0, color="black", lw=0.6)
        at.legend()
    axes[0].set_ylabel("share of eigenvalues")
    return figure


def copying(values: Values) -> Figure:
    """What a repetition gains, over training and at its end."""
    figure, axes = panels(["GPT-2 by width", "at the last step"])
    of = values["gpt2"]
    here = (of["quantity"] == "copying_gain") & (of["variant"] == "trained") & of["counted"]
    of = of[here & (of["comparison"] == "equal_steps") & (of["depth_bin"] == "all")]
    sizes = sorted(of["n_params"].unique())
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(sizes)))
    for size, color in zip(sizes, colors, strict=True):
        found = of[of["n_params"] == size].groupby("step")["value"].agg(["mean", "sem"])
        axes[0].errorbar(
            found.index + 1, found["mean"], found["sem"], color=color, lw=1.2,
            label=f"{size / 1e6:.2g} M",
        )  # fmt: skip
    axes[0].set_xlabel("step + 1")
    axes[0].set_ylabel("nats a token")
    axes[0].legend()
    for series, (mark, color) in MARKS.items():
        found = at_end(values[series], "copying_gain", probe="induction")
        over_sizes(axes[1], found[found["variant"] == "trained"], SERIES[series], color, mark)
    axes[1].legend()
    return figure


def held_out(hits: pd.DataFrame) -> Figure:
    """How far the held-out width lies from what was claimed, by how much was claimed."""
    rows = hits[hits["depth_bin"] == "all"]
    half = (rows["high"] - rows["low"]) / 2
    away = (rows["mean"] - (rows["high"] + rows["low"]) / 2) / half
    size = half / rows["mean"].abs()
    figure, axes = plt.subplots(figsize=(7.2, 2.7), layout="constrained")
    inside = away.abs() <= 1
    axes.axhspan(-1, 1, color="#0b6e63", alpha=0.1, lw=0)
    axes.scatter(size[inside], away[inside], s=9, color="#0b6e63", label=f"inside ({inside.sum()})")
    axes.scatter(
        size[~inside], away[~inside], s=16, color="#b5540a", marker="x",
        label=f"outside ({(~inside).sum()})",
    )  # fmt: skip
    axes.set(
        xscale="log", xlabel="half-width of the claimed interval over the value",
        ylabel="found, in half-widths",
    )  # fmt: skip
    axes.legend()
    return figure


def circuits(rows: pd.DataFrame) -> Figure:
    """Over how many components copying is spread, and at which depth."""
    figure, axes = panels(["participation over components", "centre of depth, 0 to 1"])
    of = {"gpt2": "gpt2", "gpt2_held_out": "gpt2", "llama": "llama"}
    rows = rows.assign(series=rows["ladder"].map(of).fillna("depth"))
    rows = rows.assign(share=rows["value"] / rows["components"])
    for at, quantity, column in zip(
        axes, ("participation", "depth_centre"), ("share", "value"), strict=True
    ):
        for series, (mark, color) in MARKS.items():
            found = rows[(rows["quantity"] == quantity) & (rows["series"] == series)]
            over_sizes(at, found.assign(value=found[column]), SERIES[series], color, mark)
    axes[0].legend()
    return figure


def main() -> None:
    """Writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    values = {s: pd.read_parquet(options.runs / s / "values.parquet") for s in SERIES}
    with mpl.rc_context(STYLE):
        drawn = {
            "exponents": exponents(values), "topology": topology(values), "poles": poles(values),
            "copying": copying(values),
            "held_out": held_out(pd.read_parquet(options.tables / "hits.parquet")),
        }  # fmt: skip
        effects = options.tables / "circuits.parquet"
        if effects.exists():
            drawn["circuits"] = circuits(pd.read_parquet(effects))
        for name, figure in drawn.items():
            where = options.out / f"findings_{name}.svg"
            figure.savefig(where, metadata={"Date": None})
            print(f"{where.stat().st_size:>8,} {where}")


if __name__ == "__main__":
    main()
