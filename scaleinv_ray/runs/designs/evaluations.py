"""The models of a design that were measured, kept in its folder; none is measured twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypedDict

from scaleinv_ray import tables
from scaleinv_ray.cluster.designing import Trial, Tried, try_all
from scaleinv_ray.config import DesignConfig
from scaleinv_ray.design.certificate import Certificate, certify
from scaleinv_ray.design.closed_forms import NoFormulaError
from scaleinv_ray.design.search import Scored
from scaleinv_ray.design.space import Point
from scaleinv_ray.design.theory import Asked, predicted
from scaleinv_ray.ladder.spec import OptimizerSpec, TrainSpec, run_config, rungs
from scaleinv_ray.probes import load_corpus
from scaleinv_ray.store import Store

TABLE = "evaluations.parquet"
FIRST_UNSEEN = 100_000
"""Seeds that certify begin here, those of the search lie below."""


class EvaluationRow(TypedDict):
    """One quantity of one model of a design, with the seed it was made with."""

    key: Annotated[str, "of everything that decides the value"]
    purpose: Annotated[str, "default, theory, random, search or certificate"]
    point: Annotated[str, "what was chosen, as JSON"]
    seed: Annotated[int, "of the model"]
    target: Annotated[str, "what was measured"]
    wanted: Annotated[float, "the target"]
    predicted: Annotated[float | None, "what theory says of it"]
    value: Annotated[float | None, "what was measured"]
    error: Annotated[str | None, "why there is no value"]


def model_of(config: DesignConfig, point: Point) -> dict[str, Any]:
    """What theory asks of a model."""
    default, optimizer = config.model, config.model.optimizer
    own = {n: getattr(default, n) for n in ("architecture", "width", "depth", "init_scale")}
    trained = {"lr": optimizer.lr, "optimizer": optimizer.name, "schedule": optimizer.schedule}
    return {**own, **trained, "step": config.at, **point}


class Ledger:
    """What was measured, kept in the folder."""

    def __init__(self, config: DesignConfig, asked: tuple[Asked, ...], store: Store) -> None:
        self._config, self._asked, self._store = config, asked, store
        self.rows: list[EvaluationRow] = []
        self.seen: dict[str, Tried] = {}
        if store.exists(TABLE):
            rows = tables.decode(store.read_table(TABLE, schema=tables.schema_of(EvaluationRow)))
            self.rows = [EvaluationRow(**row) for row in rows]  # type: ignore[typeddict-item]
            for key in dict.fromkeys(row["key"] for row in self.rows):
                mine = [row for row in self.rows if row["key"] == key]
                values = tuple(r["value"] for r in mine if r["value"] is not None)
                self.seen[key] = Tried(values, mine[0]["error"])

    def searched(self, points: Sequence[Point]) -> list[Scored]:
        """Points that a search asks for."""
        return self.measure(points, "search")

    def measure(self, points: Sequence[Point], purpose: str) -> list[Scored]:
        """Measures points with the seeds of the search."""
        found = self._tried([(point, self._seeds(point)) for point in points], purpose)
        return [self._scored(point, tried) for point, tried in zip(points, found, strict=True)]

    def _seeds(self, point: Point) -> range:
        """Seeds of a point, others of each, the same whenever it is measured."""
        model = json.dumps(model_of(self._config, point), sort_keys=True)
        first = int(hashlib.sha256(model.encode()).hexdigest()[:8], 16)
        first %= FIRST_UNSEEN - self._config.seeds.search
        return range(first, first + self._config.seeds.search)

    def certificates(self, point: Point, *, unseen: int) -> tuple[Certificate, ...]:
        """Equivalence tests on seeds that nothing saw, from `unseen` on."""
        seeds = range(unseen, unseen + self._config.seeds.certify)
        [tried] = self._tried([(point, seeds)], "certificate")
        if lost := next((t.error for t in tried if t.error), None):
            raise ValueError(f"seeds: the best configuration has no value with another: {lost}")
        columns = zip(*(t.values for t in tried), strict=True)
        return tuple(
            certify(values, target=asked.value, margin=asked.margin)
            for asked, values in zip(self._asked, columns, strict=True)
        )

    def _tried(
        self, wanted: Sequence[tuple[Point, Sequence[int]]], purpose: str
    ) -> list[list[Tried]]:
        """What came of points with seeds; those that were tried before are not tried again."""
        trials = [[self._trial(point, seed) for seed in seeds] for point, seeds in wanted]
        points = {t.key: at for (at, _), row in zip(wanted, trials, strict=True) for t in row}
        missing = {t.key: t for row in trials for t in row if t.key not in self.seen}
        for trial, tried in try_all(list(missing.values())):
            self.seen[trial.key] = tried
            self.rows += self._rows_of(trial, tried, points[trial.key], purpose)
            self._store.write_table(
                TABLE, tables.encode(self.rows, tables.schema_of(EvaluationRow))
            )
        return [[self.seen[t.key] for t in row] for row in trials]

    def _trial(self, point: Point, seed: int) -> Trial:
        config = self._config
        model = model_of(config, point)
        default = config.model
        optimizer = default.optimizer.model_dump() | {"lr": model["lr"]}
        spec = TrainSpec(
            name=config.name,
            widths=(model["width"],),
            seeds=(seed,),
            steps=max(config.at, 1),
            checkpoints=(max(config.at, 1),),
            head_dim=default.head_dim,
            length=default.length,
            batch=default.batch,
            corpus=default.corpus,
            optimizer=OptimizerSpec(**optimizer),
            **{name: model[name] for name in ("architecture", "depth", "init_scale")},
        )
        measured = [
            {k: v for k, v in asdict(a).items() if k not in {"value", "margin"}}
            for a in self._asked
        ]
        made = run_config(spec, rungs(spec)[0], load_corpus(spec.corpus).digest)
        said = [made, config.at, measured, config.text, config.sequences]
        key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
        return Trial(key, spec, config.at, self._asked, config.text, config.sequences, config.out)

    def _rows_of(
        self, trial: Trial, tried: Tried, point: Point, purpose: str
    ) -> list[EvaluationRow]:
        values = tried.values or (None,) * len(self._asked)
        return [
            {
                "key": trial.key,
                "purpose": purpose,
                "point": json.dumps(dict(point), sort_keys=True),
                "seed": trial.spec.seeds[0],
                "target": str(asked),
                "wanted": asked.value,
                "predicted": _prediction(asked, model_of(self._config, point)),
                "value": value,
                "error": tried.error,
            }
            for asked, value in zip(self._asked, values, strict=True)
        ]

    def _scored(self, point: Point, tried: Sequence[Tried]) -> Scored:
        margin = tuple(asked.margin for asked in self._asked)
        error = next((t.error for t in tried if t.error), None)
        if error is not None:
            return Scored(point, (), (), margin, error)
        wanted = [asked.value for asked in self._asked]
        return Scored.of(point, [t.values for t in tried], target=wanted, margin=margin)


def _prediction(asked: Asked, model: Mapping[str, Any]) -> float | None:
    try:
        return predicted(asked, model)
    except NoFormulaError:
        return None
