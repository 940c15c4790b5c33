"""What is left in a folder: the numbers as JSON, the circuit as JSON and DOT, the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from scaleinv_ray.report.circuits import circuits_page

_WIDEST = 6.0


def written(out: Path, found: Sequence[dict[str, Any]]) -> Iterator[Path]:
    """Writes it.

    Args:
        out: a folder, made where there is none.
        found: of each model, as `Circuits.as_json`.

    Yields:
        Files, the page first.
    """
    out.mkdir(parents=True, exist_ok=True)
    told = found[0] if len(found) == 1 else list(found)
    texts = {
        "report.html": circuits_page(found),
        "circuits.json": json.dumps(told, allow_nan=False) + "\n",
    }
    for n, model in enumerate(found):
        if model["edges"]:
            name = "graph" if len(found) == 1 else f"graph-{n}"
            graph = graph_of(model)
            linked = nx.node_link_data(graph, edges="edges")
            texts |= {
                f"{name}.json": json.dumps(linked, allow_nan=False) + "\n",
                f"{name}.dot": dot(graph),
            }
    for name, text in texts.items():
        file = out / name
        file.write_text(text, encoding="utf-8")
        yield file


def _json(told: Any) -> str:
    return json.dumps(told, allow_nan=False) + "\n"


def graph_of(model: dict[str, Any]) -> nx.DiGraph:
    """The scored edges of a model, between components; a query, key or value is its head.

    Args:
        model: as `Circuits.as_json`, with edges.

    Returns:
        Nodes with `effect`, edges with `estimate`, `effect` where it is exact, and `through`: the
        reader. Two edges between the same pair are one, with both readers and summed estimates.
    """
    graph = nx.DiGraph()
    for component in model["components"]:
        graph.add_node(component["name"], effect=component["effect"], layer=component["layer"])
    exact = {edge["name"]: edge["effect"] for edge in model["edges"]}
    for edge in model["scored_edges"]:
        writer, reader = edge["name"].split("->")
        node = f"h{reader[1:]}" if reader[0] in "qkv" else reader
        known = graph.get_edge_data(writer, node, {"estimate": 0.0, "through": []})
        effects = known.get("effect"), exact.get(edge["name"])
        more = (
            {"effect": sum(x or 0.0 for x in effects)}
            if any(x is not None for x in effects)
            else {}
        )
        graph.add_edge(
            writer,
            node,
            estimate=known["estimate"] + edge["estimate"],
            through=[*known["through"], reader],
            **more,
        )
    return graph


def dot(graph: nx.DiGraph) -> str:
    """The same for Graphviz: widths as sizes of estimates, dashes where they are negative."""
    most = max((abs(data["estimate"]) for *_, data in graph.edges(data=True)), default=1.0) or 1.0
    lines = ["digraph circuit {", "  rankdir=BT;"]
    lines += [f'  "{node}";' for node in graph]
    for writer, reader, data in graph.edges(data=True):
        width = max(_WIDEST * abs(data["estimate"]) / most, 0.1)
        style = ', style="dashed"' if data["estimate"] < 0 else ""
        label = ",".join(data["through"])
        lines.append(
            f'  "{writer}" -> "{reader}" [label="{label}", penwidth={width:.2f}, '
            f"weight={abs(data['estimate']):.4g}{style}];"
        )
    return "\n".join([*lines, "}", ""])
