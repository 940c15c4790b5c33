"""What all kinds of programs have in common: rules with one right and some wrong outcomes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol


class Program(Protocol):
    """A machine with a choice of an outcome for every rule; rules and outcomes count from 0."""

    @property
    def chosen(self) -> Sequence[int]:
        """The right outcome of every rule."""
        ...

    @property
    def num_outcomes(self) -> Sequence[int]:
        """Number of outcomes of every rule, the right one among them."""
        ...

    def start(self, given: Any) -> Hashable:
        """The configuration on an input."""
        ...

    def rule(self, configuration: Any) -> int | None:
        """The rule that is used next, None where the machine has ended."""
        ...

    def after(self, configuration: Any, outcome: int) -> Hashable:
        """The next configuration, where the rule has this outcome."""
        ...

    def output(self, configuration: Any) -> Hashable:
        """What a machine that has ended says."""
        ...


def run(program: Program, given: Any) -> Hashable:
    """Output of a program none of whose rules fails.

    Args:
        given: an input.
    """
    configuration = program.start(given)
    while (rule := program.rule(configuration)) is not None:
        configuration = program.after(configuration, program.chosen[rule])
    return program.output(configuration)
