"""The source of an invariant from outside: read where the run starts, sent with every job.

The text itself travels, not a path and not a package of Ray's: a job is all that a worker needs,
whether Ray is embedded, the driver was submitted to a cluster, or the node came after the start.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from scaleinv_ray.contract import REGISTRY, forget
from scaleinv_ray.inputs.paths import check_plain
from scaleinv_ray.inputs.wording import clipped, shown

GROUP = "scaleinv_ray.invariants"
"""Entry points of installed packages; each names a module that registers invariants."""
LARGEST = 1_000_000
"""Bytes of source that may travel with a job."""
_FILES = "scaleinv_ray_plugin_"
"""Begins the names of modules that are single files, so that none hides an installed one."""


@dataclass(frozen=True)
class Source:
    """One module: its name, its text, where it was read, and whether it holds others."""

    name: str
    text: str
    path: str
    is_package: bool = False


@dataclass(frozen=True)
class Plugin:
    """Modules that register invariants.

    Attributes:
        given: as the user named it.
        module: to be imported.
        sources: of it and of the package around it.
    """

    given: str
    module: str
    sources: tuple[Source, ...]

    @cached_property
    def digest(self) -> str:
        """The first digits of the sha256 of all sources."""
        parts = [part for s in self.sources for part in (s.name, s.text)]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:10]

    @property
    def stamp(self) -> str:
        """Name and digest, as rows record them."""
        return f"{self.given.rpartition('/')[2]}+{self.digest}"

    def load(self) -> None:
        """Registers its invariants in this process; nothing happens where that is done already.

        Raises:
            ValueError: where the import fails or registers nothing, naming error and line.
        """
        held = _LOADED.get(self.module)
        if held is not None and held.digest == self.digest:
            return
        names = [s.name for s in self.sources]
        if held is None and _registered(names):  # imported by the user before, as in a notebook
            _LOADED[self.module] = self
            return
        _drop(names)
        # it stays: functions may import their neighbours when they are called
        sys.meta_path.insert(0, _Finder({s.name: s for s in self.sources}))
        try:
            importlib.import_module(self.module)
            if not _registered(names):
                raise ValueError("no function in it is decorated with @invariant(..)")
        except (Exception, SystemExit) as error:  # a file of the user's may raise anything
            _drop(names)
            raise ValueError(f"got {shown(self.given, 100)}, {self._told(error)}") from error
        _LOADED[self.module] = self

    def _told(self, error: BaseException) -> str:
        """What is wrong with it, and in which line of it."""
        line, trace = getattr(error, "lineno", None), error.__traceback__
        paths = {s.path for s in self.sources}
        while trace is not None and not isinstance(error, SyntaxError):
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename in paths else line
            trace = trace.tb_next
        name = "" if type(error) is ValueError else f"{type(error).__name__}: "
        where = "" if line is None else f" (line {line})"
        return f"{name}{clipped(error, 120)}{where}"


_LOADED: dict[str, Plugin] = {}


class _Finder(MetaPathFinder, ExecutionLoader):
    """Imports modules from texts.

    Attributes:
        sources: by the name of the module.
    """

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        source = self.sources.get(name)
        if source is None:
            return None
        return ModuleSpec(name, self, origin=source.path, is_package=source.is_package)

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname].text

    def get_filename(self, fullname: str) -> str:
        return self.sources[fullname].path

    def is_package(self, fullname: str) -> bool:
        return self.sources[fullname].is_package


def _registered(modules: Sequence[str]) -> bool:
    return any(spec.function.__module__ in modules for spec in REGISTRY.values())


def _drop(names: Sequence[str]) -> None:
    forget(names)
    old = [f for f in sys.meta_path if isinstance(f, _Finder) and f.sources.keys() & {*names}]
    for finder in old:
        sys.meta_path.remove(finder)
    for name in names:
        sys.modules.pop(name, None)
        _LOADED.pop(name, None)


def read(given: str) -> Plugin:
    """The sources of a plugin.

    Args:
        given: path of a .py file, or the dotted name of a module that can be imported here.

    Raises:
        ValueError: where there is none, or too much of it.
    """
    plugin = _of_file(given) if given.endswith(".py") else _of_module(given)
    size = sum(len(s.text) for s in plugin.sources)
    if size > LARGEST:
        raise ValueError(f"got {given} with {size} bytes of source, allowed: {LARGEST}")
    return plugin


def _of_file(given: str) -> Plugin:
    path = Path(given)
    check_plain("plugins", path)
    if not path.is_file():
        raise ValueError(f"got {shown(given, 160)}, no such file")
    if not path.stem.isidentifier():
        raise ValueError(f"got {shown(given, 160)}, allowed: a name of letters, digits and '_'")
    name = _FILES + path.stem
    return Plugin(given, name, (Source(name, _text(path), str(path)),))


def _of_module(given: str) -> Plugin:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", given):
        raise ValueError(f"got {shown(given)}, allowed: a file.py or package.module")
    root = given.partition(".")[0]
    found = importlib.util.find_spec(root)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise ValueError(
            f"got {shown(given)}, no module of that name; allowed: a file.py, or a module that is "
            "installed or on PYTHONPATH"
        )
    if not found.submodule_search_locations:
        return Plugin(given, given, (Source(given, _text(Path(found.origin)), found.origin),))
    top = Path(found.origin).parent
    sources = []
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top.parent).with_suffix("").parts
        inside = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if inside else parts)
        sources.append(Source(name, _text(path), str(path), is_package=inside))
    if given not in {s.name for s in sources}:
        raise ValueError(f"got {shown(given)}, {root} has no such module")
    return Plugin(given, given, tuple(sources))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"got {shown(str(path), 160)}, allowed: Python source in UTF-8") from error


def load_installed() -> None:
    """Registers the invariants of installed packages (entry points); ValueError names a broken."""
    for point in entry_points(group=GROUP):
        try:
            read(point.value).load()
        except ValueError as error:
            raise ValueError(f"entry point {GROUP}: {error}") from error


def plugin_of(invariant: str) -> Plugin | None:
    """The plugin that an invariant came from, None for one of the package.

    Raises:
        ValueError: for one that was defined where no worker can see it, as in a notebook.
    """
    module = REGISTRY[invariant].function.__module__
    if module.partition(".")[0] == "scaleinv_ray":
        return None
    for plugin in _LOADED.values():
        if any(s.name == module for s in plugin.sources):
            return plugin
    raise ValueError(
        f"invariants: {invariant} is defined in {module!r}, which workers do not have; "
        "allowed: in a file, as 'plugins: [my_invariants.py]'"
    )
