"""A 1.4B-parameter checkpoint on a small machine: weight spectra, and captures by streaming.

The checkpoint (GPT-NeoX, the shape of Pythia-1.4B, random weights, bfloat16 safetensors in shards)
is written once, tensor by tensor. Then, each several times and in a process of its own:

- the spectra of all weight matrices, tensor by tensor, without building the model;
- the capture of 32 sequences x 128 tokens at every layer, layer by layer.

The peak of a process is VmHWM as the kernel has it when the process ends: everything resident,
libraries and mapped files included. Target: at most 2.5 GB, and not above the largest layer, the
embedding and a batch buffer by more than 300 MB beyond what the imports alone take.

    python scripts/bench/large_checkpoint.py [--runs 3] [--dtype float32] [--layers 24]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SEQUENCES, LENGTH, BATCH = 32, 128, 8
WIDTH, MLP, HEADS, VOCABULARY = 2048, 8192, 16, 50304
SHARD_BYTES = 700e6
CACHE = Path.home() / ".cache" / "scaleinv_ray" / "bench"
KINDS = ("cloud", "depth_stack", "token_losses")


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, in the order of their shards."""
    yield "gpt_neox.embed_in.weight", (VOCABULARY, WIDTH)
    for layer in range(layers):
        at = f"gpt_neox.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{norm}.weight", (WIDTH,)
            yield f"{at}.{norm}.bias", (WIDTH,)
        for part, rows, columns in (
            ("attention.query_key_value", 3 * WIDTH, WIDTH),
            ("attention.dense", WIDTH, WIDTH),
            ("mlp.dense_h_to_4h", MLP, WIDTH),
            ("mlp.dense_4h_to_h", WIDTH, MLP),
        ):
            yield f"{at}.{part}.weight", (rows, columns)
            yield f"{at}.{part}.bias", (rows,)
    yield "gpt_neox.final_layer_norm.weight", (WIDTH,)
    yield "gpt_neox.final_layer_norm.bias", (WIDTH,)
    yield "embed_out.weight", (VOCABULARY, WIDTH)


def write_checkpoint(folder: Path, layers: int) -> None:
    """Writes the shards one after the other; one shard is in memory at a time."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    names: dict[str, str] = {}
    held: dict[str, torch.Tensor] = {}
    count = 0

    def flush() -> None:
        nonlocal count
        count += 1
        file = f"model-{count:05d}.safetensors"
        save_file(held, folder / file, metadata={"format": "pt"})
        names.update(dict.fromkeys(held, file))
        held.clear()

    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in shapes(layers):
        if len(shape) == 2:
            tensor = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        else:
            fill = float(name.endswith("norm.weight"))
            tensor = torch.full(shape, fill, dtype=torch.bfloat16)
        held[name] = tensor
        if sum(t.nbytes for t in held.values()) > SHARD_BYTES:
            flush()
    if held:
        flush()
    config = {
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox",
        "hidden_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "intermediate_size": MLP, "vocab_size": VOCABULARY, "max_position_embeddings": 2048,
        "rotary_pct": 0.25, "use_parallel_residual": True, "tie_word_embeddings": False,
        "dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    index = folder / "model.safetensors.index.json"  # last: with it the checkpoint is whole
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))


def status(field: str) -> float:
    """A field of this process's status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1e3


def task_weights(folder: Path, _dtype: str) -> dict[str, float]:
    """Eigenvalues of the smaller Gram matrix of every weight matrix."""
    import scipy.linalg

    from scaleinv_ray.checkpoints.weights.matrices import iter_weights

    base, start, count = status("VmRSS"), time.perf_counter(), 0
    for record in iter_weights(folder):
        w_OI = record.w_OI if record.w_OI.shape[0] >= record.w_OI.shape[1] else record.w_OI.T
        gram_II = w_OI.T @ w_OI
        values_I = scipy.linalg.eigvalsh(gram_II, overwrite_a=True, check_finite=False)
        assert values_I[-1] > 0
        count += 1
    return {"base_mb": base, "wall_s": time.perf_counter() - start, "matrices": count}


def task_capture(folder: Path, dtype: str) -> dict[str, float]:
    """Clouds, depth stack and losses, and the hidden states at every layer."""
    import numpy as np
    import torch

    from scaleinv_ray.capture.streaming.partial import StreamedModel
    from scaleinv_ray.capture.streaming.records import streamed_records
    from scaleinv_ray.checkpoints.weights.loading import LoadOptions
    from scaleinv_ray.records import Protocol
    from scaleinv_ray.store import write_records
    from scaleinv_ray.store.states import StateFiles

    protocol = Protocol(sequences=SEQUENCES, length=LENGTH, position=64)
    rng = np.random.default_rng(0)
    tokens_ST = rng.integers(VOCABULARY, size=(SEQUENCES, LENGTH), dtype=np.int32)
    base, start = status("VmRSS"), time.perf_counter()
    streamed = StreamedModel.open(folder, LoadOptions(dtype=getattr(torch, dtype)))
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        states = StateFiles(Path(name), keep=True)
        records = streamed_records(
            streamed, tokens_ST, protocol, states, kinds=frozenset(KINDS), batch_size=BATCH
        )
        written = sum(
            write_records(Path(name) / f"{kind}.arrow", found, kind=kind, facts={})
            for kind, found in records.items()
        )
        levels = sum(p.stat().st_size for p in Path(name).glob("level-*.arrow"))
    on_disk = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    return {
        "base_mb": base, "wall_s": time.perf_counter() - start, "written_mb": written / 1e6,
        "states_mb": levels / 1e6, "read_over_checkpoint": streamed.bytes_read / on_disk,
    }  # fmt: skip


def child(task: str, folder: Path, dtype: str) -> dict[str, float]:
    """Runs a task in a fresh process."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder), "--dtype", dtype]
    # freed blocks go back to the system: glibc would otherwise raise this threshold by itself
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--only", choices=["weights", "capture"])
    parser.add_argument("--task")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.task:
        task = {"weights": task_weights, "capture": task_capture}[given.task]
        result = task(given.folder, given.dtype)
        print(json.dumps(result | {"peak_mb": status("VmHWM")}))
        return
    folder = CACHE / f"neox-{given.layers}"
    if not (folder / "model.safetensors.index.json").is_file():
        write_checkpoint(folder, given.layers)
    params = sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 2
    report(given, folder, params)


def report(given: argparse.Namespace, folder: Path, params: float) -> None:
    from _table import machine, record

    width = {"float32": 4, "bfloat16": 2}[given.dtype]
    layer_mb = 12 * WIDTH**2 * width / 1e6
    embedding_mb = VOCABULARY * WIDTH * width / 1e6
    batch_mb = BATCH * LENGTH * WIDTH * width / 1e6
    figures: dict[str, object] = {"bench": "large_checkpoint", "params": params, **machine()}
    rows = []
    for task in ("weights", "capture"):
        if given.only not in {None, task}:
            continue
        runs = []
        for _ in range(given.runs):
            runs.append(child(task, folder, given.dtype))
            print(task, {k: round(v, 2) for k, v in runs[-1].items()}, flush=True)
        peak, wall = max(r["peak_mb"] for r in runs), min(r["wall_s"] for r in runs)
        figures[task] = runs
        rows.append((f"{task}: peak memory of a process", "<= 2500 MB", f"{peak:.0f} MB"))
        rows.append((f"{task}: seconds", "-", f"{wall:.0f}"))
        if task == "capture":
            beyond = peak - max(r["base_mb"] for r in runs) - layer_mb - embedding_mb - batch_mb
            rows.append((
                "capture: beyond imports, a layer, the embedding and a batch", "<= 300 MB",
                f"{beyond:.0f} MB",
            ))  # fmt: skip
            read = runs[0]["read_over_checkpoint"]
            rows.append(("capture: bytes read / checkpoint", "1.0", f"{read:.4f}"))
    if given.layers == 24 and given.only is None:
        record("large_checkpoint", rows)
    for what, target, found in rows:
        print(f"{what}: {found} (target {target})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
