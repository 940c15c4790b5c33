"""Probe sets of token ids in a file: models without text, and data that was tokenized elsewhere.

Shape suffixes: N sequences of the file, S sequences wanted, T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.inputs.paths import check_plain, expanded
from scaleinv_ray.inputs.reading import reading
from scaleinv_ray.probes.parquet import column_of
from scaleinv_ray.probes.registry import ProbeRequest, ProbeSet
from scaleinv_ray.probes.text import enough


def token_file(name: str, file: str | Path, *, field: str = "input_ids") -> ProbeSet:
    """A probe set of the ids in a file: the first sequences of it, each cut at `length`.

    Ids are taken as they are: nothing is put before them, and no tokenizer is needed. Sequences
    shorter than `length` are left out.

    Args:
        file: `.npy` with integers [N, T], or `.parquet` with a column of lists of integers.

    Returns:
        The probe set; the file is read when tokens are built.
    """
    path = expanded(file)
    return ProbeSet(
        name=name,
        version=1,
        description=f"token ids in {path.name}",
        needs_corpus=False,
        function=partial(_tokens, path, field),
        layout="documents",
        of_ids=True,
    )


def shape_of(file: str | Path, *, field: str = "input_ids") -> tuple[int, int]:
    """Sequences of a file, and the length that all of them have.

    Args:
        file: as of `token_file`.
        field: as of `token_file`.

    Returns:
        Their number and the tokens of the shortest.

    Raises:
        ValueError: naming the file, where it holds no such sequences.
    """
    path = expanded(file)
    with reading(path):
        rows = _rows(path, field)
        if not len(rows):
            raise ValueError(f"{path}: got no sequences, allowed one or more")
        return len(rows), min(map(len, rows))


def _rows(file: Path, field: str) -> np.ndarray | list[np.ndarray]:
    check_plain("probes", file)
    ending = file.suffix.lower()
    if ending not in _READ:
        raise ValueError(f"probes: got {str(file)!r}, allowed: {', '.join(_READ)}")
    return _READ[ending](file, field)


def _tokens(file: Path, field: str, request: ProbeRequest) -> np.ndarray:
    with reading(file):
        rows = _rows(file, field)
        long = [n for n, row in enumerate(rows) if len(row) >= request.length]
        enough(request, len(long), len(rows), what=f"sequences in {file}")
        chosen = long[: request.sequences]
        text_ST = np.stack([rows[n][: request.length] for n in chosen])
        if text_ST.dtype == np.uint64:  # what is beyond int64 stays beyond any vocabulary
            text_ST = np.minimum(text_ST, np.uint64(2**63 - 1))
        return text_ST.astype(np.int64)


def _array(file: Path, _: str) -> np.ndarray:
    try:
        ids_NT = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ValueError(f"probes: got {str(file)!r}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise ValueError(f"probes: got {str(file)!r}, allowed .npy ({error!s:.60})") from error
    if not isinstance(ids_NT, np.ndarray):
        raise ValueError(f"probes: got {str(file)!r}, an archive, allowed one array")
    if ids_NT.ndim != 2 or ids_NT.dtype.kind not in "iu":
        raise ValueError(
            f"{file}: got {ids_NT.ndim}-d {ids_NT.dtype}, allowed integers [sequences, tokens]"
        )
    return ids_NT


def _lists(file: Path, field: str) -> list[np.ndarray]:
    import pyarrow as pa

    found = column_of(file, field).combine_chunks()
    kind = found.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)):
        raise ValueError(f"{file}: {field}: got {kind}, allowed lists of integers")
    if not pa.types.is_integer(kind.value_type):
        raise ValueError(f"{file}: {field}: got lists of {kind.value_type}, allowed of integers")
    if found.null_count or found.flatten().null_count:
        raise ValueError(f"{file}: {field}: got empty values, allowed integers alone")
    ids_M = found.flatten().to_numpy(zero_copy_only=False)
    size_N = pa.compute.list_value_length(found).to_numpy(zero_copy_only=False)
    return np.split(ids_M, np.cumsum(size_N)[:-1]) if len(size_N) else []


_READ: dict[str, Callable[[Path, str], Any]] = {".npy": _array, ".parquet": _lists}
