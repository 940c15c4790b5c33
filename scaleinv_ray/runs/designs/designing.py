"""A design: what theory says, the search, and the certificate, resumed where it was left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaleinv_ray.config import DesignConfig
from scaleinv_ray.config.design import is_interval
from scaleinv_ray.design.certificate import Certificate
from scaleinv_ray.design.closed_forms import NoFormulaError
from scaleinv_ray.design.search import Found, Scored, search
from scaleinv_ray.design.space import Choices, Interval, Point, Space, intervals_of, random_points
from scaleinv_ray.design.theory import Asked, solutions
from scaleinv_ray.inputs.wording import four_digits
from scaleinv_ray.report.designed import design_page
from scaleinv_ray.runs.designs.evaluations import FIRST_UNSEEN, Ledger, model_of
from scaleinv_ray.runs.starting.run_lock import alone
from scaleinv_ray.store import Store

PAGE = "design.html"
MOST_SOLUTIONS = 3
"""Points of theory that are measured."""


@dataclass(frozen=True)
class Designed:
    """What came of a design.

    Attributes:
        asked: the targets.
        theory: what theory says, in words.
        default: the model where nothing was chosen.
        random: random configurations.
        point: what was chosen; None where nothing could be measured.
        certificates: one a target, of that on unseen seeds.
        measured: configurations measured in the search.
        store: of the folder.
    """

    asked: tuple[Asked, ...]
    theory: str
    default: Scored
    random: list[Scored]
    point: dict[str, Any] | None
    certificates: tuple[Certificate, ...]
    measured: int
    store: Store

    @property
    def certified(self) -> bool:
        """Whether all targets are met on unseen seeds."""
        return bool(self.certificates) and all(c.certified for c in self.certificates)

    def lines(self) -> list[str]:
        """What is told: theory, the null, the search, the verdict."""
        passing = sum(s.passes for s in self.random)
        told = [f"theory: {self.theory}", f"default: {_told(self.default, self.asked)}"]
        if self.random:
            told.append(f"random configurations: {passing} of {len(self.random)} pass")
        measured = f"{self.measured} configurations measured" if self.measured else "not needed"
        told.append(f"search: {measured}")
        if self.point is None:
            return [*told, "not certified: no configuration could be measured"]
        told.append(f"chosen: {_at(self.point)}")
        return [*told, *map(_verdict, self.asked, self.certificates)]


def design(config: DesignConfig, *, address: str | None = None) -> Designed:
    """Looks for a model with the wanted value, and certifies it on seeds the search never saw.

    The points at which theory puts the target, the default and some random configurations are
    measured first. Where the first point of theory agrees with the target it is put to the test at
    once; else, and where it fails, the search goes on from these, and what it chooses is tested on
    seeds of its own. Every value is kept in `evaluations.parquet` of the folder, and none is
    measured twice.

    Args:
        address: of a Ray cluster; None embeds Ray.

    Returns:
        Designed.

    Raises:
        UnreachableError: where theory, or both ends of an interval, say that no model has it.
    """
    from scaleinv_ray.cluster.session import connected

    asked = tuple(Asked(**target.model_dump()) for target in config.target)
    space = space_of(config)
    theory, starts = _theory(config, asked, space)
    store = Store(config.out)
    with alone(store), connected(address):
        ledger = Ledger(config, asked, store)
        whole = default_point(config, space)
        [default] = ledger.measure([whole or {}], "default")
        known = ledger.measure(starts, "theory")
        random = ledger.measure(random_points(space, config.budget.random, seed=0), "random")
        beginnings = [*known, *random, *([default] if whole else [])]
        found = Found([], None)
        certificates: tuple[Certificate, ...] = ()
        if known and known[0].agrees:
            found = Found([], known[0].point)
            certificates = ledger.certificates(known[0].point, unseen=FIRST_UNSEEN)
        if not certificates or not all(c.certified for c in certificates):
            found = search(space, beginnings, ledger.searched, budget=config.budget.evaluations)
            # those of theory are seen by now
            unseen = FIRST_UNSEEN + config.seeds.certify * len(certificates[:1])
            certificates = ledger.certificates(found.point, unseen=unseen) if found.point else ()
        point = None if found.point is None else dict(found.point)
        count = len(found.measured)
        made = Designed(asked, theory, default, random, point, certificates, count, store)
        store.write_bytes(PAGE, _page(config, made, ledger, space))
    return made


def _page(config: DesignConfig, made: Designed, ledger: Ledger, space: Space) -> bytes:
    return design_page(
        ledger.rows,
        made.lines(),
        title=config.name,
        margins={str(asked): asked.margin for asked in made.asked},
        log={name: of.log for name, of in intervals_of(space).items()},
    )


def space_of(config: DesignConfig) -> Space:
    """The dimensions of a config."""
    return {
        name: Interval(float(values[0]), float(values[1]), log=values[2] == "log")
        if is_interval(values)
        else Choices(values)
        for name, values in config.over.items()
    }


def default_point(config: DesignConfig, space: Space) -> dict[str, Any] | None:
    """Where the default lies in the space; None where it does not."""
    model = model_of(config, {})
    for name, of in space.items():
        inside = (
            of.low <= model[name] <= of.high
            if isinstance(of, Interval)
            else model[name] in of.values
        )
        if not inside:
            return None
    return {name: model[name] for name in space}


def _theory(
    config: DesignConfig, asked: Sequence[Asked], space: Space
) -> tuple[str, list[dict[str, Any]]]:
    """What theory says in words, and the points that it gives."""
    if len(asked) > 1:
        return "several targets: measured", []
    try:
        points = solutions(asked[0], space, model_of(config, {}))
    except NoFormulaError as error:
        return str(error), []
    if not points:
        return "the closed form does not reach the target in this space: measured", []
    return f"the closed form puts the target at {_at(points[0])}", points[:MOST_SOLUTIONS]


def _at(point: Point) -> str:
    return ", ".join(f"{name} {four_digits(value)}" for name, value in point.items()) or "as given"


def _told(scored: Scored, asked: Sequence[Asked]) -> str:
    if scored.error is not None:
        return f"{_at(scored.point)}: {scored.error}"
    means = ", ".join(
        f"{one.value * math.exp(off):.4g} +- {one.value * math.exp(off) * stderr:.2g}"
        for one, off, stderr in zip(asked, scored.off, scored.stderr, strict=True)
    )
    return f"{_at(scored.point)}: {means} (wanted {', '.join(four_digits(a.value) for a in asked)})"


def _verdict(asked: Asked, found: Certificate) -> str:
    value = f"{asked}: {found.mean:.4g} +- {found.stderr:.2g} on unseen seeds"
    test = f"|ln(mean / {asked.value:g})| < {asked.margin:g}: p = {found.p:.2g}"
    if found.certified:
        return f"certified: {value}, {test}"
    if found.seeds_needed is None:
        return f"not certified: {value} is outside the margin, no number of seeds mends it ({test})"
    return f"not certified: {value}, {test}; seeds needed {found.seeds_needed}"
