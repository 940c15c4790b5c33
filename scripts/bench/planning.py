"""Planning 10,000 units: 2,500 checkpoint folders of safetensors x 4 variants, six invariants.

Target: under 2 s on two cores, digests known. Prints the first call (which hashes every file), the
repeated ones, and as its last line one JSON object.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from scaleinv_ray.config import load_run_config
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import make_plan, plan_rows

RUNS, STEPS, REPEATS = 50, 50, 5
INVARIANTS = [
    "weights.weight_tail",
    "representation.covariance_decay",
    "renormalization.critical_exponents",
    "topology.persistence",
    "geometry.neighbour_dimension",
    "holomorphy.resolvent_counts",
]


def make_checkpoints(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    rng = np.random.default_rng(0)
    for run in range(RUNS):
        width = 32 + 16 * (run % 5)
        config = {
            "model_type": "gpt_neox", "hidden_size": width, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 4 * width, "vocab_size": 257,
            "max_position_embeddings": 128,
        }  # fmt: skip
        for step in range(STEPS):
            at = folder / f"d{width}-s{run}" / f"step-{step:06d}"
            at.mkdir(parents=True)
            if step == 0:
                tokenizer.save_pretrained(at)
            else:
                for file in (at.parent / "step-000000").glob("token*"):
                    (at / file.name).hardlink_to(file)
            (at / "config.json").write_text(json.dumps(config))
            training = {"step": step, "train_tokens": step * 2048, "eval_loss": 3.0, "seed": run}
            (at / "training.json").write_text(json.dumps(training))
            tensors = {
                f"gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight": rng.normal(size=(4 * width, width))
                for i in range(2)
            }
            save_file(
                {k: v.astype(np.float32) for k, v in tensors.items()}, at / "model.safetensors"
            )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        make_checkpoints(Path(name))
        config = load_run_config({
            "name": "planning",
            "models": [{"ladder": name, "steps": "all"}],
            "null_steps": "all",
            "protocol": {"sequences": 512, "length": 72, "stream_units": 128},
            "invariants": {n: {"num_points": 400} if "num_points" in n else {} for n in INVARIANTS}
            | {
                "topology.persistence": {"num_points": 100},
                "geometry.neighbour_dimension": {"num_points": 400, "num_subsamples": 2},
            },
        })
        time.sleep(2.1)  # files younger than the clock's grain are not remembered
        seconds = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            plan = make_plan(config)
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        rows = len(plan_rows(plan, set()))
        rows_s = time.perf_counter() - start
    first, again = seconds[0], statistics.median(seconds[1:])
    print(f"{len(plan.units)} units, {rows} measurements")
    print(f"first call (hashes every file) {first:.2f} s, again {again:.2f} s, rows {rows_s:.2f} s")
    print(json.dumps({
        "bench": "planning", "units": len(plan.units), "measurements": rows,
        "first_s": round(first, 3), "again_s": round(again, 3), "rows_s": round(rows_s, 3),
        "target_s": 2.0,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
