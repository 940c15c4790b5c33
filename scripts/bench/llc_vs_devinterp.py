"""Learning coefficients by SGLD, against devinterp 2.0.1 on the same nets at the same settings.

Targets: five times its chain-steps a second on nets of up to 5,000 parameters, a tenth of its wall
time to a standard error of 5 %, a tenth of its bytes a step; on a GPT-2 of two layers at most 1.10
times forward and backward alone. Deep linear nets whose coefficient is known, learnt from noisy
targets; the same nbeta, gamma, step, batch, number of chains and of steps for both. Times are of
the whole of `chain_records` (Lanczos and pilot included) and of `sample`, which writes its
losses as it goes, in an environment and interpreter of its own, on one thread. Errors are those of
the mean over chains; devinterp's mean is over all steps, ours after a burn-in of a quarter.

    scripts/bench/llc_vs_devinterp.py [--chains 32] [--steps 150] [--rounds 2]

Prints as its last line one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch; the peer inherits it
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from _peer import Peer, interpreter
from _table import machine, record
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.capture.posterior.chains import chain_records, language_losses
from scaleinv_ray.capture.posterior.loss import Posterior
from scaleinv_ray.capture.posterior.samplers import ChainRows, Length, run
from scaleinv_ray.records import Chains
from scaleinv_ray.singularities import deep_linear
from scaleinv_ray.store import write_records

sys.path.insert(0, str(Path(__file__).parents[2]))  # nets that tests share

from scripts.toy_models import Task, deep_linear_task

PEER = "devinterp==2.0.1"
NETS = (((8, 4, 8), 2), ((20, 5, 20), 5), ((48, 48, 48), 8))
NBETA, BATCH, SAMPLES, NOISE = 200.0, 32, 1024, 0.5
STABLE = 0.08
"""Step times nbeta h_max; h_max is 2 in these nets."""

SERVER = """
import json, sys, tempfile, time, warnings
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
answer, sys.stdout = sys.stdout, sys.stderr
from datasets import Dataset, disable_progress_bars
from devinterp.slt.llc import compute_llc
from devinterp.slt.sampling import sample
disable_progress_bars()

class Net(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(w) for w in weights])
    def forward(self, x):
        for w in self.weights:
            x = x @ w.T
        return x

def measured(file, **asked):
    held = np.load(file)
    x, y = torch.tensor(held["x"]), torch.tensor(held["y"])
    net = Net([torch.tensor(held[f"w{i}"]) for i in range(len(held.files) - 2)])
    def loss(model, input_ids):
        at = input_ids[:, 0]
        return (model(x[at]) - y[at]).square().sum(dim=1, keepdim=True) / 2
    rows = Dataset.from_dict({"input_ids": [[i, 0] for i in range(len(x))]}).with_format("torch")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "samples.zarr"
        start = time.perf_counter()
        tree = sample(
            net, rows, {}, loss_fn=loss, output_path=out, device="cpu", num_init_loss_batches=8,
            match_sampling_input_ids_across_chains=False, **asked,
        )
        took = time.perf_counter() - start
        found = compute_llc(tree)["llc_per_chain"].values
        size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    return took, found.tolist(), size

for line in sys.stdin:
    print(json.dumps(measured(**json.loads(line))), file=answer, flush=True)
"""


class Devinterp(Peer):
    """The peer in a process of its own, in an environment with our build of torch."""

    def __init__(self) -> None:
        super().__init__(interpreter(PEER, f"torch=={torch.__version__}"), SERVER)

    def __call__(self, file: Path, steps: int, chains: int) -> tuple[float, list[float], int]:
        """Seconds, estimate of every chain, and bytes stored."""
        asked = {
            "file": str(file), "lr": _step(), "n_beta": NBETA, "localization": _gamma(),
            "num_chains": chains, "num_draws": steps, "batch_size": BATCH,
        }  # fmt: skip
        took, found, size = self.ask(asked)
        return took, found, size


def _step() -> float:
    return STABLE / (NBETA * 2)


def _gamma() -> float:
    return 1e-3 * NBETA * 2


def ours(task: Task, steps: int, chains: int, seed: int) -> tuple[float, list[float], Chains]:
    """Seconds, estimate of every chain, and the record."""
    start = time.perf_counter()
    (made,) = chain_records(
        *task, generator=torch.Generator().manual_seed(seed), nbetas=[NBETA], gammas=[_gamma()],
        gamma_factors=[1.0], steps=[_step()], num_chains=chains, num_dispersed=0, num_steps=steps,
        burn_in=steps // 4, batch_size=BATCH,
    )  # fmt: skip
    excess_CS = made.loss_NCS[0].astype(float) - made.base_loss_NCS[0]
    found = NBETA * excess_CS[:, made.burn_in :].mean(axis=1)
    return time.perf_counter() - start, found.tolist(), made


def against_peer(peer: Devinterp, asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    figures = []
    for widths, rank in NETS:
        generator = torch.Generator().manual_seed(0)
        task = deep_linear_task(
            widths, rank, num_samples=SAMPLES, generator=generator, noise=NOISE, free=1.0
        )
        file = folder / f"{'-'.join(map(str, widths))}.npz"
        weights = {f"w{i}": w.numpy() for i, w in enumerate(task.parameters.values())}
        np.savez(file, x=task.data[0].numpy(), y=task.data[1].numpy(), **weights)
        exact = float(deep_linear(widths, rank).llc)
        ours(task, 10, 2, 0), peer(file, 10, 2)  # warm
        own, other = [], []
        for seed in range(asked.rounds):
            own.append(ours(task, asked.steps, asked.chains, seed))
            other.append(peer(file, asked.steps, asked.chains))
        seconds, seconds_peer = (min(o[0] for o in of) for of in (own, other))
        means, means_peer = (np.concatenate([o[1] for o in of]) for of in (own, other))
        stored = folder / "chains.arrow"
        write_records(stored, [own[0][2]], kind="chains", facts={})
        work = asked.steps * asked.chains
        # Seconds until the error of the mean over chains is 5 %: errors fall as 1 / sqrt(work).
        waits = [
            time_ * float(np.var(of, ddof=1)) / asked.chains / (0.05 * exact) ** 2
            for time_, of in ((seconds, means), (seconds_peer, means_peer))
        ]
        figures.append({
            "net": "-".join(map(str, widths)), "parameters": sum(w.size for w in weights.values()),
            "steps_per_second": round(work / seconds),
            "steps_per_second_devinterp": round(work / seconds_peer),
            "speed_ratio": round(seconds_peer / seconds, 2),
            "seconds_to_5_percent": round(waits[0], 4),
            "seconds_to_5_percent_devinterp": round(waits[1], 4),
            "wait_ratio": round(waits[1] / waits[0], 1),
            "bytes_per_step": round(stored.stat().st_size / work, 1),
            "bytes_per_step_devinterp": round(other[0][2] / work, 1),
            "exact": exact, "llc": round(float(np.mean(means)), 2),
            "llc_devinterp": round(float(np.mean(means_peer)), 2),
        })  # fmt: skip
        print(json.dumps(figures[-1]), flush=True)
    return figures


def over_floor(asked: argparse.Namespace) -> dict[str, float]:
    """SGLD steps of a GPT-2 of two layers of width 64, against forward and backward alone."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=64, n_head=4, vocab_size=512, n_positions=64, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    tokens_ST = torch.randint(512, (256, 64))
    losses = language_losses(model)
    named = {name: p.detach() for name, p in model.named_parameters()}
    posterior = Posterior(losses, named, tokens_ST, together=False)
    generator = torch.Generator().manual_seed(0)
    length = Length(asked.gpt_steps, 0, BATCH)

    def sampled() -> None:
        one = torch.ones(1, 1)
        x_RP = torch.zeros(1, posterior.dim)
        rows = ChainRows(x_RP, 100.0 * one, one, 1e-7 * one, torch.zeros(1, dtype=torch.long))
        run(posterior, rows, "sgld", length, generator=generator)

    def floor() -> None:
        parameters = dict(model.named_parameters())
        for _ in range(asked.gpt_steps + 1):  # as many gradients as draws and the start
            at = torch.randint(len(tokens_ST), (BATCH,), generator=generator)
            model.zero_grad(set_to_none=True)
            losses(parameters, tokens_ST[at]).mean().backward()

    pairs = [(_seconds(sampled), _seconds(floor)) for _ in range(asked.rounds + 1)][1:]
    best, least = (min(of) for of in zip(*pairs, strict=True))
    found = {
        "ms_per_step": round(1e3 * best / (asked.gpt_steps + 1), 2),
        "ms_floor": round(1e3 * least / (asked.gpt_steps + 1), 2),
        "over_floor": round(best / least, 3), "parameters": posterior.dim,
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    return found


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=32)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--gpt-steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    peer = Devinterp()
    with tempfile.TemporaryDirectory() as name:
        figures = against_peer(peer, asked, Path(name))
    peer.close()
    gpt = over_floor(asked)
    rows = []
    for f in figures:
        net = f"linear net {f['net']} ({f['parameters']} parameters)"
        rows += [
            (f"{net}: chain-steps/s over devinterp's", ">= 5", f"{f['speed_ratio']:.1f}"),
            (
                f"{net}: devinterp's seconds to 5 % / ours",
                ">= 10",
                f"{f['wait_ratio']:.0f}",
            ),
            (
                f"{net}: bytes a step over devinterp's",
                "<= 0.1",
                f"{f['bytes_per_step'] / f['bytes_per_step_devinterp']:.3f}",
            ),
            (
                f"{net}: lambda, ours, devinterp's, exact",
                "-",
                f"{f['llc']}, {f['llc_devinterp']}, {f['exact']}",
            ),
        ]
    rows.append((
        "GPT-2 2x64: SGLD step over forward and backward",
        "<= 1.10",
        str(gpt["over_floor"]),
    ))
    record("llc_vs_devinterp", rows)
    print(json.dumps({
        "bench": "llc_vs_devinterp", "chains": asked.chains, "steps": asked.steps, "nets": figures,
        "gpt2": gpt,
        "targets": {"speed": 5.0, "wait": 10.0, "bytes": 0.1, "over_floor": 1.10},
        "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
