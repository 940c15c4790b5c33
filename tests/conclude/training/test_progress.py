"""Kinds of progress of runs whose values are made up: what a row of the table says."""

from typing import Any

import numpy as np

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import CONCLUSIONS, SCHEMAS
from scaleinv_ray.conclude.evidence import Evidence
from tests.conclude.test_conclusions import QUANTITIES, config_of, row_of

STEPS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
NAMES = [
    ("representation.participation", "participation_ratio"),
    ("representation.participation", "participation_dimensions"),
    ("representation.covariance_decay", "exponent"),
    ("representation.covariance_decay", "rankme"),
]


def rows_of(seeds: int, turn: dict[int, int]) -> list[dict[str, Any]]:
    """Runs that move in two quantities up to a checkpoint, then in the two others; one loss."""
    rng = np.random.default_rng(0)
    rows = []
    for width in (10, 20, 40, 80):
        for seed in range(seeds):
            level = np.zeros(len(NAMES))
            for i, step in enumerate(STEPS):
                loss = {"eval_loss": 4 - 0.2 * i + 0.01 * rng.normal()}
                if i:
                    late = i > turn[width]
                    level += np.array([0, 0, 0.5, -0.5] if late else [0.5, 0.5, 0, 0])
                for (invariant, quantity), at in zip(NAMES, level, strict=True):
                    value = float(np.exp(at + 0.01 * rng.normal()))
                    rows.append(row_of(
                        width, seed, step, family="representation", probe="prose",
                        invariant=invariant, quantity=quantity, value=value, site="resid_post",
                        layer=1, depth=1.0, capture="moments", **loss,
                    ))  # fmt: skip
    return rows


def kinds_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    [kinds] = [c for c in CONCLUSIONS if c.name == "kinds"]
    return tables.decode(kinds.table(Evidence.of(rows, [], config_of(), QUANTITIES)))


def test_what_moves_in_a_kind_in_which_runs_and_when() -> None:
    first, second = kinds_of(rows_of(3, {10: 2, 20: 3, 40: 4, 80: 6}))
    assert [first["progress"], second["progress"], first["n_kinds"]] == [1, 2, 2]
    assert first["n_events"] == (2 + 3 + 4 + 6) * 3
    assert first["n_events"] + second["n_events"] == 12 * (len(STEPS) - 1)
    assert first["n_runs"] == second["n_runs"] == 12
    assert first["intervals"][0] == "1-4 (12)"
    assert first["intervals"][-1] == "1024-4096 (3)"
    spans = zip(first["runs"], first["step_low"], first["step_high"], strict=True)
    assert ("d80, seed 2", 1024.0, 4096.0) in list(spans)
    leading = {name.split()[1] for name in first["moves"][:2]}
    assert leading == {"participation_ratio", "participation_dimensions"}
    assert min(first["moves_z"][:2]) > 10 * max(map(abs, first["moves_z"][2:]))
    assert {name.split()[1] for name in second["moves"][:2]} == {"exponent", "rankme"}
    assert first["behaviour"] == ["held-out loss"]
    assert first["behaviour_z"][0] < -5
    assert first["strength"] == 1.0
    assert first["p"] == 1 / 20
    assert first["calendar"] is False
    assert first["reason"].endswith("it comes between other checkpoints in other runs")


def test_what_all_runs_do_at_the_same_time_is_the_calendar() -> None:
    rows = kinds_of(rows_of(3, dict.fromkeys((10, 20, 40, 80), 4)))
    assert [row["calendar"] for row in rows] == [True, True]
    assert [row["by_interval"] for row in rows] == [1.0, 1.0]
    assert rows[0]["reason"].startswith("0 of 84 intervals lie off the rule 'all runs or none'")


def test_seeds_are_needed() -> None:
    [row] = kinds_of(rows_of(1, {10: 2, 20: 3, 40: 4, 80: 6}))
    assert row["progress"] is None
    assert row["reason"].startswith("one seed a size")


def test_of_runs_without_checkpoints_nothing_is_said() -> None:
    assert kinds_of([row for row in rows_of(3, dict.fromkeys((10, 20, 40, 80), 4))[:4]]) == []
    assert SCHEMAS["kinds"].names[:2] == ["series", "progress"]
