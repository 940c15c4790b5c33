"""What a plan will cost: bytes, seconds of tasks and of devices, from shapes alone.

A measurement takes overhead + records x (floor + slope x work) x parameters. Work counts operations
of a record (`Kind.work`): the exponents of width and rows are those of the algorithms, floor and
slope were measured once at two sizes, and the exponent of every count among an invariant's
parameters by doubling it. These constants are data, `constants.yaml`, with the machine they were
measured on; `scripts/bench/cost_model.py --calibrate` measures them anew and checks them against a
finished run.
"""

from scaleinv_ray.cost_model.laws import (
    LARGE_BYTES,
    Calibration,
    Device,
    Law,
    calibration,
    law_seconds,
    matrices,
    matrix_work,
    parse,
    weight_seconds,
)
from scaleinv_ray.cost_model.prediction import (
    Captures,
    Cost,
    CostLine,
    cost_lines,
    load_seconds,
    pass_seconds,
    price,
    task_costs,
)

__all__ = [
    "LARGE_BYTES",
    "Calibration",
    "Captures",
    "Device",
    "Law",
    "CostLine",
    "Cost",
    "calibration",
    "law_seconds",
    "load_seconds",
    "matrices",
    "matrix_work",
    "parse",
    "pass_seconds",
    "price",
    "cost_lines",
    "task_costs",
    "weight_seconds",
]
