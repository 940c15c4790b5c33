"""A series to stand beside: the last step of a run folder, or the demo's, which is packaged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.aggregation.value_rows import value_rows
from scaleinv_ray.conclude.columns import rows_of
from scaleinv_ray.conclude.concluding import JUDGED, read_planned
from scaleinv_ray.conclude.tokenized import tokenized
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.measure.written_config import written_config
from scaleinv_ray.store import Store

_DIGITS = 7
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
    """

    name: str
    provenance: str
    settings: Settings
    versions: Mapping[str, int]
    tokenizers: Sequence[str]
    step: int | None
    members: Sequence[Member]
    values: Mapping[At, Sequence[float | None]]

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
        }
        lines = ",\n".join(
            json.dumps([list(at), [v if v is None else float(f"{v:.{_DIGITS}g}") for v in of]])
            for at, of in self.values.items()
        )
        return f'{json.dumps(head)[:-1]},\n"values": [\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """As written by `to_json`."""
        held = json.loads(text)
        held["settings"] = Settings(**held["settings"])
        held["members"] = [Member(*member) for member in held["members"]]
        held["values"] = {At(*at): of for at, of in held["values"]}
        return cls(**held)


def packaged() -> Reference:
    """The demo's series: four sizes from 67,328 to 859,136 parameters, three seeds each."""
    return Reference.from_json((files(__package__) / PACKAGED).read_text(encoding="utf-8"))


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
    written = written_config(store)
    try:
        config = load_run_config(written)
    except ValueError as error:
        raise ValueError(f"{store.path('config.yaml')}: {error}") from error
    table = read_planned(store, "measurements")
    table = table.filter(pc.equal(table["variant"], "trained"))
    if not table.num_rows:
        raise ValueError(f"against: got {uri!r} without measurements, allowed: a run that has them")
    step = pc.max(table["step"]).as_py()
    if step is not None:
        table = table.filter(pc.equal(table["step"], step))
    members = _members(table)
    return Reference(
        name=config.name,
        provenance=f"{uri}, step {step}, {_code(table)}",
        settings=Settings.of(config),
        versions=dict(_distinct(table, "invariant", "version")),
        tokenizers=sorted(set(tokenized(store).of_key.values())),
        step=step,
        members=members,
        values=_values(table, members),
    )


def _distinct(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    found = table.group_by(list(names)).aggregate([])
    return sorted(zip(*(found[n].to_pylist() for n in names), strict=True), key=str)


def _code(table: pa.Table) -> str:
    return "code " + ", ".join(code for (code,) in _distinct(table, "code_version"))


def _members(table: pa.Table) -> list[Member]:
    found = [Member(*of) for of in _distinct(table, "model", "seed", "n_params", "weights_digest")]
    return sorted(found, key=lambda m: (m.n_params, m.model))


def _values(table: pa.Table, members: Sequence[Member]) -> dict[At, list[float | None]]:
    place_of = {(m.model, m.seed): i for i, m in enumerate(members)}
    values: dict[At, list[float | None]] = {}
    for row in value_rows(rows_of(table, JUDGED)):
        if row["depth_bin"] == "all" and row["comparison"] == "equal_steps":
            at = At(row["invariant"], row["quantity"], row["site"], row["probe"])
            mine = values.setdefault(at, [None] * len(members))
            mine[place_of[row["model"], row["seed"]]] = row["value"]
    return {at: of for at, of in values.items() if any(v is not None for v in of)}
