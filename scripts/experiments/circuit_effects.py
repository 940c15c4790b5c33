"""Circuits of the ladders of `four_experiments.py` at their last step: what copying hangs on.

`scaleinv circuits` over every model on the probe `induction`, resampled, heads and MLPs, exact;
untrained beside one seed a size. A row a model and quantity in circuits.parquet.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _experiment import table

from scaleinv_ray.checkpoints import resolve
from scaleinv_ray.circuitry.commands import Request, command
from scaleinv_ray.config import load_run_config

LADDERS = ("gpt2", "gpt2_held_out", "depth_2", "depth_8", "depth_12", "llama")
QUANTITIES = ("participation", "n90", "depth_centre", "redundancy")


def last_steps(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Last step of every model of a ladder, its parameters and its seed."""
    config = load_run_config({
        "name": "circuits", "models": [{"ladder": str(folder), "steps": "last"}],
        "invariants": {"behaviour.capabilities": {}}, "out": str(folder / "unused"),
    })  # fmt: skip
    for checkpoint in resolve(config.models):
        assert checkpoint.folder is not None, "a ladder lies in folders"
        yield Path(checkpoint.folder), checkpoint.n_params, checkpoint.seed


def rows_of(ladder: str, model: Path, n_params: int, seed: int) -> Iterator[dict[str, Any]]:
    """Quantities of one model, and the gain that they are of."""
    request = Request(
        model, "induction", None, "heads,mlp", "resample", False, None, 32, 48, seed == 0, None
    )
    at = {"ladder": ladder, "model": model.parent.name, "n_params": n_params, "seed": seed}
    try:
        found = json.loads("".join(command(request, as_json=True)))
    except ValueError as error:  # a model that does not do the task has no circuit of it
        yield {**at, "quantity": "refused", "refused": str(error)}
        return
    yield {**at, "quantity": "clean_less_corrupted", "value": found["clean"] - found["corrupted"]}
    for name in QUANTITIES:
        got = found["quantities"][name]
        kept = {k: got.get(k) for k in ("value", "stderr", "untrained", "trivial", "refused")}
        yield {**at, "components": len(found["components"]), "quantity": name, **kept}


def main() -> None:
    """Measures every model that is not in the table yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder of the ladders")
    parser.add_argument("out", type=Path, help="circuits.parquet; what stands in it stays")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_parquet(options.out).to_dict("records") if options.out.exists() else []
    done = {(row["ladder"], row["n_params"], row["seed"]) for row in rows}
    for ladder in (name for name in LADDERS if (options.models / name).exists()):
        for folder, n_params, seed in last_steps(options.models / ladder):
            if (ladder, n_params, seed) not in done:
                rows += rows_of(ladder, folder, n_params, seed)
                pd.DataFrame(rows).to_parquet(options.out, index=False)
    frame = pd.DataFrame(rows)
    mean = frame.groupby(["ladder", "n_params", "quantity"])["value"].agg(["mean", "sem", "count"])
    print(table(mean.reset_index().to_dict("records")))


if __name__ == "__main__":
    main()
