"""How often the card errs, and what damage it sees: `card_calibration.py RUN MODELS OUT`.

Healthy models are those of the run, each set beside all others. Two of them are damaged in known
ways, measured as the run was, and set beside the rest of it: all quantities together, the same
given size and loss, and in pairs with the model they were made of. A row a model in
calibration.parquet.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _experiment import table
from transformers import AutoModelForCausalLM

from scaleinv_ray.conclude.aggregation.values import Value
from scaleinv_ray.conclude.assessment.paired import changes
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.inspection.asking import Asked, ask
from scaleinv_ray.inspection.findings import Assessment, Line, assessed, by_place, lines_of
from scaleinv_ray.inspection.reference import Reference, Settings, of_run
from scaleinv_ray.inspection.working import measured

LEVEL = 0.1
PARENTS = ("d64-s0", "d128-s0")
LEFT_OUT = "renormalization.critical_exponents"
"""Two thirds of the time, and no quantity of it is learned."""
EARLIER = "step-000400"
SHUFFLED_LAYER = 2
Damage = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def rounded(bits: int) -> Damage:
    """Rows of 2^bits - 1 levels, symmetric."""

    def made(w_OI: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        step = w_OI.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
        return (w_OI / step).round() * step

    return made


def noisy(share: float) -> Damage:
    """Gaussian noise of a share of the matrix's own deviation."""
    return lambda w_OI, rng: w_OI + share * w_OI.std() * torch.randn(w_OI.shape, generator=rng)


def pruned(share: float) -> Damage:
    """The smallest entries set to zero."""
    return lambda w_OI, rng: torch.where(w_OI.abs() > w_OI.abs().quantile(share), w_OI, 0.0)


def shuffled(w_OI: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Entries in random order."""
    return w_OI.flatten()[torch.randperm(w_OI.numel(), generator=rng)].view_as(w_OI)


DAMAGES: Mapping[str, Damage] = {
    "none": lambda w_OI, rng: w_OI,
    "int8": rounded(8),
    "int4": rounded(4),
    "noise 5 %": noisy(0.05),
    "noise 20 %": noisy(0.2),
    "prune 50 %": pruned(0.5),
    "one layer shuffled": shuffled,
}


def damaged(folder: Path, damage: str, out: Path) -> Path:
    """A checkpoint with the matrices of its blocks changed."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, w in model.named_parameters():
            inside = f".h.{SHUFFLED_LAYER}." if damage == "one layer shuffled" else ".h."
            if w.ndim == 2 and inside in name:
                # GPT-2 keeps its matrices transposed
                w.copy_(DAMAGES[damage](w.T.contiguous(), rng).T)
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, out / name)
    return out


def rows_of(folder: Path, settings: Settings, kept: Path) -> list[dict[str, Any]]:
    """Rows of a checkpoint, measured once."""
    if not kept.exists():
        source = {"path": str(folder), "steps": "last", "name": kept.stem}
        asked = ask(source, settings, budget_s=1e6, variants=("trained",))
        mine = [m for m in asked.measurements if m.invariant in settings.invariants]
        rows = measured(Asked(asked.config, asked.plan, mine, {}, 0.0), lambda text: None)
        unit = asked.plan.units[0]
        facts = {
            "n_params": unit.checkpoint.n_params,
            "tokenizer": asked.plan.tokenizer_of(unit),
            "tokens": {probe: of.digest for (probe, _), of in asked.plan.tokens.items()},
        }
        kept.write_text(json.dumps({"facts": facts, "rows": rows}, default=str))
    found: dict[str, Any] = json.loads(kept.read_text())
    return [row | {"facts": found["facts"]} for row in found["rows"]]


def cases(models: Path, out: Path) -> Iterator[tuple[str, str, Path]]:
    """Parent, damage and folder of every checkpoint that is measured."""
    for parent in PARENTS:
        last = max((models / parent).glob("step-*"))
        for damage in DAMAGES:
            made = out / "models" / f"{parent}-{damage.replace(' ', '-').replace('%', 'percent')}"
            yield parent, damage, made if made.exists() else damaged(last, damage, made)
        yield parent, "a third of the training", models / parent / EARLIER


def said(found: Assessment) -> dict[str, Any]:
    """The p values of a card."""
    card, at_loss = found.card, found.at_loss
    return {
        "p": card and card.whole.p,
        "worst": card and card.whole.worst,
        "least_p": card and card.least_p,
        "p_beyond_losses": found.p_beyond_behaviour,
        "p_given_loss": at_loss and at_loss.rank.p,
        "worst_given_loss": at_loss and at_loss.rank.worst,
    }


def healthy(reference: Reference) -> Iterator[dict[str, Any]]:
    """Every model of the run beside all others."""
    for i, member in enumerate(reference.members):
        lines = [
            Line(
                at,
                spec.family,
                Value(of[i], None),
                None,
                None,
                spec.quantities[at.quantity].control,
            )
            for at, of in reference.values.items()
            if of[i] is not None and (spec := REGISTRY[at.invariant])
        ]
        found = assessed(
            lines, reference, n_params=member.n_params, weights={member.weights},
            tokenizer=None, tokens={},
        )  # fmt: skip
        yield {"model": member.model, "damage": "healthy", **said(found)}


def unhealthy(reference: Reference, models: Path, out: Path) -> Iterator[dict[str, Any]]:
    """Every damaged model beside the run without its parent, and beside its parent."""
    settings = replace(reference.settings, invariants={
        name: of for name, of in reference.settings.invariants.items() if name != LEFT_OUT
    })  # fmt: skip
    parents: dict[str, Any] = {}
    for parent, damage, folder in cases(models, out):
        rows = rows_of(folder, settings, out / f"{folder.parent.name}-{folder.name}.json")
        lines, _ = lines_of(rows)
        if damage == "none":
            parents[parent] = by_place(rows), {row["weights_digest"] for row in rows}
        theirs, digests = parents[parent]
        found = assessed(
            lines, reference, weights=digests | {row["weights_digest"] for row in rows},
            **rows[0]["facts"],
        )  # fmt: skip
        changed = changes(by_place(rows), theirs)
        yield {
            "model": parent, "damage": damage, **said(found), "paired": len(changed),
            "changed": sum(c.q <= LEVEL for c in changed),
            "surest": changed[0].name if changed else None,
        }  # fmt: skip


def main() -> None:
    """Measures what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("models", type=Path, help="folder of its models")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    reference = of_run(options.run)
    rows = [*unhealthy(reference, options.models, options.out), *healthy(reference)]
    frame = pd.DataFrame(rows)
    frame.to_parquet(options.out / "calibration.parquet", index=False)
    print(table(frame.to_dict("records")))


if __name__ == "__main__":
    main()
