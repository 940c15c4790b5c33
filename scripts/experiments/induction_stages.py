"""From n-grams to induction: stages of a two-layer attention-only model, seen from its degeneracy.

The model learns prose of the embedded corpus (python-stdlib, bytes) and random sequences that are
repeated with a period of their own; first how often bytes are, then which follow which, then to
copy what followed before (arXiv:2402.02364). At every checkpoint of every seed:
- learning coefficient: one setting, the same everywhere, so that numbers compare; a checkpoint that
  is no minimum for the sampler has none and says so;
- largest eigenvalue and trace of Hessian and Gauss-Newton operator (`curvature` of the records);
- divergence from the unigram and the bigram statistics of the training text, on held-out text;
- share of repeated tokens copied right; the largest attention, over heads, to the token before
  (previous token) and to the one after the last occurrence of the present one (prefix matching).
Stages are the transitions of each quantity (`conservation.transitions`). One agrees with induction
in a seed where its interval meets that of the onset of the prefix-matching score
(`conservation.onsets`); over the seeds it agrees where it does so in all of them and intervals of
these widths thrown anywhere on the axis would by a chance of 5 % at most. Everything else is
undetermined. Controls: the untrained twin (step 0 of every seed) and a model trained on the same
sequences, each in random order. As expected is: every seed copies, neither control does, and the
n-grams come first.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from _experiment import Net, Outcome, Row, in_processes, main, value, write_net
from plotly.subplots import make_subplots
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from scaleinv_ray.attention_only import modeling
from scaleinv_ray.attention_only.configuration import AttentionOnlyConfig
from scaleinv_ray.capture.attention import eager_attention
from scaleinv_ray.capture.curvature import curvature_records, language_loss
from scaleinv_ray.capture.sampling import chain_records, language_losses
from scaleinv_ray.conservation.onsets import Onset, OnsetFinder
from scaleinv_ray.conservation.transitions import Kind, Transition, TransitionFinder
from scaleinv_ray.invariants.curvature import ggn_density, hessian_density
from scaleinv_ray.invariants.degeneracy import learning_coefficient
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.data import evaluation_set, token_stream, training_batch
from scaleinv_ray.ladder.folders import step_folder
from scaleinv_ray.ladder.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE, byte_tokenizer
from scaleinv_ray.probes import load_corpus
from scaleinv_ray.records import Record

assert modeling
RANDOM_IDS = 32
"""Repeated sequences are of the first ids: control characters, which prose hardly has."""
SMOOTHING = 0.1
SPECTRAL = ("llc", "hessian_max", "hessian_mean", "ggn_max", "ggn_mean")
LEVEL = 0.05


@dataclass(frozen=True)
class Plan:
    """How large everything is."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (0, 20, 50, 100, 150, 200, 250, 300, 350, 400, 500, 600, 800)
    width: int = 64
    heads: int = 4
    length: int = 48
    periods: tuple[int, int] = (8, 16)
    batch: int = 24
    rate: float = 4e-3
    evaluated: int = 64
    sampled: int = 256
    chains: tuple[int, int, int, int] = (2, 100, 50, 8)
    """Chains, draws, burn-in, sequences in a batch."""
    nbeta: float = 300.0
    curved: int = 16
    lanczos: tuple[int, int] = (12, 2)
    """Steps, probe vectors."""


QUICK = Plan(
    seeds=(0,), steps=(0, 8, 64), width=16, heads=2, length=24, periods=(4, 8), batch=8,
    evaluated=16, sampled=32, chains=(2, 20, 10, 4), curved=4, lanczos=(4, 2),
)  # fmt: skip


def repeated(plan: Plan, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences and the period of each, [S, T] and [S, 1]."""
    low, high = plan.periods
    block_ST = rng.integers(RANDOM_IDS, size=(count, plan.length))
    period_S1 = rng.integers(low, high + 1, size=(count, 1))
    return np.take_along_axis(block_ST, np.arange(plan.length)[None] % period_S1, 1), period_S1


def mixture(
    plan: Plan, streams: Mapping[str, np.ndarray], count: int, *, seed: int, step: int,
    shuffled: bool,
) -> torch.Tensor:  # fmt: skip
    """A quarter prose, the rest repeated; each row in random order where shuffled."""
    prose_ST = training_batch(
        streams, batch=count // 4, length=plan.length - 1, seed=seed, step=step
    )
    rng = np.random.default_rng((seed, step, 1))
    rows_ST = np.concatenate([prose_ST, repeated(plan, count - count // 4, rng)[0]])
    return torch.from_numpy(rng.permuted(rows_ST, axis=1) if shuffled else rows_ST)


def ngrams(prose_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed probabilities of bytes [V], and given the one before [V, V]."""
    ids_T = prose_T.astype(np.int64)
    pairs = np.bincount(ids_T[:-1] * VOCAB_SIZE + ids_T[1:], minlength=VOCAB_SIZE**2)
    unigram_V = np.bincount(ids_T, minlength=VOCAB_SIZE) + SMOOTHING
    unigram_V = unigram_V / unigram_V.sum()
    # rare contexts fall back to the unigram
    bigram_VV = pairs.reshape(VOCAB_SIZE, VOCAB_SIZE) + SMOOTHING * VOCAB_SIZE * unigram_V
    return unigram_V, bigram_VV / bigram_VV.sum(axis=1, keepdims=True)


class Behaviour:
    """What a model does, on sequences that are fixed."""

    def __init__(self, plan: Plan, streams: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self._plan = plan
        held_out = evaluation_set({"prose": streams["held_out"]["prose"]}, length=plan.length - 1)
        self._prose_ST = torch.from_numpy(held_out["prose"][: plan.evaluated])
        rows_ST, period_S1 = repeated(plan, plan.evaluated, np.random.default_rng(123))
        self._rows_ST, self._period_S1 = torch.from_numpy(rows_ST), torch.from_numpy(period_S1)
        self._ngrams = [torch.from_numpy(p) for p in ngrams(streams["train"]["prose"])]

    def of(self, model: PreTrainedModel) -> Row:
        """All figures of a model in eval mode."""
        with torch.no_grad():
            return self._divergences(model) | self._copying(model) | self._heads(model)

    def _divergences(self, model: PreTrainedModel) -> Row:
        logits_STV = model(self._prose_ST, use_cache=False).logits[:, :-1]
        logq_STV = logits_STV.double().log_softmax(dim=-1)
        unigram_V, bigram_VV = self._ngrams
        truth = self._prose_ST[:, 1:]
        expected = {"unigram": unigram_V, "bigram": bigram_VV[self._prose_ST[:, :-1]]}
        found = {
            f"kl_{name}": float((p * (p.log() - logq_STV)).sum(dim=-1).mean())
            for name, p in expected.items()
        }
        return found | {"loss_prose": float(-logq_STV.gather(2, truth[..., None]).mean())}

    def _copying(self, model: PreTrainedModel) -> Row:
        logits = model(self._rows_ST, use_cache=False).logits[:, :-1]
        truth = self._rows_ST[:, 1:]
        loss_ST = cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
        loss_ST = loss_ST.view(truth.shape)
        # the first token of a second period follows nothing: what precedes it stood nowhere before
        again_ST = torch.arange(truth.shape[1])[None] >= self._period_S1
        return {
            "loss_first": float(loss_ST[~again_ST].mean()),
            "loss_again": float(loss_ST[again_ST].mean()),
            "copying": float((logits.argmax(dim=-1) == truth)[again_ST].double().mean()),
        }

    def _heads(self, model: PreTrainedModel) -> Row:
        with eager_attention(model):
            patterns = model(self._rows_ST, use_cache=False, output_attentions=True).attentions
        a_SHTT = torch.cat(patterns, dim=1)
        length = a_SHTT.shape[-1]
        at_T = torch.arange(length)
        before = a_SHTT[:, :, at_T[1:], at_T[:-1]].mean(dim=(0, 2))
        after_ST = (at_T[None] - self._period_S1 + 1).clamp(min=0)
        to_after_SHT = a_SHTT.gather(
            3, after_ST[:, None, :, None].expand(-1, a_SHTT.shape[1], -1, 1)
        )[..., 0]
        again_ST = (at_T[None] >= self._period_S1).double()
        matching = (to_after_SHT * again_ST[:, None]).sum(dim=(0, 2)) / again_ST.sum()
        return {"previous_token": float(before.max()), "prefix_matching": float(matching.max())}


def spectra(
    plan: Plan, model: PreTrainedModel, rows_ST: torch.Tensor
) -> tuple[Row, list[tuple[str, str, list[Record]]]]:
    """Learning coefficient and curvatures on the training mixture, and their records."""
    parameters = dict(model.named_parameters())
    labels = {"num_layers": model.config.num_hidden_layers}
    chains, draws, burn_in, batch = plan.chains
    (sampled,) = chain_records(
        language_losses(model), parameters, rows_ST, generator=torch.Generator().manual_seed(0),
        nbetas=[plan.nbeta], gamma_factors=(1.0,), num_chains=chains, num_dispersed=0,
        num_steps=draws, burn_in=burn_in, batch_size=batch, labels={"site": "model", **labels},
    )  # fmt: skip
    measured = learning_coefficient(sampled, rng=np.random.default_rng(0))
    llc, stderr = value(measured, "lambda_hat_t")
    found: dict[str, Any] = {
        "llc": llc, "llc_stderr": stderr, "llc_verdict": str(measured.flags["verdict"]),
        "llc_reasons": str(measured.flags["reasons"]),
        "lowest": sampled.lowest_curvature,
    }  # fmt: skip
    kept: list[tuple[str, str, list[Record]]] = [("chains", "mixture", [sampled])]
    steps, probes = plan.lanczos
    every_ST = rows_ST[:: len(rows_ST) // plan.curved]  # mixed as the whole
    for operator, density in (("hessian", hessian_density), ("ggn", ggn_density)):
        (lanczos,) = curvature_records(
            language_loss(model), parameters, [every_ST],
            operator=operator, num_steps=steps, num_probes=probes,
            generator=torch.Generator().manual_seed(0), labels={"site": "model", **labels},
        )  # fmt: skip
        curved = density(lanczos, rng=np.random.default_rng(0))
        found[f"{operator}_max"] = value(curved, "lambda_max")[0]
        found[f"{operator}_mean"] = float((lanczos.nodes_RK * lanczos.weights_RK).sum(1).mean())
        kept.append((operator, "mixture", [lanczos]))
    return found, kept


def run(plan: Plan, seed: int, shuffled: bool, folder: Path) -> list[Row]:
    """Trains one model; rows of its checkpoints, whose folders and records are kept."""
    corpus = load_corpus("python-stdlib")
    streams = {side: token_stream(corpus, side) for side in ("train", "held_out")}
    prose = {"prose": streams["train"]["prose"]}
    behaviour = Behaviour(plan, streams)
    model = built(plan, seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    name = f"{'shuffled' if shuffled else 'induction'}-s{seed}"
    fixed_ST = mixture(plan, prose, plan.sampled, seed=10_000, step=0, shuffled=shuffled)
    rows: list[Row] = []
    kept: dict[int, list] = {}
    for step in range(max(plan.steps) + 1):
        if step in plan.steps:
            model.eval()
            figures, kept[step] = spectra(plan, model, fixed_ST)
            rows.append({
                "model": name,
                "seed": seed,
                "step": step,
                **behaviour.of(model),
                **figures,
            })
            save(folder / "models" / name, model, plan, rows[-1])
            model.train()
        ids_ST = mixture(plan, prose, plan.batch, seed=seed, step=step, shuffled=shuffled)
        logits = model(ids_ST, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), ids_ST[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    num_params = sum(p.numel() for p in model.parameters())
    facts = {
        r["step"]: {"train_tokens": r["step"] * plan.batch * plan.length,
                    "eval_loss": r["loss_prose"]}
        for r in rows
    }  # fmt: skip
    write_net(folder / "records", Net(name, seed, num_params, 2, plan.width), kept, facts=facts)
    return rows


def built(plan: Plan, seed: int) -> PreTrainedModel:
    config = AttentionOnlyConfig(
        vocab_size=VOCAB_SIZE, hidden_size=plan.width, num_attention_heads=plan.heads,
        max_position_embeddings=plan.length, initializer_range=1 / math.sqrt(plan.width),
        bos_token_id=END_OF_TEXT_ID, eos_token_id=END_OF_TEXT_ID,
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def save(folder: Path, model: PreTrainedModel, plan: Plan, row: Row) -> None:
    """A checkpoint that `{path: ...}` of a config reads; an earlier run's stays."""
    target = step_folder(folder, row["step"])
    if target.exists():
        return
    training = {
        "step": row["step"], "seed": row["seed"], "eval_loss": row["loss_prose"],
        "train_tokens": row["step"] * plan.batch * plan.length,
    }  # fmt: skip
    write_checkpoint(target, model, byte_tokenizer(), training)


@dataclass(frozen=True)
class Stage:
    """Transitions of a quantity in a run, and whether one meets the onset of induction.

    Attributes:
        quantity: name.
        found: the transitions that there are.
        meets: whether one does; None without an onset or without enough checkpoints.
        chance: that as many intervals as wide do, thrown anywhere.
        reason: where there is none.
    """

    quantity: str
    found: tuple[Transition, ...]
    meets: bool | None
    chance: float
    reason: str = ""


def stage(
    rows: Sequence[Row], quantity: str, onset: Onset | str, finder: TransitionFinder
) -> Stage:
    """The stage of one quantity of one run, over x = ln(1 + step)."""
    pairs = [(r["step"], r[quantity]) for r in rows if r[quantity] is not None]
    values = np.array([v for _, v in pairs])
    if quantity in SPECTRAL and (values > 0).all():
        values = np.log(values)
    listed = finder.find([s for s, _ in pairs], values.tolist())
    found = tuple(t for t in listed if t.kind in {Kind.BREAK, Kind.JUMP})
    if not found or isinstance(onset, str):
        undetermined = isinstance(onset, str) or listed[0].kind is Kind.UNDETERMINED
        return Stage(quantity, found, None if undetermined else False, 1.0, listed[0].reason)
    axis = math.log1p(max(r["step"] for r in rows))
    low, high = math.exp(onset.low), math.exp(onset.high)
    meets = any(t.step_low <= high and t.step_high >= low for t in found)  # type: ignore[operator]
    miss = 1.0
    for t in found:
        widths = math.log1p(t.step_high or 0) - math.log1p(t.step_low or 0)
        miss *= 1 - min(1.0, (widths + math.log1p(high) - math.log1p(low)) / axis)
    return Stage(quantity, found, meets, 1 - miss)


def agreement(stages: Sequence[Stage]) -> dict[str, Any]:
    """Over the seeds: agrees, or undetermined with the reason."""
    meets, chance = [s.meets for s in stages], math.prod(s.chance for s in stages)
    if all(meets) and chance <= LEVEL:
        verdict = "agrees"
    elif all(meets):
        verdict = f"undetermined: intervals as wide would by a chance of {chance:.2g}"
    else:
        verdict = (
            f"undetermined: meets the onset in {sum(m is True for m in meets)} of {len(meets)}"
        )
    where = [[(t.step_low, t.step_high) for t in s.found] for s in stages]
    return {"verdict": verdict, "chance": chance, "intervals": where}


def figure(rows: Sequence[Row], onsets: Mapping[str, Onset | str]) -> go.Figure:
    """Degeneracy, n-grams and copying over training, the onset shaded."""
    panels = (("llc",), ("ggn_max", "hessian_max"), ("kl_unigram", "kl_bigram"),
              ("copying", "prefix_matching", "previous_token"))  # fmt: skip
    names = list(dict.fromkeys(r["model"] for r in rows))
    drawn = make_subplots(len(panels), len(names), shared_xaxes=True, column_titles=names)
    for column, name in enumerate(names, start=1):
        own = [r for r in rows if r["model"] == name]
        for line, quantities in enumerate(panels, start=1):
            for quantity in quantities:
                shown = [r for r in own if r[quantity] is not None]
                drawn.add_scatter(
                    x=[1 + r["step"] for r in shown], y=[r[quantity] for r in shown],
                    name=quantity, row=line, col=column, showlegend=column == 1,
                    mode="lines+markers",
                )  # fmt: skip
            onset = onsets[name]
            if isinstance(onset, Onset):
                drawn.add_vrect(x0=1 + math.exp(onset.low), x1=1 + math.exp(onset.high),
                                opacity=0.15, fillcolor="grey", row=line, col=column)  # fmt: skip
    drawn.update_xaxes(type="log")
    return drawn.update_layout(height=1000, title="1 + step; grey: onset of prefix matching")


def experiment(folder: Path, quick: bool, workers: int) -> Outcome:
    """All seeds and the control."""
    plan = QUICK if quick else Plan()
    runs = [(plan, seed, False, folder) for seed in plan.seeds]
    found = in_processes(run, [*runs, (plan, plan.seeds[0], True, folder)], workers)
    seeds, control = found[:-1], found[-1]
    (folder / "rows.json").write_text(json.dumps([r for rows in found for r in rows], indent=1))
    onset_finder = OnsetFinder(np.random.default_rng(0))
    onsets = {
        rows[0]["model"]: onset_finder.find(
            [r["step"] for r in rows], [r["prefix_matching"] for r in rows]
        )
        for rows in found
    }
    finder = TransitionFinder(np.random.default_rng(0))
    table = {
        quantity: agreement([
            stage(rows, quantity, onsets[rows[0]["model"]], finder) for rows in seeds
        ])
        for quantity in (*SPECTRAL, "kl_bigram", "previous_token", "copying")
    }
    summary = summarised(seeds, control, onsets, quick) | {
        "agreement": {q: a["verdict"] for q, a in table.items()},
        "chance": {q: a["chance"] for q, a in table.items()},
        "transitions": {q: a["intervals"] for q, a in table.items()},
    }
    shown = [{k: v for k, v in r.items() if k not in {"llc_reasons", "seed", "lowest"}}
             for rows in found for r in rows]  # fmt: skip
    drawn = figure([r for rows in found for r in rows], onsets)
    return Outcome(shown, {"stages": drawn}, summary)


def summarised(
    seeds: Sequence[Sequence[Row]], control: Sequence[Row], onsets: Mapping[str, Onset | str],
    quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """What came when, and whether that is as expected."""
    nearest = {
        name: [min(rows, key=lambda r, k=f"kl_{name}": r[k])["step"] for rows in seeds]
        for name in ("unigram", "bigram")
    }
    copied = {
        name: [rows[at]["copying"] for rows in seeds] for name, at in (("first", 0), ("last", -1))
    }
    told = {
        name: o if isinstance(o, str) else [round(math.exp(v), 1) for v in (o.low, o.t, o.high)]
        for name, o in onsets.items()
    }
    verdicts = [r["llc_verdict"] for rows in seeds for r in rows]
    begun = [onsets[rows[0]["model"]] for rows in seeds]
    ordered = all(
        isinstance(o, Onset) and unigram <= math.exp(o.high)
        for o, unigram in zip(begun, nearest["unigram"], strict=True)
    )
    holds = min(copied["last"]) >= 0.8 and max(*copied["first"], control[-1]["copying"]) < 0.3
    return {
        "holds": quick or (holds and ordered),  # a quick run trains too little to tell
        "onset_of_prefix_matching": told, "nearest_to": nearest,
        "copying_untrained": copied["first"],
        "copying_trained": copied["last"], "copying_shuffled_control": control[-1]["copying"],
        "llc_verdicts": {v: verdicts.count(v) for v in ("ok", "warn", "reject")},
        "llc_none": sum(r["llc"] is None for rows in seeds for r in rows),
    }  # fmt: skip


if __name__ == "__main__":
    main("induction_stages", experiment)
