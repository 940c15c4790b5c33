"""Bounds of the parameters of invariants: a name means the same thing everywhere, and has one.

Known to a config, so that a value which cannot be meant is refused before anything starts. An
invariant that needs narrower ones declares them (`contract.invariant(bounds=...)`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scaleinv_ray.inputs.wording import shown

End = float | Callable[[Mapping[str, Any]], float] | None
MANY = 10_000
"""Replicates, grid values: what is more is a slip of the pen."""
_POINTS = 1_000_000


class Range(NamedTuple):
    """What a number may be.

    Attributes:
        least: smallest value; a function of all parameters where it depends on them.
        most: largest value.
        without_ends: neither end is allowed itself.
        power_of_two: nothing else is.
    """

    least: End = None
    most: End = None
    without_ends: bool = False
    power_of_two: bool = False

    def refusal(self, value: float, parameters: Mapping[str, Any]) -> str | None:
        """What is allowed where `value` is not, else None."""
        least, most = (end(parameters) if callable(end) else end for end in (self.least, self.most))
        low = least is not None and (value <= least if self.without_ends else value < least)
        high = most is not None and (value >= most if self.without_ends else value > most)
        broken = self.power_of_two and (value < 1 or int(value) & (int(value) - 1))
        if not (low or high or broken):
            return None
        if most is None or least is None:
            allowed = f"at least {least}" if most is None else f"at most {most}"
        else:
            allowed = f"between {least} and {most}" if self.without_ends else f"{least}..{most}"
        if self.power_of_two:
            allowed = f"powers of two, {allowed}"
        depends = callable(self.least) or callable(self.most)
        return f"{allowed} (beside its other parameters)" if depends else allowed


def _fewest_points(p: Mapping[str, Any]) -> int:
    fewest = [2 * p.get("max_dimension", 1) + 2]  # of the cross-polytope, the smallest with H_K
    fewest.append(p.get("num_landmarks", 0))
    if "num_sizes" in p:
        fewest.append(8 * 2 ** p["num_sizes"])
    if "max_neighbour_order" in p:  # every part has them
        fewest.append(p["num_subsamples"] * (2 * p["max_neighbour_order"] + 1))
    return max(fewest)


BOUNDS: Mapping[str, Range] = {
    # in this order: later ones may depend on earlier ones
    "max_dimension": Range(1, 2),
    "num_sizes": Range(2, 16),
    "num_landmarks": Range(lambda p: 2 * p.get("max_dimension", 1) + 2, _POINTS),
    "num_subsamples": Range(1, MANY),
    "max_neighbour_order": Range(1, _POINTS, power_of_two=True),
    "num_points": Range(_fewest_points, _POINTS),
    "num_neighbours": Range(1, lambda p: p["num_points"] - 1),
    "neighbour_order": Range(1, lambda p: p["max_neighbour_order"], power_of_two=True),
    "num_gaussian": Range(1, MANY),
    "num_grid": Range(2, MANY),
    "num_null": Range(lambda p: 1 if "flat" in p else 2, MANY),  # a scatter needs two
    "num_shuffles": Range(2, MANY),
    "num_submatrices": Range(4, MANY),
    "num_draws": Range(1, MANY),
    "num_halvings": Range(1, 20),
    "num_blocks": Range(1, MANY),
    "num_factors": Range(1, MANY),
    "num_units": Range(32, _POINTS),
    "skip_positions": Range(0, _POINTS),
    "rank": Range(1, MANY),
    "aspect": Range(1, 1000),
    "flat": Range(0, 1, without_ends=True),
    "level": Range(0, 1, without_ends=True),
    "near_radius": Range(0, 1, without_ends=True),
    "power": Range(0, 100, without_ends=True),
    "least_gap_errors": Range(0, 1_000_000),
}
"""Parameter -> its range, wherever it occurs."""


def check_parameters(parameters: Mapping[str, Any], own: Mapping[str, Range]) -> None:
    """Refuses a parameter outside its range.

    Args:
        parameters: all of one invariant, of the right types.
        own: ranges of that invariant in place of those of `BOUNDS`.

    Raises:
        ValueError: naming parameter, value and what is allowed.

    >>> check_parameters({"num_grid": -1}, {})
    Traceback (most recent call last):
    ValueError: num_grid: got -1, allowed: 2..10000
    """
    for name, range_ in {**BOUNDS, **own}.items():
        if name not in parameters:
            continue
        if (allowed := range_.refusal(parameters[name], parameters)) is not None:
            raise ValueError(f"{name}: got {shown(parameters[name])}, allowed: {allowed}")
