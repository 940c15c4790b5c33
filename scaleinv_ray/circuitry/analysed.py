"""The analyses beside the effects, as they are asked for by name."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaleinv_ray.circuitry.analyses import ANALYSES
from scaleinv_ray.circuitry.effects.subject import Analysis, Subject
from scaleinv_ray.inputs.wording import nearest, shown


@dataclass(frozen=True)
class Analysed:
    """One analysis of one model.

    Attributes:
        name: a key of `ANALYSES`.
        found: None where it was refused.
        refused: why.
    """

    name: str
    found: Analysis | None
    refused: str = ""

    def as_json(self) -> dict[str, Any]:
        """What was found, or `refused`."""
        return {"refused": self.refused} if self.found is None else self.found.as_json()

    def lines(self) -> list[str]:
        """What the terminal shows."""
        if self.found is None:
            said = f"{self.name} refused: {self.refused}"
            return textwrap.wrap(said, 96, subsequent_indent="  ")
        return self.found.lines()


def named(wanted: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names of analyses.

    Args:
        wanted: names, as a tuple or with commas between; `all`.

    Raises:
        ValueError: for one that there is not.
    """
    names = tuple(wanted.split(",")) if isinstance(wanted, str) else wanted
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"with: got {shown(wanted)}, allowed names of {', '.join(sorted(ANALYSES))}"
        )
    names = tuple(name.strip() for name in names if name.strip())
    for name in names:
        if name not in ANALYSES and name != "all":
            raise ValueError(
                f"with: got {shown(name)}{nearest(name, [*ANALYSES, 'all'])}, allowed: "
                f"{', '.join(sorted(ANALYSES))}; or all"
            )
    return tuple(ANALYSES) if "all" in names else tuple(dict.fromkeys(names))


def analysed(
    names: tuple[str, ...],
    subject: Subject,
    *,
    watch: Callable[[str], None] = lambda doing: None,
) -> tuple[Analysed, ...]:
    """Runs analyses; what a model or a probe does not allow is told, with its reason.

    Args:
        names: keys of `ANALYSES`.
        subject: of all of them.
        watch: takes the name of what comes next.
    """
    found = []
    for name in names:
        watch(name)
        try:
            found.append(Analysed(name, ANALYSES[name](subject)))
        except ValueError as error:
            found.append(Analysed(name, None, str(error)))
    return tuple(found)
