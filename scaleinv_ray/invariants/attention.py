"""Attention patterns of a head: how mass falls with distance, and the topology of its graph.

Shape suffixes: S sequences, T tokens (queries x keys), N tokens that are kept, W distances of the
fit, Q queries, G grid of filtration values.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from scaleinv_ray.contract import Curve, Diagram, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, exact, mean_of, unknown
from scaleinv_ray.invariants.common.persistent_homology import betti_numbers, rips_diagram
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.common.subsamples import mean_curve
from scaleinv_ray.records import Attention
from scaleinv_ray.resample import jackknife

_ROW_SUM = 4e-3
"""Deviation of a row's sum from 1: entries rounded to bfloat16 may add up to 2^-9 = 2e-3."""
_FEWEST = 4
"""Distances, at least, through which a power law is fitted."""


@invariant(
    quantities={
        "decay_exponent": Quantity(
            law="constant",
            unit=1.0,
            meaning=(
                "Exponent with which attention falls over the distance to the key; uniform "
                "attention has 0"
            ),
        ),
        "mean_distance": Quantity(
            law="constant",
            unit=1.0,
            meaning=(
                "Mean distance from query to key, over that of uniform attention; uniform 1, the "
                "query itself 0"
            ),
        ),
        "entropy": Quantity(
            law="constant",
            unit=1.0,
            meaning="Entropy of attention over ln of the number of keys; uniform 1, a single key 0",
        ),
        "sink_mass": Quantity(
            law="constant", unit=1.0, meaning="Share of attention that goes to the first position"
        ),
        "sink_mass_uniform": Quantity(
            law="none",
            control=True,
            meaning="Share of attention at the first position were it uniform",
        ),
    },
    curves={
        "mass": "Attention paid at a distance; distance in tokens",
        "mass_uniform": "Attention paid at a distance, were it even; distance in tokens",
    },
    version=2,
)
def attention_decay(
    attention: Attention, *, rng: np.random.Generator, skip_positions: int = 1
) -> Measured:
    """How attention falls with the distance from query to key, against the uniform causal 1 / t.

    With queries t and keys s counted from 0, distance r = t - s + 1, and the first
    `skip_positions` keys (the sink) left out of whatever concerns distance:

    decay_exponent = -slope of log m(r) over log r, r = 1..W, with m(r) the mean mass at r over the
    queries that have all W = (T - skip_positions) // 2 distances before them, weights 1 / r (every
    octave counts alike). The queries being the same at every r, a ~ r^-gamma gives gamma and
    uniform attention 0, exactly; over all queries with a key at r the falling 1 / t would itself
    look like a decay, .29 at T = 128 (curve `mass_uniform`).
    mean_distance = sum a (t - s) / sum a (t - skip) / 2: uniform 1, the query itself 0, at most 2.
    entropy = mean over t >= 1 of -sum_s a log a / log(t + 1): uniform 1, a single key 0.
    sink_mass = mean over t >= 1 of a_(t,0); sink_mass_uniform = mean of 1 / (t + 1).

    No symmetry is declared: renaming tokens changes their distances.

    Args:
        attention: a_STT, rows of causal distributions.
        rng: not used, nothing is drawn.
        skip_positions: first positions that count as sink.

    Returns:
        Quantities as declared, errors over the sequences (of the exponent by the jackknife),
        unknown where there is one; decay_exponent refused where no mass is at some r,
        mean_distance where a sequence has none off the sink. Curves `mass` (x = r, y = mean mass
        over the queries with a key at r) and `mass_uniform`.

    Raises:
        ValueError: unless a_STT has S square matrices, and for skip_positions < 0.
        Refused: where rows are no distributions, see later tokens, or fewer than 8 are left.
    """
    sound(attention)
    a_STT = _patterns(attention, skip_positions, fewest=2 * _FEWEST)
    num_tokens = a_STT.shape[1]
    ahead = float(np.triu(a_STT, k=1).max())
    if ahead > _ROW_SUM:
        raise Refused(f"a_STT: got {ahead} on a key after its query, needs causal attention")
    kept_SNN = a_STT[:, skip_positions:, skip_positions:]
    uniform_1TT = (np.tri(num_tokens) / np.arange(1, num_tokens + 1)[:, None])[None]
    distance_N = np.arange(1.0, kept_SNN.shape[1] + 1)
    return Measured(
        values={
            "decay_exponent": _decay_exponent(kept_SNN),
            "mean_distance": _mean_distance(kept_SNN),
            "entropy": mean_of(_entropy(a_STT), "sequences"),
            "sink_mass": mean_of(a_STT[:, 1:, 0].mean(axis=1), "sequences"),
            "sink_mass_uniform": exact(uniform_1TT[0, 1:, 0].mean()),
        },
        curves={
            "mass": mean_curve(distance_N, _mass(kept_SNN)),
            "mass_uniform": Curve(
                distance_N,
                _mass(uniform_1TT[:, skip_positions:, skip_positions:])[0],
                np.zeros_like(distance_N),
            ),
        },
    )


@invariant(
    quantities={
        "total_persistence_0": Quantity(
            law="constant",
            meaning=(
                "Total length of the components of the attention graph, per token; larger is "
                "sparser"
            ),
        ),
        # Heads may have no loops. The unit is the value of noise: softmax of N(0, 1), 128 tokens.
        "total_persistence_1": Quantity(
            law="none",
            unit=0.06,
            meaning="Total length of the loops of the attention graph, per token",
        ),
        "max_persistence_1": Quantity(
            law="none",
            unit=0.13,
            meaning="Length of the longest loop of the attention graph, in attention weight",
        ),
    },
    curves={
        "betti_0": "Number of components; attention from which tokens are joined",
        "betti_1": "Number of loops; attention from which tokens are joined",
    },
)
def attention_topology(
    attention: Attention,
    *,
    rng: np.random.Generator,
    skip_positions: int = 1,
    num_grid: int = 101,
) -> Measured:
    """Persistent homology of the attention graph of a head, over Z/2.

    Tokens i and j are joined at t = 1 - max(a_ij, a_ji) (Kushnareva et al. 2021; the Rips
    filtration fills in the cliques), so that beta_k(t) are the Betti numbers of the graph whose
    edges have attention >= 1 - t. Pairs without attention join last, at t = 1. The sums of the
    bars' lengths are divided by the number of tokens.

    A sink joins every token to itself and fills every loop, as the apex of a cone, hence the
    first positions are left out; the share of the sink is in `attention_decay`. The number of
    tokens is the protocol's; values at different numbers are not comparable. The order of the
    tokens does not matter, save for which are skipped; no symmetry is declared.

    Args:
        attention: a_STT, rows of distributions, causal or not.
        rng: not used, nothing is drawn.
        skip_positions: first positions that count as sink.
        num_grid: filtration values in [0, 1] of the curves.

    Returns:
        Quantities as declared and curves `betti_k`, means over the sequences, errors over them and
        unknown where there is one; diagram `attention` of the first sequence.

    Raises:
        ValueError: unless a_STT has S square matrices, and for parameters outside their range.
        Refused: where rows are no distributions, or fewer than 4 are left.
    """
    sound(attention)
    if num_grid < 2:
        raise ValueError(f"num_grid: got {num_grid}, allowed >= 2")
    kept_SNN = _patterns(attention, skip_positions, fewest=4)[:, skip_positions:, skip_positions:]
    diagrams = [rips_diagram(_graph_distances(a_NN), max_dimension=1) for a_NN in kept_SNN]
    t_G = np.linspace(0, 1, num_grid)
    totals_S2 = np.array([_total_persistence(d) for d in diagrams]) / kept_SNN.shape[1]
    longest_S = [(d.death - d.birth)[d.dimension == 1].max(initial=0) for d in diagrams]
    return Measured(
        values={
            "total_persistence_0": mean_of(totals_S2[:, 0], "sequences"),
            "total_persistence_1": mean_of(totals_S2[:, 1], "sequences"),
            "max_persistence_1": mean_of(longest_S, "sequences"),
        },
        curves={
            f"betti_{k}": mean_curve(t_G, np.array([betti_numbers(d, k, t_G) for d in diagrams]))
            for k in (0, 1)
        },
        diagrams={"attention": diagrams[0]},
    )


def _patterns(attention: Attention, skip_positions: int, *, fewest: int) -> np.ndarray:
    """Checked patterns in float64, every row divided by its sum."""
    shape = attention.a_STT.shape
    if skip_positions < 0:
        raise ValueError(f"skip_positions: got {skip_positions}, allowed >= 0")
    if shape[1] - skip_positions < fewest:
        raise Refused(
            f"a_STT: got {shape[1]} tokens, {skip_positions} of them skipped, needs {fewest} left"
        )
    a_STT = np.asarray(attention.a_STT, dtype=np.float64)
    if a_STT.min() < 0:
        raise Refused("a_STT: got negative entries")
    sum_ST1 = a_STT.sum(axis=2, keepdims=True)
    off = float(np.abs(sum_ST1 - 1).max())
    if off > _ROW_SUM:
        raise Refused(f"a_STT: got a row whose sum is off 1 by {off}, allowed {_ROW_SUM}")
    return a_STT / sum_ST1


def _decay_exponent(a_SNN: np.ndarray) -> Estimate | Refused:
    num_distances = a_SNN.shape[1] // 2
    queries_Q = np.arange(num_distances - 1, a_SNN.shape[1])
    keys_QW = queries_Q[:, None] - np.arange(num_distances)
    mass_SW = a_SNN[:, queries_Q[:, None], keys_QW].mean(axis=1)
    held_W = (mass_SW > 0).sum(axis=0)
    num_sequences = len(mass_SW)
    # Each distance needs mass wherever one sequence is left out.
    if held_W.min() < min(2, num_sequences):
        empty = 1 + int(held_W.argmin())
        lacking = f"{num_sequences - held_W.min()} of {num_sequences} sequences"
        return Refused(f"decay_exponent: no mass at distance {empty} in {lacking}")
    distance_W = np.arange(1.0, num_distances + 1)

    def exponent(chosen: np.ndarray) -> float:
        # polyfit squares its weights: these are the 1 / r of the definition.
        log_mass_W = np.log(mass_SW[chosen].mean(axis=0))
        return -float(np.polyfit(np.log(distance_W), log_mass_W, 1, w=distance_W**-0.5)[0])

    if num_sequences == 1:
        return unknown(exponent(np.array([0])), n=1)
    return jackknife(exponent, num_sequences)


def _mass(a_SNN: np.ndarray) -> np.ndarray:
    """Mean mass at distance r = 1..N over the queries that have a key there, a sequence a row."""
    offsets = range(a_SNN.shape[1])
    return np.array([a_SNN.diagonal(-r, 1, 2).mean(axis=1) for r in offsets]).T


def _mean_distance(a_SNN: np.ndarray) -> Estimate | Refused:
    """Mean distance t - s over half of the largest possible, weighted by mass."""
    index_N = np.arange(a_SNN.shape[1])
    travelled_S = np.einsum("sqk,qk->s", a_SNN, np.subtract.outer(index_N, index_N))
    half_S = a_SNN.sum(axis=2) @ (index_N / 2)
    if not half_S.min() > 0:
        sunk = f"{int((half_S <= 0).sum())} of {len(half_S)} sequences"
        return Refused(f"mean_distance: no mass off the sink in {sunk}")
    return mean_of(travelled_S / half_S, "sequences")


def _entropy(a_STT: np.ndarray) -> np.ndarray:
    entropy_ST = entr(a_STT).sum(axis=2)[:, 1:]
    return (entropy_ST / np.log(np.arange(2, a_STT.shape[1] + 1))).mean(axis=1)


def _graph_distances(a_NN: np.ndarray) -> np.ndarray:
    distance_NN = 1 - np.maximum(a_NN, a_NN.T)
    np.fill_diagonal(distance_NN, 0)
    return np.maximum(distance_NN, 0, out=distance_NN)


def _total_persistence(diagram: Diagram) -> tuple[float, float]:
    length_B = diagram.death - diagram.birth
    of_dimension = [float(length_B[diagram.dimension == k].sum()) for k in (0, 1)]
    return of_dimension[0], of_dimension[1]
