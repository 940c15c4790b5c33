"""Configurations, initialisation and the coordinate check of muP."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from scaleinv_ray.ladder.architectures import build_model, rate_factor, role_of
from scaleinv_ray.ladder.spec import OptimizerSpec, Rung, TrainSpec, rungs
from scaleinv_ray.ladder.tokenizer import VOCAB_SIZE

ARCHITECTURES = ["gpt_neox", "gpt2", "llama", "granite", "attention_only"]


def ladder(architecture: str, base_width: int | None = None, lr: float = 1e-3) -> TrainSpec:
    return TrainSpec(
        name="x",
        architecture=architecture,
        widths=(32, 64, 128, 256),
        depth=2,
        length=32,
        optimizer=OptimizerSpec(lr=lr, schedule="constant", base_width=base_width),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_have_the_asked_shape_and_are_seeded(architecture: str) -> None:
    spec = ladder(architecture)
    rung = Rung(width=64, depth=2, seed=3)
    torch.manual_seed(0)
    first = build_model(spec, rung)
    torch.manual_seed(1)
    second = build_model(spec, rung)
    other = build_model(spec, replace(rung, seed=4))
    assert first.config.hidden_size == 64
    assert first.config.num_hidden_layers == 2
    assert first.config.num_attention_heads == 4
    assert first.get_input_embeddings().weight.shape == (VOCAB_SIZE, 64)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    embedding = first.get_input_embeddings().weight
    assert not torch.equal(embedding, other.get_input_embeddings().weight)


def stds(architecture: str, width: int) -> dict[str, float]:
    """Standard deviation of every matrix at step 0, by its name without the block."""
    model = build_model(ladder(architecture, base_width=32), Rung(width, 2, 0))
    return {
        n.removesuffix(".weight"): float(p.detach().std())
        for n, p in model.named_parameters()
        if p.ndim >= 2 and ".1." not in n
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scale_of_initialisation_is_that_of_hidden_matrices(architecture: str) -> None:
    rung = Rung(width=32, depth=2, seed=0)
    drawn = build_model(ladder(architecture), rung)
    scaled = dict(
        build_model(replace(ladder(architecture), init_scale=3.0), rung).named_parameters()
    )
    for name, parameter in drawn.named_parameters():
        factor = 3.0 if role_of(name, parameter) == "hidden" else 1.0
        assert torch.allclose(factor * parameter, scaled[name])


def test_initialisation_of_gpt_neox_is_that_of_pythia() -> None:
    for name, std in stds("gpt_neox", 128).items():
        residual = name.endswith(("attention.dense", "dense_4h_to_h"))
        expected = 2 / (2 * math.sqrt(128)) if residual else math.sqrt(2 / (5 * 128))
        assert std == pytest.approx(expected, rel=0.03), name  # >= 16384 entries: stderr 0.6 %


def test_initialisation_of_gpt2_scales_the_residual_projections() -> None:
    for name, std in stds("gpt2", 128).items():
        expected = 0.02 / math.sqrt(4) if name.endswith("c_proj") else 0.02
        assert std == pytest.approx(expected, rel=0.04), name


def test_initialisation_of_mup_is_one_over_fan_in_inside_and_constant_outside() -> None:
    model = build_model(ladder("granite", base_width=32), Rung(128, 2, 0))
    for name, p in model.named_parameters():
        if p.ndim < 2:
            continue
        inside = role_of(name, p) == "hidden"
        expected = 1 / math.sqrt(p.shape[1]) if inside else 0.02
        assert float(p.detach().std()) == pytest.approx(expected, rel=0.03), name
    assert model.config.logits_scaling == 4.0
    assert model.config.attention_multiplier == 1 / 16


def test_attention_only_keeps_norms_and_has_no_mlp() -> None:
    for name, std in stds("attention_only", 128).items():
        assert std == pytest.approx(1 / math.sqrt(128), rel=0.03), name  # >= 16384 entries
    model = build_model(ladder("attention_only"), Rung(64, 2, 0))
    norms = 3 * 2 * 64
    assert sum(p.numel() for p in model.parameters()) == 2 * VOCAB_SIZE * 64 + 8 * 64**2 + norms


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_has_a_role(architecture: str) -> None:
    model = build_model(ladder(architecture), Rung(32, 2, 0))
    roles = [role_of(n, p) for n, p in model.named_parameters()]
    assert roles.count("embedding") == (2 if architecture == "gpt2" else 1)
    assert roles.count("unembedding") == (0 if architecture == "gpt2" else 1)  # tied
    assert set(roles) >= {"hidden", "vector"}


def test_rates_follow_the_parametrisation() -> None:
    rung = Rung(128, 2, 0)
    assert rate_factor(ladder("llama"), rung, "hidden") == 1.0
    assert rate_factor(ladder("llama", base_width=32), rung, "embedding") == 0.25
    mup = ladder("granite", base_width=32)
    assert rate_factor(mup, rung, "hidden") == 0.25
    assert rate_factor(mup, rung, "embedding") == 1.0
    assert rate_factor(mup, rung, "unembedding") == 1.0
    sgd = replace(mup, optimizer=replace(mup.optimizer, name="sgd"))
    assert rate_factor(sgd, rung, "hidden") == 1.0
    assert rate_factor(sgd, rung, "vector") == 4.0
    assert rate_factor(ladder("granite"), Rung(32, 2, 0), "hidden") == 1.0  # smallest width


def change_after_training(spec: TrainSpec, rung: Rung) -> tuple[float, float]:
    """Root mean square change, over five steps, of the residual stream and of the logits."""
    model = build_model(spec, rung)
    ids = torch.randint(0, 256, (4, 33), generator=torch.Generator().manual_seed(rung.seed))
    groups = [
        {"params": [p], "lr": spec.optimizer.lr * rate_factor(spec, rung, role_of(n, p))}
        for n, p in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def outputs() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            out = model(ids[:, :-1], output_hidden_states=True)
        return out.hidden_states[1], out.logits  # after the first block; the last is normed

    before = outputs()
    for _ in range(5):
        loss = cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hidden, logits = (
        float((after - start).square().mean().sqrt())
        for after, start in zip(outputs(), before, strict=True)
    )
    return hidden, logits


def width_exponents(spec: TrainSpec) -> np.ndarray:
    """Slopes of ln(change) over ln(width), for hidden states and logits."""
    changes = [change_after_training(spec, rung) for rung in rungs(spec)]
    return np.polyfit(np.log(spec.widths), np.log(np.array(changes)), 1)[0]


def test_coordinate_check_of_mup() -> None:
    """Changes do not grow with the width (Yang et al. 2022, appendix D.1).

    Measured over three learning rates and two seeds: residual -0.02..0.03, logits -0.35..-0.09
    (the initial unembedding's share of the change falls as width^-1/2).
    """
    residual, logits = width_exponents(ladder("granite", base_width=32, lr=3e-3))
    assert abs(residual) < 0.1
    assert -0.5 < logits < 0.05


def test_the_coordinate_check_can_fail() -> None:
    """Adam at one rate in the standard parametrisation: measured 1.1..3.0 and 0.87..0.98."""
    residual, logits = width_exponents(ladder("llama", lr=3e-3))
    assert residual > 0.5
    assert logits > 0.5
