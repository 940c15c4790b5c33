"""Programs in weights: what each computes, and which edges it needs.

Shape suffixes: V tokens, T positions, N width of a space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from scaleinv_ray.circuitry.compiled.builder import Builder, Layout
from scaleinv_ray.inputs.wording import shown


@dataclass(frozen=True)
class Compiled:
    """A model and its circuit.

    Attributes:
        model: stock GPT-2, in eval mode.
        edges: that carry what it computes, where tokens are corrupted.
        says: what it computes.
    """

    model: GPT2LMHeadModel
    edges: frozenset[str]
    says: str


def induction(
    *, letters: int = 12, length: int = 24, beta: float = 8.0, gain: float = 8.0,
    constant: float = 1e3, dtype: torch.dtype = torch.float64,
) -> Compiled:  # fmt: skip
    """After a token comes what came after it before: two layers of four heads, one true in each.

    h0.0 moves the token before; h1.0 looks for the token whose predecessor is the present one and
    writes it out. Six other heads and both MLPs write what they see into a junk space.

    Args:
        beta: sharpness of attention.
        gain: logit of a token that is attended to wholly.
    """
    V = letters + 1
    spaces = {"token": V, "position": length, "before": V, "out": V, "junk": V}
    b = Builder(Layout(V, length, spaces, layers=2, heads=4, constant=constant), dtype=dtype)
    same, here = np.eye(V), np.eye(length)
    b.embed("token", same)
    b.positions("position", here)
    # query of position t is t - 1; the first has no predecessor and asks for itself
    back = np.eye(length, k=-1)
    back[0, 0] = 1.0
    # positions are matched sharply whatever beta: a blurred predecessor would be a third circuit
    sharp = ("position", 4 * beta * back), ("position", here)
    b.head(0, 0, query=sharp[0], key=sharp[1], value=("token", same), to="before")
    b.head(
        1, 0, query=("token", beta * same), key=("before", same), value=("token", same), to="out"
    )
    for layer in (0, 1):
        for head in (1, 2, 3):
            b.head(layer, head, value=("token", np.roll(same, head, axis=1)), to="junk")
        reads = {"token": np.eye(V, 4), "junk": np.ones((V, 4)) / V}
        b.mlp(layer, reads=reads, bias_U=np.full(4, 0.1), to="junk", writes_UN=np.eye(4, V))
    b.unembed("out", gain * same)
    edges = {"embed->v0.0", "h0.0->k1.0", "embed->q1.0", "embed->v1.0", "h1.0->logits"}
    return Compiled(b.model, frozenset(edges), "the token that came after this one before")


def _uniform(
    says: str, weigh_V: np.ndarray, unembed_V: np.ndarray, *, length: int, constant: float,
    dtype: torch.dtype,
) -> Compiled:  # fmt: skip
    """One head that attends to all positions alike; its mean of a weight is read linearly."""
    V = len(weigh_V)
    spaces = {"token": V, "mean": 1, "junk": V}
    b = Builder(Layout(V, length, spaces, layers=1, heads=2, constant=constant), dtype=dtype)
    b.embed("token", np.eye(V))
    b.head(0, 0, value=("token", weigh_V[:, None]), to="mean")
    b.head(0, 1, value=("token", np.eye(V)), to="junk")
    b.unembed("mean", unembed_V[None])
    return Compiled(b.model, frozenset({"embed->v0.0", "h0.0->logits"}), says)


def frac_prevs(
    *, letters: int = 4, length: int = 16, constant: float = 1e3,
    dtype: torch.dtype = torch.float64,
) -> Compiled:  # fmt: skip
    """The fraction of letter 1 so far is its logit; all others are 0. Linear in what is moved."""
    one_V = np.eye(letters + 1)[1]
    says = "the fraction of token 1 so far, as its logit"
    return _uniform(says, one_V, one_V, length=length, constant=constant, dtype=dtype)


def majority(
    *, length: int = 16, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """Whether there were more of letter 1 or of letter 2: logits +-10 times the mean of +-1."""
    sign_V = np.array([0.0, 1.0, -1.0])
    says = "which of tokens 1 and 2 came more often"
    return _uniform(says, sign_V, 10 * sign_V, length=length, constant=constant, dtype=dtype)


def dyck_depth(
    *, length: int = 16, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """Depth of brackets over position: letter 1 opens, letter 2 closes; logit of 2 is the mean."""
    sign_V, closes_V = np.array([0.0, 1.0, -1.0]), np.array([0.0, 0.0, 1.0])
    says = "the depth of brackets divided by their number, as the logit of the closing one"
    return _uniform(says, sign_V, closes_V, length=length, constant=constant, dtype=dtype)


def reverse(
    *, letters: int = 6, count: int = 5, constant: float = 1e3, beta: float = 40.0,
    dtype: torch.dtype = torch.float64,
) -> Compiled:  # fmt: skip
    """Letters, then the same ones from the end: t >= count - 1 asks for 2 count - 2 - t."""
    V, length = letters + 1, 2 * count
    spaces = {"token": V, "position": length, "out": V}
    b = Builder(Layout(V, length, spaces, layers=1, heads=2, constant=constant), dtype=dtype)
    b.embed("token", np.eye(V))
    b.positions("position", np.eye(length))
    asks = np.zeros((length, length))
    for t in range(length):
        asks[t, min(t, 2 * count - 2 - t) if t < 2 * count - 1 else 0] = beta
    b.head(
        0, 0, query=("position", asks), key=("position", np.eye(length)),
        value=("token", np.eye(V)), to="out",
    )  # fmt: skip
    b.unembed("out", 10 * np.eye(V))
    says = "the letters in reverse order"
    return Compiled(b.model, frozenset({"embed->v0.0", "h0.0->logits"}), says)


def _two_heads(
    says: str, second: float, edges: set[str], *, length: int, constant: float, dtype: torch.dtype,
    saturating: bool,
) -> Compiled:  # fmt: skip
    """Two heads that move whether the first token is letter 1, each into its own space."""
    V = 3
    spaces = {"token": V, "position": length, "one": 1, "two": 1, "out": 1}
    b = Builder(Layout(V, length, spaces, layers=1, heads=2, constant=constant), dtype=dtype)
    b.embed("token", np.eye(V))
    b.positions("position", np.eye(length))
    first = np.zeros((length, length))
    first[:, 0] = 40.0
    for head, (to, sign) in enumerate((("one", 1.0), ("two", second))):
        b.head(
            0, head, query=("position", first), key=("position", np.eye(length)),
            value=("token", sign * np.eye(V)[:, [1]]), to=to,
        )  # fmt: skip
    one_V = np.array([[0.0, 1.0, 0.0]])
    if saturating:
        # min(1, a + b) = relu(a + b) - relu(a + b - 1)
        reads = {"one": np.ones((1, 2)), "two": np.ones((1, 2))}
        b.mlp(0, reads=reads, bias_U=np.array([0.0, -1.0]), to="out",
              writes_UN=np.array([[1.0], [-1.0]]))  # fmt: skip
        b.unembed("out", one_V)
    else:
        b.unembed("one", one_V)
        b.unembed("two", one_V)
    return Compiled(b.model, frozenset(edges), says)


def either(
    *, length: int = 8, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """An OR of two heads: whether the first token is letter 1, from either; one alone is enough."""
    edges = {"embed->v0.0", "embed->v0.1", "h0.0->m0", "h0.1->m0", "m0->logits"}
    says = "whether the first token is 1, by either of two heads"
    return _two_heads(
        says, 1.0, edges, length=length, constant=constant, dtype=dtype, saturating=True
    )


def contains(
    *, length: int = 8, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """Whether letter 1 came so far: its fraction saturates at one letter; its logit is then 2.

    Everywhere else it is -2. The steps of the MLP lie halfway between whole numbers of letters.
    """
    V = 3
    spaces = {"token": V, "share": 1, "out": 1}
    b = Builder(
        Layout(V, length, spaces, layers=1, heads=1, units=2, constant=constant), dtype=dtype
    )
    one_V = np.eye(V)[1]
    b.embed("token", np.eye(V))
    b.head(0, 0, value=("token", one_V[:, None]), to="share")
    # relu(x - 1/2) - relu(x - 3/2) is [x >= 2]; one letter of at most `length` is x >= 2
    b.mlp(0, reads={"share": np.full((1, 2), 2.0 * length)}, bias_U=np.array([-0.5, -1.5]),
          to="out", writes_UN=np.array([[1.0], [-1.0]]))  # fmt: skip
    b.unembed("out", 4 * one_V[None], -2 * one_V)
    edges = {"embed->v0.0", "h0.0->m0", "m0->logits"}
    return Compiled(b.model, frozenset(edges), "whether token 1 came so far")


def cancelling(
    *, length: int = 8, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """Two heads that write opposite numbers: each has an effect, both together none."""
    edges = {"embed->v0.0", "embed->v0.1", "h0.0->logits", "h0.1->logits"}
    says = "nothing: two heads write opposite numbers"
    return _two_heads(
        says, -1.0, edges, length=length, constant=constant, dtype=dtype, saturating=False
    )


def sort(
    *, letters: int = 3, count: int = 5, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """Letters, then the same ones in order, by counting: the answer at count - 1 + i is the i-th.

    The head takes the fraction of each letter among the first `count` positions; the MLP gives
    [C_a > i] for the number C_a of letters up to a, whose differences are the logits.
    """
    V, length = letters + 1, 2 * count
    spaces = {"token": V, "position": length, "share": V, "more": V}
    layout = Layout(V, length, spaces, layers=1, heads=2, units=2 * V, constant=constant)
    b = Builder(layout, dtype=dtype)
    b.embed("token", np.eye(V))
    b.positions("position", np.eye(length))
    asks = np.full((length, 1), 40.0)
    given = (np.arange(length) < count).astype(float)[:, None]
    b.head(0, 0, query=("position", asks), key=("position", given),
           value=("token", np.eye(V)), to="share")  # fmt: skip
    upto_VV = count * np.triu(np.ones((V, V)))
    rank_TV = -np.clip(np.arange(length) - (count - 1), 0, None)[:, None] * np.ones((1, V))
    # a step between whole numbers: relu(x) - relu(x - 1) is [x > 0]
    reads = {"share": np.hstack([upto_VV] * 2), "position": np.hstack([rank_TV] * 2)}
    bias_U = np.repeat([0.0, -1.0], V)
    b.mlp(0, reads=reads, bias_U=bias_U, to="more", writes_UN=np.vstack([np.eye(V), -np.eye(V)]))
    # letter a is the i-th where C_a > i and not C_(a-1) > i
    b.unembed("more", 10 * (np.eye(V) - np.eye(V, k=1)))
    edges = {"embed->v0.0", "h0.0->m0", "m0->logits"}
    return Compiled(b.model, frozenset(edges), "the letters in order")


PROGRAMS: Mapping[str, Callable[..., Compiled]] = MappingProxyType({
    program.__name__: program
    for program in (
        induction, frac_prevs, majority, dyck_depth, reverse, either, contains, cancelling, sort
    )
})  # fmt: skip
"""Name -> what makes the model."""


def compile_program(
    name: str, *, constant: float = 1e3, dtype: torch.dtype = torch.float64
) -> Compiled:
    """A program of its usual size.

    Args:
        name: a key of `PROGRAMS`.
        constant: C of the norms; see `builder.Layout`.
        dtype: of its weights; float32 is what a saved model has, with a constant of 1e3 at most.

    Raises:
        ValueError: for an unknown program.
    """
    if name not in PROGRAMS:
        raise ValueError(f"program: got {shown(name)}, allowed {sorted(PROGRAMS)}")
    return partial(PROGRAMS[name], constant=constant, dtype=dtype)()
