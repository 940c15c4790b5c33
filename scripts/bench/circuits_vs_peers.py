"""Exact effects of all heads, and estimates of all edges, beside TransformerLens and nnsight.

Targets: all heads exactly in at most 1.2 times the theory, H (L + 1) / 2 forwards; three times
nnsight's speed and four times TransformerLens's with one sequence, 1.3 and 1.7 times with eight;
EAP in at most 6 forwards, EAP-IG in at most 6 a point; equal values to 1e-6. A GPT-NeoX of 4 layers
of 8 heads, width 128, 64 tokens, random weights; every head resampled from the corrupted run, the
metric is the logit difference at the last token. Every peer runs one head a forward, with its own
hooks, in a process and an environment of its own with our build of torch, on one thread; times are
the best of the rounds, which take turns.

    scripts/bench/circuits_vs_peers.py [--rounds 3]

Prints as its last line one JSON object.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch; the peers inherit it
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from _peer import Peer, interpreter
from _table import machine, record
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from scaleinv_ray.circuitry.effects.estimators import Method, estimate
from scaleinv_ray.circuitry.effects.interventions import Experiment
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.probes.corrupted import Pairs

LENGTH, LAYERS, HEADS, WIDTH, VOCABULARY = 64, 4, 8, 128, 257
TARGETS = {("nnsight", 1): 3.0, ("transformer_lens", 1): 4.0, ("nnsight", 8): 1.3,
           ("transformer_lens", 8): 1.7}  # fmt: skip

COMMON = """
import json, sys, time, warnings
import numpy as np, torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
answer, sys.stdout = sys.stdout, sys.stderr
from transformers import GPTNeoXForCausalLM
hf = GPTNeoXForCausalLM.from_pretrained(sys.argv[1]).eval()
L, H = hf.config.num_hidden_layers, hf.config.num_attention_heads
K = hf.config.hidden_size // H

def difference(logits, held):
    rows = torch.arange(len(logits))
    last = logits[:, -1]
    return last[rows, held["a"]] - last[rows, held["b"]]

def timed(work):
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found

def serve(effects):
    for line in sys.stdin:
        held = {k: torch.tensor(v) for k, v in np.load(json.loads(line)).items()}
        with torch.no_grad():
            forward, _ = timed(lambda: hf(held["A"], use_cache=False).logits)
            took, found = timed(lambda: effects(held))
            hf.double()  # whether both compute the same thing is not a question of rounding
            double = effects(held)
            hf.float()
        found = [torch.stack(f).tolist() for f in (found, double)]
        print(json.dumps([forward, took, *found]), file=answer, flush=True)
"""

LENS = (
    COMMON
    + """
from transformer_lens.model_bridge import TransformerBridge
bridge = TransformerBridge.boot_transformers(sys.argv[1], hf_model=hf, tokenizer=None)

def effects(held):
    names = [f"blocks.{l}.attn.hook_z" for l in range(L)]
    _, cache = bridge.run_with_cache(held["B"], names_filter=lambda name: name.endswith("hook_z")
                                     or name.endswith("o.hook_in"))
    found = [difference(bridge(held["A"]), held)]
    for l, name in enumerate(names):
        donor = cache[name].reshape(*held["A"].shape, H, K)
        for h in range(H):
            def patch(z, hook):
                z = z.clone()
                z.reshape(*held["A"].shape, H, K)[:, :, h] = donor[:, :, h]
                return z
            logits = bridge.run_with_hooks(held["A"], fwd_hooks=[(name, patch)])
            found.append(difference(logits, held))
    return [m - found[0] for m in found[1:]]

serve(effects)
"""
)

NNSIGHT = (
    COMMON
    + """
from nnsight import NNsight
model = NNsight(hf)

def effects(held):
    A, B = held["A"], held["B"]
    donors = []
    for l in range(L):
        with model.trace(B, use_cache=False):
            kept = model.gpt_neox.layers[l].attention.dense.input.clone().save()
        donors.append(kept)
    with model.trace(A, use_cache=False):
        logits = model.output.logits.save()
    base = difference(logits, held)
    found = []
    for l in range(L):
        for h in range(H):
            part = slice(h * K, (h + 1) * K)
            with model.trace(A, use_cache=False):
                model.gpt_neox.layers[l].attention.dense.input[:, :, part] = donors[l][:, :, part]
                logits = model.output.logits.save()
            found.append(difference(logits, held) - base)
    return found

serve(effects)
"""
)

PEERS = {
    "transformer_lens": ("transformer-lens==4.3.0", LENS),
    "nnsight": ("nnsight==0.8.1", NNSIGHT),
}
RUN = "import runpy, sys; file = sys.argv.pop(1); runpy.run_path(file, run_name='__main__')"
"""Nnsight reads the source of what it traces: its program has to be a file."""


def model_in(folder: Path) -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, vocab_size=VOCABULARY, max_position_embeddings=LENGTH,
        bos_token_id=0, eos_token_id=0, initializer_range=0.05,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


def pairs_of(sequences: int) -> Pairs:
    rng = np.random.default_rng(sequences)
    a, b = rng.integers(1, VOCABULARY, size=(2, sequences, LENGTH))
    answer_A, answer_B = np.arange(2 * sequences).reshape(2, sequences, 1) + 1
    return Pairs(a, b, np.full((sequences, 1), LENGTH - 1), answer_A, answer_B)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def exact(model: GPTNeoXForCausalLM, pairs: Pairs) -> tuple[float, np.ndarray, float]:
    """Seconds of everything (both runs too), effects [heads, S], and forwards by count."""
    start = time.perf_counter()
    surgery = Surgery(Anatomy.of(model))
    experiment = Experiment(surgery, pairs)
    chosen = surgery.anatomy.graph.of_kinds(("heads",))
    values = experiment.values(surgery.anatomy.graph.masks([[], *([c] for c in chosen)]))
    effect_NS = values[1:] - values[0]
    return time.perf_counter() - start, effect_NS, surgery.forwards(len(pairs.tokens_A_ST))


def estimated(model: GPTNeoXForCausalLM, pairs: Pairs, method: Method) -> tuple[float, int]:
    """Seconds of the scores of all edges with both runs made, and points."""
    experiment = Experiment(Surgery(Anatomy.of(model)), pairs)
    assert experiment.batches, "both runs"
    start = time.perf_counter()
    points = estimate(experiment, method=method, edges=True).points
    took = time.perf_counter() - start
    # ig tries 5 points, then 10, ..: all of them are paid for
    tried = 1 if method == "gradient" else sum(5 * 2**k for k in range(8) if 5 * 2**k <= points)
    return took, tried


def measured(
    model: GPTNeoXForCausalLM, peers: dict[str, Peer], sequences: int, rounds: int, folder: Path
) -> dict[str, Any]:
    pairs = pairs_of(sequences)
    file = folder / f"{sequences}.npz"
    np.savez(file, A=pairs.tokens_A_ST, B=pairs.tokens_B_ST, a=pairs.answer_A_SP[:, 0],
             b=pairs.answer_B_SP[:, 0])  # fmt: skip
    tokens = torch.from_numpy(pairs.tokens_A_ST)
    times: dict[str, list[float]] = {name: [] for name in ("forward", "ours", "eap", "ig", *peers)}
    differences: dict[str, list[float]] = {}
    effect_NS, forwards, points = np.empty(0), 0.0, 0
    double_NS = exact(model.double(), pairs)[1]
    model.float()
    for _ in range(rounds + 1):  # the first one warms up
        with torch.no_grad():
            times["forward"].append(seconds(lambda: model(tokens, use_cache=False)))
        took, effect_NS, forwards = exact(model, pairs)
        times["ours"].append(took)
        times["eap"].append(estimated(model, pairs, "gradient")[0])
        took, points = estimated(model, pairs, "ig")
        times["ig"].append(took)
        for name, peer in peers.items():
            _, took, single, double = peer.ask(str(file))
            times[name].append(took)
            differences[name] = [
                float(np.abs(np.array(theirs) - ours).max())
                for theirs, ours in ((single, effect_NS), (double, double_NS))
            ]
    best = {name: min(of[1:]) for name, of in times.items()}
    return {
        "sequences": sequences, "forwards": forwards, "points": points,
        "largest_effect": float(np.abs(effect_NS).max()),
        **{f"{name}_in_forwards": best[name] / best["forward"] for name in best},
        **{f"{name}_ratio": best[name] / best["ours"] for name in peers},
        **{f"{name}_difference": differences[name] for name in peers},
    }  # fmt: skip


def rows_of(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    s = found["sequences"]
    theory = HEADS * LAYERS * (LAYERS + 1) / (2 * LAYERS) + 2
    rows = [
        (f"{s} sequence(s): all {LAYERS * HEADS} heads exactly, in forwards",
         f"<= {1.2 * theory:.0f}",
         f"{found['ours_in_forwards']:.1f} (counted {found['forwards']:.1f})"),
        (f"{s}: EAP of all edges, in forwards", "<= 6", f"{found['eap_in_forwards']:.1f}"),
        (f"{s}: EAP-IG, in forwards a point", "<= 6",
         f"{found['ig_in_forwards'] / found['points']:.1f} ({found['points']} points)"),
    ]  # fmt: skip
    for name in PEERS:
        rows += [
            (f"{s}: {name}'s time over ours", f">= {TARGETS[name, s]}",
             f"{found[f'{name}_ratio']:.1f} (in forwards {found[f'{name}_in_forwards']:.1f})"),
            (f"{s}: largest difference from {name}, float32, float64", "1e-6",
             "{:.1e}, {:.1e} of effects up to {:.2g}".format(
                 *found[f"{name}_difference"], found["largest_effect"])),
        ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_in(folder / "model")
        peers = {}
        for peer, (requirement, program) in PEERS.items():
            (folder / f"{peer}.py").write_text(program)
            python = interpreter(requirement, f"torch=={torch.__version__}")
            peers[peer] = Peer(python, RUN, str(folder / f"{peer}.py"), str(folder / "model"))
        found = [measured(model, peers, s, asked.rounds, folder) for s in (1, 8)]
        for one in peers.values():
            one.close()
    record("circuits_vs_peers", [row for of in found for row in rows_of(of)])
    print(json.dumps({"bench": "circuits_vs_peers", "rounds": asked.rounds, "found": found,
                      "machine": machine()}))  # fmt: skip


if __name__ == "__main__":
    main()
