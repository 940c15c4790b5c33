"""Evaluations and runs: which belong together, and the reason of each that does not."""

import pytest

from scaleinv_ray.conclude.aggregation.evaluations import Seen, join_evaluations, join_notes

RUN = [Seen("d40", 0, step, 1000 * step) for step in (0, 64, 128)]


def evaluation(**told):
    row = {
        "model": "lab/d40", "step": 64, "tokens": None, "task": "piqa", "metric": "acc",
        "value": 0.6, "problem": "", "file": "r.json",
    }  # fmt: skip
    return row | told


def test_a_run_knows_its_own_tokens():
    found = join_evaluations([evaluation(), evaluation(step=0, tokens=7)], RUN)
    assert [row["tokens"] for row in found.rows] == [64_000, 0]
    assert not found.lost
    # between its checkpoints what the evaluation says is all there is
    [row] = join_evaluations([evaluation(step=100, tokens=99)], RUN).rows
    assert row["tokens"] == 99


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"value": None, "problem": "the value is nan"}, "the value is nan"),
        ({"model": None}, "the file names no model"),
        ({"model": "lab/d80"}, "no model of this name"),
        ({"step": None}, "neither revision nor folder gives a step"),
        ({"step": 100}, "no checkpoint of the run is at this step"),
    ],
)
def test_what_is_of_no_checkpoint_has_its_reason(told, reason):
    found = join_evaluations([evaluation(**told)], RUN)
    [row] = found.lost
    assert not found.rows and reason in row["reason"]


def test_a_name_of_several_runs_is_none():
    seeds = [*RUN, Seen("d40", 1, 64, 64_000)]
    [row] = join_evaluations([evaluation()], seeds).lost
    assert row["reason"] == "the series has 2 runs of this name, and the file names no seed"


def test_the_later_of_two_values_counts_and_the_other_is_told():
    first, second = evaluation(value=0.5), evaluation(value=0.6, file="later.json")
    found = join_evaluations([first, second], RUN)
    assert [row["value"] for row in found.rows] == [0.6]
    assert [row["value"] for row in found.lost] == [0.5]
    assert "given again" in found.lost[0]["reason"]
    same = join_evaluations([first, first], RUN)
    assert len(same.rows) == 1 and not same.lost


def test_notes_count_and_name():
    rows = [evaluation()] + [evaluation(model=f"lab/m{i}") for i in range(5)]
    first, second = join_notes(join_evaluations(rows, RUN))
    assert first == "evaluations: 1 of 6 values joined with runs"
    assert "5 not joined: the series has no model of this name: lab/m0 step 64, piqa acc" in second
    assert second.endswith("and 2 more")
    assert join_notes(join_evaluations([], RUN)) == []
    many = [evaluation(value=None, problem=f"the value is {i}") for i in range(20)]
    lines = join_notes(join_evaluations(many, RUN))
    assert len(lines) == 14 and lines[-1] == "  8 not joined for further reasons"
