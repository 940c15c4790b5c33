"""Which parameters of a class are one under several names: a model on the meta device says it.

Run as a module it reads a config.json from standard input and writes the groups as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from scaleinv_ray.attention_only import modeling

assert modeling, "importing the module makes the architecture known to AutoModelForCausalLM"


def tied_names(config: Mapping[str, Any]) -> list[list[str]]:
    """Groups of names that stand for one parameter.

    Args:
        config: config.json; no code of the model's own is run.

    Returns:
        The names as in the live model; no group of one.

    >>> sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 11}
    >>> tied_names({"model_type": "gpt2", **sizes})
    [['transformer.wte.weight', 'lm_head.weight']]
    >>> tied_names({"model_type": "gpt2", "tie_word_embeddings": False, **sizes})
    []
    """
    options = {k: v for k, v in config.items() if k not in {"model_type", "auto_map"}}
    settings = AutoConfig.for_model(config["model_type"], **options)
    if getattr(settings, "vocab_size", 0) is None:  # of ESM: any number does
        settings.vocab_size = 1
    with torch.device("meta"):
        model = _built(settings, config.get("architectures"))
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [group for group in names.values() if len(group) > 1]


def _built(settings: PreTrainedConfig, architectures: Any) -> PreTrainedModel:
    """The causal language model, else what config.json names."""
    try:
        return AutoModelForCausalLM.from_config(settings)
    except ValueError:
        name = architectures[0] if isinstance(architectures, list) and architectures else None
        named = getattr(transformers, name, None) if isinstance(name, str) else None
        if not (isinstance(named, type) and issubclass(named, PreTrainedModel)):
            raise
        return named(settings)


if __name__ == "__main__":
    json.dump(tied_names(json.load(sys.stdin)), sys.stdout)
