"""Linear probes: what can be read off the residual stream, depth by depth, by a linear map.

Shape suffixes: L places in the depth (before each block, after the last), S sequences, T tokens,
R rows, D width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.readings.context import NONE, Context
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.estimate import Estimate, mean_of

FOLDS = 4
"""Parts of the sequences, each of which is held out once."""
_FEW = 16
"""Classes up to which the probe is logistic; with more it is ridge regression on indicators, whose
cost does not grow with them."""
_PARTS = 8
_BATCH = 32


class Target(NamedTuple):
    """What a probe is asked for.

    Attributes:
        name: in words.
        label_ST: class of each row; NONE where it has none.
        type_ST: what the label could be learned by heart of: the token where the label is a
            function of it, else the whole of what stands before.
    """

    name: str
    label_ST: np.ndarray
    type_ST: np.ndarray


@dataclass(frozen=True)
class Probed:
    """A target at every place in the depth.

    Attributes:
        name: of the target.
        classes: labels, C of them.
        chance: share of the most frequent label.
        right_LS: share of rows of each held-out sequence that are read right.
        control_LS: the same of control labels.
        coefficients: of each place [C, D] ([1, D] where there are two classes), on rows brought to
            mean 0 and variance 1, fitted to all sequences.
    """

    name: str
    classes: np.ndarray
    chance: float
    right_LS: np.ndarray
    control_LS: np.ndarray
    coefficients: tuple[np.ndarray, ...]

    def accuracy(self, place: int) -> Estimate:
        """Mean over sequences with its error."""
        return mean_of(self.right_LS[place], "sequences")

    def selectivity(self, place: int) -> Estimate:
        """Accuracy - accuracy on control labels (Hewitt & Liang 2019), by sequence."""
        return mean_of(self.right_LS[place] - self.control_LS[place], "sequences")


@dataclass(frozen=True)
class LinearProbes:
    """All targets of a subject.

    Attributes:
        targets: probed.
        sequences: how many.
    """

    targets: tuple[Probed, ...]
    sequences: int

    def as_json(self) -> dict[str, Any]:
        """{targets: [{name, chance, layers: [{layer, accuracy, stderr, control, selectivity}]}]}.

        `layer` is the block before which the stream is read; their number is behind the last.
        """
        return {
            "targets": [
                {
                    "name": target.name,
                    "chance": target.chance,
                    "layers": [_layer(target, place) for place in range(len(target.right_LS))],
                }
                for target in self.targets
            ]
        }

    def lines(self) -> list[str]:
        """Each target in a line: at the embedding, where it is read best, control and chance."""
        head = f"{'linear probes':<20}{'embedding':>10}{'best':>8}{'+-':>8}  {'where':<16}"
        rows = [f"{head}{'control':>8}{'chance':>8}"]
        for target in self.targets:
            mean_L = target.right_LS.mean(axis=1)
            best = int(mean_L.argmax())
            found = target.accuracy(best)
            where = _place(best, len(mean_L) - 1)
            rows.append(
                f"{target.name:<20}{mean_L[0]:>10.3f}{found.value:>8.3f}{_error(found):>8}  "
                f"{where:<16}{target.control_LS[best].mean():>8.3f}{target.chance:>8.3f}"
            )
        return [*rows, f"share of rows right, over {self.sequences} sequences, each held out once"]


def linear_probes(subject: Subject) -> LinearProbes:
    """Probes for what the clean sequences allow, on the stream before each block and after all.

    Logistic regression, of many classes ridge; trained on three quarters of the sequences, tested
    on the rest, each sequence once. Control labels are drawn at random for every type of row, in
    the shares of the true ones (Hewitt & Liang 2019): for the class of a token the type is the
    token; for what hangs on other tokens it is all that was read so far, since a label of the
    present token would be read off the embedding however little the probe can learn by heart.

    Raises:
        ValueError: with fewer sequences than folds.
    """
    tokens_ST = subject.pairs.tokens_A_ST
    context = Context(tokens_ST, subject.spell)
    stream_LSTD = streams(subject.anatomy, tokens_ST)
    rng = np.random.default_rng(subject.seed)
    found = [probe(target, stream_LSTD, rng) for target in targets(context)]
    return LinearProbes(tuple(p for p in found if p is not None), len(tokens_ST))


def streams(anatomy: Anatomy, tokens_ST: np.ndarray) -> np.ndarray:
    """The residual stream of a model, float32 [L, S, T, D]."""
    surgery = Surgery(anatomy, _BATCH)
    parts = []
    for start in range(0, len(tokens_ST), _BATCH):
        tokens = torch.from_numpy(tokens_ST[start : start + _BATCH]).long()
        parts.append(np.stack([x.float().cpu().numpy() for x in surgery.record(tokens).stream]))
    return np.concatenate(parts, axis=1)


def targets(context: Context) -> list[Target]:
    """What can be asked of these sequences."""
    tokens_ST, shape = context.tokens_ST, context.tokens_ST.shape
    prefix_ST = context.prefixes_ST()
    eighth_T = np.arange(shape[1]) * _PARTS // shape[1]
    asked = [
        Target("previous token", context.previous_ST, prefix_ST),
        Target("repeated before", context.repeated_ST.astype(np.int64), prefix_ST),
        Target("position, in eighths", np.broadcast_to(eighth_T, shape), prefix_ST),
    ]
    if context.class_ST is not None:
        next_ST = np.full(shape, NONE)
        next_ST[:, :-1] = context.class_ST[:, 1:]
        asked += [
            Target("token class", context.class_ST, tokens_ST),
            Target("next token's class", next_ST, prefix_ST),
        ]
    if context.brackets is not None:
        asked.append(Target("bracket depth", context.brackets[0], prefix_ST))
    return asked


def probe(target: Target, stream_LSTD: np.ndarray, rng: np.random.Generator) -> Probed | None:
    """One target at all places of the depth; None where it has fewer than two labels.

    Args:
        target: its rows with NONE, and those of labels too rare to be held out, are left out.
        stream_LSTD: residual rows.
        rng: draws the control labels.

    Raises:
        ValueError: with fewer sequences than folds.
    """
    sequences = len(target.label_ST)
    if sequences < FOLDS:
        raise ValueError(f"sequences: got {sequences}, allowed >= {FOLDS} (one is held out)")
    kept_ST = _frequent(target.label_ST)
    label_R, type_R = target.label_ST[kept_ST], target.type_ST[kept_ST]
    classes, counts = np.unique(label_R, return_counts=True)
    sequence_R = np.nonzero(kept_ST)[0]
    if len(classes) < 2 or len(np.unique(sequence_R)) < FOLDS:
        return None
    control_R = control_labels(label_R, type_R, rng)
    right, control, coefficients = [], [], []
    for x_STD in stream_LSTD:
        x_RD = x_STD[kept_ST].astype(np.float64)
        right.append(held_out(x_RD, label_R, sequence_R))
        control.append(held_out(x_RD, control_R, sequence_R))
        coefficients.append(_classifier(classes).fit(x_RD, label_R)[-1].coef_)
    return Probed(
        target.name, classes, float(counts.max() / counts.sum()), np.stack(right),
        np.stack(control), tuple(coefficients),
    )  # fmt: skip


def control_labels(label_R: np.ndarray, type_R: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A label for each type, drawn as often as the true ones occur.

    Args:
        label_R: true labels.
        type_R: rows of equal type get equal labels.
        rng: of the draw.
    """
    types, of_R = np.unique(type_R, return_inverse=True)
    return rng.choice(label_R, size=len(types))[of_R]


def held_out(x_RD: np.ndarray, label_R: np.ndarray, sequence_R: np.ndarray) -> np.ndarray:
    """The share of right rows of each sequence, from probes that did not see it.

    Args:
        x_RD: rows.
        label_R: classes.
        sequence_R: which sequence a row is of; whole ones are held out.
    """
    right_R = np.empty(len(label_R), dtype=bool)
    for train, test in GroupKFold(FOLDS).split(x_RD, label_R, sequence_R):
        known = np.unique(label_R[train])
        if len(known) == 1:  # control labels of a few types can all be the same
            right_R[test] = label_R[test] == known[0]
            continue
        model = _classifier(known).fit(x_RD[train], label_R[train])
        right_R[test] = model.predict(x_RD[test]) == label_R[test]
    present, of_R = np.unique(sequence_R, return_inverse=True)
    return np.bincount(of_R, right_R, len(present)) / np.bincount(of_R)


def _classifier(classes: np.ndarray) -> Pipeline:
    if len(classes) <= _FEW:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=1.0))


def _frequent(label_ST: np.ndarray) -> np.ndarray:
    """Rows whose label occurs in more sequences than a fold holds; of many labels in two."""
    held = -(-len(label_ST) // FOLDS)
    labels = np.unique(label_ST[label_ST != NONE])
    within = np.array([(label_ST == label).any(axis=1).sum() for label in labels])
    least = 2 if len(labels) > _FEW else held + 1
    return np.isin(label_ST, labels[within >= least])


def _layer(target: Probed, place: int) -> dict[str, Any]:
    accuracy = target.accuracy(place)
    return {
        "layer": place,
        "accuracy": accuracy.value,
        "stderr": accuracy.stderr,
        "control": float(target.control_LS[place].mean()),
        "selectivity": target.selectivity(place).value,
    }


def _place(place: int, blocks: int) -> str:
    if place == 0:
        return "at the embedding"
    return "behind the last" if place == blocks else f"before block {place}"


def _error(x: Estimate) -> str:
    return "?" if x.stderr is None else f"{x.stderr:.2g}"
