"""Programs as singularities: closed forms, all automata of a size, refusals, and the page."""

import re
from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from scaleinv_ray.circuitry.compiled import coefficient
from scaleinv_ray.cli import app
from scaleinv_ray.cluster.programs import Transformer, estimated_rows, rows_of
from scaleinv_ray.config import ConfigError, load_programs_config
from scaleinv_ray.contract import Refused
from scaleinv_ray.report.drawing import Box, circuit, turing
from scaleinv_ray.runs.programs import compare_programs, items_of
from scaleinv_ray.singularities import match, singularities
from scaleinv_ray.singularities.programs import (
    Automaton,
    Circuit,
    Gate,
    TuringMachine,
    automata,
    germ,
    name_of,
    words,
)
from scaleinv_ray.singularities.programs.circuit import every_input
from scaleinv_ray.singularities.programs.evidence import Term, log_evidence
from scaleinv_ray.singularities.programs.machine import run

WORDS = words(2, 4)
COUNTS = {
    ((1, 2), "contains A"): {("7", 1): 32, ("8", 1): 10},
    ((1,), "contains A"): {("8", 1): 9, ("10", 1): 2},
    ((1, 2), "odd number of A"): {("8", 1): 18, ("9", 1): 4},
    ((1, 2), "last symbol is A"): {("8", 1): 18, ("9", 1): 4},
    ((1, 2), "constant yes"): {("6", 1): 64, ("8", 1): 10},
    ((0, 1), "contains A"): {("12", 1): 1},
    ((0, 1), "odd number of A"): {("12", 1): 1},
    ((0, 1), "constant yes"): {("4", 1): 153, ("4", 2): 36},
}


def vote(num, *, rules=None, voter=None):
    """Copies of one bit and their majority."""
    copies = tuple(Gate("copy", (0,), i if rules is None else rules) for i in range(num))
    majority = Gate("majority", tuple(range(1, num + 1)), voter)
    return germ(Circuit(1, (*copies, majority), (num + 1,)), every_input(1))


@cache
def counts(accepting):
    found = {}
    for one in automata(3, 2, frozenset(accepting)):
        function = name_of([run(one, word) for word in WORDS], WORDS)
        if (accepting, function) in COUNTS:
            llc, m = germ(one, WORDS).log_loss
            found.setdefault(function, Counter())[str(llc), m] += 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("accepting", "function"), COUNTS)
def test_all_automata_of_three_states(accepting, function):
    assert counts(accepting)[function] == COUNTS[accepting, function]


@pytest.mark.parametrize(("num", "fail"), [(3, 2), (5, 3), (7, 4)])
def test_a_repetition_code_has_n_over_k(num, fail):
    found = vote(num)
    assert found.log_loss == (Fraction(num, fail), 1)
    assert found.squared_loss == (Fraction(num, 2 * fail), 1)
    assert found.order == fail
    assert found.num_linear == found.num_free == 0


@pytest.mark.parametrize(("num", "fail"), [(3, 2), (5, 3), (7, 4)])
def test_one_rule_that_has_to_fail_k_times_has_1_over_k(num, fail):
    assert vote(num, rules=0).log_loss == (Fraction(1, fail), 1)


def test_a_voter_that_fails_is_a_rule_itself():
    found = vote(3, voter=3)
    assert found.log_loss == (Fraction(5, 2), 1)
    assert (found.order, found.constant, found.num_linear) == (1, 1, 1)


def test_all_of_n_have_to_fail():
    three = tuple(Gate("copy", (0,), i) for i in range(3))
    some = Circuit(1, (*three, Gate("or", (1, 2, 3), None)), (4,))
    assert germ(some, [(1,)]).log_loss == (1, 3)


@pytest.mark.parametrize("rules", [1, 2, 4])
def test_rules_behind_one_shared_voter(rules):
    gates, outputs = [], []
    for rule in range(rules):
        first = rules + len(gates)
        gates += [Gate("copy", (rule,), rule)] * 3
        gates.append(Gate("majority", (first, first + 1, first + 2), rules))
        outputs.append(first + 3)
    found = germ(Circuit(rules, tuple(gates), tuple(outputs)), every_input(rules))
    assert found.log_loss == (1 + Fraction(rules, 2), 1)


def test_every_rule_needed_once():
    parity = Automaton(((1, 0), (0, 1)), frozenset({1}))
    found = germ(parity, WORDS)
    assert found.log_loss == (4, 1)
    assert found.num_linear == found.num_variables == 4


def test_order_and_constant_are_those_of_the_exact_probability():
    """P(wrong) of two copies of three: 3 eta^2 (1 - eta) + eta^3."""
    found, eta = vote(3), 1e-4
    exact = 3 * eta**2 * (1 - eta) + eta**3
    assert float(found.constant) * eta**found.order == pytest.approx(exact, rel=1e-3)


def test_a_turing_machine_that_reads_as_an_automaton_has_more_ways_to_fail_only():
    table = (((0, 1, 0), (1, 0, 1)), ((0, 0, 1), (1, 0, 1)))
    machine = TuringMachine(table, 2, 2, frozenset({1}))
    found = germ(machine, every_input(2))
    assert found.outputs == (False, True, True, True)
    assert found.num_variables == 4 * 11
    assert found.num_free > 0
    assert found.log_loss.llc <= Fraction(found.num_variables, found.order)


def test_a_program_that_no_failure_changes_has_no_germ():
    always = Automaton(((0, 1), (0, 1)), frozenset({0, 1}))
    with pytest.raises(Refused, match="no failure of a rule changes an output"):
        germ(always, WORDS)


def test_malformed_programs_are_refused():
    with pytest.raises(ValueError, match=r"table: got states \[2\], allowed 0..1"):
        Automaton(((0, 2), (0, 1)), frozenset({0}))
    with pytest.raises(ValueError, match=r"reads: gate 0 got \[1\], allowed 0..0"):
        Circuit(1, (Gate("copy", (1,), 0),), (1,))
    with pytest.raises(ValueError, match=r"table: got a move \[0, 2, 0\]"):
        TuringMachine((((0, 2, 0),),), 1, 1, frozenset())
    with pytest.raises(ValueError, match="inputs: got none"):
        germ(Automaton(((0,),), frozenset()), [])


def test_evidence_falls_as_the_coefficient_says():
    ns = np.array([1e4, 1e5])
    pairs = [["a", "b"], ["a", "c"], ["b", "c"]]
    terms = [Term(names, 1.0) for names in [*pairs, ["v"]]]
    low, high = log_evidence(terms, ns, rng=np.random.default_rng(0))
    assert (low - high) / np.log(10) == pytest.approx(5 / 2, abs=0.1)


def test_evidence_of_powers_is_exact_and_knows_the_number_of_paths():
    n, rng = np.array([30.0]), np.random.default_rng(0)
    u = (np.arange(100_000) + 0.5) / 100_000
    exact = np.log(np.exp(-30 * 7 * u).mean()) + np.log(np.exp(-30 * 3 * u**2).mean())
    terms = [Term(["u"], 7.0), Term(["v", "v"], 3.0)]
    assert log_evidence(terms, n, rng=rng)[0] == pytest.approx(exact, abs=1e-4)


def test_the_paths_of_a_syndrome_are_its_coefficient_in_the_loss():
    """Against K on the true distribution: one outcome fails with eta, all others never."""
    found = germ(Automaton(((1, 0), (0, 1)), frozenset({1})), WORDS)
    for syndrome, paths in zip(found.generators, found.paths, strict=True):
        (state, symbol) = divmod(syndrome[0], 2)
        eta, wrong = 1e-6, 0.0
        for word in WORDS:
            at = {(0, False): 1.0}  # state, and whether it is the wrong one
            for letter in word:
                following = Counter()
                for (q, failed), p in at.items():
                    right = q ^ (letter == 0)
                    fails = eta if (q, letter) == (state, symbol) else 0.0
                    following[right, failed] += p * (1 - fails)
                    following[1 - right, not failed] += p * fails
                at = following
            wrong += sum(p for (_, failed), p in at.items() if failed)
        assert wrong / len(WORDS) / eta == pytest.approx(float(paths), rel=1e-4)


VOTED = [
    {"name": f"{bit}{i}", "operation": "copy", "reads": [f"x{k}"], "rule": bit}
    for k, bit in enumerate("abc") for i in range(3)
] + [
    {"name": f"v{bit}", "operation": "majority", "reads": [f"{bit}{i}" for i in range(3)],
     "rule": "vote"}
    for bit in "abc"
]  # fmt: skip
ONCE = [{"name": bit, "operation": "copy", "reads": [f"x{k}"]} for k, bit in enumerate("abc")]
ONCE.append({"name": "no", "operation": "majority", "reads": ["a", "b", "c"], "rule": "vote"})


def test_error_correction_overtakes_where_three_rules_share_a_voter(tmp_path):
    """Coefficients 5/2 and 3, but three times the paths: the curves cross near n = 500."""
    config = {"name": "x", "out": str(tmp_path), "machines": [
        {"machine": "circuit", "name": "voted", "inputs": 3, "gates": VOTED,
         "outputs": ["va", "vb", "vc"]},
        {"machine": "circuit", "name": "once", "inputs": 3, "gates": ONCE,
         "outputs": ["a", "b", "c"]},
        {"machine": "turing", "name": "seek", "cells": 2, "steps": 2, "accepting": [1],
         "table": [[[0, 1, 0], [1, 0, 1]], [[0, 0, 1], [1, 0, 1]]]},
    ]}  # fmt: skip
    compare_programs(load_programs_config(config))
    rows = {r["program"]: r for r in pq.read_table(tmp_path / "programs.parquet").to_pylist()}
    assert rows["voted"]["space"] == rows["once"]["space"] == "circuit: rules a, b, c, vote"
    assert (rows["voted"]["lambda_log_exact"], rows["once"]["lambda_log_exact"]) == ("5/2", "3")
    assert rows["voted"]["paths"] == [3.0] * 4
    assert (rows["once"]["paths"], rows["once"]["num_free"]) == ([1.0] * 3, 1)
    # exact: n^(-5/2) (pi / 12)^(3/2) / 3 = n^-3
    said = re.search(r"cross near n = (\d+)", (tmp_path / "programs.html").read_text())
    assert float(said[1]) == pytest.approx(9 / (np.pi / 12) ** 3, rel=0.03)


def test_circuits_and_turing_machines_are_drawn():
    boxes = [Box("copy r0", (0,), False), Box("majority", (1, 1, 1), True)]
    drawn = circuit(1, boxes, (2,), "a & b")
    assert drawn.count("<rect") == 2
    assert drawn.count('class="edge"') == 5  # four wires and the output
    assert 'class="node sure"' in drawn
    assert 'aria-label="a &amp; b"' in drawn
    moves = turing([[(0, 1, 0), (1, -1, 1)], [(0, 0, 1), (1, 0, 1)]], (1,), "seek")
    assert all(f">{said}<" in moves for said in ("0/0 R", "1/1 L", "0/0 S", "1/1 S"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_many_programs_go_to_ray_and_come_back_the_same(tmp_path, monkeypatch):
    options = {"machines": [CONFIG["machines"][0] | {"states": 3, "accepting": [[1, 2]]}]}
    items = [i for m in load_programs_config(CONFIG | options | {"out": "x"}).machines
             for i in items_of(m)]  # fmt: skip
    assert len(items) == 729
    alone = rows_of(items, address=None)
    monkeypatch.setattr("scaleinv_ray.cluster.programs.FEW", 100)
    assert rows_of(items, address=None) == alone


@pytest.mark.parametrize(
    ("name", "function"),
    [("contains", "contains A"), ("either", "first symbol is A")],
)
def test_transformers_do_what_the_automata_beside_them_do(name, function, monkeypatch):
    monkeypatch.setattr(coefficient, "STEPS", 40)
    monkeypatch.setattr(coefficient, "BURN_IN", 20)
    (row,) = estimated_rows([Transformer("x", name, 3, 0)], address=None)
    assert (row["function"], row["how"], row["lambda_log_exact"]) == (function, "estimated", None)
    assert row["verdict"] == "reject"  # of so few draws
    assert row["reason"]
    assert 0 < row["curved"] < row["at_least"] < row["num_variables"] / 2


def test_the_dictionary_answers_with_programs():
    assert sum(e.family == "program" for e in singularities()) >= 10
    found = match(5 / 3, 0.004)
    assert [c.names for c in found.candidates] == [("circuit: 3 of 5 copies fail",)]
    assert 0 < found.by_chance < 1
    wide = match(5 / 3, 0.04)
    assert wide.by_chance == pytest.approx(10 * found.by_chance, rel=0.1)


CONFIG = {
    "name": "small",
    "machines": [
        {"machine": "automaton", "name": "two states", "states": 2, "symbols": 2, "longest": 3,
         "accepting": [[1]], "enumerate": "all"},
    ],
}  # fmt: skip


def test_the_table_and_the_page(tmp_path):
    page = compare_programs(load_programs_config(CONFIG | {"out": str(tmp_path)}))
    rows = pq.read_table(tmp_path / "programs.parquet").to_pylist()
    parity = next(r for r in rows if r["function"] == "odd number of A")
    assert (parity["lambda_log_exact"], parity["multiplicity"], parity["order"]) == ("4", 1, 1)
    text = (tmp_path / "programs.html").read_text()
    assert page.endswith("programs.html")
    assert "λ = 4, m = 1" in text
    assert text.count('<svg class="automaton"') >= 4
    assert "http" not in text  # self-contained


def test_what_is_wrong_in_the_config_is_named(tmp_path):
    machine = CONFIG["machines"][0]
    with pytest.raises(ConfigError, match="table, enumerate: got both or neither"):
        load_programs_config(CONFIG | {"out": "x", "machines": [machine | {"enumerate": None}]})
    with pytest.raises(ValueError, match="functions: got 'parity', allowed: contains A"):
        config = CONFIG | {"out": str(tmp_path), "machines": [machine | {"functions": ["parity"]}]}
        compare_programs(load_programs_config(config))
    table = {"enumerate": None, "functions": None, "states": 3, "symbols": 2, "accepting": [[1]]}
    for change, said in (
        # rows for states and columns for symbols, not the other way round
        (
            table | {"table": [[0, 1, 1], [1, 0, 1]]},
            r"table: got rows of \[3, 3\] symbols, allowed: 3",
        ),
        (
            table | {"table": [[0, 1]] * 2},
            r"table: got rows of \[2, 2\] symbols, allowed: 3 rows of 2",
        ),
        (table | {"table": [[0, 3]] * 3}, r"table: got states \[3\], allowed: 0..2"),
        (table | {"table": [[0, 1]] * 3, "functions": ["contains A"]}, "got some with table"),
        ({"accepting": [[1, 2], [2, 1]]}, r"got \[1, 2\] more than once, allowed: each once"),
        ({"accepting": [[7]]}, r"accepting: got states \[7\], allowed: 0..1"),
        ({"functions": []}, r"functions: got \[\], allowed: a list of at least 1 item"),
        (
            {"states": 1, "symbols": 8, "longest": 8, "accepting": [[0]]},
            "symbols, longest: got 19173960 words, allowed",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            load_programs_config(CONFIG | {"out": "x", "machines": [machine | change]})
    with pytest.raises(ConfigError, match="machines: name: got .* more than once, allowed: each"):
        load_programs_config(CONFIG | {"out": "x", "machines": [machine, machine]})
    with pytest.raises(ValueError, match="gates: got none that may fail, allowed one at least"):
        Circuit(1, (Gate("copy", (0,), None),), (1,))
    assert CliRunner().invoke(app, ["programs", "--help"]).exit_code == 0
