"""C1-C3: balancedness W_{l+1}^T W_{l+1} - W_l W_l^T of deep linear nets (arXiv 2307.00144).

Conserved by gradient flow, so its drift is proportional to the learning rate at equal lr * steps;
weight decay shrinks it by exp(-2 lambda T); Adam does not conserve it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from _records import Check, main, measure, values, verdict, write_net

from scaleinv_ray.records import WeightMatrix

LAYERS, TIME, DECAY, RECORDED = 3, 10.0, 0.05, 10
GAIN = 0.7
"""Below one: at width 64 the first steps of rate .1 then stay under half of the edge 2/lr."""
RUNS = {
    **{f"sgd {lr}": {"lr": lr} for lr in (0.1, 0.05, 0.025, 0.0125)},
    **{f"decay {lr}": {"lr": lr, "weight_decay": DECAY} for lr in (0.05, 0.025)},
    "adam 0.01": {"lr": 0.01},
}


def balance(weights: list[torch.Tensor], site: str) -> list[list[WeightMatrix]]:
    """Of every seed the matrices that gradient flow conserves, one between each pair of layers."""
    kept = [
        (b.mT @ b - a @ a.mT).detach().numpy() for a, b in zip(weights, weights[1:], strict=False)
    ]
    return [
        [
            WeightMatrix(w_OI=w_SOI[s].copy(), site=site, layer=layer, num_layers=LAYERS)
            for layer, w_SOI in enumerate(kept)
        ]
        for s in range(len(weights[0]))
    ]


def train(width: int, seeds: Sequence[int], site: str) -> dict[int, list[list[WeightMatrix]]]:
    """Training on a linear teacher; balancedness at times 0, 1, .., 10 = lr * steps.

    The seeds are trained side by side: their losses are added.
    """
    generators = [torch.Generator().manual_seed(s) for s in seeds]

    def normal(*shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=g).double() for g in generators])

    scale = 1 / math.sqrt(width)
    weights = [GAIN * scale * normal(width, width) for _ in range(LAYERS)]
    x = normal(4 * width, width)
    second = x.mT @ x / (4 * width)  # all that the mean square loss depends on
    teacher = scale * normal(width, width)
    leaves = [w.requires_grad_() for w in weights]
    kind = torch.optim.Adam if site.startswith("adam") else torch.optim.SGD
    optimizer = kind(leaves, **RUNS[site])
    steps = round(TIME / RUNS[site]["lr"])
    recorded = {0: balance(leaves, site)}
    for step in range(1, steps + 1):
        error = leaves[2] @ leaves[1] @ leaves[0] - teacher
        optimizer.zero_grad()
        ((error @ second) * error).sum().div(2).backward()
        optimizer.step()
        if step % (steps // RECORDED) == 0:
            recorded[step * RECORDED // steps] = balance(leaves, site)
    return recorded


def nets(folder: Path, width: int, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Every seed's net under every optimizer, each a site of its records."""
    runs = [train(width, seeds, site) for site in RUNS]
    return [
        write_net(
            folder, width=width, seed=seed, num_params=LAYERS * width**2, num_layers=LAYERS,
            kind="weights",
            steps={t: [r for run in runs for r in run[t][index]] for t in range(RECORDED + 1)},
        )
        for index, seed in enumerate(seeds)
    ]  # fmt: skip


def control(folder: Path, quick: bool) -> list[Check]:
    """The figures of C1, C2 and C3."""
    widths, seeds = ((8, 16, 24, 32), (0, 1)) if quick else ((8, 16, 32, 64), (0, 1, 2))
    models = [m for width in widths for m in nets(folder / "records", width, seeds)]
    rows, verdicts = measure("balancedness", models, "conserved.drift", folder / "run")
    drift = {site: max(values(rows, "max_drift", site=site, d_model=widths[-1])) for site in RUNS}
    decay = {
        site: sum(v) / len(v)
        for site in ("decay 0.05", "decay 0.025")
        if (v := values(rows, "decay_ratio", site=site, d_model=widths[-1]))
    }
    limit = 2 * decay["decay 0.025"] - decay["decay 0.05"]  # the error is linear in the rate
    exact = math.exp(-2 * DECAY * TIME)
    flat = ["decay 0.025", *(s for s in RUNS if s.startswith("sgd"))]
    conserved = [verdict(verdicts, "decay_ratio", site).startswith("conserved") for site in flat]
    adam = min(values(rows, "max_drift", site="adam 0.01"))
    return [
        *(
            # figures at width 64; a smaller width drifts less
            Check(f"C1 largest drift, width {widths[-1]}, rate {lr}", drift[f"sgd {lr}"],
                  0.3 * expected if quick else 0.8 * expected, 1.2 * expected)
            for lr, expected in ((0.1, 0.049), (0.05, 0.023), (0.025, 0.011), (0.0125, 0.0056))
        ),
        *(
            Check(f"C1 drift at rate {a} over that at {b}",
                  drift[f"sgd {a}"] / drift[f"sgd {b}"], 1.85, 2.25)
            for a, b in ((0.1, 0.05), (0.05, 0.025), (0.025, 0.0125))
        ),
        Check("C2 norm left with decay .05, rate to zero", limit, 0.99 * exact, 1.01 * exact),
        Check("C2 norm left, verdicts CONSERVED over width", sum(conserved), len(flat), len(flat)),
        Check("C3 least drift under Adam, any width", adam, 0.5, 10.0),
    ]  # fmt: skip


if __name__ == "__main__":
    main("balancedness of deep linear nets", control)
