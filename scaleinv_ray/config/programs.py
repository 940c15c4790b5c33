"""The config of a set of programs whose germs are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from scaleinv_ray.config.fields import Name, Natural, Options, Place, Positive, Text, distinct
from scaleinv_ray.inputs.wording import shown

Few = Annotated[Positive, Field(le=8)]
States = Annotated[tuple[Natural, ...], Field(min_length=1), AfterValidator(distinct)]


class AutomatonSet(Options):
    """Finite automata of one size that compute one of some functions of words.

    Attributes:
        machine: automaton.
        name: of the set: its space of codes.
        states: number of states; the first is 0.
        symbols: number of symbols.
        longest: inputs are all words up to this length.
        accepting: sets of accepting states, each with automata of its own.
        functions: of all automata those that are kept, by name; None: every one that has a name.
        table: next state of every state for each symbol; or
        enumerate: all of them.
    """

    machine: Literal["automaton"]
    name: Text
    states: Few
    symbols: Few
    longest: Few
    accepting: Annotated[tuple[States, ...], Field(min_length=1)]
    functions: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    table: tuple[tuple[Natural, ...], ...] | None = None
    enumerate: Literal["all"] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> AutomatonSet:
        if (self.table is None) == (self.enumerate is None):
            raise ValueError("table, enumerate: got both or neither, allowed: one of the two")
        if self.table is not None:
            self._check_table(self.table)
        distinct([sorted(kept) for kept in self.accepting])
        if odd := sorted({q for kept in self.accepting for q in kept if q >= self.states}):
            raise ValueError(f"accepting: got states {odd}, allowed: 0..{self.states - 1}")
        if (inputs := sum(self.symbols**n for n in range(1, self.longest + 1))) > MOST_INPUTS:
            raise ValueError(f"symbols, longest: got {inputs} words, allowed: {MOST_INPUTS}")
        num = self.states ** (self.states * self.symbols)
        if self.enumerate and num > MOST_PROGRAMS:
            raise ValueError(f"states, symbols: got {num} automata, allowed: {MOST_PROGRAMS}")
        return self

    def _check_table(self, table: tuple[tuple[int, ...], ...]) -> None:
        if len(table) != self.states or {*map(len, table)} != {self.symbols}:
            raise ValueError(
                f"table: got rows of {shown([len(row) for row in table])} symbols, allowed: "
                f"{self.states} rows of {self.symbols}"
            )
        if odd := sorted({q for row in table for q in row if q >= self.states}):
            raise ValueError(f"table: got states {odd}, allowed: 0..{self.states - 1}")
        if self.functions is not None:
            raise ValueError("functions: got some with table, allowed: with enumerate alone")


Moves = Annotated[tuple[tuple[int, int, int], ...], Field(min_length=1)]


class TuringOptions(Options):
    """A Turing machine on a bounded tape.

    Attributes:
        machine: turing.
        name: of the program.
        table: of every state a move for each symbol: [symbol written, -1, 0 or 1, next state].
        cells: of the tape; inputs are all words of this length.
        steps: after which it stops.
        accepting: states that mean yes.
    """

    machine: Literal["turing"]
    name: Text
    table: Annotated[tuple[Moves, ...], Field(min_length=1)]
    cells: Few
    steps: Annotated[Positive, Field(le=32)]
    accepting: States


class GateOptions(Options):
    """A gate.

    Attributes:
        name: of its wire.
        operation: copy, not, and, or, xor, majority.
        reads: wires: x0, x1, .. or earlier gates.
        rule: gates of one rule share their probability of failing; by default each has its own.
        sure: it never fails.
    """

    name: Name
    operation: Text
    reads: Annotated[tuple[Text, ...], Field(min_length=1)]
    rule: Text | None = None
    sure: bool = False


class CircuitOptions(Options):
    """A Boolean circuit with gates that fail.

    Attributes:
        machine: circuit.
        name: of the program.
        inputs: number of bits; the inputs are all their values.
        gates: in order.
        outputs: wires that are read.
    """

    machine: Literal["circuit"]
    name: Text
    inputs: Few
    gates: Annotated[tuple[GateOptions, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Text, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _wired(self) -> CircuitOptions:
        known = [f"x{i}" for i in range(self.inputs)]
        for gate in self.gates:
            if odd := [wire for wire in gate.reads if wire not in known]:
                raise ValueError(f"gates: {gate.name} got wire {odd[0]!r}, allowed: {known}")
            known.append(gate.name)
        distinct(known)
        if odd := [wire for wire in self.outputs if wire not in known]:
            raise ValueError(f"outputs: got wire {odd[0]!r}, allowed: {known}")
        return self


class TransformerOptions(Options):
    """A transformer with a program in its weights; its coefficient is estimated by sampling.

    Attributes:
        machine: transformer.
        name: of the program.
        program: contains: is there an A so far? either: is the first symbol A?
        longest: inputs are all words over A and B up to this length.
    """

    machine: Literal["transformer"]
    name: Text
    program: Literal["contains", "either"]
    longest: Annotated[Positive, Field(le=6)]


ProgramSet = Annotated[
    AutomatonSet | TuringOptions | CircuitOptions | TransformerOptions,
    Field(discriminator="machine"),
]
MOST_INPUTS = 100_000
"""Words that a program is run on."""
MOST_PROGRAMS = 1_000_000
"""That are enumerated: at a hundred a second, some hours of one core."""


class ProgramsConfig(Options):
    """Programs whose germs are compared.

    Attributes:
        name: of the set.
        out: folder of programs.parquet and programs.html.
        machines: what is looked at.
        seed: of the simulated volumes behind the evidence curves, and of the chains.
    """

    name: Name
    out: Place
    machines: Annotated[tuple[ProgramSet, ...], Field(min_length=1)]
    seed: Natural = 0

    @model_validator(mode="after")
    def _apart(self) -> ProgramsConfig:
        try:
            distinct([machine.name for machine in self.machines])
        except ValueError as error:
            raise ValueError(f"machines: name: {error}") from error
        return self
