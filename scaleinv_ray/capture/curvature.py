"""Curvature of a loss at fixed batches: Hessian and Gauss-Newton products, Lanczos quadrature.

A loss is any function of named parameters and a batch, so small nets and Hugging Face models share
this code. Shape suffixes: P parameters of a block, R probe vectors, K Lanczos steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from scaleinv_ray.records import Lanczos

Parameters = Mapping[str, torch.Tensor]
Loss = Callable[[Parameters, Any], torch.Tensor]
Operator = Literal["hessian", "ggn"]
Products = Callable[[torch.Tensor], torch.Tensor]
"""v_RP -> products of the operator with each of the R vectors."""

STORED_BASIS = 20_000_000
"""Parameters above which a stored basis is limited to SHORT steps (K R P values)."""
SHORT = 30
WEIGHTLESS = 1e-24
"""Squared components below it are rounding: what is decoupled after a Krylov space closed."""


@dataclass(frozen=True)
class SplitLoss:
    """A loss in two parts, criterion(outputs(parameters, batch), batch), as the GGN needs it.

    Attributes:
        outputs: of the network.
        criterion: convex in the outputs (squared error, cross-entropy), else the GGN is no
            positive operator.
    """

    outputs: Callable[[Parameters, Any], torch.Tensor]
    criterion: Callable[[torch.Tensor, Any], torch.Tensor]

    def __call__(self, parameters: Parameters, batch: Any) -> torch.Tensor:
        """The loss."""
        return self.criterion(self.outputs(parameters, batch), batch)


def language_loss(model: PreTrainedModel) -> SplitLoss:
    """Next-token cross-entropy of a causal language model, mean over all predicted tokens.

    Attention runs in the MATH kernel (or eager): the fused ones have no second derivative.

    Args:
        model: in eval mode; a batch is an integer tensor of tokens [S, T].

    Returns:
        The loss, to be called with the model's `named_parameters`.

    Raises:
        ValueError: in training mode with dropout, or with another attention than sdpa or eager.
    """
    active = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    if model.training and active:
        raise ValueError(f"model: got training mode with dropout in {active[0]!r}, allowed eval()")
    attention = model.config._attn_implementation
    if attention not in {"sdpa", "eager"}:
        raise ValueError(f"attention: got {attention!r}, allowed 'sdpa' or 'eager'")

    def outputs(parameters: Parameters, batch: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            called = {"input_ids": batch, "use_cache": False}
            return functional_call(model, dict(parameters), (), called).logits

    def criterion(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())

    return SplitLoss(outputs, criterion)


@dataclass
class _Products:
    """Products with the mean over batches; a single batch's graph is built once and kept."""

    graph: Callable[[Any], Products]
    batches: Sequence[Any]
    _kept: Products | None = field(default=None, init=False)

    def __call__(self, v_RP: torch.Tensor) -> torch.Tensor:
        if len(self.batches) == 1:
            self._kept = self._kept or self.graph(self.batches[0])
            return self._kept(v_RP)
        total_RP = torch.zeros_like(v_RP)
        for batch in self.batches:
            total_RP += self.graph(batch)(v_RP)
        return total_RP / len(self.batches)


def hessian_products(
    loss: Loss,
    parameters: Parameters,
    batches: Sequence[Any],
    *,
    block: Sequence[str] | None = None,
) -> Products:
    """Products with the Hessian of the mean loss over batches, restricted to a block.

    H v = d(g . v)/dw by a second backward pass through the graph of the gradient g, which all
    vectors of a call share (2 to 2.3 gradients a vector). Never `jvp(jacrev)` or
    `torch.func.hessian`, which are silently wrong through LayerNorm (pytorch#196700).

    Args:
        loss: twice differentiable, without chance; a mean, over batches of equal size.
        parameters: all parameters of the loss by name, float32 or float64.
        batches: fixed batches, one or more.
        block: names of the parameters that vary, in this order; None for all of them.

    Returns:
        v_RP -> H v, where P runs over the parameters of the block, flattened one after the other.

    Raises:
        ValueError: for unknown names, dtypes below float32, no batch, and a loss that is not
            finite, not a scalar, or differs between two calls (dropout).
    """
    held, varied = _split(parameters, block)
    _check_loss(loss, parameters, batches)

    def graph(batch: Any) -> Products:
        gradient = _gradient(loss({**held, **varied}, batch), varied)
        used = [g for g in gradient if g.requires_grad]  # linear in the others

        def products(v_RP: torch.Tensor) -> torch.Tensor:
            rows = []
            for v_P in v_RP:
                parts = _unflatten(v_P, varied)
                along = [v for v, g in zip(parts, gradient, strict=True) if g.requires_grad]
                rows.append(_flat(_pull(used, varied, along)))
            return torch.stack(rows)

        return products

    return _Products(graph, batches)


def ggn_products(
    loss: SplitLoss,
    parameters: Parameters,
    batches: Sequence[Any],
    *,
    block: Sequence[str] | None = None,
) -> Products:
    """Products with the generalised Gauss-Newton operator J^T (d2 criterion / dz2) J.

    J v is the derivative of J^T u by u (two backward passes; no forward mode, which fused kernels
    lack); Schraudolph, Neural Computation 14:1723, 2002.

    Args:
        loss: in two parts.
        parameters: as in `hessian_products`.
        batches: as in `hessian_products`.
        block: as in `hessian_products`.

    Returns:
        v_RP -> G v.

    Raises:
        ValueError: as `hessian_products`.
    """
    held, varied = _split(parameters, block)
    _check_loss(loss, parameters, batches)

    def graph(batch: Any) -> Products:
        z = loss.outputs({**held, **varied}, batch)
        u = torch.zeros_like(z, requires_grad=True)
        pulled = _pull([z], varied, [u], create_graph=True)
        at = z.detach().requires_grad_()
        slope = torch.autograd.grad(loss.criterion(at, batch), at, create_graph=True)[0]

        def products(v_RP: torch.Tensor) -> torch.Tensor:
            rows = []
            for v_P in v_RP:
                pushed = torch.autograd.grad(
                    pulled, u, _unflatten(v_P, varied), retain_graph=True, materialize_grads=True
                )
                bent = torch.autograd.grad(slope, at, pushed, retain_graph=True)
                rows.append(_flat(_pull([z], varied, list(bent))))
            return torch.stack(rows)

        return products

    return _Products(graph, batches)


def tridiagonal(
    products: Products, start_RP: torch.Tensor, num_steps: int, *, keep_basis: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos recursion from R start vectors side by side.

    With the basis kept, every new vector is orthogonalised twice against all earlier ones, so
    that no ghost (second copy of a converged eigenvalue) appears; without it ghosts share the
    weight of the eigenvalue and leave the quadrature as it is (Greenbaum 1989), for memory 3 R P.

    Args:
        products: of a symmetric operator.
        start_RP: start vectors, of any length but zero.
        num_steps: K, at most P.
        keep_basis: full reorthogonalisation, for memory K R P.

    Returns:
        Diagonal alpha_RK and, float64, off-diagonal beta_RK of the tridiagonal matrices; beta_RK
        [:, -1] leads out of the K steps. Once the Krylov space of a row is closed, zeros follow.
    """
    q_RP = start_RP / start_RP.norm(dim=1, keepdim=True)
    before_RP = torch.zeros_like(q_RP)
    beta_R = q_RP.new_zeros(len(q_RP))
    size_R = q_RP.new_zeros(len(q_RP))
    basis: list[torch.Tensor] = []
    alphas, betas = [], []
    rounding = torch.finfo(q_RP.dtype).eps * math.sqrt(q_RP.shape[1])
    for _ in range(num_steps):
        w_RP = products(q_RP) - beta_R[:, None] * before_RP
        alpha_R = (w_RP * q_RP).sum(dim=1)
        w_RP -= alpha_R[:, None] * q_RP
        if keep_basis:
            basis.append(q_RP)
            for _twice in range(2):
                for b_RP in basis:
                    w_RP -= (w_RP * b_RP).sum(dim=1, keepdim=True) * b_RP
        beta_R = w_RP.norm(dim=1)
        size_R = torch.maximum(size_R, alpha_R.abs() + beta_R)
        beta_R = torch.where(beta_R > rounding * size_R, beta_R, 0.0)
        before_RP, q_RP = q_RP, w_RP / torch.where(beta_R > 0, beta_R, torch.inf)[:, None]
        alphas.append(alpha_R)
        betas.append(beta_R)
    return _numbers(alphas), _numbers(betas)


def quadrature(alpha_RK: np.ndarray, beta_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of tridiagonal matrices: eigenvalues, squared first components.

    Golub & Welsch 1969.

    Args:
        alpha_RK: diagonals.
        beta_RK: off-diagonals; the last column is not used.

    Returns:
        nodes_RK ascending and weights_RK, which sum to one in every row.

    >>> nodes, weights = quadrature(np.zeros((1, 2)), np.ones((1, 2)))
    >>> nodes[0].round(12).tolist(), weights[0].round(12).tolist()
    ([-1.0, 1.0], [0.5, 0.5])
    """
    num_steps = alpha_RK.shape[1]
    index = np.arange(num_steps - 1)
    t_RKK = alpha_RK[:, :, None] * np.eye(num_steps)
    t_RKK[:, index, index + 1] = t_RKK[:, index + 1, index] = beta_RK[:, :-1]
    nodes_RK, vectors_RKK = np.linalg.eigh(t_RKK)
    weights_RK = vectors_RKK[:, 0, :] ** 2
    weights_RK[weights_RK < WEIGHTLESS] = 0.0
    return nodes_RK, weights_RK / weights_RK.sum(axis=1, keepdims=True)


def curvature_records(
    loss: Loss,
    parameters: Parameters,
    batches: Sequence[Any],
    *,
    generator: torch.Generator,
    operator: Operator = "hessian",
    blocks: Mapping[str, Sequence[str]] | None = None,
    num_steps: int = 80,
    num_probes: int = 4,
    keep_basis: bool = True,
    labels: Mapping[str, Any] | None = None,
) -> Iterator[Lanczos]:
    """Quadrature of the density of states of an operator, for the whole net or block by block.

    Args:
        loss: a `SplitLoss` where the operator is 'ggn'.
        parameters: all parameters of the loss.
        batches: fixed batches.
        generator: on the CPU; draws the probe vectors, uniform on the sphere.
        operator: 'hessian' or 'ggn'.
        blocks: name -> parameters of a block (a restricted operator, not a row of blocks); None
            for all parameters.
        num_steps: K, cut to the size of the block.
        num_probes: R.
        keep_basis: see `tridiagonal`.
        labels: further fields of the records.

    Yields:
        A record for every block; its block is also its site, unless `labels` names another.

    Raises:
        ValueError: as `hessian_products`; for a GGN of a loss in one part; and above 20 million
            parameters for a kept basis of more than 30 steps.
    """
    chosen = {None: tuple(parameters)} if blocks is None else blocks
    for name, block in chosen.items():
        varied = _split(parameters, block)[1]
        dim = sum(p.numel() for p in varied.values())
        if keep_basis and dim > STORED_BASIS and num_steps > SHORT:
            raise ValueError(
                f"num_steps: got {num_steps} on {dim} parameters, allowed 1..{SHORT} above "
                f"{STORED_BASIS}, or keep_basis=False"
            )
        products = _products_of(operator)(loss, parameters, batches, block=block)
        start_RP = torch.randn(num_probes, dim, generator=generator, dtype=torch.float64)
        like = next(iter(varied.values()))
        tri = tridiagonal(products, start_RP.to(like), min(num_steps, dim), keep_basis=keep_basis)
        nodes_RK, weights_RK = quadrature(*tri)
        yield Lanczos(**{
            "nodes_RK": nodes_RK,
            "weights_RK": weights_RK,
            "dim": dim,
            "operator": operator,
            "block": name,
            "site": name,
            "weight_norm": float(_flat(varied.values()).double().norm()),
            "dtype": str(like.dtype).removeprefix("torch."),
            **(labels or {}),
        })  # fmt: skip


def _products_of(operator: str) -> Callable[..., Products]:
    kinds: dict[str, Callable[..., Products]] = {"hessian": hessian_products, "ggn": ggn_products}
    if operator not in kinds:
        raise ValueError(f"operator: got {operator!r}, allowed {tuple(kinds)}")
    return kinds[operator]


def _split(
    parameters: Parameters, block: Sequence[str] | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Parameters that are held, and those that vary as leaves of their own."""
    names = tuple(parameters) if block is None else tuple(block)
    unknown = [n for n in names if n not in parameters]
    if unknown or not names:
        raise ValueError(f"block: got {unknown or names}, allowed names of {tuple(parameters)}")
    low = {n: p.dtype for n, p in parameters.items() if p.dtype not in _DTYPES}
    if low:
        name, dtype = next(iter(low.items()))
        raise ValueError(f"parameters.{name}: got {dtype}, allowed float32 or float64")
    held = {n: p.detach() for n, p in parameters.items() if n not in names}
    return held, {n: parameters[n].detach().clone().requires_grad_() for n in names}


_DTYPES = (torch.float32, torch.float64)


def _check_loss(loss: Loss, parameters: Parameters, batches: Sequence[Any]) -> None:
    if not batches:
        raise ValueError("batches: got none, needs one or more")
    with torch.no_grad():
        first, second = (loss(parameters, batches[0]) for _ in range(2))
    if first.ndim != 0 or not torch.isfinite(first):
        raise ValueError(f"loss: got {first}, allowed a finite scalar")
    if not torch.isclose(first, second, rtol=1e-5, atol=0.0):
        raise ValueError(f"loss: got {first} and {second} of one batch, allowed no dropout")


def _gradient(value: torch.Tensor, varied: Parameters) -> tuple[torch.Tensor, ...]:
    leaves = tuple(varied.values())
    return torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)


def _pull(
    ends: Sequence[torch.Tensor],
    varied: Parameters,
    along: Sequence[torch.Tensor],
    *,
    create_graph: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Sum over ends of J_end^T along_end, with respect to the parameters that vary."""
    leaves = tuple(varied.values())
    if not ends:
        return tuple(torch.zeros_like(p) for p in leaves)
    return torch.autograd.grad(
        list(ends), leaves, list(along),
        retain_graph=True, create_graph=create_graph, materialize_grads=True,
    )  # fmt: skip


def _flat(parts: Any) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in parts])


def _unflatten(v_P: torch.Tensor, like: Parameters) -> list[torch.Tensor]:
    parts = v_P.split([p.numel() for p in like.values()])
    return [v.view_as(p) for v, p in zip(parts, like.values(), strict=True)]


def _numbers(rows: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.stack(list(rows), dim=1).double().cpu().numpy()
