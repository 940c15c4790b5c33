"""Layer-major streaming: a checkpoint larger than memory, one block at a time.

All batches of a probe go through block 0, then through block 1, and so on: every weight is read
once, and one block is in memory at a time. The hidden states between the blocks go to a store, so
that a pass that was interrupted goes on at the block where it stopped.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate.utils import set_module_tensor_to_device
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture, architecture_of
from scaleinv_ray.capture.folders import check_folder
from scaleinv_ray.capture.loading import LoadOptions
from scaleinv_ray.capture.roles import canonical_name, is_mask
from scaleinv_ray.capture.weights import read_config, shuffled


class States(typing.Protocol):
    """Where hidden states live between blocks: level 0 before block 0, level l + 1 after block l.

    An array is [S, T, D] in a dtype of numpy (bfloat16 as uint16).
    """

    def complete(self, level: int) -> bool:
        """Whether a level was written to its end."""

    def write(self, level: int) -> AbstractContextManager[Callable[[np.ndarray], None]]:
        """Opens a level; what it gives takes the batches in order; complete when it is closed."""

    def read(self, level: int, first: int, count: int) -> np.ndarray:
        """Some sequences of a complete level."""


class Passing(typing.Protocol):
    """What looks at a pass while it runs."""

    def start_batch(self, first: int, batch_shape: tuple[int, int]) -> None:
        """Before a batch, whose first sequence has the number `first`, goes through a block."""

    def visit(self, site: str, layer: int, x: torch.Tensor) -> None:
        """A tensor at a site."""

    def end_block(self, layer: int) -> None:
        """After all batches have gone through a block."""


class _Recorder(nn.Module):
    """Stands in for a block: notes what it is called with and hands the hidden state through."""

    def __init__(self, block: nn.Module, seen: dict[int, dict[str, Any]]) -> None:
        super().__init__()
        self._block = (block,)  # in a tuple, so that it is no submodule
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._block[0], name)  # bodies read a block's attention_type

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The hidden state, unchanged."""
        self._seen[len(hidden_states)] = {"args": args, "kwargs": kwargs}
        return hidden_states


@dataclass
class StreamedModel:
    """A model whose weights stay in their files but for the part that is at work.

    Attributes:
        folder: of the checkpoint.
        model: the skeleton; parameters that are not at work are on the meta device.
        architecture: where its parts are.
        shuffle_seed: permute every tensor as the variant shuffled_weights does, None leaves them.
        bytes_read: of tensors, so far.
    """

    folder: Path
    model: PreTrainedModel
    architecture: Architecture
    shuffle_seed: int | None = None
    bytes_read: int = 0
    _where: dict[str, tuple[str, Path]] = field(default_factory=dict)
    _tied: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: Path, options: LoadOptions | None = None, *, shuffle_seed: int | None = None
    ) -> StreamedModel:
        """Builds the skeleton and finds where every tensor is; reads no weight.

        Args:
            folder: a local checkpoint folder.
            options: dtype and attention; the device is the CPU.
            shuffle_seed: of the variant shuffled_weights, None for the trained weights.

        Returns:
            The model.

        Raises:
            ValueError: where the folder is not whole or lacks a parameter of the model.
        """
        options = options or LoadOptions()
        files = check_folder(folder)
        config = read_config(folder)
        config._attn_implementation = options.attention
        dtype = options.dtype or config.dtype or torch.float32
        # buffers (rotary frequencies) are small and come from the config: they are real
        with accelerate.init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        where = {canonical_name(n, config.model_type): (n, file) for n, file in files.items()}
        self = cls(folder, model.eval(), architecture_of(config), shuffle_seed, 0, where)
        self._tie()
        return self

    def _tie(self) -> None:
        """Parameters without a tensor of their own take that of the one they are tied to."""
        kind = self.model.config.model_type
        for name, _ in self.model.named_parameters(remove_duplicate=False):
            if canonical_name(name, kind) in self._where:
                continue
            source = self.model.get_input_embeddings().weight
            tied = {id(source)} | ({id(self._head_weight())} if self._ties_head() else set())
            if id(self.model.get_parameter(name)) not in tied:
                raise ValueError(f"{self.folder}: lacks the tensor of {name}")
            embedding = next(n for n, p in self.model.named_parameters() if p is source)
            self._tied[name] = embedding

    def _ties_head(self) -> bool:
        return bool(self.model.config.tie_word_embeddings)

    def _head_weight(self) -> torch.Tensor:
        head = self.model.get_output_embeddings()
        return head.weight

    @contextmanager
    def loaded(self, *modules: nn.Module) -> Generator[None]:
        """Puts the parameters of some modules into memory while the context is open.

        Each shard is opened, its tensors are copied, and it is closed again, so that no page of
        the file stays mapped.

        Args:
            modules: of the model.

        Yields:
            None; afterwards the parameters are on the meta device again.
        """
        wanted = {id(p) for m in modules for p in m.parameters()}
        names = [n for n, p in self.model.named_parameters() if id(p) in wanted]
        by_file: dict[Path, list[tuple[str, str]]] = {}
        kind = self.model.config.model_type
        for name in names:
            stored, file = self._where[canonical_name(self._tied.get(name, name), kind)]
            by_file.setdefault(file, []).append((name, stored))
        try:
            for file, pairs in by_file.items():
                with safe_open(file, framework="pt") as shard:
                    for name, stored in pairs:
                        self._put(name, stored, shard.get_tensor(stored))
            self.model.tie_weights()
            yield
        finally:
            for name in names:
                set_module_tensor_to_device(self.model, name, "meta")
            self.model.tie_weights()

    def _put(self, name: str, stored: str, tensor: torch.Tensor) -> None:
        if is_mask(stored, tensor.ndim):
            return
        self.bytes_read += tensor.numel() * tensor.element_size()
        if self.shuffle_seed is not None and tensor.ndim >= 2:
            kind = self.model.config.model_type
            tensor = shuffled(tensor, stored, model_type=kind, seed=self.shuffle_seed)
        value = tensor.to(self.model.dtype, copy=True)
        set_module_tensor_to_device(self.model, name, "cpu", value=value)

    def stem(self) -> list[nn.Module]:
        """The parts of the body outside of the blocks (embeddings, final norm)."""
        blocks = self.model.get_submodule(self.architecture.blocks)
        inside = {id(m) for m in blocks.modules()}
        own = [
            m
            for m in self.model.base_model.modules()
            if id(m) not in inside and any(True for _ in m.parameters(recurse=False))
        ]
        return own

    @contextmanager
    def recording(self) -> Generator[list[dict[int, dict[str, Any]]]]:
        """Replaces the blocks by recorders of what they are called with.

        Yields:
            For every block: sequences of a batch -> arguments after the hidden state.
        """
        blocks = self.model.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        kept = list(blocks)
        seen: list[dict[int, dict[str, Any]]] = [{} for _ in kept]
        for i, block in enumerate(kept):
            blocks[i] = _Recorder(block, seen[i])
        try:
            yield seen
        finally:
            for i, block in enumerate(kept):
                blocks[i] = block


def stream(
    streamed: StreamedModel,
    tokens_ST: np.ndarray,
    states: States,
    *,
    batch_size: int,
    passing: Passing | None = None,
) -> None:
    """Pushes a probe through a model, block by block, from the highest complete level on.

    Args:
        streamed: the model.
        tokens_ST: token ids, no padding.
        states: takes the hidden states; levels that are complete are not computed again.
        batch_size: sequences in a batch.
        passing: told of every batch before it goes through a block; hooks on the blocks see the
            rest. Of a level that was complete before, its states are handed to it instead.
    """
    layers = streamed.architecture.layers(streamed.model)
    reached = max((n for n in range(len(layers) + 1) if states.complete(n)), default=-1)
    shapes = [
        (first, (min(batch_size, len(tokens_ST) - first), tokens_ST.shape[1]))
        for first in range(0, len(tokens_ST), batch_size)
    ]
    calls = _embed(streamed, tokens_ST, states, batch_size=batch_size, again=reached < 0)
    if passing is not None:
        _replay(streamed, states, reached, shapes, passing)
    for layer in range(max(reached, 0), len(layers)):
        block = layers[layer]
        with streamed.loaded(block), torch.inference_mode(), states.write(layer + 1) as write:
            for first, shape in shapes:
                x_BTD = as_tensor(states.read(layer, first, shape[0]), streamed.model.dtype)
                if passing is not None:
                    passing.start_batch(first, shape)
                call = calls[layer][shape[0]]
                write(as_array(block(x_BTD, *call["args"], **call["kwargs"])))
        if passing is not None:
            passing.end_block(layer)


def _replay(
    streamed: StreamedModel,
    states: States,
    reached: int,
    shapes: list[tuple[int, tuple[int, int]]],
    passing: Passing,
) -> None:
    """Hands over the levels that an earlier pass has left; level `reached` is the input of none."""
    for level in range(reached + 1 if reached > 0 else 0):
        site, layer = ("resid_pre", 0) if level == 0 else ("resid_post", level - 1)
        for first, shape in shapes:
            passing.start_batch(first, shape)
            x_BTD = as_tensor(states.read(level, first, shape[0]), streamed.model.dtype)
            passing.visit(site, layer, x_BTD)
        if level > 0:
            passing.end_block(layer)


def _embed(
    streamed: StreamedModel,
    tokens_ST: np.ndarray,
    states: States,
    *,
    batch_size: int,
    again: bool,
) -> list[dict[int, dict[str, Any]]]:
    """Writes level 0, and finds what each block is called with beside the hidden state."""
    body = streamed.model.base_model
    with streamed.loaded(*streamed.stem()), streamed.recording() as calls, torch.inference_mode():
        if not again or states.complete(0):  # the arguments alone: one batch of each size
            firsts = range(0, len(tokens_ST), batch_size)
            for size in {min(batch_size, len(tokens_ST) - first) for first in firsts}:
                body(input_ids=torch.from_numpy(tokens_ST[:size]).long(), use_cache=False)
            return calls
        with states.write(0) as write:
            blocks = streamed.architecture.layers(streamed.model)
            hook = blocks[0].register_forward_hook(lambda _m, _a, out: write(as_array(out)))
            try:
                for first in range(0, len(tokens_ST), batch_size):
                    tokens_BT = torch.from_numpy(tokens_ST[first : first + batch_size]).long()
                    body(input_ids=tokens_BT, use_cache=False)
            finally:
                hook.remove()
    return calls


def final_states(
    streamed: StreamedModel, tokens_ST: np.ndarray, states: States, *, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What the head reads: the last level after the body's final norm, batch by batch.

    Args:
        streamed: the model; its stem and head are in memory while this is iterated over.
        tokens_ST: the probe.
        states: with the last level complete.
        batch_size: sequences in a batch.

    Yields:
        hidden_BTD and the tokens_BT they belong to.
    """
    layers = streamed.architecture.num_layers
    head = streamed.model.get_submodule(streamed.architecture.head)
    embedding = streamed.model.get_input_embeddings()
    stem = [m for m in streamed.stem() if m is not embedding]
    width = int(embedding.get_parameter("weight").shape[1])
    with streamed.loaded(*stem, head), streamed.recording(), torch.inference_mode():
        last = streamed.architecture.layers(streamed.model)[-1]
        for first in range(0, len(tokens_ST), batch_size):
            tokens_BT = torch.from_numpy(tokens_ST[first : first + batch_size]).long()
            x_BTD = as_tensor(states.read(layers, first, len(tokens_BT)), streamed.model.dtype)
            hook = last.register_forward_hook(lambda _m, _a, _out, x=x_BTD: x)
            try:
                body = streamed.model.base_model
                # the embedding stays on disk: what it would give is not read by anything
                empty_BTE = x_BTD.new_zeros(*tokens_BT.shape, width)
                hidden_BTD = body(inputs_embeds=empty_BTE, use_cache=False).last_hidden_state
            finally:
                hook.remove()
            yield hidden_BTD, tokens_BT


def as_array(x: torch.Tensor) -> np.ndarray:
    """A tensor as numpy has it; bfloat16 as uint16."""
    x = x.detach().cpu().contiguous()
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


def as_tensor(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """The inverse of `as_array`, a copy."""
    tensor = torch.from_numpy(np.array(x))
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor
