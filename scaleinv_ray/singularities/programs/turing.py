"""Turing machines on a bounded tape, stopped after a number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Move(NamedTuple):
    """What a rule does: the symbol written, -1, 0 or 1 along the tape, the next state."""

    write: int
    step: int
    state: int


class Tape(NamedTuple):
    """A configuration."""

    state: int
    head: int
    cells: tuple[int, ...]
    time: int


@dataclass(frozen=True)
class TuringMachine:
    """A machine that starts in state 0 at the left end; a move beyond an end stays there.

    Attributes:
        table: of every state, the move for each symbol read.
        num_cells: of the tape; what the input leaves is filled with symbol 0.
        num_steps: after which the state is looked at; there is no state of rest.
        accepting: states that mean yes.

    >>> from scaleinv_ray.singularities.programs.machine import run
    >>> seek = TuringMachine((((0, 1, 0), (1, 0, 1)), ((0, 0, 1), (1, 0, 1))), 3, 3, frozenset({1}))
    >>> run(seek, (0, 0, 1)), run(seek, (0, 0, 0))  # is there a 1 on the tape?
    (True, False)
    """

    table: tuple[tuple[tuple[int, int, int], ...], ...]
    num_cells: int
    num_steps: int
    accepting: frozenset[int]

    def __post_init__(self) -> None:
        states, symbols = range(len(self.table)), range(self.num_symbols)
        if any(len(row) != len(symbols) for row in self.table):
            raise ValueError(
                f"table: got rows of other lengths than {len(symbols)}, the first one's"
            )
        for write, step, state in (move for row in self.table for move in row):
            if write not in symbols or step not in (-1, 0, 1) or state not in states:
                raise ValueError(
                    f"table: got a move {[write, step, state]}, allowed [symbol below "
                    f"{len(symbols)}, -1, 0 or 1, state below {len(states)}]"
                )
        if self.num_cells < 1 or self.num_steps < 1:
            raise ValueError(f"cells, steps: got {self.num_cells}, {self.num_steps}, must be >= 1")
        if odd := sorted(self.accepting - set(states)):
            raise ValueError(f"accepting: got states {odd}, allowed 0..{len(states) - 1}")

    @property
    def num_symbols(self) -> int:
        """Number of symbols of the tape."""
        return len(self.table[0]) if self.table else 0

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """All outcomes of a rule."""
        return tuple(
            Move(write, step, state)
            for write in range(self.num_symbols)
            for step in (-1, 0, 1)
            for state in range(len(self.table))
        )

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """The move of every rule; rule (state, symbol) is state * symbols + symbol."""
        return tuple(self.moves.index(Move(*move)) for row in self.table for move in row)

    @cached_property
    def num_outcomes(self) -> tuple[int, ...]:
        """As many as there are moves."""
        return (len(self.moves),) * len(self.chosen)

    def start(self, given: tuple[int, ...]) -> Tape:
        """The head on the first symbol of a word.

        Raises:
            ValueError: for a word longer than the tape.
        """
        if len(given) > self.num_cells:
            raise ValueError(f"inputs: got a word of {len(given)}, allowed {self.num_cells} cells")
        return Tape(0, 0, given + (0,) * (self.num_cells - len(given)), 0)

    def rule(self, configuration: Tape) -> int | None:
        """The one of the state and the symbol under the head, until the steps are over."""
        if configuration.time == self.num_steps:
            return None
        return configuration.state * self.num_symbols + configuration.cells[configuration.head]

    def after(self, configuration: Tape, outcome: int) -> Tape:
        """The outcome is a number of `moves`."""
        write, step, state = self.moves[outcome]
        head, cells = configuration.head, configuration.cells
        cells = (*cells[:head], write, *cells[head + 1 :])
        return Tape(state, min(max(head + step, 0), len(cells) - 1), cells, configuration.time + 1)

    def output(self, configuration: Tape) -> bool:
        """Whether the state at the end is an accepting one."""
        return configuration.state in self.accepting
