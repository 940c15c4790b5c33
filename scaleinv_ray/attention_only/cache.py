"""The name under which transformers takes and gives the keys and values of earlier positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def cache_argument(taker: Callable[..., Any]) -> str:
    """'cache', as of transformers 5.24, or 'past_key_values' of those before it.

    Both names work in between, the older with a warning that turns into an error in 5.40; a model
    whose code comes from its own repository may know the older one only.

    Args:
        taker: what is called: a model's forward, a module's, an output's constructor.

    Returns:
        The name.

    >>> cache_argument(lambda input_ids, past_key_values=None: None)
    'past_key_values'
    >>> cache_argument(lambda input_ids, cache=None: None)
    'cache'
    """
    return "cache" if "cache" in inspect.signature(taker).parameters else "past_key_values"
