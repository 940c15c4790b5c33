"""A model of which one part is in memory: a block, or what lies before or after the blocks.

Layer-major streaming (`streaming`) has one part after the other in memory.

Shape suffixes: T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import accelerate
import numpy as np
import torch
from accelerate.utils import set_module_tensor_to_device
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture, architecture_of
from scaleinv_ray.checkpoints.files.roles import canonical_name, is_encoder, is_mask
from scaleinv_ray.checkpoints.weights.changed import Change, change_of
from scaleinv_ray.checkpoints.weights.loading import LoadOptions
from scaleinv_ray.checkpoints.weights.matrices import read_config, stored_dtype
from scaleinv_ray.checkpoints.weights.whole import check_whole
from scaleinv_ray.records import Variant


class Call(TypedDict):
    """What a block is called with after the hidden state."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Recorder(nn.Module):
    """Stands in for a block: notes what it is called with and hands the hidden state through."""

    def __init__(self, block: nn.Module, seen: dict[int, Call]) -> None:
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
        change: what the variant does to every tensor, None leaves them.
        bytes_read: of tensors, so far.
    """

    folder: Path
    model: PreTrainedModel
    architecture: Architecture
    change: Change | None = None
    bytes_read: int = 0
    _where: dict[str, tuple[str, Path]] = field(default_factory=dict)
    _tied: dict[str, str] = field(default_factory=dict)
    _calls: dict[tuple[int, int], list[Call]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        folder: Path,
        options: LoadOptions | None = None,
        *,
        variant: Variant = "trained",
        seed: int = 0,
    ) -> StreamedModel:
        """Builds the skeleton and finds where every tensor is; reads no weight.

        Args:
            options: dtype and attention; parts are put on the CPU.
            variant: whose changes every tensor takes.
            seed: of these changes.

        Raises:
            ValueError: where the folder is not whole or lacks a parameter of the model.
        """
        options = options or LoadOptions()
        files = check_whole(folder)
        config = read_config(folder, trusted=options.trust_remote_code)
        if is_encoder(config.to_dict()):
            raise ValueError(f"{folder}: got an encoder, which is not streamed; allowed: resident")
        config._attn_implementation = options.attention_for(config.model_type)
        dtype = options.dtype or stored_dtype(folder)
        # buffers (rotary frequencies) are small and come from the config: they are real
        with accelerate.init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=options.trust_remote_code
            )
        change = change_of(variant, model_type=config.model_type, seed=seed)
        where = {canonical_name(n, config.model_type): (n, file) for n, file in files.items()}
        self = cls(folder, model.eval(), architecture_of(config), change, 0, where)
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

        Yields:
            None; afterwards the parameters are on the meta device again.
        """
        names = self._names(modules)
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
            self._drop(names)

    def _names(self, modules: Iterable[nn.Module]) -> list[str]:
        """Names of the parameters of some modules, a tied one once."""
        wanted = {id(p) for m in modules for p in m.parameters()}
        return [n for n, p in self.model.named_parameters() if id(p) in wanted]

    def _drop(self, names: list[str]) -> None:
        for name in names:
            set_module_tensor_to_device(self.model, name, "meta")
        self.model.tie_weights()

    def _put(self, name: str, stored: str, tensor: torch.Tensor) -> None:
        if is_mask(stored, tensor.ndim):
            return
        self.bytes_read += tensor.numel() * tensor.element_size()
        if self.change is not None and tensor.ndim >= 2:
            tensor = self.change(tensor, stored)
        value = tensor.to(self.model.dtype, copy=True)
        set_module_tensor_to_device(self.model, name, "cpu", value=value)

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks, in order."""
        return self.architecture.layers(self.model)

    def stem(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The parts of the body outside of the blocks: what runs before them, and after."""
        blocks = self.model.get_submodule(self.architecture.blocks)
        inside = {id(m) for m in blocks.modules()}
        own = [
            m
            for m in self.model.base_model.modules()
            if id(m) not in inside and any(True for _ in m.parameters(recurse=False))
        ]
        parts: tuple[list[nn.Module], list[nn.Module]] = ([], [])
        with self._standing_in(), self.recording() as seen, torch.inference_mode():
            hooks = [
                m.register_forward_pre_hook(lambda m, _: parts[bool(seen[0])].append(m))
                for m in own
            ]
            try:
                self.model.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long))
            finally:
                for hook in hooks:
                    hook.remove()
        return parts

    @contextmanager
    def _standing_in(self) -> Generator[None]:
        """Zeros that take no memory, for what lies outside of the blocks and is not loaded.

        The body can then be run for the sake of how it calls its blocks: masks and positions
        depend on the shape of a batch, not on the values of any weight.
        """
        blocks = self.model.get_submodule(self.architecture.blocks)
        inside = {id(p) for p in blocks.parameters()}
        absent = [
            (n, p)
            for n, p in self.model.base_model.named_parameters(self.model.base_model_prefix)
            if p.is_meta and id(p) not in inside
        ]
        for name, p in absent:
            zeros = torch.zeros((), dtype=p.dtype).expand(p.shape)
            set_module_tensor_to_device(self.model, name, "cpu", value=zeros)
        try:
            yield
        finally:
            self._drop([name for name, _ in absent])

    def calls(self, count: int, length: int) -> list[Call]:
        """What each block is called with beside the hidden state; reads no weight.

        Args:
            length: tokens of a sequence.

        Returns:
            args and kwargs for every block.
        """
        if (count, length) not in self._calls:
            with self._standing_in(), self.recording() as seen, torch.inference_mode():
                zeros_BT = torch.zeros(count, length, dtype=torch.long)
                self.model.base_model(input_ids=zeros_BT, use_cache=False)
            self._calls[count, length] = [of_block[count] for of_block in seen]
        return self._calls[count, length]

    @contextmanager
    def beginning(self) -> Generator[Callable[[np.ndarray], torch.Tensor]]:
        """Puts what lies before the blocks into memory.

        Yields:
            A function from tokens_BT to the input of block 0.
        """

        def embed(tokens_BT: np.ndarray) -> torch.Tensor:
            found: list[torch.Tensor] = []
            with self._standing_in(), self.recording(), torch.inference_mode():
                first = self.layers[0]
                hook = first.register_forward_hook(lambda _m, _a, out: found.append(out))
                try:
                    tokens = torch.from_numpy(np.ascontiguousarray(tokens_BT)).long()
                    self.model.base_model(input_ids=tokens, use_cache=False)
                finally:
                    hook.remove()
            return found[0]

        before, _ = self.stem()
        with self.loaded(*before):
            yield embed

    @contextmanager
    def block(self, layer: int) -> Generator[Callable[[torch.Tensor], torch.Tensor]]:
        """Puts a block into memory.

        Yields:
            A function from its input to its output.
        """
        module = self.layers[layer]

        def through(x_BTD: torch.Tensor) -> torch.Tensor:
            call = self.calls(*x_BTD.shape[:2])[layer]
            with torch.inference_mode():
                out_BTD: torch.Tensor = module(x_BTD, *call["args"], **call["kwargs"])
            return out_BTD

        with self.loaded(module):
            yield through

    @contextmanager
    def ending(self) -> Generator[Callable[[torch.Tensor], torch.Tensor]]:
        """Puts what lies after the blocks into memory, the head included.

        Yields:
            A function from the output of the last block to what the head reads.
        """

        def finish(x_BTD: torch.Tensor) -> torch.Tensor:
            tokens_BT = torch.zeros(x_BTD.shape[:2], dtype=torch.long)
            with self._standing_in(), self.recording(), torch.inference_mode():
                hook = self.layers[-1].register_forward_hook(lambda _m, _a, _out: x_BTD)
                try:
                    body = self.model.base_model(input_ids=tokens_BT, use_cache=False)
                finally:
                    hook.remove()
            hidden_BTD: torch.Tensor = body.last_hidden_state
            return hidden_BTD

        _, after = self.stem()
        head = self.model.get_submodule(self.architecture.head)
        with self.loaded(*after, head):
            yield finish

    @contextmanager
    def recording(self) -> Generator[list[dict[int, Call]]]:
        """Replaces the blocks by recorders of what they are called with.

        Yields:
            For every block: sequences of a batch -> arguments after the hidden state.
        """
        blocks = self.model.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        kept = list(blocks)
        seen: list[dict[int, Call]] = [{} for _ in kept]
        for i, block in enumerate(kept):
            blocks[i] = _Recorder(block, seen[i])
        try:
            yield seen
        finally:
            for i, block in enumerate(kept):
                blocks[i] = block
