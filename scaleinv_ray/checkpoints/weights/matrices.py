"""Weight matrices, one tensor at a time out of safetensors; the model is not built.

Shape suffixes: O outputs, I inputs.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from scaleinv_ray.checkpoints.files.contents import (
    Contents,
    contents_of,
    is_bias,
    is_stack,
    place_of,
)
from scaleinv_ray.checkpoints.files.header_format import DTYPES
from scaleinv_ray.checkpoints.files.headers import read_tensors
from scaleinv_ray.checkpoints.files.roles import (
    CAPTURED,
    Heads,
    TensorRole,
    block_roles,
    is_encoder,
    is_mask,
    split,
    tensor_role,
)
from scaleinv_ray.checkpoints.files.sizes import Sizes
from scaleinv_ray.checkpoints.files.tied import stored_again
from scaleinv_ray.checkpoints.weights.changed import change_of
from scaleinv_ray.checkpoints.weights.whole import check_whole, code_named
from scaleinv_ray.inputs.json_files import read_json
from scaleinv_ray.records import Variant, WeightMatrix

# transformers' model code takes seconds to import; a task that reads weights needs none of it.
if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""What a model gives back: settings of whoever saved it, which its config.json may keep."""


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of most parameters in the files, whatever config.json says of it."""
    counts: Counter[str] = Counter()
    for tensor in read_tensors(folder).values():
        if tensor.dtype in DTYPES:
            counts[DTYPES[tensor.dtype]] += math.prod(tensor.shape)
    found: torch.dtype = getattr(torch, counts.most_common(1)[0][0] if counts else "float32")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype as records carry it: 'bfloat16', not 'torch.bfloat16'."""
    return str(dtype).removeprefix("torch.")


def read_config(folder: Path, *, trusted: bool = False) -> PreTrainedConfig:
    """The transformers config of a checkpoint folder, with the defaults of its class.

    Args:
        trusted: run the folder's own code, where config.json names some.

    Raises:
        ValueError: where the class is in code that is not trusted, or that lies elsewhere.
    """
    from transformers import AutoConfig

    from scaleinv_ray.attention_only import configuration

    assert configuration, "importing the module makes the architecture known to AutoConfig"
    named = code_named(folder)
    elsewhere = next((n for n in named if "--" in n), None)
    if trusted and elsewhere is not None:  # transformers would fetch it and run it
        raise ValueError(
            f"{folder}/config.json: auto_map: got {elsewhere!r}, code of another repository; "
            "trust_remote_code covers the model's own"
        )
    try:
        # never None: transformers would ask at the terminal, and run the code after a 'y'
        return AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trusted, **_OUTPUTS
        )
    except ValueError as error:
        if trusted or not named:
            raise
        raise ValueError(
            f"{folder}/config.json: auto_map: got {named[0]!r}, code of the model's own, "
            "which runs only for models that trust_remote_code names"
        ) from error


def build_from_config(
    config: PreTrainedConfig,
    seed: int,
    *,
    dtype: torch.dtype | None = None,
    trusted: bool = False,
) -> PreTrainedModel:
    """A model at its default initialisation; torch's global generator is left as it was.

    Args:
        config: the model's config.
        dtype: None takes the config's, or float32.
        trusted: as in `read_config`.

    Returns:
        The model in eval mode, on the CPU; an encoder with the head of masked tokens.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from scaleinv_ray.attention_only import modeling

    assert modeling, "importing the module makes the architecture known to AutoModelForCausalLM"
    built = AutoModelForMaskedLM if is_encoder(config.to_dict()) else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = built.from_config(
            config, dtype=dtype or config.dtype or torch.float32, trust_remote_code=trusted
        )
    return model.eval()


def _stored(folder: Path, tensors: Collection[str] | None) -> Iterator[tuple[str, torch.Tensor]]:
    where = check_whole(folder)
    if tensors is not None:
        if absent := sorted(set(tensors).difference(where)):
            raise ValueError(f"{folder}: lacks tensors {absent}")
        where = {name: shard for name, shard in where.items() if name in tensors}
    for shard in dict.fromkeys(where.values()):
        with safe_open(shard, framework="pt") as file:
            for name in (n for n, s in where.items() if s == shard):
                yield name, file.get_tensor(name)


def _built(folder: Path, seed: int, trusted: bool) -> Iterator[tuple[str, torch.Tensor]]:
    config = read_config(folder, trusted=trusted)
    model = build_from_config(config, seed, dtype=stored_dtype(folder), trusted=trusted)
    stored = check_whole(folder)
    stacks = [n for n, p in model.named_parameters() if is_stack(n, p.ndim)]
    if all(name in stored for name in stacks):
        yield from model.named_parameters()
        return
    # in memory transformers stacks what the files of a class hold expert by expert
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        del model
        yield from _stored(Path(scratch), None)


def _tensors(
    folder: Path,
    variant: Variant,
    seed: int,
    init_folder: Path | None,
    *,
    tensors: Collection[str] | None,
    trusted: bool,
) -> Iterator[tuple[str, torch.Tensor]]:
    if variant != "random_init":
        return _stored(folder, tensors)
    if init_folder:
        return _stored(init_folder, tensors)
    if tensors is not None:
        raise ValueError("tensors: got some, random_init without a step 0 is built whole")
    return _built(folder, seed, trusted)


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()


def iter_weights(
    folder: Path,
    *,
    variant: Variant = "trained",
    seed: int = 0,
    init_folder: Path | None = None,
    per_head: bool = False,
    tensors: Collection[str] | None = None,
    trusted: bool = False,
) -> Iterator[WeightMatrix]:
    """Streams the weight matrices of a checkpoint.

    Tensors of two or more dimensions, outputs x inputs (more dimensions: all but the first are
    inputs), but for biases; a tied embedding counts once; a fused query-key-value tensor is split
    by projection, a stack of experts expert by expert. A matrix that is odd (`contents_of`) where
    the architecture has one comes empty, with the reason; one that it does not know is left out.
    Memory: the largest tensor and a copy. The exception is random_init without `init_folder`: the
    whole model is built, since its random numbers come in the order of construction.

    Args:
        variant: what a null changes is each stored tensor, before it is split; shuffled_tokens
            has the trained weights and is refused.
        init_folder: the run's own step 0, for random_init.
        per_head: split attention projections by head.
        tensors: names of those wanted, as stored; None for all.
        trusted: as in `read_config`.

    Yields:
        WeightMatrix: float32, or float64 where stored so; `dtype` names the stored dtype.

    Raises:
        ValueError: where a folder is not whole or lacks one of `tensors`, for the variant
            shuffled_tokens, and for `tensors` of a model that has to be built.
    """
    if variant == "shuffled_tokens":
        raise ValueError("variant: got 'shuffled_tokens', weights do not depend on tokens")
    files = init_folder if variant == "random_init" else folder
    told = _told(folder, trusted, per_head) if files else _of_class(folder, trusted)
    held = None if files is None else _held(files, folder)
    again = _again(held, folder, told) if held else ()
    reader = _Reader(told, per_head, again, held)
    stored = _tensors(folder, variant, seed, init_folder, tensors=tensors, trusted=trusted)
    change = change_of(variant, model_type=told.model_type, seed=seed)
    for name, tensor in stored:
        if change is not None and reader.measures(name, tensor):
            tensor = change(tensor, name)
        yield from reader.matrices(name, tensor)


class _Told(NamedTuple):
    """What the reading of matrices needs of a config; `tied` is None where it is not said."""

    model_type: str
    num_layers: int | None
    tied: bool | None
    heads: Heads


def _told(folder: Path, trusted: bool, per_head: bool) -> _Told:
    """As config.json says: a new type, or a value that transformers refuses, does not matter."""
    if code_named(folder):
        return _of_class(folder, trusted)
    config = read_json(folder / "config.json")
    sizes = Sizes.of(str(folder), config)
    roles = block_roles(sizes.model_type)
    splits = (per_head and bool(roles)) or "fused_qkv" in roles
    heads = sizes.heads() if splits else Heads(0, 0, 0)
    if heads is None:
        return _of_class(folder, trusted)
    return _Told(sizes.model_type, sizes.n_layers, config.get("tie_word_embeddings"), heads)


def _of_class(folder: Path, trusted: bool) -> _Told:
    config = read_config(folder, trusted=trusted)
    layers, tied = getattr(config, "num_hidden_layers", None), bool(config.tie_word_embeddings)
    return _Told(config.model_type, layers, tied, Heads.of(config))


def _held(files: Path, folder: Path) -> Contents:
    return contents_of(str(files), read_json(folder / "config.json"), read_tensors(files))


def _again(held: Contents, folder: Path, told: _Told) -> Collection[str]:
    """Stored matrices that are another one once more, as a head that is the embedding."""
    ends = {tensor_role(name, told.model_type).role: name for name in held.parameters}
    if told.tied and "embedding" in ends:
        return {ends["unembedding"]} if "unembedding" in ends else ()
    config = read_json(folder / "config.json") | {"tie_word_embeddings": told.tied}
    return stored_again(held.parameters, config, Sizes.of(str(folder), config).vocab_size)


@dataclass(frozen=True)
class _Reader:
    """Matrices out of the tensors of a checkpoint."""

    told: _Told
    per_head: bool
    again: Collection[str]
    held: Contents | None

    def measures(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a tensor holds matrices."""
        if tensor.ndim < 2 or is_bias(name) or is_mask(name, tensor.ndim) or name in self.again:
            return False
        return self.held is None or (name in self.held.parameters and name not in self.held.odd)

    def matrices(self, name: str, tensor: torch.Tensor) -> Iterator[WeightMatrix]:
        if self.held and name in self.held.odd:
            yield from self._missing(name, tensor, self.held.odd[name])
        if not self.measures(name, tensor):
            return
        role = tensor_role(name, self.told.model_type)
        for matrix in tensor if is_stack(name, tensor.ndim) else (tensor,):
            w_OI = _as_array(matrix).reshape(matrix.shape[0], -1)
            w_OI = w_OI.T if role.transposed else w_OI
            for piece in split(w_OI, role, self.told.heads, per_head=self.per_head):
                yield self._record(piece.w_OI, role, piece.role, piece.head, tensor)

    def _missing(self, name: str, tensor: torch.Tensor, why: str) -> Iterator[WeightMatrix]:
        """Empty matrices in the places of the model that an odd tensor leaves empty."""
        dtype = next((k for k, v in DTYPES.items() if v == dtype_name(tensor.dtype)), "")
        kind = self.told.model_type
        role = place_of(name, dtype, kind) or (None if kind in CAPTURED else TensorRole("other"))
        if role is None or (role.layer or 0) >= (self.told.num_layers or 0):
            return
        nothing = np.zeros((0, 0), dtype=np.float32)
        for part in ("query", "key", "value") if role.fused else (role.role,):
            yield self._record(nothing, role, part, None, tensor, f"{name}: {why}")

    def _record(
        self,
        w_OI: np.ndarray,
        at: TensorRole,
        role: str,
        head: int | None,
        tensor: torch.Tensor,
        odd: str | None = None,
    ) -> WeightMatrix:
        return WeightMatrix(
            w_OI=w_OI,
            role=role,
            head=head,
            layer=at.layer,
            num_layers=self.told.num_layers,
            dtype=dtype_name(tensor.dtype),
            odd=odd,
        )
