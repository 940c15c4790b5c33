"""What a folder or repository is that transformers cannot read as a causal language model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.checkpoints.files.roles import is_encoder

_MANY = 5
CONVERT = "`scaleinv convert FOLDER OUT` makes safetensors of them"
_PICKLE = re.compile(r"[^/]*\.(bin|pt|pth|ckpt)(\.index\.json)?")
_STATE = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args)[^/]*")
"""What a Trainer keeps beside the weights."""
_UNFINISHED = re.compile(
    r"(.*/)?(tmp-[^/]*|[^/]*[._](incomplete|part|partial|aria2|crdownload|tmp))/?"
)
_KINDS = (  # the first that fits; names of folders end with /
    (r"adapter_config\.json", "a PEFT adapter, to be merged into its base (merge_and_unload)"),
    (r"model_index\.json", "a diffusers pipeline, no language model"),
    (_UNFINISHED.pattern, "a download or copy that has not finished"),
    (r"model[-_]\d+-of-\d+\.safetensors", "shards without model.safetensors.index.json"),
    (r"zero_to_fp32\.py|global_step\d+/|.*_(model|optim)_states\.pt",
     "a DeepSpeed checkpoint, to be gathered first (zero_to_fp32.py --safe_serialization)"),
    (r"latest_checkpointed_iteration\.txt|iter_\d+/|mp_rank_\d+[^/]*/|model_optim_rng\.pt",
     "a Megatron checkpoint, to be converted to the Hugging Face format first"),
    (r"(.*/)?[^/]*\.distcp|pytorch_model_fsdp[^/]*/?",
     "shards of torch.distributed, to be merged first (accelerate merge-weights)"),
    (r"(.*/)?[^/]*\.gguf", "GGUF weights of llama.cpp; needed are the safetensors behind them"),
    (r"(.*/)?[^/]*\.onnx|onnx/", "an ONNX export; needed are the safetensors behind it"),
    (r"consolidated[^/]*|params\.json", "a model in its maker's own format, to be converted first"),
    (r"tf_model\.h5|flax_model[^/]*\.msgpack|[^/]*\.(nemo|keras|npz)",
     "weights of another framework, to be saved by transformers first (save_pretrained)"),
    (r"snapshots/|blobs/|refs/", "the hub's cache, give {hub: ..} or a folder in snapshots/"),
)  # fmt: skip
_GENERATES = re.compile(r".*(ForCausalLM|LMHeadModel)")
_ENCODER = re.compile(r".*(bert|electra|mpnet|longformer|bigbird|deberta).*", re.IGNORECASE)
_HEAD = re.compile(r".*For(?!CausalLM|ConditionalGeneration|MaskedLM|PreTraining)[A-Z]\w+")


def listed(names: Iterable[object], most: int = _MANY) -> str:
    """Names for a message: the first few, and how many more there are."""
    found = [n if n.isprintable() else ascii(n) for n in map(str, names)]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def nearest(wanted: int, steps: Collection[int | None]) -> str:
    """Steps for a message: the five nearest, in order, and how many more there are."""
    known = sorted(s for s in steps if s is not None)
    close = sorted(sorted(known, key=lambda s: abs(s - wanted))[:_MANY])
    more = len(known) - len(close)
    return f"{close or 'none'}" + (f" and {more} more" if more else "")


def is_unfinished(name: str) -> bool:
    """Whether a file or folder is called as what is still being copied."""
    return _UNFINISHED.fullmatch(name) is not None


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, folders with / at the end; unfinished downloads of the hub too."""
    names = [p.name + "/" * p.is_dir() for p in folder.iterdir()]
    hidden = (folder / ".cache/huggingface/download").glob("**/*.incomplete")
    return sorted(names) + [str(p.relative_to(folder)) for p in hidden]


def what_is(where: str, names: Collection[str]) -> str:
    """What to say of a checkpoint that has no safetensors of a whole model.

    Args:
        where: folder, or repository at revision.
        names: its files, and folders with / at the end; files below may stand as paths.

    Returns:
        One line: what it is, and what is allowed.
    """
    allowed = "allowed: model.safetensors, or shards with model.safetensors.index.json"
    if pickled := pickled_model(names):
        return f"{where}: got {_pickled(pickled)}; {allowed}"
    for pattern, said in _KINDS:
        if found := next((n for n in sorted(names) if re.fullmatch(pattern, n)), None):
            return f"{where}: got {said}: {listed([found])}; {allowed}"
    pickled = sorted(n for n in names if _PICKLE.fullmatch(n) and not _STATE.fullmatch(n))
    folders = sorted(n for n in names if n.endswith("/") and n[0] not in "._")
    beside = f", but folders {listed(folders, 3)}" if folders else ""
    return f"{where}: got {_pickled(pickled) if pickled else f'no weights{beside}'}; {allowed}"


def _pickled(names: list[str]) -> str:
    some = "[" + listed(map(repr, names)) + "]"
    return f"pickled weights {some}, which run code when opened ({CONVERT})"


def pickled_model(names: Iterable[str]) -> list[str]:
    """Of the files of a folder those that may be a model's pickled weights, and their index."""
    called = re.compile(r"(pytorch_)?(model|weights).*")
    found = (n for n in names if called.fullmatch(n) and _PICKLE.fullmatch(n))
    return sorted(n for n in found if n != "model_optim_rng.pt")


def no_logits(config: Mapping[str, Any]) -> str | None:
    """Why no captures are made of a model, as far as config.json says; None where they may be.

    Returns:
        What it is, with the name of its class.

    >>> no_logits({"architectures": ["BertModel"]})
    'an encoder (BertModel)'
    >>> no_logits({"architectures": ["GPT2LMHeadModel"]})
    >>> no_logits({"model_type": "bert", "architectures": ["BertModel"]})  # of it captures know
    """
    classes = config.get("architectures")
    name = str(classes[0]) if isinstance(classes, list) and classes else ""
    called = f"({name or config.get('model_type')})"
    if config.get("is_encoder_decoder") is True:
        return f"an encoder and decoder {called}"
    if _GENERATES.fullmatch(name) or config.get("is_decoder") is True:
        return None
    if is_encoder(config) and not _HEAD.fullmatch(name):
        return None
    if _HEAD.fullmatch(name):
        return f"a model with another head {called}"
    kind = name if name.endswith("Model") else "" if name else str(config.get("model_type"))
    return f"an encoder {called}" if _ENCODER.fullmatch(kind) else None
