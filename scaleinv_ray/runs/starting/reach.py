"""Which verdicts a series can reach at all, known before anything is measured."""

from __future__ import annotations

from collections import defaultdict

from scaleinv_ray.conclude.conservation.requirements import SEEDS_WANTED, missing_for_verdict
from scaleinv_ray.plan import Plan

_MODELS = "a model alone is looked at with `scaleinv inspect`"


def reach_lines(plan: Plan) -> list[str]:
    """What sizes, seeds and nulls of a plan allow to be concluded, by the rules of the verdicts.

    Args:
        plan: of a series.

    Returns:
        Lines: whether verdicts can be reached, else what is needed; what more seeds would change;
        which classes beside nulls cannot be given.
    """
    trained = _seeds_by_size(plan, "trained")
    if not trained:
        return []
    sizes = sorted(trained)
    missing = missing_for_verdict(sizes, [len(trained[n]) for n in sizes])
    if missing:
        alone = f"; {_MODELS}" if len(sizes) == 1 else ""
        return [f"verdicts: all will be undetermined: {missing}{alone}"]
    few = sum(len(seeds) < SEEDS_WANTED for seeds in trained.values())
    seeds = f"; {few} of them with 2 seeds, with {SEEDS_WANTED} more are decided" if few else ""
    lines = [f"verdicts: can be reached: {len(sizes)} sizes of 2 seeds or more{seeds}"]
    null = _seeds_by_size(plan, "random_init")
    known = sorted(null.keys() & trained.keys())
    lacking = missing_for_verdict(known, [len(null[n]) for n in known]) if known else "no models"
    if lacking:
        lines.append(
            "learned or trivial: will not be told apart: the variant random_init has "
            f"{lacking} (variants, null_steps)"
        )
    return lines


def _seeds_by_size(plan: Plan, variant: str) -> dict[int, set[tuple[str, int]]]:
    """Parameters -> the replicates of that size."""
    found: dict[int, set[tuple[str, int]]] = defaultdict(set)
    for unit in plan.units:
        if unit.variant == variant:
            found[unit.checkpoint.n_params].add((unit.checkpoint.model, unit.checkpoint.seed))
    return found
