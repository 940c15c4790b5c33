"""The kinds of capture: all that is known of one without a model in memory. The only list of them.

A new kind is an entry here and a file in `capture/by_kind/`, which makes its records out of a live
model. Kinds that share a class of record are told apart by an invariant's `scheme`.

In the laws c is a checkpoint and p the protocol; L layers, D width, S sequences, T tokens.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from scaleinv_ray.protocols import (
    TOKENS_PER_UNIT,
    CircuitsProtocol,
    CurvatureProtocol,
    SamplingProtocol,
    Spectroscopy,
    digest_of,
)
from scaleinv_ray.records import (
    Activations,
    Attention,
    Chains,
    DepthStack,
    Effects,
    Jacobians,
    Lanczos,
    MaskedLosses,
    Moments,
    Protocol,
    Record,
    TokenLosses,
    WeightMatrix,
    num_masked,
)

Settings = CurvatureProtocol | SamplingProtocol | CircuitsProtocol


class Shapes(typing.Protocol):
    """What a checkpoint says of its sizes."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def n_params(self) -> int:
        """Parameters."""

    @property
    def n_layers(self) -> int:
        """Blocks."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    def d_mlp(self) -> int | None:
        """Hidden units of an MLP, 0 where blocks have none, None where that is not known."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""

    @property
    def encoder(self) -> bool:
        """Whether attention sees later positions too: there is no next token then."""

    @property
    def mask_id(self) -> int | None:
        """The token that stands for a hidden one, where the model predicts it."""


class Speeds(typing.Protocol):
    """What a device computes with."""

    @property
    def flops(self) -> float:
        """Floating-point operations a second of large products."""

    @property
    def backward(self) -> float:
        """The same, of the backward passes of Jacobians."""

    @property
    def call_s(self) -> float:
        """Seconds of a block's call on the shortest input."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of capture.

    Attributes:
        name: in keys, files, tables and schemes.
        record: class of its records.
        num_bytes: of a capture file, from checkpoint, protocol and settings (None: not asked for).
        num_records: in a capture.
        work: of an invariant on one record, in units of the leading operation, from D, L and the
            protocol; 0 where records do not grow with the model.
        seconds: of a device, beside the forward pass that is shared.
        version: part of the key of a capture, raised whenever what is captured changes.
        one_pass: it comes out of the one forward pass over a probe; else it has a pass of its own.
        resumable: it follows from the states between blocks, so that a streamed pass that was
            interrupted can go on.
        token_free: it is read from the checkpoint, whatever the tokens: no probe, no file, no
            shuffled_tokens.
        section: of the config, with its settings; without that section a run does not capture it.
        observed: the other probes that settings name.
        in_pairs: it reads pairs, clean and corrupted, in place of a probe; no shuffled_tokens.
        of_losses: its curves are in nats a token, or at positions of tokens, so that models with
            other tokenizers do not share them.
        exists: whether a model has it.
        own: fields of the protocol that it alone reads: they enter its keys and draws alone.
        most: field of the protocol -> the most that a checkpoint has, and what that is.
        check: ValueError where the protocol asks more of a checkpoint than that can say.
        check_settings: the same of its settings.
        limits: parameter of an invariant -> least, most, and what sets that bound.
    """

    name: str
    record: type[Record]
    num_bytes: Callable[[Shapes, Protocol, Any], int]
    num_records: Callable[[Shapes], int] = lambda c: c.n_layers
    work: Callable[[int, int, Protocol], float] = lambda width, layers, p: 0.0
    seconds: Callable[[Shapes, Protocol, Speeds], float] = lambda c, p, device: 0.0
    version: int = 1
    one_pass: bool = False
    resumable: bool = True
    token_free: bool = False
    section: Literal["curvature", "sampling", "circuits"] | None = None
    observed: Callable[[Any], tuple[str, ...]] = lambda settings: ()
    in_pairs: bool = False
    of_losses: bool = False
    exists: Callable[[Shapes], bool] = lambda c: True
    own: tuple[str, ...] = ()
    most: Callable[[Shapes, Protocol], Mapping[str, tuple[int, str]]] = lambda c, p: {}
    check: Callable[[Shapes, Protocol], None] = lambda c, p: None
    check_settings: Callable[[Shapes, Any], None] = lambda c, settings: None
    limits: Callable[[Protocol], Mapping[str, tuple[int, int, str]]] = lambda p: {}

    def settings(self, asked: Spectroscopy) -> Settings | None:
        """Its settings in what a run asks for; None where it has none or is not asked for."""
        found: Settings | None = getattr(asked, self.section) if self.section else None
        return found

    def is_asked(self, asked: Spectroscopy) -> bool:
        """Whether a run captures it where an invariant reads it."""
        return self.section is None or self.settings(asked) is not None

    def observed_by(self, asked: Spectroscopy) -> tuple[str, ...]:
        """Names of the other probes it looks at."""
        settings = self.settings(asked)
        return () if settings is None else self.observed(settings)

    def refuse(self, c: Shapes, p: Protocol, asked: Spectroscopy) -> None:
        """ValueError where a capture of a checkpoint would fail for its shapes."""
        for name, (most, what) in self.most(c, p).items():
            if (got := getattr(p, name)) > most:
                raise ValueError(f"protocol.{name}: got {got}, allowed 1..{most} ({what})")
        self.check(c, p)
        if (settings := self.settings(asked)) is not None:
            self.check_settings(c, settings)


def _check_tokens(p: Protocol, need: int, reader: str) -> None:
    if (have := p.sequences * p.length) < need:
        raise ValueError(
            f"protocol.sequences x length: got {have} tokens, {reader} {need}; "
            "allowed: fewer of these, or more sequences (of more text: corpus: [folder])"
        )


def _check_moments(c: Shapes, p: Protocol) -> None:
    of = f"{p.tokens_per_dim} tokens_per_dim of model {c.model} of width {c.d_model}"
    _check_tokens(p, p.tokens_per_dim * c.d_model, f"{of} need")


def _most_of_moments(c: Shapes, p: Protocol) -> dict[str, tuple[int, str]]:
    counted = math.ceil(p.tokens_per_dim * c.d_model / p.length)
    return {"blocks": (counted, f"sequences that moments of {c.model} count")}


def _moments_seconds(c: Shapes, p: Protocol, device: Speeds) -> float:
    """2 D^2 a token and block in float64, at half the speed."""
    counted = min(p.sequences * p.length, p.tokens_per_dim * c.d_model)
    return c.n_layers * counted * 2.0 * c.d_model**2 / (device.flops / 2)


def _check_stream(c: Shapes, p: Protocol) -> None:
    _check_tokens(p, TOKENS_PER_UNIT * p.stream_units, f"{p.stream_units} stream_units need")


def _most_of_streams(c: Shapes, p: Protocol) -> dict[str, tuple[int, str]]:
    most = max(1, p.sequences * p.length // TOKENS_PER_UNIT), f"{TOKENS_PER_UNIT} tokens each"
    neurons = most if c.d_mlp is None else (c.d_mlp, f"MLP neurons of model {c.model}")
    return {"stream_units": min(most, neurons)}


def _stream_bytes(c: Shapes, p: Protocol, _: None) -> int:
    return c.n_layers * TOKENS_PER_UNIT * p.stream_units * (4 * p.stream_units + 8)


def _skipped(p: Protocol) -> dict[str, tuple[int, int, str]]:
    return {"skip_positions": (0, p.length - 2, "protocol.length - 2")}


def _stream_limits(p: Protocol) -> dict[str, tuple[int, int, str]]:
    return _skipped(p) | {"num_factors": (1, p.stream_units - 1, "protocol.stream_units - 1")}


def _most_of_jacobians(c: Shapes, p: Protocol) -> dict[str, tuple[int, str]]:
    return {
        "jacobian_positions": (p.sequences, "sequences"),
        "vocab_rows": (c.vocab_size, f"vocabulary of {c.model}"),
    }


def _jacobians_bytes(c: Shapes, p: Protocol, _: None) -> int:
    rows = p.jacobian_positions * (c.d_model + 2) + p.vocab_rows
    return c.n_layers * rows * c.d_model * 4


def _jacobians_seconds(c: Shapes, p: Protocol, device: Speeds) -> float:
    """48 D^3 a position and block."""
    each = device.call_s + 48.0 * c.d_model**3 / device.backward
    return c.n_layers * p.jacobian_positions * each


def _heads(c: Shapes) -> int:
    """Patterns of a model whose heads have the usual width."""
    return c.n_layers * (c.d_model // 64 + 1)


def _attention_seconds(c: Shapes, p: Protocol, device: Speeds) -> float:
    """A forward pass of a few sequences."""
    forward = 2.0 * c.n_params * p.attention_sequences * p.length / device.flops
    return forward + c.n_layers * device.call_s


def _settings_bytes(c: Shapes, _: Protocol, s: Any) -> int:
    return 0 if s is None else int(s.num_bytes(c.n_layers))


_CURVATURE: dict[str, Any] = {
    "record": Lanczos,
    "num_bytes": _settings_bytes,
    "num_records": lambda c: 1,
    "version": 2,
    "section": "curvature",
    "exists": lambda c: not c.encoder,
    "check_settings": lambda c, settings: settings.check(c.model, c.n_params),
    "of_losses": True,
}

_ALL = (
    Kind(name="weights", record=WeightMatrix, token_free=True, num_bytes=lambda c, p, _: 0),
    Kind(
        name="moments",
        record=Moments,
        one_pass=True,
        num_bytes=lambda c, p, _: c.n_layers * p.blocks * (c.d_model + 1) * c.d_model * 8,
        work=lambda width, layers, p: float(width) ** 3,  # eigenvalues
        seconds=_moments_seconds,
        own=("tokens_per_dim", "blocks"),
        most=_most_of_moments,
        check=_check_moments,
    ),
    Kind(
        name="cloud",
        record=Activations,
        one_pass=True,
        num_bytes=lambda c, p, _: (c.n_layers + 1) * p.sequences * (4 * c.d_model + 8),
        num_records=lambda c: c.n_layers + 1,
        work=lambda width, layers, p: float(width),  # distances; the points are parameters
        limits=lambda p: {"num_points": (1, p.sequences, "protocol.sequences")},
    ),
    Kind(
        name="stream",
        record=Activations,
        one_pass=True,
        resumable=False,  # hidden units of an MLP are not among the states between blocks
        num_bytes=_stream_bytes,
        work=lambda width, layers, p: float(p.stream_units) ** 3,  # the same at every width
        exists=lambda c: c.d_mlp != 0,
        own=("stream_units",),
        most=_most_of_streams,
        check=_check_stream,
        limits=_stream_limits,
    ),
    Kind(
        name="depth_stack",
        record=DepthStack,
        one_pass=True,
        num_bytes=lambda c, p, _: (c.n_layers + 1) * p.sequences * c.d_model * 4,
        num_records=lambda c: 1,
        work=lambda width, layers, p: float(layers + 1) * p.sequences * width,
    ),
    Kind(
        name="jacobians",
        record=Jacobians,
        num_bytes=_jacobians_bytes,
        work=lambda width, layers, p: p.jacobian_positions * float(width) ** 3,
        seconds=_jacobians_seconds,
        own=("vocab_rows",),
        most=_most_of_jacobians,
    ),
    Kind(
        name="attention",
        record=Attention,
        num_bytes=lambda c, p, _: _heads(c) * p.attention_sequences * p.length**2 * 4,
        num_records=_heads,
        work=lambda width, layers, p: p.attention_sequences * float(p.length) ** 2,
        seconds=_attention_seconds,
        own=("attention_sequences",),
        most=lambda c, p: {"attention_sequences": (p.sequences, "sequences")},
        limits=_skipped,
    ),
    Kind(
        name="token_losses",
        record=TokenLosses,
        one_pass=True,
        num_bytes=lambda c, p, _: p.sequences * (p.length - 1) * 4,
        num_records=lambda c: 1,
        work=lambda width, layers, p: float(p.sequences) * p.length,
        of_losses=True,
        exists=lambda c: not c.encoder,
    ),
    Kind(
        name="masked_losses",
        record=MaskedLosses,
        num_bytes=lambda c, p, _: p.sequences * num_masked(p.length) * 8,
        num_records=lambda c: 1,
        seconds=lambda c, p, device: 2.0 * c.n_params * p.sequences * p.length / device.flops,
        of_losses=True,
        exists=lambda c: c.mask_id is not None,
    ),
    Kind(name="hessian", **_CURVATURE),
    Kind(name="ggn", **_CURVATURE),
    Kind(
        name="chains",
        record=Chains,
        num_bytes=_settings_bytes,
        num_records=lambda c: 1,
        version=2,
        section="sampling",
        observed=lambda settings: settings.observed,
        check_settings=lambda c, settings: settings.check_kept(),
        exists=lambda c: not c.encoder,
        of_losses=True,
    ),
    Kind(
        name="effects",
        record=Effects,
        num_bytes=_settings_bytes,
        num_records=lambda c: 1,
        section="circuits",
        in_pairs=True,
        exists=lambda c: not c.encoder,
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def one_pass_kinds() -> frozenset[str]:
    """Names of the kinds that come out of one forward pass over a probe."""
    return frozenset(name for name, kind in KINDS.items() if kind.one_pass)


@lru_cache(maxsize=256)
def digest_for(protocol: Protocol, kind: str | None = None) -> str:
    """Digest of a protocol as one kind of capture reads it: keys, draws and tokens follow from it.

    What other kinds alone read stands at its default. `jacobian_positions` is in all of them.

    Args:
        protocol: of a run.
        kind: key of `KINDS`; None for what all read, as the tokens of a probe.

    Returns:
        16 hex digits; those of `protocol.digest()` where no other kind's field was set.
    """
    others = {name for of in KINDS.values() if of.name != kind for name in of.own}
    known = {f.name: f.default for f in dataclasses.fields(protocol)}
    return digest_of(protocol, **{name: known[name] for name in others})


def of_tokens() -> frozenset[str]:
    """Names of the kinds that a live model gives at a probe."""
    return frozenset(KINDS) - {name for name, kind in KINDS.items() if kind.token_free}
