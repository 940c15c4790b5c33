"""Whether trained models know the text that they are given: what they pay for it, beside chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scaleinv_ray import tables
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.measure.inventory import read_or_say
from scaleinv_ray.plan import Plan
from scaleinv_ray.plan.jobs import SANITY_SEQUENCES
from scaleinv_ray.plan.look import unigram_entropy
from scaleinv_ray.store import Store

Row = dict[str, Any]
_SANITY = "sanity.parquet"
_SHOWN = 6


class Sanity:
    """Writes down the first losses of models as captures begin, and says where they are none."""

    def __init__(self, store: Store, plan: Plan, log: Callable[..., None]) -> None:
        """Goes on with what the folder of the run holds."""
        self._store, self._plan, self._log = store, plan, log
        self._rows = {_place(row): row for row in _read(store)}

    def __call__(self, checkpoint: Checkpoint, losses: Mapping[str, float]) -> None:
        """Takes what a model pays a token, by probe."""
        c = checkpoint
        for probe, loss in losses.items():
            tokens = self._plan.tokens[probe, c.tokenization]
            row = {
                "model": c.model, "seed": c.seed, "step": c.step, "probe": probe, "loss": loss,
                "unigram": unigram_entropy(tokens.text_ST), "chance": math.log(c.vocab_size),
                "sequences": min(SANITY_SEQUENCES, len(tokens.text_ST)),
            }  # fmt: skip
            known = self._rows.get(_place(row))
            self._rows[_place(row)] = row
            if is_unknown(row) and row != known:
                self._log("notice", text=_said(row))
        self._store.write_table(_SANITY, tables.encode(self._rows.values(), tables.SANITY))


def is_unknown(row: Mapping[str, Any]) -> bool:
    """Whether a model pays more than one that knows how often each token occurs.

    Args:
        row: of tables.SANITY.
    """
    return not row["loss"] <= row["unigram"]


def sanity_notes(store: Store, measured: Iterable[tuple[Any, ...]]) -> list[str]:
    """What is to be said of models that do not know their text.

    Args:
        measured: models with their probes, of what is judged.

    Returns:
        A line a model and probe, the first few.
    """
    told = set(measured)
    lines = [_said(r) for r in _read(store) if is_unknown(r) and (r["model"], r["probe"]) in told]
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more do not know their text"] if more > 0 else [])]


def _said(row: Mapping[str, Any]) -> str:
    return (
        f"{row['model']} on {row['probe']}: this model does not know this text: "
        f"{row['loss']:.2f} nats a token on {row['sequences']} sequences, frequencies alone "
        f"{row['unigram']:.2f}, chance {row['chance']:.2f}; see special_tokens, layout and the "
        "look of scaleinv plan"
    )


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["seed"], row["step"], row["probe"]


def _read(store: Store) -> list[Row]:
    """The rows of before; none where they cannot be read, which is said."""
    found = read_or_say(store, _SANITY, "what models pay for their text is not told")
    return [] if found is None else tables.decode(found)
