"""Data sets with kinds that are known: centres, and random effects of cells and of seeds.

Shape suffixes: B surrogates, E events, D dimensions, K kinds, U units (a kind in a cell), N any.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUM_CALENDARS = 199


class Calendar(NamedTuple):
    """How far a kind is from an interval of the calendar.

    Attributes:
        off: events that the rule 'of an interval all or none' misplaces.
        p: of as many or more where the rule is true, the least being 1 / 200.
    """

    off: int
    p: float


def unit(x_ED: np.ndarray) -> np.ndarray:
    """Events of norm 1, [..., E, D]."""
    return x_ED / np.linalg.norm(x_ED, axis=-1, keepdims=True)


def surrogates(
    x_ED: np.ndarray,
    label_E: np.ndarray,
    cell_E: np.ndarray,
    *,
    count: int,
    rng: np.random.Generator,
    drawn_E: np.ndarray | None = None,
) -> np.ndarray:
    """Data sets with the same centres and Gaussian effects of cells and of their events.

    A cell is what seeds have in common. Residuals round the centres are split into the means of
    each kind in each cell and what is left; effects have the covariances of both, over their
    degrees of freedom (that of the means holds a part of the other: conservative).

    Args:
        x_ED: events, of norm 1 or as they are.
        label_E: kind of each.
        cell_E: cell of each, as an integer.
        drawn_E: kind of each event that is drawn, the same by default.

    Returns:
        Events of norm 1, [B, E, D].
    """
    num_kinds = int(label_E.max()) + 1
    centre_KD = centres(x_ED, label_E)
    residual_ED = x_ED - centre_KD[label_E]
    _, unit_E = np.unique(cell_E * num_kinds + label_E, return_inverse=True)
    mean_UD = centres(residual_ED, unit_E)
    num_units, num_events = len(mean_UD), len(x_ED)
    shared = (count, num_units, num_units - len(np.unique(label_E)))
    own = (count, num_events, num_events - num_units)
    drawn_BED = _drawn(mean_UD, *shared, rng)[:, unit_E]
    drawn_BED += _drawn(residual_ED - mean_UD[unit_E], *own, rng)
    return unit(centre_KD[label_E if drawn_E is None else drawn_E] + drawn_BED)


def centres(x_ED: np.ndarray, label_E: np.ndarray) -> np.ndarray:
    """Mean of the events of each label, zero of a label without any, [K, D]."""
    sum_KD = np.zeros((int(label_E.max()) + 1, x_ED.shape[1]))
    np.add.at(sum_KD, label_E, x_ED)
    return sum_KD / np.maximum(np.bincount(label_E), 1)[:, None]


def calendar_of(
    x_ED: np.ndarray,
    label_E: np.ndarray,
    cell_E: np.ndarray,
    *,
    kind: int,
    interval_E: np.ndarray,
    rng: np.random.Generator,
) -> Calendar:
    """Chance that a kind is as far from the calendar as it is, where all is the calendar's.

    The statistic is how many events lie off the rule that of each interval all are of the kind, or
    none. Surrogates have the kind that most runs have in the interval, with the random effects of
    the kinds as they are, and are given the kind of the nearest centre.

    Args:
        x_ED: changes; their directions count.
        label_E: kind of each event.
        cell_E: size and interval of each.
        interval_E: interval of each, as an integer.

    Returns:
        Calendar.
    """
    unit_ED = unit(x_ED)
    unit_ED = unit_ED @ np.linalg.svd(unit_ED, full_matrices=False)[2].T
    by_interval = [np.bincount(label_E[interval_E == i]).argmax() for i in np.unique(interval_E)]
    rule_E = np.array(by_interval)[interval_E]
    drawn_BED = surrogates(unit_ED, label_E, cell_E, count=NUM_CALENDARS, rng=rng, drawn_E=rule_E)
    centre_KD = centres(unit_ED, label_E)
    distance_BEK = (centre_KD**2).sum(axis=1) - 2.0 * drawn_BED @ centre_KD.T
    null_BE = distance_BEK.argmin(axis=-1) == kind
    off_B = [_off(row_E, interval_E) for row_E in null_BE]
    seen = _off(label_E == kind, interval_E)
    return Calendar(seen, (1 + sum(off >= seen for off in off_B)) / (1 + NUM_CALENDARS))


def _off(in_kind_E: np.ndarray, interval_E: np.ndarray) -> int:
    inside = np.bincount(interval_E, weights=in_kind_E)
    return int(np.minimum(inside, np.bincount(interval_E) - inside).sum())


def _drawn(
    residual_ND: np.ndarray, count: int, size: int, free: int, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian vectors with the covariance of residuals of so many degrees of freedom."""
    factor_ND = np.linalg.qr(residual_ND, mode="r") / np.sqrt(max(free, 1))
    drawn: np.ndarray = rng.standard_normal((count, size, len(factor_ND))) @ factor_ND
    return drawn
