"""Curvature and chains of language models: what they are of, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers as tf

from scaleinv_ray.capture.curvature.products import hessian_products, language_loss
from scaleinv_ray.capture.posterior.language_models import model_chains, model_curvature
from scaleinv_ray.protocols import CurvatureProtocol, SamplingProtocol

CURVATURE = CurvatureProtocol(sequences=8, batch=4, num_steps=6, num_probes=3, sketch=16)
SAMPLING = SamplingProtocol(
    sequences=8, batch=4, chains=2, draws=4, burn_in=1, nbetas=(30.0,), localisers=(1.0,)
)


def test_curvature_is_that_of_the_first_sequences(
    model: Callable[[str], tf.PreTrainedModel], tokens_ST: np.ndarray
) -> None:
    net = model("gpt2")
    (record,) = model_curvature(net, tokens_ST, CURVATURE, "hessian", seed=3)
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    products = hessian_products(
        language_loss(net), parameters, [torch.from_numpy(tokens_ST[:8]).long()]
    )
    start_RP = torch.randn(
        3, record.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).float()
    start_RP /= start_RP.norm(dim=1, keepdim=True)
    mean_R = (products(start_RP) * start_RP).sum(dim=1)
    found_R = (record.nodes_RK * record.weights_RK).sum(axis=1)
    np.testing.assert_allclose(found_R, mean_R, rtol=1e-3, atol=1e-5)
    assert record.site == "model" and record.num_layers == 2


def test_the_own_probe_is_observed_as_it_is_sampled_from(
    model: Callable[[str], tf.PreTrainedModel], tokens_ST: np.ndarray
) -> None:
    """Other tokens by the same name, as the original order of a shuffled probe, are not its own."""
    other = tokens_ST[::-1]
    made = [
        next(
            model_chains(
                model("llama"), tokens_ST, SAMPLING, seed=1, observed=observed,
                labels={"probe": "prose"},
            )
        )
        for observed in ({"other": other}, {"other": other, "prose": (tokens_ST + 1) % 50})
    ]  # fmt: skip
    assert [c.observed for c in made] == ["prose,other", "prose,other"]
    np.testing.assert_array_equal(made[0].observed_QNCS, made[1].observed_QNCS)


def test_other_probes_are_checked_too(
    model: Callable[[str], tf.PreTrainedModel], tokens_ST: np.ndarray
) -> None:
    outside = {"other": tokens_ST + 50}
    with pytest.raises(ValueError, match=r"allowed 0\.\.49"):
        next(model_chains(model("gpt2"), tokens_ST, SAMPLING, seed=0, observed=outside))


@pytest.mark.parametrize("make", [model_curvature, model_chains])
def test_refused_models_and_tokens(
    make: Callable, model: Callable[[str], tf.PreTrainedModel], tokens_ST: np.ndarray
) -> None:
    asked = (CURVATURE, "hessian") if make is model_curvature else (SAMPLING,)
    for name, tokens, said in (
        ("bert", tokens_ST, "not causal"),
        ("gpt2", tokens_ST + 50, r"allowed 0\.\.49"),
        ("gpt2", tokens_ST[:7], r"allowed 1\.\.7"),
    ):
        with pytest.raises(ValueError, match=said):
            next(make(model(name), tokens, *asked, seed=0))
