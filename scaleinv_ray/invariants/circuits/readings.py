"""What linear probes and rules read of a model, in numbers that sizes can be compared by.

Shape suffixes: L places in the depth (embedding first, after the last block last), S sequences (the
replicates), K numbers of leaves.
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, exact, mean_of
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.common.subsamples import mean_curve
from scaleinv_ray.records import Readings
from scaleinv_ray.resample import jackknife


def probe_depth(right_LS: np.ndarray, control_LS: np.ndarray, *, chance: float) -> Measured:
    """Accuracy and selectivity of a linear probe against relative depth.

    accuracy = mean over all places of the depth; accuracy_chance = the share of the most frequent
    label, what a probe of no information has. selectivity = mean of accuracy - accuracy on control
    labels (Hewitt & Liang 2019), trivial 0: what reads nothing reads control labels as well.
    rise = the largest accuracy - that at the embedding, trivial 0 (where the label is a function of
    the token, or of a learned position); the place of the largest is taken from other sequences
    than those it is read on, so that noise does not raise it. rise_depth = the relative depth at
    which half of the rise is reached, on the line between places.

    Args:
        right_LS: share of rows of each held-out sequence that are read right.
        control_LS: the same of control labels.
        chance: share of the most frequent label.

    Returns:
        Quantities, errors over the sequences; rise_depth is refused where the rise is below two
        of its errors. Curves `accuracy` and `control` against relative depth 0..1.

    Raises:
        Refused: with fewer than three sequences or two places.

    >>> right = np.array([[0.2] * 4, [0.6] * 4, [1.0] * 4])
    >>> found = probe_depth(right, np.full((3, 4), 0.2), chance=0.2)
    >>> round(found.values["rise_depth"].value, 6), round(found.values["selectivity"].value, 6)
    (0.5, 0.4)
    """
    if right_LS.shape[0] < 2 or right_LS.shape[1] < 3:
        raise Refused(f"right_LS: got {right_LS.shape}, allowed >= 2 places and >= 3 sequences")
    depth_L = np.linspace(0, 1, len(right_LS))
    sum_L1 = right_LS.sum(axis=1, keepdims=True)
    best_S = (sum_L1 - right_LS).argmax(axis=0)
    rise = mean_of(right_LS[best_S, np.arange(len(best_S))] - right_LS[0], "sequences")
    return Measured(
        values={
            "accuracy": mean_of(right_LS.mean(axis=0), "sequences"),
            "accuracy_chance": exact(chance),
            "selectivity": mean_of((right_LS - control_LS).mean(axis=0), "sequences"),
            "rise": rise,
            "rise_depth": _rise_depth(right_LS, depth_L, rise),
        },
        curves={
            "accuracy": mean_curve(depth_L, right_LS.T),
            "control": mean_curve(depth_L, control_LS.T),
        },
    )


def _rise_depth(right_LS: np.ndarray, depth_L: np.ndarray, rise: Estimate) -> Estimate | Refused:
    if rise.value < 2 * (rise.stderr or 0.0) or rise.value <= 0:
        return Refused(f"rise_depth: got a rise of {rise}, allowed >= two of its errors")

    def depth(kept: np.ndarray) -> float:
        rise_L = right_LS[:, kept].mean(axis=1) - right_LS[0, kept].mean()
        return _half_way(depth_L, rise_L)

    return jackknife(depth, right_LS.shape[1])


def _half_way(x_K: np.ndarray, y_K: np.ndarray) -> float:
    """Where y first reaches half of its maximum, on the line between points."""
    half = y_K.max() / 2
    first = int((y_K >= half).argmax())
    if first == 0:
        return float(x_K[0])
    return float(np.interp(half, y_K[first - 1 : first + 1], x_K[first - 1 : first + 1]))


def rule_fidelity(agreed_KS: np.ndarray, leaves_K: np.ndarray, majority_S: np.ndarray) -> Measured:
    """How much of what a model decides few rules say.

    told = (f - f_majority) / (1 - f_majority) at the largest number of leaves: the share that rules
    tell of the decisions which the most frequent one alone does not; trivial 0, where rules on
    features are no better than no rule. told_at_2 = the same of trees of at most two leaves.
    leaves_half = the number of leaves, on the line between logarithms, that reaches half of the
    largest `told` of any size; simple models have 1, a table of tokens as many as it has lines.

    Args:
        agreed_KS: share of decisions of each held-out sequence that a tree makes too.
        leaves_K: of each tree, ascending.
        majority_S: of the decision that is most frequent elsewhere.

    Returns:
        Quantities by delete-one jackknife over sequences; leaves_half is refused where told is
        below two of its errors. Curve `fidelity` against ln of the number of leaves.

    Raises:
        Refused: with fewer than three sequences, where the majority tells everything, or without a
            tree of at most two leaves.

    >>> agreed = np.array([[0.5] * 4, [1.0] * 4])
    >>> found = rule_fidelity(agreed, np.array([1, 2]), np.full(4, 0.5))
    >>> found.values["told"].value, round(found.values["leaves_half"].value, 3)
    (1.0, 1.414)
    """
    count = agreed_KS.shape[1]
    if count < 3:
        raise Refused(f"agreed_KS: got {count} sequences, allowed >= 3")
    if majority_S.mean() >= 1:
        raise Refused("majority_S: got 1, one decision is all that the model makes")

    def told_K(kept: np.ndarray) -> np.ndarray:
        majority = majority_S[kept].mean()
        return (agreed_KS[:, kept].mean(axis=1) - majority) / max(1 - majority, 1e-300)

    log_K, few = np.log(leaves_K), int((leaves_K <= 2).sum()) - 1
    if few < 0:
        raise Refused(f"leaves_K: got {leaves_K.tolist()}, allowed to begin at 1 or 2")
    told = jackknife(lambda kept: float(told_K(kept)[-1]), count)
    half: Estimate | Refused = Refused(f"leaves_half: got told {told}, allowed >= two errors")
    if told.value > 2 * (told.stderr or 0.0):
        half = jackknife(lambda kept: float(np.exp(_half_way(log_K, told_K(kept)))), count)
    return Measured(
        values={
            "told": told,
            "told_at_2": jackknife(lambda kept: float(told_K(kept)[few]), count),
            "leaves_half": half,
        },
        curves={"fidelity": mean_curve(log_K, agreed_KS.T)},
    )


_CURVES = {
    "accuracy": "Rows where {} is read right; relative depth",
    "control": "Rows whose control label for {} is read; relative depth",
}


def _of_target(name: str, what: str) -> dict[str, Quantity]:
    """Quantities of a probe for something, by name."""
    says = {
        "accuracy": (
            None, f"Share of rows where a linear map reads {what}; chance: flag {name}_chance"
        ),
        "selectivity": (
            1.0, f"Accuracy for {what} above that on control labels; 0 where nothing is read"
        ),
        "rise": (
            1.0, f"Best accuracy for {what} above that at the embedding; 0: no block computes it"
        ),
        "depth": (
            1.0, f"Relative depth where half of the rise for {what} is reached; 0 at the embedding"
        ),
    }  # fmt: skip
    return {
        f"{name}_{quantity}": Quantity(law="constant", unit=unit, meaning=meaning)
        for quantity, (unit, meaning) in says.items()
    }


_TARGETS = {"previous": "the previous token", "repeated": "a repeated token"}


@invariant(
    quantities={k: q for name, what in _TARGETS.items() for k, q in _of_target(name, what).items()},
    curves={
        f"{name}_{curve}": said.format(what)
        for name, what in _TARGETS.items()
        for curve, said in _CURVES.items()
    },
)
def probes(readings: Readings, *, rng: np.random.Generator) -> Measured:
    """What linear probes read off the stream: the previous token, and whether one is repeated.

    Both are functions of token ids that no embedding has without its position. Accuracy says that
    something can be read, not that the model uses it; see `probe_depth`.

    Args:
        readings: of one model on one probe.
        rng: not used, nothing is drawn.

    Returns:
        Of each target accuracy and selectivity, means over depth, rise and its depth, errors over
        held-out sequences. Flags: chance of each.

    Raises:
        Refused: where the sequences have neither target, and as `probe_depth`.
    """
    sound(readings)
    arrays = {
        "previous": (readings.previous_LS, readings.previous_control_LS, readings.previous_chance),
        "repeated": (readings.repeated_LU, readings.repeated_control_LU, readings.repeated_chance),
    }
    if all(right_LS is None for right_LS, *_ in arrays.values()):
        raise Refused("readings: got sequences without enough previous or repeated tokens")
    found = Measured({})
    for name, (right_LS, control_LS, chance) in arrays.items():
        found = _joined(found, _of_probe(name, right_LS, control_LS, chance))
    return found


def _joined(one: Measured, other: Measured) -> Measured:
    return Measured(
        {**one.values, **other.values}, {**one.curves, **other.curves},
        flags={**one.flags, **other.flags},
    )  # fmt: skip


def _of_probe(
    name: str, right_LS: np.ndarray | None, control_LS: np.ndarray | None, chance: float | None
) -> Measured:
    names = {"accuracy": "accuracy", "selectivity": "selectivity", "rise": "rise",
             "depth": "rise_depth"}  # fmt: skip
    if right_LS is None or control_LS is None or chance is None:
        none = Refused(f"{name}: got too few rows of it in these sequences")
        return Measured({f"{name}_{ours}": none for ours in names})
    found = probe_depth(right_LS, control_LS, chance=chance)
    return Measured(
        {f"{name}_{ours}": found.values[theirs] for ours, theirs in names.items()},
        {f"{name}_{curve}": found.curves[curve] for curve in _CURVES},
        flags={f"{name}_chance": round(chance, 4)},
    )


@invariant(
    quantities={
        "rules_told": Quantity(
            law="constant",
            unit=1.0,
            meaning="Share of decisions that rules tell beyond the most frequent one; 0 of no rule",
        ),
        "rules_told_at_2": Quantity(
            law="constant",
            unit=1.0,
            meaning="Share of decisions that two rules tell beyond the most frequent; 0 of no rule",
        ),
        "rules_half": Quantity(
            law="constant",
            meaning="Rules that tell half of what the most of them do; few of a simple model",
        ),
    },
    curves={"fidelity": "Decisions that rules make too; ln of the number of rules"},
)
def rules(readings: Readings, *, rng: np.random.Generator) -> Measured:
    """How much of what a model decides few rules on named features say: fidelity against leaves.

    Args:
        readings: of one model on one probe; rules of token ids alone.
        rng: not used, nothing is drawn.

    Returns:
        `rule_fidelity`: told, told_at_2 and leaves_half. Flags: decisions, majority (the fidelity
        of always the most frequent decision).

    Raises:
        Refused: as `rule_fidelity`.
    """
    sound(readings)
    leaves_K = readings.leaves_K
    if not np.issubdtype(leaves_K.dtype, np.integer) or (np.diff(leaves_K, prepend=0) < 1).any():
        raise Refused(f"leaves_K: got {leaves_K.tolist()!s:.60}, allowed ascending whole numbers")
    found = rule_fidelity(readings.agreed_KH, leaves_K, readings.majority_H)
    flags: dict[str, float | int | str] = {"majority": round(float(readings.majority_H.mean()), 4)}
    if readings.decisions is not None:
        flags["decisions"] = readings.decisions
    names = {"rules_told": "told", "rules_told_at_2": "told_at_2", "rules_half": "leaves_half"}
    return Measured(
        {ours: found.values[theirs] for ours, theirs in names.items()}, found.curves, flags=flags
    )
