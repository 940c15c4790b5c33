"""All that runs otherwise on a GPU, once: run by `scripts/gpu-check`, and by the tests.

A check takes a `Place` and gives its `Finding`s; what has no verdict (a speed) has `ok` None.
Differences are the largest over the entries of an array, over the largest entry of it on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

import scaleinv_ray.invariants  # noqa: F401 - all of them have to load on such a machine
from scaleinv_ray.capture.by_kind.moments import BlockSums
from scaleinv_ray.capture.posterior.chains import chain_records
from scaleinv_ray.capture.session import Session, Source
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.kinds import KINDS, of_tokens
from scaleinv_ray.ladder.spec import OptimizerSpec, TrainSpec, rungs
from scaleinv_ray.ladder.train import train_run
from scaleinv_ray.protocols import CurvatureProtocol, SamplingProtocol, Spectroscopy
from scaleinv_ray.records import Record
from scripts.tiny_models import CAUSAL, PROTOCOL, tiny_tokens, write_tiny
from scripts.toy_models import quadratic_task

FLOAT32, CURVATURE, BFLOAT16, TRAINED = 2e-3, 1e-2, 5e-2, 1e-3
"""Largest differences: of captures, of Ritz values, of captures in bfloat16, of losses in nats."""
FORWARD = frozenset(name for name in of_tokens() - {"masked_losses"} if KINDS[name].section is None)
OPERATORS = frozenset({"hessian", "ggn"})
SHORT = Spectroscopy(
    CurvatureProtocol(sequences=8, num_steps=4, num_probes=2, sketch=64),
    SamplingProtocol(sequences=8, batch=4, chains=4, draws=6, burn_in=2, nbetas=(30.0,)),
)
FAILURES = (
    RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, OSError,
)  # fmt: skip
"""What a device may answer with; one check that fails does not keep the others from running."""


@dataclass(frozen=True)
class Place:
    """Where the checks run.

    Attributes:
        device: as torch names it.
        tiny: sizes that a CPU passes in seconds.
        folder: for models.
    """

    device: str
    tiny: bool
    folder: Path

    @property
    def is_gpu(self) -> bool:
        """Whether it is a CUDA device."""
        return torch.device(self.device).type == "cuda"

    def model(self, name: str) -> Path:
        """Folder of a tiny model."""
        folder = self.folder / name
        return folder if folder.exists() else write_tiny(name, folder)

    def seconds(self, work: Callable[[], object], *, repeats: int = 5) -> float:
        """Of one call, the least of several, with what the device still does."""
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            if self.is_gpu:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return min(taken)


@dataclass(frozen=True)
class Finding:
    """A line of the table."""

    what: str
    found: str
    expected: str
    ok: bool | None


Check = Callable[[Place], Iterator[Finding]]


def within(what: str, found: float, most: float, unit: str = "") -> Finding:
    """A finding that is not to exceed a number; what is no number does."""
    return Finding(what, f"{found:.2g}{unit}", f"<= {most:g}{unit}", bool(found <= most))


def captured(
    folder: Path, options: LoadOptions, kinds: frozenset[str]
) -> Mapping[str, Sequence[Record]]:
    """The records of a tiny model."""
    session = Session.open(Source(folder, options=options))
    asked = {"kinds": kinds, "batch_size": 64, "spectroscopy": SHORT}
    return session.records(tiny_tokens(), PROTOCOL, labels={"probe": "random"}, **asked)


def difference(ours: Sequence[Record], theirs: Sequence[Record]) -> float:
    """Largest difference of two captures of one kind."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        for name in type(a).arrays:
            x, y = getattr(a, name), getattr(b, name)
            if x is not None:
                scale = float(np.abs(x).max(initial=0.0)) or 1.0
                worst = max(worst, float(np.abs(x - y).max(initial=0.0)) / scale)
    return worst


def options_for(name: str, **asked: Any) -> LoadOptions:
    """With the attention that the architecture has."""
    return LoadOptions(**asked)


def forward_differences(
    place: Place, name: str, device_map: Any, kinds: frozenset[str] = FORWARD
) -> dict[str, float]:
    """Kind -> largest difference between the CPU and a device map."""
    folder = place.model(name)
    cpu = captured(folder, options_for(name), kinds)
    there = captured(folder, options_for(name, device_map=device_map), kinds)
    return {kind: difference(cpu[kind], there[kind]) for kind in sorted(kinds)}


def captures(place: Place) -> Iterator[Finding]:
    """Every kind of capture of every architecture against the CPU."""
    names = ("gpt2", "llama") if place.tiny else CAUSAL
    of = {name: forward_differences(place, name, place.device) for name in names}
    for kind in sorted(FORWARD):
        worst = max(names, key=lambda name: of[name][kind])
        what = f"{kind}: difference to the CPU, {len(names)} architectures, {worst}"
        yield within(what, of[worst][kind], FLOAT32)


def curvature(place: Place) -> Iterator[Finding]:
    """Ritz values and sketches of Hessian and GGN: gradients of gradients."""
    for name in ("llama",) if place.tiny else ("llama", "gpt2", "neox_parallel"):
        for kind, found in forward_differences(place, name, place.device, OPERATORS).items():
            yield within(f"{kind} of {name}: difference to the CPU", found, CURVATURE)


def memory(place: Place) -> Iterator[Finding]:
    """Records keep nothing on the device."""
    if not place.is_gpu:
        return
    held = []
    for _ in range(2):  # the first call leaves what the libraries keep for themselves
        captured(place.model("llama"), options_for("llama", device_map=place.device), FORWARD)
        held.append(torch.cuda.memory_allocated() / 2**20)
    yield within("memory that a capture leaves on the device", held[1] - held[0], 1.0, " MiB")


def chains(place: Place) -> Iterator[Finding]:
    """A known learning coefficient, chains of a language model, and what a batch of them costs."""
    dim, draws = 10, 600 if place.tiny else 3000
    task = quadratic_task(
        torch.ones(dim, device=place.device), num_samples=64, spread=0.1,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip

    def sampled(num_chains: int, num_steps: int) -> Any:
        return next(chain_records(
            *task, generator=torch.Generator().manual_seed(0), nbetas=[100.0], gamma_factors=[1.0],
            num_chains=num_chains, num_steps=num_steps, burn_in=num_steps // 4,
        ))  # fmt: skip

    found = sampled(32, draws)
    excess_CS = found.nbeta_N[0] * (found.loss_NCS - found.base_loss_NCS)[0, :, draws // 4 :]
    share = excess_CS.mean() / (dim / 2)
    yield within("learning coefficient of a quadratic, off d / 2 by", abs(share - 1), 0.05)
    asked = {"device_map": place.device}
    (record,) = captured(
        place.model("llama"), options_for("llama", **asked), frozenset({"chains"})
    )["chains"]
    finite = bool(np.isfinite(record.loss_NCS).all() and record.restored)
    said = "finite, restored"
    yield Finding("chains of a language model: losses and weights", said if finite else "neither",
                  said, finite)  # fmt: skip
    one, many = (place.seconds(lambda n=n: sampled(n, 100), repeats=2) for n in (1, 64))
    yield Finding("64 chains at once, over one", f"{many / one:.1f} x the time", "<= 4 x", None)


def moments(place: Place) -> Iterator[Finding]:
    """Accumulated second moments: exact to rounding, and their speed beside the bare product."""
    for width in (64,) if place.tiny else (256, 1024, 4096):
        batches, generator = 8, torch.Generator().manual_seed(0)
        x_STD = (torch.randn(batches * 8, 128, width, generator=generator) + 1).to(place.device)
        parts = x_STD.split(8)

        def accumulated(parts: Sequence[torch.Tensor] = parts) -> np.ndarray:
            sums = BlockSums(8 * len(parts), 1)
            for i, part in enumerate(parts):
                sums.add(part, 8 * i)
            return sums.moments()[2][0]

        def product(parts: Sequence[torch.Tensor] = parts) -> None:
            for part in parts:
                rows = part.reshape(-1, part.shape[-1])
                _ = rows.T @ rows

        rows_ND = x_STD.reshape(-1, width).double()
        exact_DD = (rows_ND.T @ rows_ND / len(rows_ND)).cpu().numpy()
        error = float(np.abs(accumulated() - exact_DD).max() / np.abs(exact_DD).max())
        yield within(f"second moments of width {width}, error", error, 1e-5)
        share = place.seconds(product) / place.seconds(accumulated)
        yield Finding(f"width {width}: of the speed of the product", f"{share:.0%}", ">= 70%", None)


def device_maps(place: Place) -> Iterator[Finding]:
    """Every way of placing a model gives the same clouds; offloaded ones have no gradients."""
    cloud = frozenset({"cloud"})
    maps: list[Any] = ["auto", {"": place.device}]
    if torch.cuda.device_count() > 1 and place.is_gpu:
        maps.append("balanced")
        model = load_model(place.model("llama"), LoadOptions(device_map="balanced"))
        used = {p.device.index for p in model.parameters()}
        all_of_them = {*range(torch.cuda.device_count())}
        yield Finding("'balanced' uses devices", str(used), str(all_of_them), used == all_of_them)
    for device_map in maps:
        (found,) = forward_differences(place, "llama", device_map, cloud).values()
        yield within(f"device_map {device_map!r}: difference to the CPU", found, FLOAT32)
    # with room for a part of the model: the rest is offloaded to the CPU, or from there to disk
    room: dict[int | str, int] = {0: 50_000, "cpu": 10**9} if place.is_gpu else {"cpu": 50_000}
    options = options_for("llama", device_map="auto", max_memory=room)
    folder = place.model("llama")
    plain = captured(folder, options_for("llama"), cloud)["cloud"]
    found = difference(plain, captured(folder, options, cloud)["cloud"])
    yield within("offloaded: difference to the CPU", found, FLOAT32)
    try:
        captured(folder, options, frozenset({"jacobians"}))
        said = "captured"
    except ValueError as error:
        said = "refused" if "offload" in str(error) or "one device" in str(error) else str(error)
    yield Finding("Jacobians of an offloaded model", said, "refused", said == "refused")


def bfloat16(place: Place) -> Iterator[Finding]:
    """Captures in bfloat16, curvature of such weights, and the speed of its products."""
    name, folder = "llama", place.folder / "llama_bf16"
    load_model(place.model(name), LoadOptions(dtype=torch.bfloat16)).save_pretrained(folder)
    kinds = frozenset({"cloud", "depth_stack", "moments", "token_losses"})
    cpu, there = (
        captured(folder, options_for(name, device_map=where), kinds | {"ggn"})
        for where in (None, place.device)
    )
    for kind in sorted(kinds):
        found = difference(cpu[kind], there[kind])
        yield within(f"{kind} in bfloat16: difference to the CPU", found, BFLOAT16)
    found = difference(cpu["ggn"], there["ggn"])
    yield within("ggn of bfloat16 weights (in float32): difference", found, CURVATURE)
    size = 256 if place.tiny else 8192
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(size, size, device=place.device, dtype=dtype)
        rate = 2e-12 * size**3 / place.seconds(lambda x=x: x @ x)
        yield Finding(f"product of {size} x {size}, {dtype}", f"{rate:.3g} TFLOP/s", "-", None)


def training(place: Place) -> Iterator[Finding]:
    """A ladder's run on the device against the CPU, one that was stopped, one in bfloat16."""
    text = place.folder / "text" / "words.txt"
    text.parent.mkdir(exist_ok=True)
    text.write_text("\n".join(f"The word of line {i} is {'abcd'[i % 4] * 3}." for i in range(4000)))
    spec = TrainSpec(
        name="check", architecture="gpt2", widths=(32,), depth=2, corpus=(str(text),), batch=4,
        length=32, steps=12, checkpoints=(0, 6, 12), optimizer=OptimizerSpec(warmup=2),
    )  # fmt: skip
    low = replace(spec, dtype="bfloat16")
    (rung,) = rungs(spec)

    def losses(where: str, of: TrainSpec, device: str, **more: Any) -> np.ndarray:
        seen: list[float] = []
        out = place.folder / where
        train_run(of, rung, out, device=device, on_step=lambda _, x: seen.append(x), **more)
        return np.array(seen)

    cpu, there = losses("cpu", spec, "cpu"), losses("there", spec, place.device)
    yield within("losses of 12 steps: difference to the CPU, nats", _largest(cpu - there), TRAINED)
    ends = iter([False] * 3 + [True])
    first = losses("stopped", spec, place.device, stop=lambda: next(ends))
    again = np.concatenate([first, losses("stopped", spec, place.device)])
    yield within(f"stopped after {len(first)} and gone on: difference", _largest(there - again),
                 TRAINED)  # fmt: skip
    lower = losses("low", low, place.device)
    yield within("losses in bfloat16: difference, nats", _largest(cpu - lower), BFLOAT16)


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x).max())


CHECKS: tuple[Check, ...] = (
    captures, curvature, chains, moments, device_maps, bfloat16, training, memory
)  # fmt: skip


def findings(place: Place, checks: Sequence[Check] = CHECKS) -> Iterator[Finding]:
    """Those of all checks; one that breaks off is a finding too."""
    for check in checks:
        start = time.perf_counter()
        try:
            yield from check(place)
        except FAILURES as error:
            traceback.print_exc()
            said = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            yield Finding(f"{check.__name__} broke off", said, "runs", False)
        took = f"{time.perf_counter() - start:.1f} s"
        yield Finding(f"time of {check.__name__}", took, "-", None)


def machine(place: Place) -> dict[str, str]:
    """What the numbers belong to."""
    name = torch.cuda.get_device_name(place.device) if place.is_gpu else "CPU"
    count = torch.cuda.device_count() if place.is_gpu else 0
    return {"device": name, "gpus": str(count), "torch": torch.__version__,
            "cuda": str(torch.version.cuda), "tiny": str(place.tiny)}  # fmt: skip


def main() -> None:
    """Prints the table; exit status 1 where something is not as expected, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="rehearse on the CPU")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    if not options.cpu and not torch.cuda.is_available():
        parser.error("got no CUDA device that torch sees; allowed: --cpu, to rehearse")
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        place = Place("cpu" if options.cpu else "cuda:0", options.tiny, Path(folder))
        facts, found = machine(place), []
        print(", ".join(f"{k} {v}" for k, v in facts.items()))
        print(f"{'ok':4}{'found':>18}  {'expected':18}what")
        for one in findings(place):
            said = {True: "yes", False: "NO", None: "-"}[one.ok]
            print(f"{said:4}{one.found:>18}  {one.expected:18}{one.what}", flush=True)
            found.append(one)
    wrong = [one.what for one in found if one.ok is False]
    if options.json:
        content = {"machine": facts, "findings": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    judged = sum(one.ok is not None for one in found)
    print(f"{judged - len(wrong)} of {judged} as expected" + "".join(f"\nnot: {w}" for w in wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
