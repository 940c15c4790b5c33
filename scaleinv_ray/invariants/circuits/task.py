"""Whether a model does the task whose circuit is asked for.

Shape suffixes: S sequences.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from scaleinv_ray.contract import Refused

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
