"""Evaluations in the layouts in which they are published."""

import json

import pytest

from scaleinv_ray.checkpoints import from_lm_eval, from_pythia
from scaleinv_ray.checkpoints.finding.evaluations import PYTHIA_PARAMS, chance_of
from scaleinv_ray.config import load_run_config
from scaleinv_ray.plan import Plan
from scaleinv_ray.records import Protocol
from scaleinv_ray.runs.analysis import notes_of

OLD = {
    "results": {
        "lambada_openai": {"ppl": 7.1, "ppl_stderr": 0.2, "acc": 0.58, "acc_stderr": 0.007},
        "arc_easy": {"acc": 0.5, "acc_stderr": 0.01, "acc_norm": 0.45, "acc_norm_stderr": 0.01},
    },
    "versions": {"lambada_openai": 0, "arc_easy": 0},
    "config": {
        "model": "hf-causal",
        "model_args": "pretrained=EleutherAI/pythia-160m,revision=step3000,dtype=float16",
        "num_fewshot": 0,
    },
}
NEW = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.1,
            "exact_match_stderr,strict-match": "N/A",
            "exact_match,flexible-extract": 0.2,
            "exact_match_stderr,flexible-extract": 0.01,
        },
        "piqa": {"alias": "piqa", "sample_len": 1838, "acc,none": 0.6, "acc_stderr,none": 0.011},
    },
    "config": {
        "model": "hf",
        "model_args": {"pretrained": "EleutherAI/pythia-160m", "revision": "step3000"},
        "model_num_parameters": 162322944,
    },
}


def test_old_layout():
    rows = from_lm_eval(OLD, tokens_per_step=1000, n_params=5)
    assert [(r["task"], r["metric"], r["value"], r["stderr"], r["chance"]) for r in rows] == [
        ("arc_easy", "acc", 0.5, 0.01, 0.25),
        ("arc_easy", "acc_norm", 0.45, 0.01, 0.25),
        ("lambada_openai", "acc", 0.58, 0.007, 0.0),
        ("lambada_openai", "ppl", 7.1, 0.2, None),
    ]
    for row in rows:
        assert (row["model"], row["step"]) == ("EleutherAI/pythia-160m", 3000)
        assert (row["tokens"], row["n_params"]) == (3_000_000, 5)


def test_new_layout():
    rows = from_lm_eval(NEW)
    assert [(r["task"], r["metric"], r["value"], r["stderr"]) for r in rows] == [
        ("gsm8k", "exact_match,flexible-extract", 0.2, 0.01),
        ("gsm8k", "exact_match,strict-match", 0.1, None),
        ("piqa", "acc", 0.6, 0.011),
    ]
    assert {(r["step"], r["tokens"], r["n_params"]) for r in rows} == {(3000, None, 162322944)}
    assert rows[2]["chance"] == 0.5


def test_a_model_without_revision_has_no_step():
    (row,) = from_lm_eval({"results": {"x": {"acc": 0.1}}, "config": {"model": "gpt2"}})
    assert (row["model"], row["step"], row["tokens"], row["chance"]) == ("gpt2", None, None, None)


def test_pythia_layout():
    row = {
        "model": "pythia-1.4b-deduped", "fewshot": "zero-shot", "step": 1000,
        "task": "hendrycksTest-nutrition", "metric": "acc", "value": 0.3, "stderr": 0.02,
    }  # fmt: skip
    models = ["pythia-1.4b-deduped", "pythia-1b-bf16", "pythia-1b-0.5MtokBS"]
    rows = [row | {"model": m} for m in models] + [row | {"fewshot": "five-shot", "value": 0.4}]
    found = from_pythia(rows)
    assert [(r["n_params"], r["tokens"]) for r in found] == [
        (PYTHIA_PARAMS["1.4b"], 2_097_152_000),
        (PYTHIA_PARAMS["1b"], 2_097_152_000),
        (PYTHIA_PARAMS["1b"], 524_288_000),
    ]
    assert {r["chance"] for r in found} == {0.25}
    assert [r["value"] for r in from_pythia(rows, fewshot="five-shot")] == [0.4]
    with pytest.raises(ValueError, match="model: got 'gpt2'"):
        from_pythia([row | {"model": "gpt2"}])


def test_parameters_are_embeddings_and_blocks():
    # vocabulary padded to 50304, tied to nothing: 2 V D + 12 L D^2 + 13 L D + 2 D
    for name, layers, width in (("70m", 6, 512), ("160m", 12, 768), ("410m", 24, 1024)):
        blocks = 12 * layers * width**2 + 13 * layers * width + 2 * width
        assert PYTHIA_PARAMS[name] == 2 * 50304 * width + blocks


def test_chance_is_known_by_the_longest_name():
    assert chance_of("wsc", "acc") == chance_of("crows_pairs_french_age", "pct_stereotype") == 0.5
    assert chance_of("arc_easy_like", "acc") == 0.25
    assert chance_of("arcane", "acc") is None
    assert chance_of("piqa", "ppl") is None


def of(model_args, *, scores=None, **more):
    """A results.json with one score."""
    results = {"results": {"piqa": {"acc,none": 0.5} if scores is None else scores}}
    return results | {"config": {"model_args": model_args}} | more


@pytest.mark.parametrize(
    ("args", "model", "step"),
    [
        ("pretrained=runs/x/models/d128-s0/step-000300", "d128-s0", 300),
        ("pretrained=/home/me/runs/d128-s0/step-000300/", "d128-s0", 300),
        ("pretrained=out/m1/checkpoint-500", "m1", 500),
        ("pretrained=x/d128-s0,revision=step-000300", "x/d128-s0", 300),
        ("pretrained=x/y,revision=step_300", "x/y", 300),
        ("pretrained=lab/olmo,revision=stage1-step1000-tokens4B", "lab/olmo", 1000),
        ("pretrained=lab/pythia-70m-step1000", "pythia-70m", 1000),
        # the revision is asked before the folder
        ("pretrained=out/m1/checkpoint-500,revision=step7", "out/m1/checkpoint-500", 7),
        ("pretrained=lab/gpt2,revision=main", "lab/gpt2", None),
        ("step-000300", None, None),
        ("", None, None),
        (None, None, None),
        ('pretrained=runs/a,b/m/step-3,max_memory={"0":"1GB","1":"2GB"},dtype=bfloat16', "m", 3),
        ("pretrained='lab/m', revision=step3", "lab/m", 3),
        ('{"pretrained": "lab/m", "revision": "step3"}', "lab/m", 3),
        ({"pretrained": "lab/m", "revision": "step3", "dtype": None}, "lab/m", 3),
    ],
)
def test_models_and_steps_in_every_spelling(args, model, step):
    [row] = from_lm_eval(of(args), tokens_per_step=1000)
    assert (row["model"], row["step"]) == (model, step)
    assert row["tokens"] == (None if step is None else 1000 * step)


def test_tokens_are_those_of_the_name_where_nothing_else_counts_them():
    args = "pretrained=lab/olmo,revision=stage1-step1000-tokens4B"
    assert from_lm_eval(of(args))[0]["tokens"] == 4_000_000_000
    assert from_lm_eval(of(args), tokens_per_step=1)[0]["tokens"] == 1000
    [row] = from_lm_eval(of("pretrained=x,revision=step9"), tokens_per_step=2**62)
    assert row["tokens"] is None  # no 64 bits hold them


def test_a_revision_may_stand_beside_the_arguments():
    config = {"model_args": "pretrained=lab/m", "model_revision": "step3"}
    [row] = from_lm_eval(of(None, config=config))
    assert (row["model"], row["step"]) == ("lab/m", 3)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), "N/A", None, [0.5], {"x": 0.5}, True, 10**400],
    ids=["nan", "inf", "-inf", "text", "null", "list", "nested", "bool", "huge"],
)
def test_values_that_are_no_numbers_are_unknown_and_told(value):
    scores = {"ppl,none": value, "acc,none": 0.5, "acc_stderr,none": value, "alias": "w", " ": " "}
    acc, ppl = from_lm_eval(of("pretrained=m,revision=step1", scores=scores))
    assert (acc["value"], acc["stderr"], acc["problem"]) == (0.5, None, "")
    assert ppl["value"] is None and "no finite number" in ppl["problem"]
    assert len(ppl["problem"]) < 120
    [row] = from_pythia([PYTHIA_ROW | {"value": value}])
    assert row["value"] is None and "no finite number" in row["problem"]


PYTHIA_ROW = {
    "model": "pythia-70m", "fewshot": "zero-shot", "step": 1000, "task": "piqa", "metric": "acc",
    "value": 0.5, "stderr": 0.01,
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (1000.0, 1000),
        ("step1000", 1000),
        (None, None),
        (-1, None),
        (float("nan"), None),
        (0.5, None),
    ],
)
def test_steps_of_tables_in_every_type(step, found):
    [row] = from_pythia([PYTHIA_ROW | {"step": step}])
    assert row["step"] == found
    assert row["tokens"] == (None if found is None else found * 2_097_152)


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ({"scores": {}}, "results: got keys"),
        ({"results": None}, "results: got None, allowed: an object"),
        ({"results": [1]}, r"results: got \[1\]"),
        ({"results": {"piqa": None}}, r"results\.piqa: got None, allowed: metrics by name"),
        ({"results": {"piqa": 0.5}}, r"results\.piqa: got 0.5"),
        ({"results": {"piqa": {}}, "config": [1]}, r"config: got \[1\]"),
        (of(["pretrained=x"]), r"config\.model_args: got \['pretrained=x'\]"),
        (of(3), r"config\.model_args: got 3"),
        (of("{broken"), r"config\.model_args: got '\{broken'"),
    ],
)
def test_other_files_are_refused(results, text):
    with pytest.raises(ValueError, match=text):
        from_lm_eval(results)


def test_tables_without_what_was_asked_are_refused():
    with pytest.raises(ValueError, match=r"fewshot: got 'one-shot', the table has \['zero-shot'\]"):
        from_pythia([PYTHIA_ROW], fewshot="one-shot")
    with pytest.raises(ValueError, match="model: got None, allowed pythia"):
        from_pythia([PYTHIA_ROW | {"model": None}])


@pytest.mark.parametrize("count", ["N/A", float("nan"), -1, 1.5, True, 2**64])
def test_parameters_that_are_no_count_are_unknown(count):
    config = {"model_args": "pretrained=m", "model_num_parameters": count}
    [row] = from_lm_eval(of(None, config=config))
    assert row["n_params"] is None


@pytest.mark.parametrize("value", [60.0, -0.1, 1.0001, 2])
def test_a_share_of_right_answers_is_one(value):
    given = {"results": {"piqa": {"acc,none": value, "acc_stderr,none": 0.01, "ppl": value}}}
    rows = {row["metric"]: row for row in from_lm_eval(given)}
    assert rows["acc"]["value"] is None and "allowed: a share in 0..1" in rows["acc"]["problem"]
    assert rows["ppl"]["value"] == value
    table = {"model": "pythia-70m", "fewshot": "zero-shot", "step": 1, "task": "piqa"}
    (row,) = from_pythia([table | {"metric": "acc", "value": value, "stderr": None}])
    assert row["value"] is None


@pytest.mark.parametrize("results", [{}, {"piqa": {}}, {"mmlu": {"alias": "mmlu"}}])
def test_a_file_without_a_value_has_no_rows_and_the_run_says_so(tmp_path, results):
    file = tmp_path / "r.json"
    file.write_text(json.dumps({"results": results}))
    config = load_run_config({
        "name": "x", "models": [{"path": "m"}], "capabilities": [{"file": str(file)}],
        "invariants": ["weights.weight_tail"],
    })  # fmt: skip
    nothing = Plan("x", Protocol(), (), (), {}, ())
    said = "evaluations: the files of capabilities hold no values"
    assert notes_of(config, nothing) == (said,)
