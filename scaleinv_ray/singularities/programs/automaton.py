"""Finite automata that accept or reject a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton; it starts in state 0.

    Attributes:
        table: of every state, the next state for each symbol.
        accepting: the states in which a word is accepted.

    >>> from scaleinv_ray.singularities.programs.machine import run
    >>> parity = Automaton(((1, 0), (0, 1)), frozenset({1}))
    >>> run(parity, (0, 1, 0, 0)), run(parity, (0, 1, 0))
    (True, False)
    """

    table: tuple[tuple[int, ...], ...]
    accepting: frozenset[int]

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.table}
        if len(widths) != 1 or 0 in widths:
            raise ValueError(
                f"table: got rows of {sorted(widths)} symbols, allowed one number >= 1"
            )
        states = range(len(self.table))
        if odd := sorted({q for row in self.table for q in row if q not in states}):
            raise ValueError(f"table: got states {odd}, allowed 0..{len(self.table) - 1}")
        if odd := sorted(self.accepting - set(states)):
            raise ValueError(f"accepting: got states {odd}, allowed 0..{len(self.table) - 1}")

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """The next state of every rule; rule (state, symbol) is state * symbols + symbol."""
        return tuple(state for row in self.table for state in row)

    @cached_property
    def num_outcomes(self) -> tuple[int, ...]:
        """As many as there are states."""
        return (len(self.table),) * len(self.chosen)

    def start(self, given: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """State 0 before a word."""
        return 0, given

    def rule(self, configuration: tuple[int, tuple[int, ...]]) -> int | None:
        """The one of the state and the next symbol."""
        state, left = configuration
        return state * len(self.table[0]) + left[0] if left else None

    def after(
        self, configuration: tuple[int, tuple[int, ...]], outcome: int
    ) -> tuple[int, tuple[int, ...]]:
        """The outcome is the next state."""
        return outcome, configuration[1][1:]

    def output(self, configuration: tuple[int, tuple[int, ...]]) -> bool:
        """Whether the word is accepted."""
        return configuration[0] in self.accepting


def words(num_symbols: int, longest: int) -> list[tuple[int, ...]]:
    """All words up to a length, short ones first, without the empty one, which uses no rule.

    >>> len(words(2, 4))
    30
    """
    return [w for n in range(1, longest + 1) for w in product(range(num_symbols), repeat=n)]


def automata(num_states: int, num_symbols: int, accepting: frozenset[int]) -> Iterator[Automaton]:
    """All automata of a size, in the order of their tables.

    >>> sum(1 for _ in automata(3, 2, frozenset({1})))
    729
    """
    for chosen in product(range(num_states), repeat=num_states * num_symbols):
        rows = (chosen[i : i + num_symbols] for i in range(0, len(chosen), num_symbols))
        yield Automaton(tuple(rows), accepting)
