"""Programs of one function beside each other: their germs, a table and a page."""

from __future__ import annotations

from itertools import product

import numpy as np

from scaleinv_ray import tables
from scaleinv_ray.cluster.programs import Transformer, estimated_rows, rows_of
from scaleinv_ray.config.programs import (
    AutomatonSet,
    CircuitOptions,
    ProgramsConfig,
    TransformerOptions,
    TuringOptions,
)
from scaleinv_ray.inputs.paths import check_folder
from scaleinv_ray.report.drawing import Box, automaton, circuit, turing
from scaleinv_ray.report.programs import Shown, programs_page
from scaleinv_ray.singularities.programs import (
    FUNCTIONS,
    Automaton,
    Circuit,
    Gate,
    TuringMachine,
    automata,
    words,
)
from scaleinv_ray.singularities.programs.circuit import every_input
from scaleinv_ray.singularities.programs.evidence import Term, log_evidence
from scaleinv_ray.singularities.programs.machine import Program
from scaleinv_ray.singularities.programs.rows import Item, ProgramRow
from scaleinv_ray.store import Store

TABLE, PAGE = "programs.parquet", "programs.html"
NS = np.logspace(0, 5, 41)
"""Numbers of samples of the evidence curves."""


def compare_programs(config: ProgramsConfig, *, address: str | None = None) -> str:
    """Finds the germs of all programs and writes the table and the page.

    Args:
        address: of a Ray cluster; None embeds Ray where the programs are many.

    Returns:
        Path of the page.

    Raises:
        ValueError: for an unknown function, a program that is none, and where none is left.
    """
    check_folder("out", config.out)
    asked = [options for options in config.machines if not isinstance(options, TransformerOptions)]
    items = [item for options in asked for item in items_of(options)]
    compiled = [
        Transformer(options.name, options.program, options.longest, config.seed)
        for options in config.machines
        if isinstance(options, TransformerOptions)
    ]
    rows = rows_of(items, address=address) + estimated_rows(compiled, address=address)
    if not rows:
        raise ValueError(f"machines: none of {len(items)} programs computes a function asked for")
    store = Store(config.out)
    store.write_table(TABLE, tables.encode(rows, tables.schema_of(ProgramRow)))
    page = programs_page(config.name, _shown(rows, items, config.seed), NS)
    store.write_bytes(PAGE, page.encode())
    return store.path(PAGE)


def items_of(options: AutomatonSet | TuringOptions | CircuitOptions) -> list[Item]:
    """The programs that a mapping of the config stands for."""
    if isinstance(options, AutomatonSet):
        return _automata(options)
    if isinstance(options, TuringOptions):
        machine = TuringMachine(
            options.table, options.cells, options.steps, frozenset(options.accepting)
        )
        inputs = tuple(product(range(machine.num_symbols), repeat=options.cells))
        space = f"turing: {len(machine.chosen)} rules, {options.cells} cells"
        return [
            Item("turing", space, options.name, machine, options.accepting,
                 machine.num_symbols, inputs, None, is_single=True)
        ]  # fmt: skip
    wired, rules = _circuit(options)
    return [
        Item("circuit", f"circuit: rules {', '.join(rules)}", options.name, wired, (), 0,
             tuple(every_input(options.inputs)), None, is_single=True)
    ]  # fmt: skip


def _automata(options: AutomatonSet) -> list[Item]:
    if odd := sorted(set(options.functions or ()) - set(FUNCTIONS)):
        raise ValueError(f"functions: got {odd[0]!r}, allowed: {', '.join(FUNCTIONS)}")
    inputs = tuple(words(options.symbols, options.longest))
    items = []
    for accepting in options.accepting:
        kept = frozenset(accepting)
        found = (
            automata(options.states, options.symbols, kept)
            if options.table is None
            else [Automaton(options.table, kept)]
        )
        for one in found:
            name = " ".join("".join(map(str, row)) for row in one.table)
            items.append(
                Item("automaton", options.name, name, one, tuple(sorted(kept)), options.symbols,
                     inputs, options.functions, is_single=options.table is not None)
            )  # fmt: skip
    return items


def _circuit(options: CircuitOptions) -> tuple[Circuit, list[str]]:
    """Wires and rules by number instead of by name; circuits with the same rules share a space."""
    wires = [f"x{i}" for i in range(options.inputs)] + [g.name for g in options.gates]
    rules = sorted({g.rule or g.name for g in options.gates if not g.sure})
    gates = tuple(
        Gate(
            g.operation,
            tuple(map(wires.index, g.reads)),
            None if g.sure else rules.index(g.rule or g.name),
        )
        for g in options.gates
    )
    return Circuit(options.inputs, gates, tuple(map(wires.index, options.outputs))), rules


def _shown(rows: list[ProgramRow], items: list[Item], seed: int) -> list[Shown]:
    """One program of every germ of a function, with how many there are and its evidence."""
    programs = {(i.machine, i.space, i.name, i.accepting): i.program for i in items}
    classes: dict[tuple[object, ...], list[ProgramRow]] = {}
    for row in rows:
        key = (row["machine"], row["space"], row["function"], tuple(row["accepting"]),
               row["lambda_log"], row["multiplicity"], row["order"])  # fmt: skip
        classes.setdefault(key, []).append(row)
    rng = np.random.default_rng(seed)
    shown = []
    for alike in classes.values():
        first = alike[0]
        terms = [
            Term(g.split(), c) for g, c in zip(first["generators"], first["paths"], strict=True)
        ]
        known = first["machine"], first["space"], first["program"], tuple(first["accepting"])
        drawing = _drawing(programs[known], first["program"]) if known in programs else ""
        curve = log_evidence(terms, NS, rng=rng) if terms else None
        shown.append(Shown(first, len(alike), curve, drawing))
    return shown


def _drawing(program: Program, name: str) -> str:
    if isinstance(program, Automaton):
        return automaton(program.table, tuple(program.accepting), f"automaton {name}")
    if isinstance(program, TuringMachine):
        return turing(program.table, tuple(program.accepting), f"Turing machine {name}")
    assert isinstance(program, Circuit), "there are three kinds of machines"
    boxes = [
        Box(g.operation if g.rule is None else f"{g.operation} r{g.rule}", g.reads, g.rule is None)
        for g in program.gates
    ]
    return circuit(program.num_inputs, boxes, program.outputs, f"circuit {name}")
