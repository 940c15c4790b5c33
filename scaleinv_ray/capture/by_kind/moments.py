"""Count, mean and second moment per block of sequences, accumulated while the model runs.

Shape suffixes: B blocks in sums, sequences in x_BTD; T tokens; D width.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
import torch

from scaleinv_ray.capture.makers import Allocate, PassRequest, collects
from scaleinv_ray.records import Moments, Protocol, Record

GATHERED = 1024
"""Rows multiplied at once: a product of fewer falls short of the speed of a GEMM."""


class BlockSums:
    """Sums over the tokens of the first sequences of a probe, kept apart by block.

    The products are taken in the model's precision (float32 at least) of x - s, with s the mean of
    the first batch, and summed in float64; s is put back when a block is done. Without it a
    covariance loses log10(|mean|^2 / variance) digits to cancellation. Rows are gathered to
    products of a thousand rows, as far as a block has so many.
    """

    def __init__(
        self,
        num_sequences: int,
        num_blocks: int,
        allocate: Allocate = np.empty,
    ) -> None:
        """Blocks of whole sequences, their sizes equal up to one sequence.

        Args:
            allocate: gives the float64 array in which second moments come to lie as blocks are
                done, such as a mapped file: the sums of one block are in memory at a time.
        """
        self.num_sequences = num_sequences
        self.edges = [b * num_sequences // num_blocks for b in range(num_blocks + 1)]
        self.count_B = np.zeros(num_blocks, dtype=np.int64)
        self._allocate = allocate
        self._shift_D: torch.Tensor | None = None
        self._sum_D: torch.Tensor | None = None
        self._second_DD: torch.Tensor | None = None
        self._rows_ND: torch.Tensor
        self._means: list[np.ndarray] = []
        self._second_BDD: np.ndarray
        self._held = 0
        self._added = 0

    def _start(self, x_BTD: torch.Tensor) -> torch.Tensor:
        width = x_BTD.shape[-1]
        self._rows_ND = x_BTD.new_empty(GATHERED, width)
        self._second_BDD = self._allocate((len(self.count_B), width, width))
        return x_BTD.mean(dim=(0, 1))

    @property
    def _block(self) -> int:
        """The block at work: those before it are done."""
        return len(self._means)

    def add(self, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch whose first sequence has the number `first`; batches come in order."""
        x_BTD = x_BTD if x_BTD.dtype == torch.float64 else x_BTD.float()
        if self._shift_D is None:
            self._shift_D = self._start(x_BTD)
        self._added = first + len(x_BTD)
        last = min(self._added, self.num_sequences)
        while first < last:
            block = bisect.bisect_right(self.edges, first) - 1
            stop = min(self.edges[block + 1], last)
            part, x_BTD = x_BTD[: stop - first], x_BTD[stop - first :]
            self._gather(part.reshape(-1, part.shape[-1]), block)
            first = stop

    def _gather(self, rows_ND: torch.Tensor, block: int) -> None:
        if block != self._block:
            self._end_block()
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
        sum_D, second_DD = rows_ND.new_ones(self._held) @ rows_ND, rows_ND.T @ rows_ND
        if self._sum_D is None or self._second_DD is None:
            # most blocks of narrow models are one product: nothing to be added to
            self._sum_D, self._second_DD = sum_D.double(), second_DD.double()
        else:
            self._sum_D += sum_D
            self._second_DD += second_DD
        self._held = 0

    def _end_block(self) -> None:
        """Divides by the count and puts s back; the block's sums are free afterwards."""
        assert self._shift_D is not None
        with torch.inference_mode():  # the sums were made in it
            self._flush()
        assert self._sum_D is not None and self._second_DD is not None
        s_D = self._shift_D.double().cpu().numpy()
        count = float(self.count_B[self._block])
        m_D = self._sum_D.cpu().numpy() / count
        shift_DD = np.outer(s_D, m_D + s_D / 2)  # with its transpose: s m^T + m s^T + s s^T
        second_DD = self._second_DD.cpu().numpy()
        self._sum_D = self._second_DD = None
        second_DD /= count
        second_DD += shift_DD
        np.add(second_DD, shift_DD.T, out=self._second_BDD[self._block])
        self._means.append(m_D + s_D)

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, mean and second moment about zero, each divided by the count.

        Returns:
            count_B, mean_BD, second_BDD, float64.

        Raises:
            ValueError: before all sequences were added.
        """
        if self._shift_D is None or self._added < self.num_sequences:
            raise ValueError(
                f"moments: got too few sequences, {self._added}, allowed all {self.num_sequences} "
                "of them, at least one"
            )
        if len(self._means) < len(self.count_B):
            self._end_block()
        return self.count_B, np.stack(self._means), self._second_BDD


def sequences_for_moments(width: int, length: int, protocol: Protocol, *, available: int) -> int:
    """Sequences that hold the first tokens_per_dim * D tokens, rounded up to whole sequences.

    Args:
        length: tokens in a sequence.

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

    def __init__(
        self,
        protocol: Protocol,
        *,
        num_sequences: int,
        length: int,
        allocate: Allocate = np.empty,
    ) -> None:
        """For a probe of `num_sequences` sequences of `length` tokens; allocate: of BlockSums."""
        self._protocol, self._available, self._length = protocol, num_sequences, length
        self._allocate = allocate
        self._sums: dict[tuple[str, int], BlockSums] = {}

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch of one site."""
        if site not in self.sites:
            return
        if (site, layer) not in self._sums:
            needed = sequences_for_moments(
                x_BTD.shape[-1], self._length, self._protocol, available=self._available
            )
            self._sums[site, layer] = BlockSums(needed, self._protocol.blocks, self._allocate)
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


@collects("moments", by_block=True)
def moment_collector(asked: PassRequest, _: frozenset[str]) -> MomentCollector:
    """Eight second moments of a block of a wide model are as large as its weights."""
    num_sequences, length = asked.text_ST.shape
    return MomentCollector(
        asked.protocol, num_sequences=num_sequences, length=length, allocate=asked.allocate
    )
