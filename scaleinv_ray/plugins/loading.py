"""The source of an invariant from outside: read where the run starts, sent with every job.

The text itself travels, not a path and not a package of Ray's: a job is all that a worker needs,
whether Ray is embedded, the driver was submitted to a cluster, or the node came after the start.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from scaleinv_ray.contract import REGISTRY, forget
from scaleinv_ray.inputs.paths import absolute, check_plain
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

    @property
    def files(self) -> dict[str, str]:
        """Its sources as files that may be used again: relative path -> text."""
        named = {s: s.name.removeprefix(_FILES).replace(".", "/") for s in self.sources}
        return {
            f"{name}/__init__.py" if s.is_package else f"{name}.py": s.text
            for s, name in named.items()
        }

    def load(self) -> None:
        """Registers its invariants in this process; nothing happens where that is done already.

        Raises:
            ValueError: where the import fails or registers nothing, naming error and line.
        """
        held = _LOADED.get(self.module)
        if held is not None and held.digest == self.digest:
            return
        names = [s.name for s in self.sources]
        # of one package several modules may be named
        is_here = any(of.digest == self.digest for of in _LOADED.values())
        if not is_here:
            if self.module in sys.modules and held is None and _registered(names):
                _LOADED[self.module] = self  # imported by the user before, as in a notebook
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
        missing = isinstance(error, ModuleNotFoundError)
        way = "; allowed: installed packages, or a package of your own as package.module"
        return f"{name}{clipped(error, 120)}{where}{way if missing else ''}"


_LOADED: dict[str, Plugin] = {}
_INSTALLED: set[str] = set()
"""Modules that entry points have named."""


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


def read(given: str, folder: str | Path | None = None) -> Plugin:
    """The sources of a plugin.

    Args:
        given: path of a .py file, or the dotted name of a module.
        folder: where a module is looked for before those that can be imported here.

    Raises:
        ValueError: where there is none, or too much of it.
    """
    plugin = _of_file(given) if given.endswith(".py") else _of_module(given, folder)
    size = sum(len(s.text) for s in plugin.sources)
    if size > LARGEST:
        raise ValueError(f"got {given} with {size} bytes of source, allowed: {LARGEST}")
    return plugin


def _module_of(given: str) -> str:
    """The name of the module that a plugin becomes."""
    return _FILES + Path(given).stem if given.endswith(".py") else given


def _of_file(given: str) -> Plugin:
    path = Path(given)
    check_plain("plugins", path)
    if not path.is_file():
        raise ValueError(f"got {shown(given, 160)}, no such file")
    if not path.stem.isidentifier():
        raise ValueError(f"got {shown(given, 160)}, allowed: a name of letters, digits and '_'")
    name = _module_of(given)
    return Plugin(given, name, (Source(name, _text(path), str(path)),))


def _of_module(given: str, folder: str | Path | None) -> Plugin:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", given):
        raise ValueError(f"got {shown(given)}, allowed: a file.py or package.module")
    root = given.partition(".")[0]
    if root in sys.stdlib_module_names or root == __name__.partition(".")[0]:
        raise ValueError(f"got {shown(given)}, allowed: a module from outside of it and of Python")
    origin, places = _found(root, folder)
    if not places:
        return Plugin(given, given, (Source(given, _text(origin), str(origin)),))
    sources = []
    for path in sorted(file for top in places for file in top.rglob("*.py")):
        top = next(place for place in places if path.is_relative_to(place))
        parts = (root, *path.relative_to(top).with_suffix("").parts)
        inside = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if inside else parts)
        sources.append(Source(name, _text(path), str(path), is_package=inside))
    names = {s.name for s in sources}
    bare = {name for n in names for name in _around(n)} - names  # folders without __init__.py
    sources += [Source(name, "", str(places[0]), is_package=True) for name in sorted(bare)]
    if given not in names:
        raise ValueError(f"got {shown(given)}, {root} has no such module")
    return Plugin(given, given, tuple(sources))


def _around(module: str) -> list[str]:
    """The packages that a module lies in."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _found(root: str, folder: str | Path | None) -> tuple[Path, list[Path]]:
    """The file of a module that is alone, and the folders of one that is a package."""
    beside = None if folder is None else PathFinder.find_spec(root, [str(folder)])
    # what was loaded from its text says nothing of the disk
    finders = [f for f in sys.meta_path if not isinstance(f, _Finder)]
    installed = (spec for f in finders if (spec := f.find_spec(root, None)) is not None)
    spec = beside if beside is not None and beside.origin else next(installed, beside)
    origin = Path(spec.origin) if spec is not None and spec.origin else Path(root)
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    if spec is None or not (places or origin.suffix == ".py"):
        where = "" if folder is None else f"beside the config in {shown(str(folder), 80)}, "
        raise ValueError(
            f"got {shown(root)}, no module of that name; allowed: a file.py, or a module that is "
            f"{where}installed or on PYTHONPATH"
        )
    return origin, places


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
        _INSTALLED.add(point.value)


def use(plugins: Sequence[str]) -> tuple[str, ...]:
    """Loads plugins that stand in no config; their paths start at the working directory.

    Args:
        plugins: files and modules.

    Returns:
        The same, paths in full.

    Raises:
        ValueError: naming the one that is not there or does not load.
    """
    load_installed()
    given = tuple(absolute(name) if name.endswith(".py") else name for name in plugins)
    try:
        check_distinct(given)
        for name in given:
            read(name, Path.cwd()).load()
    except ValueError as error:
        raise ValueError(f"plugin: {error}") from error
    return given


def known_to(plugins: Collection[str]) -> list[str]:
    """What 'all' stands for: nothing of another config's plugins, nothing of a notebook's cells.

    Args:
        plugins: of the config, as they were given to `read`.
    """
    named = {_module_of(given) for given in plugins} | _INSTALLED
    modules = {s.name for p in _LOADED.values() if p.module in named for s in p.sources}

    def is_known(module: str) -> bool:
        return module in modules or module.partition(".")[0] == __name__.partition(".")[0]

    return [name for name, spec in REGISTRY.items() if is_known(spec.function.__module__)]


def brought_by(plugin: str) -> list[str]:
    """Names of the invariants that a plugin registers, which is loaded.

    Args:
        plugin: as it was given to `read`.
    """
    given = _module_of(plugin)
    modules = {s.name for p in _LOADED.values() if p.module == given for s in p.sources}
    return [name for name, spec in REGISTRY.items() if spec.function.__module__ in modules]


def check_distinct(plugins: Sequence[str]) -> None:
    """Raises ValueError for two files of one name: each would take the place of the other."""
    files: dict[str, str] = {}
    for given in (p for p in plugins if p.endswith(".py")):
        if (other := files.setdefault(Path(given).stem, given)) != given:
            raise ValueError(f"got {other} and {given}, allowed: files of different names")


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
