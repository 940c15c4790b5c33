"""The header of a safetensors file, read strictly: it is JSON of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from scaleinv_ray.inputs.json_files import parse_json, short

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Dtypes of weights as the format names them -> as torch does."""
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class TensorHeader(NamedTuple):
    """What a safetensors header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def parse_header(data: bytes, num_bytes: int, where: str) -> dict[str, TensorHeader]:
    """The tensors that a header names.

    Args:
        data: the header, JSON.
        num_bytes: of the file after its header.
        where: the file, named in errors.

    Returns:
        dtype (as in the format: F32, BF16, ..) and shape of every tensor, by name.

    Raises:
        ValueError: where it is no such header, a tensor's bytes are not those of its shape, or
            tensors overlap, leave a hole, or end elsewhere than the file.
    """
    header = parse_json(data, f"{where}: not a safetensors file, its header")
    header.pop("__metadata__", None)
    spans = {name: _span(entry, f"{where}: tensor {short(name)}") for name, entry in header.items()}
    end = 0
    for name, (begin, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != end:
            how = "overlaps its neighbour" if begin < end else "leaves a hole before it"
            raise ValueError(
                f"{where}: tensor {short(name)}: data_offsets: got {begin}, allowed {end}: {how}"
            )
        end = stop
    if end != num_bytes:
        raise ValueError(
            f"{where}: got {num_bytes} bytes after its header, which says {end}: "
            "truncated or damaged"
        )
    return {name: TensorHeader(e["dtype"], tuple(e["shape"])) for name, e in header.items()}


def _span(entry: Any, where: str) -> tuple[int, int]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: got {short(entry)}, allowed dtype, shape and data_offsets")
    dtype, shape, offsets = (entry.get(k) for k in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        raise ValueError(f"{where}: dtype: got {short(dtype)}, allowed: its name")
    if not (isinstance(shape, list) and _wholes(shape)):
        raise ValueError(f"{where}: shape: got {short(shape)}, allowed: whole numbers from 0")
    pair = offsets if isinstance(offsets, list) and len(offsets) == 2 else [-1]
    if not (_wholes(pair) and pair == sorted(pair)):
        raise ValueError(f"{where}: data_offsets: got {short(offsets)}, allowed: begin, end")
    begin, end = pair
    needed = -(-math.prod(shape) * _BITS[dtype] // 8) if dtype in _BITS else end - begin
    if end - begin != needed:
        raise ValueError(
            f"{where}: got {end - begin} bytes, {dtype} of shape {short(shape)} has {short(needed)}"
        )
    return begin, end


def _wholes(values: list[Any]) -> bool:
    return all(type(v) is int and v >= 0 for v in values)
