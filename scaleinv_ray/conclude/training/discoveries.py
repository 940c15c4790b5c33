"""How many of the findings of a table may be false: q values, and counts by chance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal, NamedTuple, TypedDict

from scipy import stats

Method = Literal["bh", "by"]
"""Benjamini & Hochberg 1995, for positive dependence; Benjamini & Yekutieli 2001, for any."""


class Question(NamedTuple):
    """A test that was made.

    Attributes:
        p: its p value.
        level: largest chance at which a false hypothesis is called one, at the level of the table.
        family: tests of one family are counted together.
    """

    p: float
    level: float
    family: Hashable


class Asked(NamedTuple):
    """What a test is among those of its family.

    Attributes:
        q: smallest false discovery rate at which it is among the discoveries.
        n_asked: tests in the family.
        by_chance: how many of them would be called where nothing is there, at most, on average.
    """

    q: float
    n_asked: int
    by_chance: float


class AskedColumns(TypedDict):
    """As columns of a row."""

    q: float | None
    n_asked: int | None
    by_chance: float | None


def asked_columns(found: Asked | None) -> AskedColumns:
    """What a test is among the others as columns; none of a row that is no test of its own."""
    if found is None:
        return {"q": None, "n_asked": None, "by_chance": None}
    return {"q": found.q, "n_asked": found.n_asked, "by_chance": found.by_chance}


def asked_of(tests: Mapping[Hashable, Question], *, method: Method) -> dict[Hashable, Asked]:
    """False discovery rates over what was asked, family by family.

    Args:
        tests: by any name.
        method: bh where the statistics depend on each other positively (or not at all), by where
            nothing is known of how they do; it costs a factor of about ln(tests) + 0.58.

    Returns:
        The same names.

    >>> tests = {i: Question(p, 0.05, "all") for i, p in enumerate((0.01, 0.02, 0.03, 0.5))}
    >>> found = asked_of(tests, method="bh")
    >>> [round(float(a.q), 9) for a in found.values()], found[0].n_asked, found[0].by_chance
    ([0.04, 0.04, 0.04, 0.5], 4, 0.2)
    """
    families: dict[Hashable, list[Hashable]] = {}
    for name, test in tests.items():
        families.setdefault(test.family, []).append(name)
    out: dict[Hashable, Asked] = {}
    for names in families.values():
        q_N = stats.false_discovery_control([tests[n].p for n in names], method=method)
        by_chance = sum(tests[n].level for n in names)
        out |= {n: Asked(float(q), len(names), by_chance) for n, q in zip(names, q_N, strict=True)}
    return {name: out[name] for name in tests}
