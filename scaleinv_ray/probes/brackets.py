"""Nested brackets: every closing bracket is determined by what was opened."""

from __future__ import annotations

import numpy as np

from scaleinv_ray.probes.registry import ProbeRequest, probe_set

PAIRS = ("()", "[]", "{}")
DEPTH = 4


@probe_set()
def brackets(request: ProbeRequest) -> np.ndarray:
    """Blocks of four random opening brackets and the four that close them (a Dyck-3 language).

    Token t of a sequence is an opening bracket where t mod 8 < 4, drawn uniformly out of ( [ {;
    the other four close them in reverse order, so that a model which nests knows them for sure
    and one that does not pays up to ln 3 (Hahn 2020, TACL 8; Ebrahimi et al. 2020 on Dyck-n).

    Args:
        request: the corpus is not read; each bracket must be one token.

    Returns:
        int64 tokens [sequences, length].

    Raises:
        ValueError: where a bracket is not a single token of its own.
    """
    ids = {c: request.encode(c) for pair in PAIRS for c in pair}
    split = [c for c, found in ids.items() if len(found) != 1]
    if split:
        raise ValueError(f"tokenizer: got several tokens for {split}, allowed one each")
    if len({found[0] for found in ids.values()}) < len(ids):
        raise ValueError(
            f"tokenizer: got tokens {ids} for brackets, allowed one of its own for each"
        )
    open_V = np.array([ids[pair[0]][0] for pair in PAIRS])
    close_V = np.array([ids[pair[1]][0] for pair in PAIRS])
    blocks = -(-request.length // (2 * DEPTH))
    kind_SBK = request.rng.integers(len(PAIRS), size=(request.sequences, blocks, DEPTH))
    rows_SBK = np.concatenate([open_V[kind_SBK], close_V[kind_SBK[:, :, ::-1]]], axis=2)
    return rows_SBK.reshape(request.sequences, -1)[:, : request.length]
