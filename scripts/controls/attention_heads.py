"""C4: per head Q Q^T - K K^T and V V^T - O^T O of an attention block (arXiv 2506.06194).

Conserved by gradient flow without biases and rotary positions: the drift under SGD is small and
proportional to the rate; Adam does not conserve them.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from _records import Check, main, measure, values, write_net

from scaleinv_ray.records import WeightMatrix

HEADS, LENGTH, SEQUENCES, RECORDED = 4, 8, 32, 10
RUNS = {**{f"sgd {lr}": (lr, 30.0) for lr in (0.2, 0.1, 0.05)}, "adam 0.005": (0.005, 1.0)}
"""Optimizer and rate -> rate, and T = rate * steps."""


def kept(weights: list[torch.Tensor], site: str) -> list[list[WeightMatrix]]:
    """Of every seed the matrices of every head, role `query` for Q and K, `value` for V and O."""
    q, k, v, o = (w.detach() for w in weights)
    matrices = {"query": q @ q.mT - k @ k.mT, "value": v @ v.mT - o.mT @ o}
    return [
        [
            WeightMatrix(
                w_OI=w_SHKK[s, head].numpy().copy(), role=role, head=head, site=f"{site} {role}",
                layer=0, num_layers=1,
            )
            for role, w_SHKK in matrices.items()
            for head in range(HEADS)
        ]
        for s in range(len(q))
    ]  # fmt: skip


def train(width: int, seeds: Sequence[int], site: str) -> dict[int, list[list[WeightMatrix]]]:
    """Causal attention learns a linear map of the token before; seeds side by side."""
    generators = [torch.Generator().manual_seed(s) for s in seeds]

    def normal(*shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=g).double() for g in generators])

    scale, size = 1 / math.sqrt(width), width // HEADS
    weights = [scale * normal(HEADS, size, width) for _ in range(3)]
    weights.append(scale * normal(HEADS, width, size))
    x = normal(SEQUENCES, LENGTH, width)
    target = x.roll(1, 2) @ (scale * normal(width, width))[:, None]
    hidden = torch.ones(LENGTH, LENGTH).triu(1).bool()
    leaves = [w.requires_grad_() for w in weights]
    rate, time = RUNS[site]
    kind = torch.optim.Adam if site.startswith("adam") else torch.optim.SGD
    optimizer = kind(leaves, lr=rate)
    steps = round(time / rate)
    recorded = {0: kept(leaves, site)}
    for step in range(1, steps + 1):
        q, k, v = (torch.einsum("sntd,shkd->snhtk", x, w) for w in leaves[:3])
        logits = (q @ k.mT / math.sqrt(size)).masked_fill(hidden, -torch.inf)
        output = torch.einsum("snhtk,shdk->sntd", logits.softmax(-1) @ v, leaves[3])
        optimizer.zero_grad()
        (output - target).square().mean(dim=(1, 2, 3)).sum().backward()
        optimizer.step()
        if step % (steps // RECORDED) == 0:
            recorded[step * RECORDED // steps] = kept(leaves, site)
    return recorded


def nets(folder: Path, width: int, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Every seed's block under every optimizer, each a site of its records."""
    runs = [train(width, seeds, site) for site in RUNS]
    return [
        write_net(
            folder, width=width, seed=seed, num_params=4 * width**2, num_layers=1, kind="weights",
            steps={t: [r for run in runs for r in run[t][index]] for t in range(RECORDED + 1)},
        )
        for index, seed in enumerate(seeds)
    ]  # fmt: skip


def control(folder: Path, quick: bool) -> list[Check]:
    """The figures of C4."""
    widths, seeds = ((16, 32), (0,)) if quick else ((16, 32, 64), (0, 1))
    models = [m for width in widths for m in nets(folder / "records", width, seeds)]
    rows, _ = measure("attention-heads", models, "conserved.drift", folder / "run")

    def drifts(site: str) -> list[float]:
        found = [values(rows, "max_drift", site=f"{site} {role}") for role in ("query", "value")]
        return found[0] + found[1]

    largest = {site: max(drifts(site)) for site in RUNS}
    return [
        Check("C4 largest drift of a head, SGD rate .2", largest["sgd 0.2"], 0.0, 0.01),
        *(
            Check(f"C4 drift at rate {a} over that at {b}",
                  largest[f"sgd {a}"] / largest[f"sgd {b}"], 1.9, 2.1)
            for a, b in ((0.2, 0.1), (0.1, 0.05))
        ),
        Check("C4 least drift of a head under Adam", min(drifts("adam 0.005")), 0.3, 10.0),
    ]  # fmt: skip


if __name__ == "__main__":
    main("attention heads", control)
