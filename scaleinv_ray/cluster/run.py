"""A run: plan, capture and measure what is missing, conclude."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from scaleinv_ray import tables
from scaleinv_ray.cluster.conclude import completed, conclude, concluded, read_planned
from scaleinv_ray.cluster.jobs import Work
from scaleinv_ray.cluster.work import assemble
from scaleinv_ray.config import ProtocolOptions, RunConfig, load_run_config
from scaleinv_ray.costs import capture_bytes
from scaleinv_ray.plan import Measurement, Plan, make_plan, plan_rows
from scaleinv_ray.states import STATES
from scaleinv_ray.store import PART, Store


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        store: its folder.
        plan: what was planned.
        computed: measurements made by this call (those done before are not made again).
        failed: measurements that ended in failed rows.
        verdicts: table of tables.VERDICTS.
    """

    store: Store
    plan: Plan
    computed: int
    failed: int
    verdicts: pa.Table

    @property
    def measurements(self) -> pa.Table:
        """The rows of the plan, of tables.MEASUREMENTS."""
        return read_planned(self.store, "measurements")


def claim(store: Store, config: RunConfig) -> None:
    """Takes a run folder for a series and a protocol; another one's folder is refused.

    Args:
        store: of the run.
        config: of the run; written to config.yaml, the newest one wins.

    Raises:
        ValueError: where the folder belongs to another series or protocol.
    """
    if store.exists("config.yaml"):
        # only these two: the rest of an old config may name what no longer exists
        old = yaml.safe_load(store.read_bytes("config.yaml"))
        protocol = ProtocolOptions(**old.get("protocol", {}))
        if old["name"] != config.name:
            raise ValueError(
                f"out: {store.uri} holds series {old['name']!r}, got {config.name!r}; "
                "allowed: the same series or an empty folder"
            )
        if protocol != config.protocol:
            raise ValueError(
                f"out: {store.uri} holds protocol {protocol.record()}, "
                f"got {config.protocol.record()}; allowed: the same protocol or an empty folder"
            )
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)
    store.write_bytes("config.yaml", text.encode())


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
        ValueError: for whatever is wrong with config, models or folder, before any work starts.
    """
    checked = config if isinstance(config, RunConfig) else load_run_config(config)
    store = Store(out or checked.out)
    plan = make_plan(checked)
    done = completed(store)
    missing = plan.missing(done)
    claim(store, checked)
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, done), tables.PLAN))
    failed = _execute(plan, missing, checked, store, address) if missing else 0
    verdicts = None if missing else concluded(store, checked)
    if verdicts is None:
        verdicts = conclude(store, checked)
    return Run(store, plan, len(missing), failed, verdicts)


def _execute(
    plan: Plan, missing: list[Measurement], config: RunConfig, store: Store, address: str | None
) -> int:
    # imported here, so that a run with nothing to do starts at once
    from scaleinv_ray.cluster.driver import Driver, Settings
    from scaleinv_ray.cluster.preflight import preflight
    from scaleinv_ray.cluster.session import connected
    from scaleinv_ray.cluster.telemetry import Telemetry

    run_id = uuid.uuid4().hex[:12]
    scratch = _scratch(store, config)
    with connected(address):
        work = assemble(plan, missing, config, scratch=scratch, run_id=run_id)
        discard = config.captures == "discard"
        wanted = {path for job in work.measurements for path in job.paths()}
        clean(scratch, wanted if discard else None)
        resources = preflight(
            store,
            capture_bytes=_bytes_of(plan, work, missing, discard=discard),
            gpus_per_model=config.cluster.gpus_per_model,
            scratch=scratch,
        )
        progress = Telemetry(store, captures=len(work.captures), measurements=len(missing))
        progress("started", run_id=run_id, measurements=len(missing), resources=resources)
        settings = Settings(
            gpus_per_model=config.cluster.gpus_per_model,
            deadline_s=config.cluster.deadline,
            discard=discard,
            scratch=scratch,
            actors=config.cluster.actors,
            workers=config.cluster.workers,
            memory=config.cluster.memory,
        )
        try:
            Driver(store, work, settings, progress).execute()
        finally:
            progress("ended", run_id=run_id, **progress.counts)
            progress.close()
    return progress.counts["failed_measurements"]


def _scratch(store: Store, config: RunConfig) -> Path:
    """Captures lie under a local run folder, else on the node's temporary disk."""
    if store.local is not None:
        return store.local / "captures"
    owner = hashlib.sha256(f"{store.uri} {os.getuid()}".encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / "scaleinv_ray" / f"{config.name}-{owner}"


def clean(scratch: Path, wanted: set[str] | None) -> None:
    """Removes what a killed run left behind: half-written captures, and those nobody reads.

    Args:
        scratch: folder of the captures.
        wanted: files that measurements still need; None keeps all complete ones.
    """
    for part in scratch.glob(f"{PART}*"):
        part.unlink(missing_ok=True)
    if wanted is None:
        return
    for states in scratch.glob(f"{STATES}*"):  # a streamed pass that was killed goes on from them
        if str(states.with_name(f"{states.name.removeprefix(STATES)}.arrow")) not in wanted:
            shutil.rmtree(states)
    for path in scratch.glob("*.arrow"):
        if str(path) not in wanted:
            path.unlink(missing_ok=True)


def _bytes_of(plan: Plan, work: Work, missing: list[Measurement], *, discard: bool) -> int:
    """Bytes that captures still to be made take on disk at one time."""
    pending = {Path(p).stem for job in work.captures for p in job.paths()}
    sizes: Counter[str] = Counter()
    wanted = {key: (unit, m.kind) for m in missing for unit, key in m.readings}
    for key, (unit, kind) in wanted.items():
        if key in pending:
            size = capture_bytes(unit.checkpoint, kind, plan.protocol)
            sizes[" ".join(unit.content)] += size
    # discarded ones: the largest few are there at a time
    return sum(size for _, size in sizes.most_common(8 if discard else None))
