"""Resolvent counts and residue norms of Jacobians against one LAPACK geev of the same matrices.

`resolvent_counts`, then `residue_overlap`, are called on one record, as the measurements of a
capture file are, with null models, deflation of the all-ones mode and errors; geev
(scipy.linalg.eig) gives eigenvalues, right and left vectors of the whole matrices. In turn, on one
thread, new matrices every time. Target: at most 1.1 of geev at widths 64 to 512. The null's draws
depend on the width alone and are remembered: the first record of a width is given apart. The last
line is one JSON object.
"""

import argparse
import json
import statistics
import time

import numpy as np
from _table import machine, record
from scipy.linalg import eig
from threadpoolctl import threadpool_limits

from scaleinv_ray.invariants.holomorphy import residue_overlap, resolvent_counts
from scaleinv_ray.records import Jacobians

TARGET = 1.1
REPEATS = {64: 10, 128: 6, 256: 3, 512: 3}
POSITIONS = {64: 64, 128: 64, 256: 32, 512: 8}
"""Jacobians of a record; captures have 64 by default, more than fit the time at large widths."""


def make(width: int, rng: np.random.Generator) -> Jacobians:
    """Near-identity Jacobians with the all-ones direction as an eigenvector of eigenvalue 1."""
    noise_TDD = 0.4 * rng.standard_normal((POSITIONS[width], width, width)) / np.sqrt(width)
    noise_TDD -= noise_TDD.mean(axis=2, keepdims=True)
    return Jacobians(j_TDD=np.eye(width) + noise_TDD, removes_mean=True)


def ours(jacobians: Jacobians) -> np.ndarray:
    """Seconds of both invariants."""
    counts = resolvent_counts(jacobians, rng=np.random.default_rng(0), near_radius=0.1)
    residue_overlap(jacobians, rng=np.random.default_rng(0))
    return np.array(counts.values["spectral_radius"].samples)


def peer(jacobians: Jacobians) -> np.ndarray:
    """Spectral radii by geev, with the vectors of both sides."""
    found = [eig(a_DD, left=True, right=True) for a_DD in jacobians.j_TDD]
    return np.array([abs(pole_D).max() for pole_D, _, _ in found])


def timed(function, jacobians: Jacobians) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function(jacobians)
    return time.perf_counter() - start, result


def run(width: int, repeats: int) -> dict[str, float]:
    rng = np.random.default_rng(width)
    peer(make(width, rng))
    first_s = timed(ours, make(width, rng))[0]
    ours_s, peer_s, disagreement = [], [], 0.0
    for _ in range(repeats):
        jacobians = make(width, rng)
        a_s, a = timed(ours, jacobians)
        b_s, b = timed(peer, jacobians)
        ours_s.append(a_s)
        peer_s.append(b_s)
        disagreement = max(disagreement, float(abs(a - b).max()))
    pairs = sorted(a / b for a, b in zip(ours_s, peer_s, strict=True))
    return {
        "ours_ms": round(1e3 * statistics.median(ours_s) / POSITIONS[width], 3),
        "geev_ms": round(1e3 * statistics.median(peer_s) / POSITIONS[width], 3),
        "ratio": round(statistics.median(pairs), 3),
        "ratio_of_sums": round(sum(ours_s) / sum(peer_s), 3),
        "first_record_ratio": round(first_s / statistics.median(peer_s), 3),
        "disagreement": disagreement,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--widths", type=int, nargs="+", default=list(REPEATS), choices=REPEATS)
    parser.add_argument("--dry-run", action="store_true", help="do not write docs/benchmarks.md")
    options = parser.parse_args()
    found = {}
    for width in options.widths:
        with threadpool_limits(1):
            found[width] = run(width, REPEATS[width])
        print(width, found[width], flush=True)
    if not options.dry_run:
        record(
            "holomorphy_vs_lapack",
            [
                (
                    f"counts, residue norms and nulls of a {w} x {w} Jacobian / geev",
                    f"<= {TARGET}",
                    f"{f['ratio']} ({f['ours_ms']} / {f['geev_ms']} ms; first of a width "
                    f"{f['first_record_ratio']}; spectral radii differ by {f['disagreement']:.0e})",
                )
                for w, f in found.items()
            ],
        )
    print(json.dumps({
        "bench": "holomorphy_vs_lapack", "target": TARGET, "widths": found, "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
