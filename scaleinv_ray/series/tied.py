"""Parameters that a file stores under two names and a model has once, as transformers says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from scaleinv_ray.series.contents import in_block
from scaleinv_ray.series.header_format import TensorHeader
from scaleinv_ray.series.roles import canonical_name, tensor_role

_ENDS = {"embedding", "unembedding"}
_PATIENCE_S = 120
_ASKED = "scaleinv_ray.capture.ties"


def stored_again(
    parameters: Mapping[str, TensorHeader], config: Mapping[str, Any], vocab_size: int
) -> set[str]:
    """Names of stored parameters that another stored name stands for already.

    Only matrices outside the blocks with a row a token can be tied, and only where there are two of
    one shape is there a question. Then the class of the model answers it, on the meta device, in a
    process of its own: importing it takes seconds, and most checkpoints do without.

    Args:
        parameters: headers by name.
        config: config.json.
        vocab_size: of it.

    Returns:
        The names to leave out of a count.
    """
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in parameters.items():
        if len(tensor.shape) == 2 and tensor.shape[0] >= vocab_size and not in_block(name):
            alike.setdefault(tensor.shape, []).append(name)
    doubtful = [names for names in alike.values() if len(names) > 1]
    if not doubtful or config.get("tie_word_embeddings") is False:
        return set()
    model_type = config["model_type"]
    again: set[str] = set()
    for names in doubtful:
        ends = {tensor_role(name, model_type).role: name for name in names}
        if config.get("tie_word_embeddings") and len(names) == 2 and ends.keys() == _ENDS:
            again.add(ends["unembedding"])
            continue
        for group in _ties(json.dumps(config, sort_keys=True)):
            tied = {canonical_name(name, model_type) for name in group}
            held = [n for n in sorted(names) if canonical_name(n, model_type) in tied]
            again |= set(held[1:])
    return again


@lru_cache(maxsize=256)  # every step of a run has the same config
def _ties(config: str) -> list[list[str]]:
    """Groups of names of one parameter; none where transformers does not know the class."""
    asked = [sys.executable, "-m", _ASKED]
    try:
        said = subprocess.run(
            asked, input=config, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return []
    return json.loads(said.stdout)
