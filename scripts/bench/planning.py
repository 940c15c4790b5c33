"""Planning: checkpoint folders of safetensors x 4 variants, six invariants or two of pairs.

Each case runs in a process of its own, so that its peak of memory is its own. Digests are known but
for the first call, which hashes every file. Targets: 10,000 units under 2 s; 100,000 under 20 s and
1 GB. Prints a line a case and, as its last line, one JSON object.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _table import machine, record
from safetensors.numpy import save_file

from scaleinv_ray import tables
from scaleinv_ray.config import load_run_config
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import make_plan, plan_rows

STEPS, SIZES = 50, 5
CASES: dict[str, tuple[int, int, bool]] = {
    "10,000 units": (50, 5, False),
    "100,000 units": (500, 3, False),
    "100,000 units, two invariants of pairs": (500, 3, True),
}
"""Name -> runs, repeats, whether pairs are asked for."""
TARGETS = {"10,000 units": "<= 2 s", "100,000 units": "<= 20 s, 1 GB"}
INVARIANTS: dict[str, dict[str, int]] = {
    "weights.weight_tail": {},
    "representation.covariance_decay": {},
    "renormalization.critical_exponents": {},
    "topology.persistence": {"num_points": 100},
    "geometry.neighbour_dimension": {"num_points": 400, "num_subsamples": 2},
    "holomorphy.resolvent_counts": {},
}
OF_PAIRS: dict[str, dict[str, int]] = {
    "geometry.neighbour_overlap": {"num_points": 400},
    "topology.diagram_distance": {"num_points": 100},
}


def make_checkpoints(folder: Path, runs: int) -> None:
    tokenizer = byte_tokenizer()
    rng = np.random.default_rng(0)
    for run in range(runs):
        width = 8 + 4 * (run % SIZES)
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


def measure(runs: int, repeats: int, pairs: bool) -> dict[str, Any]:
    """Plans once with unknown digests and then with known ones; this process's peak of memory."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        make_checkpoints(Path(name) / "models", runs)
        config = load_run_config({
            "name": "planning",
            "models": [{"ladder": f"{name}/models", "steps": "all"}],
            "null_steps": "all",
            "protocol": {"sequences": 512, "length": 72, "stream_units": 32},
            "invariants": OF_PAIRS if pairs else INVARIANTS,
        })
        time.sleep(2.1)  # files younger than the clock's grain are not remembered
        planning, rows_s = [], []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            plan = make_plan(config)
            planning.append(time.perf_counter() - start)
            start = time.perf_counter()
            rows = tables.encode(plan_rows(plan, set()), tables.PLAN).num_rows
            rows_s.append(time.perf_counter() - start)
            units = len(plan.units)
            del plan  # two at a time would be the peak
        return {
            "units": units, "measurements": rows, "first_s": round(planning[0], 2),
            "again_s": round(statistics.median(planning[1:]), 2),
            "rows_s": round(statistics.median(rows_s), 2),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        }  # fmt: skip


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*CASES[sys.argv[1]])))
        return
    found = {}
    for case in CASES:
        ran = subprocess.run(
            [sys.executable, __file__, case], capture_output=True, text=True, check=True
        )
        found[case] = json.loads(ran.stdout.splitlines()[-1])
        print(f"{case}: {found[case]}")
    record("planning", [
        (
            f"{case} ({of['measurements']:,} measurements), digests known",
            TARGETS.get(case, "-"),
            f"{of['again_s']} s, its table {of['rows_s']} s more; hashing first {of['first_s']} s; "
            f"peak {of['peak_gb']} GB",
        )
        for case, of in found.items()
    ])  # fmt: skip
    print(json.dumps({"bench": "planning", "cases": found, "machine": machine()}))


if __name__ == "__main__":
    main()
