"""Records: what a capture leaves behind and an invariant reads. Frozen dataclasses of arrays.

Shape suffixes: T rows (tokens), D width, B block of sequences, L layer, V rows of the vocabulary,
S sequence, O outputs, I inputs; of a quadrature R probe vectors, K nodes; of chains N settings,
C chains, S draws, Q other probes. Everything but the arrays is optional when built by hand.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np

from scaleinv_ray.bounds import Range
from scaleinv_ray.inputs.html import table
from scaleinv_ray.protocols import Count, check_ranges, digest_of

Variant = Literal["trained", "random_init", "shuffled_weights", "shuffled_tokens"]
MOST_TOKENS = 10**9
"""Of a probe: a driver holds them all, four bytes each."""
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class Protocol:
    """What makes two captures comparable; hashed into every key.

    Attributes:
        sequences: probe sequences; a cloud has one row for each.
        length: tokens in a sequence.
        position: token position whose row enters a cloud (>= 20: no attention sinks).
        tokens_per_dim: Moments use the first tokens_per_dim * D tokens, the same N/D at each width.
        blocks: blocks of sequences kept apart in Moments.
        stream_units: units sampled for a stream, the same number at every width.
        jacobian_positions: sequences at whose `position` the Jacobian is taken.
        attention_sequences: sequences whose attention matrices are kept.
        vocab_rows: unembedding rows sampled beside the Jacobians.
    """

    sequences: Annotated[int, Range(1, 10**7)] = 8192
    length: Annotated[int, Range(1, 10**6)] = 128
    position: Count = 64
    tokens_per_dim: Annotated[int, Range(1, 10**6)] = 50
    blocks: Count = 8
    stream_units: Annotated[int, Range(1, 10**5)] = 128
    jacobian_positions: Annotated[int, Range(1, 10**5)] = 64
    attention_sequences: Annotated[int, Range(1, 10**5)] = 4
    vocab_rows: Annotated[int, Range(1, 10**6)] = 64

    def __post_init__(self) -> None:
        check_ranges(self, "protocol")
        if not self.position < self.length:
            raise ValueError(
                f"protocol.position: got {self.position}, allowed 0..{self.length - 1} (length - 1)"
            )
        if self.blocks > self.sequences:
            raise ValueError(
                f"protocol.blocks: got {self.blocks}, allowed 1..{self.sequences} (sequences)"
            )
        if (tokens := self.sequences * self.length) > MOST_TOKENS:
            raise ValueError(
                f"protocol.sequences x length: got {tokens} tokens, allowed: {MOST_TOKENS} a probe"
            )

    def digest(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON of all fields."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_of(self)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every record may say of itself.

    Attributes:
        unit: id of the unit it was captured from.
        probe: probe set, None where tokens do not matter.
        site: resid_pre, resid_post, attn_out, mlp_out, mlp_hidden, attn_pattern, ...
        layer: block index from 0, None where there is none (embeddings).
        num_layers: blocks in the model.
        role: what a weight does (query, key, value, attn_out, mlp_in, mlp_gate, mlp_out,
            embedding, unembedding, other).
        head: head of a split projection or an attention pattern.
        removes_mean: a LayerNorm follows: adding c * (1, .., 1) changes nothing downstream, so
            invariants project the all-ones direction out first.
        protocol: digest of the protocol.
        dtype: dtype in which the values were stored by the model.
        step: of training, None where there is none.
        arrays: names of the array fields, in order (class attribute).
    """

    arrays: ClassVar[tuple[str, ...]] = ()

    unit: str | None = None
    probe: str | None = None
    site: str | None = None
    layer: int | None = None
    num_layers: int | None = None
    role: str | None = None
    head: int | None = None
    removes_mean: bool = False
    protocol: str | None = None
    dtype: str | None = None
    step: int | None = None

    @property
    def depth(self) -> float | None:
        """Relative depth: (l+1)/L after layer l, l/L before it; None without layer."""
        if self.layer is None or self.num_layers is None:
            return None
        return (self.layer + (self.site != "resid_pre")) / self.num_layers

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record, without the arrays."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Record)}

    def of(self, variant: Variant) -> Record:
        """As a unit's in a variant; most records do not tell them apart."""
        return self

    def __init_subclass__(cls) -> None:
        cls.__repr__ = Record.__repr__  # type: ignore[method-assign] # a dataclass makes its own

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self._shown())
        return f"<{type(self).__name__} {said}>"

    def _repr_html_(self) -> str:
        return table(type(self).__name__, (), self._shown())

    def _shown(self) -> list[tuple[str, str]]:
        """Shapes of the arrays, and the labels that are known."""
        arrays = {name: getattr(self, name) for name in self.arrays}
        shapes = [(k, f"{v.dtype} {[*v.shape]}") for k, v in arrays.items() if v is not None]
        known = self.labels().items()
        return shapes + [(k, str(v)) for k, v in known if v is not None and v is not False]


@dataclass(frozen=True, kw_only=True)
class WeightMatrix(Record):
    """A weight matrix w_OI (outputs x inputs): a tensor, or one head of a split projection.

    odd: why the stored tensor is no matrix of this place; w_OI is empty then.
    """

    arrays: ClassVar[tuple[str, ...]] = ("w_OI",)
    w_OI: np.ndarray
    odd: str | None = None


@dataclass(frozen=True, kw_only=True)
class Moments(Record):
    """Sums per block of sequences: tokens, mean [B, D], second moment about zero / count [B, D, D].

    second_BDD[b] = (1/count_b) sum_t x_t x_t^T, float64.
    """

    arrays: ClassVar[tuple[str, ...]] = ("count_B", "mean_BD", "second_BDD")
    count_B: np.ndarray
    mean_BD: np.ndarray
    second_BDD: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Activations(Record):
    """Activations x_TD by row.

    A `cloud` has one row a sequence, at one fixed position. A `stream` has consecutive tokens of
    whole sequences on a fixed number of sampled units.
    """

    arrays: ClassVar[tuple[str, ...]] = ("x_TD", "sequence_T", "position_T")
    x_TD: np.ndarray
    sequence_T: np.ndarray
    position_T: np.ndarray
    sampling: Literal["cloud", "stream"] | None = None

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record and the sampling scheme."""
        return super().labels() | {"sampling": self.sampling}


@dataclass(frozen=True, kw_only=True)
class DepthStack(Record):
    """The cloud's rows at every depth, x_LTD with L = num_layers + 1 (embeddings first)."""

    arrays: ClassVar[tuple[str, ...]] = ("x_LTD", "sequence_T")
    x_LTD: np.ndarray
    sequence_T: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Attention(Record):
    """Attention patterns of one head for a few sequences, a_STT (rows: queries)."""

    arrays: ClassVar[tuple[str, ...]] = ("a_STT",)
    a_STT: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Jacobians(Record):
    """Layer Jacobians j_TDD[t, out, in] = d resid_out / d resid_in at one position of T sequences.

    Only that position moves; keys and values of earlier positions are held. Beside them the input
    h_TD itself, unembedding rows u_VD, and the embeddings e_TD of the tokens at the position.
    parallel_residual: attention and MLP read the same input, so that J h = h up to the norm's eps.
    """

    arrays: ClassVar[tuple[str, ...]] = ("j_TDD", "h_TD", "e_TD", "u_VD")
    j_TDD: np.ndarray
    h_TD: np.ndarray | None = None
    e_TD: np.ndarray | None = None
    u_VD: np.ndarray | None = None
    parallel_residual: bool = False

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record and whether the block's residual is parallel."""
        return super().labels() | {"parallel_residual": self.parallel_residual}


@dataclass(frozen=True, kw_only=True)
class TokenLosses(Record):
    """Cross-entropy in nats of every next token, loss_ST [sequences, length - 1]."""

    arrays: ClassVar[tuple[str, ...]] = ("loss_ST",)
    loss_ST: np.ndarray


MASKED_SHARE = 0.15
"""Of the tokens of a sequence, hidden at one time (Devlin et al. 2019)."""


def num_masked(length: int) -> int:
    """How many tokens of a sequence are hidden; at least one."""
    return max(1, round(MASKED_SHARE * length))


@dataclass(frozen=True, kw_only=True)
class MaskedLosses(Record):
    """Cross-entropy in nats of hidden tokens, loss_SM [sequences, hidden positions of each]."""

    arrays: ClassVar[tuple[str, ...]] = ("loss_SM", "position_SM")
    loss_SM: np.ndarray
    position_SM: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Lanczos(Record):
    """Gauss quadrature of the density of states of an operator, a row for every probe vector.

    nodes_RK and weights_RK (summing to 1 in every row) after K Lanczos steps from R unit vectors:
    sum_k weights_rk f(nodes_rk) estimates v_r^T f(H) v_r, whose mean over r is tr f(H) / dim.

    Attributes:
        sketch_RKM: count sketch (M buckets, one hash for all steps of a run) of the unit Ritz
            vector of every node, None where no basis was kept.
        operator: of which curvature.
        block: name of the restricted set of parameters, None for all.
        dim: parameters, the size of the operator.
        weight_norm: Euclidean norm of those parameters.
    """

    arrays: ClassVar[tuple[str, ...]] = ("nodes_RK", "weights_RK", "sketch_RKM")
    nodes_RK: np.ndarray
    weights_RK: np.ndarray
    sketch_RKM: np.ndarray | None = None
    dim: int
    operator: Literal["hessian", "ggn"] = "hessian"
    block: str | None = None
    weight_norm: float | None = None

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record, and what the operator is."""
        own = ("dim", "operator", "block", "weight_norm")
        return super().labels() | {name: getattr(self, name) for name in own}


@dataclass(frozen=True, kw_only=True)
class Chains(Record):
    """Draws from the posterior exp(-nbeta L_n(w) - gamma |w - w0|^2 / 2) around w0, by setting.

    A setting is a pair (nbeta, gamma) with its step; all C chains start at or around the same w0.
    Every draw after the start is kept, the first `burn_in` of them too. loss - base_loss is paired:
    both are means over the same batch, at the draw and at w0.

    Attributes:
        nbeta_N: inverse temperatures, times the number of samples.
        gamma_N: strengths of the localiser.
        step_N: step sizes eps.
        loss_NCS: mean loss of a batch at every draw, nats (or the loss's unit).
        base_loss_NCS: mean loss of the same batch at w0.
        virial_NCS: (w - w0) . (nbeta g + gamma (w - w0)) / dim, g on a batch independent of w.
        drift_NCS: |nbeta g_B + gamma (w - w0)|^2 / dim of the gradient that moved the chain.
        acceptance_NC: share of proposals accepted, 1 without a Metropolis test.
        heating_N: eps nbeta^2 lambda_max(C) / (4 m), the minibatch noise against that injected.
        dispersed_C: 1 where the chain started away from w0, 0 where at w0.
        observed_QNCS: excess loss of other probes (draw minus w0, fixed batches), None without.
        observed: names of those probes, separated by commas.
        burn_in: draws at the start of every chain that count for nothing.
        dim: parameters that move.
        num_samples: n of nbeta, samples of the data.
        batch: samples in a batch, m.
        sampler: sgld, rmsprop_sgld, sgld_cv or mala.
        block: name of the restricted set of parameters, None for all.
        loss_kind: log_likelihood (nats), or squared_error, whose noise scale is `noise`.
        noise: variance of the noise that makes a squared error a likelihood.
        largest_curvature: h_max at w0, from Lanczos.
        lowest_curvature: smallest Ritz value at w0; clearly negative at no minimum.
        gradient_noise: lambda_max of the covariance of per-sample gradients (of the residual ones
            with control variates).
        restored: the parameters equalled w0 bit by bit after sampling.
    """

    arrays: ClassVar[tuple[str, ...]] = (
        "nbeta_N",
        "gamma_N",
        "step_N",
        "loss_NCS",
        "base_loss_NCS",
        "virial_NCS",
        "drift_NCS",
        "acceptance_NC",
        "heating_N",
        "dispersed_C",
        "observed_QNCS",
    )
    nbeta_N: np.ndarray
    gamma_N: np.ndarray
    step_N: np.ndarray
    loss_NCS: np.ndarray
    base_loss_NCS: np.ndarray
    virial_NCS: np.ndarray | None = None
    drift_NCS: np.ndarray | None = None
    acceptance_NC: np.ndarray | None = None
    heating_N: np.ndarray | None = None
    dispersed_C: np.ndarray | None = None
    observed_QNCS: np.ndarray | None = None
    dim: int
    num_samples: int
    batch: int
    burn_in: int
    sampler: str = "sgld"
    block: str | None = None
    observed: str | None = None
    loss_kind: Literal["log_likelihood", "squared_error"] = "log_likelihood"
    noise: float | None = None
    largest_curvature: float | None = None
    lowest_curvature: float | None = None
    gradient_noise: float | None = None
    restored: bool = True

    def labels(self) -> dict[str, str | int | bool | float | None]:
        """The fields of Record, and how the chains were run."""
        held = {f.name for f in dataclasses.fields(Record)} | set(self.arrays)
        own = [f.name for f in dataclasses.fields(self) if f.name not in held]
        return super().labels() | {name: getattr(self, name) for name in own}


# at the end, as it makes what is defined above
from scaleinv_ray.records.adapters import from_nnsight, from_transformer_lens  # noqa: E402
from scaleinv_ray.records.effects import Effects  # noqa: E402
from scaleinv_ray.records.readings import Readings  # noqa: E402

__all__ = [
    "MASKED_SHARE",
    "MOST_TOKENS",
    "VARIANTS",
    "Activations",
    "Attention",
    "Chains",
    "DepthStack",
    "Effects",
    "Jacobians",
    "Lanczos",
    "MaskedLosses",
    "Moments",
    "Protocol",
    "Readings",
    "Record",
    "TokenLosses",
    "Variant",
    "WeightMatrix",
    "from_nnsight",
    "from_transformer_lens",
    "num_masked",
]
