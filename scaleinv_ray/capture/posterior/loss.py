"""A loss around given parameters as a function of flat coordinates, for many chains at once.

Shape suffixes: P coordinates that move, R rows (one chain at one setting each), M samples of a
batch, D all samples of the data, K Lanczos steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from scaleinv_ray.capture.curvature.lanczos import Products, quadrature, ritz_vectors, tridiagonal
from scaleinv_ray.capture.curvature.products import Parameters, hessian_products

Losses = Callable[[Parameters, Any], torch.Tensor]
"""(parameters, data of m samples) -> losses [m], each of its own sample alone."""
Index = int | slice | tuple[int | slice, ...]
Block = Sequence[str] | Mapping[str, Index | None]
"""Names of parameters that move, or name -> its rows and columns (a head), None for all of it."""
Data = Any
"""A tensor, or a tuple or mapping of tensors, with samples along the first axis of each."""

LANCZOS_STEPS = 20
CURVATURE_SAMPLES = 512
NOISE_SAMPLES = 128
NOISE_VALUES = 100_000_000
"""Limit on samples times coordinates whose gradients are held for their covariance."""
CHUNK = 256
"""Most samples in one forward pass over all data."""
_DTYPES = (torch.float32, torch.float64)


@dataclass
class Posterior:
    """Losses of data around w0 in coordinates x_P: the parameters that move are w0 + scale x.

    Parameters are never written to: every evaluation calls the loss with tensors of its own.

    Attributes:
        losses: of every sample.
        parameters: w0, all of them by name.
        data: all samples.
        block: what moves.
        together: rows are evaluated in one call (torch.vmap), else one after the other.
        scale_P: length of a unit step along every coordinate, None for ones.
        chunk: most samples that one row is evaluated on in one call, unless rows go together:
            as many as there is memory for with their graph.
    """

    losses: Losses
    parameters: Parameters
    data: Data
    block: Block | None = None
    together: bool = True
    scale_P: torch.Tensor | None = None
    chunk: int = CHUNK
    base_D: torch.Tensor = field(init=False)
    start_P: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        chosen = self.parameters if self.block is None else self.block
        self._places = _places(self.parameters, chosen)
        moving = [_part(self.parameters[n], at) for n, at in self._places.items()]
        self._sizes = [len(part) for part in moving]
        self.start_P = torch.cat(moving)
        self._held = {n: p.detach() for n, p in self.parameters.items() if n not in self._places}
        self.num_samples = _num_samples(self.data)
        self.base_D = self._base()

    @property
    def dim(self) -> int:
        """Coordinates that move."""
        return len(self.start_P)

    def take(self, index: torch.Tensor) -> Data:
        """Samples of the data: index [..] -> tensors [.., sample]."""
        return _map(
            self.data,
            lambda t: t.index_select(0, index.reshape(-1)).view(*index.shape, *t.shape[1:]),
        )

    def each(self, x_RP: torch.Tensor, batch: Data, *, shared: bool) -> torch.Tensor:
        """Losses [R, M] of every row on its batch [R, M, sample], or all on one [M, sample]."""
        return self._each(self._placed(x_RP), batch, shared=shared)

    def gradient(
        self, x_RP: torch.Tensor, index_RM: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean losses [R] and their gradients [R, P] with respect to x.

        Args:
            x_RP: coordinates of every row.
            index_RM: samples of the batch of every row; None for all data.

        Returns:
            Both detached.
        """
        if index_RM is None and not self.together and self.num_samples > self.chunk:
            return self._over_all(x_RP)
        w_RP = self._placed(x_RP).requires_grad_()
        batch = self.data if index_RM is None else self.take(index_RM)
        loss_R = self._each(w_RP, batch, shared=index_RM is None).mean(dim=1)
        (slope_RP,) = torch.autograd.grad(loss_R.sum(), w_RP)
        return loss_R.detach(), slope_RP if self.scale_P is None else slope_RP * self.scale_P

    def full_gradient(self, x_1P: torch.Tensor) -> torch.Tensor:
        """Gradient [1, P] of the mean loss over all data, in chunks."""
        return self._over_all(x_1P)[1]

    def _over_all(self, x_RP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean losses and gradients over all data, in chunks."""
        loss_R, slope_RP = x_RP.new_zeros(len(x_RP)), torch.zeros_like(x_RP)
        for at in torch.arange(self.num_samples, device=x_RP.device).split(self.chunk):
            share = len(at) / self.num_samples
            one_R, one_RP = self.gradient(x_RP, at.expand(len(x_RP), -1))
            loss_R += one_R * share
            slope_RP += one_RP * share
        return loss_R, slope_RP

    def base(self, index_RM: torch.Tensor | None) -> torch.Tensor:
        """Mean loss of batches at w0: [R], or of all data [1]."""
        if index_RM is None:
            return self.base_D.mean()[None]
        return self.base_D[index_RM].mean(dim=1)

    def extremes(self, start_RP: torch.Tensor) -> tuple[float, float]:
        """Largest and smallest Ritz value of the Hessian at w0 after LANCZOS_STEPS steps."""
        steps = min(LANCZOS_STEPS, self.dim)
        with sdpa_kernel(SDPBackend.MATH):
            tri = tridiagonal(self._products(), start_RP, steps, keep_basis=False)
        ritz_RK = quadrature(tri)[0]
        return float(ritz_RK.max()), float(ritz_RK.min())

    def krylov(self, start_RP: torch.Tensor) -> Krylov:
        """Lanczos from R vectors with the Hessian at w0."""
        with sdpa_kernel(SDPBackend.MATH):
            return Krylov.of(self._products(), start_RP)

    @torch.no_grad()
    def within(self, x_RP: torch.Tensor, most: float) -> torch.Tensor:
        """Rows halved until their excess loss is at most `most`, or zero if ten times do not do."""
        batches, used = self._fixed()
        x_RP, base = x_RP.clone(), self.base_D[used].mean()
        for _ in range(10):
            loss_RM = torch.cat([self.each(x_RP, b, shared=True) for b in batches], dim=1)
            far_R = ~(loss_RM.mean(dim=1) - base <= most)
            if not far_R.any():
                return x_RP
            x_RP[far_R] /= 2
        x_RP[far_R] = 0.0
        return x_RP

    def flat(self, values: Mapping[str, torch.Tensor | float]) -> torch.Tensor:
        """One value for every coordinate, from tensors or numbers by name (1 where absent)."""
        if unknown := sorted(values.keys() - self.parameters.keys()):
            raise ValueError(f"scales: got {unknown}, allowed names of {tuple(self.parameters)}")
        parts = []
        for name, at in self._places.items():
            p = self.parameters[name]
            value = torch.as_tensor(values.get(name, 1.0)).to(p.detach())
            if not (value > 0).all() or not torch.isfinite(value).all():
                raise ValueError(f"scales.{name}: got {value}, allowed finite numbers above 0")
            parts.append(_part(value.expand(p.shape), at))
        return torch.cat(parts)

    def _products(self) -> Products:
        """Of the Hessian in x at w0, to be used in the MATH kernel of attention."""
        batches, used = self._fixed()

        def loss(named: Parameters, batch: Data) -> torch.Tensor:
            each_M = self._one(self._placed(named["x"][None])[0], batch)
            # the mean over batches is to be that over samples, where the last one is smaller
            return each_M.mean() * (len(each_M) * len(batches) / len(used))

        return hessian_products(loss, {"x": torch.zeros_like(self.start_P)}, batches)

    def _fixed(self) -> tuple[list[Data], torch.Tensor]:
        """Up to CURVATURE_SAMPLES samples, spread over the data: in batches, and which they are."""
        stride = -(-self.num_samples // CURVATURE_SAMPLES)
        used = torch.arange(0, self.num_samples, stride, device=self.start_P.device)
        parts = [used] if self.together else used.split(self.chunk)
        return [self.take(part) for part in parts], used

    def gradient_noise(self, x_1P: torch.Tensor, *, residual: bool) -> float:
        """Largest eigenvalue of the covariance of per-sample gradients at x.

        From the Gram matrix of up to NOISE_SAMPLES samples (fewer where they do not fit, which errs
        upwards).

        Args:
            residual: of the gradients at x minus those at w0, as control variates leave them.

        Returns:
            In units of loss^2 / x^2.
        """
        most = max(4, min(self.num_samples, NOISE_SAMPLES, NOISE_VALUES // self.dim))
        stride = max(self.num_samples // most, 1)
        used = torch.arange(self.num_samples, device=x_1P.device)[::stride][:most]
        rows = [self._slopes(x_1P, at, residual=residual) for at in used.split(32)]
        slope_MP = torch.cat(rows)
        slope_MP -= slope_MP.mean(dim=0)
        gram_MM = (slope_MP @ slope_MP.T).double() / max(len(slope_MP) - 1, 1)
        return max(float(torch.linalg.eigvalsh(gram_MM)[-1]), 0.0)

    def _slopes(self, x_1P: torch.Tensor, at_M: torch.Tensor, *, residual: bool) -> torch.Tensor:
        slope_MP = self.gradient(x_1P.expand(len(at_M), -1), at_M[:, None])[1]
        if residual:
            origin = torch.zeros_like(x_1P).expand(len(at_M), -1)
            slope_MP = slope_MP - self.gradient(origin, at_M[:, None])[1]
        return slope_MP

    def _placed(self, x_RP: torch.Tensor) -> torch.Tensor:
        return self.start_P + (x_RP if self.scale_P is None else x_RP * self.scale_P)

    def _each(self, w_RP: torch.Tensor, batch: Data, *, shared: bool) -> torch.Tensor:
        if self.together and len(w_RP) > 1:
            return torch.vmap(self._one, in_dims=(0, None if shared else 0))(w_RP, batch)
        rows = [
            self._one(w_P, batch if shared else _map(batch, itemgetter(r)))
            for r, w_P in enumerate(w_RP.unbind())
        ]
        return torch.stack(rows)

    def _one(self, w_P: torch.Tensor, batch: Data) -> torch.Tensor:
        """Losses of the samples of a batch at one point."""
        named = dict(self._held)
        for (name, at), part in zip(
            self._places.items(), w_P.split_with_sizes(self._sizes), strict=True
        ):
            whole = self.parameters[name]
            if at is not None:
                part = whole.detach().reshape(-1).index_copy(0, at, part)
            named[name] = part.view(whole.shape)
        return self.losses(named, batch)

    @torch.no_grad()
    def _base(self) -> torch.Tensor:
        device = self.start_P.device
        rows = []
        for at in torch.arange(self.num_samples, device=device).split(self.chunk):
            batch = self.take(at)
            rows.append(self.losses(self.parameters, batch))
            if rows[-1].shape != at.shape:
                got = tuple(rows[-1].shape)
                raise ValueError(f"losses: got shape {got}, allowed {(len(at),)}, one a sample")
            again = self.losses(self.parameters, batch) if len(rows) == 1 else rows[-1]
            if not torch.allclose(rows[-1], again, rtol=1e-5, atol=0.0, equal_nan=True):
                raise ValueError(
                    "losses: got two values for one batch, allowed no dropout or other chance"
                )
        base_D = torch.cat(rows)
        if not torch.isfinite(base_D).all():
            bad = int((~torch.isfinite(base_D)).sum())
            raise ValueError(f"losses: got {bad} not finite at the start, allowed finite ones")
        return base_D


@dataclass(frozen=True)
class Krylov:
    """Ritz vectors of the Hessian from R start vectors.

    Attributes:
        start_RP: the start vectors.
        ritz_RK: Ritz values, ascending.
        vectors_RKP: unit Ritz vectors.
    """

    start_RP: torch.Tensor
    ritz_RK: torch.Tensor
    vectors_RKP: torch.Tensor

    @classmethod
    def of(cls, products: Products, start_RP: torch.Tensor) -> Krylov:
        """LANCZOS_STEPS steps with the basis kept."""
        steps = min(LANCZOS_STEPS, start_RP.shape[1])
        tri = tridiagonal(products, start_RP, steps, keep_basis=True, seen=lambda q_RP: q_RP)
        found = (quadrature(tri)[0], ritz_vectors(tri))
        return cls(start_RP, *(torch.as_tensor(values).to(start_RP) for values in found))

    def apply(self, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """f(H) times the start vectors [R, P], exact for polynomials below LANCZOS_STEPS."""
        along_RK = torch.einsum("rkp,rp->rk", self.vectors_RKP, self.start_RP)
        return torch.einsum("rk,rkp->rp", function(self.ritz_RK) * along_RK, self.vectors_RKP)


def _places(parameters: Parameters, chosen: Any) -> dict[str, torch.Tensor | None]:
    """Name -> positions in the flattened tensor that move, None for all of them."""
    index = dict(chosen) if isinstance(chosen, Mapping) and chosen is not parameters else {}
    names = tuple(chosen)
    unknown = [n for n in names if n not in parameters]
    if unknown or not names:
        raise ValueError(f"block: got {unknown or names}, allowed names of {tuple(parameters)}")
    for name, p in parameters.items():
        if name in names and p.dtype not in _DTYPES:
            raise ValueError(f"parameters.{name}: got {p.dtype}, allowed float32 or float64")
    places: dict[str, torch.Tensor | None] = {}
    for name in names:
        if index.get(name) is None:
            places[name] = None
            continue
        p = parameters[name]
        flat = torch.arange(p.numel(), device=p.device).view(p.shape)[index[name]].reshape(-1)
        if not len(flat):
            raise ValueError(f"block.{name}: got no entries, allowed parts of {tuple(p.shape)}")
        places[name] = flat
    return places


def _part(p: torch.Tensor, at: torch.Tensor | None) -> torch.Tensor:
    flat = p.detach().reshape(-1)
    return flat if at is None else flat[at]


def _map(data: Data, function: Callable[[torch.Tensor], torch.Tensor]) -> Data:
    if isinstance(data, torch.Tensor):
        return function(data)
    if isinstance(data, Mapping):
        return {name: function(part) for name, part in data.items()}
    return tuple(function(part) for part in data)


def _num_samples(data: Data) -> int:
    parts = [data] if isinstance(data, torch.Tensor) else data
    sizes = [len(t) for t in (parts.values() if isinstance(parts, Mapping) else parts)]
    if len(set(sizes)) != 1 or sizes[0] < 2:
        raise ValueError(f"data: got {sizes} samples, allowed 2 or more, as many in every tensor")
    return sizes[0]
