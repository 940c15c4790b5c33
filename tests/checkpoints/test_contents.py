"""Weight files judged by what they hold, and numbers of an architecture that nobody can have."""

import json
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scaleinv_ray.checkpoints import from_folder
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.weights import weight_tail

D, FF, V, LAYERS = 16, 24, 33, 3
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": D,
    "intermediate_size": FF, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": V, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
Stored = Callable[[str, torch.Tensor], dict[str, torch.Tensor]]
NAMES = {"q": (D, D), "k": (D // 2, D), "v": (D // 2, D), "o": (D, D)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "model"
    out.mkdir()
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, D)}
    shapes["lm_head.weight"] = (V, D)
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{k}_proj.weight": s for k, s in NAMES.items()}
        shapes |= {f"{at}mlp.{k}_proj.weight": (FF, D) for k in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (D, FF)
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
    save_file(tensors, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(CONFIG))
    return out


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    held = load_file(file) | {n.replace("__", "."): t for n, t in tensors.items()}
    save_file({n: t for n, t in held.items() if t is not None}, file)


UP = "model__layers__1__mlp__up_proj__weight"


def test_an_odd_tensor_costs_that_tensor_and_its_place_says_why(folder: Path) -> None:
    whole = list(iter_weights(folder))
    change(folder, **{UP: torch.zeros(FF, D + 1)})
    (found,) = from_folder(folder)
    assert len(found.odd) == 1
    assert "model.layers.1.mlp.up_proj.weight: shape (24, 17), config.json says" in found.odd[0]
    records = list(iter_weights(folder))
    assert len(records) == len(whole)
    (odd,) = [r for r in records if r.odd]
    assert (odd.layer, odd.role, odd.w_OI.size) == (1, "mlp_in", 0)
    with pytest.raises(Refused, match=r"model\.layers\.1\.mlp\.up_proj\.weight: shape"):
        weight_tail(odd, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "extra",
    [torch.zeros(0, D), torch.ones(4, 4, dtype=torch.int32), torch.ones(4, dtype=torch.int64)],
)
def test_what_the_architecture_does_not_know_is_left_out(folder: Path, extra: torch.Tensor) -> None:
    (whole,) = from_folder(folder)
    matrices = len(list(iter_weights(folder)))
    change(folder, model__layers__0__extra__table=extra)
    (found,) = from_folder(folder)
    assert found.n_params == whole.n_params
    assert len(found.odd) == (extra.ndim > 1)
    assert len(list(iter_weights(folder))) == matrices


def _rewrite(folder: Path, stored: Stored, chosen: str) -> None:
    """Stores the matrices whose names hold `chosen` in another way."""
    file = folder / "model.safetensors"
    out: dict[str, torch.Tensor] = {}
    for name, w in load_file(file).items():
        out |= stored(name.removesuffix(".weight"), w) if chosen in name else {name: w}
    save_file(out, file)


def _ints(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.ones(*shape, dtype=dtype)


QUANTISED: dict[str, Stored] = {
    "GPTQ": lambda m, w: {
        f"{m}.qweight": _ints(w.shape[1] // 8, len(w)), f"{m}.qzeros": _ints(1, len(w) // 8),
        f"{m}.scales": torch.ones(1, len(w)).half(), f"{m}.g_idx": _ints(w.shape[1]),
    },
    "bitsandbytes, 4 bit": lambda m, w: {
        f"{m}.weight": _ints(w.numel() // 2, 1, dtype=torch.uint8),
        f"{m}.weight.absmax": torch.ones(8), f"{m}.weight.quant_map": torch.ones(16),
        f"{m}.weight.quant_state.bitsandbytes__nf4": _ints(50, dtype=torch.uint8),
    },
    "bitsandbytes, 8 bit": lambda m, w: {
        f"{m}.weight": _ints(*w.shape, dtype=torch.int8), f"{m}.SCB": torch.ones(len(w)),
    },
    "compressed-tensors": lambda m, w: {
        f"{m}.weight_packed": _ints(len(w), w.shape[1] // 8),
        f"{m}.weight_scale": torch.ones(len(w), 2), f"{m}.weight_shape": torch.tensor(w.shape),
    },
    "FP8": lambda m, w: {f"{m}.weight": w.to(torch.float8_e5m2)},
    "FP8 by tensor": lambda m, w: {
        f"{m}.weight": w.to(torch.float8_e4m3fn), f"{m}.weight_scale": torch.ones(1),
        f"{m}.input_scale": torch.ones(1),
    },
    "FP8 by block": lambda m, w: {
        f"{m}.weight": w.to(torch.float8_e4m3fn), f"{m}.weight_scale_inv": torch.ones(2, 2),
    },
    "FP4": lambda m, w: {
        f"{m}.weight": _ints(len(w), w.shape[1] // 2, dtype=torch.uint8),
        f"{m}.weight_scale": torch.ones(len(w), 2).to(torch.float8_e4m3fn),
        f"{m}.weight_scale_2": torch.ones(1),
    },
    "MXFP4": lambda m, w: {
        f"{m}_blocks": _ints(len(w), 2, w.shape[1] // 4, dtype=torch.uint8),
        f"{m}_scales": torch.ones(len(w), 2).to(torch.float8_e8m0fnu),
    },
    "quanto": lambda m, w: {
        f"{m}.weight._data": _ints(*w.shape, dtype=torch.int8),
        f"{m}.weight._scale": torch.ones(len(w), 1),
    },
    "HQQ": lambda m, w: {
        f"{m}.W_q": _ints(len(w) // 2, w.shape[1], dtype=torch.uint8),
        f"{m}.scale": torch.ones(len(w), 1), f"{m}.zero": torch.ones(len(w), 1),
    },
    "MLX": lambda m, w: {
        f"{m}.weight": _ints(len(w), w.shape[1] // 8).to(torch.uint32),
        f"{m}.scales": torch.ones(len(w), 2), f"{m}.biases": torch.ones(len(w), 2),
    },
}  # fmt: skip


@pytest.mark.parametrize("scheme", QUANTISED)
@pytest.mark.parametrize("model_type", ["llama", "stablelm"])
def test_quantised_weights_are_known_by_their_dtypes(
    folder: Path, scheme: str, model_type: str
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": model_type}))
    _rewrite(folder, QUANTISED[scheme], "up_proj")
    with pytest.raises(ValueError, match=r"quantised weights: 3 tensors as model.*\.up_proj"):
        from_folder(folder)


@pytest.mark.parametrize("scheme", [*QUANTISED, "empty"])
@pytest.mark.parametrize("model_type", ["llama", "stablelm"])
def test_one_of_them_costs_itself_and_none_of_the_count(
    folder: Path, scheme: str, model_type: str
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": model_type}))
    (whole,) = from_folder(folder)
    matrices = list(iter_weights(folder))
    stored = QUANTISED.get(scheme, lambda m, w: {f"{m}.weight": torch.zeros(0)})
    _rewrite(folder, stored, "layers.1.mlp.up_proj")
    (found,) = from_folder(folder)
    assert found.n_params == whole.n_params
    assert len(found.odd) == 1 and "layers.1.mlp.up_proj" in found.odd[0]
    records = list(iter_weights(folder))
    (odd,) = [r for r in records if r.odd]
    assert odd.odd is not None and "layers.1.mlp.up_proj" in odd.odd
    known = model_type == "llama"
    assert (odd.layer, odd.role) == ((1, "mlp_in") if known else (None, "other"))
    assert (found.broken is not None) == known
    shapes = Counter(r.w_OI.shape for r in matrices)
    shapes.subtract(r.w_OI.shape for r in records if not r.odd)
    assert {shape for shape, count in shapes.items() if count} == {(FF, D)}


@pytest.mark.parametrize("model_type", ["llama", "stablelm"])
def test_a_model_without_its_embedding_is_refused(folder: Path, model_type: str) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": model_type}))
    _rewrite(folder, lambda m, w: {f"{m}.weight": torch.zeros(0, D)}, "embed_tokens")
    with pytest.raises(ValueError, match=r"1 of 23 tensors are empty, as model\.embed_tokens"):
        from_folder(folder)


def test_a_head_that_is_tied_and_another_matrix_is_said(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    (found,) = from_folder(folder)
    said = "lm_head.weight: another matrix than model.embed_tokens.weight, to which config.json"
    assert found.broken is not None and found.broken.startswith(said)
    assert found.odd == (found.broken,)
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change(folder, lm_head__weight=embedding.clone())
    (found,) = from_folder(folder)
    assert (found.odd, found.broken) == ((), None)


def test_what_is_absent_is_named(folder: Path) -> None:
    (whole,) = from_folder(folder)
    assert (whole.odd, whole.broken) == ((), None)
    change(folder, **{UP: None})
    (found,) = from_folder(folder)
    assert found.odd == (found.broken,) == ("mlp_in of block 1: absent",)
    change(folder, lm_head__weight=None)
    assert from_folder(folder)[0].broken == "unembedding: absent"


def test_blocks_that_the_model_has_not_are_no_part_of_it(folder: Path) -> None:
    told = CONFIG | {"num_hidden_layers": 2}
    (whole,) = from_folder(folder)
    (folder / "config.json").write_text(json.dumps(told))
    (found,) = from_folder(folder)
    assert found.n_params == whole.n_params - _block_size()
    assert len(found.odd) == 7 and "block 2, config.json counts 2 blocks" in found.odd[0]
    records = list(iter_weights(folder))
    assert {r.layer for r in records} == {None, 0, 1} and not any(r.odd for r in records)
    (folder / "config.json").write_text(json.dumps(told | {"num_hidden_layers": 1}))
    with pytest.raises(ValueError, match="n_layers: config.json counts 1, the files hold 3"):
        from_folder(folder)


def test_a_block_that_the_files_lack_is_named_whatever_others_they_have(folder: Path) -> None:
    file = folder / "model.safetensors"
    held = load_file(file)
    save_file({n.replace("layers.0.", "layers.7."): t for n, t in held.items()}, file)
    (found,) = from_folder(folder)
    assert found.broken == "blocks: config.json counts 3, the files hold 3, none of them block 0"
    assert found.broken in found.odd
    save_file({n: t for n, t in held.items() if "layers" not in n}, file)
    with pytest.raises(ValueError, match="n_layers: config.json counts 3, the files hold 0 blocks"):
        from_folder(folder)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (torch.ones(FF * D), r"up_proj\.weight: shape \(384,\), config\.json says \(24, 16\)"),
        (torch.ones(FF, D, 1), r"up_proj\.weight: shape \(24, 16, 1\), config\.json says"),
        (torch.ones(2, FF, D), r"up_proj\.weight: shape \(2, 24, 16\), config\.json says"),
        (torch.ones(FF, D, dtype=torch.int64), r"up_proj\.weight: dtype I64"),
        (torch.ones(FF, D, dtype=torch.bool), r"up_proj\.weight: dtype BOOL"),
    ],
)
def test_what_stands_in_the_place_of_a_matrix_and_is_none_is_named(
    folder: Path, stored: torch.Tensor, said: str
) -> None:
    (whole,) = from_folder(folder)
    change(folder, **{UP: stored})
    (found,) = from_folder(folder)
    assert found.n_params == whole.n_params
    assert len(found.odd) == 1 and re.search(said, found.odd[0])
    assert found.broken == found.odd[0]
    (odd,) = [r for r in iter_weights(folder) if r.odd]
    assert (odd.layer, odd.role, odd.w_OI.size) == (1, "mlp_in", 0)


def test_the_mask_of_pruned_weights_takes_no_place(folder: Path) -> None:
    (whole,) = from_folder(folder)
    mask = torch.ones(FF, D, dtype=torch.uint8)
    change(folder, **{f"{UP}_mask": mask})
    (found,) = from_folder(folder)
    assert (found.n_params, found.odd, found.broken) == (whole.n_params, (), None)


def test_names_of_another_wrapper_are_said(folder: Path) -> None:
    file = folder / "model.safetensors"
    held = load_file(file)
    save_file({f"module.{n}": t for n, t in held.items()}, file)
    (found,) = from_folder(folder)
    said = "blocks: no tensor has a name that llama has, as 'module.model.layers.0."
    assert found.broken and any(odd.startswith(said) for odd in found.odd)
    renamed = {n.replace("q_proj", "q_proj.base_layer"): t for n, t in held.items()}
    save_file(renamed, file)
    (found,) = from_folder(folder)
    assert found.odd == tuple(f"query of block {i}: absent" for i in range(LAYERS))


def _block_size() -> int:
    return sum(a * b for a, b in NAMES.values()) + 3 * FF * D


def test_shards_that_were_never_gathered_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({n: torch.zeros(0) for n in load_file(file)}, file)
    with pytest.raises(ValueError, match="23 of 23 tensors are empty, as .*ZeRO-3"):
        from_folder(folder)


@pytest.mark.parametrize(
    "module", ["mlp.experts.gate_up_proj", "block_sparse_moe.input_linear.weight", "mlp.moe.w1"]
)
def test_experts_are_measured_one_by_one_and_their_biases_are_none(
    folder: Path, module: str
) -> None:
    matrices = len(list(iter_weights(folder)))
    stack = torch.arange(5.0)[:, None, None] + torch.randn(5, 6, D)
    at = f"model.layers.0.{module}".replace(".", "__")
    change(folder, **{at: stack, f"{at}_bias": torch.randn(5, 6)})
    (found,) = from_folder(folder)
    assert found.odd == ()
    records = list(iter_weights(folder))
    experts = [r.w_OI for r in records if r.w_OI.shape == (6, D)]
    assert len(experts) == 5 == len(records) - matrices
    np.testing.assert_array_equal(np.stack(experts), stack.numpy())


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_hidden_layers", -1, "num_hidden_layers: got -1"),
        ("num_hidden_layers", 10**9, "n_layers: config.json counts 1000000000"),
        ("num_hidden_layers", 2.5, "num_hidden_layers: got 2.5"),
        ("hidden_size", "sixteen", "hidden_size: got 'sixteen'"),
        ("hidden_size", 64, "d_model: got 64, no tensor is so long"),
        ("hidden_size", True, "hidden_size: got True"),
        ("vocab_size", 10**12, "vocab_size: got 1000000000000, no tensor is so long"),
        ("vocab_size", [33], r"vocab_size: got \[33\]"),
        ("vocab_size", 30, "config.json says .30, 16. for its role"),
        ("intermediate_size", 25, "config.json says .* for its role"),
        ("num_key_value_heads", 2, "config.json says .16, 16. for its role"),
        ("num_attention_heads", 0, "num_attention_heads: got 0"),
        ("max_position_embeddings", {}, "max_position_embeddings: got {}"),
        ("model_type", ["llama"], "model_type: got"),
        ("tie_word_embeddings", "no", "tie_word_embeddings: got 'no', allowed: true, false"),
    ],
)
def test_numbers_of_an_architecture_are_those_of_its_tensors(
    folder: Path, field: str, value: Any, said: str
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {field: value}))
    with pytest.raises(ValueError, match=said) as caught:
        from_folder(folder)
    assert len(str(caught.value)) < 300 + len(str(folder))


def _with_header(folder: Path, header: Any, size: int = 64) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


GOOD = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ([1, 2], "got a list"),
        ({"w": None}, "tensor 'w': got None"),
        ({"w": [1]}, "tensor 'w': got"),
        ({"w": GOOD | {"shape": "4x4"}}, "shape: got '4x4'"),
        ({"w": GOOD | {"shape": [4, -4]}}, r"shape: got \[4, -4\]"),
        ({"w": GOOD | {"shape": [4.0, 4]}}, "shape: got"),
        ({"w": GOOD | {"shape": [10**12, 10**12]}}, "got 64 bytes, F32 of shape"),
        ({"w": GOOD | {"dtype": 32}}, "dtype: got 32"),
        ({"w": GOOD | {"data_offsets": ["0", "64"]}}, "data_offsets: got"),
        ({"w": GOOD | {"data_offsets": [64, 0]}}, "data_offsets: got"),
        ({"v": GOOD, "w": GOOD}, "overlaps its neighbour"),
        ({"w": GOOD | {"data_offsets": [64, 128]}}, "leaves a hole"),
        (b"[" * 30_000 + b"]" * 30_000, "nested too deeply"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_header_of_another_shape_is_said_in_one_line(
    folder: Path, header: Any, said: str
) -> None:
    _with_header(folder, header)
    with pytest.raises(ValueError, match=said) as caught:
        from_folder(folder)
    assert "model.safetensors" in str(caught.value) and "\n" not in str(caught.value)
