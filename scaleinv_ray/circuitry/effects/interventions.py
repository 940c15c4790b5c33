"""Exact effects: components are replaced, what follows is run again, the metric is read.

Shape suffixes: C sets of components, S sequences, T tokens, W writers, N components asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from scaleinv_ray.circuitry.effects.metrics import Metric, at_positions, check_metric, metric_of
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.edge_runs import swapped_edges
from scaleinv_ray.circuitry.surgery.reruns import State, Surgery
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import ABLATIONS as ABLATIONS
from scaleinv_ray.protocols import Ablation as Ablation


@dataclass(frozen=True)
class Rows:
    """A few sequences: their runs, and the metric on them.

    Attributes:
        pairs: of these sequences.
        clean: the run on A.
        corrupted: the run on B.
        donor: what ablated components give.
        metric: bound to these sequences.
    """

    pairs: Pairs
    clean: State
    corrupted: State
    donor: State
    metric: Metric


@dataclass(frozen=True)
class Experiment:
    """A model, pairs of sequences, a metric and an ablation; `values` runs sets of components.

    Attributes:
        surgery: of the model.
        pairs: all sequences.
        metric: name, out of `metrics.RANKED`.
        ablation: out of `ABLATIONS`; means are over the corrupted runs of all sequences.
    """

    surgery: Surgery
    pairs: Pairs
    metric: str = "logit_diff"
    ablation: Ablation = "resample"

    def __post_init__(self) -> None:
        """Checks all that can be refused before a forward pass.

        Raises:
            ValueError: for a metric, an ablation, tokens or padding that cannot be measured.
        """
        check_metric(self.metric, self.pairs)
        if self.ablation not in ABLATIONS:
            raise ValueError(
                f"ablation: got {shown(self.ablation)}, allowed {', '.join(ABLATIONS)}"
            )
        config = self.anatomy.model.config
        check_pairs(self.pairs, config)

    @property
    def anatomy(self) -> Anatomy:
        """Of the model."""
        return self.surgery.anatomy

    @property
    def sequences(self) -> int:
        """How many pairs there are."""
        return len(self.pairs.tokens_A_ST)

    @cached_property
    def batches(self) -> tuple[Rows, ...]:
        """Sequences in batches of at most `max_rows`, each with its runs, made once."""
        chunks = _chunks(self.pairs, self.surgery.max_rows)
        runs = [self._runs(chunk) for chunk in chunks]
        averaged = [b for _, b in runs] if self.ablation.startswith("mean") else []
        mean = _mean_of(averaged, per_position=self.ablation == "mean_per_position")
        found = []
        for chunk, (clean, corrupted) in zip(chunks, runs, strict=True):
            donor = corrupted if mean is None else mean
            if self.ablation == "zero":
                donor = corrupted.map(torch.zeros_like)
            found.append(Rows(chunk, clean, corrupted, donor, self._metric(chunk, clean)))
        return tuple(found)

    def values(self, masks_CW: np.ndarray, *, denoise: bool = False) -> np.ndarray:
        """The metric with sets of components replaced.

        Args:
            masks_CW: bool, a row for each set.
            denoise: the run is that on B and the components are A's, not the other way round.

        Returns:
            m [C, S].
        """
        parts = [values(self.surgery, r, masks_CW, denoise=denoise) for r in self.batches]
        return np.concatenate(parts, axis=1)

    def _runs(self, chunk: Pairs) -> tuple[State, State]:
        tokens = (chunk.tokens_A_ST, chunk.tokens_B_ST)
        a, b = (self.surgery.record(torch.from_numpy(x).long()) for x in tokens)
        return a, b

    def _metric(self, chunk: Pairs, clean: State) -> Metric:
        device = clean.stream[0].device
        clean_SPV = None
        if self.metric == "kl":
            positions_SP = torch.from_numpy(chunk.positions_SP).to(device)
            with torch.no_grad():
                clean_SPV = self.anatomy.logits(at_positions(clean.stream[-1][None], positions_SP))
            clean_SPV = clean_SPV[0].float()
        return metric_of(self.metric, chunk, device=device, clean_SPV=clean_SPV)


def check_pairs(pairs: Pairs, config: object) -> None:
    """Refuses tokens or lengths that a model does not take.

    Args:
        config: of the model.

    Raises:
        ValueError: naming the field.
    """
    ends = {getattr(config, name, None) for name in ("bos_token_id", "eos_token_id")}
    pad = getattr(config, "pad_token_id", None)
    pairs.check_tokens(getattr(config, "vocab_size", 0), None if pad in ends else pad)
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and pairs.tokens_A_ST.shape[1] > most:
        raise ValueError(f"tokens_A: got length {pairs.tokens_A_ST.shape[1]}, allowed <= {most}")


@torch.no_grad()
def values(
    surgery: Surgery, rows: Rows, masks_CW: np.ndarray, *, denoise: bool = False
) -> np.ndarray:
    """The metric of some sequences with sets of components replaced, m [C, S].

    Args:
        rows: the sequences.
        masks_CW: bool, a row for each set; an empty set gives the run as it is.
        denoise: the run is that on B and the components are A's.
    """
    base, donor = (rows.corrupted, rows.clean) if denoise else (rows.clean, rows.donor)
    sequences = len(rows.pairs.tokens_A_ST)
    found_CS = np.empty((len(masks_CW), sequences))
    for chosen, stream in surgery.swapped(base, donor, masks_CW):
        found_CS[chosen] = rows.metric(surgery.anatomy, stream).double().cpu().numpy()
    return found_CS


@torch.no_grad()
def edge_values(surgery: Surgery, rows: Rows, masks_CWR: np.ndarray) -> np.ndarray:
    """The metric of some sequences where sets of edges carry B's writer instead of A's, m [C, S].

    Args:
        rows: the sequences.
        masks_CWR: bool, a set of edges each.
    """
    found_CS = np.empty((len(masks_CWR), len(rows.pairs.tokens_A_ST)))
    for chosen, stream in swapped_edges(surgery, rows.clean, rows.donor, masks_CWR):
        found_CS[chosen] = rows.metric(surgery.anatomy, stream).double().cpu().numpy()
    return found_CS


def patching_share(
    clean_S: np.ndarray, corrupted_S: np.ndarray, patched_NS: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the effect that patching brings back, p_c = (m(B, c of A) - m(B)) / (m(A) - m(B)).

    Means over sequences are taken before the ratio; errors by delete-one jackknife.

    Args:
        clean_S: m(A).
        corrupted_S: m(B).
        patched_NS: m of B with a component of A.

    Returns:
        Shares [N] and their standard errors [N].

    Raises:
        ValueError: where m(A) - m(B) is less than two of its standard errors.
    """
    gap_S = clean_S - corrupted_S
    n = len(gap_S)
    stderr = gap_S.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    if n < 2 or gap_S.mean() == 0 or abs(gap_S.mean()) < 2 * stderr:
        raise ValueError(
            f"patching: got m(A) - m(B) = {gap_S.mean():.3g} +- {stderr:.2g}, allowed at least two "
            "standard errors (there is no effect to share out)"
        )
    back_NS = patched_NS - corrupted_S
    left_NS = (back_NS.sum(1, keepdims=True) - back_NS) / (gap_S.sum() - gap_S)
    spread_N = ((left_NS - left_NS.mean(1, keepdims=True)) ** 2).sum(1) * (n - 1) / n
    return back_NS.mean(1) / gap_S.mean(), np.sqrt(spread_N)


def _chunks(pairs: Pairs, most: int) -> list[Pairs]:
    return [pairs.some(slice(n, n + most)) for n in range(0, len(pairs.tokens_A_ST), most)]


def _mean_of(states: list[State], *, per_position: bool) -> State | None:
    """Means over all sequences, and over positions too unless they are kept apart."""
    if not states:
        return None
    dims = (0,) if per_position else (0, 1)

    def mean(*parts: torch.Tensor) -> torch.Tensor:
        return torch.cat(parts).mean(dims, keepdim=True)

    return State(
        *(
            [mean(*layer) for layer in zip(*(getattr(s, name) for s in states), strict=True)]
            for name in State._fields
        )
    )
