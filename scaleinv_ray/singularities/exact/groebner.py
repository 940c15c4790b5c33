"""Dimensions of jet schemes of any ideal by Groebner bases, with Singular and a time limit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.exact.polynomial import Polynomial

_PRIME = 32003
"""Characteristic: dimensions are those over the complex numbers for all but a few primes."""


def jet_dimensions(ideal: Sequence[Polynomial], max_m: int, *, seconds: float) -> tuple[int, ...]:
    """Complex dimensions of J_0 .. J_max_m of any ideal, degenerate ones too.

    lct = N - sup of dim J_m / (m + 1) (Mustata 2002); a finite m gives an upper bound. The cost
    explodes with m: within seconds a cusp goes to m = 5, a linear network 2-2-2 at zero to m = 2.

    Args:
        ideal: generators in the same variables; for a model the differences p_j(w) - p_j(w0).
        max_m: largest order of jets, >= 0.
        seconds: time limit of the whole.

    Returns:
        The dimensions; -1 where there is no jet.

    Raises:
        ValueError: without generators, with differing variables, or max_m < 0.
        Refused: without the program Singular (extra `jets`), or beyond the time limit.
    """
    sizes = {f.num_variables for f in ideal}
    if len(sizes) != 1:
        raise ValueError(f"ideal: got generators in {sorted(sizes)} variables, needs one number")
    if max_m < 0:
        raise ValueError(f"max_m: got {max_m}, must be >= 0")
    program = singular_program()
    if program is None:
        raise Refused("Groebner bases need Singular: pip install 'scaleinv-ray[jets]'")
    script = "".join(_script(ideal, m) for m in range(max_m + 1)) + "quit;\n"
    try:
        done = subprocess.run(
            [program, "-q"], input=script, capture_output=True, text=True, timeout=seconds,
            check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        so_far = (late.stdout or b"").decode().split()
        raise Refused(
            f"no Groebner basis for m = {len(so_far)} within {seconds:g} s; "
            f"dim J_0, .. so far: {' '.join(so_far) or 'none'}"
        ) from late
    return tuple(map(int, done.stdout.split()))


def singular_program() -> str | None:
    """Path of Singular: of the extra `jets`, or else on the PATH; None where it is absent."""
    wheel = find_spec("sage_wheels")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        if (program := Path(folder) / "bin" / "Singular").exists():
            return str(program)
    return shutil.which("Singular")


def _script(ideal: Sequence[Polynomial], m: int) -> str:
    """Singular's commands that print dim J_m."""
    num, orders = ideal[0].num_variables, range(m + 1)
    # Coefficients of one order stand together: a basis is found several times sooner.
    names = [f"x{i}_{k}" for k in orders for i in range(num)]
    arcs = [f"({'+'.join(f'x{i}_{k}*t^{k}' for k in orders)})" for i in range(num)]
    lines = [
        f"ring r{m} = {_PRIME},(t,{','.join(names)}),dp;",
        "" if m else "option(redSB); int i;",  # once for all rings
        "ideal J = t; matrix C; poly f;",
    ]
    for f in ideal:
        lines.append(f"f = {'+'.join(_term(c, e, arcs) for e, c in f.terms.items())};")
        # Coefficients of t^0 .. t^m: t itself is in J, so that it adds no dimension.
        lines.append(
            f"C = coeffs(f,t); for (i=1; i<={m + 1} && i<=nrows(C); i=i+1) {{J = J + C[i,1];}}"
        )
    return "\n".join([*lines, "dim(slimgb(J));"]) + "\n"


def _term(coefficient: int | Fraction, exponent: Sequence[int], arcs: Sequence[str]) -> str:
    powers = [f"{arc}^{power}" for arc, power in zip(arcs, exponent, strict=True) if power]
    return "*".join([f"({coefficient})", *powers])
