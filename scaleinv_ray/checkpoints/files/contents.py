"""What weight files hold, set against config.json: before anything starts, from headers alone.

One odd tensor costs that tensor; a checkpoint is refused where what is odd is essential: most of a
kind, as the embedding or what every block has.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from scaleinv_ray.checkpoints.files.header_format import DTYPES, TensorHeader
from scaleinv_ray.checkpoints.files.roles import CAPTURED, TensorRole, block_roles, tensor_role
from scaleinv_ray.checkpoints.files.sizes import Sizes
from scaleinv_ray.inputs.json_files import short

_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")
# DeepSeek's correction of its router's scores is a buffer of its class
_BUFFER = re.compile(
    r"(^|\.)(masked_bias|rotary_emb(eddings)?\.inv_freq|position_ids|e_score_correction_bias)$"
)
_NARROW = ("F8_", "F6_", "F4")
# narrow integers, which may stand for weights: 64 bits are indices, one is a mask
_INDICES = ("I64", "U64", "BOOL")
_PACKED = re.compile(r".*(weight|packed|qzeros|quant_map|absmax|SCB|_blocks|_scales)")
# what lies beside packed weights: GPTQ, AWQ, bitsandbytes, compressed-tensors, MXFP4, quanto, HQQ
_BESIDE = re.compile(r".*(scale|zero|absmax|quant|SCB|codebook|biases|\.meta|\._)")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_END = re.compile(r"emb|wte|head")
_STACK = re.compile(r".*(expert|moe\.|(in|out)put_linear\.).*(?<!bias)")


class Contents(NamedTuple):
    """What the files of a checkpoint hold.

    Attributes:
        parameters: the tensors that are weights, by name; those that config.json gives another
            shape in the shape that it gives them.
        odd: name -> why that tensor is left out of all measurements.
        broken: why no model of the class can be built of the files, None where nothing says so.
    """

    parameters: Mapping[str, TensorHeader]
    odd: Mapping[str, str]
    broken: str | None = None


def contents_of(
    where: str, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader]
) -> Contents:
    """Tells weights from buffers and from what cannot be measured.

    Args:
        where: the checkpoint, named in errors.
        tensors: headers by name.

    Returns:
        The parameters, and the odd tensors with the reason.

    Raises:
        ValueError: naming a tensor or a field: no floating point tensors; half of the tensors, or
            of a kind of them, quantised or empty; fewer than a quarter of the blocks that
            config.json counts, or twice as many; all tensors of a role in
            another shape than config.json says.
    """
    sizes = Sizes.of(where, config)
    kept = {n: t for n, t in tensors.items() if not _is_constant(sizes, n, t)}
    packed, whole = _packed(kept), {n for n, t in kept.items() if t.dtype in DTYPES}
    kept = {n: t for n, t in kept.items() if not _lies_beside(n, t, packed, whole)}
    _refuse_quantised(where, sizes, kept)
    odd = {n: f"dtype {t.dtype}" for n, t in kept.items() if t.dtype not in DTYPES}
    weights = {n: t for n, t in kept.items() if n not in odd}
    if not weights:
        raise ValueError(f"{where}: got no floating point tensors, allowed {sorted(DTYPES)}")
    empty = {n: t for n, t in weights.items() if 0 in t.shape}
    _refuse_empty(where, sizes, weights, empty)
    odd |= {n: f"an empty tensor of shape {t.shape}" for n, t in empty.items()}
    weights = {n: t for n, t in weights.items() if n not in empty}
    beyond = _beyond(where, sizes, weights)
    weights = {n: t for n, t in weights.items() if n not in beyond}
    absent = _missing_blocks(where, sizes, kept)
    absent |= _missing_roles(sizes, kept, tied=config.get("tie_word_embeddings") is not False)
    misfits = _misfits(where, sizes, weights)
    fit = {n: t for n, t in weights.items() if n not in misfits}
    odd |= misfits
    parameters = fit | _as_told(sizes, {n: kept[n] for n in odd}, fit)
    needed = {n: why for n, why in odd.items() if place_of(n, kept[n].dtype, sizes.model_type)}
    broken = next((f"{n}: {why}" for n, why in (absent | needed).items()), None)
    return Contents(parameters, odd | absent | beyond, broken)


def _is_constant(sizes: Sizes, name: str, tensor: TensorHeader) -> bool:
    """Whether it is a buffer; what the architecture knows as a matrix is none in any dtype."""
    known = tensor_role(name, sizes.model_type).role != "other"
    return not known and is_buffer(name, tensor.dtype, len(tensor.shape))


@lru_cache(maxsize=1 << 16)  # every step of a run has the same names
def is_buffer(name: str, dtype: str, ndim: int) -> bool:
    """Whether a stored tensor is a constant: causal masks, rotary frequencies, indices."""
    mask = ndim == 4 and _MASK.search(name)
    index = ndim < 2 and dtype not in DTYPES and not _PACKED.fullmatch(name)
    constant = dtype in _INDICES or (index and not dtype.startswith(_NARROW))
    return bool(mask or _BUFFER.search(name) or constant)


def in_block(name: str) -> bool:
    """Whether a tensor belongs to a numbered block."""
    return _BLOCK.search(name) is not None


def is_bias(name: str) -> bool:
    """Whether a tensor is a bias, of two dimensions too where it is that of stacked experts."""
    return name.endswith("bias")


def is_stack(name: str, ndim: int) -> bool:
    """Whether a tensor holds the matrices of all experts of a block, one after the other."""
    return ndim == 3 and _STACK.fullmatch(name) is not None


def place_of(name: str, dtype: str, model_type: str) -> TensorRole | None:
    """The role of a stored tensor, or of the weights for which it stands; None for an unknown one.

    Args:
        dtype: as stored, in the format's name.

    >>> place_of("model.layers.1.mlp.up_proj.qweight", "I32", "llama")
    TensorRole(role='mlp_in', layer=1, transposed=False, fused=None)
    """
    found = tensor_role(name, model_type)
    if found.role == "other" and dtype not in DTYPES:
        found = tensor_role(f"{_module(name)}.weight", model_type)
    return None if found.role == "other" else found


def _module(name: str) -> str:
    """What a packed tensor and its scales are of."""
    if name.endswith(("_blocks", "_scales")):
        name = name.rpartition("_")[0]
    else:
        name = name.rpartition(".")[0] or name
    return name.removesuffix(".weight")


def _packed(tensors: Mapping[str, TensorHeader]) -> dict[str, str]:
    """Module -> the tensor that holds its weights in a form that has to be unpacked."""
    found: dict[str, str] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            module = _module(name)
            held = tensors[found[module]] if module in found else None
            if held is None or math.prod(held.shape) < math.prod(tensor.shape):
                found[module] = name
    return found


def _lies_beside(
    name: str, tensor: TensorHeader, packed: Mapping[str, str], whole: Collection[str]
) -> bool:
    """Whether a tensor is a scale or an index of packed weights: no weights of its own."""
    main = packed.get(_module(name), name)
    if tensor.dtype not in DTYPES and f"{_module(name)}.weight" in whole:
        return True  # the mask of pruned weights, which are stored as they are
    if main == name or is_bias(name):
        return False
    return tensor.dtype not in DTYPES or _BESIDE.match(name[len(_module(name)) :]) is not None


def _refuse_quantised(where: str, sizes: Sizes, kept: Mapping[str, TensorHeader]) -> None:
    found = {n: t for n, t in kept.items() if t.dtype not in DTYPES}
    matrices = sum(len(t.shape) > 1 for t in kept.values())
    if found and (2 * len(found) >= matrices or _essential(sizes, found, kept)):
        name, first = next(iter(found.items()))
        raise ValueError(
            f"{where}: got quantised weights: {len(found)} tensors as {name} "
            f"({first.dtype} {short(list(first.shape))}), allowed: {', '.join(sorted(DTYPES))}"
        )


def _refuse_empty(
    where: str,
    sizes: Sizes,
    weights: Mapping[str, TensorHeader],
    empty: Mapping[str, TensorHeader],
) -> None:
    if 2 * len(empty) >= len(weights) or _essential(sizes, empty, weights):
        raise ValueError(
            f"{where}: {len(empty)} of {len(weights)} tensors are empty, as {next(iter(empty))}: "
            "the weights were not gathered before saving (DeepSpeed ZeRO-3, FSDP)"
        )


def _essential(
    sizes: Sizes, bad: Mapping[str, TensorHeader], tensors: Mapping[str, TensorHeader]
) -> bool:
    """Whether half of a role is bad, or of what has one name in the blocks of another class."""
    spoilt = Counter(_kind(sizes, n, t) for n, t in bad.items())
    of_kind = Counter(_kind(sizes, n, t) for n, t in tensors.items())
    known = sizes.model_type in CAPTURED
    if not known and any(_END.search(name) and not in_block(name) for name in bad):
        return True
    everywhere = max(2, sizes.n_layers)
    return any(
        "." not in kind if known else of_kind[kind] > count or count >= everywhere
        for kind, count in spoilt.items()
        if 2 * count >= of_kind[kind]
    )


def _kind(sizes: Sizes, name: str, tensor: TensorHeader) -> str:
    """Role, else the name without the numbers of blocks and experts."""
    at = place_of(name, tensor.dtype, sizes.model_type)
    if at is not None:
        return at.role
    called = name if tensor.dtype in DTYPES else f"{_module(name)}.weight"
    return re.sub(r"\.\d+(?=\.)", "", f"{called}.")


def _missing_blocks(where: str, sizes: Sizes, kept: Mapping[str, TensorHeader]) -> dict[str, str]:
    numbers = {int(m[1]) for m in map(_BLOCK.search, kept) if m}
    known = sizes.model_type in CAPTURED
    if not (numbers or known):
        return {}  # its blocks may have another name
    got = f"config.json counts {sizes.n_layers}, the files hold {len(numbers)}"
    if 4 * len(numbers) < sizes.n_layers:
        raise ValueError(f"{where}/config.json: n_layers: {got} blocks")
    if len(numbers) < sizes.n_layers:
        return {"blocks": got}
    first = min(set(range(sizes.n_layers)) - numbers, default=None) if known else None
    return {} if first is None else {"blocks": f"{got}, none of them block {first}"}


def _beyond(where: str, sizes: Sizes, weights: Mapping[str, TensorHeader]) -> dict[str, str]:
    """Tensors of blocks that a known architecture does not have: they are in no model."""
    if sizes.model_type not in CAPTURED:
        return {}
    numbers = {n: int(m[1]) for n in weights if (m := _BLOCK.search(n))}
    held = len(set(numbers.values()))
    if held >= 2 * sizes.n_layers:
        got = f"config.json counts {sizes.n_layers}, the files hold {held} blocks"
        raise ValueError(f"{where}/config.json: n_layers: {got}")
    why = f"config.json counts {sizes.n_layers} blocks"
    return {n: f"block {i}, {why}" for n, i in numbers.items() if i >= sizes.n_layers}


def _missing_roles(sizes: Sizes, kept: Mapping[str, TensorHeader], *, tied: bool) -> dict[str, str]:
    """Matrices that other blocks of a known architecture have, and its embeddings."""
    if sizes.model_type not in CAPTURED:
        return {}
    places = [place_of(n, t.dtype, sizes.model_type) for n, t in kept.items()]
    held = {(at.layer, at.role) for at in places if at and at.layer is not None}
    of_mlp = {"mlp_in", "mlp_gate", "mlp_out"} if not sizes.d_mlp else set()
    roles = sorted({role for _, role in held} | (block_roles(sizes.model_type) - of_mlp))
    layers = sorted({layer for layer, _ in held})
    wanted = ((layer, role) for layer in layers for role in roles)
    ends = ["embedding"] if tied else ["embedding", "unembedding"]
    absent = {role: "absent" for role in ends if role not in {at.role for at in places if at}}
    if not held:
        absent["blocks"] = f"no tensor has a name that {sizes.model_type} has, as {_first(kept)}"
    of_blocks = {f"{r} of block {i}": "absent" for i, r in wanted if (i, r) not in held}
    return absent | of_blocks


def _first(names: Iterable[str]) -> str:
    """One of the names of a block's tensors for a message, else any."""
    found = sorted(names, key=lambda name: (not in_block(name), name))
    return short(found[0]) if found else "none"


def _as_told(
    sizes: Sizes, odd: Mapping[str, TensorHeader], fit: Mapping[str, TensorHeader]
) -> dict[str, TensorHeader]:
    """Odd tensors in the shapes of parameters, as config.json or those of other blocks say."""
    alike = {_kind(sizes, n, t): t.shape for n, t in fit.items() if odd}
    found = {}
    for name, tensor in odd.items():
        at = place_of(name, tensor.dtype, sizes.model_type)
        wanted = sizes.shape(at.role) if at else None
        if at and wanted:
            found[name] = tensor._replace(shape=wanted[::-1] if at.transposed else wanted)
        elif _kind(sizes, name, tensor) in alike:
            found[name] = tensor._replace(shape=alike[_kind(sizes, name, tensor)])
        elif tensor.dtype in DTYPES or tensor.dtype.startswith("F8_"):
            found[name] = tensor
    return found


def _misfits(where: str, sizes: Sizes, weights: Mapping[str, TensorHeader]) -> dict[str, str]:
    """Matrices of a shape that config.json does not give their role."""
    _check_axes(where, sizes, weights)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    counts: dict[str, int] = defaultdict(int)
    for name, tensor in weights.items():
        role = tensor_role(name, sizes.model_type)
        counts[role.role] += 1
        wanted = sizes.shape(role.role)
        if wanted is None:
            continue
        wanted = wanted[::-1] if role.transposed else wanted
        if tensor.shape != wanted:
            found[role.role][name] = f"shape {tensor.shape}, config.json says {wanted} for its role"
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
