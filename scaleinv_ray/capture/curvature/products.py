"""Curvature of a loss at fixed batches: Hessian and Gauss-Newton products, and their records.

A loss is any function of named parameters and a batch, so small nets and Hugging Face models share
this code. Shape suffixes: P parameters of a block, R probe vectors, K Lanczos steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from scaleinv_ray.capture.curvature.lanczos import Products, lanczos_record
from scaleinv_ray.records import Lanczos

Parameters = Mapping[str, torch.Tensor]
Loss = Callable[[Parameters, Any], torch.Tensor]
Operator = Literal["hessian", "ggn"]


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


def language_loss(model: PreTrainedModel, left_out: int = 0) -> SplitLoss:
    """Next-token cross-entropy of a causal language model, mean over all predicted tokens.

    Attention runs in the MATH kernel (or eager): the fused ones have no second derivative.

    Args:
        model: in eval mode; a batch is an integer tensor of tokens [S, T].
        left_out: tokens at the beginning; they and the one after them are not predicted.

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
        logits, targets = logits[:, left_out:-1], batch[:, left_out + 1 :]
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

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
        if not z.requires_grad:  # the outputs read none of them
            return torch.zeros_like
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
    sketch: int = 0,
    labels: Mapping[str, Any] | None = None,
) -> Iterator[Lanczos]:
    """Quadrature of the density of states of an operator, for the whole net or block by block.

    Args:
        loss: a `SplitLoss` where the operator is 'ggn'.
        parameters: all parameters of the loss.
        generator: on the CPU; draws the probe vectors, uniform on the sphere. For bands to be
            followed it is seeded alike at every step of a run.
        operator: 'hessian' or 'ggn'.
        blocks: name -> parameters of a block (a restricted operator, not a row of blocks); None
            for all parameters.
        num_steps: K, cut to the size of the block.
        keep_basis: see `tridiagonal`.
        sketch: buckets of the count sketches of the Ritz vectors, 0 for none.
        labels: further fields of the records.

    Yields:
        A record for every block; its block is also its site, unless `labels` names another.

    Raises:
        ValueError: as `hessian_products` and `lanczos_record`, and for a GGN of a loss in one part.
    """
    make = products_of(operator)
    chosen = {None: tuple(parameters)} if blocks is None else blocks
    for name, block in chosen.items():
        varied = _split(parameters, block)[1]
        yield lanczos_record(
            make(loss, parameters, batches, block=block),
            varied,
            generator=generator,
            num_steps=num_steps,
            num_probes=num_probes,
            keep_basis=keep_basis,
            sketch=sketch,
            labels={"operator": operator, "block": name, "site": name} | dict(labels or {}),
        )


def products_of(operator: str) -> Callable[..., Products]:
    """The function that makes products with an operator.

    Args:
        operator: hessian or ggn.

    Returns:
        `hessian_products` or `ggn_products`.

    Raises:
        ValueError: for another name.
    """
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
    if not value.requires_grad:  # the loss reads none of them
        return tuple(torch.zeros_like(p) for p in leaves)
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
