"""Protocol and parameters on a series: what nobody set fits itself to it, the rest is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.contract import Invariant
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.plan.units import ProbeTokens
from scaleinv_ray.probes import TooFewError
from scaleinv_ray.protocols import Spectroscopy
from scaleinv_ray.records import Protocol

LEAST_SEQUENCES = 16
"""Fewer give no errors that are worth having."""
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Protocol)}


def fitted(
    protocol: Protocol,
    checkpoints: Sequence[Checkpoint],
    kinds: Collection[str],
    *,
    special: int = 0,
) -> Protocol:
    """The protocol with the defaults that the series has no room for cut down to what it has.

    Sequences are as long as the shortest context, and the cloud stands in their middle; rows of
    the vocabulary, units of streams and the like are as many as the smallest model has. What the
    run set itself stays, to be refused.

    Args:
        checkpoints: that captures are made of.
        special: tokens that stand around a text.

    Returns:
        The protocol of the plan; ValueError where a position that was set lies outside the
        sequences.
    """
    contexts = [c.max_positions - special for c in checkpoints if c.max_positions is not None]
    for c in checkpoints:
        if c.max_positions is not None and c.max_positions - special < 2:
            raise ValueError(
                f"models: {c.model} has {c.max_positions} positions, {special} special tokens "
                f"around a text; allowed: {special + 2} positions at least"
                + (", or special_tokens: none" if special else "")
            )
    changes: dict[str, int] = {}
    if _is_default(protocol, "length") and min(contexts, default=protocol.length) < protocol.length:
        changes["length"] = min(contexts)
        if _is_default(protocol, "position") and protocol.position >= changes["length"]:
            changes["position"] = changes["length"] // 2
    protocol = dataclasses.replace(protocol, **changes)
    room: dict[str, int] = {}
    for name, most in _room(protocol, checkpoints, kinds):
        room[name] = min(most, room.get(name, most))
    cut = {n: m for n, m in room.items() if _is_default(protocol, n) and m < getattr(protocol, n)}
    return dataclasses.replace(protocol, **cut)


def with_sequences(
    protocol: Protocol, error: TooFewError, asked: Protocol, spectroscopy: Spectroscopy
) -> Protocol:
    """The protocol with as many sequences as a probe has, where nobody set their number.

    Args:
        protocol: that asks for more.
        spectroscopy: of the config, whose samples are taken out of the probe.

    Returns:
        The protocol; its number of blocks follows where nobody set it.

    Raises:
        ValueError: that of the probe, where the number was set, or where fewer than two are left;
            and where a sample of the spectroscopy is larger.
    """
    if not _is_default(asked, "sequences") or error.allowed < LEAST_SEQUENCES:
        raise error
    for name in ("curvature", "sampling"):
        section = getattr(spectroscopy, name)
        if section is not None and section.sequences > error.allowed:
            raise ValueError(f"{name}.sequences: got {section.sequences}; {error}") from error
    blocks = protocol.blocks
    if _is_default(asked, "blocks"):
        blocks = min(blocks, error.allowed)
    return dataclasses.replace(protocol, sequences=error.allowed, blocks=blocks)


def changes_of(asked: Protocol, made: Protocol) -> tuple[str, ...]:
    """What was fitted, a line each."""
    return tuple(
        f"protocol.{name}: {got} for the default {default}, the most that the series has"
        for name, default in _DEFAULTS.items()
        if (got := getattr(made, name)) != getattr(asked, name)
    )


def check_captures(
    checkpoints: Sequence[Checkpoint],
    protocol: Protocol,
    kinds: Collection[str],
    asked: Spectroscopy,
) -> None:
    """Refuses what captures would fail for, after the work began.

    Args:
        checkpoints: that captures are made of.
        asked: settings of the kinds that have some.

    Raises:
        ValueError: naming field, model and what it has.
    """
    for c in checkpoints:
        longest = c.max_positions
        if longest is not None and protocol.length > longest:
            raise ValueError(
                f"protocol.length: got {protocol.length}, allowed 1..{longest} "
                f"(positions of model {c.model})"
            )
        if "masked_losses" in kinds and c.mask_id is not None and c.mask_id >= c.vocab_size:
            raise ValueError(
                f"mask_token_id: got {c.mask_id}, model {c.model} has tokens "
                f"0..{c.vocab_size - 1}; allowed: one of them in config.json, or invariants "
                "without masked_prediction"
            )
        for name, kind in KINDS.items():
            if name in kinds and kind.exists(c):
                kind.refuse(c, protocol, asked)


def _is_default(protocol: Protocol, name: str) -> bool:
    return getattr(protocol, name) == _DEFAULTS[name]


def _room(
    protocol: Protocol, checkpoints: Sequence[Checkpoint], kinds: Collection[str]
) -> Iterator[tuple[str, int]]:
    """What checkpoints have of what kinds read; a field whose bound is no number of it is none."""
    for c in checkpoints:
        for name in sorted(kinds):
            if KINDS[name].exists(c):
                yield from ((n, most) for n, (most, _) in KINDS[name].most(c, protocol).items())


def distinct_rows(tokens: Collection[ProbeTokens], position: int) -> int | None:
    """Rows of the smallest cloud: sequences that differ up to the position of the cloud.

    Args:
        tokens: all probes in all tokenizers.

    Returns:
        The number, an upper bound of the distinct rows at any site; None without tokens.
    """
    counts = [len(np.unique(t.text_ST[:, : position + 1], axis=0)) for t in tokens]
    return min(counts, default=None)


def fitted_points(
    spec: Invariant, parameters: Mapping[str, Any], rows: int | None
) -> dict[str, Any]:
    """Parameters with the default number of points cut down to the smallest cloud of the series.

    Half of the rows, so that two disjoint parts give an error; three quarters where the number is
    that of all points together: near-duplicates are dropped from a cloud, and only a capture shows
    them. What depends on the number of points follows it.

    Args:
        parameters: all of them.
        rows: of the smallest cloud, None where that is not known.

    Returns:
        The parameters, those given where they fit, were set by the run, or cannot be fitted: what
        has too few points is refused where it is measured.
    """
    default = dict(spec.parameters)
    asked = parameters.get("num_points")
    if rows is None or asked is None or asked != default["num_points"] or asked <= rows:
        return dict(parameters)
    found = dict(parameters) | {"num_points": rows // 2}
    if "max_neighbour_order" in found:
        found["num_points"] = 3 * rows // 4
        while (
            found["num_subsamples"] * (2 * found["max_neighbour_order"] + 1) > found["num_points"]
        ):
            found["max_neighbour_order"] //= 2
        found["neighbour_order"] = min(found["neighbour_order"], found["max_neighbour_order"])
    most = {"num_landmarks": found["num_points"], "num_neighbours": found["num_points"] - 1}
    found |= {n: min(found[n], most[n]) for n in most if n in found}
    while found.get("num_sizes", 0) > 2 and 8 * 2 ** found["num_sizes"] > found["num_points"]:
        found["num_sizes"] -= 1
    kept_by_user = all(found[n] == v or default[n] == v for n, v in parameters.items())
    try:
        spec.check(found)
    except ValueError:
        return dict(parameters)
    return found if kept_by_user else dict(parameters)


def points_of(asked: Mapping[str, Any], made: Mapping[str, Any], rows: int | None) -> list[str]:
    """What was fitted, in one line; none where nothing was.

    Args:
        asked: invariant -> parameters, of the config.
    """
    cut = [f"{n} {made[n]['num_points']}" for n in made if made[n] != asked[n]]
    return (
        [f"points fitted to the {rows:,} distinct rows of a cloud: {', '.join(cut)}"] if cut else []
    )


def too_little(specs: Iterable[Invariant], protocol: Protocol) -> list[str]:
    """Invariants that the protocol gives too little for any value, a line each.

    Args:
        specs: of the plan.
        protocol: of the plan.

    Returns:
        Lines that name field, what it is and what is needed.
    """
    return [
        f"protocol.{name}: got {got}, {spec.name} needs {least}: it will have no values"
        for spec in specs
        for name, least in spec.least.items()
        if (got := getattr(protocol, name)) < least
    ]
