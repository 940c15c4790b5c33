"""Arrow schemas of every table, and the codec between rows and tables, which is strict.

pyarrow drops unknown keys and fills missing ones with null, silently; here both raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

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

VALUES = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s quantity:s site:s depth_bin:s law:s comparison:s
        variant:s n_params:i model:s seed:i n_layers:i architecture:s step:i value:f stderr:f
        counted:b over_training:b reason:s""",
        _TYPES,
    )
)
"""What is judged: one row a replicate at a place (a role is the site of weights), with its value or
the reason why it does not count. comparison: beside which others it may be set (equal_steps: all
models of that step; step is null between two checkpoints). over_training: whether it counts beside
the other steps of its run, too; null where that is not asked."""
VERDICTS = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s quantity:s site:s depth_bin:s step:i comparison:s
        law:s control:b unit:f margin:f conservation_error:f certified_change:f verdict:s form:s
        exponent:f exponent_low:f exponent_high:f slope_p:f heterogeneity_p:f q:f I2:f
        lack_of_fit_p:f held_out_error:f naive_error:f estimator_share:f null_class:s rho:f
        seeds_needed:i n_models:i n_seeds:i n_refused:i reason:s""",
        _TYPES,
    )
)
PREDICTIONS = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s quantity:s site:s depth_bin:s step:i comparison:s
        model:s n_params:i form:s fitted_on:I predicted:f low:f high:f level:f observed:f
        observed_stderr:f error:f naive_last_error:f naive_mean_error:f covered:b""",
        _TYPES,
    )
)
TRANSITIONS = pa.schema(
    _fields(
        """series:s model:s seed:i probe:s family:s invariant:s quantity:s site:s depth_bin:s
        kind:s step:f step_low:f step_high:f slope_before:f slope_after:f p:f q:f n_asked:i
        by_chance:f reason:s""",
        _TYPES,
    )
)
STAGES = pa.schema(
    _fields(
        """series:s model:s seed:i step_low:f step_high:f spectrum:S spectrum_change:F behaviour:S
        behaviour_change:F n_events:i n_coincident:i expected:f p:f p_series:f reason:s""",
        _TYPES,
    )
)
"""When, what moved in the spectrum, what moved in behaviour; changes as transitions are judged."""
ORDERS = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s quantity:s site:s depth_bin:s n_runs:i n_sizes:i
        n_sigmoid:i n_power_law:i bic:f middle:f width:f slope:f slope_low:f slope_high:f p:f
        outcome:s reason:s""",
        _TYPES,
    )
)
"""Order of transitions; widths in ln(1 + step), slope d ln width / d ln n_params."""
MATCHES = pa.schema(
    _fields(
        """series:s model:s seed:i step:i variant:s probe:s site:s layer:i value:f stderr:f
        outcome:s names:S predicted:F probability:F no_match_probability:f coverage:f reason:s""",
        _TYPES,
    )
)
"""Learning coefficients beside the dictionary of known singularities."""
COLLAPSES = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s curve:s site:s depth_bin:s step:i variant:s S:f
        S_rescaled:f exponent_x:f exponent_x_low:f exponent_x_high:f exponent_y:f exponent_y_low:f
        exponent_y_high:f supercollapse:f n_models:i n_seeds:i reason:s""",
        _TYPES,
    )
)
CLASSES = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s site:s depth_bin:s step:i comparison:s n_params:i
        outcome:s class:i members:S exponents:S centre:F margins:F distance:f width:f apart:f p:f
        quality:f n_systems:i n_classes:i n_seeds:i reason:s""",
        _TYPES,
    )
)
"""Universality classes; comparison: sizes, the name of a null, or architectures."""
PAIRS = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s quantity:s site:s depth_bin:s step:i variant:s
        model_a:s model_b:s n_params_a:i n_params_b:i value:f stderr:f ceiling:f ceiling_low:f
        ceiling_high:f floor:f relative:f n_pairs:i reason:s""",
        _TYPES,
    )
)
CAPABILITIES = pa.schema(
    _fields(
        """model:s seed:i step:i tokens:i n_params:i task:s metric:s value:f stderr:f chance:f""",
        _TYPES,
    )
)
UNJOINED = pa.schema(
    _fields("""file:s model:s step:i tokens:i task:s metric:s value:f reason:s""", _TYPES)
)
"""Published evaluations that are of no checkpoint of the run, each with the reason."""
EMERGENCE = pa.schema(
    _fields(
        """series:s probe:s family:s invariant:s quantity:s site:s depth_bin:s task:s metric:s
        n_runs:i n_sizes:i correlation:f p:f q:f n_asked:i by_chance:f least_p:f
        p_given_loss:f lead:f lead_low:f lead_high:f
        spacing:f predicted:f predicted_low:f predicted_high:f observed:f naive_error:f outcome:s
        reason:s""",
        _TYPES,
    )
)
"""Onsets, leads and predictions in ln tokens."""
PLAN = pa.schema(
    _fields(
        """key:s capture_key:s unit:s unit_b:s series:s model:s n_params:i seed:i step:i variant:s
        probe:s kind:s invariant:s params:s bytes:i done:b tokenizer:s""",
        _TYPES,
    )
)
TOKENS = pa.schema(_fields("tokenizer:s probe:s bytes_per_token:f stderr:f", _TYPES))
"""Text that a predicted token covers; null where tokens stand for none. Of several tokenizers."""


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
    return pa.schema([f.with_type(of_texts) if f.name in texts else f for f in schema])


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
        table: any table.
        columns: those wanted, all by default.

    Returns:
        One dict a row.
    """
    chosen = table if columns is None else table.select(list(columns))
    return chosen.to_pylist(maps_as_pydicts="strict")
