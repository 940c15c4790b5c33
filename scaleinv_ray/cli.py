"""The command line: each command is a function, what it does lies in the rooms below."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from scaleinv_ray.checkpoints import unused
from scaleinv_ray.config import (
    RunConfig,
    load_design_config,
    load_programs_config,
    load_run_config,
    load_train_config,
)
from scaleinv_ray.config.reader import read_mapping
from scaleinv_ray.cost_model import cost_lines, price
from scaleinv_ray.entry import enter
from scaleinv_ray.inputs.paths import absolute, check_folder, expanded
from scaleinv_ray.inputs.wording import clipped, shown

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure mathematical invariants of transformers over sizes, and what is conserved.",
    epilog="--debug, with any command: an error shows its traceback.",
)
Config = Annotated[Path, typer.Argument(help="YAML file; see jobs/series/")]
Out = Annotated[str | None, typer.Option(help="URI of the run folder, instead of the config's")]
Nodes = Annotated[int, typer.Option(min=1, help="Nodes like this machine, all of them busy")]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="File or module with invariants of your own; may be repeated"),
]
RunFolder = Annotated[str, typer.Argument(help="URI of a run folder")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs")]
Address = Annotated[str | None, typer.Option(help="Ray cluster; none embeds Ray")]
OneModel = Annotated[str, typer.Argument(help="Folder of a checkpoint, or organisation/name")]
Against = Annotated[
    str | None,
    typer.Option(help="Run folder, or Parquet table of measurements; by default the demo's series"),
]
Parent = Annotated[
    str | None, typer.Option(help="Model that it was made of: what has changed, pair by pair")
]
Revision = Annotated[str | None, typer.Option(help="Of a model on the hub")]
ProbesOf = Annotated[
    list[str] | None, typer.Option("--probe", help="Instead of the series'; may be repeated")
]
TokenFile = Annotated[
    str | None, typer.Option(help="File of token ids (.npy or .parquet), for a model without text")
]
Budget = Annotated[float, typer.Option(help="Seconds on one core; what takes longer is left")]
Level = Annotated[float, typer.Option(help="Rate of false alarms that an alarm may have")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"scaleinv {version('scaleinv-ray')}")
        raise typer.Exit


@app.callback()
def _any_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Says which it is")
    ] = False,
) -> None:
    del version


def _config(file: Path, plugins: list[str] | None) -> RunConfig:
    """A config with the plugins of the command line, whose paths start where it is typed."""
    file = expanded(file)
    if file.is_dir():
        raise ValueError(
            f"config: got {shown(str(file))}, a folder; allowed: a YAML file (for a run folder: "
            f"scaleinv report {clipped(file, 80)})"
        )
    if not plugins:
        return load_run_config(file)
    given = read_mapping(file)
    added = [absolute(name) if name.endswith(".py") else name for name in plugins]
    here = given.get("plugins") or []
    if not isinstance(here, list):
        raise ValueError(f"{file}: plugins: got {shown(here)}, allowed: a list")
    return load_run_config({**given, "plugins": [*here, *added]}, folder=file.absolute().parent)


@app.command()
def inspect(
    model: OneModel,
    against: Against = None,
    parent: Parent = None,
    revision: Revision = None,
    probe: ProbesOf = None,
    tokens: TokenFile = None,
    budget: Budget = 60.0,
    level: Level = 0.1,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measures one checkpoint beside its untrained and shuffled twin and a series."""
    from scaleinv_ray.inspection import inspect as inspected
    from scaleinv_ray.inspection.printing import show

    found = inspected(
        model,
        against=against,
        parent=parent,
        revision=revision,
        probes=probe or None,
        tokens=tokens,
        budget_s=budget,
        level=level,
        plugins=plugin or (),
        say=_on_terminal(),
    )
    if as_json:
        typer.echo(found.to_json())
    else:
        show(found)


@app.command()
def assess(
    checkpoint: OneModel,
    against: Against = None,
    parent: Parent = None,
    revision: Revision = None,
    budget: Budget = 60.0,
    level: Level = 0.1,
    as_json: AsJson = False,
) -> None:
    """Is a checkpoint of the family of a series, and what changed since its parent? 3: an alarm."""
    from scaleinv_ray.inspection import inspect as inspected
    from scaleinv_ray.inspection.printing import show_card

    found = inspected(
        checkpoint,
        against=against,
        parent=parent,
        revision=revision,
        budget_s=budget,
        level=level,
        twins=False,
        say=_on_terminal(),
    )
    if as_json:
        typer.echo(found.to_json())
    else:
        show_card(found)
    if found.is_out:
        raise typer.Exit(3)


def _on_terminal() -> Callable[[str], None]:
    """Says what is being done where a person looks on."""
    return partial(typer.echo, err=True) if sys.stderr.isatty() else lambda text: None


@app.command()
def train(config: Config, address: Address = None) -> None:
    """Trains a ladder: a size series from one frozen config, resumed where it was left."""
    from scaleinv_ray.cluster.train import train as train_ladder

    folders = train_ladder(load_train_config(config), address=address)
    for folder in folders:
        typer.echo(folder)


@app.command()
def design(config: Config, address: Address = None) -> None:
    """Looks for a model with a wanted value of an invariant, and certifies it on unseen seeds."""
    from scaleinv_ray.runs.designs.designing import design as designed

    found = designed(load_design_config(config), address=address)
    for line in found.lines():
        typer.echo(line)
    typer.echo(f"page: {found.store.path('design.html')}")
    if not found.certified:
        raise typer.Exit(3)


@app.command()
def plan(config: Config, out: Out = None, nodes: Nodes = 1, plugin: Plugins = None) -> None:
    """Prints units, captures, bytes, what is missing and what it costs; computes nothing."""
    from scaleinv_ray.conclude.conclusions import concluded_files
    from scaleinv_ray.measure.inventory import say, take_inventory
    from scaleinv_ray.plan import make_plan
    from scaleinv_ray.plan.description import describe, loadings
    from scaleinv_ray.plan.look import look_lines
    from scaleinv_ray.runs.analysis import notes_of
    from scaleinv_ray.runs.starting.fitting import check_models
    from scaleinv_ray.runs.starting.reach import reach_lines
    from scaleinv_ray.store import Store

    checked = _config(config, plugin)
    check_folder("out", out or checked.out)
    made = make_plan(checked)
    held = take_inventory(Store(out or checked.out))
    say(held.notes(concluded_files()))
    done = held.done
    missing = made.missing(done)
    check_models(missing, checked.trust_remote_code)
    typer.echo(describe(made, done))
    for line in look_lines(made):
        typer.echo(line)
    for line in unused(checked.models):
        typer.echo(line)
    for note in notes_of(checked, made):
        typer.echo(note)
    for line in reach_lines(made):
        typer.echo(line)
    typer.echo(loadings(made, checked))
    cores = nodes * (os.cpu_count() or 1)
    on_gpus = checked.cluster.gpus_per_model > 0
    devices = (checked.cluster.actors or nodes) if on_gpus else 0
    if missing:
        cost = price(made, missing, device="a100" if on_gpus else "cpu")
        typer.echo(cost_lines(cost, workers=cores, devices=devices))


@app.command()
def run(
    config: Config,
    out: Out = None,
    address: Address = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measures what is missing, judges, and writes verdicts and report.html."""
    _run(_config(config, plugin), out, address, as_json=as_json)


def _run(config: RunConfig, out: str | None, address: str | None, *, as_json: bool = False) -> None:
    from scaleinv_ray.runs.analysis import run as analyse
    from scaleinv_ray.runs.printing import found_in

    result = analyse(config, out=out, address=address)
    found = found_in(result.store, result.verdicts, failed=result.failed)
    if as_json:
        made = {"computed": result.computed, "failed": result.failed, "notes": result.notes}
        typer.echo(found.to_json(**made))
    else:
        typer.echo(f"{result.computed} measurements made, {result.failed} failed")
        for note in result.notes:
            typer.echo(note)
        found.show()
    if result.failed:
        raise typer.Exit(3)


def _run_folder(given: str) -> str:
    if not given:
        raise ValueError("run_folder: got '', allowed: the folder of a run")
    return absolute(given)


@app.command()
def report(run_folder: RunFolder, as_json: AsJson = False) -> None:
    """Judges a run folder anew and writes its report; measures nothing."""
    from scaleinv_ray.conclude.concluding import rejudge
    from scaleinv_ray.measure.written_config import config_of
    from scaleinv_ray.runs.printing import found_in
    from scaleinv_ray.store import Store

    store = Store(_run_folder(run_folder))
    rejudge(store, config_of(store))
    if as_json:
        typer.echo(found_in(store, store.read_table("verdicts.parquet")).to_json())
    else:
        typer.echo(store.path("report.html"))


@app.command()
def status(run_folder: RunFolder, as_json: AsJson = False) -> None:
    """Says how far a run is: counts by kind, reasons of failures, rate and time left."""
    from scaleinv_ray.runs.status import status as status_of
    from scaleinv_ray.store import Store

    found = status_of(Store(_run_folder(run_folder)), now=time.time())
    for line in [found.to_json()] if as_json else found.lines():
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
def programs(config: Config, address: Address = None) -> None:
    """Compares programs of one function as singularities: programs.parquet and a page."""
    from scaleinv_ray.runs.programs import compare_programs

    typer.echo(compare_programs(load_programs_config(config), address=address))


@app.command()
def invariants(plugin: Plugins = None) -> None:
    """Prints the table of invariants, with those of installed packages and of plugins."""
    import scaleinv_ray.invariants
    from scaleinv_ray.contract import markdown_table
    from scaleinv_ray.plugins.loading import use

    assert scaleinv_ray.invariants, "importing the package registers the invariants"
    use(plugin or ())
    typer.echo(markdown_table())


@app.command("new-invariant")
def new_invariant(
    name: Annotated[str, typer.Argument(help="Of the file and its function, as my_ratio")],
) -> None:
    """Writes a working invariant of your own into this folder, and its test."""
    from scaleinv_ray.plugins.template import write_new

    file, test = write_new(name, Path.cwd())
    typer.echo(f"{file.name}: the invariant; {test.name}: what it is where the answer is known")
    typer.echo(
        f"next: python -m pytest {test.name}, then scaleinv run series.yaml --plugin {file.name}"
    )


@app.command()
def circuits(
    models: Annotated[list[Path], typer.Argument(help="Folders of checkpoints or runs")],
    probe: Annotated[str, typer.Option(help="induction, names, .. in pairs")] = "induction",
    metric: Annotated[str | None, typer.Option(help="logit_diff, prob_diff, loss, kl")] = None,
    nodes: Annotated[str, typer.Option(help="out of heads,mlp,embed")] = "heads,mlp",
    ablation: Annotated[str, typer.Option(help="or mean_per_position, mean, zero")] = "resample",
    edges: Annotated[bool, typer.Option("--edges", help="Edges too")] = False,
    budget: Annotated[str | None, typer.Option(help="Forward passes at most, as 200f")] = None,
    sequences: Annotated[int, typer.Option(min=5, max=10_000, help="Pairs")] = 32,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a sequence, at most")] = 64,
    null: Annotated[bool, typer.Option(help="The same untrained, beside it")] = True,
    analyses: Annotated[str, typer.Option("--with", help="positions, .. or all, besides")] = "",
    step: Annotated[int | None, typer.Option(help="Of a run, instead of its last")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Followed over so many steps")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for report.html and its data")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
) -> None:  # fmt: skip
    """Cuts and patches the heads and MLPs of models: which ones do their answers hang on?"""
    from scaleinv_ray.circuitry.commands import Request, command

    request = Request(
        models, probe, metric, nodes, ablation, edges, budget, sequences, length, null, analyses,
        step, steps, out,
    )  # fmt: skip
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
