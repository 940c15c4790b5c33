"""What weight files hold, set against config.json: before anything starts, from headers alone.

One odd tensor costs that tensor; a checkpoint is refused where what is odd is most of it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from scaleinv_ray.series.header_format import DTYPES, TensorHeader
from scaleinv_ray.series.json_files import short
from scaleinv_ray.series.roles import TensorRole, tensor_role
from scaleinv_ray.series.sizes import Sizes

_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")
_BUFFER = re.compile(r"(^|\.)(masked_bias|rotary_emb\.inv_freq|position_ids)$")
_NARROW = ("F8_", "F6_", "F4")
# integers that stand for weights: GPTQ, AWQ, bitsandbytes, compressed-tensors, MXFP4
_PACKED = re.compile(r".*(weight|packed|qzeros|quant_map|absmax|SCB|_blocks|_scales)")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_STACK = re.compile(r".*experts?\..*(?<!bias)")


class Contents(NamedTuple):
    """What the files of a checkpoint hold.

    Attributes:
        parameters: the tensors that are weights, by name.
        odd: name -> why that tensor is left out of all measurements.
    """

    parameters: Mapping[str, TensorHeader]
    odd: Mapping[str, str]


def contents_of(
    where: str, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader]
) -> Contents:
    """Tells weights from buffers and from what cannot be measured.

    Args:
        where: the checkpoint, named in errors.
        config: config.json.
        tensors: headers by name.

    Returns:
        The parameters, and the odd tensors with the reason.

    Raises:
        ValueError: naming a tensor or a field: quantised weights; no floating point tensors; most
            tensors empty; fewer than a quarter of the blocks that config.json counts; all tensors
            of a role in another shape than config.json says.
    """
    kept = {n: t for n, t in tensors.items() if not is_buffer(n, t.dtype, len(t.shape))}
    _refuse_quantised(where, kept)
    odd = {n: f"dtype {t.dtype}" for n, t in kept.items() if t.dtype not in DTYPES}
    weights = {n: t for n, t in kept.items() if n not in odd}
    if not weights:
        raise ValueError(f"{where}: got no floating point tensors, allowed {sorted(DTYPES)}")
    empty = {n: t for n, t in weights.items() if 0 in t.shape}
    _refuse_empty(where, weights, empty)
    weights = {n: t for n, t in weights.items() if n not in empty}
    sizes = Sizes.of(where, config)
    odd |= _missing_blocks(where, sizes, weights)
    misfits = _misfits(where, sizes, weights)
    odd |= {n: f"an empty tensor of shape {t.shape}" for n, t in empty.items()}
    return Contents(weights, odd | misfits)


@lru_cache(maxsize=1 << 16)  # every step of a run has the same names
def is_buffer(name: str, dtype: str, ndim: int) -> bool:
    """Whether a stored tensor is a constant: causal masks, rotary frequencies, indices."""
    mask = ndim == 4 and _MASK.search(name)
    index = ndim < 2 and dtype not in DTYPES and not _PACKED.fullmatch(name)
    return bool(mask or _BUFFER.search(name) or (index and not dtype.startswith(_NARROW)))


def in_block(name: str) -> bool:
    """Whether a tensor belongs to a numbered block."""
    return _BLOCK.search(name) is not None


def is_bias(name: str) -> bool:
    """Whether a tensor is a bias, of two dimensions too where it is that of stacked experts."""
    return name.endswith("bias")


def is_stack(name: str, ndim: int) -> bool:
    """Whether a tensor holds the matrices of all experts of a block, one after the other."""
    return ndim == 3 and _STACK.fullmatch(name) is not None


def _refuse_quantised(where: str, tensors: Mapping[str, TensorHeader]) -> None:
    packed = [n for n, t in tensors.items() if t.dtype not in DTYPES and _PACKED.fullmatch(n)]
    found = packed or [n for n, t in tensors.items() if t.dtype.startswith(_NARROW)]
    if found:
        first = tensors[found[0]]
        raise ValueError(
            f"{where}: got quantised weights: {len(found)} tensors as {found[0]} "
            f"({first.dtype} {short(list(first.shape))}), allowed: {', '.join(sorted(DTYPES))}"
        )


def _refuse_empty(
    where: str, weights: Mapping[str, TensorHeader], empty: Mapping[str, TensorHeader]
) -> None:
    if 2 * len(empty) >= len(weights):
        raise ValueError(
            f"{where}: {len(empty)} of {len(weights)} tensors are empty, as {next(iter(empty))}: "
            "the weights were not gathered before saving (DeepSpeed ZeRO-3, FSDP)"
        )


def _missing_blocks(
    where: str, sizes: Sizes, weights: Mapping[str, TensorHeader]
) -> dict[str, str]:
    numbers = {int(m[1]) for m in map(_BLOCK.search, weights) if m}
    if not numbers or len(numbers) >= sizes.n_layers:
        return {}
    got = f"config.json counts {sizes.n_layers}, the files hold {len(numbers)}"
    if 4 * len(numbers) < sizes.n_layers:
        raise ValueError(f"{where}/config.json: n_layers: {got} blocks")
    return {"blocks": got}


def _misfits(where: str, sizes: Sizes, weights: Mapping[str, TensorHeader]) -> dict[str, str]:
    """Matrices of a shape that config.json does not give their role."""
    _check_axes(where, sizes, weights)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    counts: dict[str, int] = defaultdict(int)
    for name, role, shape in _with_roles(sizes.model_type, weights):
        counts[role.role] += 1
        wanted = sizes.shape(role.role)
        if wanted is not None and shape != wanted:
            found[role.role][name] = f"shape {shape}, config.json says {wanted} for its role"
    for role_name, misfits in found.items():
        if len(misfits) == counts[role_name]:
            name, why = next(iter(misfits.items()))
            raise ValueError(f"{where}: {name}: got {why} ({role_name})")
    return {name: why for misfits in found.values() for name, why in misfits.items()}


def _check_axes(where: str, sizes: Sizes, weights: Mapping[str, TensorHeader]) -> None:
    """Every architecture has the width of its stream and its vocabulary somewhere."""
    axes = {length for t in weights.values() for length in t.shape}
    for field, value in (("d_model", sizes.d_model), ("vocab_size", sizes.vocab_size)):
        if max(axes) < value or (field == "d_model" and value not in axes):
            raise ValueError(f"{where}/config.json: {field}: got {value}, no tensor is so long")


def _with_roles(
    model_type: str, weights: Mapping[str, TensorHeader]
) -> Iterator[tuple[str, TensorRole, tuple[int, int]]]:
    for name, tensor in weights.items():
        role = tensor_role(name, model_type)
        if role.role == "other" or len(tensor.shape) < 2:
            continue
        shape = tensor.shape[0], math.prod(tensor.shape[1:])
        yield name, role, (shape[1], shape[0]) if role.transposed else shape
