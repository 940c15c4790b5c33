"""Runs of the blocks by hand: recorded once, then again from the first layer that is changed.

Shape suffixes: C sets of components, S sequences, T tokens, P answer positions, D width, H heads,
K width of a head, V vocabulary, W writers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from scaleinv_ray.circuitry.surgery.anatomy import Anatomy

Edit = Callable[[torch.Tensor], torch.Tensor]
"""Heads [rows, T, H, K] or an MLP's output [rows, T, D], a copy that may be changed -> new ones."""


class State(NamedTuple):
    """What the components of a run give; broadcastable where it stands for a mean or zero.

    Attributes:
        stream: input of each block [S, T, D], the first is the embedding; last, what comes out of
            the last block.
        heads: of each block, before the output projection, [S, T, H, K].
        mlps: of each block [S, T, D]; empty without MLPs.
    """

    stream: list[torch.Tensor]
    heads: list[torch.Tensor]
    mlps: list[torch.Tensor]

    def map(self, of: Callable[[torch.Tensor], torch.Tensor]) -> State:
        """A function of every tensor."""
        return State(*([of(x) for x in part] for part in self))

    def component(self, kind: str, layer: int, head: int) -> torch.Tensor:
        """What one component gives."""
        if kind == "embed":
            return self.stream[0]
        return self.mlps[layer] if kind == "mlp" else self.heads[layer][:, :, head]


@contextmanager
def hooks() -> Generator[list[Any]]:
    """A list of handles, all removed when the context ends, after an error too."""
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def on_heads(anatomy: Anatomy, layer: int, edit: Edit) -> Any:
    """Puts `edit` before the output projection of a layer; the handle removes it."""
    shape = (anatomy.heads.num_query, anatomy.heads.head_dim)

    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (edit(args[0].unflatten(-1, shape)).flatten(-2), *args[1:])

    return anatomy.out(layer).register_forward_pre_hook(hook, prepend=True)


def on_mlp(anatomy: Anatomy, layer: int, edit: Edit, tokens: int) -> Any:
    """Puts `edit` behind the MLP of a layer; the handle removes it."""

    def hook(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        # OPT's MLP sees all tokens of a batch as rows
        return edit(output.reshape(-1, tokens, output.shape[-1])).reshape(output.shape)

    return anatomy.mlp(layer).register_forward_hook(hook, prepend=True)


@contextmanager
def gives(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """A module answers with `forward` inside the context; hooks on it see its answer as ever."""
    held = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if held is not None:  # a forward of its own, as accelerate gives
            module.forward = held


@dataclass
class Surgery:
    """A model whose blocks are run one by one.

    Attributes:
        anatomy: of the model.
        max_rows: rows of a batch, at most (at least the sequences of one set).
        work: blocks run so far, times rows; see `forwards`. The first block of a rerun counts
            whole, though what is known of it is not worked out again.
        watch: called after every block.
    """

    anatomy: Anatomy
    max_rows: int = 32
    work: int = field(default=0, init=False)
    watch: Callable[[], None] | None = field(default=None, init=False)
    _calls: dict[int, list[tuple[tuple[Any, ...], dict[str, Any]]]] = field(
        default_factory=dict, init=False
    )
    _rest: dict[int, tuple[Any, ...]] = field(default_factory=dict, init=False)
    """What attention returns beside its output, by layer."""

    def forwards(self, sequences: int) -> float:
        """Cost so far in forward passes over that many sequences; a backward pass counts one."""
        return self.work / (sequences * self.anatomy.graph.layers)

    def calls(self, length: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What each block is called with besides the stream: masks and rotations, of one row.

        One row broadcasts over any batch; a model makes them itself, so that sliding windows and
        scaled rotations are its own.
        """
        if length not in self._calls:
            found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                known = {k: v for k, v in kwargs.items() if k != "hidden_states"}
                found.append((args[1:], known))

            with hooks() as handles, torch.no_grad():
                for layer, block in enumerate(self.anatomy.blocks):
                    handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
                    attention = self.anatomy.attention(layer)
                    handles.append(attention.register_forward_hook(self._keep_rest(layer)))
                self._body(torch.zeros(1, length, dtype=torch.long))
            self._calls[length] = found
        return self._calls[length]

    def _keep_rest(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, tuple):
                self._rest[layer] = (None,) * (len(output) - 1)

        return hook

    def _body(self, tokens_ST: torch.Tensor) -> None:
        device = next(self.anatomy.model.parameters()).device
        self.anatomy.model.base_model(input_ids=tokens_ST.to(device), use_cache=False)

    def embedded(self, tokens_ST: torch.Tensor) -> torch.Tensor:
        """The stream before block 0: tokens, and positions where they are learned."""
        found: list[torch.Tensor] = []

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append((args[0] if args else kwargs["hidden_states"]).detach().clone())
            raise _Enough

        with hooks() as handles, torch.no_grad():
            block = self.anatomy.blocks[0]
            handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            try:
                self._body(tokens_ST)
            except _Enough:
                pass
        return found[0]

    @contextmanager
    def hooked(self, length: int) -> Generator[list[Any]]:
        """As `hooks`, for runs of blocks by hand on sequences of this length."""
        self.calls(length)  # a run of its own, before any hook is there to see it
        with hooks() as handles:
            yield handles

    def blocks_from(self, x: torch.Tensor, start: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Runs blocks on the stream x [rows, T, D].

        Yields:
            Layer and the stream before it, `start` first; last their number and the stream after.
        """
        calls = self.calls(x.shape[1])
        for layer in range(start, self.anatomy.graph.layers):
            yield layer, x
            args, kwargs = calls[layer]
            out = self.anatomy.blocks[layer](x, *args, **kwargs)
            x = out[0] if isinstance(out, tuple) else out
            self.work += len(x)
            if self.watch is not None:
                self.watch()
        yield self.anatomy.graph.layers, x

    @contextmanager
    def known(self, layer: int, heads: torch.Tensor, mlp: torch.Tensor | None) -> Generator[None]:
        """A block whose heads before the output projection, and whose MLP, need not be worked out.

        Args:
            layer: of the block.
            heads: [rows, T, H, K]; its output projection is still run, with the hooks on it.
            mlp: what the MLP gives [rows, T, D]; None where it has to be run.
        """
        out, rest = self.anatomy.out(layer), self._rest.get(layer)

        def attention(*_args: Any, **_kwargs: Any) -> Any:
            written = out(heads.flatten(-2))
            return written if rest is None else (written, *rest)

        with ExitStack() as stack:
            stack.enter_context(gives(self.anatomy.attention(layer), attention))
            if mlp is not None:
                # OPT's MLP sees all tokens of a batch as rows
                def held(x: torch.Tensor) -> torch.Tensor:
                    return mlp.reshape(*x.shape[:-1], -1)

                stack.enter_context(gives(self.anatomy.mlp(layer), held))
            yield

    def record(self, tokens_ST: torch.Tensor) -> State:
        """Runs the model once; what its components give."""
        state = State([], [], [])
        x = self.embedded(tokens_ST)

        def keep(kept: list[torch.Tensor]) -> Edit:
            def edit(x: torch.Tensor) -> torch.Tensor:
                kept.append(x.clone())
                return x

            return edit

        with self.hooked(x.shape[1]) as handles, torch.no_grad():
            for layer in range(self.anatomy.graph.layers):
                handles.append(on_heads(self.anatomy, layer, keep(state.heads)))
                if self.anatomy.graph.mlps:
                    handles.append(on_mlp(self.anatomy, layer, keep(state.mlps), x.shape[1]))
            state.stream.extend(stream for _, stream in self.blocks_from(x, 0))
        return state

    def swapped(
        self, clean: State, donor: State, masks_CW: np.ndarray
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Runs with sets of components taken from elsewhere, from the first layer that changes.

        Args:
            clean: the run that is changed.
            donor: what the components of a set give instead.
            masks_CW: bool, a row for each set.

        Yields:
            Indices of some sets and the stream after the last block, [those sets, S, T, D].
        """
        rows = max(1, self.max_rows // len(clean.stream[0]))
        starts_C = _first_layers(masks_CW, self.anatomy)
        for start in np.unique(starts_C):
            of_C = np.flatnonzero(starts_C == start)
            for chunk in np.split(of_C, range(rows, len(of_C), rows)):
                yield chunk, self._swapped(clean, donor, masks_CW[chunk], int(start))

    @torch.no_grad()
    def _swapped(
        self, clean: State, donor: State, masks_CW: np.ndarray, start: int
    ) -> torch.Tensor:
        sets, graph = len(masks_CW), self.anatomy.graph
        device = clean.stream[start].device
        mask_CW = torch.from_numpy(np.ascontiguousarray(masks_CW)).to(device)

        def choose(mask: torch.Tensor, other: torch.Tensor) -> Edit:
            def edit(x: torch.Tensor) -> torch.Tensor:
                x = x.unflatten(0, (sets, -1))
                wide = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
                return torch.where(wide, other, x).flatten(0, 1)

            return edit

        x = clean.stream[start].repeat(sets, 1, 1)
        if start == 0 and masks_CW[:, 0].any():
            x = choose(mask_CW[:, 0], donor.stream[0])(x)
        width = graph.heads + graph.mlps
        with self.hooked(x.shape[1]) as handles, ExitStack() as stack:
            if start < graph.layers and not masks_CW[:, 0].any():
                first = 1 + start * width
                same = graph.mlps and (
                    graph.parallel or not mask_CW[:, first : first + graph.heads].any()
                )
                mlp = clean.mlps[start].repeat(sets, 1, 1) if same else None
                heads = clean.heads[start].repeat(sets, 1, 1, 1)
                stack.enter_context(self.known(start, heads, mlp))
            for layer in range(start, graph.layers):
                first = 1 + layer * width
                mask_CH = mask_CW[:, first : first + graph.heads]
                if mask_CH.any():
                    mask = mask_CH[:, None, None, :]
                    handles.append(on_heads(self.anatomy, layer, choose(mask, donor.heads[layer])))
                if graph.mlps and mask_CW[:, first + graph.heads].any():
                    edit = choose(mask_CW[:, first + graph.heads], donor.mlps[layer])
                    handles.append(on_mlp(self.anatomy, layer, edit, x.shape[1]))
            *_, (_, x) = self.blocks_from(x, start)
        return x.unflatten(0, (sets, -1))


class _Enough(Exception):
    """Ends a forward pass whose rest is not wanted."""


def _first_layers(masks_CW: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    layers_W = np.array([max(w.layer, 0) for w in anatomy.graph.writers])
    return np.where(masks_CW, layers_W, anatomy.graph.layers).min(axis=1)
