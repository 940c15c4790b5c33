"""Whether a model does the task whose circuit is asked for, and which effects are one.

Shape suffixes: N components, S sequences.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.circuits.spread import check_signal
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Effects

LEVEL = 0.05


def check_done(metric: str, clean_S: np.ndarray, corrupted_S: np.ndarray) -> None:
    """Refuses a model that does not do the task: a circuit of a failing one is noise.

    A sequence counts as done where A's answers are preferred (logit_diff, prob_diff > 0), or are
    likelier after A than after B (loss, kl). By chance that is every second one.

    Args:
        metric: name.
        clean_S: m(A).
        corrupted_S: m(B).

    Raises:
        Refused: where it is not done more often than by chance at the level .05, one-sided.
    """
    done_S = clean_S > 0 if metric in {"logit_diff", "prob_diff"} else clean_S < corrupted_S
    done, count = int(done_S.sum()), len(done_S)
    p = stats.binomtest(done, count, 0.5, alternative="greater").pvalue
    if p >= LEVEL:
        raise Refused(
            f"the model does not do the task: got {done} of {count} sequences right (p = {p:.2g}), "
            f"allowed p < {LEVEL} against chance 1/2; its circuit would be noise"
        )


def check_enough(sequences: int) -> None:
    """Refuses so few sequences that all of them done would not be more than chance.

    Args:
        sequences: pairs.

    Raises:
        ValueError: for fewer than five.
    """
    if 0.5**sequences >= LEVEL:
        raise ValueError(
            f"sequences: got {sequences}, allowed >= {math.ceil(-math.log2(LEVEL))} (of fewer even "
            f"all are right by chance with p >= {LEVEL}: no sign that the model does the task)"
        )


def of_circuit(effects: Effects) -> np.ndarray:
    """Effects [N, S] that may be read as a circuit.

    Args:
        effects: of one model; an untrained one is a null, whatever it does.

    Returns:
        Its array, float64.

    Raises:
        Refused: of a trained model that does not do the task, and for a signal share below a half.
    """
    sound(effects)
    if effects.variant in {None, "trained"}:
        check_done(effects.metric, effects.clean_S, effects.corrupted_S)
    effect_NS = effects.effect_NS.astype(np.float64)
    check_signal(effect_NS)
    return effect_NS
