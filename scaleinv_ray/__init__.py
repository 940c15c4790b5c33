"""Scale-invariant interpretability: invariants of transformers, measured over a series of sizes.

`run` analyses a series, `inspect` one model; every invariant is a plain function on records in
`invariants`.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaleinv_ray.circuitry.live import circuits
    from scaleinv_ray.inspection import inspect
    from scaleinv_ray.runs.analysis import run

__all__ = ["__version__", "circuits", "inspect", "run"]

try:
    __version__ = version("scaleinv-ray")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # imported when asked for: the pure layers must not load ray and torch
    if name == "run":
        from scaleinv_ray.runs.analysis import run

        return run
    if name == "inspect":
        from scaleinv_ray.inspection import inspect

        return inspect
    if name == "circuits":
        from scaleinv_ray.circuitry.live import circuits

        return circuits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(
        {*globals(), *__all__} - {"Any", "PackageNotFoundError", "TYPE_CHECKING", "version"}
    )
