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
Stages are the transitions of each quantity (`training.transitions`). One agrees with induction
in a seed where its interval overlaps a window: that of the onset of the prefix-matching score
(`training.onsets`), or that of its formation, from the onset until it is half way. Over the
seeds it agrees where it does so in all of them and intervals of these widths thrown anywhere on the
axis would by a chance of 5 % at most. Everything else is undetermined. Controls: the untrained twin
(step 0 of every seed) and a model trained on the same sequences, each in random order. As expected
is: every seed copies, neither control does, and the n-grams come first.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from _experiment import Net, Outcome, Row, in_processes, main, value, write_net
from _induction import QUICK, BatchedLosses, Behaviour, Plan, built, mixture
from plotly.subplots import make_subplots
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from scaleinv_ray.capture.curvature.products import curvature_records, language_loss
from scaleinv_ray.capture.posterior.chains import chain_records
from scaleinv_ray.conclude.training.onsets import Onset, OnsetFinder
from scaleinv_ray.conclude.training.transitions import ProgressKind, Transition, TransitionFinder
from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.bands import ggn_bands, hessian_bands
from scaleinv_ray.invariants.curvature import ggn_density, hessian_density
from scaleinv_ray.invariants.degeneracy import learning_coefficient
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.data import token_stream
from scaleinv_ray.ladder.folders import step_folder
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.probes import load_corpus
from scaleinv_ray.records import Record

SPECTRAL = ("llc", "hessian_max", "hessian_mean", "ggn_max", "ggn_mean")
LEVEL = 0.05
Kept = tuple[str, str, list[Record]]
"""Kind, probe and records."""


def spectra(plan: Plan, model: PreTrainedModel, rows_ST: torch.Tensor) -> tuple[Row, list[Kept]]:
    """Learning coefficient and curvatures on the training mixture, and their records."""
    parameters = dict(model.named_parameters())
    labels = {"num_layers": model.config.num_hidden_layers}
    (chains, draws, burn_in, batch), (nbeta, gamma, step) = plan.chains, plan.setting
    (sampled,) = chain_records(
        BatchedLosses(model, plan.length), parameters, rows_ST,
        generator=torch.Generator().manual_seed(0), nbetas=[nbeta], gammas=[gamma], steps=[step],
        gamma_factors=(1.0,), num_chains=chains, num_dispersed=0, num_steps=draws,
        burn_in=burn_in, batch_size=batch, labels={"site": "model", **labels},
    )  # fmt: skip
    measured = learning_coefficient(sampled, rng=np.random.default_rng(0))
    llc, stderr = value(measured, "lambda_hat_t")
    found: dict[str, Any] = {
        "llc": llc, "llc_stderr": stderr, "llc_verdict": str(measured.flags["verdict"]),
        "llc_reasons": str(measured.flags["reasons"]),
        "lowest": sampled.lowest_curvature,
    }  # fmt: skip
    kept: list[Kept] = [("chains", "mixture", [sampled])]
    steps, probes, sketch = plan.lanczos
    every_ST = rows_ST[:: len(rows_ST) // plan.curved]  # mixed as the whole
    for operator, density in (("hessian", hessian_density), ("ggn", ggn_density)):
        (lanczos,) = curvature_records(
            language_loss(model), parameters, [every_ST],
            operator=operator, num_steps=steps, num_probes=probes, keep_basis=True, sketch=sketch,
            generator=torch.Generator().manual_seed(0), labels={"site": "model", **labels},
        )  # fmt: skip
        curved = density(lanczos, rng=np.random.default_rng(0))
        found[f"{operator}_max"] = value(curved, "lambda_max")[0]
        found[f"{operator}_mean"] = float((lanczos.nodes_RK * lanczos.weights_RK).sum(1).mean())
        kept.append((operator, "mixture", [lanczos]))
    return found, kept


def run(plan: Plan, seed: int, shuffled: bool, folder: Path) -> dict[str, Any]:
    """Trains and measures one model, or reads what an earlier run of the same plan has found.

    Returns:
        Its `rows`, one a checkpoint, and its `bands`; the checkpoints and the records are kept.
    """
    name = f"{'shuffled' if shuffled else 'induction'}-s{seed}"
    file = folder / "found" / f"{name}.json"
    planned = {k: v for k, v in json.loads(json.dumps(asdict(plan))).items() if k != "seeds"}
    if file.exists() and (kept := json.loads(file.read_text()))["plan"] == planned:
        return kept
    rows, records = trained(plan, seed, shuffled, folder / "models" / name)
    num_params = sum(p.numel() for p in built(plan, seed).parameters())
    facts = {r["step"]: {k: training(plan, r)[k] for k in ("train_tokens", "eval_loss")}
             for r in rows}  # fmt: skip
    write_net(folder / "records", Net(name, seed, num_params, 2, plan.width), records, facts=facts)
    found = {"plan": planned, "rows": rows, "bands": bands(records)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def trained(
    plan: Plan, seed: int, shuffled: bool, folder: Path
) -> tuple[list[Row], dict[int, list[Kept]]]:
    """Rows and records of every checkpoint, which are written into the folder."""
    shutil.rmtree(folder, ignore_errors=True)  # of another plan
    corpus = load_corpus("python-stdlib")
    streams = {side: token_stream(corpus, side) for side in ("train", "held_out")}
    prose = {"prose": streams["train"]["prose"]}
    behaviour = Behaviour(plan, streams)
    model = built(plan, seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    fixed_ST = mixture(plan, prose, plan.sampled, seed=10_000, step=0, shuffled=shuffled)
    rows: list[Row] = []
    records: dict[int, list[Kept]] = {}
    for step in range(max(plan.steps) + 1):
        if step in plan.steps:
            model.eval()
            figures, records[step] = spectra(plan, model, fixed_ST)
            place = {"model": folder.name, "seed": seed, "step": step}
            rows.append({**place, **behaviour.of(model), **figures})
            save(folder, model, plan, rows[-1])
            model.train()
        ids_ST = mixture(plan, prose, plan.batch, seed=seed, step=step, shuffled=shuffled)
        logits = model(ids_ST, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), ids_ST[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rows, records


def bands(records: Mapping[int, Sequence[Kept]]) -> dict[str, Any]:
    """Outlying bands of both operators, followed over the checkpoints."""
    found: dict[str, Any] = {}
    for operator, followed in (("hessian", hessian_bands), ("ggn", ggn_bands)):
        lanczos = [
            replace(record, step=step)
            for step, kinds in records.items()
            for kind, _, (record,) in kinds
            if kind == operator
        ]
        try:
            measured = followed(lanczos, rng=np.random.default_rng(0))
        except Refused as refused:
            found[operator] = str(refused)
            continue
        found[operator] = {
            **{name: value(measured, name)[0] for name in measured.values},
            "tracks": {n: [c.x.tolist(), c.y.tolist()] for n, c in measured.curves.items()},
            "told": {k: v for k, v in measured.flags.items() if isinstance(v, str)},
        }
    return found


def save(folder: Path, model: PreTrainedModel, plan: Plan, row: Row) -> None:
    """A checkpoint that `{path: ...}` of a config reads."""
    write_checkpoint(step_folder(folder, row["step"]), model, byte_tokenizer(), training(plan, row))


def training(plan: Plan, row: Row) -> dict[str, Any]:
    """How far training was."""
    return {
        "step": row["step"], "seed": row["seed"], "eval_loss": row["loss_prose"],
        "train_tokens": row["step"] * plan.batch * plan.length,
    }  # fmt: skip


Window = tuple[float, float]
"""Steps between which something happens."""


def formation(rows: Sequence[Row], onset: Onset | str) -> Window | str:
    """From the onset of prefix matching to the checkpoint where it is half way to its largest."""
    if isinstance(onset, str):
        return onset
    scores = [r["prefix_matching"] for r in rows]
    half = (scores[0] + max(scores)) / 2
    return math.exp(onset.low), next(r["step"] for r in rows if r["prefix_matching"] >= half)


def began(onset: Onset | str) -> Window | str:
    """The interval of the onset, between checkpoints."""
    return onset if isinstance(onset, str) else (math.exp(onset.low), math.exp(onset.high))


@dataclass(frozen=True)
class Stage:
    """Transitions of a quantity in a run, and whether one falls into a window of the run.

    Attributes:
        quantity: name.
        found: the transitions that there are.
        meets: whether one does; None without a window or without enough checkpoints.
        chance: that as many intervals as wide do, thrown anywhere.
        reason: where there is none.
    """

    quantity: str
    found: tuple[Transition, ...]
    meets: bool | None
    chance: float
    reason: str = ""


def stage(
    rows: Sequence[Row], quantity: str, window: Window | str, finder: TransitionFinder
) -> Stage:
    """The stage of one quantity of one run, over x = ln(1 + step), against a window of steps."""
    pairs = [(r["step"], r[quantity]) for r in rows if r[quantity] is not None]
    values = np.array([v for _, v in pairs])
    if quantity in SPECTRAL and (values > 0).all():
        values = np.log(values)
    listed = finder.find([s for s, _ in pairs], values.tolist())
    found = tuple(t for t in listed if t.kind in {ProgressKind.BREAK, ProgressKind.JUMP})
    if isinstance(window, str):
        return Stage(quantity, found, None, 1.0, f"no onset: {window}")
    if not found:
        undetermined = listed[0].kind is ProgressKind.UNDETERMINED
        return Stage(quantity, (), None if undetermined else False, 1.0, listed[0].reason)
    axis = math.log1p(max(r["step"] for r in rows))
    low, high = (math.log1p(step) for step in window)
    intervals = [(math.log1p(t.step_low or 0), math.log1p(t.step_high or 0)) for t in found]
    meets = any(before < high and after > low for before, after in intervals)
    miss = math.prod(
        1 - min(1.0, (after - before + high - low) / axis) for before, after in intervals
    )
    return Stage(quantity, found, meets, 1 - miss)


def told(rows: Sequence[Row], quantity: str, finder: TransitionFinder) -> list[Any]:
    """Kind and interval of the transitions of a run."""
    listed = stage(rows, quantity, "not asked", finder).found
    return [(t.kind.value, t.step_low, t.step_high) for t in listed]


def agreement(stages: Sequence[Stage]) -> dict[str, Any]:
    """Over the seeds: agrees, or undetermined with the reason."""
    meets, chance = [s.meets for s in stages], math.prod(s.chance for s in stages)
    if all(meets) and chance <= LEVEL:
        verdict = "agrees"
    elif all(meets):
        verdict = f"undetermined: intervals as wide would by a chance of {chance:.2g}"
    else:
        verdict = f"undetermined: falls into it in {sum(m is True for m in meets)} of {len(meets)}"
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
    made = in_processes(run, [*runs, (plan, plan.seeds[0], True, folder)], workers)
    found = [m["rows"] for m in made]
    seeds, control = found[:-1], found[-1]
    onset_finder = OnsetFinder(np.random.default_rng(0))
    onsets = {
        rows[0]["model"]: onset_finder.find(
            [r["step"] for r in rows], [r["prefix_matching"] for r in rows]
        )
        for rows in found
    }
    finder = TransitionFinder(np.random.default_rng(0))
    windows = {
        "onset": [began(onsets[rows[0]["model"]]) for rows in seeds],
        "formation": [formation(rows, onsets[rows[0]["model"]]) for rows in seeds],
    }
    tables = {
        name: {
            quantity: agreement([
                stage(rows, quantity, window, finder)
                for rows, window in zip(seeds, held, strict=True)
            ])
            for quantity in (*SPECTRAL, "kl_bigram", "previous_token", "copying")
        }
        for name, held in windows.items()
    }
    summary = summarised(seeds, control, onsets, quick) | {
        "windows": windows,
        "agreement": {n: {q: a["verdict"] for q, a in t.items()} for n, t in tables.items()},
        "chance": {n: {q: a["chance"] for q, a in t.items()} for n, t in tables.items()},
        "transitions": {q: a["intervals"] for q, a in tables["onset"].items()},
        "transitions_of_control": {q: told(control, q, finder) for q in SPECTRAL},
        "largest_at": {
            q: [max(rows, key=lambda r, q=q: r[q])["step"] for rows in found]
            for q in ("hessian_mean", "ggn_mean")
        },
        "bands": {
            rows[0]["model"]: counted(m["bands"]) for m, rows in zip(made, found, strict=True)
        },
    }
    shown = [{k: v for k, v in r.items() if k not in {"llc_reasons", "seed", "lowest"}}
             for rows in found for r in rows]  # fmt: skip
    drawn = figure([r for rows in found for r in rows], onsets)
    return Outcome(shown, {"stages": drawn}, summary)


def counted(found: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of bands, tracks, crossings and requests of both operators."""
    return {
        operator: told if isinstance(told, str) else {
            k: v for k, v in told.items() if k.startswith("num_")
        }
        for operator, told in found.items()
    }  # fmt: skip


def summarised(
    seeds: Sequence[Sequence[Row]], control: Sequence[Row], onsets: Mapping[str, Onset | str],
    quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """What came when, and whether that is as expected."""
    fallen = {
        name: [fallen_at(rows, f"kl_{name}") for rows in seeds] for name in ("unigram", "bigram")
    }
    copied = {
        name: [rows[at]["copying"] for rows in seeds] for name, at in (("first", 0), ("last", -1))
    }
    begins = {
        name: o if isinstance(o, str) else [round(math.exp(v), 1) for v in (o.low, o.t, o.high)]
        for name, o in onsets.items()
    }
    verdicts = [r["llc_verdict"] for rows in seeds for r in rows]
    begun = [onsets[rows[0]["model"]] for rows in seeds]
    ordered = all(
        isinstance(o, Onset) and max(fallen["unigram"][i], fallen["bigram"][i]) <= math.exp(o.low)
        for i, o in enumerate(begun)
    )
    holds = min(copied["last"]) >= 0.8 and max(*copied["first"], control[-1]["copying"]) < 0.3
    return {
        "holds": quick or (holds and ordered),  # a quick run trains too little to tell
        "onset_of_prefix_matching": begins, "ngrams_fallen": fallen,
        "copying_untrained": copied["first"],
        "copying_trained": copied["last"], "copying_shuffled_control": control[-1]["copying"],
        "llc_verdicts": {v: verdicts.count(v) for v in ("ok", "warn", "reject")},
        "llc_none": sum(r["llc"] is None for rows in seeds for r in rows),
    }  # fmt: skip


def fallen_at(rows: Sequence[Row], quantity: str) -> int:
    """First checkpoint at which four fifths of the way to the lowest value are made."""
    first, lowest = rows[0][quantity], min(r[quantity] for r in rows)
    return next(r["step"] for r in rows if r[quantity] <= first - 0.8 * (first - lowest))


if __name__ == "__main__":
    main("induction_stages", experiment)
