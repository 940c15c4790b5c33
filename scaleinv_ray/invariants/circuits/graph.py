"""Quantities of a run that are read off edges: how few of them do it, in how many modules.

Shape suffixes: F shares of edges, M components with the embedding and the logits, S sequences.
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.invariants.circuits.faithfulness import areas, faithfulness, random_areas
from scaleinv_ray.invariants.circuits.modules import modularity
from scaleinv_ray.invariants.circuits.task import of_circuit
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Effects


@invariant(
    quantities={
        "cpr": Quantity(
            law="power_law",
            meaning=(
                "Area under the faithfulness of circuits over the share of edges kept; "
                "1 at most; random edges: flag random_cpr"
            ),
        ),
        "cmd": Quantity(
            law="power_law",
            meaning=(
                "Area between the faithfulness of circuits and 1 over edges kept; "
                "0 at best; random edges: flag random_cmd"
            ),
        ),
    },
    curves={"faithfulness": "What the kept edges do alone, of the whole; share of edges kept"},
    version=2,
)
def circuit_areas(effects: Effects, *, rng: np.random.Generator) -> Measured:
    """How much of what a model does the largest edges do alone (MIB, arXiv:2504.13151).

    Args:
        effects: of one model on one probe in pairs, with edges.
        rng: not used, nothing is drawn.

    Returns:
        Both areas, errors by delete-one jackknife over sequences that have not ranked the edges.
        Flags: edges; random_cpr and random_cmd, medians of random edge sets of the same sizes.

    Raises:
        Refused: without edges, where A is not told from B by two errors, and as `concentration`.
    """
    sound(effects)
    if effects.kept_F is None or effects.alone_FH is None:
        raise Refused("circuits.edges: got false, needed for circuits of edges")
    of_circuit(effects)
    kept_F, alone_FH = effects.kept_F, effects.alone_FH.astype(np.float64)
    if not (np.diff(kept_F, prepend=0.0) > 0).all():
        raise Refused("edges kept: got shares that do not rise, allowed rising ones")
    ends = (effects.clean_S[effects.held_out], effects.corrupted_S[effects.held_out])
    if len(ends[0]) != alone_FH.shape[1]:
        raise Refused(f"alone_FH: got {alone_FH.shape[1]} sequences, allowed {len(ends[0])}")
    found = areas(kept_F, alone_FH, *ends)
    flags: dict[str, float | int | str] = {}
    if effects.num_edges is not None:
        flags["edges"] = effects.num_edges
    if effects.random_alone_GFQ is not None:
        try:
            random = random_areas(kept_F, effects.random_alone_GFQ.astype(np.float64), *ends)
        except Refused as refusal:
            flags["random"] = f"refused: {refusal}"
        else:
            flags |= {"random_cpr": round(random.cpr, 3), "random_cmd": round(random.cmd, 3)}
    f_F = faithfulness(alone_FH, *ends)
    return Measured(
        found._asdict(),
        curves={"faithfulness": Curve(np.append(0.0, kept_F), np.append(0.0, f_F))},
        flags=flags,
    )


@invariant(
    quantities={
        "modularity_excess": Quantity(
            law="constant",
            unit=0.1,
            meaning=(
                "Modularity of the graph of edge effects above that of rewirings; "
                "0 where strengths of components say all"
            ),
        ),
    },
)
def modules(effects: Effects, *, rng: np.random.Generator) -> Measured:
    """Whether components fall into modules: Louvain Q of their edges, minus that of rewirings.

    An edge weighs the size of its effect. Rewirings join the same pairs with the same strengths of
    components (`modules.modularity`): dense graphs of unequal weights have a Q above 0 without any
    module.

    Args:
        effects: of one model on one probe in pairs, with edges.
        rng: draws the rewirings, and the order in which Louvain goes over components.

    Returns:
        The excess, its error by delete-one jackknife over sequences at the modules found, with
        that of the mean of rewirings. Flags: q, rewired_q (their mean), p (the share of all these
        graphs that are at least as modular), modules (of two components or more).

    Raises:
        Refused: without edges, with fewer than four components that have any, and as
            `concentration`.
    """
    sound(effects)
    if effects.between_MMS is None:
        raise Refused("circuits.edges: got false, needed for modules of edges")
    of_circuit(effects)
    found = modularity(effects.between_MMS.astype(np.float64), rng=rng)
    return Measured(
        {"modularity_excess": found.excess},
        flags={
            "q": round(found.q, 4),
            "rewired_q": round(float(found.rewired_R.mean()), 4),
            "p": round(found.p, 4),
            "modules": int((np.bincount(found.module_N) > 1).sum()),
        },
    )
