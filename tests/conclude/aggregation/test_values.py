"""From rows to values: averages, bins, steps, and the comparisons that can be made."""

import math

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.cells import gather
from scaleinv_ray.conclude.aggregation.values import comparisons

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
    # rows of a probe share its sequences: averaging them takes no error away for certain
    assert value.stderr == pytest.approx(0.3)
    weights = [r | {"probe": None} for r in rows]
    (value,) = made(only(weights, depth_bin="all"))["equal_steps"].trained.values()
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


def test_weights_count_under_their_role_and_all_blocks_together():
    rows = [
        row(n_params=10, model="a", site=None, role=role, layer=layer, value=v)
        for role, layer, v in [("query", 0, 1.0), ("key", 0, 3.0), ("embedding", None, 50.0)]
    ]
    got = {
        g.place.site: next(iter(made(g)["equal_steps"].trained.values())).value
        for g in gather(rows)
    }
    assert got == {"query": 1.0, "key": 3.0, "embedding": 50.0, "all": 2.0}


def test_paired_rows_are_left_out():
    rows = [row(n_params=10, model="a"), row(n_params=10, model="a", unit_b="other", value=9.0)]
    (value,) = made(only(rows))["equal_steps"].trained.values()
    assert value.value == 1.0


def layered(num_layers, *, n, seed=0, refused=(), **told):
    """Rows of a model, the value being the relative depth; layers in `refused` have none."""
    return [
        row(n_params=n, model=f"m{n}", seed=seed, n_layers=num_layers, layer=i,
            depth=(i + 1) / num_layers, value=(i + 1) / num_layers)
        | ({"status": "refused", "value": None, "error": "too few"} if i in refused else {})
        | told
        for i in range(num_layers)
    ]  # fmt: skip


@pytest.mark.parametrize("status", ["refused", "failed"])
def test_a_refused_layer_drops_its_replicate(status):
    rows = layered(4, n=10) + layered(4, n=10, seed=1) + layered(4, n=20)
    rows[3] |= {"status": status, "value": None, "error": "too few"}
    found = made(only(rows, depth_bin="all"))["equal_steps"]
    assert [(r.n_params, r.seed, v.value) for r, v in found.trained.items()] == [
        (10, 1, 0.625),
        (20, 0, 0.625),
    ]
    assert [(r.n_params, r.seed, text) for r, text in found.refused.items()] == [(10, 0, "too few")]
    assert found.notes == ["1 of 3 models dropped: too few"]
    # the third without that layer has all its rows
    assert len(made(only(rows, depth_bin="early"))["equal_steps"].trained) == 3
    assert len(made(only(rows, depth_bin="late"))["equal_steps"].trained) == 2


def test_a_row_that_was_never_written_drops_its_replicate():
    rows = layered(4, n=10)[:-1] + layered(4, n=10, seed=1)
    found = made(only(rows, depth_bin="all"))["equal_steps"]
    assert [r.seed for r in found.trained] == [1]


def test_what_is_refused_in_every_model_is_no_part_of_the_place():
    # the last layer, wherever it lies
    rows = [
        *layered(4, n=10, refused=[3]),
        *layered(4, n=10, refused=[3], variant="random_init"),
        *layered(6, n=20, refused=[5]),
        *layered(6, n=20, variant="random_init"),
    ]
    found = made(only(rows, depth_bin="all"))["equal_steps"]
    assert [v.value for v in found.trained.values()] == pytest.approx([0.5, 0.5])
    assert found.refused == {}
    assert found.notes == ["without depth 1, refused in every model"]
    # nulls cover the same layers, though there the null has a value
    null = found.nulls["random_init"]
    assert [v.value for v in null.values()] == pytest.approx([0.5, 0.5])


def test_what_is_refused_at_one_size_only_is_a_part_of_the_place():
    rows = layered(4, n=10, refused=[0]) + layered(6, n=20) + layered(4, n=30)
    found = made(only(rows, depth_bin="all"))["equal_steps"]
    assert [r.n_params for r in found.trained] == [20, 30]
    assert [r.n_params for r in found.refused] == [10]


def test_a_record_that_could_not_be_made_counts_at_every_place():
    lost = row(n_params=10, model="m10", seed=1, n_layers=4, site=None, status="failed",
               value=None, error="OSError: gone")  # fmt: skip
    for group in gather([*layered(4, n=10), *layered(4, n=20), lost]):
        assert group.place.site == "resid_post"
        found = made(group)["equal_steps"]
        assert [(r.seed, text) for r, text in found.refused.items()] == [(1, "OSError: gone")]


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
        assert ours.choices == theirs.choices
        assert comparisons(ours) == comparisons(theirs)


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


LAST = ((10, 30), (20, 50))


def test_last_common_step_and_equal_tokens():
    curves = {
        10: [(0, None, 0.0), (50, None, 1.0), (100, None, 2.0)],
        20: [(0, None, 5.0), (50, None, 6.0), (200, None, 7.0)],
    }
    same = made(only(checkpoints(curves, tokens_per_step=(2, 2))))
    assert set(same) == {"equal_steps", "final"}
    assert same["equal_steps"].step == 50
    assert sorted(v.value for v in same["equal_steps"].trained.values()) == [1.0, 6.0]
    # at half the batch the small model has seen as much at step 100 as the large one at 50
    found = made(only(checkpoints(curves, tokens_per_step=(1, 2))))
    assert sorted(v.value for v in found["equal_tokens"].trained.values()) == [2.0, 6.0]
    assert found["equal_tokens"].step is None
    assert found["equal_tokens"].notes == ["at 100 tokens"]


def test_equal_loss_interpolates_at_the_lowest_level_all_reach():
    curves = {
        10: [(0, 9.0, 0.0), (50, 5.0, 1.0), (100, 4.0, 2.0)],
        20: [(0, 9.0, 0.0), (50, 5.0, 10.0), (100, 3.0, 20.0)],
    }
    found = made(only(checkpoints(curves, tokens_per_step=(1, 1))))["equal_loss"]
    small, large = sorted(v.value for v in found.trained.values())
    assert small == 2.0
    assert large == 15.0
    assert found.notes == ["at held-out loss 4"]


def test_equal_loss_never_extrapolates():
    curves = {10: [(0, 9.0, 0.0), (50, 5.0, 1.0)], 20: [(0, 4.0, 0.0), (50, 3.0, 1.0)]}
    assert "equal_loss" not in made(only(checkpoints(curves, tokens_per_step=(1, 1))))
    curves[20] = [(0, None, 0.0), (50, None, 1.0)]
    assert "equal_loss" not in made(only(checkpoints(curves, tokens_per_step=(1, 1))))


@pytest.mark.parametrize("small", [[(30, None, 0.0)], [(0, None, 9.0), (30, None, 0.0)]])
def test_finished_models_without_a_common_step_are_compared_at_their_last(small):
    curves = {10: small, 20: [(0, None, 8.0), (50, None, 1.0)]}
    rows = checkpoints(curves, tokens_per_step=(1, 1))
    null = {"variant": "random_init"}
    rows += [row(n_params=n, model=f"m{n}", step=t, value=5.0, **null) for n, t in LAST]
    found, *others = comparisons(only(rows))
    assert (found.name, found.step, others) == ("final", None, [])
    assert [(r.n_params, v.value) for r, v in found.trained.items()] == [(10, 0.0), (20, 1.0)]
    assert found.notes == ["the trained models have no step in common: each at its last checkpoint"]
    assert len(found.nulls["random_init"]) == 2
    assert found.null_notes == [], "each null stands at the last step of its model"
    (found, *_) = comparisons(only(rows + [rows[-1] | {"step": 60, "value": 6.0}]))
    assert sorted(v.value for v in found.nulls["random_init"].values()) == [5.0, 5.0]


def test_the_last_checkpoints_beside_a_common_step():
    curves = {10: [(20, None, 0.0), (50, None, 1.0)], 20: [(20, None, 5.0), (90, None, 7.0)]}
    found = made(only(checkpoints(curves, tokens_per_step=(2, 2))))
    assert found["equal_steps"].step == 20
    assert [v.value for v in found["final"].trained.values()] == [1.0, 7.0]
    assert found["final"].notes == ["each model at its last checkpoint"]
    alone = made(only(checkpoints({10: curves[10], 20: curves[10]}, tokens_per_step=(2, 2))))
    assert set(alone) == {"equal_steps"}
    assert alone["equal_steps"].is_among(["final"]), "the same checkpoints, judged once"


@pytest.mark.parametrize("gone", [False, True])
def test_the_step_is_that_of_the_series_whatever_was_refused_there(gone):
    curves = {n: [(0, None, 0.0), (100, None, 1.0)] for n in (10, 20)}
    rows = checkpoints(curves, tokens_per_step=(1, 1))
    if gone:
        # another quantity was measured there
        rows[1] |= {"quantity": "other", "value": 5.0}
    else:
        rows[1] |= {"status": "refused", "value": None, "error": "too few"}
    found = made(only(rows, quantity="rank"))["equal_steps"]
    assert found.step == 100
    assert [r.n_params for r in found.trained] == [20]
    text = "not measured here: m10 (seed 0)" if gone else "1 of 2 models dropped: too few"
    assert found.notes == [text]


def test_the_level_of_loss_is_that_of_the_series_whatever_was_refused_there():
    curves = {
        10: [(0, 9.0, 0.0), (50, 5.0, 1.0), (100, 4.0, 2.0)],
        20: [(0, 9.0, 0.0), (50, 5.0, 10.0), (100, 3.0, 20.0)],
    }
    rows = checkpoints(curves, tokens_per_step=(1, 1))
    rows[2] |= {"status": "refused", "value": None, "error": "too few"}
    found = made(only(rows))["equal_loss"]
    assert found.notes[0] == "at held-out loss 4"
    assert [(r.n_params, v.value) for r, v in found.trained.items()] == [(20, 15.0)]
    assert [r.n_params for r in found.refused] == [10]


def test_nulls_of_the_judged_step_else_the_latest():
    rows = [row(n_params=10, model="a", step=t) for t in (0, 100)]
    rows += [row(n_params=10, model="a", step=t, variant="random_init", value=t) for t in (0, 100)]
    found = made(only(rows))["equal_steps"]
    assert [v.value for v in found.nulls["random_init"].values()] == [100]
    assert found.null_notes == []
    rows += [row(n_params=10, model="a", step=50, variant="shuffled_weights", value=7.0)]
    found = made(only(rows))["equal_steps"]
    assert [v.value for v in found.nulls["shuffled_weights"].values()] == [7.0]
    assert found.null_notes == ["nulls at step 50"]


def test_a_null_that_is_missing_or_refused_at_a_size_is_named():
    rows = [row(n_params=n, model=f"m{n}") for n in (10, 2000, 3000)]
    rows += [row(n_params=n, model=f"m{n}", variant="random_init") for n in (10, 2000)]
    rows[-1] |= {"status": "refused", "value": None, "error": "too few"}
    found = made(only(rows))["equal_steps"]
    assert [r.n_params for r in found.nulls["random_init"]] == [10]
    assert found.null_notes == ["random_init: missing at sizes 2,000, 3,000"]


def test_nulls_alone_give_no_comparison():
    assert made(only([row(n_params=10, model="a", variant="random_init")])) == {}
