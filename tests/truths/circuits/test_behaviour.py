"""Capabilities of predictors whose losses are known in closed form."""

import math

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.behaviour import capabilities, masked_prediction
from scaleinv_ray.probes import build_tokens
from scaleinv_ray.records import MaskedLosses, TokenLosses

LENGTH, SEQUENCES, VOCABULARY = 64, 50, 257


def measured(loss_ST: np.ndarray, probe: str) -> dict[str, Estimate | Refused]:
    record = TokenLosses(loss_ST=loss_ST, probe=probe)
    return dict(capabilities(record, rng=np.random.default_rng(0)).values)


def tokens(probe: str) -> np.ndarray:
    return build_tokens(
        probe, lambda text: list(text.encode()), sequences=SEQUENCES, length=LENGTH,
        vocab_size=VOCABULARY, corpus=None, rng=np.random.default_rng(0),
    )  # fmt: skip


def test_a_perfect_copier_gains_the_entropy_of_a_token() -> None:
    token_ST = tokens("induction")
    loss_ST = np.full((SEQUENCES, LENGTH - 1), math.log(VOCABULARY))
    for s, t in np.ndindex(loss_ST.shape):  # token t + 1 follows the last place where token t stood
        earlier = [i for i in range(t) if token_ST[s, i] == token_ST[s, t]]
        if t >= LENGTH // 2 and earlier and token_ST[s, earlier[0] + 1] == token_ST[s, t + 1]:
            loss_ST[s, t] = 0.0
    got = measured(loss_ST, "induction")["copying_gain"]
    assert isinstance(got, Estimate)
    # a token that stood twice in the first half leaves a few losses above 0
    assert got.value == pytest.approx(math.log(VOCABULARY), rel=0.15)
    assert got.value < math.log(VOCABULARY)


def test_a_perfect_stack_closes_for_nothing() -> None:
    token_ST = tokens("brackets")
    opening = set(b"([{")
    loss_ST = np.array([
        [math.log(3) if t in opening else 0.0 for t in row[1:]] for row in token_ST
    ])
    found = measured(loss_ST, "brackets")
    got = found["closing_gain"]
    assert isinstance(got, Estimate)
    assert got.value == pytest.approx(math.log(3), abs=1e-12)
    assert got.stderr == pytest.approx(0, abs=1e-12)
    assert isinstance(found["copying_gain"], Refused)


def test_a_predictor_without_memory_gains_nothing() -> None:
    rng = np.random.default_rng(1)
    loss_ST = rng.exponential(2.0, size=(400, LENGTH - 1))
    for probe, name in (("induction", "copying_gain"), ("prose", "in_context_gain")):
        got = measured(loss_ST, probe)[name]
        assert isinstance(got, Estimate) and got.stderr is not None
        assert abs(got.value) < 4 * got.stderr


def test_a_loss_that_falls_with_context() -> None:
    loss_ST = np.tile(3.0 - np.log(np.arange(1, LENGTH)), (4, 1))
    got = measured(loss_ST, "prose")["in_context_gain"]
    early, late = np.log(np.arange(8, 15)).mean(), np.log(np.arange(LENGTH - 7, LENGTH)).mean()
    assert isinstance(got, Estimate)
    assert got.value == pytest.approx(late - early)


def test_brackets_are_balanced() -> None:
    closes = {ord("("): ord(")"), ord("["): ord("]"), ord("{"): ord("}")}
    for row in tokens("brackets").tolist():
        stack: list[int] = []
        for token in row:
            if token in closes:
                stack.append(closes[token])
            else:
                assert stack.pop() == token
        assert not stack


@pytest.mark.parametrize("shape", [(1, 63), (8, 5)])
def test_too_little_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="loss_ST: got"):
        measured(np.ones(shape), "prose")


def test_brackets_that_are_no_single_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="tokenizer: got several tokens"):
        build_tokens(
            "brackets", lambda text: [1, 2], sequences=2, length=16, vocab_size=5, corpus=None,
            rng=np.random.default_rng(0),
        )  # fmt: skip


def test_hidden_tokens_of_a_model_that_knows_nothing_cost_the_entropy() -> None:
    """Uniform over V tokens: ln V at every position, without error; and a mean with a known one."""
    rng = np.random.default_rng(0)
    position_SM = np.sort(rng.integers(64, size=(50, 10)), axis=1)
    blind = MaskedLosses(loss_SM=np.full((50, 10), np.log(33)), position_SM=position_SM)
    found = masked_prediction(blind, rng=rng).values["masked_loss"]
    assert found.value == pytest.approx(np.log(33)) and found.stderr == pytest.approx(0, abs=1e-12)
    loss_SM = np.repeat([[1.0], [3.0]], 25, axis=0) * np.ones(10)
    found = masked_prediction(
        MaskedLosses(loss_SM=loss_SM, position_SM=position_SM), rng=rng
    ).values["masked_loss"]
    assert found.value == 2.0
    assert found.stderr == pytest.approx(np.sqrt(50 / 49 / 50)), "sequences are the replicates"
    one = MaskedLosses(loss_SM=loss_SM[:1], position_SM=position_SM[:1])
    with pytest.raises(Refused, match="two sequences or more"):
        masked_prediction(one, rng=rng)
