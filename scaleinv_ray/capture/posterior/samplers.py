"""Steps of localised-posterior chains: Langevin with minibatches, control variates, Metropolis.

All rows (a chain at a setting each) move side by side. Their target is
exp(-nbeta L(w) - gamma |x|^2 / 2) in the coordinates x of a Posterior, w = w0 + scale x.
Shape suffixes: P coordinates, R rows, S draws, M samples of a batch, Q other probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from scaleinv_ray.capture.posterior.loss import Data, Posterior

SAMPLERS = ("sgld", "rmsprop_sgld", "sgld_cv", "mala")
"""Of `run`; rmsprop_sgld is sgld in the coordinates of its preconditioner."""
SIDE_BY_SIDE = 20_000_000
"""Rows times coordinates that move in one call."""

AHEAD = 64
"""Batches drawn in one call of the generator."""
ACCEPTANCE = 0.7
"""Share of proposals that the adaptation of MALA aims at (optimum .574 for many dimensions)."""


@dataclass
class ChainRows:
    """Where chains are and how they move; a row is one chain at one setting.

    Attributes:
        x_RP: coordinates; `langevin` and `metropolis` move them in place.
        nbeta_R1: inverse temperatures.
        gamma_R1: localisers.
        step_R1: step sizes eps, adapted in place during the burn-in of MALA.
        group_R: setting of every row, whose step it shares.
    """

    x_RP: torch.Tensor
    nbeta_R1: torch.Tensor
    gamma_R1: torch.Tensor
    step_R1: torch.Tensor
    group_R: torch.Tensor

    def part(self, at: slice) -> ChainRows:
        """Some of the rows, as views."""
        return ChainRows(
            self.x_RP[at], self.nbeta_R1[at], self.gamma_R1[at], self.step_R1[at], self.group_R[at]
        )


@dataclass(frozen=True)
class Length:
    """How long chains run.

    Attributes:
        num_steps: draws, S.
        burn_in: of them at the start.
        batch: samples in a batch; None for all data.
    """

    num_steps: int
    burn_in: int
    batch: int | None


@dataclass(frozen=True)
class Draws:
    """What is kept of every draw after the start, as records.Chains defines it.

    Attributes:
        loss_RS: mean loss of the batch.
        base_RS: mean loss of the same batch at w0.
        virial_RS: x . (nbeta g + gamma x) / P.
        drift_RS: |nbeta g + gamma x|^2 / P.
        observed_QRS: excess losses of other probes.
        accepted_R: share of proposals accepted after the burn-in.
        square_P: mean squared gradient after the burn-in over all rows.
        end_P: where the first row that stayed finite ended, NaN where none did.
    """

    loss_RS: torch.Tensor
    base_RS: torch.Tensor
    virial_RS: torch.Tensor
    drift_RS: torch.Tensor
    observed_QRS: torch.Tensor
    accepted_R: torch.Tensor
    square_P: torch.Tensor
    end_P: torch.Tensor

    @classmethod
    def empty(cls, rows: ChainRows, length: Length, num_observed: int) -> Draws:
        """Of NaN, to be filled."""
        shape = (len(rows.x_RP), length.num_steps)
        # losses in the precision of the net: their difference is what counts
        kept = rows.x_RP.dtype
        loss, base = (torch.full(shape, torch.nan, dtype=kept) for _ in range(2))
        virial, drift = (torch.full(shape, torch.nan) for _ in range(2))
        observed = torch.full((num_observed, *shape), torch.nan)
        accepted, square = torch.ones(shape[0]), torch.zeros_like(rows.x_RP[0])
        end = torch.full_like(square, torch.nan)
        return cls(loss, base, virial, drift, observed, accepted, square, end)

    def end(self, x_RP: torch.Tensor) -> None:
        """Notes where the rows ended."""
        finite_R = torch.isfinite(x_RP).all(dim=1)
        if finite_R.any():
            self.end_P.copy_(x_RP[finite_R][0])

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """Of all rows of several parts."""
        ended = (p.end_P for p in parts if not p.end_P.isnan().any())
        return cls(
            loss_RS=torch.cat([p.loss_RS for p in parts]),
            base_RS=torch.cat([p.base_RS for p in parts]),
            virial_RS=torch.cat([p.virial_RS for p in parts]),
            drift_RS=torch.cat([p.drift_RS for p in parts]),
            observed_QRS=torch.cat([p.observed_QRS for p in parts], dim=1),
            accepted_R=torch.cat([p.accepted_R for p in parts]),
            square_P=torch.stack([p.square_P for p in parts]).nanmean(dim=0),
            end_P=next(ended, parts[0].end_P),
        )


class Observer:
    """Excess losses of other probes on fixed data."""

    def __init__(self, posterior: Posterior, probes: Mapping[str, Data]) -> None:
        self._posterior = posterior
        self._probes = tuple(probes.values())
        origin = torch.zeros_like(posterior.start_P)[None]
        with torch.no_grad():
            self._base = [self._mean(origin, probe) for probe in self._probes]

    def __len__(self) -> int:
        return len(self._probes)

    @torch.no_grad()
    def __call__(self, x_RP: torch.Tensor) -> torch.Tensor:
        """[Q, R]."""
        found = [
            self._mean(x_RP, probe) - base
            for probe, base in zip(self._probes, self._base, strict=True)
        ]
        return torch.stack(found)

    def _mean(self, x_RP: torch.Tensor, probe: Data) -> torch.Tensor:
        return self._posterior.each(x_RP, probe, shared=True).mean(dim=1)


class _Batches:
    """Samples of the batches of every row, drawn with replacement, independent from step to step.

    A batch is therefore independent of the draw at which it is evaluated, as the virial needs.
    """

    def __init__(
        self, num_samples: int, rows: int, batch: int | None, generator: torch.Generator
    ) -> None:
        self._num_samples = num_samples
        self._shape = (rows, batch)
        self._generator = generator
        self._drawn: list[torch.Tensor] = []

    def next(self) -> torch.Tensor | None:
        rows, batch = self._shape
        if batch is None:
            return None
        if not self._drawn:
            device = self._generator.device
            shape = (AHEAD, rows, batch)
            made = torch.randint(self._num_samples, shape, generator=self._generator, device=device)
            self._drawn = list(made.unbind())
        return self._drawn.pop()


def run(
    posterior: Posterior,
    rows: ChainRows,
    sampler: str,
    length: Length,
    *,
    generator: torch.Generator,
    observed: Mapping[str, Data] | None = None,
) -> Draws:
    """Moves all rows, in as many parts as memory and the posterior ask for.

    Args:
        rows: setting by setting; their coordinates are left as they are (each part moves a copy, so
            that as many rows are in memory as move at one time), the steps of mala are adapted in
            place. A part holds whole settings with mala, whose chains share a step.
        generator: on the device of the parameters.

    Returns:
        The draws of all rows.
    """
    observer = Observer(posterior, observed) if observed else None
    num_chains = int((rows.group_R == 0).sum())
    size = max(1, SIDE_BY_SIDE // (posterior.dim * num_chains)) * num_chains
    if not posterior.together:
        size = num_chains if sampler == "mala" else 1
    parts = []
    for at in range(0, len(rows.x_RP), size):
        part = rows.part(slice(at, at + size))
        part.x_RP = part.x_RP.clone()
        if sampler == "mala":
            found = metropolis(posterior, part, length, generator=generator, observer=observer)
        else:
            found = langevin(
                posterior, part, length, generator=generator, observer=observer,
                control_variates=sampler == "sgld_cv",
            )  # fmt: skip
        parts.append(found)
    return Draws.joined(parts)


def langevin(
    posterior: Posterior,
    rows: ChainRows,
    length: Length,
    *,
    generator: torch.Generator,
    control_variates: bool = False,
    observer: Observer | None = None,
) -> Draws:
    """Stochastic gradient Langevin dynamics without a Metropolis test (Welling & Teh 2011).

    x <- x - (eps / 2) (nbeta g_B + gamma x) + sqrt(eps) xi. With control variates
    g_B(x) - g_B(0) + g(0) stands for g_B(x) (Baker, Fearnhead, Fox & Nemeth 2019).
    Loss, virial and drift of a draw come from the batch that moves it on, which is independent of
    it. A row whose step is not finite stays so: its losses are NaN from there.

    Args:
        generator: on the device of the parameters.
        control_variates: as above; half again to twice the cost.

    Returns:
        The draws; accepted_R is 1.
    """
    x_RP, nbeta_R1, gamma_R1 = rows.x_RP, rows.nbeta_R1, rows.gamma_R1
    half_R1, noise_R1 = -rows.step_R1 / 2, rows.step_R1.sqrt()
    batches = _Batches(posterior.num_samples, len(x_RP), length.batch, generator)
    origin_RP = torch.zeros_like(x_RP)
    full_1P = posterior.full_gradient(origin_RP[:1]) if control_variates else None
    draws = Draws.empty(rows, length, len(observer or ()))
    xi_RP = torch.empty_like(x_RP)
    for s in range(-1, length.num_steps):
        index_RM = batches.next()
        loss_R, slope_RP = posterior.gradient(x_RP, index_RM)
        if full_1P is not None:
            slope_RP = slope_RP - posterior.gradient(origin_RP, index_RM)[1] + full_1P
        if s >= length.burn_in:
            draws.square_P.add_(slope_RP.square().nanmean(dim=0))
        drift_RP = torch.addcmul(gamma_R1 * x_RP, slope_RP, nbeta_R1)
        if s >= 0:
            draws.loss_RS[:, s] = loss_R
            draws.base_RS[:, s] = posterior.base(index_RM)
            _keep_drift(draws, s, x_RP, drift_RP)
            if observer:
                draws.observed_QRS[:, :, s] = observer(x_RP)
        if s + 1 < length.num_steps:
            x_RP.addcmul_(drift_RP, half_R1)
            x_RP.addcmul_(xi_RP.normal_(generator=generator), noise_R1)
    draws.square_P.div_(max(length.num_steps - length.burn_in, 1))
    draws.end(x_RP)
    return draws


def metropolis(
    posterior: Posterior,
    rows: ChainRows,
    length: Length,
    *,
    generator: torch.Generator,
    observer: Observer | None = None,
) -> Draws:
    """Metropolis-adjusted Langevin (Roberts & Tweedie 1996) on the mean loss of all data.

    Steps of a setting are adapted during the burn-in towards ACCEPTANCE and fixed after it.

    Args:
        rows: moved in place, and their steps.
        generator: on the device of the parameters.
    """
    draws = Draws.empty(rows, length, len(observer or ()))
    base = posterior.base(None)
    loss_R, drift_RP = _force(posterior, rows, rows.x_RP)
    accepted_R = torch.zeros_like(loss_R)
    xi_RP = torch.empty_like(rows.x_RP)
    for s in range(length.num_steps):
        eps_R1 = rows.step_R1
        xi_RP.normal_(generator=generator)
        there_RP = rows.x_RP - eps_R1 / 2 * drift_RP + eps_R1.sqrt() * xi_RP
        loss_there_R, drift_there_RP = _force(posterior, rows, there_RP)
        back_RP = rows.x_RP - there_RP + eps_R1 / 2 * drift_there_RP
        chance_R = (
            rows.nbeta_R1[:, 0] * (loss_R - loss_there_R)
            + rows.gamma_R1[:, 0] / 2 * (rows.x_RP.square() - there_RP.square()).sum(dim=1)
            + xi_RP.square().sum(dim=1) / 2
            - back_RP.square().sum(dim=1) / (2 * eps_R1[:, 0])
        ).nan_to_num(nan=-torch.inf).clamp(max=0).exp()  # fmt: skip
        uniform_R = torch.rand(
            chance_R.shape, generator=generator, device=chance_R.device, dtype=chance_R.dtype
        )
        taken_R = uniform_R < chance_R
        rows.x_RP[taken_R] = there_RP[taken_R]
        drift_RP[taken_R] = drift_there_RP[taken_R]
        loss_R = torch.where(taken_R, loss_there_R, loss_R)
        draws.loss_RS[:, s] = loss_R
        draws.base_RS[:, s] = base
        _keep_drift(draws, s, rows.x_RP, drift_RP)
        if observer:
            draws.observed_QRS[:, :, s] = observer(rows.x_RP)
        if s < length.burn_in:
            _adapt(rows, chance_R, rate=min(1.0, 10 / (s + 10)))
        else:
            accepted_R += taken_R
    draws.accepted_R.copy_(accepted_R / max(length.num_steps - length.burn_in, 1))
    draws.end(rows.x_RP)
    return draws


def _force(
    posterior: Posterior, rows: ChainRows, x_RP: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean losses over all data and nbeta g + gamma x."""
    loss_R, slope_RP = posterior.gradient(x_RP, None)
    return loss_R, torch.addcmul(rows.gamma_R1 * x_RP, slope_RP, rows.nbeta_R1)


def _adapt(rows: ChainRows, chance_R: torch.Tensor, *, rate: float) -> None:
    """Robbins-Monro on log eps, by the mean chance over the rows of a group."""
    count = chance_R.new_zeros(int(rows.group_R[-1]) + 1)
    total = count.index_add(0, rows.group_R, chance_R)
    mean = total / count.index_add(0, rows.group_R, torch.ones_like(chance_R))
    rows.step_R1.mul_(((mean[rows.group_R] - ACCEPTANCE) * rate).exp()[:, None])


def _keep_drift(draws: Draws, s: int, x_RP: torch.Tensor, drift_RP: torch.Tensor) -> None:
    dim = x_RP.shape[1]
    draws.virial_RS[:, s] = torch.linalg.vecdot(x_RP, drift_RP) / dim
    draws.drift_RS[:, s] = torch.linalg.vecdot(drift_RP, drift_RP) / dim
