"""From missing measurements to jobs: which captures are needed, which files exist already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scaleinv_ray.config import RunConfig
from scaleinv_ray.kinds import KINDS, digest_for
from scaleinv_ray.plan import Measurement, Plan, ProbeTokens, Reading, Unit, rng_seed
from scaleinv_ray.plan.jobs import (
    CaptureJob,
    Jobs,
    MeasureJob,
    ProbeCaptures,
    WeightSource,
    code_version,
)
from scaleinv_ray.plugins.loading import plugin_of


def labels_of(plan: Plan, measurement: Measurement, run_id: str) -> dict[str, Any]:
    """The columns that are equal in all rows of a measurement."""
    unit, checkpoint = measurement.unit, measurement.unit.checkpoint
    probe, plugin = measurement.probe, plugin_of(measurement.invariant)
    return {
        "run_id": run_id,
        "unit": unit.id,
        "unit_b": measurement.unit_b,
        "series": unit.series,
        "model": checkpoint.model,
        "architecture": checkpoint.architecture,
        "n_params": checkpoint.n_params,
        "n_layers": checkpoint.n_layers,
        "d_model": checkpoint.d_model,
        "seed": checkpoint.seed,
        "step": checkpoint.step,
        "train_tokens": checkpoint.train_tokens,
        "eval_loss": checkpoint.eval_loss,
        "variant": unit.variant,
        "probe": probe,
        "probe_tokens": None
        if probe is None or checkpoint.captures
        else plan.tokens_of(unit, probe, measurement.kind).text_ST.size,
        "protocol": digest_for(plan.protocol, measurement.kind),
        "weights_digest": checkpoint.weights_digest,
        "code_version": code_version() if plugin is None else f"{code_version()} {plugin.stamp}",
    }


def jobs_for(
    plan: Plan, missing: Sequence[Measurement], config: RunConfig, *, scratch: Path, run_id: str
) -> Jobs:
    """Jobs for what is missing, and for all captures that it reads.

    Args:
        missing: its measurements without result.
        scratch: folder of the capture files; `{node}` in it stands for the id of a node.
        run_id: recorded with every row.

    Returns:
        The work for a driver.
    """
    jobs: list[MeasureJob] = []
    loads: dict[tuple[str, ...], list[tuple[Measurement, Reading]]] = defaultdict(list)
    for m in missing:
        sources = [_source(m, reading, config, scratch) for reading in m.readings]
        for reading, source in zip(m.readings, sources, strict=True):
            made_here = isinstance(source, str) and not reading.unit.checkpoint.captures
            if m.probe is not None and made_here:
                # hours of chains or curvature are not one actor's alone
                alone = (m.probe, m.kind) if KINDS[m.kind].section else ()
                loads[*reading.unit.content, *alone].append((m, reading))
        job = MeasureJob(
            key=m.key,
            invariant=m.invariant,
            params=m.params,
            rng_seed=rng_seed(plan.protocol, m),
            source=sources[0],
            labels=labels_of(plan, m, run_id),
            more=tuple(sources[1:]),
            steps=tuple(r.unit.checkpoint.step for r in m.more),
            digests=_digests(m, sources),
            plugin=plugin_of(m.invariant),
        )
        jobs.append(job)
    captures = _asked_once([_capture_job(plan, group, config, scratch) for group in loads.values()])
    tokens = {t.digest: t.tokens_ST for of in (plan.tokens, plan.pairs) for t in of.values()}
    return Jobs(captures, jobs, tokens)


def _asked_once(jobs: Sequence[CaptureJob]) -> list[CaptureJob]:
    """The jobs, of which one alone says what a model pays for a probe: one of a forward pass."""
    wanted = [(job, of) for job in jobs for of in job.wanted if of.sanity]
    wanted.sort(key=lambda of: any(KINDS[kind].section for kind in of[1].paths))
    first: dict[tuple[str, str], ProbeCaptures] = {}
    for job, of in wanted:
        first.setdefault((job.weights.checkpoint.weights_digest, of.tokens), of)
    asks = {id(of) for of in first.values()}
    return [
        replace(job, wanted=tuple(replace(t, sanity=id(t) in asks) for t in job.wanted))
        for job in jobs
    ]


def _source(
    m: Measurement, reading: Reading, config: RunConfig, scratch: Path
) -> str | WeightSource:
    """Where the records are: a capture made elsewhere or here, or weights to be streamed."""
    for kind, probe, file in reading.unit.checkpoint.captures:
        if (kind, probe) == (m.kind, m.probe):
            return str(file)
    if KINDS[m.kind].token_free:
        return _weights(reading.unit, config, per_head=config.split_heads)
    return str(scratch / f"{reading.capture_key}.arrow")


def _digests(m: Measurement, sources: Sequence[str | WeightSource]) -> dict[str, str]:
    """Those of the sources that were made elsewhere."""
    of_units = [r.unit.checkpoint for r in m.readings]
    known = {str(file): digest for c in of_units for (*_, file), digest in c.recorded()}
    return {s: known[s] for s in sources if isinstance(s, str) and s in known}


def _capture_job(
    plan: Plan, group: Sequence[tuple[Measurement, Reading]], config: RunConfig, scratch: Path
) -> CaptureJob:
    """One loading of the weights serves all of these passes over them."""
    unit = group[0][1].unit
    paths: dict[tuple[str, str, int | None], dict[str, str]] = defaultdict(dict)
    made_of: dict[str, ProbeTokens] = {}
    for m, (of, capture_key) in group:
        assert m.probe is not None, "what is captured here reads tokens"
        shuffle = of.checkpoint.seed if of.variant == "shuffled_tokens" else None
        tokens = plan.tokens_of(of, m.probe, m.kind)
        made_of[tokens.digest] = tokens
        paths[m.probe, tokens.digest, shuffle][m.kind] = str(scratch / f"{capture_key}.arrow")
    c = unit.checkpoint
    predicts = any(KINDS[kind].exists(c) for kind in ("token_losses", "masked_losses"))
    judged = unit.variant == "trained" and predicts and c in plan.last
    asked = config.spectroscopy()
    observed = (name for m, _ in group for name in KINDS[m.kind].observed_by(asked))
    return CaptureJob(
        weights=_weights(unit, config),
        wanted=tuple(
            ProbeCaptures(
                probe,
                read,
                shuffle,
                to,
                made_of[read].around,
                made_of[read].left_out,
                sanity=judged and shuffle is None and made_of[read].known_text,
            )
            for (probe, read, shuffle), to in paths.items()
        ),
        protocol=plan.protocol,
        facts=_facts(plan, unit),
        batch_size=config.batch_size,
        load=config.cluster.load,
        spectroscopy=asked,
        observed={name: plan.tokens_of(unit, name).digest for name in observed},
        pairs={t.name: t.pairs for t in made_of.values() if t.pairs is not None},
    )


def _weights(unit: Unit, config: RunConfig, *, per_head: bool = False) -> WeightSource:
    variant = "trained" if unit.variant == "shuffled_tokens" else unit.variant
    trusted = unit.checkpoint.model in config.trust_remote_code
    return WeightSource(unit.checkpoint, variant, trusted, per_head)


def _facts(plan: Plan, unit: Unit) -> Mapping[str, str]:
    return {
        "protocol": plan.protocol.digest(),
        "unit": unit.id,
        "weights_digest": unit.checkpoint.weights_digest,
        "code_version": code_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
