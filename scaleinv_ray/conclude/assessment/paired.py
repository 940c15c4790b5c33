"""Has a model changed since its parent? Differences of the two on the same sequences and tensors.

What both have in common (the sequences, the draws, the tensor) cancels in the difference: rounding
to eight bits is far below the error of either model, and above that of their difference.

Shape suffixes: B blocks or subsamples, L places (layers, tensors), Q quantities.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special, stats

LEAST = 3
"""Replicates of a difference: with two of them t has one degree of freedom and no power."""
Over = Literal["blocks", "places"]


class Placed(NamedTuple):
    """A value at one place of a model.

    Attributes:
        value: of the whole.
        samples: of its blocks or subsamples, None where none are kept.
        jackknife: whether they are of all blocks but one, not of one.
    """

    value: float
    samples: tuple[float, ...] | None
    jackknife: bool = False


class Change(NamedTuple):
    """A model less its parent.

    Attributes:
        name: of the quantity.
        difference: mean over the places that both have.
        stderr: of it.
        t: their ratio; infinite where every replicate changes by the same.
        p: two-sided, by t on the replicates less one.
        q: smallest false discovery rate at which it is a change (Benjamini & Hochberg 1995).
        over: what the replicates are.
        n: how many.
    """

    name: str
    difference: float
    stderr: float
    t: float
    p: float
    q: float
    over: Over
    n: int


def changes(
    model: Mapping[str, Mapping[Hashable, Placed]], parent: Mapping[str, Mapping[Hashable, Placed]]
) -> list[Change]:
    """What has changed beyond the error of the differences, quantity by quantity.

    Where every place keeps as many samples the difference is taken block by block, meaned over the
    places, and its error is that of the B means (of a jackknife: Efron & Tibshirani 1993, eq.
    11.5). Else the places themselves are the replicates, as tensors are.

    Args:
        model: name of a quantity -> place -> value.
        parent: the same of the parent; places that one of them lacks are left out.

    Returns:
        Quantities with three replicates or more, the smallest p first; what differs nowhere has
        p = 1.

    >>> block = {"at": Placed(2.0, (1.9, 2.0, 2.1))}
    >>> [found] = changes({"a": block}, {"a": {"at": Placed(1.0, (0.9, 1.1, 1.0))}})
    >>> found.difference, found.n, round(found.t, 2)
    (1.0, 3, 17.32)
    """
    found = []
    for name, places in model.items():
        shared = [at for at in places if at in parent.get(name, {})]
        pairs = [(places[at], parent[name][at]) for at in shared]
        if change := _change(name, pairs):
            found.append(change)
    if not found:
        return []
    q_Q = stats.false_discovery_control([change.p for change in found])
    with_q = [change._replace(q=float(q)) for change, q in zip(found, q_Q, strict=True)]
    return sorted(with_q, key=lambda change: (change.p, -abs(change.t)))


def _change(name: str, pairs: Sequence[tuple[Placed, Placed]]) -> Change | None:
    if not pairs:
        return None
    counts = {len(one.samples or ()) for pair in pairs for one in pair}
    if len(counts) == 1 and (num := counts.pop()) >= LEAST:
        d_LB = np.array([
            np.subtract(one.samples or (), other.samples or ()) for one, other in pairs
        ])
        d_B = d_LB.mean(axis=0)
        # of a mean of blocks, or of leave-one-out values, which vary 1 / (B - 1) as much
        jackknife = pairs[0][0].jackknife
        share = (num - 1) / num if jackknife else 1 / (num * (num - 1))
        stderr = math.sqrt(share * float(((d_B - d_B.mean()) ** 2).sum()))
        over: Over = "blocks"
    else:
        d_B = np.array([one.value - other.value for one, other in pairs])
        num, over = len(d_B), "places"
        if num < LEAST:
            return None
        stderr = float(d_B.std(ddof=1)) / math.sqrt(num)
    whole = float(np.mean([one.value - other.value for one, other in pairs]))
    t = whole / stderr if stderr > 0 else math.copysign(math.inf, whole) if whole else 0.0
    p = 2 * float(special.stdtr(num - 1, -abs(t))) if math.isfinite(t) else 0.0
    return Change(name, whole, stderr, t, p, p, over, num)
