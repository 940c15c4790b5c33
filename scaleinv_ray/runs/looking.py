"""A finished run as a person looks at it in a notebook: tables of pandas, a figure, sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.contract import REGISTRY, Quantity
from scaleinv_ray.inputs.wording import listed, nearest, shown
from scaleinv_ray.records import VARIANTS
from scaleinv_ray.report.summary import headline, judged, short, spoken
from scaleinv_ray.store import Store

SUMMARY: tuple[str, ...] = (
    "quantity", "verdict", "null_kind", "brief", "site", "probe", "law", "certified_change",
    "margin", "exponent", "fragile", "n_models", "n_seeds", "invariant",
)  # fmt: skip
TIDY: tuple[str, ...] = (
    "quantity", "probe", "site", "depth_bin", "variant", "model", "n_params", "seed", "step",
    "value", "stderr",
)  # fmt: skip
_PLACE = ["probe", "site", "variant"]


def summary(verdicts: pa.Table) -> pd.DataFrame:
    """One row a quantity: over the whole depth, at equal steps, without controls.

    Args:
        verdicts: a table of `VerdictRow`.
    """
    rows, _ = headline([row for row in judged(verdicts) if not row["control"]])
    rows = [row | {"verdict": str(row["verdict"]).replace("_", " ")} for row in rows]
    found = pd.DataFrame([[row[name] for name in SUMMARY] for row in rows], columns=list(SUMMARY))
    found["probe"] = found["probe"].fillna("-")  # weights have none
    return found.rename(
        columns={"null_kind": "beside_nulls", "brief": "why", "n_models": "n_sizes"}
    )


def sentences(store: Store, verdicts: pa.Table) -> list[str]:
    """What was found, as the head of the report says it."""
    quantities = {
        (of.name, q): what for of in REGISTRY.values() for q, what in of.quantities.items()
    }
    return spoken(judged(verdicts), _values_of(store), quantities).sentences


def values(store: Store, quantity: str, *, depth: str, comparison: str) -> pd.DataFrame:
    """The values of a quantity that count, one row a model and step.

    Args:
        store: of the run.
        quantity: its name.
        depth: all, early, middle or late.
        comparison: equal_steps, equal_tokens, equal_loss or final.

    Raises:
        ValueError: for a quantity that the run has not, and for a depth or comparison without it.
    """
    table = _values_of(store)
    known = pc.unique(table["quantity"]).to_pylist()
    if quantity not in known:
        raise ValueError(
            f"quantity: got {shown(quantity)}{nearest(quantity, known)}, "
            f"allowed: {listed(known, quantity)}"
        )
    own = table.filter(pc.and_(pc.equal(table["quantity"], quantity), table["counted"]))
    for name, got in (("depth_bin", depth), ("comparison", comparison)):
        have = sorted(pc.unique(own[name]).to_pylist())
        if have and got not in have:
            what = "depth" if name == "depth_bin" else name
            raise ValueError(f"{what}: got {shown(got)}, allowed: {listed(have, got)}")
        own = own.filter(pc.equal(own[name], got))
    found = own.select(TIDY).to_pandas().convert_dtypes(dtype_backend="numpy_nullable")
    return found.sort_values(["n_params", "seed", "step"], ignore_index=True)


def plot(found: pd.DataFrame, quantity: str) -> go.Figure:
    """A quantity over model size at the last step, trained beside the nulls.

    Args:
        found: rows of `values`.
        quantity: names the figure.

    Returns:
        A line a place and variant: means over seeds, with their standard errors.
    """
    trained = found[found["variant"] == "trained"]
    last = trained["step"].max()
    # untrained networks have no steps
    kept = found[(found["variant"] != "trained") | (found["step"] == last)]
    if "all" in set(kept["site"]):  # the others are its parts
        kept = kept[kept["site"] == "all"]
    figure = go.Figure()
    several = kept[["probe", "site"]].drop_duplicates().shape[0] > 1
    groups = dict(list(kept.groupby(_PLACE, dropna=False)))
    for probe, site, variant in sorted(groups, key=lambda at: VARIANTS.index(at[2])):
        rows = groups[probe, site, variant]
        over = rows.groupby("n_params")["value"].agg(["mean", "sem"]).reset_index()
        name = str(variant).replace("_", " ")
        figure.add_scatter(
            x=over["n_params"].tolist(),
            y=over["mean"].astype(float).tolist(),
            error_y={"array": over["sem"].astype(float).fillna(0.0).tolist()},
            name=f"{name}, {site}, {probe}" if several else name,
            mode="lines+markers",
        )
    sizes = sorted(set(kept["n_params"].tolist()))
    figure.update_xaxes(
        type="log", title="parameters", tickvals=sizes, ticktext=[short(n) for n in sizes]
    )
    figure.update_yaxes(title=_meaning(quantity).partition(";")[0])
    step = "" if pd.isna(last) else f" at step {last:,}"
    figure.update_layout(title=f"{quantity}{step}", template="plotly_white")
    return figure


def _meaning(quantity: str) -> str:
    declared: list[Quantity] = [
        of.quantities[quantity] for of in REGISTRY.values() if quantity in of.quantities
    ]
    return declared[0].meaning if len({of.meaning for of in declared}) == 1 else quantity


def _values_of(store: Store) -> pa.Table:
    return store.read_table("values.parquet", schema=SCHEMAS["values"])


def described(name: str, uri: str, verdicts: pa.Table) -> tuple[str, list[tuple[Any, ...]]]:
    """A run in a line, and how many quantities have which verdict."""
    counts = summary(verdicts)["verdict"].value_counts()
    rows = [(str(kind), int(n)) for kind, n in counts.items()]
    said = ", ".join(f"{n} {kind}" for kind, n in rows) or "nothing judged"
    return f"{name} at {uri}: {said}", rows
