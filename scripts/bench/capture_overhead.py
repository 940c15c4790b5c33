"""What capturing costs beside the bare forward pass of the same model on the same batches.

Rows, in random order, against the body alone: A/A (the body again), hooks that keep clouds, the
same to Arrow, for 8 x 128 and 1 x 8 tokens; write speed of Arrow against raw writes; memory that a
mapped read adds. Targets: to memory 1.05x at 8 x 128 and 1.10x at 1 x 8; to Arrow 1.10x; write
.8x raw; 0 MB anonymous read back. The last line is one JSON object.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers as tf
from _table import machine, record

from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.records import Activations, Protocol
from scaleinv_ray.store import read_records, write_records

ROUNDS = 15
KINDS = frozenset({"cloud"})


def model() -> tf.PreTrainedModel:
    """Six blocks of width 512: the shape of Pythia-70m."""
    torch.manual_seed(0)
    config = tf.GPTNeoXConfig(
        hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048,
        vocab_size=5000, max_position_embeddings=256,
    )  # fmt: skip
    return tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def ratios(rows: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median over rounds of time over that of 'bare' in the same round, in random order."""
    rng = np.random.default_rng(0)
    names = list(rows)
    for name in names:
        rows[name]()
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for i in rng.permutation(len(names)):
            start = time.perf_counter()
            rows[names[i]]()
            taken[names[i]].append(time.perf_counter() - start)
    bare = np.array(taken["bare"])
    return {n: float(np.median(np.array(t) / bare)) for n, t in taken.items() if n != "bare"}


def against_forward(net: tf.PreTrainedModel, folder: Path, batch: int, length: int) -> dict:
    """Ratios for one shape of batch; many small batches make a run as long as one large one."""
    batches = 1 if length > 64 else 40
    tokens_ST = np.random.default_rng(1).integers(5000, size=(batch * batches, length))
    protocol = Protocol(sequences=batch * batches, length=length, position=length // 2)

    def bare() -> None:
        with torch.inference_mode():
            for first in range(0, len(tokens_ST), batch):
                tokens_BT = torch.from_numpy(tokens_ST[first : first + batch])
                net.base_model(input_ids=tokens_BT, use_cache=False)

    def memory() -> list:
        found = forward_records(net, tokens_ST, protocol, kinds=KINDS, batch_size=batch)
        return found["cloud"]

    def arrow() -> None:
        write_records(folder / "cloud.arrow", memory(), kind="cloud", facts={})

    return ratios({"bare": bare, "again": bare, "memory": memory, "arrow": arrow})


def anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("RssAnon")).split()[1]) / 1e3


def storage(folder: Path) -> tuple[float, float]:
    """Speed of Arrow over raw writes, both synced; anonymous memory added by a mapped read."""
    x_TD = np.random.default_rng(0).normal(size=(65536, 512)).astype(np.float32)
    positions = np.zeros(len(x_TD), dtype=np.int32)
    cloud = Activations(
        x_TD=x_TD, sequence_T=np.arange(len(x_TD), dtype=np.int32), position_T=positions,
        sampling="cloud", layer=0, num_layers=1,
    )  # fmt: skip

    def raw() -> None:
        with (folder / "raw").open("wb") as stream:
            x_TD.tofile(stream)
            stream.flush()
            os.fsync(stream.fileno())

    def arrow() -> None:
        write_records(folder / "big.arrow", [cloud], kind="cloud", facts={})

    speed = 1 / ratios({"bare": raw, "arrow": arrow})["arrow"]
    before = anonymous_mb()
    (back,) = read_records(folder / "big.arrow")
    assert isinstance(back, Activations) and back.x_TD[-1, -1] == x_TD[-1, -1]
    return speed, anonymous_mb() - before


def main() -> None:
    torch.set_num_threads(1)
    net = model()
    with tempfile.TemporaryDirectory() as name:
        large = against_forward(net, Path(name), 8, 128)
        small = against_forward(net, Path(name), 1, 8)
        speed, added = storage(Path(name))
    record("capture_overhead", [
        ("A/A: the bare forward against itself, 8 x 128", "1", f"{large['again']:.3f}"),
        ("cloud to memory / bare forward, 8 x 128", "<= 1.05", f"{large['memory']:.3f}"),
        ("cloud to memory / bare forward, 1 x 8", "<= 1.10", f"{small['memory']:.3f}"),
        ("cloud to Arrow / bare forward, 8 x 128", "<= 1.10", f"{large['arrow']:.3f}"),
        ("Arrow write / raw write, both synced", ">= .8", f"{speed:.2f}"),
        ("anonymous memory of a mapped read", "0 MB", f"{added:.1f} MB"),
    ])  # fmt: skip
    figures = {"large": large, "small": small, "arrow_over_raw": speed, "read_mb": added}
    print(json.dumps({"bench": "capture_overhead", **figures, **machine()}))


if __name__ == "__main__":
    main()
