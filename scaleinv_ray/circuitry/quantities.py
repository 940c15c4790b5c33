"""Numbers that effects have: each with its error, of an untrained model beside it, trivial value.

Shape suffixes: N components, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.circuits import (
    GAUSSIAN_PARTICIPATION,
    HALF_NORMAL_N90,
    areas,
    depth_profile,
    n90,
    participation,
    random_areas,
    redundancy,
    sorted_effects,
)
from scaleinv_ray.invariants.circuits.spread import jackknifed, size_between


def quantities(e: Effects, untrained: Effects | None) -> dict[str, dict[str, Any]]:
    """Name -> value, stderr, untrained, trivial; or refused, with the reason."""
    n = len(e.components)
    random = None if e.game is None else e.game.random_n90
    wanted: dict[str, tuple[Callable[[Effects], Estimate], float | None]] = {
        "participation": (lambda x: participation(x.best_NS), GAUSSIAN_PARTICIPATION * n),
        "n90": (lambda x: n90(x.best_NS), HALF_NORMAL_N90 * n),
        "n90_joint": (lambda x: _jointly(x, "single"), random),
        "depth_centre": (_centre, None),
        "redundancy": (lambda x: redundancy(x.best_NS, x.all_S), 1.0),
    }
    for ranking in () if e.game is None else e.game.rankings[1:]:
        name = ranking.name
        wanted[f"n90_joint_{name}"] = (partial(_jointly, name=name), random)
    if len(e.kept_K):
        wanted["cpr"] = (lambda x: _area(x, "cpr"), _random_area(e, "cpr"))
        wanted["cmd"] = (lambda x: _area(x, "cmd"), _random_area(e, "cmd"))
    return {
        name: _said(of, e, untrained) | {"trivial": trivial}
        for name, (of, trivial) in wanted.items()
    }


def curve(e: Effects) -> dict[str, Any]:
    """Sorted effects beside the half-normal, for JSON; or refused, with the reason."""
    try:
        found = sorted_effects(e.best_NS)
    except Refused as error:
        return {"refused": str(error)}
    return {
        "rank": found.rank_N.tolist(),
        "effect": found.effect_N.tolist(),
        "half_normal": found.half_normal_N.tolist(),
        "exponent": found.exponent,
        "trivial_exponent": found.trivial_exponent,
    }


def mean(x_S: np.ndarray) -> Estimate:
    """Mean over sequences with its standard error, None with one."""
    if len(x_S) < 2:
        return Estimate(float(x_S.mean()), None, len(x_S), "none")
    return Estimate(
        float(x_S.mean()), float(x_S.std(ddof=1) / np.sqrt(len(x_S))), len(x_S), "sequences"
    )


def _said(
    of: Callable[[Effects], Estimate], effects: Effects, untrained: Effects | None
) -> dict[str, Any]:
    try:
        value = of(effects)
    except Refused as error:
        return {"refused": str(error)}
    found: dict[str, Any] = {"value": value.value, "stderr": value.stderr}
    if untrained is not None:
        try:
            found["untrained"] = of(untrained).value
        except Refused as error:
            found["untrained_refused"] = str(error)
    return found


def _jointly(e: Effects, name: str) -> Estimate:
    redundancy(e.best_NS, e.all_S)  # refused where all of them together have no effect
    if e.game is None:
        raise Refused("joint game: none, the budget ended before it or all together do nothing")
    found = [ranking for ranking in e.game.rankings if ranking.name == name]
    if not found:
        raise Refused(f"ranking {name}: the budget ended before it")

    def of(x_KH: np.ndarray) -> float:  # a whole number hardly ever changes with one sequence
        return size_between(found[0].sizes_K, x_KH.mean(axis=1))

    return replace(jackknifed(of, found[0].along_KH), value=float(found[0].n90))


def _centre(e: Effects) -> Estimate:
    layers_N = np.array([max(c.layer, 0) for c in e.components])
    return depth_profile(e.best_NS, layers_N, e.num_layers).centre


def _area(e: Effects, name: str) -> Estimate:
    if not len(e.kept_K):
        raise Refused("edges: not measured")
    redundancy(e.best_NS, e.all_S)  # refused where all of them together have no effect
    found: Estimate = getattr(areas(e.kept_K, e.alone_KH, *e.ends_2H), name)
    return found


def _random_area(e: Effects, name: str) -> float | None:
    """Median over random edge sets; None without."""
    try:
        found = random_areas(e.kept_K, e.random_alone_DKF, *e.ends_2H)
    except Refused:
        return None
    return float(getattr(found, name))
