"""Where a row counts: under its site or role, at all depths and in its third of the depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypedDict

THIRD = 1 / 3 + 1e-9
TWO_THIRDS = 2 / 3 + 1e-9


class Place(NamedTuple):
    """What is judged: the key columns of a verdict before step and comparison."""

    series: str
    probe: str | None
    family: str
    invariant: str
    quantity: str
    site: str | None
    depth_bin: str


class AtPlace(TypedDict):
    """The columns of a `Place`, with which the rows of most tables begin."""

    series: str
    probe: str | None
    family: str
    invariant: str
    quantity: str
    site: str | None
    depth_bin: str


def at_place(place: Place) -> AtPlace:
    """A place as columns."""
    return {
        "series": place.series,
        "probe": place.probe,
        "family": place.family,
        "invariant": place.invariant,
        "quantity": place.quantity,
        "site": place.site,
        "depth_bin": place.depth_bin,
    }


def place_of(row: AtPlace) -> Place:
    """Where a row was measured."""
    return Place(
        row["series"],
        row["probe"],
        row["family"],
        row["invariant"],
        row["quantity"],
        row["site"],
        row["depth_bin"],
    )


def is_pooled(place: Place) -> bool:
    """Whether everything is together here: all weights of the blocks, or a site, at all depths."""
    of_role = place.probe is None and place.site not in {None, "all"}
    return place.depth_bin == "all" and not of_role


def depth_bin_of(depth: float | None) -> str | None:
    """Third of the depth: early up to 1/3, middle up to 2/3, late; None without a depth.

    Args:
        depth: relative depth, 0 to 1.

    Returns:
        Name of the third.

    >>> [depth_bin_of(d) for d in (0.0, 1 / 3, 0.5, 2 / 3, 1.0, None)]
    ['early', 'early', 'middle', 'middle', 'late', None]
    """
    if depth is None:
        return None
    return "early" if depth <= THIRD else "middle" if depth <= TWO_THIRDS else "late"


def sites_of(row: Mapping[str, Any]) -> list[str | None]:
    """The sites under which a row counts: its own, or that of weights, which is their role.

    Args:
        row: with site, role and layer.

    Returns:
        The site; of weights inside a block their role and `all`, all roles together.

    >>> sites_of({"site": None, "role": "up", "layer": 0})
    ['up', 'all']
    >>> sites_of({"site": None, "role": "embed", "layer": None})
    ['embed']
    """
    site, role = row["site"], row["role"]
    if site is not None or role is None:
        return [site]
    # an embedding is not one of the roles of a block
    return [role] if row["layer"] is None else [role, "all"]


def bins_of(depth: float | None) -> list[str]:
    """The depth bins in which a row counts: `all`, and its third."""
    third = depth_bin_of(depth)
    return ["all"] if third is None else ["all", third]


def places_of(row: Mapping[str, Any]) -> Iterator[Place]:
    """The places at which a row counts: at each of its sites, in each of its depth bins."""
    what = (row["series"], row["probe"], row["family"], row["invariant"], row["quantity"])
    bins = bins_of(row["depth"])
    for site in sites_of(row):
        for depth_bin in bins:
            yield Place(*what, site, depth_bin)
