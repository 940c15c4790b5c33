"""What the tables of a conclusion are made of: rows of a run, and what several tables ask of them.

Nothing is captured or measured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.evaluations import Joined
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.tokenizers import say_tokenizers, several_tokenizers
from scaleinv_ray.conclude.conservation.prediction import PredictionRow
from scaleinv_ray.conclude.conservation.verdict import VerdictRow
from scaleinv_ray.conclude.conservation.verdicts_table import judge_table, predict_named
from scaleinv_ray.conclude.evaluations import (
    CapabilityRow,
    capability_row,
    joined_with_rows,
    read_capabilities,
)
from scaleinv_ray.conclude.training.transitions import TransitionRow, transitions_table
from scaleinv_ray.config import RunConfig
from scaleinv_ray.contract import Quantity
from scaleinv_ray.kinds import KINDS

Row = dict[str, Any]
Quantities = Mapping[tuple[str, str], Quantity]
SEED = 20_230_817
"""Of bootstraps over checkpoints and runs: fixed, so that a conclusion can be repeated."""
BEHAVIOUR = "behaviour"
"""Family whose quantities are capabilities of their own."""
BANDS = "bands"
"""Family whose curves are eigenvalues over training."""
MIN_CHECKPOINTS = 6
"""A break needs two segments of three checkpoints; runs with fewer are not searched."""


@dataclass(frozen=True)
class Evidence:
    """Everything that follows from the rows of a run before a table is made of it.

    What several tables need is made when it is first asked for, and once.

    Attributes:
        measured: rows of tables.MEASUREMENTS, in one unit for all models.
        curves: rows of tables.CURVES.
        config: gives margin, comparisons, models to predict and files of capabilities.
        quantities: what is claimed of every quantity.
        within_runs: the rows in the units in which they were measured, for what looks at one run
            at a time.
    """

    measured: Rows
    curves: Rows
    config: RunConfig
    quantities: Quantities
    within_runs: Rows

    @classmethod
    def of(
        cls,
        measured: Iterable[Mapping[str, Any]],
        curves: Iterable[Mapping[str, Any]],
        config: RunConfig,
        quantities: Quantities,
    ) -> Evidence:
        """The evidence of rows that are in the same units within runs and between models."""
        rows = Rows.of(measured)
        return cls(rows, Rows.of(curves), config, quantities, within_runs=rows)

    @property
    def rng(self) -> np.random.Generator:
        """A source of randomness of its own for each table."""
        return np.random.default_rng(SEED)

    @cached_property
    def judged(self) -> tuple[list[VerdictRow], list[PredictionRow]]:
        """Verdicts, and predictions of what was measured and of models that the config names."""
        asked = self.config.conservation
        verdicts, predictions = judge_table(
            self.measured,
            quantities=self.quantities,
            margin=asked.margin,
            comparisons=self.config.comparisons,
            by_role=asked.by_role,
        )
        if asked.held_out == "none":
            predictions = []
        predictions += predicted(self.measured, self.config, self.quantities)
        # as large as the rows; the values come first in the list, and what follows asks for parts
        self.measured.gathered = None
        several = several_tokenizers(self.measured)
        return say_tokenizers(verdicts, several, self.quantities), predictions

    @cached_property
    def followed(self) -> Rows:
        """Rows of the trained runs that have checkpoints enough to be followed over training."""
        rows = self._of_runs()
        trained = rows.equal(variant="trained")
        stepped = rows.where(trained & rows.known("step") & ~rows.known("unit_b"))
        steps = Counter(at[:2] for at in stepped.distinct(("model", "seed", "step"))[1])
        long = {run for run, num_steps in steps.items() if num_steps >= MIN_CHECKPOINTS}
        return rows.where(trained & rows.among(("model", "seed"), long))

    @cached_property
    def moving(self) -> Rows:
        """What is followed over training, with bands as quantities."""
        return self.followed.joined(band_rows(self.curves, self.followed))

    @cached_property
    def transitions(self) -> list[TransitionRow]:
        """Transitions of all that moves."""
        return transitions_table(self.moving, quantities=self.quantities, rng=self.rng)

    @cached_property
    def curves_between(self) -> Rows:
        """Curves that models have in common: without those of losses where tokenizers differ."""
        several = several_tokenizers(self.measured)
        if not several:
            return self.curves
        theirs = self.curves.holds("series", several.__contains__)
        of_losses = {name for name, kind in KINDS.items() if kind.of_losses}
        at_losses = self.curves.holds("capture", of_losses.__contains__)
        return self.curves.where(~(theirs & at_losses))

    @cached_property
    def joined(self) -> Joined:
        """Published evaluations by whether they are of a run that was measured."""
        files = self.config.capabilities
        published = [row for file in files for row in read_capabilities(file)]
        return joined_with_rows(published, self.measured)

    @cached_property
    def capabilities(self) -> list[CapabilityRow]:
        """Of the runs: those read off token losses, and those published."""
        return [*_built_in(self.measured), *map(capability_row, self.joined.rows)]

    def _of_runs(self) -> Rows:
        """The rows in which each run has one unit over all of its steps."""
        own = self.within_runs
        if "tokenizer" not in own.columns:
            return own
        made_with = Counter(at[:2] for at in own.distinct(("model", "seed", "tokenizer"))[1])
        return own if max(made_with.values(), default=1) == 1 else self.measured


def band_rows(curves: Rows, followed: Rows) -> list[Row]:
    """Bands over training as rows of measurements, a value for every checkpoint of its track.

    Args:
        curves: rows of tables.CURVES; those of the family of bands are read, over checkpoints that
            the run has (a curve over positions is none).
        followed: rows of the runs that are followed over training.

    Returns:
        Rows with the columns of tables.MEASUREMENTS, the curve's name as quantity.
    """
    blank = dict.fromkeys(tables.MEASUREMENTS.names)
    known = set(followed.distinct(("model", "seed", "step"))[1])
    shared = [name for name in tables.CURVES.names if name in blank]
    out = []
    for curve in curves.where(curves.equal(family=BANDS)):
        at = [(curve["model"], curve["seed"], x) for x in curve["x"]]
        if len(at) < MIN_CHECKPOINTS or not known.issuperset(at):
            continue
        common = blank | {name: curve[name] for name in shared}
        common |= {"quantity": curve["curve"], "law": "none", "status": "ok"}
        common |= {"train_tokens": None, "eval_loss": None}
        out += [
            common | {"step": int(x), "value": y}
            for x, y in zip(curve["x"], curve["y"], strict=True)
        ]
    return out


def predicted(
    measurements: Iterable[Mapping[str, Any]], config: RunConfig, quantities: Quantities
) -> list[PredictionRow]:
    """Predictions of larger models that the config names.

    Args:
        measurements: rows of tables.MEASUREMENTS.
        quantities: what is claimed of every quantity.

    Returns:
        Rows with nothing observed.
    """
    return [
        row
        for target in config.conservation.predict
        for row in predict_named(
            measurements,
            quantities=quantities,
            n_params=target.n_params,
            model=target.model,
            margin=config.conservation.margin,
            comparisons=config.comparisons,
        )
    ]


def _built_in(measurements: Rows) -> list[CapabilityRow]:
    """Capabilities read off token losses: gains over what a model without them would have."""
    return [
        {
            "model": row["model"],
            "seed": row["seed"],
            "step": row["step"],
            "tokens": row["train_tokens"],
            "n_params": row["n_params"],
            "task": row["probe"],
            "metric": row["quantity"],
            "value": row["value"],
            "stderr": row["stderr"],
            "chance": None if row["quantity"] in {"loss", "masked_loss"} else 0.0,
        }
        for row in measurements.where(
            measurements.equal(family=BEHAVIOUR, status="ok", variant="trained")
            & measurements.known("train_tokens")
        )
    ]
