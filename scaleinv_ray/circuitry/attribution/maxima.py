"""Activation maxima: where in a dataset a unit is largest, and what tokens drive it further.

Shape suffixes: N rows, T tokens, U units of an MLP, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scaleinv_ray.circuitry.attribution.ascent import Embedding, Reached, climb, special_ids
from scaleinv_ray.circuitry.attribution.direct import adds_up, direct_logits
from scaleinv_ray.circuitry.attribution.said import WIDTH, inline, speller
from scaleinv_ray.circuitry.attribution.units import Readings, Unit, named, on_neurons
from scaleinv_ray.circuitry.effects.interventions import Experiment, Rows, check_pairs
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.components import Component
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.probes import build_tokens, load_corpus
from scaleinv_ray.probes.corpus import KINDS, STDLIB

UNITS, CONTEXTS, CORPUS_ROWS = 4, 5, 96
_ROWS = 32
_STARTS = 4
_BEFORE, _AFTER = 12, 3
_SEEN_BEFORE, _SEEN_AFTER = 6, 2
_SAME = 4
"""Tokens before two places: where they are equal too, the second context says nothing new."""
_TAIL = 0.99


@dataclass(frozen=True)
class Maximum:
    """Where a unit is largest.

    Attributes:
        unit: what is read.
        contexts: the largest values of the dataset, one a row at most, each read again by a forward
            pass of its row alone.
        p99: 99th percentile over all tokens of the dataset.
        synthetic: tokens found by ascent, and the value there.
    """

    unit: Unit
    contexts: tuple[Reached, ...]
    p99: float
    synthetic: Reached

    @property
    def ratio(self) -> float | None:
        """Synthetic value / 99th percentile; None where that is not positive."""
        return self.synthetic.value / self.p99 if self.p99 > 0 else None


@dataclass(frozen=True)
class Maxima:
    """Units and their maxima.

    Attributes:
        found: a unit each.
        num_tokens: of the dataset.
        text: the dataset has text of the corpus beside the probe's sequences.
        subject: whose spelling is used.
    """

    found: tuple[Maximum, ...]
    num_tokens: int
    text: bool
    subject: Subject

    def as_json(self) -> dict[str, Any]:
        """What a report reads.

        units: name (`m1.37` a neuron, `h1.0` the norm of a head's output, `h1.0>next` what it
        writes for the token that comes next); max and p99 over the dataset; contexts, each the
        tokens around, `at`, which of them has the value, and value; synthetic: tokens up to where
        the value is (for `>next` with the one behind it), value, and ratio = value / p99.
        num_tokens: of the dataset. text: whether the corpus is in it.
        """
        units = []
        for m in self.found:
            whole = len(m.synthetic.tokens_T)
            tokens = self._spelled(m.synthetic, before=whole, after=m.unit.kind == "next")[0]
            contexts = [self._spelled(c, before=_BEFORE, after=_AFTER) for c in m.contexts]
            units.append({
                "name": str(m.unit),
                "max": m.contexts[0].value,
                "p99": m.p99,
                "contexts": [
                    {"tokens": tokens, "at": at, "value": c.value}
                    for (tokens, at), c in zip(contexts, m.contexts, strict=True)
                ],
                "synthetic": {"tokens": tokens, "value": m.synthetic.value, "ratio": m.ratio},
            })
        return {"units": units, "num_tokens": self.num_tokens, "text": self.text}

    def lines(self) -> list[str]:
        """At most twelve lines for a terminal."""
        data = "the probe" + (" and of the corpus" if self.text else "")
        rows = [f"maxima: where units are largest, [] at it, of {self.num_tokens} tokens of {data}"]
        for m in self.found[:UNITS]:
            head = f"{m.unit!s:<10} max {m.contexts[0].value:.3g}, p99 {m.p99:.3g}: "
            shown = [self._marked(c, after=_SEEN_AFTER) for c in m.contexts]
            rows.append(_fitting(head, shown))
            driven = "" if m.ratio is None else f", {m.ratio:.2g} x p99"
            head = f"{'':<10} by ascent {m.synthetic.value:.3g}{driven}: "
            rows.append(_fitting(head, [self._marked(m.synthetic, after=m.unit.kind == "next")]))
        return [
            *rows,
            "m: a neuron; h: norm of a head's output; h>next: its part for the next token",
        ]

    def _marked(self, reached: Reached, *, after: int) -> str:
        tokens, at = self._spelled(reached, before=_SEEN_BEFORE, after=after)
        spelled = self.subject.spell is not None
        parts = [tokens[:at], [tokens[at]], tokens[at + 1 :]]
        left, here, right = (inline(part, spelled) for part in parts)
        gap = "" if spelled else " "
        return f"{left}{gap}[{here}]{gap}{right}".strip(" " * (not spelled))

    def _spelled(self, reached: Reached, *, before: int, after: int) -> tuple[list[str], int]:
        """Tokens around, and which of them it is."""
        name = speller(self.subject.spell)
        first = max(0, reached.at - before)
        some = reached.tokens_T[first : reached.at + 1 + after].tolist()
        return [name(token) for token in some], reached.at - first


def _fitting(head: str, texts: Sequence[str]) -> str:
    """As many texts as a line has room for, the first one cut to it."""
    line = head + texts[0]
    for text in texts[1:]:
        if len(line) + len(text) + 3 > WIDTH:
            break
        line += f" | {text}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 2]}.."


def activation_maxima(
    subject: Subject, *, units: Sequence[str] | None = None, corpus_rows: int = CORPUS_ROWS
) -> Maxima:
    """Largest values of units in a dataset with their contexts, and tokens that drive them further.

    The dataset is A and B of the probe, and rows of held-out prose and code where the subject can
    encode text; a beginning token is no place. Ascent starts from the contexts, so that its value
    is at least the dataset's. Largest values say what drives a unit most, not what it does on
    ordinary input, and a unit may mean several things (Bolukbasi et al. 2021).

    Args:
        subject: model, sequences, effects.
        units: names, see `units.named`; by default those of the components with the largest
            effects: of an MLP the neuron with the largest estimated effect, (B's value - A's) .
            gradient of the metric; of a head what it writes for the next token where its effect on
            a difference of logits is direct, else its norm.
        corpus_rows: of prose and of code each.

    Raises:
        ValueError: for a unit that the model does not have.
    """
    check_pairs(subject.pairs, subject.anatomy.model.config)
    surgery = Surgery(subject.anatomy, _ROWS)
    chosen = _default(subject) if units is None else [named(subject.anatomy, n) for n in units]
    tokens_NT, fixed = _dataset(subject, corpus_rows)
    readings = Readings(surgery, chosen)
    parts = [readings.of_tokens(some) for some in tokens_NT.split(_ROWS)]
    for n, unit in enumerate(chosen):
        if not any(torch.isfinite(part[n][:, fixed:]).any() for part in parts):
            raise ValueError(f"unit: got {unit} without a finite value, allowed: another unit")
    embedding = Embedding.of(surgery, tokens_NT.shape[1])
    found = []
    for n, unit in enumerate(chosen):
        value_NT = torch.cat([part[n] for part in parts]).cpu()[:, fixed:].double().numpy()
        alone = Readings(surgery, [unit])
        contexts = _contexts(alone, tokens_NT, value_NT, fixed)
        starts = contexts[:_STARTS]
        reached = climb(
            alone,
            embedding,
            torch.stack([c.tokens_T for c in starts]),
            torch.tensor([c.at for c in starts]),
            fixed,
        )
        p99 = float(np.quantile(value_NT[np.isfinite(value_NT)], _TAIL))
        found.append(Maximum(unit, contexts, p99, reached))
    text = subject.encode is not None and corpus_rows > 0
    return Maxima(tuple(found), tokens_NT[:, fixed:].numel(), text, subject)


def _contexts(
    readings: Readings, tokens_NT: torch.Tensor, value_NT: np.ndarray, fixed: int
) -> tuple[Reached, ...]:
    """The rows with the largest values, distinct in the tokens just before and at the place."""
    at_N = value_NT.argmax(axis=1) + fixed
    found: list[Reached] = []
    known = set()
    for n in np.argsort(-value_NT.max(axis=1), kind="stable"):
        row_T, at = tokens_NT[n], int(at_N[n])
        seen = tuple(row_T[max(0, at - _SAME) : at + 1].tolist())
        if seen in known:
            continue
        known.add(seen)
        found.append(Reached(row_T, at, float(readings.of_tokens(row_T[None])[0][0, at])))
        if len(found) == CONTEXTS:
            break
    return tuple(sorted(found, key=lambda context: -context.value))


def _dataset(subject: Subject, corpus_rows: int) -> tuple[torch.Tensor, int]:
    """Rows of tokens, and how many beginning tokens stand before each."""
    pairs, anatomy = subject.pairs, subject.anatomy
    rows = [np.concatenate([pairs.tokens_A_ST, pairs.tokens_B_ST])]
    first = int(rows[0][0, 0])
    begins = bool((rows[0][:, 0] == first).all()) and first in special_ids(anatomy)
    length = rows[0].shape[1] - begins
    if subject.encode is not None and corpus_rows and length >= 2:
        for kind in KINDS:
            text = build_tokens(
                kind,
                subject.encode,
                sequences=corpus_rows,
                length=length,
                vocab_size=anatomy.model.config.vocab_size,
                corpus=load_corpus(STDLIB),
                rng=np.random.default_rng(subject.seed),
            )
            rows.append(np.pad(text, ((0, 0), (int(begins), 0)), constant_values=first))
    return torch.from_numpy(np.unique(np.concatenate(rows), axis=0)).long(), int(begins)


def _default(subject: Subject) -> list[Unit]:
    """A unit of each of the components with the largest effects."""
    e = subject.effects
    order = np.argsort(-np.abs(e.best_NS.mean(axis=1)), kind="stable")
    top = [c for c in (e.components[n] for n in order) if c.kind != "embed"][:UNITS]
    neurons = _neurons(subject, [c for c in top if c.kind == "mlp"])
    direct: set[str] = set()
    if e.metric == "logit_diff" and adds_up(subject.anatomy):
        direct = {str(c) for c in top} - set(direct_logits(subject).through_others)
    return [
        neurons[c]
        if c.kind == "mlp"
        else Unit("next" if str(c) in direct else "norm", c.layer, c.head)
        for c in top
    ]


def _neurons(subject: Subject, mlps: Sequence[Component]) -> dict[Component, Unit]:
    """The neuron of each MLP with the largest estimated effect."""
    if not mlps:
        return {}
    metric = subject.effects.metric
    # the gradient of kl is zero at the clean run
    experiment = Experiment(Surgery(subject.anatomy, _ROWS), subject.pairs,
                            "loss" if metric == "kl" else metric)  # fmt: skip
    scores = [_scores(experiment, rows, mlps) for rows in experiment.batches]
    total = [sum(of, start=np.zeros(())) for of in zip(*scores, strict=True)]
    return {
        mlp: Unit("neuron", mlp.layer, int(np.abs(score_U).argmax()))
        for mlp, score_U in zip(mlps, total, strict=True)
    }


def _scores(experiment: Experiment, rows: Rows, mlps: Sequence[Component]) -> list[np.ndarray]:
    """(B - A) . gradient of the neurons of each MLP, [U], summed over sequences."""
    anatomy = experiment.anatomy
    tokens = rows.clean.stream[0].shape[1]
    runs: list[list[torch.Tensor]] = []
    for state, graded in ((rows.clean, True), (rows.corrupted, False)):
        kept: list[torch.Tensor] = []

        def keep(h: torch.Tensor, kept: list[torch.Tensor] = kept) -> torch.Tensor:
            kept.append(h.clone())
            return kept[-1]

        with experiment.surgery.hooked(tokens) as handles, torch.set_grad_enabled(graded):
            for mlp in sorted(mlps):
                handles.append(on_neurons(anatomy, mlp.layer, keep, tokens))
            x = state.stream[0].detach().requires_grad_(graded)
            *_, (_, stream) = experiment.surgery.blocks_from(x, 0)
        if graded:
            with torch.enable_grad():
                total = rows.metric(anatomy, stream[None]).sum()
            grads = torch.autograd.grad(total, kept)
        runs.append([h.detach() for h in kept])
    by_mlp = {
        mlp: ((b - a) * grad).sum((0, 1)).double().cpu().numpy()
        for mlp, a, b, grad in zip(sorted(mlps), *runs, grads, strict=True)
    }
    return [by_mlp[mlp] for mlp in mlps]
