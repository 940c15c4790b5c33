"""Rips persistence, merge heights and landmarks against gudhi's own calls, ripser.py and giotto-ph.

All get the same points and one thread; each engine waits for each task in a process of its own, in
its own environment, and they compute one after the other. Ours includes the division by the median
distance. Memory is the growth of the peak of such a process by its first call on the whole input.

    scripts/bench/topology_vs_peers.py [--scale 1.0] [--rounds 2]

`--scale .2` takes a fifth of the points. Prints as its last line one JSON object.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _table import machine, record

PEERS = {"ripser": ["ripser==0.6.15"], "giotto": ["giotto-ph==0.2.4"]}
CACHE = Path.home() / ".cache" / "scaleinv_ray" / "bench"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)

SERVER = """
import json, resource, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
answer, sys.stdout = sys.stdout, sys.stderr
engine, task, dimension, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if engine == "ours":
    from scaleinv_ray.invariants.topology.landmarks import farthest_points
    from scaleinv_ray.invariants.topology.merge_heights import merge_heights
    from scaleinv_ray.invariants.common.persistent_homology import (
        median_scaled_distances,
        rips_diagram,
    )
    def rips(x):
        bounded = task == "bounded"
        found = rips_diagram(
            median_scaled_distances(x), max_dimension=dimension, memory_bounded=bounded)
        return [np.stack([found.birth, found.death], 1)[found.dimension == k]
                for k in range(dimension + 1)]
    def landmarks(x):
        return farthest_points(x, count=len(x) // 10).index_L
    run = {"h0": merge_heights, "landmarks": landmarks}.get(task, rips)
elif engine == "gudhi":
    import gudhi
    from gudhi.sklearn import RipsPersistence
    def rips(x):
        call = RipsPersistence(homology_dimensions=range(dimension + 1), homology_coeff_field=2)
        return call.fit_transform([x])[0]
    def landmarks(x):
        chosen = gudhi.subsampling.choose_n_farthest_points(
            points=x, nb_points=len(x) // 10, starting_point=0)
        place = {row.tobytes(): i for i, row in enumerate(x)}
        return np.array([place[np.asarray(row).tobytes()] for row in chosen])
    run = landmarks if task == "landmarks" else rips
elif engine == "ripser":
    from ripser import ripser
    run = lambda x: ripser(x, maxdim=dimension, coeff=2)["dgms"]
else:
    from gph import ripser_parallel
    run = lambda x: ripser_parallel(x, maxdim=dimension, coeff=2, n_threads=1)["dgms"]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
def flat(values):
    bars = [np.asarray(b, dtype=float) for b in values] if isinstance(values, list) else [values]
    bars = [np.atleast_1d(b[:, 1] - b[:, 0]) if b.ndim == 2 else b for b in bars]
    bars = np.concatenate(bars).astype(float)
    return bars if task == "landmarks" else np.sort(bars[np.isfinite(bars)])
x = np.load(path)
run(x[:40])
before = peak()
grown = None
for _ in sys.stdin:
    start = time.perf_counter()
    values = run(x)
    seconds = time.perf_counter() - start
    grown = peak() - before if grown is None else grown
    print(json.dumps([seconds, grown, flat(values).tolist()]), file=answer, flush=True)
"""


class Task(NamedTuple):
    """What is computed: its name in SERVER, top dimension, points, and who computes it."""

    kind: str
    dimension: int
    x_PD: np.ndarray
    engines: tuple[str, ...]


class Found(NamedTuple):
    """Best seconds, MB of the first call, and bar lengths (or landmarks) of an engine."""

    seconds: float
    megabytes: float
    values: np.ndarray


def interpreter(engine: str) -> Path | None:
    """The engine's interpreter, in an environment made once; None where it does not install."""
    if engine not in PEERS:
        return Path(sys.executable)
    folder = CACHE / PEERS[engine][0].replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", *PEERS[engine]]
        if subprocess.run(install, check=False).returncode:
            return None
        done.touch()
    return python


class Engine:
    """An engine that waits in its own process, warm, for lines that ask it to compute."""

    def __init__(self, python: Path, engine: str, task: Task, points: Path) -> None:
        given = [engine, task.kind, str(task.dimension), str(points)]
        self.process = subprocess.Popen(
            [str(python), "-c", SERVER, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        self.answers: list[list] = []

    def __call__(self) -> None:
        """Computes once."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print("go", file=self.process.stdin, flush=True)
        self.answers.append(json.loads(self.process.stdout.readline()))

    def close(self) -> Found:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        seconds = min(answer[0] for answer in self.answers)
        return Found(seconds, self.answers[0][1], np.array(self.answers[0][2]))


def compare(task: Task, rounds: int) -> dict[str, Found]:
    """Every engine's result of a task."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack():
        points = Path(folder) / "points.npy"
        np.save(points, task.x_PD)
        engines = {
            name: Engine(python, name, task, points)
            for name in task.engines
            if (python := interpreter(name)) is not None
        }
        for _ in range(rounds):
            for engine in engines.values():
                engine()
        return {name: engine.close() for name, engine in engines.items()}


def disagreement(own: Found, other: Found, scale: float) -> float:
    """Largest difference of sorted bar lengths, in median distances; ours drops rounding bars."""
    lengths = other.values / scale
    lengths = lengths[len(lengths) - len(own.values) :] if len(own.values) else lengths[:0]
    return float(np.abs(own.values - lengths).max(initial=0))


def from_simplex_tree() -> float:
    """Largest difference from the naive complex, over 20 clouds of 40 points."""
    import gudhi

    from scaleinv_ray.invariants.common.persistent_homology import (
        median_scaled_distances,
        rips_diagram,
    )

    worst = 0.0
    for seed in range(20):
        x_PD = np.random.default_rng(seed).normal(size=(40, 5))
        distance_PP = median_scaled_distances(x_PD - x_PD.mean(axis=0))
        tree = gudhi.RipsComplex(distance_matrix=distance_PP).create_simplex_tree(2)
        tree.compute_persistence(homology_coeff_field=2)
        found = rips_diagram(distance_PP, max_dimension=1)
        for k in (0, 1):
            bars = tree.persistence_intervals_in_dimension(k)
            deaths = np.sort(bars[np.isfinite(bars[:, 1]), 1])
            worst = max(worst, np.abs(np.sort(found.death[found.dimension == k]) - deaths).max())
    return float(worst)


def median_distance(x_PD: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(x_PD)))


def tasks(scale: float) -> dict[str, Task]:
    """The clouds: Gaussian ones, and a flat torus, whose complexes are the largest."""
    rng = np.random.default_rng(0)

    def cloud(num_points: int, width: int) -> np.ndarray:
        x_PD = rng.normal(size=(round(num_points * scale), width))
        return x_PD - x_PD.mean(axis=0)

    angle = 2 * np.pi * rng.random((round(1000 * scale), 2))
    torus = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    everyone = ("ours", "gudhi", "ripser", "giotto")
    large = cloud(5000, 256)
    return {
        "H0 n=5000": Task("h0", 0, large, ("ours", "gudhi", "ripser")),
        "H0-1 n=1000": Task("rips", 1, cloud(1000, 64), everyone),
        "H0-1 n=2000": Task("rips", 1, cloud(2000, 64), everyone),
        "H0-2 n=300": Task("rips", 2, cloud(300, 64), everyone),
        "H0-1 torus n=1000": Task("rips", 1, torus, everyone),
        "H0-1 torus n=1000 memory-bounded": Task("bounded", 1, torus, ("ours", "ripser")),
        "landmarks 500 of 5000": Task("landmarks", 0, large, ("ours", "gudhi")),
    }


TARGETS = {
    # task: (engine, figure, target); speedup = its time / ours, share = ours / its
    "H0 n=5000": [
        ("gudhi", "speedup", ">= 3.5"),
        ("ripser", "speedup", ">= 7"),
        ("ours", "megabytes", "<= 50"),
    ],
    "H0-1 n=1000": [("gudhi", "share of time", "<= 1.05"), ("ripser", "speedup", ">= 1.5")],
    "H0-1 n=2000": [("gudhi", "share of time", "<= 1.05"), ("ripser", "speedup", ">= 1.5")],
    "H0-2 n=300": [("ripser", "speedup", ">= 6")],
    "H0-1 torus n=1000": [("gudhi", "share of time", "-"), ("ripser", "speedup", "-")],
    "H0-1 torus n=1000 memory-bounded": [
        ("ripser", "share of memory", "<= 0.2"),
        ("ripser", "share of time", "-"),
    ],
    "landmarks 500 of 5000": [("gudhi", "speedup", ">= 5")],
}


def figure(found: dict[str, Found], engine: str, kind: str) -> float:
    own, other = found["ours"], found[engine]
    return {
        "speedup": other.seconds / own.seconds,
        "share of time": own.seconds / other.seconds,
        "megabytes": own.megabytes,
        "share of memory": own.megabytes / other.megabytes,
    }[kind]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    rows: list[tuple[str, str, str]] = []
    figures: dict[str, dict[str, object]] = {}
    worst = {"ripser": 0.0, "gudhi": 0.0}
    for name, task in tasks(asked.scale).items():
        found = compare(task, asked.rounds)
        scale = 1.0 if task.kind == "h0" else median_distance(task.x_PD)
        for engine in worst.keys() & found.keys():
            if task.kind == "landmarks":
                assert np.array_equal(found["ours"].values, found[engine].values)
            else:
                apart = disagreement(found["ours"], found[engine], scale)
                worst[engine] = max(worst[engine], apart)
        figures[name] = {k: [round(f.seconds, 4), round(f.megabytes, 1)] for k, f in found.items()}
        print(name, figures[name], flush=True)
        wanted = [*TARGETS[name], *([("giotto", "speedup", "-")] if "giotto" in found else [])]
        for engine, kind, target in wanted:
            against = "ours" if engine == "ours" else f"against {engine}"
            value = figure(found, engine, kind)
            rows.append((f"{name}, {kind}, {against}", target, f"{value:.2f}"))
    tree = from_simplex_tree()
    rows.append(("largest difference from SimplexTree", "1e-12", f"{tree:.1e}"))
    rows.append(("largest difference from gudhi's own call", "-", f"{worst['gudhi']:.1e}"))
    rows.append(("largest difference from ripser.py (float32)", "1e-6", f"{worst['ripser']:.1e}"))
    if interpreter("giotto") is None:
        rows.append(("giotto-ph 0.2.4", "-", "does not install under this Python"))
    for row in rows:
        print(" | ".join(row))
    if asked.scale == 1:
        record("topology_vs_peers", rows)
    print(json.dumps({
        "bench": "topology_vs_peers", "scale": asked.scale,
        "seconds_and_megabytes": figures, "simplex_tree": tree, "difference": worst,
        "figures": {what: found for what, _, found in rows}, "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
