"""What there is to say of a kind of capture, and of what it goes by: sizes and speeds."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scaleinv_ray.protocols import (
    CircuitsProtocol,
    CurvatureProtocol,
    SamplingProtocol,
    Spectroscopy,
)
from scaleinv_ray.records import Protocol, Record

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
        gradients: of settings and blocks, how many gradients it takes and of how many sequences.
        observed: the other probes that settings name.
        in_pairs: it reads pairs, clean and corrupted, in place of a probe; no shuffled_tokens.
        sites: places that its records say they are of; empty where they say none.
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
    gradients: Callable[[Any, int], tuple[float, int]] = lambda settings, layers: (
        settings.gradients(layers)
    )
    observed: Callable[[Any], tuple[str, ...]] = lambda settings: ()
    in_pairs: bool = False
    sites: tuple[str, ...] = ()
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
