"""The dictionary beside its jet schemes: one row an entry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypedDict

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.dictionary import singularities
from scaleinv_ray.singularities.entry import Singularity
from scaleinv_ray.singularities.exact.contact import (
    ContactLoci,
    contact_loci,
    largest_order,
    monomial_contact_loci,
)

MAX_M = 19
"""Order of jets; A_8, x^2 + y^9, is the last entry to reach its threshold, at m = 17."""
SHOWN = 10
"""Dimensions that a row lists."""


class DictionaryRow(TypedDict):
    """A singularity of the dictionary, with the threshold that its jets give."""

    name: str
    family: str
    num_variables: Annotated[int, "parameters"]
    llc: Annotated[str, "exact learning coefficient, a fraction"]
    multiplicity: Annotated[int, "order of the pole"]
    lct_jets: Annotated[str | None, "real threshold from jets, of f or of a program's syndromes"]
    lct_jets_complex: Annotated[str | None, "the same over the complex numbers; null where refused"]
    status: Annotated[str | None, "exact, or bound where a larger m may lower it"]
    reached_at: Annotated[int | None, "least m that gives the threshold"]
    divisors: Annotated[list[str], "weights of the variables that compute the threshold"]
    dimensions: Annotated[list[int], "dim J_0, J_1, .. of real jets"]
    source: Annotated[str, "where the coefficient is from"]


def dictionary_table(
    entries: Iterable[Singularity] | None = None, *, max_m: int = MAX_M
) -> list[DictionaryRow]:
    """Every entry with its jets; those without a polynomial or an ideal have none.

    The threshold is llc where K = f or the sum of an ideal, twice llc where K = f^2.

    Args:
        entries: the dictionary by default.
        max_m: largest order of jets.

    Returns:
        A row an entry.

    >>> row = next(r for r in dictionary_table() if r["name"] == "(w1^2 - w2^3)^2")
    >>> row["llc"], row["lct_jets"], row["divisors"], row["dimensions"][:6]
    ('5/12', '5/6', ['(3, 2)'], [1, 2, 3, 4, 5, 7])
    """
    return [_row(e, max_m) for e in (singularities() if entries is None else entries)]


def _row(entry: Singularity, max_m: int) -> DictionaryRow:
    found = _jets(entry, max_m)
    return {
        "name": entry.name,
        "family": entry.family,
        "num_variables": entry.num_variables,
        "llc": str(entry.coefficient.llc),
        "multiplicity": entry.coefficient.multiplicity,
        "lct_jets": None if found is None else str(found.threshold),
        "lct_jets_complex": None if found is None else _complex(entry, found, max_m),
        "status": None if found is None else "exact" if found.is_exact else "bound",
        "reached_at": None if found is None else found.reached_at,
        "divisors": []
        if found is None
        else [f"({', '.join(map(str, a))})" for a in found.divisors],
        "dimensions": [] if found is None else list(_shown(found)),
        "source": entry.source,
    }


def _jets(entry: Singularity, max_m: int) -> ContactLoci | None:
    if entry.form is not None:
        return contact_loci(entry.form, max_m)
    if entry.ideal is None:
        return None
    exponents_MN = np.array(entry.ideal)
    most = largest_order(int(exponents_MN.any(axis=0).sum()))
    return monomial_contact_loci(exponents_MN, min(max_m, most))


def _complex(entry: Singularity, found: ContactLoci, max_m: int) -> str | None:
    if entry.form is None:  # monomials: real and complex jets are alike
        return str(found.threshold)
    try:
        return str(contact_loci(entry.form, max_m, real=False).threshold)
    except Refused:  # degenerate at a zero that is not real
        return None


def _shown(found: ContactLoci) -> tuple[int, ...]:
    return found.dimensions[: max(SHOWN, found.reached_at + 1)]
