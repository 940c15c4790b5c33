"""Circuits written into the weights of a stock GPT-2: named parts of the stream, read and written.

The stream holds named one-hot spaces, a pair (C, -C) and a compensator that makes every written row
sum to zero. The norm's gain sqrt(2 C^2 / D) then undoes its division, so that a LayerNorm is the
identity up to |x|^2 / 2 C^2.

Shape suffixes: V tokens, T positions, K width of a head, N width of a space, U units of an MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

BOS = 0
"""Token that stands first; the letters are 1..vocab-1."""
_PAIR, _EXTRA = 2, 3
"""The pair, and with it the compensator."""


@dataclass(frozen=True)
class Layout:
    """What a compiled model is made of.

    Attributes:
        vocab: tokens.
        length: positions.
        spaces: name -> width of a part of the stream.
        layers: blocks.
        heads: of each block.
        units: of each MLP, whose nonlinearity is relu.
        constant: C; the larger, the nearer LayerNorm is to the identity (error C^-2) and the
            coarser the numbers beside it (C times the rounding of the dtype).
    """

    vocab: int
    length: int
    spaces: dict[str, int]
    layers: int
    heads: int
    units: int = 4
    constant: float = 1e3

    @cached_property
    def head_dim(self) -> int:
        """Width of a head: room for any space, and for all of them together."""
        widest = max(self.vocab, self.length, *self.spaces.values())
        return max(widest, -(-(sum(self.spaces.values()) + _EXTRA) // self.heads))

    @property
    def width(self) -> int:
        """D of the stream."""
        return self.head_dim * self.heads

    def at(self, space: str) -> slice:
        """Where a space lies."""
        start = _EXTRA
        for name, width in self.spaces.items():
            if name == space:
                return slice(start, start + width)
            start += width
        raise KeyError(space)


class Builder:
    """A model of zeros into which circuits are written."""

    def __init__(self, layout: Layout, *, dtype: torch.dtype = torch.float64) -> None:
        """A model that does nothing yet.

        Args:
            layout: of it.
            dtype: of its weights.
        """
        self.layout = layout
        config = GPT2Config(
            vocab_size=layout.vocab,
            n_positions=layout.length,
            n_embd=layout.width,
            n_layer=layout.layers,
            n_head=layout.heads,
            n_inner=layout.units,
            activation_function="relu",
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=None,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
        made: Any = GPT2LMHeadModel(config)
        self.model: Any = made.to(dtype).eval()
        gain = (2 * layout.constant**2 / layout.width) ** 0.5
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.fill_(gain if "ln_" in name and name.endswith("weight") else 0.0)
            self.model.transformer.wte.weight[:, :_PAIR] += (
                torch.tensor([1.0, -1.0], dtype=dtype) * layout.constant
            )

    def embed(self, space: str, rows_VN: np.ndarray) -> None:
        """What each token writes into a space."""
        self._write(self.model.transformer.wte.weight, space, rows_VN)

    def positions(self, space: str, rows_TN: np.ndarray) -> None:
        """What each position writes into a space."""
        self._write(self.model.transformer.wpe.weight, space, rows_TN)

    def head(
        self,
        layer: int,
        head: int,
        *,
        value: tuple[str, np.ndarray],
        to: str,
        query: tuple[str, np.ndarray] | None = None,
        key: tuple[str, np.ndarray] | None = None,
    ) -> None:
        """A head: softmax(q . k) over earlier positions of what `value` reads, written into `to`.

        Args:
            value: space and [N, N of to], what is moved.
            to: space written to.
            query: space and [N, K]; None attends to all positions alike.
            key: space and [N, K].
        """
        attention = self.model.transformer.h[layer].attn
        width, k = self.layout.width, self.layout.head_dim
        # GPT-2 divides scores by sqrt(K)
        for part, read in enumerate((query, key)):
            if read is not None:
                columns = part * width + head * k
                scale = k**0.5 if part == 0 else 1.0
                self._read(attention.c_attn.weight, columns, read[0], scale * read[1])
        self._read(attention.c_attn.weight, 2 * width + head * k, *value)
        n = value[1].shape[1]
        self._write(attention.c_proj.weight[head * k : head * k + n], to, np.eye(n))

    def mlp(
        self, layer: int, *, reads: dict[str, np.ndarray], bias_U: np.ndarray, to: str,
        writes_UN: np.ndarray, first: int = 0,
    ) -> None:  # fmt: skip
        """Units relu(reads + bias), from unit `first` on, written into a space.

        Args:
            reads: space -> [N, U].
            writes_UN: what each unit writes.
        """
        mlp = self.model.transformer.h[layer].mlp
        for space, w_NU in reads.items():
            self._read(mlp.c_fc.weight, first, space, w_NU)
        rows = slice(first, first + len(bias_U))
        with torch.no_grad():
            mlp.c_fc.bias[rows] = torch.as_tensor(bias_U, dtype=mlp.c_fc.bias.dtype)
        self._write(mlp.c_proj.weight[rows], to, writes_UN)

    def unembed(self, space: str, rows_NV: np.ndarray, bias_V: np.ndarray | None = None) -> None:
        """Logits read off a space, and a constant for each token."""
        head = self.model.lm_head.weight
        with torch.no_grad():
            head[:, self.layout.at(space)] += torch.as_tensor(rows_NV.T, dtype=head.dtype)
            if bias_V is not None:
                # GPT-2's head has no bias: the constant of the pair stands for one
                head[:, 0] += torch.as_tensor(bias_V, dtype=head.dtype) / self.layout.constant

    def _read(self, weight_IO: torch.Tensor, column: int, space: str, w_NK: np.ndarray) -> None:
        with torch.no_grad():
            columns = slice(column, column + w_NK.shape[1])
            weight_IO[self.layout.at(space), columns] += torch.as_tensor(
                w_NK, dtype=weight_IO.dtype
            )

    def _write(self, weight_ID: torch.Tensor, space: str, rows_IN: np.ndarray) -> None:
        rows = torch.as_tensor(np.ascontiguousarray(rows_IN), dtype=weight_ID.dtype)
        with torch.no_grad():
            weight_ID[:, self.layout.at(space)] += rows
            weight_ID[:, _PAIR] -= rows.sum(1)  # the compensator: no row moves the mean
