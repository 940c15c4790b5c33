"""Forms of a law over size: constant, power, logarithm, offset power; fitted and compared.

Shape suffixes: K sizes, C coefficients. z = x - x_1 = ln(N / N_1) throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

TIED = 4.0
"""Differences of AICc below this do not tell two forms apart."""
RESOLUTION = 1e-12
"""Root mean square residuals below this are rounding, not evidence for a form."""
OUTSIDE = 1e6
"""Residual outside the range of a form."""
MOST_STEPS = 40

Shape = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Form:
    """A family of curves y = f(z).

    Attributes:
        num_coefficients: C; the variance counts besides in AICc.
        evaluate: (coefficients [C], z [K]) -> (y [K], its derivatives [K, C]); forms with starts
            take many coefficients [B, C] at once, too.
        starts: (slope per z, range of z) -> starting points of the coefficients after the first,
            the level; none for forms that are linear.
    """

    num_coefficients: int
    evaluate: Shape
    starts: Callable[[float, float], list[list[float]]] | None = None


@dataclass(frozen=True)
class Fit:
    """A form fitted to the size means.

    Attributes:
        form: its name.
        x_first: x_1, from which z is counted.
        coefficients_C: fitted coefficients.
        residual_K: means minus fit.
        gradient_KC: derivatives of the fit by its coefficients.
        weight_K: seeds at each size.
        shape: evaluates the form.
    """

    form: str
    x_first: float
    coefficients_C: np.ndarray
    residual_K: np.ndarray
    gradient_KC: np.ndarray
    weight_K: np.ndarray
    shape: Shape

    @property
    def df(self) -> int:
        """Sizes minus coefficients."""
        return len(self.residual_K) - len(self.coefficients_C)

    @property
    def scatter(self) -> float:
        """Variance of a single seed that the residuals alone imply, sum s r^2 / df."""
        return float((self.weight_K * self.residual_K**2).sum()) / self.df

    def at(self, x: float) -> tuple[float, np.ndarray]:
        """The fit and its gradient [C] at x; not finite where the form has left its range."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            y, gradient = self.shape(self.coefficients_C, np.array([x - self.x_first]))
        return float(y[0]), gradient[0]


def _constant(coefficients: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(z), coefficients[0]), np.ones((len(z), 1))


def _line(coefficients: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gradient = np.ones((len(z), 2))
    gradient[:, 1] = z
    return coefficients[0] + coefficients[1] * z, gradient


def _log_of_line(coefficients: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # I = a (1 + d z) on the scale ln I
    inside = 1 + _each(coefficients, 1) * z
    gradient = np.ones((*inside.shape, 2))
    gradient[..., 1] = z / inside
    return _each(coefficients, 0) + np.log(inside), gradient


def _log_of_offset(coefficients: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # I / I_1 = g + (1 - g) exp(-b z) with g = e^p = I_inf / I_1 and b = e^q > 0: positive for all p
    limit, rate = _bounded_exp(_each(coefficients, 1)), _bounded_exp(_each(coefficients, 2))
    decay = np.exp(-rate * z)
    inside = limit + (1 - limit) * decay
    gradient = np.ones((*inside.shape, 3))
    gradient[..., 1] = limit * (1 - decay) / inside
    gradient[..., 2] = -(1 - limit) * rate * z * decay / inside
    return _each(coefficients, 0) + np.log(inside), gradient


def _offset(coefficients: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # I = I_inf + A exp(-b z) with b = e^q > 0, on the scale I
    height, rate = _each(coefficients, 1), _bounded_exp(_each(coefficients, 2))
    decay = np.exp(-rate * z)
    gradient = np.ones((*decay.shape, 3))
    gradient[..., 1] = decay
    gradient[..., 2] = -height * rate * z * decay
    return _each(coefficients, 0) + height * decay, gradient


def _each(coefficients: np.ndarray, index: int) -> Any:
    """One coefficient, or a column of it for a batch."""
    return coefficients[index] if coefficients.ndim == 1 else coefficients[:, index, None]


def _bounded_exp(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.exp(np.clip(value, -30.0, 30.0))
    return math.exp(min(max(value, -30.0), 30.0))


def _log_starts(slope: float, reach: float) -> list[list[float]]:
    return [[math.expm1(min(max(slope * reach, -20.0), 20.0)) / reach]]


def _log_offset_starts(slope: float, reach: float) -> list[list[float]]:
    limit = slope * reach
    return [[limit, math.log(rate / reach)] for rate in (1.0, 3.0, 8.0)]


def _offset_starts(slope: float, reach: float) -> list[list[float]]:
    return [[-slope * reach, math.log(rate / reach)] for rate in (1.0, 3.0, 8.0)]


LOGARITHMIC: Mapping[str, Form] = {
    "constant": Form(1, _constant),
    "power": Form(2, _line),
    "log": Form(2, _log_of_line, _log_starts),
    "offset_power": Form(3, _log_of_offset, _log_offset_starts),
}
"""Forms of ln I: I = A, A N^b, a + b ln N, I_inf + A N^-b."""
RAW: Mapping[str, Form] = {
    "constant": Form(1, _constant),
    "log": Form(2, _line),
    "offset_power": Form(3, _offset, _offset_starts),
}
"""Forms of I itself, for quantities with a unit: a power law has no zero to cross."""


@dataclass(frozen=True)
class Means:
    """Size means: x_K ascending, mean_K, and weight_K, the seeds behind each."""

    x_K: np.ndarray
    mean_K: np.ndarray
    weight_K: np.ndarray

    def first(self, num_sizes: int) -> Means:
        """The smallest `num_sizes` sizes."""
        return Means(self.x_K[:num_sizes], self.mean_K[:num_sizes], self.weight_K[:num_sizes])


def fit(
    name: str, forms: Mapping[str, Form], given: Means, *, start: np.ndarray | None = None
) -> Fit:
    """Weighted least squares of a form on the size means.

    Args:
        name: a key of `forms`.
        forms: `LOGARITHMIC` for means of ln I, `RAW` for means of I / unit.
        given: the means, more sizes than coefficients.
        start: coefficients [C] to start from, where those of nearly the same means are known.

    Returns:
        The fit that minimises sum_k s_k (m_k - f(z_k))^2.

    Raises:
        ValueError: for an unknown form or too few sizes.

    >>> means = Means(np.arange(4.0), 1 + 2 * np.arange(4.0), np.ones(4))
    >>> fit("power", LOGARITHMIC, means).coefficients_C.round(9).tolist()
    [1.0, 2.0]
    """
    if name not in forms:
        raise ValueError(f"form: got {name!r}, allowed {sorted(forms)}")
    form = forms[name]
    if len(given.x_K) <= form.num_coefficients:
        raise ValueError(f"sizes: got {len(given.x_K)}, {name} needs > {form.num_coefficients}")
    z_K = given.x_K - given.x_K[0]
    root_K = np.sqrt(given.weight_K)
    if form.starts is None:
        design_KC = form.evaluate(np.zeros(form.num_coefficients), z_K)[1]
        best_C = np.linalg.lstsq(design_KC * root_K[:, None], given.mean_K * root_K)[0]
    else:
        reach, rise = float(z_K[-1]), float(given.mean_K[-1] - given.mean_K[0])
        tails = form.starts(rise / reach, reach) if start is None else [start[1:].tolist()]
        level = given.mean_K[0] if start is None else start[0]
        starts = [np.array([level, *tail]) for tail in tails]
        best_C = _nonlinear(form, z_K, given.mean_K * root_K, root_K, starts)
    y_K, gradient_KC = form.evaluate(best_C, z_K)
    return Fit(
        name,
        float(given.x_K[0]),
        best_C,
        given.mean_K - y_K,
        gradient_KC,
        given.weight_K,
        form.evaluate,
    )


def _nonlinear(
    form: Form, z_K: np.ndarray, target_K: np.ndarray, root_K: np.ndarray, starts: list[np.ndarray]
) -> np.ndarray:
    last: tuple[bytes, tuple[np.ndarray, np.ndarray]] = (b"", form.evaluate(starts[0], z_K))

    def evaluated(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal last  # derivatives are asked for where values have just been
        at = coefficients.tobytes()
        if last[0] != at:
            last = at, form.evaluate(coefficients, z_K)
        return last[1]

    def residual(coefficients: np.ndarray) -> np.ndarray:
        y_K = evaluated(coefficients)[0] * root_K
        # outside the range of the form (ln of a negative number) every step back is downhill
        return np.where(np.isfinite(y_K), target_K - y_K, OUTSIDE)

    def jacobian(coefficients: np.ndarray) -> np.ndarray:
        gradient_KC = evaluated(coefficients)[1] * root_K[:, None]
        return np.where(np.isfinite(gradient_KC), -gradient_KC, 0.0)

    with np.errstate(all="ignore"):
        found = [
            optimize.leastsq(residual, start, Dfun=jacobian, full_output=True)[0]
            for start in starts
        ]
        return min(found, key=lambda best: float((residual(best) ** 2).sum()))


def refit(
    form: Form, z_K: np.ndarray, mean_BK: np.ndarray, weight_BK: np.ndarray, start_C: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of one form on many means that hardly differ, all at once.

    Levenberg-Marquardt steps with the damping of each series its own (Marquardt 1963).

    Args:
        form: that is not linear.
        z_K: x - x_1.
        mean_BK: means of each series.
        start_C: coefficients of nearly the same means.

    Returns:
        Coefficients [B, C], and of each series whether the last step lowered its residual sum of
        squares by less than 1e-12 of it: the others have to be fitted one by one.
    """
    coefficients_BC = np.repeat(start_C[None], len(mean_BK), axis=0)
    settled_B, damping_B = np.zeros(len(mean_BK), dtype=bool), np.full(len(mean_BK), 1e-4)
    root_BK = np.sqrt(weight_BK)
    with np.errstate(all="ignore"):
        residual_BK, jacobian_BKC = _linearised(form, coefficients_BC, z_K, mean_BK, root_BK)
        for _ in range(MOST_STEPS):
            square_B = (residual_BK**2).sum(axis=1)
            step_BC = _damped_step(residual_BK, jacobian_BKC, damping_B)
            trial_BC = coefficients_BC + step_BC
            trial_BK, trial_BKC = _linearised(form, trial_BC, z_K, mean_BK, root_BK)
            gain_B = square_B - (trial_BK**2).sum(axis=1)
            better_B = (gain_B >= 0) & ~settled_B
            settled_B |= better_B & (gain_B <= 1e-12 * square_B)
            coefficients_BC = np.where(better_B[:, None], trial_BC, coefficients_BC)
            residual_BK = np.where(better_B[:, None], trial_BK, residual_BK)
            jacobian_BKC = np.where(better_B[:, None, None], trial_BKC, jacobian_BKC)
            damping_B = np.where(better_B, damping_B / 10, damping_B * 10)
            if settled_B.all():
                break
    return coefficients_BC, settled_B


def _linearised(
    form: Form,
    coefficients_BC: np.ndarray,
    z_K: np.ndarray,
    mean_BK: np.ndarray,
    root_BK: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    y_BK, gradient_BKC = form.evaluate(coefficients_BC, z_K)
    residual_BK = np.where(np.isfinite(y_BK), (mean_BK - y_BK) * root_BK, OUTSIDE)
    weighted_BKC = gradient_BKC * root_BK[..., None]
    return residual_BK, np.where(np.isfinite(weighted_BKC), weighted_BKC, 0.0)


def _damped_step(
    residual_BK: np.ndarray, jacobian_BKC: np.ndarray, damping_B: np.ndarray
) -> np.ndarray:
    jacobian_BCK = jacobian_BKC.transpose(0, 2, 1)
    normal_BCC = jacobian_BCK @ jacobian_BKC
    diagonal_BC = np.einsum("bcc->bc", normal_BCC)
    # a derivative that vanishes leaves its coefficient where it is
    added_BC = np.where(diagonal_BC > 0, damping_B[:, None] * diagonal_BC, 1.0)
    normal_BCC = normal_BCC + added_BC[..., None] * np.eye(diagonal_BC.shape[1])
    downhill_BC1 = jacobian_BCK @ residual_BK[..., None]
    step_BC: np.ndarray = np.linalg.solve(normal_BCC, downhill_BC1)[..., 0]
    return step_BC


def aicc(fitted: Fit) -> float | None:
    """AICc = n ln(RSS / n) + 2 p + 2 p (p + 1) / (n - p - 1), p = C + 1 (Hurvich & Tsai 1989).

    Args:
        fitted: fit to n sizes; RSS weights them by their seeds, with mean weight one.

    Returns:
        AICc; None where n - p - 1 < 1, so never for offset power on five sizes.

    >>> means = Means(np.arange(5.0), np.array([0.0, 1.0, 0.0, 1.0, 0.0]), np.ones(5))
    >>> constant = fit("constant", LOGARITHMIC, means)
    >>> round(aicc(constant) - 5 * math.log(1.2 / 5), 9)
    10.0
    """
    num_sizes, p = len(fitted.residual_K), len(fitted.coefficients_C) + 1
    if num_sizes - p - 1 < 1:
        return None
    mean_square = float(np.average(fitted.residual_K**2, weights=fitted.weight_K))
    penalty = 2 * p + 2 * p * (p + 1) / (num_sizes - p - 1)
    return num_sizes * math.log(max(mean_square, RESOLUTION**2)) + penalty


def candidates(forms: Mapping[str, Form], num_sizes: int) -> list[str]:
    """Forms that so many sizes can tell apart: three coefficients need six sizes, two need four."""
    return [name for name, form in forms.items() if num_sizes >= max(4, 2 * form.num_coefficients)]


def select(fits: Sequence[Fit], held_out_errors: Sequence[float]) -> int:
    """The best form by AICc; where the difference is < 4, by the error at the largest size.

    Args:
        fits: candidates on the same means.
        held_out_errors: leave-largest-out error of each.

    Returns:
        Index of the best. Forms without an AICc (four sizes) count as tied with the best.
    """
    scores = [aicc(fitted) for fitted in fits]
    best = min((score for score in scores if score is not None), default=math.inf)
    tied = [i for i, score in enumerate(scores) if score is None or score < best + TIED]
    return min(tied, key=lambda i: held_out_errors[i])
