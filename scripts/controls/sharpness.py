"""C5 and C6: sharpness of full-batch gradient descent on a two-hidden-layer tanh net.

f = v tanh(W1 tanh(W0 x / sqrt D) / sqrt N) / (gamma sqrt N), all weights standard normal, rate
eta gamma^2 (arXiv 2402.17457): gamma = sqrt N is muP, gamma = 1 is NTK scaling. With weights
gamma phi the rate on phi is eta, and sharpness is the largest eigenvalue of the Hessian by phi.
C5: with a hard target sharpness rises to 2 / eta and stays there (edge of stability).
C6: at equal steps muP nets of all widths sharpen alike, NTK nets the less the wider they are.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from _records import Check, main, measure, values, write_net

from scaleinv_ray.capture.curvature.products import curvature_records
from scaleinv_ray.records import Lanczos

SAMPLES = 150
LANCZOS = {"num_steps": 24, "num_probes": 2}
NAMES = ("w0", "w1", "v")
Batch = tuple[torch.Tensor, torch.Tensor]


def outputs(phi: Mapping[str, torch.Tensor], x: torch.Tensor, gamma: float) -> torch.Tensor:
    """Outputs f of every seed [S, T]; phi has a leading axis of seeds."""
    w0, w1, v = (gamma * phi[name] for name in NAMES)
    h = torch.tanh(torch.einsum("td,snd->stn", x, w0) / math.sqrt(x.shape[1]))
    h = torch.tanh(h @ w1.mT / math.sqrt(w1.shape[1]))
    return torch.einsum("stn,sn->st", h, v) / (gamma * math.sqrt(v.shape[1]))


def loss(phi: Mapping[str, torch.Tensor], batch: Batch, gamma: float) -> torch.Tensor:
    """Half the mean square error, summed over seeds, which do not touch each other."""
    x, y = batch
    return (outputs(phi, x, gamma) - y).square().mean(dim=1).sum() / 2


def batch_of(dim: int, *, signs: bool) -> Batch:
    """Gaussian inputs with labels that have nothing to do with them, the same at every width."""
    generator = torch.Generator().manual_seed(1000)
    x = torch.randn(SAMPLES, dim, generator=generator).double()
    y = torch.randn(SAMPLES, generator=generator).double()
    return x, y.sign() if signs else y


def train(
    width: int, seeds: Sequence[int], batch: Batch, *, eta: float, gamma: float, at: Sequence[int],
    site: str,
) -> dict[int, list[Lanczos]]:  # fmt: skip
    """Gradient descent on phi; step -> Hessian of every seed."""
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    shapes = ((width, batch[0].shape[1]), (width, width), (width,))
    phi = {
        name: torch.stack([torch.randn(*shape, generator=g).double() / gamma for g in generators])
        for name, shape in zip(NAMES, shapes, strict=True)
    }
    recorded = {}
    for step in range(max(at) + 1):
        if step in at:
            recorded[step] = [hessian(phi, s, batch, gamma, site) for s in range(len(seeds))]
        leaves = {name: w.requires_grad_() for name, w in phi.items()}
        gradient = torch.autograd.grad(loss(leaves, batch, gamma), list(leaves.values()))
        phi = {
            n: (w - eta * g).detach()
            for (n, w), g in zip(leaves.items(), gradient, strict=True)
        }  # fmt: skip
    return recorded


def hessian(
    phi: Mapping[str, torch.Tensor], index: int, batch: Batch, gamma: float, site: str
) -> Lanczos:
    """The record of one seed."""
    own = {name: w[index : index + 1].detach() for name, w in phi.items()}
    (record,) = curvature_records(
        lambda p, b: loss(p, b, gamma), own, [batch], generator=torch.Generator().manual_seed(0),
        labels={"site": site, "num_layers": 2}, **LANCZOS,
    )  # fmt: skip
    return record


def nets(
    folder: Path, width: int, seeds: Sequence[int], runs: Sequence[dict[int, list[Lanczos]]]
) -> list[dict[str, str]]:
    """The records of every seed; each run is a site."""
    return [
        write_net(
            folder, width=width, seed=seed, num_params=runs[0][0][0].dim, num_layers=2,
            kind="hessian", steps={t: [run[t][index] for run in runs] for t in runs[0]},
        )
        for index, seed in enumerate(seeds)
    ]  # fmt: skip


def edge(folder: Path, quick: bool) -> list[Check]:
    """C5."""
    widths = (32, 64) if quick else (64, 256)
    etas = (2.0, 1.0) if quick else (2.0, 1.0, 0.5)
    late = range(600, 1001, 50)
    batch = batch_of(8, signs=False)
    models = []
    for width in widths:
        runs = [
            train(width, [0], batch, eta=eta, gamma=math.sqrt(width), at=(0, *late),
                  site=f"eta {eta}")
            for eta in etas
        ]  # fmt: skip
        models += nets(folder / "edge", width, [0], runs)
    rows, _ = measure("edge", models, "curvature.hessian_density", folder / "edge-run")
    checks = []
    for width in widths:
        for eta in etas:
            where = {"site": f"eta {eta}", "d_model": width}
            held = [v for t in late for v in values(rows, "lambda_max", step=t, **where)]
            name = f"C5 sharpness * eta / 2, width {width}, eta {eta}"
            checks.append(Check(name, median(held) * eta / 2, 0.97, 1.05))
    return checks


def widths(folder: Path, quick: bool) -> list[Check]:
    """C6."""
    sizes, seeds = ((32, 64), (0,)) if quick else ((64, 128, 256), (0, 1))
    batch = batch_of(16, signs=True)
    models = []
    for width in sizes:
        scalings = {"mup": math.sqrt(width), "ntk": 1.0}
        runs = [
            train(width, seeds, batch, eta=0.2, gamma=gamma, at=(0, 400), site=site)
            for site, gamma in scalings.items()
        ]
        models += nets(folder / "widths", width, seeds, runs)
    rows, _ = measure("widths", models, "curvature.hessian_density", folder / "widths-run")

    def mean(width: int, site: str, step: int) -> float:
        found = values(rows, "lambda_max", d_model=width, site=site, step=step)
        return sum(found) / len(found)

    late = [mean(n, "mup", 400) for n in sizes]
    growth = {n: mean(n, "ntk", 400) / mean(n, "ntk", 0) for n in sizes}
    return [
        *(
            Check(f"C6 sharpness at step 400, muP, width {n}", value, 1.5 if quick else 2.3, 3.1)
            for n, value in zip(sizes, late, strict=True)
        ),
        *(
            Check(f"C6 growth of sharpness, muP, width {n}", v / mean(n, "mup", 0), 8.0, 40.0)
            for n, v in zip(sizes, late, strict=True)
        ),
        Check("C6 largest over smallest over widths, muP", max(late) / min(late),
              1.0, 1.4 if quick else 1.25),
        *(
            Check(f"C6 growth of sharpness, NTK, width {n}", g, 0.88, 1.12)
            for n, g in growth.items()
        ),
    ]  # fmt: skip


def control(folder: Path, quick: bool) -> list[Check]:
    """The figures of C5 and C6."""
    return edge(folder, quick) + widths(folder, quick)


if __name__ == "__main__":
    main("sharpness", control)
