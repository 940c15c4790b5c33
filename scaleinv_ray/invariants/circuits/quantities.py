"""Quantities of a run that are read off the effects of components: how many, where, how additive.

None of them hangs on names or numbers of heads. Shape suffixes: N components, S sequences, K sizes,
L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.circuits.spread import (
    curve_exponent,
    depth_profile,
    jackknifed,
    participation,
    ranked,
    redundancy,
    signal_share,
    size_between,
    size_holding,
    sorted_effects,
)
from scaleinv_ray.invariants.circuits.task import of_circuit
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Effects


def _share(of: Estimate, count: int) -> Estimate:
    error = None if of.stderr is None else of.stderr / count
    return replace(of, value=of.value / count, stderr=error)


def _or_refused(of: Callable[[], Estimate]) -> Estimate | Refused:
    try:
        return of()
    except Refused as refusal:
        return refusal


@invariant(
    quantities={
        "participation_fraction": Quantity(
            law="constant",
            meaning=(
                "Components that share the effect, as a share of all; "
                "2/pi = .637 of Gaussian effects, which is no structure"
            ),
        ),
        "n90_fraction": Quantity(
            law="power_law",
            meaning=(
                "Share of components that hold 90 % of the sum of effects; "
                ".646 of Gaussian effects, which is no structure"
            ),
        ),
        "sorted_exponent": Quantity(
            law="constant",
            unit=1.0,
            meaning=(
                "Exponent with which effects fall with their rank; "
                "Gaussian effects have the flag trivial_exponent"
            ),
        ),
    },
    curves={
        "sorted": "Effect over the largest one; rank over the number of components",
        "half_normal": "The same of Gaussian effects; rank over the number of components",
    },
)
def concentration(effects: Effects, *, rng: np.random.Generator) -> Measured:
    """On how few components an answer hangs: participation, n90 and exponent of sorted effects.

    What sampling adds to |e| is taken out (`spread.participation`, `spread.magnitudes`): noise
    alone looks like Gaussian effects, whose values are the trivial ones.

    Args:
        effects: of one model on one probe in pairs.
        rng: not used, nothing is drawn.

    Returns:
        The quantities, errors by delete-one jackknife over sequences. Flags: components, signal,
        estimated (components a budget left to gradients), trivial_exponent.

    Raises:
        Refused: of a trained model that does not do the task, for a signal share below a half
            (`spread.signal_share`), and with fewer than four components.
    """
    x_NS = of_circuit(effects)
    curves = sorted_effects(x_NS)
    count = len(x_NS)

    def n90(y_NS: np.ndarray) -> float:
        return size_holding(ranked(y_NS).cumsum()) / count

    return Measured(
        {
            "participation_fraction": _share(participation(x_NS), count),
            "n90_fraction": _or_refused(lambda: jackknifed(n90, x_NS)),
            "sorted_exponent": _or_refused(
                lambda: jackknifed(lambda y_NS: curve_exponent(ranked(y_NS)), x_NS)
            ),
        },
        curves={
            "sorted": Curve(curves.rank_N, curves.effect_N),
            "half_normal": Curve(curves.rank_N, curves.half_normal_N),
        },
        flags={
            "components": count,
            "signal": round(signal_share(x_NS), 3),
            "estimated": int((effects.exact_N == 0).sum()),
            "trivial_exponent": round(curves.trivial_exponent, 3),
        },
    )


@invariant(
    quantities={
        "depth_centre": Quantity(
            law="constant",
            meaning=(
                "Mean relative depth of the effect, layers at their middle; "
                ".5 where all layers have as much"
            ),
        ),
        "depth_width": Quantity(
            law="constant",
            unit=0.29,
            meaning=(
                "Standard deviation of the relative depth of the effect; "
                "about .29 where all layers have as much"
            ),
        ),
    },
    curves={"profile": "Share of the effect; relative depth"},
)
def depth(effects: Effects, *, rng: np.random.Generator) -> Measured:
    """Where in the depth the components lie on which an answer hangs.

    Args:
        effects: of one model on one probe in pairs; the embedding counts as of the first layer.
        rng: not used, nothing is drawn.

    Returns:
        Centre and width, errors by delete-one jackknife over sequences.

    Raises:
        Refused: as `concentration`, and where nothing says how many layers there are.
    """
    if effects.num_layers is None:
        raise Refused("num_layers: got None, needed for a relative depth")
    x_NS = of_circuit(effects)
    if not np.issubdtype(effects.layer_N.dtype, np.integer):
        raise Refused(f"layers: got {effects.layer_N.dtype}, allowed whole numbers")
    layer_N, layers = np.maximum(effects.layer_N, 0), effects.num_layers
    profile = depth_profile(x_NS, layer_N, layers)
    depth_L = (np.arange(layers) + 0.5) / layers
    return Measured(
        {"depth_centre": profile.centre, "depth_width": profile.spread},
        curves={"profile": Curve(depth_L, profile.share_L)},
    )


@invariant(
    quantities={
        "n90_joint_fraction": Quantity(
            law="power_law",
            meaning=(
                "Share of components that do 90 % of what all do, replaced together; "
                "random sets have the flag random_n90"
            ),
        ),
        "redundancy": Quantity(
            law="constant",
            unit=1.0,
            meaning=(
                "Sum of single effects over the effect of all together; 1 where effects add up"
            ),
        ),
    },
    curves={
        "joint": "Share of the whole effect; share of components replaced",
        "random_joint": "The same of random sets of equal layers; share of components replaced",
    },
    version=2,
)
def together(effects: Effects, *, rng: np.random.Generator) -> Measured:
    """What components do together, beside what they do one by one.

    Args:
        effects: of one model on one probe in pairs; the ranking is of other sequences than those
            on which the sets were run.
        rng: not used, nothing is drawn.

    Returns:
        Both quantities, errors by delete-one jackknife over sequences; n90_joint_fraction is
        refused where a budget left nothing for it, redundancy where the joint effect is within two
        of its errors. Flags: random_n90, the median of random sets with as many components in
        every layer, and random_lower, the share of these draws that need no more components.

    Raises:
        Refused: as `concentration`.
    """
    x_NS = of_circuit(effects)
    along_KH, size_K = effects.along_KH, effects.size_K
    curves, n90 = {}, _or_refused(lambda: _joint_fraction(effects))
    if along_KH is not None and size_K is not None and along_KH[-1].mean() != 0:
        reached_K = along_KH.mean(axis=1) / along_KH[-1].mean()
        curves["joint"] = Curve(size_K / len(x_NS), reached_K)
    flags: dict[str, float | int | str] = {}
    if not isinstance(n90, Refused) and (random := _random_sets(effects)) is not None:
        curves["random_joint"], n90_D = random
        flags = {
            "random_n90": round(float(np.median(n90_D)), 3),
            "random_lower": round(float((n90_D <= n90.value).mean()), 3),
        }
    of_all = _or_refused(lambda: redundancy(x_NS, effects.all_S))
    return Measured({"n90_joint_fraction": n90, "redundancy": of_all}, curves=curves, flags=flags)


def _joint_fraction(effects: Effects) -> Estimate:
    along_KH, size_K = effects.along_KH, effects.size_K
    if along_KH is None or size_K is None:
        raise Refused("circuits.budget: got none left for sets of components")
    count = len(effects.effect_NS)
    if not ((np.diff(size_K, prepend=0) >= 1).all() and size_K[-1] <= count):
        raise Refused(
            f"sets of components: got sizes that do not rise, allowed rising in 1..{count}"
        )
    return jackknifed(lambda x_KH: _fraction(size_K, x_KH.mean(axis=1)), along_KH)


def _fraction(size_K: np.ndarray, along_K: np.ndarray) -> float:
    """N90 over the number of components; between sets that were run, straight lines."""
    return size_between(size_K, along_K) / int(size_K[-1])


def _random_sets(effects: Effects) -> tuple[Curve, np.ndarray] | None:
    """The median curve of random sets, and n90 of each draw over the number of components."""
    random_DKR, size_K = effects.random_DKR, effects.size_K
    if random_DKR is None or size_K is None:
        return None
    along_DK = random_DKR.mean(axis=2)
    if not along_DK[:, -1].all():
        return None
    middle_K = np.median(along_DK / along_DK[:, -1:], axis=0)
    n90_D = np.array([_fraction(size_K, along_K) for along_K in along_DK])
    return Curve(size_K / len(effects.effect_NS), middle_K), n90_D


@invariant(
    quantities={
        "top_effect": Quantity(
            law="none",
            unit=1.0,
            nats="per_token",
            meaning=(
                "Size of the largest effect, in units of the metric; "
                "of noise alone within two of its errors"
            ),
        ),
        "task_gap": Quantity(
            law="none",
            unit=1.0,
            nats="per_token",
            meaning=(
                "Metric of clean minus that of corrupted sequences; "
                "what all effects together are to explain"
            ),
        ),
    },
)
def strength(effects: Effects, *, rng: np.random.Generator) -> Measured:
    """How large the largest effect is, and the difference that all of them are to explain.

    The noise of each effect is taken out before the largest is (`spread.magnitudes`). It is never
    refused, so that it can be followed over training from steps on at which nothing is learned.

    Args:
        effects: of one model on one probe in pairs.
        rng: not used, nothing is drawn.

    Returns:
        Both quantities, errors by delete-one jackknife over sequences. Flags: accuracy, acceptance
        (share of the drawn pairs that could be used), forwards.

    Raises:
        Refused: with one sequence, whose noise cannot be told.
    """
    sound(effects)
    if effects.effect_NS.shape[1] < 2:
        raise Refused("sequences: got 1, needs 2: one has no noise to take out")
    gap_1S = (effects.clean_S - effects.corrupted_S)[None]
    told = {"accuracy": effects.accuracy, "acceptance": effects.acceptance,
            "forwards": effects.forwards}  # fmt: skip
    return Measured(
        {
            "top_effect": jackknifed(top_of, effects.effect_NS.astype(np.float64)),
            "task_gap": jackknifed(lambda x_1S: float(x_1S.mean()), gap_1S),
        },
        flags={name: value for name, value in told.items() if value is not None},
    )


def top_of(x_NS: np.ndarray) -> float:
    """The largest of `spread.magnitudes`."""
    return float(ranked(x_NS)[0])
