"""A series to stand beside: the last step of a run folder, or the demo's, which is packaged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.aggregation.matched_checkpoints import last_common_step
from scaleinv_ray.conclude.aggregation.value_rows import value_rows
from scaleinv_ray.conclude.columns import rows_of
from scaleinv_ray.conclude.concluding import JUDGED, read_planned
from scaleinv_ray.conclude.tokenized import tokenized
from scaleinv_ray.config import RunConfig
from scaleinv_ray.inputs.paths import is_uri, without_keys
from scaleinv_ray.inputs.wording import listed
from scaleinv_ray.measure.written_config import check_run_folder, config_of
from scaleinv_ray.records import Protocol
from scaleinv_ray.store import Store
from scaleinv_ray.store.seal import DamagedError
from scaleinv_ray.tables import MEASUREMENTS

_ALLOWED = "the folder of a run, as `scaleinv run` makes it, or a table of its measurements"
_FEW = 4
_DIGITS = 7
_FEW_DIGITS = 5
"""Of values before the last step: they give a scatter, and nobody reads them."""
PACKAGED = "demo_series.json"


class At(NamedTuple):
    """Where a value belongs: a quantity at a site (a role, of weights), over the whole depth."""

    invariant: str
    quantity: str
    site: str | None
    probe: str | None


class Member(NamedTuple):
    """A model of the series, and the digest of its weights."""

    model: str
    seed: int | None
    n_params: int
    weights: str


@dataclass(frozen=True)
class Settings:
    """How the series was measured: what stands beside it is measured in the same way.

    Attributes:
        probes: names, or mappings of files.
        protocol: of all captures.
        invariants: all parameters, by name.
        corpus: text of the probes.
        split_heads: weights head by head.
    """

    probes: tuple[Any, ...]
    protocol: Mapping[str, Any]
    invariants: Mapping[str, Mapping[str, Any]]
    corpus: Any
    split_heads: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> Settings:
        """Those of a config."""
        said = config.model_dump(mode="json")
        return cls(
            tuple(said["probes"]),
            asdict(config.protocol),
            config.chosen_invariants(),
            said["corpus"],
            config.split_heads,
        )


@dataclass(frozen=True)
class Reference:
    """The values of a series at its last step.

    Attributes:
        name: of the series.
        provenance: where they come from, in words.
        settings: how they were measured.
        versions: of the invariants.
        tokenizers: names of the series' tokenizers, none where they are not known.
        step: of the models.
        members: the models.
        values: at each place the value of every model, None where it has none.
        earlier: the same at each step before, the first ones left out where nothing is trained; of
            weights all roles together alone.
        tokens: probe -> digests of its tokens; none where they are not known.
        verdicts: at each place what was said of the series, where it was judged.
    """

    name: str
    provenance: str
    settings: Settings
    versions: Mapping[str, int]
    tokenizers: Sequence[str]
    step: int | None
    members: Sequence[Member]
    values: Mapping[At, Sequence[float | None]]
    earlier: Sequence[Mapping[At, Sequence[float | None]]] = ()
    tokens: Mapping[str, Sequence[str]] = field(default_factory=dict)
    verdicts: Mapping[At, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text, which `from_json` reads: a line a place."""
        head = {
            "name": self.name,
            "provenance": self.provenance,
            "settings": asdict(self.settings),
            "versions": dict(self.versions),
            "tokenizers": list(self.tokenizers),
            "step": self.step,
            "members": [list(member) for member in self.members],
            "tokens": {probe: list(of) for probe, of in self.tokens.items()},
            "verdicts": [[*at, verdict] for at, verdict in self.verdicts.items()],
        }
        lines = ",\n".join(
            json.dumps([list(at), _rounded(of, _DIGITS), *self._before(at)])
            for at, of in self.values.items()
        )
        return f'{json.dumps(head)[:-1]},\n"values": [\n{lines}\n]}}\n'

    def _before(self, at: At) -> list[list[float | None]]:
        """The values of a place at each step before, where they are kept."""
        return [_rounded(of[at], _FEW_DIGITS) for of in self.earlier if at in of]

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """As written by `to_json`."""
        held = json.loads(text)
        held["settings"] = Settings(**held["settings"])
        held["members"] = [Member(*member) for member in held["members"]]
        places = [(At(*at), of) for at, *of in held["values"]]
        held["values"] = {at: of for at, (of, *_) in places}
        num_steps = max(len(of) for _, of in places) - 1
        kept = [(at, before) for at, (_, *before) in places if len(before) == num_steps]
        held["earlier"] = [{at: of[step] for at, of in kept} for step in range(num_steps)]
        held["verdicts"] = {At(*at): verdict for *at, verdict in held["verdicts"]}
        return cls(**held)


def packaged() -> Reference:
    """The demo's series: four sizes from 67,328 to 859,136 parameters, three seeds each."""
    return Reference.from_json((files(__package__) / PACKAGED).read_text(encoding="utf-8"))


def of_series(uri: str) -> Reference:
    """A series by the folder of its run, or by its table of measurements.

    Args:
        uri: of the folder, local or s3://; or of a Parquet file of `tables.MEASUREMENTS`, beside
            which verdicts.parquet and config.yaml are read where they are.

    Returns:
        The reference: the trained models at the last step that all have.

    Raises:
        ValueError: where there is no such thing, or none of a trained model; where no config.yaml
            says what the protocol was, and it is not the packaged series'.
    """
    if not uri:
        raise ValueError(f"against: got '', allowed: {_ALLOWED}")
    place, mark, query = uri.partition("?") if is_uri(uri) else (uri, "", "")
    if not place.endswith(".parquet"):
        return of_run(uri)
    name = place.rpartition("/")[2]
    store = Store((place.removesuffix(name) or ".") + mark + query)
    table = _measurements(store, name, f"{store.shown}/{name}")
    if store.exists("config.yaml"):
        config = config_of(store)
        return _reference(store, config.name, Settings.of(config), table, uri=place)
    settings, own = packaged().settings, _distinct(table, "protocol")
    known = Protocol(**settings.protocol).digest()
    if unknown := [of for (of,) in own if of not in {None, known}]:
        raise ValueError(
            f"against: got {without_keys(uri)!r} of protocol {unknown[0]} without config.yaml "
            f"beside it; allowed: with it, or of protocol {known}"
        )
    chosen = {i: json.loads(params) for i, params in _distinct(table, "invariant", "params")}
    named = sorted({series for (series,) in _distinct(table, "series") if series})
    settings = replace(settings, invariants=chosen)
    return _reference(store, ", ".join(named) or name, settings, table, uri=place)


def _measurements(store: Store, name: str, shown: str) -> pa.Table:
    if not store.exists(name):
        raise ValueError(f"against: got {shown!r}, no such file; allowed: {_ALLOWED}")
    try:
        return store.read_table(name, schema=MEASUREMENTS)
    except DamagedError:
        columns = store.read_table(name).column_names
        if {"key", "invariant", "value"} <= set(columns):  # of another version
            raise
        raise ValueError(
            f"against: got {shown!r} of {listed(columns[:_FEW], '')}, .., no measurements; "
            f"allowed: {_ALLOWED}"
        ) from None


def of_run(uri: str) -> Reference:
    """The trained models of a run folder at the last step that all of its plan has.

    Args:
        uri: of the folder, local or s3://.

    Returns:
        The reference.

    Raises:
        ValueError: where there is no run, or none of a trained model.
    """
    store = Store(uri)
    check_run_folder(store, "against")
    if not store.exists("plan.parquet"):
        raise ValueError(f"against: got {store.shown!r} without plan.parquet; allowed: {_ALLOWED}")
    config = config_of(store)
    table = read_planned(store, "measurements")
    return _reference(store, config.name, Settings.of(config), table, uri=uri)


def _reference(
    store: Store, name: str, settings: Settings, table: pa.Table, *, uri: str
) -> Reference:
    """Of the trained models of a table, with what the folder says besides."""
    table = table.filter(pc.equal(table["variant"], "trained"))
    if not table.num_rows:
        raise ValueError(
            f"against: got {without_keys(uri)!r} without measurements of trained models, allowed: "
            "a run that has them"
        )
    step, last = _last(table)
    finished = step is None and pc.any(pc.is_valid(table["step"])).as_py()
    members = _members(last)
    values = _values(last if finished else table, members, finished=finished)
    if step not in values:
        raise ValueError(
            f"against: got {without_keys(uri)!r}, in which no trained model has a value at its "
            "last step; allowed: a run that has some (scaleinv status says why)"
        )
    at = "each at its last step" if finished else f"step {step}"
    return Reference(
        name=name,
        provenance=f"{without_keys(uri)}, {at}, {_code(last)}",
        settings=settings,
        versions=dict(_distinct(last, "invariant", "version")),
        tokenizers=sorted(set(tokenized(store).of_key.values())),
        step=step,
        members=members,
        values=values[step],
        earlier=[_over_roles(values[s]) for s in sorted(s for s in values if s and s != step)],
        tokens=_tokens(store),
        verdicts=_verdicts(store),
    )


def _last(table: pa.Table) -> tuple[int | None, pa.Table]:
    """The last step that all models have, and its rows; without one, those of each one's last."""
    steps: dict[tuple[str, int | None], set[int]] = {}
    for model, seed, step in _distinct(table, "model", "seed", "step"):
        if step is not None:
            steps.setdefault((model, seed), set()).add(step)
    if not steps:
        return None, table
    if (step := last_common_step(steps.values())) is not None:
        return step, table.filter(pc.equal(table["step"], step))
    ends = {(*of, max(done)) for of, done in steps.items()}
    of_rows = zip(*(table[n].to_pylist() for n in ("model", "seed", "step")), strict=True)
    return None, table.filter(pa.array([row in ends for row in of_rows]))


def _tokens(store: Store) -> dict[str, list[str]]:
    """Digests of the probes' tokens, where the folder's plan says them."""
    if not store.exists("plan.parquet"):
        return {}
    plan = store.read_table("plan.parquet")
    if "tokens" not in plan.column_names:
        return {}
    found: dict[str, list[str]] = {}
    for probe, digest in _distinct(plan, "probe", "tokens"):
        if probe and digest:
            found.setdefault(probe, []).append(digest)
    return found


def _verdicts(store: Store) -> dict[At, str]:
    """What the folder's verdicts say over the whole depth, at equal steps."""
    if not store.exists("verdicts.parquet"):
        return {}
    columns = [*At._fields, "depth_bin", "comparison", "verdict"]
    rows = store.read_table("verdicts.parquet", columns).to_pylist()
    return {
        At(*(row[name] for name in At._fields)): row["verdict"]
        for row in rows
        if row["depth_bin"] == "all" and row["comparison"] in {"equal_steps", "final"}
    }


def _distinct(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    found = table.group_by(list(names)).aggregate([])
    return sorted(zip(*(found[n].to_pylist() for n in names), strict=True), key=str)


def _code(table: pa.Table) -> str:
    return "code " + ", ".join(code for (code,) in _distinct(table, "code_version"))


def _members(table: pa.Table) -> list[Member]:
    found = [Member(*of) for of in _distinct(table, "model", "seed", "n_params", "weights_digest")]
    return sorted(found, key=lambda m: (m.n_params, m.model))


def _values(
    table: pa.Table, members: Sequence[Member], *, finished: bool
) -> dict[int | None, dict[At, list[float | None]]]:
    """Step (None for models finished at steps of their own) -> place -> a value a member."""
    place_of = {(m.model, m.seed): i for i, m in enumerate(members)}
    values: dict[int | None, dict[At, list[float | None]]] = {}
    main = "final" if finished else "equal_steps"
    for row in value_rows(rows_of(table, JUDGED)):
        is_whole = row["depth_bin"] == "all" and row["comparison"] == main
        member = place_of.get((row["model"], row["seed"]))
        if is_whole and member is not None and row["value"] is not None:
            at = At(row["invariant"], row["quantity"], row["site"], row["probe"])
            of_step = values.setdefault(None if finished else row["step"], {})
            of_step.setdefault(at, [None] * len(members))[member] = row["value"]
    return values


def _over_roles(values: Mapping[At, list[float | None]]) -> dict[At, list[float | None]]:
    return {at: of for at, of in values.items() if at.probe is not None or at.site == "all"}


def _rounded(values: Sequence[float | None], digits: int) -> list[float | None]:
    return [None if v is None else float(f"{v:.{digits}g}") for v in values]
