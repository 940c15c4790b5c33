"""Gride and TwoNN of 5000 points in 256 dimensions, against dadapy and scikit-dimension.

Targets: at most 1.1 of dadapy's time, at most 1 / 2.5 of scikit-dimension's, and the same values to
1e-3. All three get the same centred points and find 128 neighbours; no one counts duplicates. The
peers run one after the other in environments and interpreters of their own, on one thread. The
whole invariant (duplicates, neighbours, errors from ten parts) is timed beside.

    scripts/bench/dimension_vs_peers.py [--points 5000] [--width 256] [--rounds 5]

Prints as its last line one JSON object.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy; the peers inherit it
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _peer import Peer, interpreter
from _table import machine, record

from scaleinv_ray.invariants.common.clouds import neighbour_distances
from scaleinv_ray.invariants.geometry import gride_dimension, neighbour_dimension
from scaleinv_ray.records import Activations

ORDERS = [1, 2, 4, 8, 16, 32, 64]
Numbers = dict[str, list[float]]
PEERS = {"dadapy": "dadapy==0.3.4", "scikit-dimension": "scikit-dimension==0.5.0"}

SERVER = """
import json, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
answer, sys.stdout = sys.stdout, sys.stderr
x = np.load(sys.argv[2])
if sys.argv[1] == "dadapy":
    from dadapy import IdEstimation
    def run():
        data = IdEstimation(x, maxk=128, n_jobs=1, verbose=False)
        data.compute_distances(maxk=128)
        gride = data.return_id_scaling_gride(range_max=128)[0]
        return [float(data.compute_id_2NN(algorithm="ml", mu_fraction=1.0)[0]), *map(float, gride)]
else:
    import skdim
    def run():
        two = skdim.id.TwoNN(discard_fraction=0.0, method="mle").fit(x)
        gride = skdim.id.GRIDE(multiscale=True, range_max=128).fit(x)
        return [float(two.dimension_), *map(float, gride.dimension_scales_)]
run()
for _ in sys.stdin:
    start = time.perf_counter()
    values = run()
    print(json.dumps([time.perf_counter() - start, values]), file=answer, flush=True)
"""


class Warm(Peer):
    """A peer that waits in its own process, warm, for lines that ask it to compute."""

    def __init__(self, name: str, points: Path) -> None:
        super().__init__(interpreter(PEERS[name]), SERVER, name, str(points))

    def __call__(self) -> tuple[float, list[float]]:
        """Seconds, and TwoNN followed by Gride at n1 = 1, 2, 4, .., 64."""
        seconds, values = self.ask("go")
        return seconds, values


def ours(x_PD: np.ndarray) -> list[float]:
    distance_PK = neighbour_distances(x_PD, num_neighbours=2 * ORDERS[-1])
    gride = [gride_dimension(distance_PK, neighbour_order=n1) for n1 in ORDERS]
    return [gride[0], *gride]  # at n1 = 1 Gride is TwoNN


def timed(function: Callable[[], list[float]]) -> tuple[float, list[float]]:
    start = time.perf_counter()
    values = function()
    return time.perf_counter() - start, values


def whole_invariant(x_PD: np.ndarray) -> float:
    index = np.arange(len(x_PD))
    cloud = Activations(x_TD=x_PD, sequence_T=index, position_T=index, sampling="cloud")
    start = time.perf_counter()
    size = {"num_points": len(x_PD), "num_subsamples": max(1, len(x_PD) // 500)}
    neighbour_dimension(cloud, rng=np.random.default_rng(0), **size)
    return time.perf_counter() - start


def curved_cloud(points: int, width: int) -> np.ndarray:
    """A curved cloud of dimension 10: what the estimators are made for."""
    rng = np.random.default_rng(0)
    latent_PD = rng.normal(size=(points, 11))
    latent_PD /= np.linalg.norm(latent_PD, axis=1, keepdims=True)
    x_PD = latent_PD @ np.linalg.qr(rng.normal(size=(width, 11)))[0].T
    return x_PD - x_PD.mean(axis=0)


def compared(
    x_PD: np.ndarray, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of all rounds, and the values, of ours and of the peers."""
    seconds: Numbers = {name: [] for name in ("scaleinv_ray", *PEERS)}
    values: Numbers = {}
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "points.npy"
        np.save(points, x_PD)
        peers = {name: Warm(name, points) for name in PEERS}
        ours(x_PD)
        for _ in range(rounds):
            for name in seconds:
                took, values[name] = peers[name]() if name in peers else timed(lambda: ours(x_PD))
                seconds[name].append(took)
        for peer in peers.values():
            peer.close()
    return seconds, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("points", 5000), ("width", 256), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    x_PD = curved_cloud(asked.points, asked.width)
    seconds, values = compared(x_PD, asked.rounds)
    best = {name: min(of) for name, of in seconds.items()}
    own = np.array(values["scaleinv_ray"])
    apart = {name: float(np.abs(np.array(values[name]) / own - 1).max()) for name in PEERS}
    against_dadapy = best["scaleinv_ray"] / best["dadapy"]
    against_skdim = best["scikit-dimension"] / best["scaleinv_ray"]
    whole = whole_invariant(x_PD)
    for name, of in seconds.items():
        found = " ".join(f"{v:.3f}" for v in values[name])
        print(f"{name:17s} best of {len(of)}: {best[name]:.3f} s  TwoNN, Gride 1..64: {found}")
    print(f"time / dadapy's {against_dadapy:.2f}, scikit-dimension's / time {against_skdim:.2f}")
    shape = f"{asked.points} x {asked.width}"
    record(
        "dimension_vs_peers",
        [
            (f"Gride + TwoNN, {shape}, time / dadapy's", "<= 1.1", f"{against_dadapy:.2f}"),
            (
                f"Gride + TwoNN, {shape}, scikit-dimension's / time",
                ">= 2.5",
                f"{against_skdim:.2f}",
            ),
            ("largest relative difference from dadapy", "1e-3", f"{apart['dadapy']:.1e}"),
            ("the same from scikit-dimension", "-", f"{apart['scikit-dimension']:.1e}"),
            ("whole invariant with duplicates and errors, s", "-", f"{whole:.2f}"),
        ],
    )
    print(json.dumps({
        "bench": "dimension_vs_peers", "points": asked.points, "width": asked.width,
        "seconds": {n: round(s, 4) for n, s in best.items()}, "whole_invariant_s": round(whole, 3),
        "ratio_dadapy": round(against_dadapy, 3), "speedup_skdim": round(against_skdim, 3),
        "relative_difference": apart, "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
