"""Accumulating count, mean and second moment against the bare matrix product of the same FLOP.

`capture.moments.BlockSums.add` on batches as a capture feeds them, in float32, against one
`rows.T @ rows` a batch, preallocated, in the same dtype, on one thread, A B A B. Target: 70 % of
the product's speed. Prints the fraction for every width and, as its last line, one JSON object.
"""

import json
import os
import statistics
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import torch
from _table import machine, record

from scaleinv_ray.capture.by_kind.moments import BlockSums, sequences_for_moments
from scaleinv_ray.records import Protocol

WIDTHS = (64, 128, 256, 512, 1024)
LENGTH, BATCH = 128, 8
SECONDS = 1.0
ROUNDS = 7
TARGET = 0.7


def batches(width: int) -> list[torch.Tensor]:
    """What a capture hands over: the sequences that the protocol wants, in batches."""
    protocol = Protocol()
    needed = sequences_for_moments(width, LENGTH, protocol, available=protocol.sequences)
    generator = torch.Generator().manual_seed(0)
    x_STD = torch.randn(needed, LENGTH, width, generator=generator) + 1.0
    return list(x_STD.split(BATCH))


def accumulate(parts: list[torch.Tensor]) -> float:
    start = time.perf_counter()
    sums = BlockSums(sum(len(p) for p in parts), Protocol().blocks)
    first = 0
    for part in parts:
        sums.add(part, first)
        first += len(part)
    sums.moments()  # the last block ends here
    return time.perf_counter() - start


def product(parts: list[torch.Tensor]) -> float:
    width = parts[0].shape[-1]
    out_DD = torch.empty(width, width)
    start = time.perf_counter()
    for part in parts:
        rows = part.reshape(-1, width)
        torch.mm(rows.T, rows, out=out_DD)
    return time.perf_counter() - start


def fraction(width: int) -> dict[str, float]:
    parts = batches(width)
    accumulate(parts), product(parts)
    repeats = max(1, round(SECONDS / ROUNDS / (accumulate(parts) + product(parts))))
    pairs = [
        (
            sum(accumulate(parts) for _ in range(repeats)),
            sum(product(parts) for _ in range(repeats)),
        )
        for _ in range(ROUNDS)
    ]
    tokens = sum(p.shape[0] * p.shape[1] for p in parts)
    bare = statistics.median(b for _, b in pairs) / repeats
    return {
        "fraction": statistics.median(b / a for a, b in pairs),
        "gemm_gflops": 2e-9 * tokens * width**2 / bare,
        "tokens": tokens,
    }


def main() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        found = {width: fraction(width) for width in WIDTHS}
    rows = [
        (
            f"width {width}, {f['tokens']} tokens: of the speed of the product "
            f"({f['gemm_gflops']:.0f} GFLOP/s)",
            f">= {TARGET:.0%}",
            f"{f['fraction']:.0%}",
        )
        for width, f in found.items()
    ]
    for what, target, value in rows:
        print(f"{what}: {value} (target {target})")
    record("moments_vs_gemm", rows)
    print(json.dumps({
        "bench": "moments_vs_gemm", "batch": BATCH, "length": LENGTH, "target": TARGET,
        "fraction": {w: round(f["fraction"], 3) for w, f in found.items()},
        "gemm_gflops": {w: round(f["gemm_gflops"], 1) for w, f in found.items()},
        "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
