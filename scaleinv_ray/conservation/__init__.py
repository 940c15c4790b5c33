"""Which invariants are conserved over model size: from measured rows to verdicts."""

from scaleinv_ray.conservation.classes import classes_table
from scaleinv_ray.conservation.curves import collapse_table, over_depth, over_training
from scaleinv_ray.conservation.emergence_table import Emergence, emergence_table
from scaleinv_ray.conservation.joining import (
    REPLACED,
    Joined,
    Seen,
    join_evaluations,
    join_notes,
)
from scaleinv_ray.conservation.judge import judge
from scaleinv_ray.conservation.nulls import NullClass, NullComparison, compare_with_null
from scaleinv_ray.conservation.order import order_table
from scaleinv_ray.conservation.pairs import ceiling_table
from scaleinv_ray.conservation.stages import stages_table
from scaleinv_ray.conservation.table import judge_table, predict_named
from scaleinv_ray.conservation.tokenizers import (
    Bytes,
    in_one_unit,
    say_tokenizers,
    several_tokenizers,
    tokenizer_notes,
)
from scaleinv_ray.conservation.transitions import Kind, transitions_table
from scaleinv_ray.conservation.universality import Agreement, universality_classes
from scaleinv_ray.conservation.verdict import Verdict, Verdicts

__all__ = [
    "REPLACED",
    "Agreement",
    "Bytes",
    "Emergence",
    "Joined",
    "Kind",
    "NullClass",
    "NullComparison",
    "Seen",
    "Verdict",
    "Verdicts",
    "ceiling_table",
    "classes_table",
    "collapse_table",
    "compare_with_null",
    "emergence_table",
    "in_one_unit",
    "join_evaluations",
    "join_notes",
    "judge",
    "judge_table",
    "order_table",
    "over_depth",
    "over_training",
    "predict_named",
    "say_tokenizers",
    "several_tokenizers",
    "stages_table",
    "tokenizer_notes",
    "transitions_table",
    "universality_classes",
]
