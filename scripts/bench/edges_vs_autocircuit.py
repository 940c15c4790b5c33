"""Estimates of all edges (EAP) beside auto-circuit: the same scores, and the time for them.

Target: equal scores to the rounding of float32 (1e-5 of the largest), in less time. The model is
that of circuits_vs_peers.py, eight sequences of 64 tokens, 1487 edges; auto-circuit runs its
copy (TransformerLens 2, whose logits are first held against the stock model's) in a process and an
environment of its own with our build of torch, on one thread; times are the best of the rounds,
which take turns.

    scripts/bench/edges_vs_autocircuit.py [--rounds 5]

Prints as its last line one JSON object.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from _peer import Peer, interpreter
from _table import machine, record
from circuits_vs_peers import COMMON, RUN, estimated, model_in, pairs_of, seconds

from scaleinv_ray.circuitry.effects.estimators import estimate
from scaleinv_ray.circuitry.effects.interventions import Experiment
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery

SEQUENCES = 8

SERVER = (
    COMMON
    + """
import transformer_lens
from transformer_lens.pretrained.weight_conversions import convert_neox_weights
from auto_circuit.data import PromptPairBatch
from auto_circuit.prune_algos.mask_gradient import mask_gradient_prune_scores
from auto_circuit.utils.graph_utils import patchable_model

c = hf.config
copy = transformer_lens.HookedTransformer(transformer_lens.HookedTransformerConfig(
    n_layers=L, d_model=c.hidden_size, n_ctx=c.max_position_embeddings, d_head=K, n_heads=H,
    d_mlp=c.intermediate_size, act_fn="gelu", d_vocab=c.vocab_size, eps=c.layer_norm_eps,
    positional_embedding_type="rotary", rotary_dim=K // 4, rotary_base=10000,
    rotary_adjacent_pairs=False, parallel_attn_mlp=True, normalization_type="LN", device="cpu",
    use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True))
hf.embed_out = hf.lm_head  # its name of old
copy.load_state_dict(convert_neox_weights(hf, copy.cfg), strict=False)
copy.eval().requires_grad_(False)
held = {k: torch.tensor(v) for k, v in np.load(sys.argv[2]).items()}
with torch.no_grad():
    off = (copy(held["A"]) - hf(held["A"], use_cache=False).logits).abs().max().item()
model = patchable_model(copy, factorized=True, slice_output="last_seq", separate_qkv=True)
batch = PromptPairBatch(key=0, batch_diverge_idx=0, clean=held["A"], corrupt=held["B"],
                        answers=held["a"][:, None], wrong_answers=held["b"][:, None])
for line in sys.stdin:
    took, found = timed(lambda: mask_gradient_prune_scores(
        model, [batch], None, "logit", "avg_diff", mask_val=0.0))
    readers = [row for l in range(L) for part in ("q_input", "k_input", "v_input", "mlp_in")
               for row in found[f"blocks.{l}.hook_{part}"].reshape(-1, 1 + (H + 1) * l).tolist()]
    readers.append(found[f"blocks.{L - 1}.hook_resid_post"].tolist())
    print(json.dumps([took, off, readers]), file=answer, flush=True)
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    pairs = pairs_of(SEQUENCES)
    python = interpreter(  # pyarrow: the last that takes numpy 1, as TransformerLens 2 wants
        "auto-circuit==1.0.1", "transformer-lens==2.16.1", "attrs", "pyarrow==20.0.0",
        f"torch=={torch.__version__}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_in(folder / "model")
        np.savez(folder / "pairs.npz", A=pairs.tokens_A_ST, B=pairs.tokens_B_ST,
                 a=pairs.answer_A_SP[:, 0], b=pairs.answer_B_SP[:, 0])  # fmt: skip
        (folder / "server.py").write_text(SERVER)
        peer = Peer(python, RUN, *(str(folder / n) for n in ("server.py", "model", "pairs.npz")))
        ours, theirs, forward = [], [], []
        tokens = torch.from_numpy(pairs.tokens_A_ST)
        for _ in range(rounds + 1):  # the first one warms up
            took, off, readers = peer.ask("")
            theirs.append(took)
            ours.append(estimated(model, pairs, "gradient")[0])
            with torch.no_grad():
                forward.append(seconds(lambda: model(tokens, use_cache=False)))
        peer.close()
    scores_WRS = estimate(Experiment(Surgery(Anatomy.of(model)), pairs), edges=True).edges_WRS
    assert scores_WRS is not None, "asked for"
    score_WR = scores_WRS.mean(axis=-1)
    difference = max(
        float(np.abs(score_WR[: len(row), r] + row).max())  # their loss is minus the metric
        for r, row in enumerate(np.array(row) for row in readers)
    )
    edges, largest = sum(len(row) for row in readers), float(np.abs(score_WR).max())
    best = [min(times[1:]) for times in (ours, theirs, forward)]
    record("edges_vs_autocircuit", [
        (f"EAP of {edges} edges, {SEQUENCES} sequences: auto-circuit's time over ours", "> 1",
         f"{best[1] / best[0]:.1f} (in forwards {best[1] / best[2]:.1f} and "
         f"{best[0] / best[2]:.1f})"),
        ("largest difference of scores, of the largest score", "1e-5",
         f"{difference / largest:.1e} (its model's logits differ by {off:.1e})"),
    ])  # fmt: skip
    found = {"ratio": best[1] / best[0], "difference": difference, "largest": largest}
    print(json.dumps({"bench": "edges_vs_autocircuit", **found, "machine": machine()}))


if __name__ == "__main__":
    main()
