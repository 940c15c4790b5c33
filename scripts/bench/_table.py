"""Writes the section of a benchmark into docs/benchmarks.md, with the machine it ran on."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
LIBRARIES = ("numpy", "scipy", "torch", "gudhi", "ray")


def machine() -> dict[str, str | int]:
    """Processor, cores, memory in GiB and the versions of what does the arithmetic."""
    facts: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
    }
    for library in LIBRARIES:
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found.group(1) if found else platform.machine()


def record(name: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Replaces, or appends, the section of one benchmark.

    Args:
        name: of the script, without `.py`.
        rows: what was measured, its target ('-' without one), and what was found.
    """
    facts = ", ".join(f"{k} {v}" for k, v in machine().items())
    table = "\n".join(f"| {what} | {target} | {found} |" for what, target, found in rows)
    section = (
        f"<!-- {name} -->\n## `scripts/bench/{name}.py`\n\n{facts}\n\n"
        f"| what | target | found |\n|---|---|---|\n{table}\n<!-- end {name} -->\n"
    )
    text = PAGE.read_text()
    held = re.compile(rf"<!-- {name} -->\n.*?<!-- end {name} -->\n", re.DOTALL)
    if held.search(text):
        text = held.sub(lambda _: section, text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    PAGE.write_text(text)
