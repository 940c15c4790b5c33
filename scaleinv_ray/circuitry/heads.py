"""What each head looks at and what it passes on, in eight numbers that hang on no name.

Shape suffixes: S sequences, T tokens (queries x keys), H heads, K width of a head, D width,
N tokens that are sampled, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import entr

from scaleinv_ray.capture.by_kind.attention import patterns
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy

_SAMPLED = 128
"""Tokens, at most, on which copying is measured."""
_SHOWN = 8


class Looks(NamedTuple):
    """Where the attention of a head goes, means over queries after the first.

    Attributes:
        previous: to the token before.
        first: to the first token.
        own: to the token itself.
        entropy: over ln of the number of keys; uniform attention has 1.
        distance: mean distance over the largest possible; uniform attention has 1/2.
        prefix: to the places behind earlier occurrences of the token, over queries that have some;
            uniform attention has their share of the keys.
    """

    previous: float
    first: float
    own: float
    entropy: float
    distance: float
    prefix: float


class Copies(NamedTuple):
    """What a head does with the token that it attends to.

    Attributes:
        copying: how far the token's own logit stands out among those that it gives, in standard
            deviations; trivial 0.
        eigenvalues: sum of the real parts of the eigenvalues of that map of tokens to logits, over
            the sum of their sizes: 1 copies, -1 suppresses, trivial 0 (Elhage et al. 2021).
    """

    copying: float
    eigenvalues: float


FEATURES = (*Looks._fields, *Copies._fields)


@dataclass(frozen=True)
class Signatures:
    """All heads of a model.

    Attributes:
        names: as `h1.3`.
        depth_H: relative, (layer + 1/2) / layers; no part of a signature.
        rows_HF: signatures, as `invariants.circuits.match` takes them; columns are `FEATURES`.
        uniform: the prefix match of uniform attention.
    """

    names: tuple[str, ...]
    depth_H: np.ndarray
    rows_HF: np.ndarray
    uniform: float

    def as_json(self) -> dict[str, Any]:
        """{heads: [{name, depth, previous, first, own, entropy, distance, prefix, copying, ..}]}.

        The last key is `eigenvalues`.
        """
        rows = zip(self.names, self.depth_H, self.rows_HF, strict=True)
        return {
            "heads": [
                {"name": name, "depth": float(depth)}
                | dict(zip(FEATURES, map(float, row_F), strict=True))
                for name, depth, row_F in rows
            ]
        }

    def lines(self) -> list[str]:
        """The heads that stand out most in attention, and what each of them looks at."""
        rows_HF = self.rows_HF
        head = f"{'head':<7}" + "".join(f"{name:>9}" for name in (*FEATURES[:-1], "eigen"))
        # a head with most of its mass in one kind of place is one that can be named
        marked_H = rows_HF[:, [0, 1, 2, 5]].max(axis=1)
        order = np.argsort(-marked_H, kind="stable")[:_SHOWN]
        found = [f"{self.names[h]:<7}" + "".join(f"{x:>9.3f}" for x in rows_HF[h]) for h in order]
        left = len(self.names) - len(order)
        rest = f".. and {left} more; " if left else ""
        return [
            "heads by the largest share of attention that one kind of place gets",
            head,
            *found,
            f"{rest}uniform attention: prefix {self.uniform:.3f}, entropy 1, distance .5",
        ]


def signatures(subject: Subject) -> Signatures:
    """Signatures of all heads on the clean sequences.

    Raises:
        ValueError: for sequences that repeat no token; a model whose embedding is narrower than its
            stream.
    """
    return signatures_of(subject.anatomy, subject.pairs.tokens_A_ST, seed=subject.seed)


def signatures_of(anatomy: Anatomy, tokens_ST: np.ndarray, *, seed: int = 0) -> Signatures:
    """Signatures of the heads of a model; those of several are compared on the same tokens.

    Args:
        anatomy: of the model.
        tokens_ST: that repeat some of their tokens.
        seed: of the tokens that copying is measured on, where there are many.

    Raises:
        ValueError: see `signatures`.
    """
    behind_STT = behind_earlier(tokens_ST)
    ids = np.unique(tokens_ST)
    if len(ids) > _SAMPLED:
        ids = np.random.default_rng(seed).choice(ids, _SAMPLED, replace=False)
    found, names, depths = [], [], []
    for layer, a_HSTT in patterns(anatomy.model, tokens_ST).items():
        copies = copying(anatomy, layer, np.sort(ids))
        for head, a_STT in enumerate(a_HSTT):
            found.append((*looks(a_STT.astype(np.float64), behind_STT), *copies[head]))
            names.append(f"h{layer}.{head}")
            depths.append((layer + 0.5) / anatomy.graph.layers)
    keys_T1 = np.arange(1.0, tokens_ST.shape[1] + 1)[:, None]
    uniform_STT = np.broadcast_to(np.tri(len(keys_T1)) / keys_T1, behind_STT.shape)
    uniform = looks(uniform_STT, behind_STT).prefix
    return Signatures(tuple(names), np.array(depths), np.array(found), uniform)


def behind_earlier(tokens_ST: np.ndarray) -> np.ndarray:
    """Which places stand behind an earlier occurrence of the query's token: bool [S, T, T].

    Args:
        tokens_ST: ids.

    Raises:
        ValueError: where there is no such place.
    """
    found_STT = np.zeros((*tokens_ST.shape, tokens_ST.shape[1]), dtype=bool)
    found_STT[:, :, 1:] = tokens_ST[:, :, None] == tokens_ST[:, None, :-1]
    # the occurrence is earlier than the query, what follows it is no later
    found_STT &= np.tri(tokens_ST.shape[1], dtype=bool)
    if not found_STT.any():
        raise ValueError("tokens: got sequences that repeat no token, allowed some that do")
    return found_STT


def looks(a_STT: np.ndarray, behind_STT: np.ndarray) -> Looks:
    """Where attention goes, in one head.

    Args:
        a_STT: causal distributions, rows of queries.
        behind_STT: of `behind_earlier`.

    >>> a = np.eye(3)[None]
    >>> looks(a, behind_earlier(np.array([[1, 2, 1]])))[:5]
    (0.0, 0.0, 1.0, 0.0, 0.0)
    """
    at_T = np.arange(a_STT.shape[1])
    distance_TT = at_T[:, None] - at_T
    some_ST = behind_STT.any(axis=2)
    return Looks(
        previous=float(a_STT.diagonal(-1, 1, 2).mean()),
        first=float(a_STT[:, 1:, 0].mean()),
        own=float(a_STT.diagonal(0, 1, 2)[:, 1:].mean()),
        entropy=float((entr(a_STT).sum(axis=2)[:, 1:] / np.log(at_T[1:] + 1)).mean()),
        distance=float(((a_STT * distance_TT).sum(axis=2)[:, 1:] / at_T[1:]).mean()),
        prefix=float((a_STT * behind_STT).sum(axis=2)[some_ST].mean()),
    )


@torch.no_grad()
def copying(anatomy: Anatomy, layer: int, ids_N: np.ndarray) -> list[Copies]:
    """What each head of a layer does with a token.

    Tokens go through the layer's norm, value, output projection and unembedding, without positions,
    biases and the final norm.

    Args:
        anatomy: of the model.
        layer: of the heads.
        ids_N: tokens.

    Raises:
        ValueError: for a model whose embedding is narrower than its stream.
    """
    model: Any = anatomy.model
    ids = torch.from_numpy(ids_N).to(model.device)
    e_ND = model.get_input_embeddings().weight[ids]
    u_ND = model.get_submodule(anatomy.architecture.head).weight[ids].double()
    of_value = next(p.weight["v"] for p in anatomy.projections(layer) if "v" in p.weight)
    written_HKD = anatomy.written_HKD(layer).double()
    if e_ND.shape[1] != of_value.shape[0] or u_ND.shape[1] != written_HKD.shape[2]:
        raise ValueError(
            f"signatures: got an embedding of width {e_ND.shape[1]} in a stream of "
            f"{of_value.shape[0]}, allowed equal ones"
        )
    normed_ND = anatomy.attention_norm(layer)(e_ND).double()
    shared = anatomy.graph.heads // anatomy.graph.groups
    found = []
    for head in range(anatomy.graph.heads):
        value_NK = normed_ND @ of_value[:, head // shared].double()
        out_KN = written_HKD[head] @ u_ND.T
        logits_NN = (value_NK @ out_KN).cpu().numpy()
        # the nonzero eigenvalues of a product do not depend on the order of its factors
        roots = np.linalg.eigvals((out_KN @ value_NK).cpu().numpy())
        size = np.abs(roots).sum()
        share = float(roots.real.sum() / size) if size else 0.0
        found.append(Copies(_stands_out(logits_NN), share))
    return found


def _stands_out(logits_NN: np.ndarray) -> float:
    """Mean over tokens of (own logit - mean of the row) over the standard deviation of the row."""
    sd_N = logits_NN.std(axis=1)
    above_N = np.diag(logits_NN) - logits_NN.mean(axis=1)
    # rounding of a head that gives nothing is no spread
    some_N = sd_N > 1e-9 * np.abs(logits_NN).max(initial=0)
    return float(np.where(some_N, above_N / np.where(some_N, sd_N, 1), 0).mean())
