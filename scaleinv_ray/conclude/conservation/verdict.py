"""What a verdict says, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np

from scaleinv_ray.conclude.aggregation.places import AtPlace
from scaleinv_ray.conclude.conservation.prediction import Prediction
from scaleinv_ray.inputs.html import table


class Verdicts(StrEnum):
    """What can be said of a series of sizes; the last two where no model has a value."""

    CONSERVED = "conserved"
    CONSERVED_DRIFTING = "conserved_drifting"
    CONSERVED_EXACT = "conserved_exact"
    SCALES = "scales"
    NOT_CONSERVED = "not_conserved"
    UNDETERMINED = "undetermined"
    REFUSED = "refused"
    NOT_ASKED = "not_asked"

    @property
    def is_conserved(self) -> bool:
        """Whether this is one of the three kinds of conserved."""
        return self.value.startswith("conserved")

    @property
    def words(self) -> str:
        """As it stands in a sentence."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class Verdict:
    """The verdict and everything it rests on; None where a number cannot be had.

    Attributes:
        verdict: the verdict.
        reason: in words, what decided or what is missing.
        margin: relative change (or change in units) that still counts as conserved.
        conservation_error: |I_small - I_large| / |I_small| of the mean raw values, or over the
            declared unit: the headline, which decides nothing.
        certified_change: exp(W) - 1, or W in units: the change that the data exclude.
        tost_p: p of the equivalence test (largest over the pairs of sizes).
        form: constant, power, log or offset_power; None where none stands (fits and predicts).
        exponent: slope of the judged value on ln N (power: the exponent).
        exponent_low: lower end of its 95 % interval, the wider of pooled and residual.
        exponent_high: upper end.
        slope_p_pooled: p of the slope against the variance over seeds.
        slope_p_residual: p of the slope against the scatter about the line.
        q_statistic: heterogeneity Q.
        f_statistic: Q / (k - 1).
        heterogeneity_p: p of F(k - 1, df).
        i2: max(0, 1 - (k - 1) / Q).
        lack_of_fit_p: p of F for the line, or for `form` where it is another.
        prediction: the largest size predicted from the others.
        seed_variance: pooled variance over seeds, s2.
        unequal_variances: whether pairs were compared by Welch's t.
        seeds_needed: seeds per size that would decide, where the verdict is undetermined.
        left_out: verdicts after leaving out each seed of a size that has three or more.
        num_sizes: sizes k.
        num_seeds: seeds at the size with the fewest.
        size_means: means on the judged scale, in order of size.
        size_variances: variances of these means, s2 / s_i.
    """

    verdict: Verdicts
    reason: str
    margin: float
    conservation_error: float | None
    certified_change: float | None = None
    tost_p: float | None = None
    form: str | None = None
    exponent: float | None = None
    exponent_low: float | None = None
    exponent_high: float | None = None
    slope_p_pooled: float | None = None
    slope_p_residual: float | None = None
    q_statistic: float | None = None
    f_statistic: float | None = None
    heterogeneity_p: float | None = None
    i2: float | None = None
    lack_of_fit_p: float | None = None
    prediction: Prediction | None = None
    seed_variance: float | None = None
    unequal_variances: bool = False
    seeds_needed: int | None = None
    left_out: tuple[Verdicts, ...] = ()
    num_sizes: int = 0
    num_seeds: int = 0
    size_means: tuple[float, ...] = ()
    size_variances: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"<Verdict {self.verdict.words}: {self.reason}>"

    def _repr_html_(self) -> str:
        said = {"verdict", "reason"}
        numbers = [(k, v) for k, v in vars(self).items() if isinstance(v, int | float | str)]
        return table(
            self.verdict.words, (), [of for of in numbers if of[0] not in said], self.reason
        )

    @property
    def slope_p(self) -> float | None:
        """The larger of the two p-values of the slope, which the verdict uses."""
        known = [p for p in (self.slope_p_pooled, self.slope_p_residual) if p is not None]
        return max(known) if len(known) == 2 else None

    @property
    def held_out_error(self) -> float | None:
        """|prediction - mean| at the largest size, on the judged scale."""
        return None if self.prediction is None else self.prediction.error

    @property
    def naive_error(self) -> float | None:
        """The smaller error of the two naive predictions of the largest size."""
        p = self.prediction
        return None if p is None else min(p.naive_last_error, p.naive_mean_error)

    @property
    def stable(self) -> bool | None:
        """Whether the verdict survives leaving out any one seed; None where none could be."""
        return all(v == self.verdict for v in self.left_out) if self.left_out else None

    @property
    def tau2(self) -> float | None:
        """Variance between sizes by Paule and Mandel (statsmodels)."""
        if self.seed_variance is None:
            return None
        if self.seed_variance == 0:
            return float(np.var(self.size_means, ddof=1))
        # here, not above: statsmodels takes seconds to import and a verdict does not need it
        from statsmodels.stats.meta_analysis import combine_effects

        found = combine_effects(
            np.array(self.size_means), np.array(self.size_variances), method_re="iterated"
        )
        return float(found.tau2)


class VerdictRow(AtPlace):
    """What can be said of a quantity over the sizes of a series, at one place."""

    step: int | None
    comparison: str
    law: Annotated[str, "what was claimed in advance"]
    control: Annotated[bool, "whether it is a control of another quantity"]
    unit: Annotated[float | None, "unit in which changes are judged; none where relative"]
    margin: Annotated[float | None, "change that still counts as conserved"]
    conservation_error: Annotated[
        float | None, "|I_small - I_large| / |I_small|, or over the unit where one is declared"
    ]
    certified_change: Annotated[float | None, "largest change that the seeds do not exclude"]
    verdict: Annotated[str, "the verdict"]
    form: Annotated[str | None, "law that stands: constant, power, log or offset_power"]
    exponent: Annotated[float | None, "slope over ln N; of ln|I| where no unit is declared"]
    exponent_low: Annotated[float | None, "lower end of its 95 % interval"]
    exponent_high: Annotated[float | None, "upper end of it"]
    slope_p: Annotated[float | None, "p of no slope"]
    heterogeneity_p: Annotated[float | None, "p of no difference between sizes"]
    q: float | None
    I2: Annotated[float | None, "share of the variance that is between sizes"]
    lack_of_fit_p: Annotated[float | None, "p of the form"]
    held_out_error: Annotated[float | None, "error of the largest size predicted from the others"]
    naive_error: Annotated[float | None, "error of the better of two guesses without a law"]
    estimator_share: Annotated[
        float | None, "variance within models, that they do not share, over that over seeds"
    ]
    null_class: Annotated[str | None, "what untrained networks do beside it"]
    null_verdict: Annotated[str | None, "the verdict on untrained networks"]
    slope_beyond_null: Annotated[float | None, "slope over ln N less that of untrained networks"]
    slope_beyond_null_low: Annotated[float | None, "lower end of its 95 % interval"]
    slope_beyond_null_high: Annotated[float | None, "upper end of it"]
    null_seeds_needed: Annotated[int | None, "seeds a size that would decide the null class"]
    rho: Annotated[float | None, "the untrained value over the trained one"]
    fragile: Annotated[bool | None, "whether the verdict is another with one model left out"]
    seeds_needed: Annotated[int | None, "seeds a size that would decide"]
    n_models: int
    n_seeds: int
    n_refused: Annotated[int, "models dropped because a row of the place was refused or failed"]
    reason: str
