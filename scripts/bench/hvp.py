"""Hessian-vector products and Lanczos: cost in gradients, and against two peers.

GPT-2 of 2 x 64 and 4 x 128 (layers x width) with eager attention on one batch, one thread. A
gradient is a forward and a backward pass over all parameters. Products with four vectors share a
retained graph; Lanczos runs from four vectors side by side with full reorthogonalisation. Peers, in
environments of their own, on the same weights, tokens and vectors, in the order A B A B:
hessian-eigenthings 1.0.0a5 (double backward, graph rebuilt for every vector) and curvlinops 3.0.1
(jvp of jacrev, which torch 2.13 gets wrong through LayerNorm: its disagreement is shown). Targets:
a product in at most 2.3 gradients, Lanczos in at most 1.05 times its products. Prints the ratios
and, as its last line, one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch
from _table import machine, record
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.capture.curvature.lanczos import tridiagonal
from scaleinv_ray.capture.curvature.products import hessian_products, language_loss

CACHE = Path.home() / ".cache" / "scaleinv_ray" / "bench"
PEERS = {
    "hessian-eigenthings": ("hessian-eigenthings==1.0.0a5", "hessian_eigenthings"),
    "curvlinops": ("curvlinops-for-pytorch==3.0.1", "curvlinops"),
}
SIZES = {"2x64": (2, 64), "4x128": (4, 128)}
SHAPE = (8, 64)
VECTORS = 4
STEPS = 20
ROUNDS = 3
TARGETS = {"hvp": 2.3, "lanczos": 1.05}
LOOP = """
import json, sys, time, warnings
import numpy as np, torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
sys.modules["torchvision"] = None  # of another build than torch; nothing here needs it
from transformers import GPT2LMHeadModel
folder, peer, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
parameters = dict(model.named_parameters())
given = np.load(folder + "/given.npz")
tokens, vectors = torch.tensor(given["tokens"]), torch.tensor(given["vectors"])
if peer == "hessian-eigenthings":
    from hessian_eigenthings import HessianOperator, hf_lm_loss, lanczos_tridiagonal
    batch = {"input_ids": tokens, "labels": tokens, "use_cache": False}
    operator = HessianOperator(model, [batch], hf_lm_loss())
    products = lambda: torch.stack([operator.matvec(v) for v in vectors])
    lanczos = lambda: [
        lanczos_tridiagonal(operator, v, steps, reorthogonalize=True) for v in vectors
    ]
else:
    from curvlinops import HessianLinearOperator
    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
        def forward(self, x):
            return self.model(x, use_cache=False).logits[:, :-1].flatten(0, 1)
    net = Logits()
    operator = HessianLinearOperator(
        net, torch.nn.CrossEntropyLoss(), list(net.parameters()),
        [(tokens, tokens[:, 1:].flatten())], check_deterministic=False, num_data=len(tokens),
    )
    products = lambda: (operator @ vectors.T).T
    lanczos = None
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    what = json.loads(line)
    start = time.perf_counter()
    found = products() if what == "hvp" else lanczos()
    seconds = time.perf_counter() - start
    if what == "hvp":
        np.save(folder + "/" + peer + ".npy", found.detach().numpy())
    print(json.dumps({"seconds": seconds}), flush=True)
"""


def peer_python(name: str) -> Path:
    pinned, module = PEERS[name]
    folder = CACHE / f"{name}-{pinned.split('==')[1]}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    there = f"all(map(importlib.util.find_spec, ('transformers', 'torch', '{module}')))"
    ready = subprocess.run(
        [str(python), "-c", f"import importlib.util, sys; sys.exit(not {there})"], check=False
    )
    if ready.returncode:
        same = [f"{lib}=={version(lib).split('+')[0]}" for lib in ("torch", "transformers")]
        install = [str(python), "-m", "pip", "install", "--quiet", pinned, *same]
        subprocess.run(install, check=True)
    return python


class Peer:
    """A peer in its own interpreter, one measurement for each line."""

    def __init__(self, name: str, folder: Path) -> None:
        # a file: a pipe that nobody reads stops the peer when it is full
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(peer_python(name)), "-c", LOOP, str(folder), name, str(STEPS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
        )  # fmt: skip
        self._line()

    def _line(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.said.seek(0)
            last = self.said.read().strip().splitlines()[-1:]
            raise RuntimeError(last[0] if last else f"ended with status {status}")
        return json.loads(line)

    def seconds(self, what: str) -> float:
        """Time of 'hvp' (all vectors) or 'lanczos' (from all vectors)."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self._line()["seconds"]

    def close(self) -> None:
        """Ends the interpreter."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.said.close()


def model_of(layers: int, width: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_layer=layers, n_embd=width, n_head=width // 16, vocab_size=256, n_positions=SHAPE[1],
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).eval()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peers_of(folder: Path) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that can multiply, and why the others cannot."""
    peers, absent = {}, {}
    for name in PEERS:
        try:
            peer = Peer(name, folder)
            peer.seconds("hvp")  # and warms up
            peers[name] = peer
        except (subprocess.CalledProcessError, RuntimeError) as error:
            absent[name] = str(error)
    return peers, absent


def compare(name: str, folder: Path) -> dict[str, float]:
    model = model_of(*SIZES[name])
    model.save_pretrained(folder)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    dim = sum(p.numel() for p in parameters.values())
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, SHAPE, generator=generator)
    vectors = torch.randn(VECTORS, dim, generator=generator)
    np.savez(folder / "given.npz", tokens=tokens.numpy(), vectors=vectors.numpy())
    loss = language_loss(model)
    leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}
    products = hessian_products(loss, parameters, [tokens])
    mine = products(vectors)
    work: dict[str, Callable[[], object]] = {
        "gradient": lambda: [
            torch.autograd.grad(loss(leaves, tokens), [*leaves.values()]) for _ in range(VECTORS)
        ],
        "hvp": lambda: products(vectors),
        "floor": lambda: [products(vectors) for _ in range(STEPS)],
        "lanczos": lambda: tridiagonal(products, vectors, STEPS, keep_basis=True),
    }
    peers, absent = peers_of(folder)
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for what, run in work.items():
            seconds.setdefault(what, []).append(timed(run))
            for peer, process in peers.items():
                if what == "hvp" or (what, peer) == ("lanczos", "hessian-eigenthings"):
                    seconds.setdefault(f"{what} {peer}", []).append(process.seconds(what))
    found = {what: min(values) for what, values in seconds.items()} | {"parameters": dim}
    for peer, process in peers.items():
        process.close()
        theirs = torch.tensor(np.load(folder / f"{peer}.npy"))
        found[f"disagreement {peer}"] = float((theirs - mine).norm() / mine.norm())
    for peer, why in absent.items():
        print(f"{peer}: {why}")
    return found


def rows_of(name: str, found: dict[str, float]) -> list[tuple[str, str, str]]:
    rows = [
        (f"GPT-2 {name}: gradients a Hessian-vector product", f"<= {TARGETS['hvp']}",
         f"{found['hvp'] / found['gradient']:.2f}"),
        (f"GPT-2 {name}: Lanczos / its {STEPS} x {VECTORS} products", f"<= {TARGETS['lanczos']}",
         f"{found['lanczos'] / found['floor']:.3f}"),
    ]  # fmt: skip
    for peer, (pinned, _) in PEERS.items():
        if f"hvp {peer}" not in found:
            rows.append((f"GPT-2 {name}: {pinned}", "-", "cannot multiply (its error is printed)"))
            continue
        ratio, apart = found[f"hvp {peer}"] / found["hvp"], found[f"disagreement {peer}"]
        rows.append((
            f"GPT-2 {name}: product, times as fast as {pinned}", "-",
            f"{ratio:.2f} (products differ by {apart:.1e})",
        ))  # fmt: skip
    if "lanczos hessian-eigenthings" in found:
        ratio = found["lanczos hessian-eigenthings"] / found["lanczos"]
        what = f"GPT-2 {name}: Lanczos, times as fast as hessian-eigenthings"
        rows.append((what, "-", f"{ratio:.2f}"))
    return rows


def main() -> None:
    torch.set_num_threads(1)
    found, rows = {}, []
    for name in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = compare(name, Path(folder))
        rows += rows_of(name, found[name])
    for what, target, value in rows:
        print(f"{what}: {value} (target {target})")
    record("hvp", rows)
    print(json.dumps({
        "bench": "hvp", "batch": SHAPE, "vectors": VECTORS, "steps": STEPS, "targets": TARGETS,
        "seconds": {n: {k: float(f"{v:.4g}") for k, v in f.items()} for n, f in found.items()},
        "hvp_gradients": {n: round(f["hvp"] / f["gradient"], 3) for n, f in found.items()},
        "lanczos_over_hvp": {n: round(f["lanczos"] / f["floor"], 3) for n, f in found.items()},
        "machine": machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
