"""Exact Jacobians of the residual stream through each block at one position.

Shape suffixes: S sequences, T positions (one a sequence), D width, V rows of the vocabulary,
H key/value heads, P earlier positions, K width of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Cache, DynamicCache, PreTrainedModel

from scaleinv_ray.attention_only.cache import cache_argument
from scaleinv_ray.capture.architectures import Architecture, architecture_of
from scaleinv_ray.capture.makers import PassRequest, check_shape, labels_of, passes
from scaleinv_ray.capture.sites import check_tokens, to_device, to_numpy
from scaleinv_ray.checkpoints.weights.nulls import is_offloaded
from scaleinv_ray.records import Jacobians, Protocol

_ELEMENTS_PER_CHUNK = 2**26
"""Largest intermediate of a batched backward: 256 MiB in float32 (beyond it, more chunks)."""


class _Earlier(Cache):
    """A cache that puts the keys and values of earlier positions before the new ones."""

    def __init__(self, key_THPK: torch.Tensor, value_THPK: torch.Tensor) -> None:
        super().__init__(layers=[])
        self._earlier = key_THPK, value_THPK

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Any:
        """Earlier and new keys and values; nothing is stored."""
        key_THPK, value_THPK = self._earlier
        return torch.cat([key_THPK, key_states], 2), torch.cat([value_THPK, value_states], 2)


@dataclass
class _BlockCall:
    """One block's call at the position: its input, and its other arguments cut to the position."""

    block: nn.Module
    h_T1D: torch.Tensor
    arguments: dict[str, Any]
    cache_name: str
    key_THPK: torch.Tensor
    value_THPK: torch.Tensor

    @property
    def held(self) -> int:
        """Numbers of one sequence that a gradient passes."""
        return self.key_THPK[0].numel()

    def __call__(self, h_T1D: torch.Tensor, rows: slice) -> torch.Tensor:
        cache = _Earlier(self.key_THPK[rows], self.value_THPK[rows])
        arguments = {k: _cut_rows(v, rows) for k, v in self.arguments.items()}
        output = self.block(h_T1D, **arguments, **{self.cache_name: cache})
        return output[0] if isinstance(output, tuple) else output


def _cut_rows(value: Any, rows: slice) -> Any:
    """The rows' part of a tensor with a batch axis of more than one; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_cut_rows(v, rows) for v in value)
    if isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[0] > 1:
        return value[rows]
    return value


def _cut_position(name: str, value: Any, position: int) -> Any:
    """An argument of a block for a call with the last position alone."""
    at = slice(position, position + 1)
    if isinstance(value, tuple):  # cosines and sines [., T, K]
        return tuple(_cut_position(name, v, position) for v in value)
    if not isinstance(value, torch.Tensor):
        return value
    if value.ndim == 4:  # mask [., ., query, key]
        return value[:, :, at, : position + 1]
    if name in {"position_ids", "position_embeddings"}:
        return value[:, at]
    raise ValueError(f"{name}: got a tensor {tuple(value.shape)}, no rule to cut it to a position")


@contextmanager
def _bound(
    model: PreTrainedModel, architecture: Architecture
) -> Generator[dict[int, tuple[nn.Module, dict[str, Any]]]]:
    """Keeps, while the context is open, what each block is given, by the names of its arguments."""
    bound: dict[int, tuple[nn.Module, dict[str, Any]]] = {}

    def keep(layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        signature = inspect.signature(module.forward).bind(*args, **kwargs)
        bound[layer] = module, {**signature.arguments, **signature.arguments.pop("kwargs", {})}

    handles = [
        block.register_forward_pre_hook(partial(keep, layer), with_kwargs=True)
        for layer, block in enumerate(architecture.layers(model))
    ]
    try:
        yield bound
    finally:
        for handle in handles:
            handle.remove()


def _record_calls(
    model: PreTrainedModel, architecture: Architecture, tokens_ST: np.ndarray, position: int
) -> list[_BlockCall]:
    """Runs the model once on positions <= `position` and keeps what each block was given."""
    cache = DynamicCache()
    # no_grad, not inference_mode: its tensors cannot enter a graph later.
    with _bound(model, architecture) as bound, torch.no_grad():
        tokens = to_device(tokens_ST[:, : position + 1], model)
        body = model.base_model
        body(input_ids=tokens, use_cache=True, **{cache_argument(body.forward): cache})
    return [
        _block_call(*bound[layer], cache.layers[layer], position=position)
        for layer in sorted(bound)
    ]


@dataclass
class _WholeCall:
    """One block's call of an encoder: all positions are there, and one of them moves."""

    block: nn.Module
    h_STD: torch.Tensor
    arguments: dict[str, Any]
    position: int

    @property
    def h_T1D(self) -> torch.Tensor:
        """The input at the position."""
        return self.h_STD[:, self.position : self.position + 1]

    @property
    def held(self) -> int:
        """Numbers of one sequence that a gradient passes."""
        return self.h_STD[0].numel()

    def __call__(self, h_T1D: torch.Tensor, rows: slice) -> torch.Tensor:
        at, h_STD = self.position, self.h_STD[rows]
        whole_STD = torch.cat([h_STD[:, :at], h_T1D, h_STD[:, at + 1 :]], 1)
        output = self.block(whole_STD, **{k: _cut_rows(v, rows) for k, v in self.arguments.items()})
        return (output[0] if isinstance(output, tuple) else output)[:, at : at + 1]


def _record_whole_calls(
    model: PreTrainedModel, architecture: Architecture, tokens_ST: np.ndarray, position: int
) -> list[_WholeCall]:
    """Runs an encoder once and keeps what each block was given."""
    with _bound(model, architecture) as bound, torch.no_grad():
        model.base_model(input_ids=to_device(tokens_ST, model))
    calls = []
    for layer in sorted(bound):
        block, arguments = bound[layer]
        h_STD = arguments.pop("hidden_states").clone()
        calls.append(_WholeCall(block, h_STD, arguments, position))
    return calls


def _calls(
    model: PreTrainedModel, architecture: Architecture, tokens_ST: np.ndarray, position: int
) -> Sequence[_BlockCall | _WholeCall]:
    if architecture.causal:
        return _record_calls(model, architecture, tokens_ST, position)
    return _record_whole_calls(model, architecture, tokens_ST, position)


def _block_call(
    block: nn.Module, arguments: dict[str, Any], layer_cache: Any, *, position: int
) -> _BlockCall:
    arguments = dict(arguments)
    h_STD = arguments.pop("hidden_states")
    cache_name = next(k for k, v in arguments.items() if isinstance(v, Cache))
    del arguments[cache_name]
    return _BlockCall(
        block,
        h_STD[:, position : position + 1].clone(),  # a view would keep the whole sequence
        {k: _cut_position(k, v, position) for k, v in arguments.items()},
        cache_name,
        layer_cache.keys[:, :, :position],
        layer_cache.values[:, :, :position],
    )


def _jacobian(call: _BlockCall | _WholeCall, positions: slice, vectors: int) -> torch.Tensor:
    # J_TDD[t, i, j] = d out_i / d h_j: one forward, then D backward vectors under vmap, `vectors`
    # at a time. Reverse mode only: forward over reverse is silently wrong through nn.LayerNorm in
    # torch 2.13 (pytorch#196700).
    h_T1D = call.h_T1D[positions].detach().clone().requires_grad_()
    with torch.enable_grad():
        out_T1D = call(h_T1D, positions)
        basis_DT1D = torch.eye(h_T1D.shape[-1], dtype=out_T1D.dtype, device=out_T1D.device)
        basis_DT1D = basis_DT1D[:, None, None, :].expand(-1, *out_T1D.shape[:2], -1)
        parts = [
            torch.autograd.grad(out_T1D, h_T1D, part, is_grads_batched=True, retain_graph=True)[0]
            for part in basis_DT1D.split(vectors)
        ]
    return torch.cat(parts)[:, :, 0].transpose(0, 1)


def _layer_jacobians(call: _BlockCall | _WholeCall) -> np.ndarray:
    num_positions, _, width = call.h_T1D.shape
    # Largest intermediates of one vector at one position: the units of the MLP, and the gradient
    # of all keys, the held ones among them.
    widest = max(max(p.shape) for p in call.block.parameters())
    tokens = 1 if isinstance(call, _BlockCall) else call.h_STD.shape[1]
    elements = max(widest * tokens, call.held + width)
    vectors = min(width, max(1, _ELEMENTS_PER_CHUNK // elements))
    step = max(1, _ELEMENTS_PER_CHUNK // (elements * width))
    slices = [slice(t, t + step) for t in range(0, num_positions, step)]
    return np.concatenate([to_numpy(_jacobian(call, at, vectors)) for at in slices])


def vocabulary_rows(vocab_size: int, count: int, seed: int) -> np.ndarray:
    """Token ids drawn without replacement, nearly the same for vocabularies of nearly one size.

    A permutation of the ids below the next power of two is read in order, ids outside the
    vocabulary left out; so Pythia's 50,304 and 50,688 rows (padding differs) give the same draw
    but for ids between them.

    Returns:
        Sorted ids.

    Raises:
        ValueError: where the vocabulary is smaller.

    >>> vocabulary_rows(50_000, 3, seed=0).tolist() == vocabulary_rows(50_001, 3, seed=0).tolist()
    True
    """
    if count > vocab_size:
        raise ValueError(f"vocab_rows: got {count}, allowed <= {vocab_size} (vocabulary)")
    order = np.random.default_rng(seed).permutation(1 << (vocab_size - 1).bit_length())
    return np.sort(order[order < vocab_size][:count])


def _ends(
    model: PreTrainedModel, token_T: np.ndarray, rows_V: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Embeddings e_TD and unembedding rows u_VD; None where they are not of the stream's width."""
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        e_TD = to_numpy(embedding(to_device(token_T, model)))
    width = model.config.hidden_size
    inputs_TD = e_TD if e_TD.shape[1] == width else None
    output = model.get_output_embeddings()
    if output is None:  # a body alone
        return inputs_TD, None
    u_VD = to_numpy(output.weight[torch.from_numpy(rows_V).to(output.weight.device)])
    return inputs_TD, u_VD if u_VD.shape[1] == width else None


def _check(
    model: PreTrainedModel, tokens_ST: np.ndarray, protocol: Protocol, left_out: int
) -> Architecture:
    check_tokens(model, tokens_ST)
    architecture = architecture_of(model.config)
    check_shape(tokens_ST, protocol, left_out, causal=architecture.causal)
    if is_offloaded(model):
        raise ValueError("model: got an offloaded model, whose backward passes are incomplete")
    if model.config._attn_implementation not in {"sdpa", "eager"}:
        got = model.config._attn_implementation
        raise ValueError(f"attention: got {got!r}, allowed 'sdpa', 'eager'")
    if protocol.jacobian_positions > len(tokens_ST):
        got = protocol.jacobian_positions
        raise ValueError(f"jacobian_positions: got {got}, allowed <= {len(tokens_ST)} sequences")
    return architecture


def jacobian_records(
    model: PreTrainedModel,
    tokens_ST: np.ndarray,
    protocol: Protocol,
    *,
    labels: Mapping[str, Any] | None = None,
    seed_rows: int = 0,
    left_out: int = 0,
) -> Iterator[Jacobians]:
    """Jacobians j_TDD[t, out, in] = d resid_out / d resid_in of each block.

    Taken at `protocol.position` of the first `protocol.jacobian_positions` sequences. Only that
    position moves: earlier positions do not depend on it (causal attention), later ones do not
    reach it; the keys and values of earlier positions are reused, its own move with it. In an
    encoder all other positions of the block's input are held as they are.
    Beside them: the input h_TD; e_TD, what the embedding module gives for the tokens there; u_VD,
    rows of the unembedding matrix as stored (gain of the final norm not folded in). The latter two
    are None where the embedding is narrower than the stream (OPT-350m).

    Args:
        model: a language model in eval mode, sdpa or eager, wholly in memory.
        tokens_ST: token ids, (protocol.sequences, left_out + protocol.length).
        protocol: gives position and number of positions.
        labels: unit, probe and other fields of Record.
        seed_rows: seed of the unembedding rows; the draw does not depend on the model.
        left_out: as of `PassRequest`; the position counts from the token after them.

    Yields:
        Jacobians: one a layer, in order; L of them hold L T D^2 numbers, so write each and go on.

    Raises:
        ValueError: for bad tokens (see `check_tokens`), a model that is offloaded,
            too few sequences, or Jacobians that are not finite.
    """
    architecture = _check(model, tokens_ST, protocol, left_out)
    position = left_out + protocol.position
    tokens_ST = tokens_ST[: protocol.jacobian_positions]
    rows_V = vocabulary_rows(model.config.vocab_size, protocol.vocab_rows, seed_rows)
    e_TD, u_VD = _ends(model, tokens_ST[:, position], rows_V)
    shared = labels_of(model, protocol, labels or {})
    calls = _calls(model, architecture, tokens_ST, position)
    # Flash attention has no rule under vmap; the math kernel is composed of operators that have.
    sdpa = model.config._attn_implementation == "sdpa"
    for layer, call in enumerate(calls):
        with sdpa_kernel(SDPBackend.MATH) if sdpa else nullcontext():
            j_TDD = _layer_jacobians(call)
        if not np.isfinite(j_TDD).all():
            count = int((~np.isfinite(j_TDD)).sum())
            raise ValueError(f"Jacobian of layer {layer}: got {count} values that are not finite")
        yield Jacobians(
            j_TDD=j_TDD,
            h_TD=to_numpy(call.h_T1D[:, 0]),
            e_TD=e_TD,
            u_VD=u_VD,
            layer=layer,
            site="resid_post",
            removes_mean=architecture.removes_mean,
            parallel_residual=architecture.parallel_residual,
            **shared,
        )


@passes("jacobians")
def _jacobians(asked: PassRequest) -> Iterator[Jacobians]:
    return jacobian_records(
        asked.model, asked.tokens_ST, asked.protocol, labels=asked.labels, seed_rows=asked.seed,
        left_out=asked.left_out,
    )  # fmt: skip
