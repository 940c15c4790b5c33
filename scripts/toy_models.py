"""Small nets whose learning coefficient or curvature is known, each with data and an exact minimum.

A task is what a sampler takes: losses of every sample, parameters, data. Shape suffixes: N samples,
I inputs, O outputs, P parameters, F features, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from scaleinv_ray.capture.curvature.products import SplitLoss

Data = tuple[torch.Tensor, ...]


class Task(NamedTuple):
    """A model with its data; unpacks into what samplers and curvatures take.

    Attributes:
        losses: (parameters, data of m samples) -> losses [m], in two parts as the GGN needs them.
        parameters: by name.
        data: tensors, samples along their first axis.
    """

    losses: SplitLoss
    parameters: dict[str, torch.Tensor]
    data: Data

    def mean_loss(self) -> SplitLoss:
        """The scalar loss, as curvatures take it: the mean over the samples of a batch."""
        criterion = self.losses.criterion
        return SplitLoss(self.losses.outputs, lambda z, batch: criterion(z, batch).mean())


def quadratic_task(
    curvature_P: torch.Tensor, *, num_samples: int, spread: float, generator: torch.Generator
) -> Task:
    """Losses sum_p h_p (w_p - x_np)^2 / 2 of samples x with mean zero and covariance spread^2 I.

    The mean loss is sum_p h_p w_p^2 / 2 + const without any error of sampling, so the posterior
    around its minimum w = 0 is Gaussian and the learning coefficient half the number of h_p > 0.
    Per-sample gradients have the covariance spread^2 diag(h)^2.

    Args:
        curvature_P: h, eigenvalues of the Hessian, zero or more.
        num_samples: N, above P.
        spread: standard deviation of the samples; 0 makes all batches alike.
        generator: draws the samples.

    Returns:
        The task, parameter `w` [P] of the dtype of `curvature_P`.

    Raises:
        ValueError: for too few samples.
    """
    x_NP = spread * _whitened(num_samples, len(curvature_P), generator).to(curvature_P)
    losses = SplitLoss(
        lambda parameters, batch: parameters["w"] - batch[0],
        lambda z_NP, batch: (curvature_P * z_NP.square()).sum(dim=1) / 2,
    )
    return Task(losses, {"w": torch.zeros_like(curvature_P)}, (x_NP,))


def deep_linear_task(
    widths: Sequence[int],
    rank: int,
    *,
    num_samples: int,
    generator: torch.Generator,
    noise: float = 0.0,
    free: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Task:
    """Deep linear net W_L .. W_1 at an exact minimum, on targets W* of a given rank.

    Losses |y - W_L .. W_1 x|^2 / 2 (Gaussian log-likelihood of unit variance). Inputs have exactly
    zero mean and unit covariance, and the noise in y is exactly uncorrelated with them, so the mean
    loss is |W_L .. W_1 - W*|_F^2 / 2 + const whatever the sample and the minimum is exact. W* has
    `rank` unit singular values and every W_l has them too.

    With free = 0 the W_l are zero besides: the most singular minimum, where the learning
    coefficient is that of `singularities.deep_linear(widths, rank)`, but no curvature tells the
    scale of the other directions (none at all for rank 0). With free > 0 and one hidden layer,
    every hidden unit not in use is either written to or read from with that singular value, in the
    numbers that leave the fewest directions curved: on that stratum lambda is the same and m = 1
    (Morse-Bott).

    Args:
        widths: H_0 .. H_L from inputs to outputs.
        rank: of the targets, 0 to the smallest width.
        num_samples: N, above H_0 + H_L.
        generator: on the CPU; draws bases, inputs and noise.
        noise: standard deviation of the noise in every target.
        free: singular value of the weights without effect.
        dtype: of parameters and data.

    Returns:
        The task, parameters `weight_1` .. `weight_L` [H_l, H_(l-1)].

    Raises:
        ValueError: for a rank above the smallest width, fewer than two widths, too few samples, and
            free weights with other than one hidden layer.

    >>> task = deep_linear_task([4, 3, 4], 2, num_samples=32, generator=torch.Generator())
    >>> float(task.losses(task.parameters, task.data).max()) < 1e-9
    True
    """
    if len(widths) < 2 or not 0 <= rank <= min(widths):
        raise ValueError(
            f"rank: got {rank} with widths {tuple(widths)}, allowed 0..smallest of two or more"
        )
    if free and len(widths) != 3:
        raise ValueError(f"free: got {free} with widths {tuple(widths)}, needs one hidden layer")
    bases = [_orthogonal(width, generator) for width in widths]
    weights = [after[:, :rank] @ before[:, :rank].T for before, after in pairwise(bases)]
    if free:
        written = _written(widths, rank)
        unread = widths[1] - written
        weights[0] += free * bases[1][:, rank:written] @ bases[0][:, rank:written].T
        weights[1] += free * bases[2][:, rank : rank + unread] @ bases[1][:, written:].T
    both = _whitened(num_samples, widths[0] + widths[-1], generator)
    x_NI, e_NO = both[:, : widths[0]], both[:, widths[0] :]
    y_NO = x_NI @ bases[0][:, :rank] @ bases[-1][:, :rank].T + noise * e_NO

    def outputs(parameters: Mapping[str, torch.Tensor], batch: Data) -> torch.Tensor:
        hidden = batch[0]
        for i in range(1, len(widths)):
            hidden = hidden @ parameters[f"weight_{i}"].T
        return hidden

    parameters = {f"weight_{i}": w.to(dtype) for i, w in enumerate(weights, start=1)}
    return Task(SplitLoss(outputs, _half_square), parameters, (x_NI.to(dtype), y_NO.to(dtype)))


def teacher_task(
    widths: Sequence[int],
    *,
    num_samples: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Task:
    """ReLU net without biases at the weights that made its targets, so at an exact minimum.

    Losses |y - f(x)|^2 / 2. Incoming weights of a hidden layer times s and outgoing ones over s
    leave f, and therefore every learning coefficient, as they are.

    Args:
        widths: from inputs to outputs.
        num_samples: N, above the number of inputs.
        generator: on the CPU; draws weights (He 2015) and inputs.
        dtype: of parameters and data.

    Returns:
        The task, parameters `weight_1` .. `weight_L`.
    """
    parameters = {
        f"weight_{i}": _normal((after, before), generator).to(dtype) * math.sqrt(2 / before)
        for i, (before, after) in enumerate(pairwise(widths), start=1)
    }
    x_NI = _whitened(num_samples, widths[0], generator).to(dtype)
    target_NO = _perceptron(parameters, (x_NI,))
    return Task(SplitLoss(_perceptron, _half_square), parameters, (x_NI, target_NO))


def superposition_task(
    num_features: int,
    num_vertices: int,
    *,
    dead_bias: float | None = None,
    num_samples: int = 600,
    dtype: torch.dtype = torch.float32,
) -> Task:
    """Toy model of superposition x -> ReLU(W^T W x + b) with two hidden units, at a k-gon.

    Inputs have one feature at work, x = mu e_i with mu in [0, 1] (the sparse limit); losses
    |x - f(x)|^2. Data are the midpoints of a grid in mu, the same ones for every feature, so
    the loss keeps the symmetry of the population's and regular k-gons are its critical points: k
    columns of W of one length at angles 2 pi j / k with one bias, the others zero with the bias
    `dead_bias`. Length and bias minimise the loss among k-gons.
    (Elhage et al. 2022; Chen, Lau, Mendel, Wei & Murfet 2023, arXiv:2310.06301.)

    Learning coefficients: 7 for (5, 5); 17/2 for (6, 6), and for (6, 5) with the best dead bias;
    the 4-gon of 6 features with dead biases of zero is no minimum (a larger bias lowers the loss).

    Args:
        num_features: c.
        num_vertices: k, 2 to c.
        dead_bias: bias of the c - k features without a vertex; None for the best one, 1 / (2 c).
        num_samples: about how many; rounded to a multiple of c.
        dtype: of parameters and data.

    Returns:
        The task, parameters `weight` [2, c] and `bias` [c].

    Raises:
        ValueError: for another number of vertices.
    """
    if not 2 <= num_vertices <= num_features:
        raise ValueError(f"num_vertices: got {num_vertices}, allowed 2..{num_features}")
    num_levels = max(num_samples // num_features, 2)
    level_M = (torch.arange(num_levels, dtype=torch.float64) + 0.5) / num_levels
    x_NF = torch.kron(torch.eye(num_features, dtype=torch.float64), level_M[:, None])
    dead = float(level_M.mean()) / num_features if dead_bias is None else dead_bias
    angle_K = 2 * math.pi * torch.arange(num_vertices, dtype=torch.float64) / num_vertices
    vertex_HK = torch.stack([angle_K.cos(), angle_K.sin()])
    num_dead = num_features - num_vertices

    def placed(shape: torch.Tensor) -> dict[str, torch.Tensor]:
        weight_HF = nn.functional.pad(shape[0] * vertex_HK, (0, num_dead))
        bias_F = torch.cat([shape[1].repeat(num_vertices), shape.new_full((num_dead,), dead)])
        return {"weight": weight_HF, "bias": bias_F}

    losses = SplitLoss(_superposed, lambda z_NF, batch: (z_NF - batch[0]).square().sum(dim=1))
    shape = _lowest(lambda shape: losses(placed(shape), (x_NF,)).mean(), start=(1.1, -0.1))
    parameters = {name: p.to(dtype) for name, p in placed(shape).items()}
    return Task(losses, parameters, (x_NF.to(dtype),))


def gaussian_clusters_task(
    num_classes: int,
    *,
    num_inputs: int,
    hidden: Sequence[int],
    num_samples: int,
    generator: torch.Generator,
    separation: float = 4.0,
    dtype: torch.dtype = torch.float32,
) -> Task:
    """Classifier of Gaussian clusters by a ReLU net without biases, at random weights.

    Class centres lie at random directions, `separation` standard deviations of the clusters from
    the origin; losses are cross-entropies. Once trained its GGN has num_classes - 1 outliers
    (Sagun et al. 2017; Papyan 2019).

    Args:
        num_classes: C; sample n belongs to class n mod C.
        num_inputs: dimension of the inputs.
        hidden: widths of the hidden layers.
        num_samples: N.
        generator: on the CPU; draws centres, samples, weights (He 2015).
        separation: of a centre from the origin.
        dtype: of parameters and inputs.

    Returns:
        The task, data (inputs, labels); `trained` takes it to a minimum.
    """
    direction_CI = nn.functional.normalize(_normal((num_classes, num_inputs), generator), dim=1)
    label_N = torch.arange(num_samples) % num_classes
    x_NI = separation * direction_CI[label_N] + _normal((num_samples, num_inputs), generator)
    parameters = {
        f"weight_{i}": _normal((after, before), generator).to(dtype) * math.sqrt(2 / before)
        for i, (before, after) in enumerate(pairwise([num_inputs, *hidden, num_classes]), start=1)
    }
    losses = SplitLoss(
        _perceptron,
        lambda z, batch: nn.functional.cross_entropy(z, batch[1], reduction="none"),
    )
    return Task(losses, parameters, (x_NI.to(dtype), label_N))


def trained(task: Task, *, num_steps: int, rate: float = 1e-2) -> Task:
    """The task at the parameters that Adam reaches on all of its data (rate falling to zero).

    Args:
        task: where it starts; left as it is.
        num_steps: of Adam, full batch.
        rate: learning rate at the start, cosine schedule.

    Returns:
        The task with the new parameters.
    """
    leaves = {n: p.detach().clone().requires_grad_() for n, p in task.parameters.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        optimizer.zero_grad()
        task.losses(leaves, task.data).mean().backward()
        optimizer.step()
        schedule.step()
    return task._replace(parameters={n: p.detach() for n, p in leaves.items()})


Excess = Callable[[np.ndarray], tuple[float, np.ndarray]]


def around(task: Task) -> tuple[np.ndarray, Excess]:
    """What `singularities.critical_manifold` takes: Hessian, and the excess loss with its gradient.

    Args:
        task: at its minimum, in float64.

    Returns:
        Hessian [P, P] of the mean loss; function of a step [P] away from the minimum.
    """
    names, shapes = list(task.parameters), [p.shape for p in task.parameters.values()]
    at_P = torch.cat([p.flatten() for p in task.parameters.values()])

    def loss(w_P: torch.Tensor) -> torch.Tensor:
        pieces = w_P.split([s.numel() for s in shapes])
        moved = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        return task.losses(moved, task.data).mean()

    least = float(loss(at_P))

    def excess(x_P: np.ndarray) -> tuple[float, np.ndarray]:
        gradient, value = torch.func.grad_and_value(loss)(at_P + torch.as_tensor(x_P))
        return float(value) - least, gradient.numpy()

    return torch.autograd.functional.hessian(loss, at_P).numpy(), excess


def _written(widths: Sequence[int], rank: int) -> int:
    """Rank a of W_1, with a + b = H_1 + r, of the fewest curved directions a H_2 + b H_0 - a b."""
    inputs, hidden, outputs = widths
    allowed = range(max(rank, hidden + rank - outputs), min(inputs, hidden) + 1)

    def curved(a: int) -> int:
        b = hidden + rank - a
        return a * outputs + b * inputs - a * b

    return min(allowed, key=curved)


def _perceptron(parameters: Mapping[str, torch.Tensor], batch: Data) -> torch.Tensor:
    hidden = batch[0]
    for i in range(1, len(parameters)):
        hidden = (hidden @ parameters[f"weight_{i}"].T).relu()
    return hidden @ parameters[f"weight_{len(parameters)}"].T


def _superposed(parameters: Mapping[str, torch.Tensor], batch: Data) -> torch.Tensor:
    hidden_NH = batch[0] @ parameters["weight"].T
    return (hidden_NH @ parameters["weight"] + parameters["bias"]).relu()


def _half_square(z_NO: torch.Tensor, batch: Data) -> torch.Tensor:
    return (z_NO - batch[1]).square().sum(dim=1) / 2


def _lowest(loss: Callable[[torch.Tensor], torch.Tensor], start: tuple[float, ...]) -> torch.Tensor:
    """Minimum of a function of a few numbers, to rounding."""
    at = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [at], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(at)
        value.backward()
        return value

    optimizer.step(closure)
    return at.detach()


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(_normal((size, size), generator)).Q


def _whitened(num_samples: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Samples with exactly zero mean and, divided by N, exactly unit second moments."""
    if num_samples <= size:
        raise ValueError(f"num_samples: got {num_samples}, allowed more than {size}")
    x = _normal((num_samples, size), generator)
    return torch.linalg.qr(x - x.mean(dim=0)).Q * math.sqrt(num_samples)
