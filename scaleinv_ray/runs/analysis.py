"""A run: plan, capture and measure what is missing, conclude."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.cluster.scratch.disk import Scratch, found_on
from scaleinv_ray.conclude.aggregation.evaluations import join_notes
from scaleinv_ray.conclude.aggregation.tokenizers import tokenizer_notes
from scaleinv_ray.conclude.concluding import conclude, concluded, read_planned
from scaleinv_ray.conclude.conclusions import concluded_files
from scaleinv_ray.conclude.evaluations import joined_with_plan
from scaleinv_ray.conclude.sanity import Sanity, sanity_notes
from scaleinv_ray.conclude.tokenized import write_tokens
from scaleinv_ray.config import ConfigError, RunConfig, load_run_config
from scaleinv_ray.config.entering import Entered
from scaleinv_ray.config.loading import load
from scaleinv_ray.config.reader import as_mapping, write_yaml
from scaleinv_ray.inputs.html import table
from scaleinv_ray.inputs.paths import check_folder
from scaleinv_ray.inputs.wording import clipped, shown
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.measure.inventory import tidied
from scaleinv_ray.measure.written_config import sealed, written_config
from scaleinv_ray.plan import Measurement, Plan, make_plan, plan_rows
from scaleinv_ray.plan.costs import capture_bytes
from scaleinv_ray.plan.jobs import Jobs
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.records import Protocol
from scaleinv_ray.runs.starting.fitting import check_models, idle_plugins, keep_sources
from scaleinv_ray.runs.starting.leftovers import left_behind, recorded
from scaleinv_ray.runs.starting.reach import reach_lines
from scaleinv_ray.runs.starting.run_lock import alone
from scaleinv_ray.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from scaleinv_ray.cluster.nodes.joining import Terms
    from scaleinv_ray.cluster.nodes.preflight import Cleared


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        store: its folder.
        plan: what was planned.
        computed: measurements made by this call (those done before are not made again).
        failed: measurements that ended in failed rows.
        verdicts: table of `VerdictRow`.
        notes: what is to be said of tokenizers and of evaluations.
    """

    store: Store
    plan: Plan
    computed: int
    failed: int
    verdicts: pa.Table
    notes: tuple[str, ...] = ()

    @property
    def measurements(self) -> pa.Table:
        """The rows of the plan, of tables.MEASUREMENTS."""
        return read_planned(self.store, "measurements")

    @property
    def findings(self) -> list[str]:
        """What was found, in the sentences at the head of the report."""
        from scaleinv_ray.runs.looking import sentences

        return sentences(self.store, self.verdicts)

    def summary(self) -> pd.DataFrame:
        """One row a quantity over the whole depth, at equal steps: its verdict, and why."""
        from scaleinv_ray.runs.looking import summary

        return summary(self.verdicts)

    def values(
        self, quantity: str, *, depth: str = "all", comparison: str = "equal_steps"
    ) -> pd.DataFrame:
        """The values of a quantity that count, tidy: one row a model, variant and step.

        Args:
            quantity: its name, such as `alpha_tilde`.
            depth: all of the depth, or its third: early, middle, late.
            comparison: equal_steps, equal_tokens, equal_loss or final.

        Returns:
            With the place (probe, site, depth_bin), the model (variant, model, n_params, seed,
            step) and value with its standard error, where that is known.

        Raises:
            ValueError: for a quantity, depth or comparison that the run has not.
        """
        from scaleinv_ray.runs.looking import values

        return values(self.store, quantity, depth=depth, comparison=comparison)

    def plot(self, quantity: str, *, depth: str = "all") -> Figure:
        """A quantity over model size at the last step, trained beside the nulls, as of plotly.

        Args:
            quantity: its name, such as `alpha_tilde`.
            depth: all of the depth, or its third: early, middle, late.

        Returns:
            The figure, which a notebook shows; means over seeds with standard errors.

        Raises:
            ValueError: for a quantity or depth that the run has not.
        """
        from scaleinv_ray.runs.looking import plot

        return plot(self.values(quantity, depth=depth), quantity)

    def __repr__(self) -> str:
        from scaleinv_ray.runs.looking import described

        return f"<Run {described(self.plan.name, self.store.shown, self.verdicts)[0]}>"

    def _repr_html_(self) -> str:
        from scaleinv_ray.runs.looking import described

        said, rows = described(self.plan.name, self.store.shown, self.verdicts)
        return table(said.partition(":")[0], ("verdict", "quantities"), rows, *self.findings)


def check_claim(store: Store, config: RunConfig) -> None:
    """Refuses a folder that belongs to another series or protocol; writes nothing.

    Raises:
        ValueError: naming what the folder holds, and for a config.yaml that is none.
    """
    if not store.exists("config.yaml"):
        return
    # only these two: the rest of an old config may name what no longer exists
    old = written_config(store)
    name, where = old.get("name"), store.path("config.yaml")
    try:
        protocol = load(Entered[Protocol], as_mapping(old.get("protocol", {}), "protocol"))
    except ConfigError as error:
        raise ValueError(f"{where}: {error}") from error
    if name != config.name:
        raise ValueError(
            f"out: {store.shown} holds series {shown(name)}, got {config.name!r}; "
            "allowed: the same series or an empty folder"
        )
    # what one kind of capture alone reads is in its own keys
    own = {name for kind in KINDS.values() for name in kind.own}
    other = {
        k: v
        for k, v in asdict(config.protocol).items()
        if getattr(protocol, k) != v and k not in own
    }
    if other:
        held = ", ".join(f"{k} {getattr(protocol, k)}" for k in other)
        got = ", ".join(f"protocol.{k}: got {v}" for k, v in other.items())
        raise ValueError(
            f"{clipped(got, 100)}, {clipped(store.shown, 60)} holds protocol {clipped(held, 60)}; "
            "allowed: the same, or another out"
        )


def claim(store: Store, config: RunConfig) -> None:
    """Takes a run folder for a series and a protocol; `check_claim` refuses another one's.

    Args:
        store: of the run.
        config: of the run; written to config.yaml, the newest one wins. Its paths are absolute, so
            that the folder can be read from anywhere.
    """
    dumped = config.model_dump(mode="json", exclude_none=True)
    whole = load_run_config(dumped, folder=Path.cwd())
    text = write_yaml(whole.model_dump(mode="json", exclude_none=True))
    store.write_bytes("config.yaml", sealed(text))


def run(
    config: RunConfig | Mapping[str, Any] | str | Path,
    *,
    out: str | None = None,
    address: str | None = None,
) -> Run:
    """Analyses a series: measures what is missing, judges, writes the report.

    Args:
        config: a checked config, a mapping, or the path of a YAML file.
        out: URI of the run folder, instead of the config's.
        address: of a Ray cluster; None embeds Ray.

    Returns:
        The finished run.

    Raises:
        ValueError: for whatever is wrong with config, models or folder, and where another run is at
            the folder, before any work starts.
    """
    checked = config if isinstance(config, RunConfig) else load_run_config(config)
    check_folder("out", out or checked.out)
    store = Store(out or checked.out)
    plan = make_plan(checked)
    checked = as_planned(checked, plan)
    notes = notes_of(checked, plan)  # raises: files are read after the work, and would be its end
    with alone(store):
        for line in filter(None, [*reach_lines(plan), left_behind(store)]):
            print(line, file=sys.stderr)
        check_claim(store, checked)
        done = tidied(store, concluded_files())
        missing = plan.missing(done)
        check_models(missing, checked.trust_remote_code)

        def begin() -> None:
            """Takes the folder: not before everything that can be refused has been looked at."""
            claim(store, checked)
            write_tokens(store, plan)
            keep_sources(store, plan)
            store.write_table("plan.parquet", tables.encode(plan_rows(plan, done), tables.PLAN))

        failed = 0
        if missing:
            failed = _execute(
                plan, missing, checked, store, address=address, notes=notes, begin=begin
            )
        else:
            begin()
        verdicts = None if missing else concluded(store, checked)
        if verdicts is None:
            verdicts = conclude(store, checked)
    given = {(m.unit.checkpoint.model, m.probe) for m in plan.measurements}
    notes = (*notes, *sanity_notes(store, given))
    return Run(store, plan, len(missing), failed, verdicts, notes)


def as_planned(config: RunConfig, plan: Plan) -> RunConfig:
    """The config with what was fitted to the series in the place of what was not set.

    Who comes back with more models is to find the same protocol, or be told; what is inspected
    beside the run is measured with the same points.

    Args:
        config: of the run.
        plan: of this config.

    Returns:
        What config.yaml of the run folder says.
    """
    given = {"all": {}} if isinstance(config.invariants, str) else config.invariants
    points = {name: {**given.get(name, {}), **of} for name, of in plan.points.items()}
    chosen = {**given, **points} if points else config.invariants
    return config.model_copy(update={"protocol": plan.protocol, "invariants": chosen})


def notes_of(config: RunConfig, plan: Plan) -> tuple[str, ...]:
    """What is to be said of a run before it starts: idle plugins, tokenizers, evaluations.

    Args:
        config: names plugins and the files of evaluations.
        plan: of this config.

    Returns:
        Lines; ValueError where a file of evaluations is none.
    """
    models = [(u.checkpoint.model, plan.tokenizer_of(u)) for u in plan.units]
    joined = joined_with_plan(config, plan)
    notes = join_notes(joined)
    if config.capabilities and not notes:
        notes = ["evaluations: the files of capabilities hold no values"]
    return (*idle_plugins(config), *plan.fitted, *tokenizer_notes(models), *notes)


def _execute(
    plan: Plan,
    missing: list[Measurement],
    config: RunConfig,
    store: Store,
    *,
    address: str | None,
    notes: Iterable[str],
    begin: Callable[[], None],
) -> int:
    """Captures and measures what is missing; how many measurements failed."""
    # imported here, so that a run with nothing to do starts at once
    from scaleinv_ray.cluster.driving.driver import Driver
    from scaleinv_ray.cluster.nodes.preflight import posted
    from scaleinv_ray.cluster.session import connected
    from scaleinv_ray.cluster.telemetry import Telemetry

    run_id = uuid.uuid4().hex[:12]
    scratch = _scratch(store, config)
    with connected(address) as processes, recorded(store, processes), posted(store) as terms:
        work = jobs_for(plan, missing, config, scratch=scratch.folder, run_id=run_id)
        work, cleared = _prepared(plan, missing, work, config=config, terms=terms, scratch=scratch)
        begin()
        captures = sum(not work.found.keys() >= {*job.paths()} for job in work.captures)
        progress = Telemetry(store, captures=captures, measurements=len(missing))
        progress(
            "started",
            run_id=run_id,
            measurements=len(missing),
            resources=cleared.resources,
            notes=list(notes),
        )
        try:
            discard = config.captures == "discard"
            paid = Sanity(store, plan, progress)
            Driver(
                store, work, config.cluster, progress, terms, cleared.needs, scratch, discard, paid
            ).execute()
        finally:
            progress("ended", run_id=run_id, **progress.counts)
            progress.close()
    return progress.counts["failed_measurements"]


def _prepared(
    plan: Plan,
    missing: list[Measurement],
    work: Jobs,
    *,
    config: RunConfig,
    terms: Terms,
    scratch: Scratch,
) -> tuple[Jobs, Cleared]:
    """The work with the captures that nodes have, and what preflight found of the cluster."""
    from scaleinv_ray.cluster.nodes.preflight import preflight
    from scaleinv_ray.cluster.scratch.transfer import survey_nodes

    discard = config.captures == "discard"
    read = {path for job in work.measurements for path in job.paths()}
    wanted = {Path(path).name for path in read if scratch.holds(path)}
    grounds = survey_nodes(scratch, wanted, only_wanted=discard)
    work = replace(work, found=found_on(scratch, grounds))
    shared_bytes = sum(tokens_ST.nbytes for tokens_ST in work.tokens.values())
    size = _bytes_of(plan, work, missing, discard=discard)
    given: dict[str, Any] = {"shared_bytes": shared_bytes, "grounds": grounds, "scratch": scratch}
    return work, preflight(terms, config.cluster, capture_bytes=size, **given)


def _scratch(store: Store, config: RunConfig) -> Scratch:
    """Captures lie under a local run folder, else on a disk of the node that makes them."""
    given = config.cluster.scratch
    if given is None and store.local is not None:
        return Scratch(store.local / "captures", shared=True)
    user = os.getuid()
    owner = hashlib.sha256(f"{store.uri} {user}".encode()).hexdigest()[:12]
    # a folder for every user: the one that made it would be the only one that may write there
    disk = Path(given) if given else Path(tempfile.gettempdir()) / f"scaleinv_ray-{user}"
    return Scratch(disk / f"{config.name}-{owner}")


def _bytes_of(plan: Plan, work: Jobs, missing: list[Measurement], *, discard: bool) -> int:
    """Bytes that captures still to be made take on disk at one time."""
    paths = {path for job in work.captures for path in job.paths()}
    pending = {Path(path).stem for path in paths - work.found.keys()}
    sizes: Counter[str] = Counter()
    wanted = {key: (unit, m.kind) for m in missing for unit, key in m.readings}
    for key, (unit, kind) in wanted.items():
        if key in pending:
            size = capture_bytes(unit.checkpoint, kind, plan.protocol, plan.spectroscopy)
            sizes[" ".join(unit.content)] += size
    # discarded ones: the largest few are there at a time
    return sum(size for _, size in sizes.most_common(8 if discard else None))
