"""Greedy coarse-graining against a plain Python loop, on the same inputs, one thread, A B A B.

Pairing: nine correlation matrices (the replicates of a jackknife) against a loop over sorted
pairs, written as one writes it (indices taken out of arrays), and against the same loop after its
indices are turned into lists. Whole: rows to alpha_tilde and mu with their errors over eight
blocks, against the loop on the rows themselves: correlation, pairs, sums of columns, variances,
eigenvalues cluster by cluster, anew for every block left out (N = 1024: without blocks).
Targets: 10 times the plain loop. The last line is one JSON object.
"""

import json
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from _table import machine, record

from scaleinv_ray.invariants.common.block_replicates import block_covariances, replicates
from scaleinv_ray.invariants.renormalization.coarse_graining import correlation, greedy_pairs
from scaleinv_ray.invariants.renormalization.scaling_exponents import largest_cluster, scaling

SIZES = (128, 256, 512, 1024)
TARGET = 10.0
Pairs = list[tuple[int, int]]


def plain_pairs(similarity: np.ndarray) -> Pairs:
    """A loop over the pairs in order of falling similarity."""
    rows, columns = np.triu_indices(len(similarity), 1)
    free, pairs = np.ones(len(similarity), dtype=bool), []
    for k in np.argsort(-similarity[rows, columns]):
        i, j = rows[k], columns[k]
        if free[i] and free[j]:
            free[i] = free[j] = False
            pairs.append((int(i), int(j)))
    return pairs


def list_pairs(similarity: np.ndarray) -> Pairs:
    """The same over Python lists, ended with the last pair."""
    rows, columns = np.triu_indices(len(similarity), 1)
    order = np.argsort(-similarity[rows, columns])
    free, pairs = [True] * len(similarity), []
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if free[i] and free[j]:
            free[i] = free[j] = False
            pairs.append((i, j))
            if len(pairs) == len(similarity) // 2:
                break
    return pairs


def loop_exponents(x: np.ndarray, *, largest: int) -> tuple[float, float]:
    """alpha_tilde and mu on rows, level by level and cluster by cluster."""
    clusters, sums, sizes = [[i] for i in range(x.shape[1])], x, []
    variances, slopes = [], []
    while True:
        size = len(clusters[0])
        sizes.append(size)
        variances.append(np.mean([column.var() for column in sums.T]))
        if size >= 16:
            spectra = [np.linalg.eigvalsh(np.corrcoef(x[:, c].T))[::-1] for c in clusters]
            rank = np.arange(2, int(np.ceil(0.4 * size)))
            value = np.mean(spectra, axis=0)[rank - 1]
            slopes.append(np.polyfit(np.log(size / rank), np.log(value), 1)[0])
        if size == largest:
            break
        pairs = plain_pairs(np.corrcoef(sums.T))
        sums = np.stack([sums[:, i] + sums[:, j] for i, j in pairs], axis=1)
        clusters = [clusters[i] + clusters[j] for i, j in pairs]
    return float(np.polyfit(np.log(sizes), np.log(variances), 1)[0]), float(np.mean(slopes))


def critical_rows(num_units: int, num_rows: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian field on a ring with spectrum k^-1/2."""
    white = np.fft.rfft(rng.standard_normal((num_rows, num_units), dtype=np.float32))
    wave = np.maximum(np.arange(white.shape[1]), 1.0).astype(np.float32)
    return np.fft.irfft(white * wave**-0.25, n=num_units).astype(np.float32)


def seconds(*functions: Callable[[], object], rounds: int) -> tuple[list[float], list]:
    """Least wall time of each, in turn A B C A B C, and results."""
    times: list[list[float]] = [[] for _ in functions]
    results: list = [None] * len(functions)
    for _ in range(rounds):
        for k, function in enumerate(functions):
            start = time.perf_counter()
            results[k] = function()
            times[k].append(time.perf_counter() - start)
    return [min(t) for t in times], results


def bench_pairing(num_units: int, rng: np.random.Generator) -> dict[str, float]:
    """Nine matrices: ratio of the loops' time to ours, and pairs found by one of them only."""
    x_TN = critical_rows(num_units, 50 * num_units, rng)
    rows_B = np.array_split(np.arange(len(x_TN)), 8)
    similarity = correlation(block_covariances(x_TN, rows_B))
    (ours, plain, lists), found = seconds(
        lambda: greedy_pairs(similarity),
        lambda: [plain_pairs(s) for s in similarity],
        lambda: [list_pairs(s) for s in similarity],
        rounds=2 if num_units > 256 else 5,
    )
    sets = [[{frozenset(map(int, pair)) for pair in pairs} for pairs in way] for way in found]
    different = sum(len(a ^ b) + len(a ^ c) for a, b, c in zip(*sets, strict=True))
    return {
        "ours_ms": 1e3 * ours,
        "ratio": plain / ours,
        "ratio_to_lists": lists / ours,
        "pairs_different": different,
    }


def bench_whole(num_units: int, rng: np.random.Generator) -> dict[str, float]:
    """Rows to exponents: ratio of times, and the greatest difference of an exponent."""
    x_TN = critical_rows(num_units, 50 * num_units, rng)
    rows_B = np.array_split(np.arange(len(x_TN)), 8 if num_units <= 512 else 1)
    largest = largest_cluster(num_units)

    def ours() -> np.ndarray:
        found = scaling(block_covariances(x_TN, rows_B), largest=largest)
        return np.stack([found.alpha_R, found.mu_R], axis=1)

    def loop() -> np.ndarray:
        kept = [np.concatenate([rows_B[b] for b in keep]) for keep in replicates(len(rows_B))]
        return np.array([loop_exponents(x_TN[rows], largest=largest) for rows in kept])

    (own, other), (a, b) = seconds(ours, loop, rounds=2)
    return {"ours_ms": 1e3 * own, "ratio": other / own, "difference": float(np.abs(a - b).max())}


def main() -> None:
    rng = np.random.default_rng(0)
    pairing = {size: bench_pairing(size, rng) for size in SIZES}
    whole = {size: bench_whole(size, rng) for size in SIZES}
    rows = []
    for size, found in pairing.items():
        text = f"{found['ratio']:.0f}x ({found['ours_ms']:.1f} ms for nine); "
        text += f"{found['ratio_to_lists']:.1f}x a loop over lists"
        rows.append((f"pairing, N = {size}, against a plain loop", f">= {TARGET:.0f}x", text))
        print(*rows[-1], f"; pairs that differ: {found['pairs_different']}")
    for size, found in whole.items():
        blocks = "with errors" if size <= 512 else "without errors"
        text = f"{found['ratio']:.1f}x ({found['ours_ms']:.0f} ms)"
        rows.append((f"rows to alpha and mu, N = {size}, {blocks}", f">= {TARGET:.0f}x", text))
        print(*rows[-1], f"; exponents differ by {found['difference']:.1e}")
    record("renormalization_vs_loop", rows)
    figures = {"bench": "renormalization_vs_loop", "target": TARGET, "machine": machine()}
    print(json.dumps(figures | {"pairing": pairing, "whole": whole}))


if __name__ == "__main__":
    main()
