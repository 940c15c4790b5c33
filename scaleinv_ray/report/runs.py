"""The single runs that the figures over training draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scaleinv_ray.report.pack import rounded

MOST_RUNS = 120
"""Lines of a figure: of more the first seeds of each size are drawn."""
DIGITS = 5


def with_drawn_runs(
    slices: Iterable[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Slices with the runs that are drawn of each: those with several checkpoints.

    Args:
        slices: what `series.over_seeds` returns.

    Returns:
        The slices, whose `runs` are `of` (places among the runs), `steps` and `values` of each, and
        `left_out`, the number of runs beyond `MOST_RUNS`; and the runs: [model, seed, n_params].

    >>> runs = [["m", 0, 10, step, step / 4, True] for step in (2, 1)]
    >>> [slice], named = with_drawn_runs([{"quantity": "q", "runs": runs}])
    >>> slice["runs"], named
    ({'of': [0], 'steps': [[1, 2]], 'values': [[0.25, 0.5]], 'left_out': 0}, [['m', 0, 10]])
    """
    places: dict[tuple[Any, ...], int] = {}
    out = []
    for entry in slices:
        curves: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
        for model, seed, n_params, step, value, follows in entry["runs"]:
            if step is not None and follows:
                curves.setdefault((model, seed, n_params), []).append((step, value))
        several = [run for run, curve in curves.items() if len(curve) > 1]
        drawn = _chosen(several)
        ordered = [sorted(curves[run]) for run in drawn]
        out.append({
            **entry,
            "runs": {
                "of": [places.setdefault(run, len(places)) for run in drawn],
                "steps": [[step for step, _ in curve] for curve in ordered],
                "values": [[rounded(value, DIGITS) for _, value in curve] for curve in ordered],
                "left_out": len(several) - len(drawn),
            },
        })
    return out, [list(run) for run in places]


def _chosen(runs: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """As many runs as are drawn: the first of every size, then the second of every size .."""
    if len(runs) <= MOST_RUNS:
        return runs
    nth: dict[int, int] = {}
    rank = {}
    for at, run in enumerate(runs):
        nth[run[2]] = nth.get(run[2], -1) + 1
        rank[run] = (nth[run[2]], at)
    kept = set(sorted(runs, key=rank.__getitem__)[:MOST_RUNS])
    return [run for run in runs if run in kept]
