"""Weight spectra against WeightWatcher 0.7.7: speed, and how far the exponents are apart.

The matrices of transformer blocks (attention, MLP) of three widths: Gaussian ones as they are
initialised, and heavy-tailed ones with planted directions as training leaves them. Compared are the
eigenvalues with the power-law fit (`analyze()` of the peer), in float64 and in float32, and
`weight_tail` and `weight_spikes` with their ten null matrices and the edge of the bulk against
`analyze(randomize=True, mp_fit=True)` with one. WeightWatcher lives in its own environment with its
own torch; both run on one thread, in the order A B A B. Targets: twice as fast in float64, 3.5
times in float32, 15 times with the null, alpha within 1e-3 in float64. Prints the ratios and, as
its last line, one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from _table import machine, record

from scaleinv_ray.invariants.common.covariance import gram_eigenvalues
from scaleinv_ray.invariants.weights import weight_spikes, weight_tail
from scaleinv_ray.invariants.weights.power_tail import fit_power_tail
from scaleinv_ray.records import WeightMatrix

PEER = Path.home() / ".cache" / "scaleinv_ray" / "bench" / "weightwatcher"
PINNED = "weightwatcher==0.7.7"
WIDTHS = (256, 512, 768)
NULL_WIDTHS = (256, 512)  # the peer's null of the widest takes a minute
ROUNDS = 2
TARGETS = {"float64": 2.0, "float32": 3.5, "with_null": 15.0}
LOOP = """
import contextlib, json, logging, sys, time, warnings
import numpy as np, torch
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
torch.set_num_threads(1)
with contextlib.redirect_stdout(sys.stderr):
    import weightwatcher
arrays = np.load(sys.argv[1])
layers = []
for key in arrays.files:
    layer = torch.nn.Linear(*arrays[key].shape[::-1], bias=False)
    layer.weight.data = torch.from_numpy(arrays[key])
    layers.append(layer)
model = torch.nn.Sequential(*layers)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    options = json.loads(line)
    with contextlib.redirect_stdout(sys.stderr):
        watcher = weightwatcher.WeightWatcher(model=model)
        start = time.perf_counter()
        details = watcher.analyze(plot=False, **options)
        seconds = time.perf_counter() - start
    alpha = details.sort_values("layer_id")["alpha"].tolist()
    print(json.dumps({"seconds": seconds, "alpha": alpha}), flush=True)
"""


def peer_python() -> Path:
    python = PEER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
    ready = subprocess.run(
        [str(python), "-c", "import torch, weightwatcher"], check=False, capture_output=True
    )
    if ready.returncode:
        torch = f"torch=={version('torch').split('+')[0]}"
        install = [str(python), "-m", "pip", "install", "--quiet", PINNED, torch]
        subprocess.run(install, check=True)
    return python


class Peer:
    """WeightWatcher in its own interpreter, one analysis for each line."""

    def __init__(self, python: Path, arrays: Path) -> None:
        self.process = subprocess.Popen(
            [str(python), "-c", LOOP, str(arrays)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._line()

    def _line(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self.process.wait()}")
        return json.loads(line)

    def analyze(self, **options: bool) -> dict:
        """Seconds and exponents of one analysis."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(options) + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """Ends the interpreter."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def matrices(widths: tuple[int, ...]) -> list[np.ndarray]:
    """Float32, as checkpoints are."""
    rng = np.random.default_rng(0)
    found = []
    for width in widths:
        for shape in [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]:
            if len(found) % 2:
                found.append((0.02 * rng.standard_normal(shape)).astype(np.float32))
                continue
            noise = rng.standard_t(4, shape)
            learned = rng.standard_normal((shape[0], 16)) * np.arange(1, 17) ** -1.0
            w_OI = noise + learned @ rng.standard_normal((16, shape[1]))
            found.append((0.02 * w_OI).astype(np.float32))
    return found


def spectra(weights: list[np.ndarray], precision: str) -> tuple[float, list[float]]:
    start = time.perf_counter()
    alpha = []
    for w_OI in weights:
        lambda_M = gram_eigenvalues(w_OI, precision=precision)
        alpha.append(fit_power_tail(lambda_M[lambda_M > 1e-5]).alpha)
    return time.perf_counter() - start, alpha


def with_null(weights: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for w_OI in weights:
        matrix = WeightMatrix(w_OI=w_OI)
        weight_tail(matrix, rng=np.random.default_rng(0))
        weight_spikes(matrix, rng=np.random.default_rng(0))
    return time.perf_counter() - start


def compare(folder: Path) -> dict[str, float]:
    python, weights, for_null = peer_python(), matrices(WIDTHS), matrices(NULL_WIDTHS)
    np.savez(folder / "weights.npz", *weights)
    np.savez(folder / "for_null.npz", *for_null)
    peer, peer_null = (Peer(python, folder / f"{n}.npz") for n in ("weights", "for_null"))
    seconds: dict[str, list[float]] = {k: [] for k in ("peer", "peer_null", *TARGETS)}
    for _ in range(ROUNDS):
        theirs = peer.analyze()
        seconds["peer"].append(theirs["seconds"])
        found, double = spectra(weights, "float64")
        seconds["float64"].append(found)
        found, single = spectra(weights, "float32")
        seconds["float32"].append(found)
        seconds["peer_null"].append(peer_null.analyze(randomize=True, mp_fit=True)["seconds"])
        seconds["with_null"].append(with_null(for_null))
    peer.close()
    peer_null.close()
    best = {name: min(values) for name, values in seconds.items()}
    difference = np.abs(np.array(double) - theirs["alpha"]).max()
    return best | {
        "alpha_difference": float(difference),
        "alpha_difference_float32": float(np.abs(np.array(single) - theirs["alpha"]).max()),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        found = compare(Path(name))
    ratio = {
        name: found["peer_null" if name == "with_null" else "peer"] / found[name]
        for name in TARGETS
    }
    rows = [
        (f"{name}, times as fast as WeightWatcher 0.7.7", f">= {target}", f"{ratio[name]:.1f}")
        for name, target in TARGETS.items()
    ]
    rows += [
        ("largest difference of alpha, float64", "<= 1e-3", f"{found['alpha_difference']:.1e}"),
        ("the same, float32", "-", f"{found['alpha_difference_float32']:.1e}"),
    ]
    for what, target, value in rows:
        print(f"{what}: {value} (target {target})")
    record("weights_vs_weightwatcher", rows)
    print(json.dumps({
        "bench": "weights_vs_weightwatcher", "widths": WIDTHS, "null_widths": NULL_WIDTHS,
        "seconds": {k: round(found[k], 3) for k in ("peer", "peer_null", *TARGETS)},
        "ratio": {k: round(v, 2) for k, v in ratio.items()}, "targets": TARGETS,
        "alpha_difference": found["alpha_difference"],
        "alpha_difference_float32": found["alpha_difference_float32"], "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
