"""Token attribution: how much of a metric each token of the input accounts for.

Shape suffixes: S sequences, T tokens, D width, B rows of a batch, K tokens up to the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from scaleinv_ray.circuitry.attribution.said import (
    WIDTH,
    cell,
    clearly,
    inline,
    pm,
    speller,
    stderr,
)
from scaleinv_ray.circuitry.effects.interventions import Experiment, Rows
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.inputs.wording import clipped, shown
from scaleinv_ray.probes.corrupted import Pairs

COMPLETE = 0.02
"""Largest error of the sum of scores, of m(A) - m(baseline)."""
FIRST_POINTS, MOST_POINTS = 16, 512
_ROWS = 32
_SHOWN = 5
_WINDOW = 24


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens before the last answer, aligned at it.

    Attributes:
        tokens_SK: ids; -1 before the beginning of a sequence.
        score_SK: parts of m(A) - m(baseline); nan before the beginning.
        clean_S: m(A) at the last answer.
        base_S: m of the baseline.
        metric: name.
        baseline: what the tokens are compared with.
        points: of the integral.
        error: of the sum, relative.
        spell: text of a token.
    """

    tokens_SK: np.ndarray
    score_SK: np.ndarray
    clean_S: np.ndarray
    base_S: np.ndarray
    metric: str
    baseline: str
    points: int
    error: float
    spell: Callable[[int], str] | None = None

    def labels(self) -> list[str]:
        """The token where all sequences have the same, else how far before the answer it is."""
        found, name = [], speller(self.spell)
        count = self.tokens_SK.shape[1]
        for k, of_S in enumerate(self.tokens_SK.T):
            same = of_S[0] >= 0 and (of_S == of_S[0]).all()
            found.append(name(int(of_S[0])) if same else str(k - count))
        return found

    def as_json(self) -> dict[str, Any]:
        """What a report reads.

        tokens: labels of the positions up to the last answer, the token itself where all sequences
        have the same one, else -1, -2, .. counted from the answer. score, stderr: means over
        sequences and their errors. baseline; error: of the sum, relative to m(A) - m(baseline);
        points; metric, whose sign the scores have. examples: tokens and score of single sequences.
        """
        name = speller(self.spell)
        examples = []
        for of_K, score_K in zip(self.tokens_SK[:_SHOWN], self.score_SK[:_SHOWN], strict=True):
            there = of_K >= 0
            examples.append({
                "tokens": [name(int(t)) for t in of_K[there]],
                "score": score_K[there].tolist(),
            })
        return {
            "tokens": self.labels(),
            "score": np.nanmean(self.score_SK, axis=0).tolist(),
            "stderr": stderr(self.score_SK.T),
            "baseline": self.baseline,
            "error": self.error,
            "points": self.points,
            "metric": self.metric,
            "examples": examples,
        }

    def lines(self) -> list[str]:
        """At most twelve lines for a terminal."""
        found = self.as_json()
        gap_S = self.clean_S - self.base_S
        (error,) = stderr(gap_S[None])
        clear = clearly(gap_S.mean(), error)
        rows = [
            f"tokens: A's instead of {self.baseline} move {self.metric} at the last answer by "
            f"{gap_S.mean():+.3f}{pm(error)}",
            f"{'token':<12}{'score':>10}{'+-':>9}{'share' if clear else '':>8}".rstrip()
            + ("" if clear else "   (their sum is within its noise)"),
        ]
        score_K = np.array(found["score"])
        order = np.argsort(-np.abs(score_K), kind="stable")
        order = order[score_K[order] != 0]
        for k in order[:_SHOWN]:
            label, error = repr(found["tokens"][k])[1:-1], found["stderr"][k]
            share = f"{score_K[k] / gap_S.mean():.0%}" if clear else ""
            rows.append(f"{label:<12}{score_K[k]:>+10.3f}{cell(error):>9}{share:>8}".rstrip())
        if len(rest := order[_SHOWN:]):
            rows.append(f".. and {len(rest)} more, together {score_K[rest].sum():+.3f}")
        return [
            *rows,
            f"one sequence: {self._example()}",
            f"-k: k tokens before the answer; complete to {self.error:.1%} at {self.points} points"
            + ("; less is better" if self.metric in {"loss", "kl"} else ""),
        ]

    def _example(self) -> str:
        """The end of the first sequence, its largest scores behind their tokens."""
        tokens_K, score_K = self.tokens_SK[0, -_WINDOW:], self.score_SK[0, -_WINDOW:]
        top = set(np.argsort(-np.abs(np.nan_to_num(score_K)), kind="stable")[:3].tolist())
        name, spelled = speller(self.spell), self.spell is not None
        parts = [
            f"[{inline([name(int(t))], spelled)} {score_K[k]:+.2f}]"
            if k in top and score_K[k] != 0
            else inline([name(int(t))], spelled)
            for k, t in enumerate(tokens_K)
            if t >= 0
        ]
        return clipped(("" if spelled else " ").join(parts), WIDTH - len("one sequence: "))


def token_scores(
    subject: Subject, *, baseline: int | Literal["B"] = "B", points: int = FIRST_POINTS
) -> TokenScores:
    """Integrated gradients of the metric at the last answer, along A's embeddings.

    score_t = (x_t - x'_t) . integral over a in 0..1 of grad_{x_t} m(x' + a (x - x')) (Sundararajan
    et al. 2017), x being A's embeddings and x' those of other tokens, by Gauss-Legendre points that
    are doubled until the scores sum to m(A) - m(x'). A token that A and the baseline share gets
    exactly 0. Only the last answer is asked about: the mean over many answers has no token that it
    hangs on. In between lie embeddings that no token has: what a model does there is in the score.

    Args:
        subject: metric and pairs.
        baseline: B, the corrupted sequence; or a token that stands everywhere but in place of a
            beginning token.
        points: to begin with.

    Raises:
        ValueError: for a zero embedding as baseline; a token id out of range; no points; scores
            that do not become complete; without captum, naming the extra.
    """
    integrate = _captum()
    if points < 1:
        raise ValueError(f"points: got {points}, allowed >= 1")
    _check_baseline(baseline, subject.anatomy.model.config.vocab_size)
    experiment = Experiment(Surgery(subject.anatomy, _ROWS), _last(subject.pairs),
                            subject.effects.metric)  # fmt: skip
    others = [_baseline(experiment, rows, baseline) for rows in experiment.batches]
    ends = [
        [_metric(experiment, rows, x) for x in (rows.clean.stream[0], other)]
        for rows, other in zip(experiment.batches, others, strict=True)
    ]
    clean_S, base_S = (torch.cat(of).cpu().numpy() for of in zip(*ends, strict=True))
    if not (clean_S != base_S).any():
        raise ValueError(f"baseline: got one with the {experiment.metric} of A, allowed another")
    while True:
        score_ST = np.concatenate([
            _integrated(integrate, experiment, rows, other, points)
            for rows, other in zip(experiment.batches, others, strict=True)
        ])
        gap_S = clean_S - base_S
        error = float(np.abs(score_ST.sum(1) - gap_S).sum() / np.abs(gap_S).sum())
        if error <= COMPLETE:
            break
        points *= 2
        if points > MOST_POINTS:
            raise ValueError(
                f"tokens: got scores incomplete by {error:.1%} of m(A) - m(baseline) at "
                f"{points // 2} points, allowed {COMPLETE:.0%}; try a nearer baseline"
            )
    tokens_SK, score_SK = _aligned(experiment.pairs, score_ST)
    name = speller(subject.spell)
    said = "those of B" if baseline == "B" else repr(name(baseline))
    return TokenScores(tokens_SK, score_SK, clean_S, base_S, experiment.metric, said, points, error,
                       subject.spell)  # fmt: skip


def _captum() -> Any:
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise ValueError(
            "tokens: integrated gradients come from captum, which is not installed: "
            "pip install 'scaleinv-ray[attribution]'"
        ) from error
    return IntegratedGradients


def _check_baseline(baseline: object, vocabulary: int) -> None:
    allowed = f"'B' or a token id in 0..{vocabulary - 1}"
    if isinstance(baseline, str) and baseline == "B":
        return
    if not isinstance(baseline, int) or not 0 <= baseline < vocabulary:
        why = " (an embedding of zeros is no token, the model never saw one)"
        raise ValueError(f"baseline: got {shown(baseline)}, allowed {allowed}{why}")


def _last(pairs: Pairs) -> Pairs:
    """The same pairs, asked for their last answer alone."""
    return replace(
        pairs,
        positions_SP=pairs.positions_SP[:, -1:],
        answer_A_SP=pairs.answer_A_SP[:, -1:],
        answer_B_SP=pairs.answer_B_SP[:, -1:],
    )


def _baseline(experiment: Experiment, rows: Rows, baseline: int | str) -> torch.Tensor:
    """Embeddings [S, T, D]."""
    if isinstance(baseline, str):
        return rows.corrupted.stream[0]
    tokens_ST = rows.pairs.tokens_A_ST
    first = getattr(experiment.anatomy.model.config, "bos_token_id", None)
    kept_ST = np.where(tokens_ST == first, tokens_ST, baseline)
    kept_ST[:, 1:] = baseline
    return experiment.surgery.embedded(torch.from_numpy(kept_ST).long())


def _metric(experiment: Experiment, rows: Rows, x_STD: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return _along(experiment, rows, x_STD).double()


def _along(experiment: Experiment, rows: Rows, x_BTD: torch.Tensor) -> torch.Tensor:
    """The metric [B] of embeddings, all sequences of `rows` again and again."""
    *_, (_, stream) = experiment.surgery.blocks_from(x_BTD, 0)
    sets = stream.unflatten(0, (-1, len(rows.pairs.tokens_A_ST)))
    return rows.metric(experiment.anatomy, sets).flatten()


def _integrated(
    integrate: Any, experiment: Experiment, rows: Rows, other_STD: torch.Tensor, points: int
) -> np.ndarray:
    """Scores [S, T] at so many points."""
    x_STD = rows.clean.stream[0]
    found = integrate(partial(_along, experiment, rows)).attribute(
        x_STD,
        baselines=other_STD,
        n_steps=points,
        method="gausslegendre",
        internal_batch_size=max(_ROWS, len(x_STD)),
    )
    return np.asarray(found.detach().double().sum(-1).cpu())


def _aligned(pairs: Pairs, score_ST: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and scores up to the answer, which all sequences have at the end; later ones are 0."""
    size_S = pairs.positions_SP[:, -1] + 1
    shape = (len(size_S), int(size_S.max()))
    tokens_SK, score_SK = np.full(shape, -1), np.full(shape, np.nan)
    for s, size in enumerate(size_S):
        tokens_SK[s, -size:] = pairs.tokens_A_ST[s, :size]
        score_SK[s, -size:] = score_ST[s, :size]
    return tokens_SK, score_SK
