"""From rows to values: averages, bins, steps, and the comparisons that can be made."""

import math

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conservation.values import comparisons, gather

SIZES = (1_000_000, 10_000_000)


def row(**told):
    base = dict.fromkeys(tables.MEASUREMENTS.names)
    base |= {
        "series": "s", "probe": "prose", "family": "spectra", "invariant": "spectra.rank",
        "quantity": "rank", "site": "resid_post", "protocol": "p", "version": 1, "params": "{}",
        "variant": "trained", "seed": 0, "step": 100, "status": "ok", "value": 1.0,
    }  # fmt: skip
    return base | told


def only(rows, **place):
    groups = [g for g in gather(rows) if place.items() <= g.place._asdict().items()]
    assert len(groups) == 1
    return groups[0]


def made(group):
    return {c.name: c for c in comparisons(group)}


def test_layers_and_heads_are_averaged_with_their_errors():
    rows = [
        row(n_params=10, model="a", layer=layer, depth=0.5, head=head, value=v, stderr=0.3)
        for layer, head, v in [(0, 0, 1.0), (0, 1, 2.0), (1, 0, 6.0)]
    ]
    (value,) = made(only(rows, depth_bin="all"))["equal_steps"].trained.values()
    assert value.value == 3.0
    assert value.stderr == pytest.approx(0.3 / math.sqrt(3))
    rows[0]["stderr"] = None
    (value,) = made(only(rows, depth_bin="all"))["equal_steps"].trained.values()
    assert value.stderr is None


def test_depth_bins():
    rows = [
        row(n_params=10, model="a", layer=i, depth=(i + 1) / 3, value=float(i)) for i in range(3)
    ]
    got = {
        g.place.depth_bin: next(iter(made(g)["equal_steps"].trained.values())).value
        for g in gather(rows)
    }
    assert got == {"all": 1.0, "early": 0.0, "middle": 1.0, "late": 2.0}


def test_two_layers_have_no_early_third():
    rows = [row(n_params=10, model="a", layer=i, depth=(i + 1) / 2) for i in range(2)]
    assert {g.place.depth_bin for g in gather(rows)} == {"all", "middle", "late"}


def test_weights_count_under_their_role_and_all_together():
    rows = [
        row(n_params=10, model="a", site=None, role=role, value=v)
        for role, v in [("query", 1.0), ("key", 3.0)]
    ]
    got = {
        g.place.site: next(iter(made(g)["equal_steps"].trained.values())).value
        for g in gather(rows)
    }
    assert got == {"query": 1.0, "key": 3.0, "all": 2.0}


def test_refused_failed_and_paired_rows_are_left_out():
    rows = [
        row(n_params=10, model="a"),
        row(n_params=10, model="a", status="refused", value=None),
        row(n_params=10, model="a", status="failed", value=None),
        row(n_params=10, model="a", unit_b="other", value=9.0),
    ]
    (value,) = made(only(rows))["equal_steps"].trained.values()
    assert value.value == 1.0


@pytest.mark.parametrize("column", ["protocol", "version", "params"])
def test_mixed_protocols_versions_and_parameters_are_refused(column):
    rows = [row(n_params=10, model="a"), row(n_params=20, model="b", **{column: "other"})]
    with pytest.raises(ValueError, match=f"{column}: got 'other'"):
        gather(rows)


def test_order_of_rows_changes_nothing():
    rows = [
        row(n_params=n, model=f"m{n}", seed=s, step=t, layer=i, depth=(i + 1) / 4, value=n + s / 7)
        for n in SIZES
        for s in (0, 1)
        for t in (0, 100)
        for i in range(4)
    ]
    for ours, theirs in zip(gather(rows), gather(rows[::-1]), strict=True):
        assert ours.place == theirs.place
        assert ours.runs == theirs.runs


def checkpoints(curves, *, tokens_per_step):
    """Rows for model -> [(step, loss, value)]."""
    return [
        row(
            n_params=n, model=f"m{n}", step=step, train_tokens=step * per_step, eval_loss=loss,
            value=value,
        )
        for (n, curve), per_step in zip(curves.items(), tokens_per_step, strict=True)
        for step, loss, value in curve
    ]  # fmt: skip


def test_last_common_step_and_equal_tokens():
    curves = {
        10: [(0, None, 0.0), (50, None, 1.0), (100, None, 2.0)],
        20: [(0, None, 5.0), (50, None, 6.0), (200, None, 7.0)],
    }
    same = made(only(checkpoints(curves, tokens_per_step=(2, 2))))
    assert set(same) == {"equal_steps"}
    assert same["equal_steps"].step == 50
    assert sorted(v.value for v in same["equal_steps"].trained.values()) == [1.0, 6.0]
    # at half the batch the small model has seen as much at step 100 as the large one at 50
    found = made(only(checkpoints(curves, tokens_per_step=(1, 2))))
    assert sorted(v.value for v in found["equal_tokens"].trained.values()) == [2.0, 6.0]
    assert found["equal_tokens"].step is None
    assert found["equal_tokens"].note == "at 100 tokens"


def test_equal_loss_interpolates_at_the_lowest_level_all_reach():
    curves = {
        10: [(0, 9.0, 0.0), (50, 5.0, 1.0), (100, 4.0, 2.0)],
        20: [(0, 9.0, 0.0), (50, 5.0, 10.0), (100, 3.0, 20.0)],
    }
    found = made(only(checkpoints(curves, tokens_per_step=(1, 1))))["equal_loss"]
    small, large = sorted(v.value for v in found.trained.values())
    assert small == 2.0
    assert large == 15.0
    assert "4" in found.note


def test_equal_loss_never_extrapolates():
    curves = {10: [(0, 9.0, 0.0), (50, 5.0, 1.0)], 20: [(0, 4.0, 0.0), (50, 3.0, 1.0)]}
    assert "equal_loss" not in made(only(checkpoints(curves, tokens_per_step=(1, 1))))
    curves[20] = [(0, None, 0.0), (50, None, 1.0)]
    assert "equal_loss" not in made(only(checkpoints(curves, tokens_per_step=(1, 1))))


def test_without_a_common_step_equal_steps_is_left_out():
    curves = {10: [(0, None, 0.0)], 20: [(50, None, 1.0)]}
    assert made(only(checkpoints(curves, tokens_per_step=(1, 1)))) == {}


def test_nulls_of_the_judged_step_else_the_latest():
    rows = [row(n_params=10, model="a", step=t) for t in (0, 100)]
    rows += [row(n_params=10, model="a", step=t, variant="random_init", value=t) for t in (0, 100)]
    rows += [row(n_params=10, model="a", step=50, variant="shuffled_weights", value=7.0)]
    found = made(only(rows))["equal_steps"]
    assert [v.value for v in found.nulls["random_init"].values()] == [100]
    assert [v.value for v in found.nulls["shuffled_weights"].values()] == [7.0]


def test_nulls_alone_give_no_comparison():
    assert made(only([row(n_params=10, model="a", variant="random_init")])) == {}
