"""Series with several tokenizers: what is judged, in which unit, and what is said of it."""

import numpy as np
import pytest

from scaleinv_ray.conclude.aggregation.matched_checkpoints import Replicate, StepOfRun, choices
from scaleinv_ray.conclude.aggregation.tokenizers import (
    Bytes,
    in_one_unit,
    say_tokenizers,
    several_tokenizers,
    tokenizer_notes,
)
from scaleinv_ray.conclude.conservation.verdicts_table import judge_table
from scaleinv_ray.conclude.training.emergence_over_runs import emergence_table
from scaleinv_ray.contract import Quantity
from tests.conclude.measured_rows import measurement

QUANTITIES = {
    ("f.i", "loss"): Quantity(law="power_law", nats="mean_per_token"),
    ("f.i", "gain"): Quantity(law="none", unit=1.0, nats="per_token"),
    ("f.i", "rank"): Quantity(law="constant"),
}
BYTES = {("prose", "a"): Bytes(1.0, 0.0), ("prose", "b"): Bytes(4.0, 0.1)}
VALUE = {"loss": 1.5, "gain": 0.2, "rank": 7.0}


def series(names="aabb", *, quantities=("loss", "gain", "rank"), **told):
    """Sizes of three seeds; all pay the same for a byte, whatever its tokens are."""
    rng = np.random.default_rng(0)
    rows = []
    for size, name in enumerate(names):
        for seed in range(3):
            for quantity in quantities:
                value = VALUE[quantity] * (1 + 0.005 * rng.normal())
                if quantity == "loss":
                    value *= BYTES["prose", name].mean
                row = measurement(
                    n_params=10 * 4**size, model=f"m{size}", seed=seed, quantity=quantity,
                    value=value, stderr=0.04, train_tokens=1000, eval_loss=2.0,
                )  # fmt: skip
                rows.append(row | {"tokenizer": name} | told)
    return rows


def verdicts(rows):
    judged, _ = judge_table(rows, quantities=QUANTITIES, comparisons=["equal_steps"])
    return {row["quantity"]: row for row in judged}


def test_losses_are_judged_in_nats_a_byte():
    rows = series()
    common = in_one_unit(rows, quantities=QUANTITIES, bytes_of=BYTES)
    found = verdicts(common)
    assert found["loss"]["verdict"] == "conserved"
    # the same numbers in nats a token would have been a law
    assert verdicts(rows)["loss"]["verdict"] != "conserved"
    last = [row for row in common if row["quantity"] == "loss"][-1]
    assert last["value"] == pytest.approx(1.5, rel=0.02)
    assert last["stderr"] == pytest.approx((0.04 + last["value"] * 0.1) / 4)


def test_gains_are_refused_with_the_reason_and_the_rest_is_judged():
    common = in_one_unit(series(), quantities=QUANTITIES, bytes_of=BYTES)
    found = verdicts(common)
    assert found["gain"]["verdict"] == "refused"
    [refused] = {r["error"] for r in common if r["quantity"] == "gain"}
    assert refused.startswith("in nats a token of 2 tokenizers")
    assert found["rank"]["verdict"] == "conserved"
    assert [r for r in common if r["quantity"] == "rank"] == [
        r for r in series() if r["quantity"] == "rank"
    ]


def test_one_tokenizer_changes_nothing():
    for names in ("aaaa", "bbbb"):
        rows = series(names)
        assert in_one_unit(rows, quantities=QUANTITIES, bytes_of=BYTES) == rows
    unknown = series("aaaa", tokenizer=None)
    assert in_one_unit(unknown, quantities=QUANTITIES, bytes_of={}) == unknown
    assert several_tokenizers(series()) == {"s": ["a", "b"]}
    assert several_tokenizers(series("aaaa")) == several_tokenizers(unknown) == {}


@pytest.mark.parametrize(
    ("told", "bytes_of", "reason"),
    [
        ({}, {}, "the tokens of this probe are no text"),
        ({"variant": "shuffled_tokens"}, BYTES, "shuffled tokens are no text"),
        ({"tokenizer": None}, BYTES, "that of this model is not known"),
    ],
)
def test_what_has_no_bytes_is_refused(told, bytes_of, reason):
    rows = [*series(quantities=["loss"]), *series("a", quantities=["loss"], **told)]
    last = in_one_unit(rows, quantities=QUANTITIES, bytes_of=bytes_of)[-1]
    assert (last["status"], last["value"]) == ("refused", None)
    assert reason in last["error"]


def test_refusals_and_failures_stay_what_they_are():
    rows = series()
    rows[0] |= {"status": "failed", "value": None, "error": "OSError"}
    common = in_one_unit(rows, quantities=QUANTITIES, bytes_of=BYTES)
    assert common[0] == rows[0]


def curves(*tokenizers):
    return {
        Replicate(10 ** (i + 1), f"m{i}", 0): {
            step: StepOfRun(100 * step, 5.0 - step - 0.1 * i, name) for step in (1, 2, 3)
        }
        for i, name in enumerate(tokenizers)
    }


def test_held_out_losses_of_two_tokenizers_are_never_equal():
    names = {c.name: c for c in choices(curves("a", "b"))}
    assert not names["equal_loss"].picks
    assert names["equal_loss"].note == "held-out losses are in nats a token of 2 tokenizers"
    for same in (("a", "a"), (None, None), ("a", None)):
        assert {c.name: c for c in choices(curves(*same))}["equal_loss"].picks
    judged, _ = judge_table(
        [r | {"step": s, "eval_loss": 4.0 - s} for s in (1, 2, 3) for r in series()],
        quantities=QUANTITIES,
        comparisons=["equal_loss"],
    )
    assert {row["verdict"] for row in judged} == {"undetermined"}
    assert all("in nats a token of 2 tokenizers" in row["reason"] for row in judged)


def test_equal_tokens_of_two_tokenizers_are_said():
    checkpoints = {
        Replicate(10, "m0", 0): {5: StepOfRun(100, None, "a")},
        Replicate(90, "m1", 0): {9: StepOfRun(100, None, "b")},
    }
    notes = {c.name: c.note for c in choices(checkpoints)}
    assert notes["equal_tokens"] == "at 100 tokens of 2 tokenizers"


def test_verdicts_say_what_differs():
    rows = in_one_unit(series(), quantities=QUANTITIES, bytes_of=BYTES)
    judged, _ = judge_table(rows, quantities=QUANTITIES)
    said = say_tokenizers(judged, several_tokenizers(rows), QUANTITIES)
    of = {row["quantity"]: row["reason"] for row in said}
    assert "2 tokenizers: in nats a byte of text" in of["loss"]
    assert "2 tokenizers: the tokens at which it is measured differ" in of["rank"]
    assert "in nats a token of 2 tokenizers" in of["gain"]
    assert say_tokenizers(judged, {}, QUANTITIES) == judged
    free = [row | {"probe": None} for row in judged]
    assert say_tokenizers(free, several_tokenizers(rows), QUANTITIES) == free


def test_notes_name_models_and_consequences():
    models = [(f"m{i}", "x" if i < 8 else "y") for i in range(9)]
    first, second, third = tokenizer_notes([*models, ("made elsewhere", None)])
    assert first == ("2 tokenizers in one series: x (m0, m1, m2, m3, m4, m5 and 2 more); y (m8)")
    assert "nats a byte" in second and "equal held-out loss" in second
    assert "token positions" in third


def test_loss_is_not_partialled_out_over_two_tokenizers():
    steps = [2**i for i in range(14)]
    x_K = np.log(steps)

    def rows_of(names):
        rng = np.random.default_rng(3)
        rows, told = [], []
        for size in (1, 2):
            for seed in range(3):
                at = 4 + rng.normal()
                y_K = 1 / (1 + np.exp(-(x_K - at) / 0.4)) + 0.01 * rng.normal(size=14)
                for step, y in zip(steps, y_K, strict=True):
                    row = measurement(
                        n_params=size, model=f"m{size}", seed=seed, step=step, value=2 + float(y),
                        train_tokens=step, eval_loss=5 - float(np.log(step)) / 3,
                    )  # fmt: skip
                    rows.append(row | {"tokenizer": names[size - 1]})
                    told.append({"model": f"m{size}", "seed": seed, "tokens": step, "task": "t",
                                 "metric": "m", "value": float(y)})  # fmt: skip
        [found] = emergence_table(rows, told, quantities={}, rng=np.random.default_rng(0))
        return found

    same, mixed = rows_of("aa"), rows_of("ab")
    assert same["p"] == mixed["p"] is not None
    assert same["p_given_loss"] is not None and mixed["p_given_loss"] is None
