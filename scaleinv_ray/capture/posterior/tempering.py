"""What sets inverse temperatures, localisers, steps and starts of localised chains.

Shape suffixes: P coordinates that move, N settings (nbeta, gamma), C chains, R = N C rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from scaleinv_ray.capture.posterior.loss import Posterior
from scaleinv_ray.capture.posterior.samplers import ChainRows, Length, run

STEP = 0.08
"""Step times the largest curvature of the target, and 4 times the heating that is allowed."""
LADDER = (10.0, 30.0, 100.0, 300.0)
"""nbeta over max(1, lambda)."""
LOCALISER = 1e-3
"""gamma over nbeta h_max."""
PILOT_CHAINS, PILOT_STEPS, PILOT_ROUNDS = 4, 100, 4
LOCAL = 0.1
"""Largest mean excess loss of a pilot, in nats, that counts as local."""
DISPERSION = 2.0
"""Standard deviations of starts away from w0, in those of the Gaussian approximation there.

With as many chains at w0 the mean virial ratio is 1 + e, e the share of a flat direction's variance
that has not relaxed, so it cannot come out right by cancellation (as with a factor of sqrt(2))."""
FLATTEST = 1e-6
"""Least stiffness of a direction in which starts are dispersed, over the largest."""
START_EXCESS = 5.0
"""Largest excess loss of a start, times nbeta / dim."""


@dataclass(frozen=True)
class ChainRequest:
    """What was asked of the chains of a block.

    Attributes:
        sampler: of samplers.SAMPLERS.
        nbetas: inverse temperatures, None for the ladder.
        gammas: a localiser for every nbeta, None for the rule.
        gamma_factors: every localiser is run times each of them.
        steps: for every setting, None for the rule.
        num_chains: at every setting.
        num_dispersed: of them start away from w0.
        length: of the chains.
        generator: on the device of the parameters.
    """

    sampler: str
    nbetas: Sequence[float] | None
    gammas: Sequence[float] | None
    gamma_factors: Sequence[float]
    steps: Sequence[float] | None
    num_chains: int
    num_dispersed: int
    length: Length
    generator: torch.Generator


class Curvature(NamedTuple):
    """Extreme Ritz values of the Hessian at w0."""

    largest: float
    lowest: float

    @classmethod
    def of(cls, posterior: Posterior, generator: torch.Generator) -> Curvature:
        """Of the mean loss; a ValueError where there is none, which leaves the step open."""
        start_1P = torch.empty_like(posterior.start_P)[None].normal_(generator=generator)
        found = cls(*posterior.extremes(start_1P))
        if not found.largest > 0:
            raise ValueError(
                f"largest_curvature: got {found.largest} at the given parameters, allowed above 0 "
                "(without curvature nothing sets the step; take another minimum)"
            )
        return found


class GradientNoise(NamedTuple):
    """Largest eigenvalue of the covariance of per-sample gradients.

    Attributes:
        origin: at w0.
        residual: of the differences to w0, at a draw of the pilot.
        nbeta: of the pilot.
    """

    origin: float
    residual: float
    nbeta: float

    @classmethod
    def of(cls, posterior: Posterior, pilot: Pilot, length: Length) -> GradientNoise:
        """None where batches are all data."""
        if length.batch is None:
            return cls(0.0, 0.0, pilot.nbeta)
        at_1P = pilot.at_P[None]
        origin = posterior.gradient_noise(torch.zeros_like(at_1P), residual=False)
        return cls(origin, posterior.gradient_noise(at_1P, residual=True), pilot.nbeta)

    def at(self, nbeta_N: np.ndarray, sampler: str) -> np.ndarray:
        """At draws of other settings: the residual falls as the squared distance, 1 / nbeta."""
        residual_N = self.residual * self.nbeta / nbeta_N
        return residual_N if sampler == "sgld_cv" else residual_N + self.origin


@dataclass(frozen=True)
class Pilot:
    """What a short run of plain Langevin chains tells.

    Attributes:
        nbeta: at which they ran.
        llc: nbeta times their mean excess loss, 0 where it is not finite.
        at_P: a draw.
        square_P: mean squared gradients.
    """

    nbeta: float
    llc: float
    at_P: torch.Tensor
    square_P: torch.Tensor

    @classmethod
    def of(cls, posterior: Posterior, curvature: Curvature, asked: ChainRequest) -> Pilot:
        """At the first nbeta that was asked for, or where the excess loss is at most LOCAL.

        There from 10 upwards to 10 lambda_hat in each of PILOT_ROUNDS rounds.

        Args:
            curvature: at w0.
            asked: nbetas, sampler, batch and generator are used.

        Returns:
            The last round.
        """
        nbeta = LADDER[0] if asked.nbetas is None else float(asked.nbetas[0])
        noise = 0.0
        if asked.length.batch is None and asked.nbetas is not None:
            if asked.sampler != "rmsprop_sgld":  # nothing is left to find out
                none_P = torch.zeros_like(posterior.start_P)
                return cls(nbeta, 0.0, none_P, none_P)
        if asked.length.batch is not None:
            origin_1P = torch.zeros_like(posterior.start_P)[None]
            noise = posterior.gradient_noise(origin_1P, residual=False)
        for _ in range(PILOT_ROUNDS):
            pilot = cls._round(posterior, curvature, asked, nbeta=nbeta, noise=noise)
            if asked.nbetas is not None or pilot.llc <= LOCAL * nbeta:
                break
            nbeta = LADDER[0] * pilot.llc
        return pilot

    @classmethod
    def _round(
        cls,
        posterior: Posterior,
        curvature: Curvature,
        asked: ChainRequest,
        *,
        nbeta: float,
        noise: float,
    ) -> Pilot:
        # no longer than what it prepares, but a ladder stands on what it finds
        steps = PILOT_STEPS
        if asked.nbetas is not None:
            steps = min(steps, asked.length.num_steps)
        length = Length(steps, steps // 2, asked.length.batch)
        plain = replace(
            asked, sampler="sgld", nbetas=[nbeta], gammas=None, gamma_factors=[1.0], steps=None,
            num_chains=min(PILOT_CHAINS, asked.num_chains), num_dispersed=0, length=length,
        )  # fmt: skip
        found = Settings.of(plain, curvature, GradientNoise(noise, 0.0, nbeta))
        rows = starts(posterior, found, plain)
        draws = run(posterior, rows, "sgld", length, generator=asked.generator)
        excess = float((draws.loss_RS - draws.base_RS)[:, length.burn_in :].nanmean())
        llc = nbeta * excess if np.isfinite(excess) else 0.0
        return cls(nbeta, llc, draws.end_P.nan_to_num(), draws.square_P.nan_to_num())

    def scale(self, posterior: Posterior) -> torch.Tensor:
        """Lengths (sqrt(v) + mean / 10)^-1/2 of RMSprop's preconditioner, of geometric mean 1.

        Returns:
            The lengths, as they were where the pilot diverged or saw no gradient.
        """
        before_P = torch.ones_like(self.at_P) if posterior.scale_P is None else posterior.scale_P
        root_P = self.square_P.sqrt() / before_P
        if not 0 < float(root_P.mean()) < torch.inf:
            return before_P
        scale_P = (root_P + root_P.mean() / 10).rsqrt()
        return scale_P / scale_P.log().mean().exp()


@dataclass(frozen=True)
class Settings:
    """Inverse temperatures, localisers, steps and gradient noise; gamma varies fastest.

    Attributes:
        nbeta_N: inverse temperatures.
        gamma_N: localisers.
        step_N: eps.
        noise_N: lambda_max(C) that the step allows for.
    """

    nbeta_N: np.ndarray
    gamma_N: np.ndarray
    step_N: np.ndarray
    noise_N: np.ndarray

    @classmethod
    def of(
        cls, asked: ChainRequest, curvature: Curvature, noise: GradientNoise, *, llc: float = 1.0
    ) -> Settings:
        """As asked for, and by the rules of `chain_records` where nothing was.

        Args:
            asked: with or without nbetas, gammas, steps.
            curvature: at w0.

        Raises:
            ValueError: for other numbers of gammas or steps than settings.
        """
        ladder = [max(1.0, llc) * nbeta for nbeta in LADDER]
        nbetas = np.array(ladder if asked.nbetas is None else asked.nbetas, dtype=float)
        gammas = LOCALISER * nbetas * curvature.largest
        if asked.gammas is not None:
            gammas = _fitting("gammas", asked.gammas, len(nbetas))
        factors = np.array(asked.gamma_factors, dtype=float)
        if not len(factors) or not factors.min() >= 0:
            got = list(asked.gamma_factors)
            raise ValueError(f"gamma_factors: got {got}, allowed one or more, none below 0")
        nbeta_N = np.repeat(nbetas, len(factors))
        gamma_N = (gammas[:, None] * factors).ravel()
        noise_N = noise.at(nbeta_N, asked.sampler)
        step_N = STEP / (nbeta_N * curvature.largest + gamma_N)
        if asked.length.batch is not None:
            with np.errstate(divide="ignore"):
                quiet_N = STEP * asked.length.batch / (nbeta_N**2 * noise_N)
            step_N = np.minimum(step_N, quiet_N)
        if asked.steps is not None:
            step_N = _fitting("steps", asked.steps, len(nbeta_N))
        return cls(nbeta_N, gamma_N, step_N, noise_N)


def starts(posterior: Posterior, settings: Settings, asked: ChainRequest) -> ChainRows:
    """All chains of all settings where they start, the dispersed ones of a setting first.

    These lie at DISPERSION times a draw of the Gaussian approximation N(0, (nbeta |H| + gamma)^-1),
    to the order of a Krylov space, halved until the loss is at most START_EXCESS dim / nbeta above
    that of w0.

    Args:
        asked: numbers of chains and the generator are used.

    Returns:
        Rows, setting by setting; where all start at w0 they share the memory of one.
    """
    num_chains, num_settings = asked.num_chains, len(settings.nbeta_N)
    x_RP = torch.zeros_like(posterior.start_P).expand(num_settings * num_chains, -1)
    if asked.num_dispersed:
        x_RP = x_RP.contiguous()
    for c in range(asked.num_dispersed):
        krylov = posterior.krylov(torch.empty_like(x_RP[:1]).normal_(generator=asked.generator))
        for n, (nbeta, gamma) in enumerate(zip(settings.nbeta_N, settings.gamma_N, strict=True)):
            start_1P = DISPERSION * krylov.apply(partial(_spread, nbeta=nbeta, gamma=gamma))
            most = START_EXCESS * posterior.dim / nbeta
            x_RP[n * num_chains + c] = posterior.within(start_1P, most)[0]

    def column(values_N: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.repeat(values_N, num_chains)).to(x_RP)[:, None]

    group_R = torch.arange(num_settings, device=x_RP.device).repeat_interleave(num_chains)
    return ChainRows(
        x_RP, column(settings.nbeta_N), column(settings.gamma_N), column(settings.step_N), group_R
    )


def _spread(ritz_RK: torch.Tensor, *, nbeta: float, gamma: float) -> torch.Tensor:
    """Standard deviations of the Gaussian approximation."""
    stiff_RK = nbeta * ritz_RK.abs() + gamma
    return stiff_RK.clamp(min=float(stiff_RK.max()) * FLATTEST).rsqrt()


def _fitting(name: str, values: Sequence[float], count: int) -> np.ndarray:
    found = np.array(values, dtype=float)
    if len(found) != count or not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"{name}: got {list(values)}, allowed {count} numbers, none below 0")
    return found
