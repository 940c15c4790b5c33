"""Rows of measurements and curves for tests."""

from scaleinv_ray import tables

COMMON = {
    "series": "s", "variant": "trained", "probe": "prose", "protocol": "p", "site": "resid_post",
    "family": "f", "invariant": "f.i", "version": 1, "params": "{}", "step": 100, "seed": 0,
}  # fmt: skip


def measurement(**told):
    """A row of tables.MEASUREMENTS."""
    row = dict.fromkeys(tables.MEASUREMENTS.names) | COMMON
    return row | {"quantity": "q", "status": "ok", "value": 1.0} | told


def curve(x, y, **told):
    """A row of tables.CURVES."""
    row = dict.fromkeys(tables.CURVES.names) | COMMON | {"curve": "c"}
    return row | {"x": list(x), "y": list(y)} | told
