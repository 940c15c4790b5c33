"""A design: what theory says, the search, and the certificate, resumed where it was left."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypedDict

import numpy as np

from scaleinv_ray import tables
from scaleinv_ray.cluster.designing import Trial, Tried, try_all
from scaleinv_ray.config import DesignConfig
from scaleinv_ray.config.design import is_interval
from scaleinv_ray.design.certificate import Certificate, certify
from scaleinv_ray.design.closed_forms import NoFormulaError
from scaleinv_ray.design.search import Scored, search
from scaleinv_ray.design.space import Choices, Interval, Point, Space, random_point
from scaleinv_ray.design.theory import Asked, predicted, solutions
from scaleinv_ray.ladder.spec import OptimizerSpec, TrainSpec, run_config, rungs
from scaleinv_ray.probes import load_corpus
from scaleinv_ray.runs.run_lock import alone
from scaleinv_ray.store import Store

TABLE = "evaluations.parquet"
FIRST_UNSEEN = 100_000
"""Seeds that certify begin here, those of the search lie below."""
MOST_SOLUTIONS = 3
"""Points of theory that are measured."""


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


@dataclass(frozen=True)
class Designed:
    """What came of a design.

    Attributes:
        asked: the targets.
        theory: what theory says, in words.
        default: the model where nothing was chosen.
        random: random configurations.
        point: what was chosen; None where nothing could be measured.
        certificates: one a target, of that on unseen seeds.
        measured: configurations measured in the search.
        store: of the folder.
    """

    asked: tuple[Asked, ...]
    theory: str
    default: Scored
    random: list[Scored]
    point: dict[str, Any] | None
    certificates: tuple[Certificate, ...]
    measured: int
    store: Store

    @property
    def certified(self) -> bool:
        """Whether all targets are met on unseen seeds."""
        return bool(self.certificates) and all(c.certified for c in self.certificates)

    def lines(self) -> list[str]:
        """What is told: theory, the null, the search, the verdict."""
        passing = sum(s.passes for s in self.random)
        told = [f"theory: {self.theory}", f"default: {_told(self.default, self.asked)}"]
        if self.random:
            told.append(f"random configurations: {passing} of {len(self.random)} pass")
        told.append(f"search: {self.measured} configurations measured")
        if self.point is None:
            return [*told, "not certified: no configuration could be measured"]
        told.append(f"chosen: {_at(self.point)}")
        return [*told, *map(_verdict, self.asked, self.certificates)]


def design(config: DesignConfig, *, address: str | None = None) -> Designed:
    """Looks for a model with the wanted value, and certifies it on seeds the search never saw.

    First the points at which theory puts the target, the default and some random configurations
    are measured; then the search goes on from these. Every value is kept in `evaluations.parquet`
    of the folder, and none is measured twice.

    Args:
        address: of a Ray cluster; None embeds Ray.

    Returns:
        Designed.

    Raises:
        UnreachableError: where theory, or both ends of an interval, say that no model has it.
    """
    from scaleinv_ray.cluster.session import connected

    asked = tuple(Asked(**target.model_dump()) for target in config.target)
    space = space_of(config)
    theory, starts = _theory(config, asked, space)
    store = Store(config.out)
    with alone(store), connected(address):
        ledger = _Ledger(config, asked, store)
        [default] = ledger.measure([{}], "default")
        known = ledger.measure(starts, "theory")
        rng = np.random.default_rng(0)
        random = ledger.measure(
            [random_point(space, rng) for _ in range(config.budget.random)], "random"
        )
        whole = default_point(config, space)
        beginnings = [*known, *random, *([replace(default, point=whole)] if whole else [])]
        found = search(space, beginnings, ledger.searched, budget=config.budget.evaluations)
        certificates = ledger.certificates(found.point) if found.point else ()
    point = None if found.point is None else dict(found.point)
    return Designed(asked, theory, default, random, point, certificates, len(found.measured), store)


def space_of(config: DesignConfig) -> Space:
    """The dimensions of a config."""
    return {
        name: Interval(float(values[0]), float(values[1]), log=values[2] == "log")
        if is_interval(values)
        else Choices(values)
        for name, values in config.over.items()
    }


def default_point(config: DesignConfig, space: Space) -> dict[str, Any] | None:
    """Where the default lies in the space; None where it does not."""
    model = _model(config, {})
    for name, of in space.items():
        inside = (
            of.low <= model[name] <= of.high
            if isinstance(of, Interval)
            else model[name] in of.values
        )
        if not inside:
            return None
    return {name: model[name] for name in space}


def _theory(
    config: DesignConfig, asked: Sequence[Asked], space: Space
) -> tuple[str, list[dict[str, Any]]]:
    """What theory says in words, and the points that it gives."""
    if len(asked) > 1:
        return "several targets: measured", []
    try:
        points = solutions(asked[0], space, _model(config, {}))
    except NoFormulaError as error:
        return str(error), []
    if not points:
        return "the closed form does not reach the target in this space: measured", []
    return f"the closed form puts the target at {_at(points[0])}", points[:MOST_SOLUTIONS]


def _model(config: DesignConfig, point: Point) -> dict[str, Any]:
    """What theory asks of a model."""
    default, optimizer = config.model, config.model.optimizer
    own = {n: getattr(default, n) for n in ("architecture", "width", "depth", "init_scale")}
    trained = {"lr": optimizer.lr, "optimizer": optimizer.name, "schedule": optimizer.schedule}
    return {**own, **trained, "step": config.at, **point}


class _Ledger:
    """What was measured, kept in the folder."""

    def __init__(self, config: DesignConfig, asked: tuple[Asked, ...], store: Store) -> None:
        self._config, self._asked, self._store = config, asked, store
        self._rows: list[EvaluationRow] = []
        self.seen: dict[str, Tried] = {}
        if store.exists(TABLE):
            rows = tables.decode(store.read_table(TABLE, schema=tables.schema_of(EvaluationRow)))
            self._rows = [EvaluationRow(**row) for row in rows]  # type: ignore[typeddict-item]
            for key in dict.fromkeys(row["key"] for row in self._rows):
                mine = [row for row in self._rows if row["key"] == key]
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
        model = json.dumps(_model(self._config, point), sort_keys=True)
        first = int(hashlib.sha256(model.encode()).hexdigest()[:8], 16)
        first %= FIRST_UNSEEN - self._config.seeds.search
        return range(first, first + self._config.seeds.search)

    def certificates(self, point: Point) -> tuple[Certificate, ...]:
        """Equivalence tests on seeds that the search never saw."""
        count = self._config.seeds.certify
        unseen = range(FIRST_UNSEEN, FIRST_UNSEEN + count)
        [tried] = self._tried([(point, unseen)], "certificate")
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
            self._rows += self._rows_of(trial, tried, points[trial.key], purpose)
            self._store.write_table(
                TABLE, tables.encode(self._rows, tables.schema_of(EvaluationRow))
            )
        return [[self.seen[t.key] for t in row] for row in trials]

    def _trial(self, point: Point, seed: int) -> Trial:
        config = self._config
        model = _model(config, point)
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
                "predicted": _prediction(asked, _model(self._config, point)),
                "value": value,
                "error": tried.error,
            }
            for asked, value in zip(self._asked, values, strict=True)
        ]

    def _scored(self, point: Point, tried: Sequence[Tried]) -> Scored:
        margin = tuple(asked.margin for asked in self._asked)
        error = next((t.error for t in tried if t.error), None)
        value_ST = np.array([t.values for t in tried if not t.error], dtype=np.float64)
        if error is None and not (value_ST > 0).all():
            error = f"got {value_ST.min():.3g}, a target above zero is met by values above zero"
        if error is not None:
            return Scored(point, (), (), margin, error)
        log_ST = np.log(value_ST / [asked.value for asked in self._asked])
        stderr_T = log_ST.std(axis=0, ddof=1) / math.sqrt(len(log_ST))
        return Scored(point, tuple(log_ST.mean(axis=0).tolist()), tuple(stderr_T.tolist()), margin)


def _prediction(asked: Asked, model: Mapping[str, Any]) -> float | None:
    try:
        return predicted(asked, model)
    except NoFormulaError:
        return None


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _at(point: Point) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in point.items()) or "as given"


def _told(scored: Scored, asked: Sequence[Asked]) -> str:
    if scored.error is not None:
        return f"{_at(scored.point)}: {scored.error}"
    means = ", ".join(
        f"{one.value * math.exp(off):.4g} +- {one.value * math.exp(off) * stderr:.2g}"
        for one, off, stderr in zip(asked, scored.off, scored.stderr, strict=True)
    )
    return f"{_at(scored.point)}: {means} (wanted {', '.join(_short(a.value) for a in asked)})"


def _verdict(asked: Asked, found: Certificate) -> str:
    value = f"{asked}: {found.mean:.4g} +- {found.stderr:.2g} on unseen seeds"
    test = f"|ln(mean / {asked.value:g})| < {asked.margin:g}: p = {found.p:.2g}"
    if found.certified:
        return f"certified: {value}, {test}"
    if found.seeds_needed is None:
        return f"not certified: {value} is outside the margin, no number of seeds mends it ({test})"
    return f"not certified: {value}, {test}; seeds needed {found.seeds_needed}"
