"""Boolean circuits whose gates give the wrong bit at times (von Neumann 1956)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

OPERATIONS: Mapping[str, Callable[[Sequence[int]], int]] = {
    "copy": lambda bits: bits[0],
    "not": lambda bits: 1 - bits[0],
    "and": lambda bits: int(all(bits)),
    "or": lambda bits: int(any(bits)),
    "xor": lambda bits: sum(bits) % 2,
    "majority": lambda bits: int(2 * sum(bits) > len(bits)),
}
"""What gates compute of any number of bits, except copy and not, which take one."""
_UNARY = ("copy", "not")


@dataclass(frozen=True)
class Gate:
    """A gate of a circuit.

    Attributes:
        operation: one of `OPERATIONS`.
        reads: wires: inputs count from 0, gates go on after them.
        rule: gates of one rule share their probability of failing, each time anew; None: a gate
            that never fails.
    """

    operation: str
    reads: tuple[int, ...]
    rule: int | None


@dataclass(frozen=True)
class Circuit:
    """Gates in order; each reads inputs and earlier gates.

    Attributes:
        num_inputs: bits of an input.
        gates: at least one.
        outputs: wires that are read at the end; one wrong bit makes the output wrong.

    >>> from scaleinv_ray.singularities.programs.machine import run
    >>> run(Circuit(2, (Gate("xor", (0, 1), 0),), (2,)), (1, 1))
    (0,)
    """

    num_inputs: int
    gates: tuple[Gate, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        for i, gate in enumerate(self.gates):
            if gate.operation not in OPERATIONS:
                raise ValueError(
                    f"operation: got {gate.operation!r}, allowed {', '.join(OPERATIONS)}"
                )
            size, wires = len(gate.reads), self.num_inputs + i
            if not size or not all(0 <= wire < wires for wire in gate.reads):
                raise ValueError(f"reads: gate {i} got {list(gate.reads)}, allowed 0..{wires - 1}")
            if gate.operation in _UNARY and size != 1:
                raise ValueError(f"reads: {gate.operation} got {size} wires, allowed 1")
        rules = {gate.rule for gate in self.gates if gate.rule is not None}
        if not rules:
            raise ValueError("gates: got none that may fail, allowed one at least (sure: false)")
        if rules != set(range(len(rules))):
            raise ValueError(f"rule: got {sorted(rules)}, allowed 0, 1, 2, .. without gaps")
        wires = self.num_inputs + len(self.gates)
        if not self.outputs or not all(0 <= wire < wires for wire in self.outputs):
            raise ValueError(f"outputs: got {list(self.outputs)}, allowed 0..{wires - 1}")

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """Outcome 0, the right bit, of every rule."""
        return (0,) * (1 + max(gate.rule for gate in self.gates if gate.rule is not None))

    @cached_property
    def num_outcomes(self) -> tuple[int, ...]:
        """Two of every rule: the right bit and the wrong one."""
        return (2,) * len(self.chosen)

    def start(self, given: tuple[int, ...]) -> tuple[int, ...]:
        """The bits of the wires known so far.

        Raises:
            ValueError: for another number of bits than the circuit reads.
        """
        if len(given) != self.num_inputs:
            raise ValueError(f"inputs: got {len(given)} bits, allowed {self.num_inputs}")
        return self._settled(given)

    def rule(self, configuration: tuple[int, ...]) -> int | None:
        """That of the next gate."""
        done = len(configuration) - self.num_inputs
        return self.gates[done].rule if done < len(self.gates) else None

    def after(self, configuration: tuple[int, ...], outcome: int) -> tuple[int, ...]:
        """The bit of the gate is turned where the outcome is 1."""
        return self._settled((*configuration, self._bit(configuration) ^ outcome))

    def output(self, configuration: tuple[int, ...]) -> tuple[int, ...]:
        """The bits of the output wires."""
        return tuple(configuration[wire] for wire in self.outputs)

    def _bit(self, bits: tuple[int, ...]) -> int:
        gate = self.gates[len(bits) - self.num_inputs]
        return OPERATIONS[gate.operation]([bits[wire] for wire in gate.reads])

    def _settled(self, bits: tuple[int, ...]) -> tuple[int, ...]:
        """With the bits of the gates that never fail and are next."""
        while len(bits) < self.num_inputs + len(self.gates) and self.rule(bits) is None:
            bits = (*bits, self._bit(bits))
        return bits


def every_input(num_bits: int) -> list[tuple[int, ...]]:
    """All values of so many bits.

    >>> every_input(1)
    [(0,), (1,)]
    """
    return list(product((0, 1), repeat=num_bits))
