"""Evaluations in the layouts in which they are published."""

import pytest

from scaleinv_ray.series import from_lm_eval, from_pythia
from scaleinv_ray.series.evaluations import PYTHIA_PARAMS, chance_of

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


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="results: got keys"):
        from_lm_eval({"scores": {}})
