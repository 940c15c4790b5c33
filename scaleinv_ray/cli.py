"""The command line: each command is a function, what it does lies in the rooms below."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from scaleinv_ray.checkpoints import listed, unused
from scaleinv_ray.config import RunConfig, load_run_config, load_train_config
from scaleinv_ray.config.reader import read_mapping
from scaleinv_ray.cost_model import cost_lines, price
from scaleinv_ray.entry import enter
from scaleinv_ray.inputs.paths import check_folder
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.plan import Plan
from scaleinv_ray.plan.costs import (
    GPU_BYTES,
    available_memory,
    capture_bytes,
    choose_loading,
    forward_flops,
    model_bytes,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure mathematical invariants of transformers over sizes, and what is conserved.",
    epilog="--debug, with any command: an error shows its traceback.",
)
Config = Annotated[Path, typer.Argument(help="YAML file; see jobs/series/")]
Out = Annotated[str | None, typer.Option(help="URI of the run folder, instead of the config's")]
Nodes = Annotated[int, typer.Option(min=1, help="Nodes like this machine, all of them busy")]
Address = Annotated[str | None, typer.Option(help="Ray cluster; none embeds Ray")]


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint, or organisation/name")],
    against: Annotated[
        str | None, typer.Option(help="URI of a run folder, instead of the packaged demo's series")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub")] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="Instead of the series' probes; may be repeated")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="File of token ids (.npy or .json), for a model without text")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="Seconds on one core; what takes longer is left")
    ] = 60.0,
    level: Annotated[float, typer.Option(help="Rate of false alarms that an alarm may have")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON")] = False,
) -> None:
    """Measures one checkpoint beside its untrained and shuffled twin and a series."""
    from scaleinv_ray.inspection import inspect as inspected
    from scaleinv_ray.inspection.printing import show

    said = partial(typer.echo, err=True) if sys.stderr.isatty() else lambda text: None
    found = inspected(
        model,
        against=against,
        revision=revision,
        probes=probe or None,
        tokens=tokens,
        budget_s=budget,
        level=level,
        say=said,
    )
    if as_json:
        typer.echo(found.to_json())
    else:
        show(found)


@app.command()
def train(config: Config, address: Address = None) -> None:
    """Trains a ladder: a size series from one frozen config, resumed where it was left."""
    from scaleinv_ray.cluster.train import train as train_ladder

    folders = train_ladder(load_train_config(config), address=address)
    for folder in folders:
        typer.echo(folder)


@app.command()
def plan(config: Config, out: Out = None, nodes: Nodes = 1) -> None:
    """Prints units, captures, bytes, what is missing and what it costs; computes nothing."""
    from scaleinv_ray.conclude.conclusions import concluded_files
    from scaleinv_ray.measure.inventory import say, take_inventory
    from scaleinv_ray.plan import make_plan
    from scaleinv_ray.plan.look import look_lines
    from scaleinv_ray.runs.analysis import notes_of
    from scaleinv_ray.runs.fitting import check_models
    from scaleinv_ray.store import Store

    checked = load_run_config(config)
    check_folder("out", out or checked.out)
    made = make_plan(checked)
    held = take_inventory(Store(out or checked.out))
    say(held.notes(concluded_files()))
    done = held.done
    missing = made.missing(done)
    check_models(missing, checked.trust_remote_code)
    typer.echo(_describe(made, done))
    for line in look_lines(made):
        typer.echo(line)
    for line in unused(checked.models):
        typer.echo(line)
    for note in notes_of(checked, made):
        typer.echo(note)
    typer.echo(_loadings(made, checked))
    cores = nodes * (os.cpu_count() or 1)
    on_gpus = checked.cluster.gpus_per_model > 0
    devices = (checked.cluster.actors or nodes) if on_gpus else 0
    if missing:
        cost = price(made, missing, device="a100" if on_gpus else "cpu")
        typer.echo(cost_lines(cost, workers=cores, devices=devices))


@app.command()
def run(config: Config, out: Out = None, address: Address = None) -> None:
    """Measures what is missing, judges, and writes verdicts and report.html."""
    _run(load_run_config(config), out, address)


def _describe(plan: Plan, done: set[str]) -> str:
    """The plan as a table by kind of capture and invariant, with totals."""
    protocol = plan.protocol
    captures: dict[str, dict[str, int]] = defaultdict(dict)
    passes: dict[tuple[str, ...], float] = {}
    rows: Counter[tuple[str, str]] = Counter()
    left: Counter[tuple[str, str]] = Counter()
    for m in plan.measurements:
        for unit, key in m.readings:  # of a pair both, of a run all its steps
            c = unit.checkpoint
            if c.captures:
                continue  # made elsewhere
            captures[m.kind][key] = capture_bytes(c, m.kind, protocol, plan.spectroscopy)
            if m.probe is not None:
                shuffled = str(unit.variant == "shuffled_tokens")
                passes[(*unit.content, m.probe, shuffled)] = forward_flops(c, protocol)
        rows[m.kind, m.invariant] += 1
        left[m.kind, m.invariant] += m.key not in done
    variants = Counter(u.variant for u in plan.units)
    lines = [
        f"series {plan.name}, protocol {protocol.digest()}",
        f"units: {len(plan.units)} ({', '.join(f'{n} {v}' for v, n in variants.items())})",
        f"forward passes: {len(passes)}, {sum(passes.values()):.3g} FLOP",
        f"{'capture':<14}{'files':>7}{'bytes':>10}  {'invariant':<36}{'planned':>8}{'missing':>8}",
    ]
    for (kind, name), count in rows.items():
        size = sum(captures[kind].values())
        lines.append(
            f"{kind:<14}{len(captures[kind]):>7}{size / 1e6:>8.1f}MB  {name:<36}{count:>8}"
            f"{left[kind, name]:>8}"
        )
    total = sum(sum(files.values()) for files in captures.values())
    lines.append(
        f"{'in all':<14}{sum(map(len, captures.values())):>7}{total / 1e6:>8.1f}MB  {'':<36}"
        f"{len(plan.measurements):>8}{sum(left.values()):>8}"
    )
    lines += [f"equal weights: {a} = {b}" for a, b in plan.equal_weights]
    kinds = {u.checkpoint.model: u.checkpoint.no_logits for u in plan.units}
    lines += [f"{m}: {k}; weights alone can be measured" for m, k in kinds.items() if k]
    encoders = {u.checkpoint.model: u.checkpoint for u in plan.units if u.checkpoint.encoder}
    lines += [
        f"{m}: an encoder: no next tokens, hence no losses of them, curvature or chains; "
        + ("no losses of hidden tokens" if c.mask_id is None else "losses of hidden tokens")
        for m, c in encoders.items()
    ]
    odd = {u.checkpoint.model: u.checkpoint.odd for u in plan.units}
    lines += [f"{model}: not measured: {listed(why, 3)}" for model, why in odd.items() if why]
    return "\n".join(lines)


def _loadings(plan: Plan, config: RunConfig) -> str:
    """How each model would be put into memory on machines like this; actors ask their own node."""
    gpus, load = config.cluster.gpus_per_model, config.cluster.load
    where = f"GPUs of one node ({gpus} x {sized(GPU_BYTES)})" if gpus else "this machine's CPU"
    room = {"memory": available_memory(), "gpu_memory": gpus * GPU_BYTES}
    lines = {}
    for checkpoint in (u.checkpoint for u in plan.units if not u.checkpoint.captures):
        size = model_bytes(checkpoint)
        chosen = choose_loading(size, load, **room)
        lines[checkpoint.model] = (
            f"{checkpoint.model}: {sized(size)}, {chosen.how} ({chosen.reason})"
        )
    return "\n".join([f"loading on {where}:", *lines.values()]) if lines else ""


def _run(config: RunConfig, out: str | None, address: str | None) -> None:
    from scaleinv_ray.runs.analysis import run as analyse

    result = analyse(config, out=out, address=address)
    counts = Counter(result.verdicts["verdict"].to_pylist())
    typer.echo(
        f"{result.computed} measurements made, {result.failed} failed; verdicts: "
        + ", ".join(f"{n} {v}" for v, n in counts.most_common())
    )
    for note in result.notes:
        typer.echo(note)
    typer.echo(f"report: {result.store.path('report.html')}")
    if result.failed:
        raise typer.Exit(3)


@app.command()
def report(run_folder: Annotated[str, typer.Argument(help="URI of a run folder")]) -> None:
    """Judges a run folder anew and writes its report; measures nothing."""
    from scaleinv_ray.conclude.concluding import rejudge
    from scaleinv_ray.measure.written_config import written_config
    from scaleinv_ray.store import Store

    store = Store(run_folder)
    written = written_config(store)
    try:
        config = load_run_config(written)
    except ValueError as error:
        raise ValueError(f"{store.path('config.yaml')}: {error}") from error
    rejudge(store, config)
    typer.echo(store.path("report.html"))


@app.command()
def status(run_folder: Annotated[str, typer.Argument(help="URI of a run folder")]) -> None:
    """Says how far a run is: counts by kind, reasons of failures, rate and time left."""
    from scaleinv_ray.runs.status import status as status_of
    from scaleinv_ray.store import Store

    for line in status_of(Store(run_folder), now=time.time()).lines():
        typer.echo(line)


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(help="checkpoint with pickled weights")],
    out: Annotated[Path, typer.Argument(help="folder of the new one, which must not exist")],
) -> None:
    """Makes safetensors and tokenizer.json of a pickled checkpoint, without running its code."""
    from scaleinv_ray.checkpoints.weights.converting import convert as converted

    for line in converted(folder, out):
        typer.echo(line)


@app.command()
def invariants() -> None:
    """Prints the table of invariants."""
    import scaleinv_ray.invariants
    from scaleinv_ray.contract import markdown_table

    assert scaleinv_ray.invariants, "importing the package registers the invariants"
    typer.echo(markdown_table())


@app.command()
def circuits(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder; of a run the last step")],
    probe: Annotated[str, typer.Option(help="induction, names, .. in pairs")] = "induction",
    metric: Annotated[str | None, typer.Option(help="logit_diff, prob_diff, loss, kl")] = None,
    nodes: Annotated[str, typer.Option(help="out of heads,mlp,embed")] = "heads,mlp",
    ablation: Annotated[str, typer.Option(help="or mean_per_position, mean, zero")] = "resample",
    edges: Annotated[bool, typer.Option("--edges", help="Edges too")] = False,
    budget: Annotated[str | None, typer.Option(help="Forward passes at most, as 200f")] = None,
    sequences: Annotated[int, typer.Option(min=2, help="Pairs")] = 32,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a sequence")] = 64,
    null: Annotated[bool, typer.Option(help="The same untrained, beside it")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for circuits.json")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
) -> None:  # fmt: skip
    """Cuts and patches the heads and MLPs of a model: which ones does its answer hang on?"""
    from scaleinv_ray.circuitry.commands import Request, command

    request = Request(
        model, probe, metric, nodes, ablation, edges, budget, sequences, length, null, out
    )
    for line in command(request, as_json=as_json):
        typer.echo(line)


@app.command()
def demo(address: Address = None) -> None:
    """Trains the embedded ladder and analyses it with nulls into runs/demo."""
    from scaleinv_ray.cluster.train import train as train_ladder

    with as_file(files("scaleinv_ray") / "demo") as folder:
        # mappings: their paths start at the working directory, not inside the package
        ladder = load_train_config(read_mapping(folder / "ladder.yaml"))
        series = load_run_config(read_mapping(folder / "series.yaml"))
    train_ladder(ladder, address=address)
    _run(series, None, address)


def main() -> None:
    """Entry point: a mistake, or what the system refuses, is one line on stderr and exit code 2."""
    enter(app)


if __name__ == "__main__":
    main()
