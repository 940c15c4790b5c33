"""Count, mean and second moment per block of sequences, accumulated while the model runs.

Shape suffixes: B blocks in sums, sequences in x_BTD; T tokens; D width.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from scaleinv_ray.records import Moments, Protocol, Record

GATHERED = 1024
"""Rows multiplied at once: a product of fewer falls short of the speed of a GEMM."""


class BlockSums:
    """Sums over the tokens of the first sequences of a probe, kept apart by block.

    The products are taken in the model's precision (float32 at least) of x - s, with s the mean of
    the first batch, and summed in float64; s is put back at the end. Without it a covariance loses
    log10(|mean|^2 / variance) digits to cancellation. Rows are gathered to products of a thousand
    rows, as far as a block has so many.
    """

    def __init__(self, num_sequences: int, num_blocks: int) -> None:
        """Blocks of whole sequences, their sizes equal up to one sequence."""
        self.num_sequences = num_sequences
        self.edges = [b * num_sequences // num_blocks for b in range(num_blocks + 1)]
        self.count_B = np.zeros(num_blocks, dtype=np.int64)
        self._shift_D: torch.Tensor | None = None
        self._sum_BD: torch.Tensor
        self._second_BDD: torch.Tensor
        self._rows_ND: torch.Tensor
        self._held = 0
        self._block = 0

    def _start(self, x_BTD: torch.Tensor) -> torch.Tensor:
        num_blocks, width = len(self.count_B), x_BTD.shape[-1]
        self._sum_BD = x_BTD.new_zeros(num_blocks, width, dtype=torch.float64)
        self._second_BDD = x_BTD.new_zeros(num_blocks, width, width, dtype=torch.float64)
        self._rows_ND = x_BTD.new_empty(GATHERED, width)
        return x_BTD.mean(dim=(0, 1))

    def add(self, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch whose first sequence has the number `first`; batches come in order."""
        x_BTD = x_BTD if x_BTD.dtype == torch.float64 else x_BTD.float()
        if self._shift_D is None:
            self._shift_D = self._start(x_BTD)
        for b, (low, high) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            part = x_BTD[max(low - first, 0) : max(high - first, 0)]
            if len(part):
                self._gather(part.reshape(-1, part.shape[-1]), b)

    def _gather(self, rows_ND: torch.Tensor, block: int) -> None:
        if block != self._block:
            self._flush()
            self._block = block
        while len(rows_ND):
            taken = rows_ND[: GATHERED - self._held]
            into_ND = self._rows_ND[self._held : self._held + len(taken)]
            assert self._shift_D is not None
            torch.sub(taken, self._shift_D, out=into_ND)
            self._held += len(taken)
            rows_ND = rows_ND[len(taken) :]
            if self._held == GATHERED:
                self._flush()

    def _flush(self) -> None:
        if self._held == 0:
            return
        rows_ND = self._rows_ND[: self._held]
        self.count_B[self._block] += self._held
        self._sum_BD[self._block] += rows_ND.new_ones(self._held) @ rows_ND
        self._second_BDD[self._block] += rows_ND.T @ rows_ND
        self._held = 0

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, mean and second moment about zero, each divided by the count.

        Returns:
            count_B, mean_BD, second_BDD, float64.

        Raises:
            ValueError: before any batch was added.
        """
        if self._shift_D is None:
            raise ValueError("moments: got no batch, allowed at least one")
        with torch.inference_mode():  # the sums were made in it
            self._flush()
        count_B = self.count_B.astype(np.float64)
        s_D = self._shift_D.double().cpu().numpy()
        m_BD = self._sum_BD.cpu().numpy() / count_B[:, None]
        second_BDD = self._second_BDD.cpu().numpy().copy()
        for second_DD, count, m_D in zip(second_BDD, count_B, m_BD, strict=True):
            shift_DD = np.outer(s_D, m_D + s_D / 2)  # with its transpose: s m^T + m s^T + s s^T
            second_DD /= count
            second_DD += shift_DD
            second_DD += shift_DD.T
        return self.count_B, m_BD + s_D, second_BDD


def sequences_for_moments(width: int, length: int, protocol: Protocol, *, available: int) -> int:
    """Sequences that hold the first tokens_per_dim * D tokens, rounded up to whole sequences.

    Args:
        width: D of the site.
        length: tokens in a sequence.
        protocol: gives tokens_per_dim and blocks.
        available: sequences in the probe.

    Returns:
        ceil(tokens_per_dim * D / length).

    Raises:
        ValueError: where the probe has fewer, or where there would be fewer than blocks.

    >>> sequences_for_moments(128, 128, Protocol(), available=8192)
    50
    """
    needed = math.ceil(protocol.tokens_per_dim * width / length)
    rule = f"ceil(tokens_per_dim {protocol.tokens_per_dim} * width {width} / length {length})"
    if needed > available:
        raise ValueError(f"sequences: got {available}, moments need {needed} = {rule}")
    if needed < protocol.blocks:
        raise ValueError(f"blocks: got {protocol.blocks}, allowed <= {needed} sequences = {rule}")
    return needed


class MomentCollector:
    """Moments of the residual stream after each block."""

    sites: frozenset[str] = frozenset({"resid_post"})

    def __init__(self, protocol: Protocol, *, num_sequences: int, length: int) -> None:
        """For a probe of `num_sequences` sequences of `length` tokens."""
        self._protocol, self._available, self._length = protocol, num_sequences, length
        self._sums: dict[tuple[str, int], BlockSums] = {}

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch of one site."""
        if site not in self.sites:
            return
        if (site, layer) not in self._sums:
            needed = sequences_for_moments(
                x_BTD.shape[-1], self._length, self._protocol, available=self._available
            )
            self._sums[site, layer] = BlockSums(needed, self._protocol.blocks)
        sums = self._sums[site, layer]
        if first < sums.num_sequences:
            sums.add(x_BTD, first)

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough."""
        return all(seen >= sums.num_sequences for sums in self._sums.values())

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """One record a layer."""
        found: list[Record] = []
        for (site, layer), sums in self._sums.items():
            count_B, mean_BD, second_BDD = sums.moments()
            found.append(
                Moments(
                    count_B=count_B,
                    mean_BD=mean_BD,
                    second_BDD=second_BDD,
                    site=site,
                    layer=layer,
                    removes_mean=removes_mean,
                    **labels,
                )
            )
        return {"moments": found}
