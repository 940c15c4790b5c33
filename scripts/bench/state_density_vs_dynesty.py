"""Volumes of small loss of three singular polynomials, against nested sampling by dynesty.

Target: at most a tenth of dynesty's time. Both go down to K = 1e-16 from the same uniform prior,
dynesty with so many live points that its log V is as precise, level by level, as that of the subset
simulation (perfect moves assumed of both). The peer runs in an environment and interpreter of its
own, on one thread, its loss in plain floats, which suits its calls point by point, and samples by
random slices: its default, uniform in ellipsoids, takes minutes in the valley of the cusp, and
random walks come out 15 % off there. The law with its errors is fitted within our time; what both
are compared by is the slope of log V over log K.

    scripts/bench/state_density_vs_dynesty.py [--particles 500] [--rounds 2]

Prints as its last line one JSON object.
"""

import argparse
import json
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy; the peer inherits it
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _peer import Peer, interpreter
from _table import machine, record
from scipy.special import polygamma

from scaleinv_ray.singularities import Singularity, subset_simulation, toys, volume_law

PEER = "dynesty==3.1.0"
NAMES = ("w1^2 + w2^4", "(w1^2 - w2^3)^2", "(4 |w|^2 - 1)^2")
SMALLEST = 1e-16
BLOCKS = 20

SERVER = """
import json, math, sys, time, warnings
import numpy as np
from dynesty import NestedSampler
warnings.simplefilter("ignore")
answer, sys.stdout = sys.stdout, sys.stderr
LOSSES = {
    "w1^2 + w2^4": (2, lambda x, y: x * x + y * y * y * y),
    "(w1^2 - w2^3)^2": (2, lambda x, y: (x * x - y * y * y) ** 2),
    "(4 |w|^2 - 1)^2": (3, lambda x, y, z: (4 * (x * x + y * y + z * z) - 1) ** 2),
}
def run(name, live, smallest, seed):
    size, loss = LOSSES[name]
    # K^-2 has no finite integral here, so that only logl_max ends the run.
    def logl(w):
        return -2 * math.log(max(loss(*w.tolist()), 1e-300))
    sampler = NestedSampler(
        logl, lambda u: 2 * u - 1, size, nlive=live, sample="rslice",
        rstate=np.random.default_rng(seed),
    )
    sampler.run_nested(
        logl_max=-2 * math.log(smallest), dlogz=1e-9, add_live=False, print_progress=False
    )
    found = sampler.results
    return found.logvol, -found.logl / 2, int(np.sum(found.ncall))
for line in sys.stdin:
    asked = json.loads(line)
    start = time.perf_counter()
    logvol, log_k, calls = run(**asked)
    took = time.perf_counter() - start
    lower = logvol < logvol[-1] / 2
    slope = np.polyfit(log_k[lower], logvol[lower], 1)[0]
    print(json.dumps([took, float(slope), calls, float(logvol[-1])]), file=answer, flush=True)
"""


class Dynesty(Peer):
    """Dynesty in a process of its own."""

    def __init__(self) -> None:
        super().__init__(interpreter(PEER), SERVER)

    def __call__(self, name: str, live: int, *, seed: int, smallest: float) -> list[float]:
        """Seconds, slope, calls of the loss and log V at the end."""
        found: list[float] = self.ask({
            "name": name,
            "live": live,
            "smallest": smallest,
            "seed": seed,
        })
        return found


def ours(toy: Singularity, particles: int, *, seed: int, smallest: float) -> list[float]:
    """Seconds with the fit, slope, llc at the known multiplicity and its error."""
    start = time.perf_counter()
    found = subset_simulation(
        toy.potential,
        toy.num_variables,
        rng=np.random.default_rng(seed),
        num_particles=particles,
        num_blocks=BLOCKS,
        smallest_volume=1e-300,
        smallest_loss=smallest,
    )
    law = volume_law(found, max_multiplicity=toy.num_variables)
    took = time.perf_counter() - start
    lower = found.log_volume_L < found.log_volume_L[-1] / 2
    log_eps_L = found.log_eps_BL.mean(axis=0)
    slope = float(np.polyfit(log_eps_L[lower], found.log_volume_L[lower], 1)[0])
    llc = law.llc_by_multiplicity[toy.coefficient.multiplicity]
    return [took, slope, llc.value, llc.stderr or 0.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    size = asked.particles // BLOCKS
    # Variance of log V gained per unit of log V: 1 / live points for nested sampling.
    variance = float(polygamma(1, size // 2 + 1) - polygamma(1, size + 1)) / BLOCKS
    live = round(np.log(2) / variance)
    toy_of = {toy.name: toy for toy in toys()}
    peer = Dynesty()
    peer("w1^2 + w2^4", 50, seed=0, smallest=1e-2)  # warm
    ours(toy_of["w1^2 + w2^4"], 400, seed=0, smallest=1e-6)
    rows, figures, ratios = [], {}, []
    for name in NAMES:
        own, other = [], []
        for seed in range(asked.rounds):
            own.append(ours(toy_of[name], asked.particles, seed=seed, smallest=SMALLEST))
            other.append(peer(name, live, seed=seed, smallest=SMALLEST))
        seconds, seconds_peer = min(o[0] for o in own), min(o[0] for o in other)
        ratio = seconds_peer / seconds
        ratios.append(ratio)
        exact = float(toy_of[name].coefficient.llc)
        slope, slope_peer = (float(np.mean([o[1] for o in of])) for of in (own, other))
        print(
            f"{name:18s} {seconds:.2f} s, dynesty {seconds_peer:.2f} s ({other[0][2]:.0f} calls): "
            f"{ratio:.1f} times; slope {slope:.4f}, dynesty {slope_peer:.4f}, exact {exact:.4f}; "
            f"llc {own[0][2]:.4f} +- {own[0][3]:.4f}"
        )
        rows.append((f"{name}: dynesty's time / time", ">= 10", f"{ratio:.1f}"))
        found = f"{slope / exact - 1:+.1%}, {slope_peer / exact - 1:+.1%}"
        rows.append((f"{name}: slope / llc - 1, ours, dynesty's", "-", found))
        figures[name] = {
            "seconds": round(seconds, 3), "seconds_dynesty": round(seconds_peer, 3),
            "ratio": round(ratio, 2), "slope": slope, "slope_dynesty": slope_peer, "llc": exact,
        }  # fmt: skip
    peer.close()
    record("state_density_vs_dynesty", rows)
    print(json.dumps({
        "bench": "state_density_vs_dynesty", "particles": asked.particles, "live_points": live,
        "toys": figures, "lowest_ratio": round(min(ratios), 2), "target": 10.0,
        "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
