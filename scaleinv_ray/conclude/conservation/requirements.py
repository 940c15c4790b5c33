"""What a series needs for a verdict, known before its values are."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_SIZES = 4
LEAST_RATIO = 8.0
SEEDS_WANTED = 3


def missing_for_verdict(n_params: Sequence[float], num_seeds: Sequence[int]) -> str:
    """What a series lacks for any verdict but undetermined, whatever its values are.

    Args:
        n_params: of each size, rising.
        num_seeds: of each size.

    Returns:
        The reasons; empty where there are none.

    >>> missing_for_verdict([1e6, 2e6, 4e6, 8e6], [3, 3, 3, 2])
    ''
    >>> missing_for_verdict([1e6, 8e6], [1, 3])
    '2 sizes, needs 4; one seed at 1 of 2 sizes, needs 2 (3 wanted)'
    """
    parts = []
    if len(n_params) < LEAST_SIZES:
        parts.append(f"{len(n_params)} sizes, needs {LEAST_SIZES}")
    if (ratio := float(n_params[-1] / n_params[0])) < LEAST_RATIO:
        parts.append(f"largest / smallest size is {ratio:.3g}, needs {LEAST_RATIO:g}")
    if single := sum(count < 2 for count in num_seeds):
        parts.append(
            f"one seed at {single} of {len(n_params)} sizes, needs 2 ({SEEDS_WANTED} wanted)"
        )
    return "; ".join(parts)
