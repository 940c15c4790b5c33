"""Arrow schemas of tables, and the codec between rows and tables, which is strict.

pyarrow drops unknown keys and fills missing ones with null, silently; here both raise. What is
measured and planned has its schema here; what is concluded has it from the class of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pyarrow as pa

BATCH = 20_000
"""Rows that are Python objects at a time: as such they take five times what a table takes."""


def _fields(text: str, types: Mapping[str, pa.DataType]) -> list[pa.Field]:
    pairs = [item.split(":") for item in text.split()]
    return [pa.field(name, types[kind]) for name, kind in pairs]


_TYPES: dict[str, pa.DataType] = {
    "s": pa.string(),
    "i": pa.int64(),
    "f": pa.float64(),
    "b": pa.bool_(),
    "F": pa.list_(pa.field("element", pa.float64())),
    "S": pa.list_(pa.field("element", pa.string())),
    "I": pa.list_(pa.field("element", pa.int64())),
    "M": pa.map_(pa.string(), pa.string()),
}

_UNIT = """run_id:s key:s unit:s unit_b:s series:s model:s architecture:s n_params:i n_layers:i
d_model:i seed:i step:i train_tokens:i eval_loss:f variant:s probe:s probe_tokens:i protocol:s"""
_PLACE = "layer:i depth:f role:s head:i site:s capture:s"
_WHAT = "family:s invariant:s version:i"

MEASUREMENTS = pa.schema(
    _fields(
        f"""{_UNIT} {_PLACE} {_WHAT} quantity:s law:s value:f stderr:f n:i error_kind:s samples:F
        params:s flags:M status:s error:s weights_digest:s wall_s:f code_version:s""",
        _TYPES,
    )
)
"""One row a number. A failure is a row with status and error, never a gap, NaN or -1."""

CURVES = pa.schema(_fields(f"{_UNIT} {_PLACE} {_WHAT} params:s curve:s x:F y:F y_stderr:F", _TYPES))
DIAGRAMS = pa.schema(
    _fields(f"{_UNIT} {_PLACE} {_WHAT} params:s diagram:s dimension:I birth:F death:F", _TYPES)
)

PLAN = pa.schema(
    _fields(
        """key:s capture_key:s unit:s unit_b:s series:s model:s n_params:i seed:i step:i variant:s
        probe:s kind:s invariant:s params:s bytes:i done:b tokens:s tokenizer:s""",
        _TYPES,
    )
)
TOKENS = pa.schema(_fields("tokenizer:s probe:s bytes_per_token:f stderr:f", _TYPES))
"""Text that a predicted token covers; null where tokens stand for none. Of several tokenizers."""
SANITY = pa.schema(
    _fields("model:s seed:i step:i probe:s loss:f unigram:f chance:f sequences:i", _TYPES)
)
"""What a trained model pays a token of a text before it is captured, and what frequencies pay."""

WORDS: Mapping[str, str] = {
    "series": "name of the series",
    "model": "name of the model",
    "seed": "seed of the run",
    "n_params": "parameters of the model",
    "step": "training step",
    "tokens": "training tokens",
    "variant": "trained, or which null",
    "probe": "text that the model was given",
    "family": "family of the invariant",
    "invariant": "the invariant",
    "quantity": "number that the invariant gives",
    "curve": "curve that the invariant gives",
    "site": "place in the model, or role of the weights",
    "layer": "layer",
    "depth_bin": "third of the depth, or all of it",
    "comparison": "what the models compared have in common",
    "task": "task of the capability",
    "metric": "score of the task",
    "value": "the value",
    "stderr": "standard error; none where it is not known",
    "p": "p value of the test",
    "q": "false discovery rate at which this is among the discoveries",
    "n_asked": "tests that q is counted over",
    "by_chance": "of these, how many would be called where nothing is there",
    "n_models": "sizes compared",
    "n_seeds": "seeds of the size with the fewest",
    "n_runs": "runs (models and seeds)",
    "n_sizes": "sizes of the runs",
    "outcome": "what is established",
    "reason": "in words, what decided or what is missing",
    "run_id": "call that made the row",
    "key": "digest of all that the number depends on: the measurement's name",
    "capture_key": "digest of all that the capture depends on",
    "unit": "model at a step in a variant",
    "unit_b": "second unit of a pair",
    "architecture": "class of models",
    "n_layers": "blocks of the model",
    "d_model": "width of the residual stream",
    "train_tokens": "tokens seen in training",
    "eval_loss": "loss on held-out text in nats a token, where the run says it",
    "probe_tokens": "tokens of the probe that were read",
    "protocol": "digest of the protocol",
    "depth": "relative depth: 0 before the first block, 1 after the last",
    "role": "what a weight does",
    "head": "attention head",
    "capture": "kind of the capture",
    "version": "of the invariant; raised whenever its numbers change",
    "law": "what was claimed in advance",
    "n": "replicates behind the error",
    "error_kind": "what the replicates are",
    "samples": "values of the replicates",
    "params": "parameters of the invariant, JSON",
    "flags": "what qualifies the value",
    "status": "ok, refused (it cannot honestly be had) or failed",
    "error": "why there is no value",
    "weights_digest": "digest of the weights",
    "wall_s": "seconds that the measurement took",
    "code_version": "of the package",
    "x": "where",
    "y": "what there",
    "y_stderr": "standard error of y",
    "diagram": "persistence diagram that the invariant gives",
    "dimension": "of the homology class of every bar",
    "birth": "scale at which every bar begins",
    "death": "scale at which it ends",
    "kind": "kind of capture",
    "bytes": "of the capture, at its first measurement",
    "done": "whether the measurement was there when the plan was made",
    "tokenizer": "digest of the tokenizer",
    "bytes_per_token": "bytes of text that a predicted token covers",
    "loss": "nats a token",
    "unigram": "loss of the frequencies of tokens alone, nats a token",
    "chance": "loss of a uniform guess, nats a token",
    "sequences": "that were read",
}
"""What a column of such a name says, in every table whose rows do not say it themselves."""
_ARROW: Mapping[Any, pa.DataType] = {
    str: _TYPES["s"],
    int: _TYPES["i"],
    float: _TYPES["f"],
    bool: _TYPES["b"],
    list[float]: _TYPES["F"],
    list[str]: _TYPES["S"],
    list[int]: _TYPES["I"],
}


def schema_of(row: type) -> pa.Schema:
    """The schema of a table from the class of its rows.

    Args:
        row: a TypedDict of texts, numbers and lists of them, any of them perhaps None. A column is
            `Annotated` with what it says, or named by one of `WORDS`.

    Returns:
        Its columns in order. The metadata say what a row is (`says`: the first paragraph of the
        docstring) and what each column says (`meaning`).

    Raises:
        ValueError: for a column of another type, and one that nothing says the meaning of.

    >>> from typing import TypedDict
    >>> class Row(TypedDict):
    ...     model: str
    ...     bits: Annotated[float | None, "information in it"]
    >>> [(f.name, str(f.type), meaning(f)) for f in schema_of(Row)]
    [('model', 'string', 'name of the model'), ('bits', 'double', 'information in it')]
    """
    hints = get_type_hints(row, include_extras=True)
    fields = [_field_of(row, name, hint) for name, hint in hints.items()]
    says = " ".join((row.__doc__ or "").split("\n\n")[0].split())
    return pa.schema(fields, metadata={"says": says})


def says(schema: pa.Schema) -> str:
    """What a row of a table is; empty where its schema does not say."""
    return (schema.metadata or {}).get(b"says", b"").decode()


def meaning(field: pa.Field) -> str:
    """What a column says, by its schema or else by its name."""
    said = (field.metadata or {}).get(b"meaning")
    return WORDS.get(field.name, field.name.replace("_", " ")) if said is None else said.decode()


def _field_of(row: type, name: str, hint: Any) -> pa.Field:
    is_said = get_origin(hint) is Annotated
    base, said = get_args(hint)[:2] if is_said else (hint, WORDS.get(name))
    kinds = {base} if get_origin(base) is list else set(get_args(base) or (base,)) - {NoneType}
    kind = kinds.pop()
    if kinds or kind not in _ARROW:
        allowed = "text, number, yes or no, or a list of texts or numbers"
        raise ValueError(f"{row.__name__}.{name}: got {base}, allowed {allowed}")
    if said is None:
        raise ValueError(f"{row.__name__}.{name}: got no meaning, allowed Annotated[type, meaning]")
    return pa.field(name, _ARROW[kind], metadata={"meaning": said})


def texts_of(schema: pa.Schema) -> list[str]:
    """Names of the columns of texts."""
    return [field.name for field in schema if field.type == pa.string()]


def shared(schema: pa.Schema) -> pa.Schema:
    """The schema with its texts as dictionaries: a text that many rows share is held once.

    Args:
        schema: one of the schemas of this module.

    Returns:
        A schema of the same names.
    """
    of_texts = pa.dictionary(pa.int32(), pa.string())
    texts = set(texts_of(schema))
    fields = [f.with_type(of_texts) if f.name in texts else f for f in schema]
    return pa.schema(fields, metadata=schema.metadata)


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema with dictionaries as what they hold, and the same metadata."""
    fields = [
        f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema
    ]
    return pa.schema(fields, metadata=schema.metadata)


def encode(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows to a table of exactly this schema.

    Args:
        rows: mappings whose keys are exactly the names of the schema.
        schema: one of the schemas of this module.

    Returns:
        A table with one row per mapping.

    Raises:
        ValueError: where a row has a key too many or too few.

    >>> encode([{"a": 1}], pa.schema([("a", pa.int64())])).num_rows
    1
    """
    at, parts = 0, [schema.empty_table()]
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        parts.append(_encoded(batch, schema, at))
        at += len(batch)
    return pa.concat_tables(parts).combine_chunks()


def _encoded(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, first: int) -> pa.Table:
    names = set(schema.names)
    for i, row in enumerate(rows, first):
        if set(row) != names:
            extra, missing = sorted(set(row) - names), sorted(names - set(row))
            raise ValueError(f"row {i}: unknown keys {extra}, missing keys {missing}")
    columns = [pa.array([row[f.name] for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def decode(table: pa.Table, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Table to rows (maps become dicts).

    Args:
        columns: those wanted, all by default.

    Returns:
        One dict a row.
    """
    chosen = table if columns is None else table.select(list(columns))
    return chosen.to_pylist(maps_as_pydicts="strict")
