"""A classifier of ten Gaussian clusters has nine outliers in its Gauss-Newton operator.

Sagun et al. 2017 and Papyan 2019: C - 1 eigenvalues of a C-class softmax classifier stand apart
from the bulk. ReLU nets with two hidden layers, three seeds or more, each beside its untrained twin
(step 0). Counted by `curvature.ggn_density`, which has a null and no knowledge of C; `gap` is the
ratio of the ninth to the tenth eigenvalue. The classes overlap: where a net has learnt its samples
by heart the operator is that of the few samples that are still in doubt, and the outliers go.
As expected is: nine at every seed and trained step, not nine at the untrained ones.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from _experiment import Net, Outcome, Row, in_processes, main, value, write_net

from scaleinv_ray.capture.curvature.products import curvature_records
from scaleinv_ray.invariants.curvature import ggn_density
from scaleinv_ray.records import Lanczos

sys.path.insert(0, str(Path(__file__).parents[2]))  # nets that tests share

from scripts.toy_models import Task, gaussian_clusters_task

CLASSES, INPUTS, HIDDEN, SAMPLES, SEPARATION = 10, 30, (40, 40), 600, 2.7
RATE = 0.1
STEPS = (0, 10, 30, 100, 300)
SHOWN = 20
LANCZOS = {"num_steps": 40, "num_probes": 3}


def descent(task: Task, steps: Sequence[int]) -> Iterator[tuple[int, Task]]:
    """The task at the steps of full-batch gradient descent."""
    leaves = {n: p.clone().requires_grad_() for n, p in task.parameters.items()}
    optimizer = torch.optim.SGD(leaves.values(), RATE)
    for step in range(max(steps) + 1):
        if step in steps:
            kept = {n: p.detach().clone() for n, p in leaves.items()}
            yield step, task._replace(parameters=kept)
        optimizer.zero_grad()
        task.losses(leaves, task.data).mean().backward()
        optimizer.step()


def spectrum(task: Task) -> Lanczos:
    (record,) = curvature_records(
        task.mean_loss(), task.parameters, [task.data], operator="ggn",
        generator=torch.Generator().manual_seed(0),
        labels={"site": "net", "num_layers": len(task.parameters)}, **LANCZOS,
    )  # fmt: skip
    return record


def largest(record: Lanczos) -> np.ndarray:
    """Largest eigenvalues; a probe vector sees each once, the one that found most is read."""
    lists = [
        np.sort(nodes_K[weights_K > 1e-12])[::-1]
        for nodes_K, weights_K in zip(record.nodes_RK, record.weights_RK, strict=True)
    ]
    return max(lists, key=len)[:SHOWN]


def net(seed: int, folder: Path, steps: Sequence[int]) -> list[Row]:
    """A seed at all steps, which are kept as records."""
    start = gaussian_clusters_task(
        CLASSES, num_inputs=INPUTS, hidden=HIDDEN, num_samples=SAMPLES, separation=SEPARATION,
        generator=torch.Generator().manual_seed(seed), dtype=torch.float64,
    )  # fmt: skip
    tasks = dict(descent(start, steps))
    kept = {step: spectrum(task) for step, task in tasks.items()}
    of = Net(f"clusters-s{seed}", seed, kept[0].dim, len(HIDDEN) + 1, max(HIDDEN))
    write_net(folder / "records", of, {s: [("ggn", "samples", [r])] for s, r in kept.items()})
    return [row(seed, step, tasks[step], record) for step, record in kept.items()]


def row(seed: int, step: int, task: Task, record: Lanczos) -> Row:
    measured = ggn_density(record, rng=np.random.default_rng(0))
    outputs = task.losses.outputs(task.parameters, task.data)
    found = largest(record)
    return {
        "seed": seed, "step": step, "loss": float(task.losses(task.parameters, task.data).mean()),
        "accuracy": float((outputs.argmax(dim=1) == task.data[1]).double().mean()),
        "outliers": value(measured, "outlier_count")[0],
        "gap": float(found[CLASSES - 2] / found[CLASSES - 1]), "largest": found.tolist(),
    }  # fmt: skip


def figure(rows: Sequence[Row]) -> go.Figure:
    """The largest eigenvalues by rank, untrained and last step."""
    drawn = go.Figure()
    last = max(r["step"] for r in rows)
    for r in rows:
        if r["step"] in {0, last}:
            drawn.add_scatter(
                x=list(range(1, len(r["largest"]) + 1)), y=r["largest"], mode="lines+markers",
                name=f"seed {r['seed']}, step {r['step']}",
                line={"dash": "dot" if r["step"] == 0 else "solid"},
            )  # fmt: skip
    drawn.add_vline(x=CLASSES - 0.5)
    drawn.update_yaxes(type="log", title="eigenvalue of the Gauss-Newton operator")
    drawn.update_xaxes(title="rank")
    return drawn


def experiment(folder: Path, quick: bool, workers: int) -> Outcome:
    """All seeds."""
    seeds, steps = (range(3), (0, 30)) if quick else (range(6), STEPS)
    found = in_processes(net, [(seed, folder, steps) for seed in seeds], workers)
    rows = [r for of_seed in found for r in of_seed]
    trained = [r["outliers"] for r in rows if r["step"]]
    untrained = [r["outliers"] for r in rows if not r["step"]]
    nine = CLASSES - 1
    summary = {
        "holds": set(trained) == {nine} and nine not in untrained, "expected": nine,
        "seeds": len(seeds), "trained": trained, "untrained": untrained,
        "least_gap": min(r["gap"] for r in rows if r["step"]),
    }  # fmt: skip
    shown = [{k: v for k, v in r.items() if k != "largest"} for r in rows]
    return Outcome(shown, {"eigenvalues": figure(rows)}, summary)


if __name__ == "__main__":
    main("gaussian_clusters", experiment)
