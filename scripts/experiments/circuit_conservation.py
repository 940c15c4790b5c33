"""Which numbers of the circuit of induction are conserved over size, beyond untrained models.

Two ladders: models of attention alone that learn nothing but to copy, trained here, and the GPT-2
ladder of jobs/series/gpt2_ladder_models.yaml where it has been trained. Each is a run of its own,
as `scaleinv run` makes it, of the effects of all heads and MLPs on two probes in pairs:
`induction`, where all tokens of the repeated block are exchanged, and `induction.last`, where the
last token alone asks for another one. A third run has edges, probes and rules of the trained
models of attention alone. The table has the verdict of each quantity at the last step
beside that on untrained models, and means (standard deviations over seeds) of the sizes. Conserved
beyond initialisation is what is conserved and, as untrained models tell, learned. As expected is:
the models of attention alone do the task.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _copying_ladder import Copying, trained
from _experiment import Outcome, Row, in_processes, main

import scaleinv_ray as si

WIDTHS, SEEDS = (32, 64, 96, 128), (0, 1, 2, 3, 4)
GPT2 = Path("runs/gpt2_ladder/models")
QUANTITIES = {
    "circuits.concentration": ("participation_fraction", "n90_fraction", "sorted_exponent"),
    "circuits.together": ("n90_joint_fraction", "redundancy"),
    "circuits.depth": ("depth_centre", "depth_width"),
    "circuits.onset": ("onset_step",),
    "circuits.strength": ("top_effect", "task_gap"),
}
MORE = {
    "circuits.circuit_areas": ("cpr", "cmd"),
    "circuits.modules": ("modularity_excess",),
    "circuits.probes": ("previous_accuracy", "previous_selectivity", "previous_rise",
                        "repeated_accuracy", "repeated_selectivity", "repeated_rise",
                        "repeated_depth"),
    "circuits.rules": ("rules_told", "rules_told_at_2", "rules_half"),
}  # fmt: skip
"""Of edges, probes and rules: at the last step alone, on `induction.last`."""
NAMED = {name for asked in (QUANTITIES, MORE) for names in asked.values() for name in names}


def series(name: str, models: Path, steps: list[int], out: Path, sequences: int) -> dict[str, Any]:
    """The config of one ladder; its probes repeat after 12 tokens, a period of both ladders."""
    return {
        "name": name,
        "models": [{"ladder": str(models.absolute()), "steps": steps}],
        "variants": ["trained", "random_init"],
        "probes": ["induction"],
        "circuits": {"probes": ["induction", "induction.last"], "sequences": sequences},
        "protocol": {"sequences": max(sequences, 16), "length": 24, "position": 12},
        "invariants": dict.fromkeys(QUANTITIES, {}),
        "conservation": {"comparisons": ["steps"]},
        "captures": "discard",
        "batch_size": 64,
        "out": str(out.absolute()),
    }


def at_the_end(config: dict[str, Any], out: Path) -> dict[str, Any]:
    """The config of edges, probes and rules at the last step of the same models."""
    source = config["models"][0]
    sequences = min(config["circuits"]["sequences"], 64)
    return config | {
        "name": f"{config['name']}_edges",
        "models": [source | {"steps": source["steps"][-1:]}],
        "circuits": {"probes": ["induction.last"], "sequences": sequences, "edges": True},
        "invariants": dict.fromkeys(MORE, {}),
        "out": str(out.absolute()),
    }


def rows_of(ladder: str, run: Any) -> list[Row]:
    """Verdict, null and means of the sizes of each quantity at each probe."""
    verdicts = run.verdicts.to_pandas()
    rows = []
    for (probe, name), found in verdicts.groupby(["probe", "quantity"], sort=False):
        if name not in NAMED:
            continue
        whole = found[found.depth_bin == "all"]
        of = whole.sort_values("step").iloc[-1]
        rows.append({
            "ladder": ladder, "probe": probe, "quantity": name, "verdict": of.verdict,
            "changes up to": _number(of.certified_change),
            "untrained": _word(of.null_verdict), "null class": _word(of.null_class),
            "by size": _by_size(run, probe, name, "trained"),
            "untrained by size": _by_size(run, probe, name, "random_init"),
        })  # fmt: skip
    return rows


def _number(x: Any) -> float | None:
    return None if x is None or pd.isna(x) else float(x)


def _word(x: Any) -> str:
    return "-" if x is None or pd.isna(x) else str(x)


def _by_size(run: Any, probe: str, name: str, variant: str) -> str:
    values = run.values(name)
    mine = values[(values.probe == probe) & (values.variant == variant) & values.value.notna()]
    found = mine[mine.step == mine.step.max()].groupby("n_params").value.agg(["mean", "std"])
    return " ".join(_with_spread(m, s) for m, s in found.to_numpy()) or "-"


def _with_spread(mean: float, spread: Any) -> str:
    """A single seed has no spread."""
    return f"{mean:.2f}(-)" if pd.isna(spread) else f"{mean:.2f}({spread:.2f})"


def experiment(folder: Path, quick: bool, workers: int) -> Outcome:
    """Trains what is missing, runs both series, tells what is conserved."""
    plan = Copying(steps=(0, 5, 10, 15), batch=8) if quick else Copying()
    widths, seeds = ((16, 24, 32), (0, 1)) if quick else (WIDTHS, SEEDS)
    models = folder / "models"
    in_processes(trained, [(plan, w, s, models) for s in seeds for w in widths], workers)
    steps = list(plan.steps)
    ladders = {"attention only": series("attention_only", models, steps, folder / "copying", 128)}
    ladders["attention only, edges"] = at_the_end(ladders["attention only"], folder / "edges")
    if GPT2.exists() and not quick:
        kept = [0, 110, 170, 260, 400, 600, 850, 1120]
        ladders["GPT-2"] = series("gpt2", GPT2, kept, folder / "gpt2", 64)
    runs = {ladder: si.run(config) for ladder, config in ladders.items()}
    rows = [row for ladder, run in runs.items() for row in rows_of(ladder, run)]
    beyond = [
        f"{r['ladder']}, {r['probe']}: {r['quantity']}"
        for r in rows
        if str(r["verdict"]).startswith("conserved") and r["null class"] == "learned"
    ]
    values = runs["attention only"].values("task_gap")
    gap = values[(values.variant == "trained") & (values.step == steps[-1])].value
    summary = {
        "holds": quick or bool(len(gap) and float(np.min(gap)) > 1),
        "conserved_beyond_init": beyond or "none",
        "left_out": [] if "GPT-2" in ladders else [f"{GPT2} does not exist"],
    }
    return Outcome(rows, {}, summary)


if __name__ == "__main__":
    main("circuit_conservation", experiment)
