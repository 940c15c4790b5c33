"""Rules in words that decide as the model does: trees on named features, and how faithful they are.

Shape suffixes: S sequences, T tokens, R rows (places of sequences), F features, K numbers of
leaves, A answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import GroupKFold
from sklearn.tree import DecisionTreeClassifier

from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.readings.conditions import Bounds, Feature, copied, features, said
from scaleinv_ray.circuitry.readings.context import NONE, Context, spelled
from scaleinv_ray.circuitry.readings.linear import FOLDS
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.estimate import Estimate, mean_of

LEAVES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of leaves."""
_FEWEST = 5
"""Rows of a leaf, at least."""
_BATCH = 4
_SHOWN = 6
_WIDTH = 96


class Rule(NamedTuple):
    """A leaf.

    Attributes:
        conditions: in words, all of which hold.
        answer: in words.
        rows: decisions that fall here.
        agree: of these, how many are the answer's.
    """

    conditions: tuple[str, ...]
    answer: str
    rows: int
    agree: int

    def __str__(self) -> str:
        """As in `what followed it then, if the token stood before (100 decisions, 98 % so)`."""
        return f"{self.answer}, {self.when} ({self.rows} decisions, {self.share} so)"

    @property
    def when(self) -> str:
        """All conditions in words."""
        return f"if {' and '.join(self.conditions)}" if self.conditions else "always"

    @property
    def share(self) -> str:
        """Of the decisions of the leaf that are the answer's."""
        return f"{100 * self.agree / self.rows:.0f} %"


@dataclass(frozen=True)
class Surrogate:
    """Trees of several sizes beside the most frequent decision.

    Attributes:
        leaves: K.
        agreed_KS: share of the decisions of each held-out sequence that a tree makes too.
        majority_S: of the decision that is most frequent elsewhere.
        decisions: how many, over all sequences.
        rules: of the smallest tree within one standard error of the best, most rows first.
        features: names.
    """

    leaves: tuple[int, ...]
    agreed_KS: np.ndarray
    majority_S: np.ndarray
    decisions: int
    rules: tuple[Rule, ...]
    features: tuple[str, ...]

    @property
    def fidelity(self) -> list[Estimate]:
        """For each number of leaves, mean over sequences with its error."""
        return [mean_of(agreed_S, "sequences") for agreed_S in self.agreed_KS]

    def as_json(self) -> dict[str, Any]:
        """{decisions, majority, fidelity: [{leaves, fidelity, stderr}], rules, features}.

        `decisions` is their number; `majority` the fidelity of the most frequent one.
        """
        return {
            "decisions": self.decisions,
            "majority": float(self.majority_S.mean()),
            "fidelity": [
                {"leaves": leaves, "fidelity": found.value, "stderr": found.stderr}
                for leaves, found in zip(self.leaves, self.fidelity, strict=True)
            ],
            "rules": [str(rule) for rule in self.rules],
            "features": list(self.features),
        }

    def lines(self) -> list[str]:
        """Fidelity against leaves, and the rules with most rows."""
        error = max((x.stderr or 0.0) for x in self.fidelity)
        rows = [
            f"rules for its next token: of {self.decisions} decisions a tree makes, held out "
            f"(+-{error:.2g})",
            "leaves    " + "".join(f"{n:>7}" for n in self.leaves) + "   always the most frequent",
            "made too  "
            + "".join(f"{x.value:>7.3f}" for x in self.fidelity)
            + f"   {self.majority_S.mean():.3f}",
        ]
        for rule in self.rules[:_SHOWN]:
            line = f"{rule.rows:>6}{rule.share:>6} so: {rule.answer}, {rule.when}"
            cut = "" if len(line) <= _WIDTH else " .."
            rows.append(f"{line[: _WIDTH - len(cut)]}{cut}")
        if (left := len(self.rules) - _SHOWN) > 0:
            rows.append(f"  .. and {left} more")
        return rows


class _Rows(NamedTuple):
    """What trees are fitted to.

    Attributes:
        x_RF: features.
        copied_AR: tokens that an answer can be taken from.
        decision_R: the model's.
        sequence_R: of each row.
    """

    x_RF: np.ndarray
    copied_AR: np.ndarray
    decision_R: np.ndarray
    sequence_R: np.ndarray

    def some(self, rows: np.ndarray) -> _Rows:
        return _Rows(
            self.x_RF[rows], self.copied_AR[:, rows], self.decision_R[rows], self.sequence_R[rows]
        )


def surrogate(subject: Subject) -> Surrogate:
    """Trees on named features of the clean sequences, fitted to the model's first choices.

    A leaf answers with a token, or with one that it takes from the context (what followed the last
    occurrence, ..): which of these, is what the tree learns. Each sequence is held out once.

    Raises:
        ValueError: with fewer sequences than folds.
    """
    tokens_ST = subject.pairs.tokens_A_ST
    trees = held_out_trees(Context(tokens_ST, subject.spell), decisions(subject.anatomy, tokens_ST))
    rows, leaves, agreed_KS = trees.rows, trees.leaves, trees.agreed_KS
    tree = Tree.fit(rows, _smallest(leaves, agreed_KS))

    def answer(number: int) -> str:
        named_answers = list(trees.sources)
        if number < len(named_answers):
            return named_answers[number]
        return spelled(number - len(named_answers), subject.spell)

    rules = sorted(tree.rules(rows, trees.features, answer), key=lambda rule: -rule.rows)
    names = tuple(feature.name for feature in trees.features)
    count = len(rows.decision_R)
    return Surrogate(leaves, agreed_KS, trees.majority_S, count, tuple(rules), names)


class HeldOut(NamedTuple):
    """Trees of several sizes on sequences that they have not seen.

    Attributes:
        rows: what they are fitted to.
        features: columns of it.
        sources: names of what an answer can be taken from.
        leaves: K.
        agreed_KS: share of the decisions of each sequence that a tree makes too.
        majority_S: of the decision that is most frequent elsewhere.
    """

    rows: _Rows
    features: list[Feature]
    sources: tuple[str, ...]
    leaves: tuple[int, ...]
    agreed_KS: np.ndarray
    majority_S: np.ndarray


def held_out_trees(context: Context, decision_ST: np.ndarray) -> HeldOut:
    """Trees of 1, 2, 4, .. leaves, as long as they grow; each sequence is held out once.

    Args:
        context: of the sequences.
        decision_ST: the model's first choice after each place.

    Raises:
        ValueError: with fewer sequences than folds.
    """
    sequences, length = context.tokens_ST.shape
    if sequences < FOLDS:
        raise ValueError(f"sequences: got {sequences}, allowed >= {FOLDS} (one is held out)")
    named, sources = features(context), copied(context)
    rows = _Rows(
        np.stack([f.values_ST.ravel() for f in named], axis=1).astype(np.float64),
        np.stack([source_ST.ravel() for source_ST in sources.values()]),
        decision_ST.ravel(),
        np.repeat(np.arange(sequences), length),
    )
    leaves = _sizes(rows)
    agreed_KS, majority_S = _held_out(rows, leaves)
    return HeldOut(rows, named, tuple(sources), leaves, agreed_KS, majority_S)


@torch.no_grad()
def decisions(anatomy: Anatomy, tokens_ST: np.ndarray) -> np.ndarray:
    """The token that a model prefers after each place, [S, T]."""
    surgery = Surgery(anatomy)
    found = []
    for start in range(0, len(tokens_ST), _BATCH):  # logits of a large vocabulary take room
        tokens = torch.from_numpy(tokens_ST[start : start + _BATCH]).long()
        found.append(anatomy.logits(surgery.record(tokens).stream[-1]).argmax(-1).cpu().numpy())
    return np.concatenate(found)


@dataclass(frozen=True)
class Tree:
    """A tree whose leaves answer with a token or with a copied one.

    Attributes:
        splits: the fitted tree; None of a single leaf.
        answers: leaf -> number of a copied token, or their count plus a token.
    """

    splits: DecisionTreeClassifier | None
    answers: dict[int, int]

    @classmethod
    def fit(cls, rows: _Rows, leaves: int) -> Tree:
        """Splits by what the decision is taken from; then the best answer of each leaf."""
        splits = None
        if leaves > 1:
            splits = DecisionTreeClassifier(
                max_leaf_nodes=leaves, min_samples_leaf=_FEWEST, random_state=0
            ).fit(rows.x_RF, taken_from(rows.copied_AR, rows.decision_R))
        tree = cls(splits, {})
        leaf_R = tree.leaf_of(rows.x_RF)
        best = {int(leaf): _best(rows.some(leaf_R == leaf)) for leaf in np.unique(leaf_R)}
        return cls(splits, best)

    def leaf_of(self, x_RF: np.ndarray) -> np.ndarray:
        """The leaf of each row."""
        if self.splits is None:
            return np.zeros(len(x_RF), dtype=np.int64)
        return self.splits.apply(x_RF)

    def agrees(self, rows: _Rows) -> np.ndarray:
        """Whether the tree decides as the model, bool [R]."""
        answer_R = np.array([self.answers[int(leaf)] for leaf in self.leaf_of(rows.x_RF)])
        count = len(rows.copied_AR)
        taken_R = rows.copied_AR[np.minimum(answer_R, count - 1), np.arange(len(answer_R))]
        return np.where(answer_R < count, taken_R, answer_R - count) == rows.decision_R

    def rules(self, rows: _Rows, named: list[Feature], answer: Callable[[int], str]) -> list[Rule]:
        """Each leaf in words."""
        leaf_R, agrees_R = self.leaf_of(rows.x_RF), self.agrees(rows)
        return [
            Rule(
                said([(named[f], bounds) for f, bounds in self._path(leaf).items()]),
                answer(number),
                int((leaf_R == leaf).sum()),
                int(agrees_R[leaf_R == leaf].sum()),
            )
            for leaf, number in self.answers.items()
        ]

    def _path(self, leaf: int) -> dict[int, Bounds]:
        """Feature -> its bounds on the way to a leaf."""
        if self.splits is None:
            return {}
        tree: Any = self.splits.tree_
        parent = {int(child): (node, side) for side, children in
                  enumerate((tree.children_left, tree.children_right))
                  for node, child in enumerate(children) if child >= 0}  # fmt: skip
        steps = []
        while leaf in parent:
            leaf, side = parent[leaf]
            steps.append((int(tree.feature[leaf]), side, float(tree.threshold[leaf])))
        bounds: dict[int, Bounds] = {}
        for feature, side, threshold in reversed(steps):
            low, high = bounds.get(feature, (-np.inf, np.inf))
            bounds[feature] = (max(low, threshold), high) if side else (low, min(high, threshold))
        return bounds


def taken_from(copied_AR: np.ndarray, decision_R: np.ndarray) -> np.ndarray:
    """What each decision is taken from, out of as few sources as greedily cover them.

    A decision can be told in several ways: as the token it is, as what followed the last
    occurrence, .. The source that tells most of those not yet told comes first; of equal ones a
    copy.

    Args:
        copied_AR: tokens that can be copied; NONE where there is none.
        decision_R: tokens.

    Returns:
        The number of the copy, or the count of copies plus the token.

    >>> taken_from(np.array([[5, 7, 9, 2]]), np.array([5, 7, 4, 4])).tolist()
    [0, 0, 5, 5]
    """
    count = len(copied_AR)
    left_R = np.ones(len(decision_R), dtype=bool)
    found_R = decision_R + count
    tells_AR = (copied_AR == decision_R) & (copied_AR != NONE)
    while left_R.any():
        by_copy_A = (tells_AR & left_R).sum(axis=1)
        tokens, by_token = np.unique(decision_R[left_R], return_counts=True)
        copy = int(by_copy_A.argmax())
        if by_copy_A[copy] == 0:
            break  # the rest are tokens of their own
        if by_copy_A[copy] >= by_token.max():
            found_R[left_R & tells_AR[copy]] = copy
            left_R &= ~tells_AR[copy]
        else:
            left_R &= decision_R != tokens[by_token.argmax()]
    return found_R


def _best(rows: _Rows) -> int:
    """The answer that most of the decisions are; of equal ones a copy."""
    by_copy_A = (rows.copied_AR == rows.decision_R).sum(axis=1)
    tokens, by_token = np.unique(rows.decision_R, return_counts=True)
    copy, token = int(by_copy_A.argmax()), int(tokens[by_token.argmax()])
    return copy if by_copy_A[copy] >= by_token.max() else token + len(by_copy_A)


def _sizes(rows: _Rows) -> tuple[int, ...]:
    """Numbers of leaves, as long as a tree grows."""
    most = Tree.fit(rows, LEAVES[-1])
    return tuple(n for n in LEAVES if n <= len(most.answers))


def _held_out(rows: _Rows, leaves: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Shares of decisions of each sequence that trees, and the most frequent decision, make too."""
    agrees_KR = np.empty((len(leaves), len(rows.decision_R)), dtype=bool)
    majority_R = np.empty(len(rows.decision_R), dtype=bool)
    folds = GroupKFold(FOLDS).split(rows.x_RF, rows.decision_R, rows.sequence_R)
    for train, test in folds:
        for k, n in enumerate(leaves):
            agrees_KR[k, test] = Tree.fit(rows.some(train), n).agrees(rows.some(test))
        tokens, counts = np.unique(rows.decision_R[train], return_counts=True)
        majority_R[test] = rows.decision_R[test] == tokens[counts.argmax()]
    sequences = rows.sequence_R.max() + 1
    by_sequence = agrees_KR.reshape(len(leaves), sequences, -1)
    return by_sequence.mean(axis=2), majority_R.reshape(sequences, -1).mean(axis=1)


def _smallest(leaves: tuple[int, ...], agreed_KS: np.ndarray) -> int:
    """The smallest tree within one standard error of the best (Breiman et al. 1984)."""
    mean_K = agreed_KS.mean(axis=1)
    best = int(mean_K.argmax())
    stderr = agreed_KS[best].std(ddof=1) / np.sqrt(agreed_KS.shape[1])
    return leaves[int(np.flatnonzero(mean_K >= mean_K[best] - stderr)[0])]
