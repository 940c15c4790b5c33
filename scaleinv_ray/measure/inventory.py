"""What a run folder holds: which tables are whole, which are damaged, and what is none of a run's.

A table counts when its seal holds, its columns are those of its folder and its rows are of the
measurement that its name says. With its rows a measurement says whether it has curves and diagrams:
where those are gone it is not done. One that was made by ranges is done when all of them are.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray import tables
from scaleinv_ray.plan.jobs import FAILED
from scaleinv_ray.store import Store
from scaleinv_ray.store.seal import DamagedError
from scaleinv_ray.store.states import STATES

FOLDERS: dict[str, pa.Schema] = {
    "measurements": tables.MEASUREMENTS,
    "curves": tables.CURVES,
    "diagrams": tables.DIAGRAMS,
}
COMPACT = "all-"
_OURS = {f"{n.lower()}.parquet" for n, of in vars(tables).items() if isinstance(of, pa.Schema)}
TABLE = ".parquet"
_RANGE = re.compile(r"-\d{5}-of-(?P<count>\d{5})$")
BESIDE = "scaleinv.beside"
"""Key of the metadata of measurements: a digit for every key, in their order; see `beside`."""
_CURVES, _DIAGRAMS = 1, 2
_AT_ONCE = 16
_SAID = 5


class Contents(NamedTuple):
    """What a whole table holds.

    Attributes:
        beside: key -> what else its measurement has; see `beside`.
        digest: of the file.
    """

    beside: Mapping[str, int]
    digest: str


@dataclass(frozen=True)
class Inventory:
    """What the three folders of tables hold.

    Attributes:
        whole: path in the store -> contents, of tables that can be read.
        damaged: path in the store -> what is wrong with it.
        foreign: paths of what is none of a run's, hidden files and litter left out.
    """

    whole: Mapping[str, Contents] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    foreign: Sequence[str] = ()

    def names(self, folder: str, *, failed: bool = True) -> list[str]:
        """Whole tables of a folder, sorted, with or without those of failed measurements.

        Those of ranges are among them where all ranges of their measurement have rows.
        """
        found = self._all(folder)
        ended = complete(self._stems("measurements"))
        if failed and folder == "measurements":
            ended |= complete(map(stem_of, found))
        return counted([n for n in found if failed or not is_failed(n)], ended)

    def _all(self, folder: str) -> list[str]:
        at = f"{folder}/"
        return sorted(name.removeprefix(at) for name in self.whole if name.startswith(at))

    def _stems(self, folder: str) -> dict[str, int]:
        """What a folder has rows of, but for failed ones: keys, and ranges of them."""
        return {
            stem_of(name) if is_range(stem_of(name)) else key: beside
            # of a key that stands twice the first is read: that of a compacted table
            for name in sorted(self._all(folder), key=is_compact)
            if not is_failed(name)
            for key, beside in self.whole[f"{folder}/{name}"].beside.items()
        }

    @property
    def made(self) -> dict[str, int]:
        """Keys of the measurements with rows, whether all that belongs to them is there or not."""
        found: dict[str, int] = {}
        stems = self._stems("measurements")
        keys = complete(stems)
        for stem, beside in stems.items():
            if (key := key_of(stem)) in keys:
                found[key] = found.get(key, 0) | beside
        return found

    @property
    def stems_done(self) -> set[str]:
        """Keys and ranges of measurements that are there, with their curves and diagrams."""
        curves, diagrams = self._stems("curves"), self._stems("diagrams")
        return {
            stem
            for stem, beside in self._stems("measurements").items()
            # those of a range may have been gathered under its key
            if (not beside & _CURVES or {stem, key_of(stem)} & curves.keys())
            and (not beside & _DIAGRAMS or {stem, key_of(stem)} & diagrams.keys())
        }

    @property
    def done(self) -> set[str]:
        """Keys of the measurements that are there, with their curves and diagrams."""
        return complete(self.stems_done)

    @property
    def failed(self) -> dict[str, str]:
        """Keys of the measurements that have failed rows and are not done, with a table of such."""
        done, names = self.done, self.names("measurements")
        found = {key_of(stem_of(name)): name for name in names if is_failed(name)}
        return {key: name for key, name in found.items() if key not in done}

    def unread(self) -> list[str]:
        """What a conclusion has to do without, a line for each thing."""
        lines = [f"{name}: {why}" for name, why in self.damaged.items()]
        if lost := len(self.made.keys() - self.done):
            lines.append(f"curves, diagrams: those of {lost} measurements are gone")
        return lines

    def notes(self, concluded: Collection[str] = ()) -> list[str]:
        """What is not as it should be, a line for each thing that names the files.

        Args:
            concluded: names of the files that follow from measurements: they are the run's own.
        """
        lines = self.unread()
        if foreign := [name for name in self.foreign if name not in concluded]:
            more = len(foreign) - _SAID
            names = ", ".join(foreign[:_SAID]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"passed over, no files of a run: {names}")
        return lines


def take_inventory(store: Store) -> Inventory:
    """Looks at every table of a run folder.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: where files vanish again and again while they are looked at.
    """
    for _ in range(2):  # a run may be compacting its tables
        try:
            return _take(store)
        except FileNotFoundError:
            continue
    return _take(store)


def tidied(store: Store, concluded: Collection[str] = ()) -> set[str]:
    """Sets aside what is damaged, so that it is made again under its name, and says so.

    Args:
        store: of the run, held by the caller.
        concluded: as of `Inventory.notes`.

    Returns:
        Keys of the measurements that are done.
    """
    held = take_inventory(store)
    say(replace(held, damaged={}).notes(concluded))
    set_aside(store, held.damaged)
    try:
        planned_keys(store)
    except DamagedError as error:
        say([f"{error}; made anew"])
    except FileNotFoundError:  # of a folder that is new
        pass
    return held.done


def planned_keys(store: Store) -> pa.Array:
    """Keys of the newest plan of a run folder."""
    return store.read_table("plan.parquet", ["key"])["key"].combine_chunks()


def set_aside(store: Store, damaged: Mapping[str, str]) -> None:
    """Renames damaged files and says so.

    Args:
        store: of the run, held by the caller.
        damaged: path in the store -> what is wrong with it.
    """
    for name, why in damaged.items():
        say([f"{name}: {why}; set aside as {store.set_aside(name)}, not done"])


def read_or_say(store: Store, name: str, without: str) -> pa.Table | None:
    """A table that can be done without; None where it is not there, or damaged, which is said.

    Args:
        without: what is missing then, in words.
    """
    try:
        return store.read_table(name) if store.exists(name) else None
    except DamagedError as error:
        say([f"{error}; {without}"])
        return None


def say(notes: Iterable[str]) -> None:
    """Tells whoever started the run, at once."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)


def beside(*, curves: bool, diagrams: bool) -> int:
    """What a measurement has beside its rows, as the digit that is written with them."""
    return _CURVES * curves + _DIAGRAMS * diagrams


def with_beside(table: pa.Table, digits: Mapping[str, int]) -> pa.Table:
    """Rows of measurements that say what belongs to them.

    Args:
        digits: for every key of the table, as of `beside`.

    Returns:
        The table with metadata.
    """
    text = "".join(str(digits[key]) for key in sorted(digits))
    return table.replace_schema_metadata({BESIDE: text})


def is_compact(name: str) -> bool:
    """Whether a table of a folder was gathered from others."""
    return name.startswith(COMPACT)


def is_failed(name: str) -> bool:
    """Whether a table holds rows of what failed."""
    return name.endswith(FAILED)


def stem_of(name: str) -> str:
    """Name of a table without its suffix: a key, or a range of a measurement."""
    return name.removesuffix(FAILED).removesuffix(TABLE)


def is_range(stem: str) -> bool:
    """Whether a table has the rows of one range of a measurement (`MeasureJob.stem`)."""
    return _RANGE.search(stem) is not None


def key_of(stem: str) -> str:
    """Key of the measurement that a table of its own belongs to."""
    return _RANGE.sub("", stem)


def complete(stems: Iterable[str]) -> set[str]:
    """Keys of which the whole is there, or every range."""
    keys: set[str] = set()
    ranges: dict[tuple[str, int], set[str]] = defaultdict(set)
    for stem in stems:
        if (found := _RANGE.search(stem)) is None:
            keys.add(stem)
        else:
            ranges[key_of(stem), int(found["count"])].add(stem)
    return keys | {key for (key, count), of in ranges.items() if len(of) == count}


def counted(names: Iterable[str], ended: Collection[str]) -> list[str]:
    """Tables of a folder without the ranges of measurements of which ranges are missing.

    Args:
        ended: keys of the measurements that are complete.
    """
    return [n for n in names if not is_range(stem_of(n)) or key_of(stem_of(n)) in ended]


def whole_ranges(store: Store) -> set[str]:
    """Ranges of measurements that a run has left, with all that belongs to them."""
    return _take(store, only=lambda name: is_range(stem_of(name))).stems_done


def _strays(store: Store) -> list[str]:
    """What looks like a table or a capture of the run and is none."""
    found = [n for n in store.names("") if n.endswith((TABLE, ".arrow")) and n not in _OURS]
    if store.local is not None:
        listing = store.listing("captures")
        found += [f"captures/{n}" for n in listing.files if not n.endswith(".arrow")]
        found += [f"captures/{n}" for n in listing.folders if not n.startswith(STATES)]
    return found


def _take(store: Store, only: Callable[[str], bool] = lambda _: True) -> Inventory:
    names, damaged, foreign = [], {}, _strays(store)
    for folder in FOLDERS:
        listing = store.listing(folder)
        tables_of = [name for name in listing.files if name.endswith(TABLE)]
        names += [f"{folder}/{name}" for name in tables_of if only(name)]
        for name in listing.folders:
            if name.endswith(TABLE):
                damaged[f"{folder}/{name}"] = "a folder, allowed: a file"
        others = (n for n in [*listing.files, *listing.folders] if not n.endswith(TABLE))
        foreign += [f"{folder}/{name}" for name in others]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looked = list(pool.map(partial(_look, store), names))
    found = dict(zip(names, looked, strict=True))
    damaged |= {n: of.reason for n, of in found.items() if isinstance(of, DamagedError)}
    whole = {n: of for n, of in found.items() if isinstance(of, Contents)}
    return Inventory(whole, damaged, foreign)


def _look(store: Store, name: str) -> Contents | DamagedError:
    folder, _, base = name.partition("/")
    try:
        table, digest, sealed = store.read_sealed(name, ["key"], schema=FOLDERS[folder])
        keys = sorted(k for k in pc.unique(table["key"]).to_pylist() if k is not None)
        key = key_of(stem_of(base))
        if not keys and sealed and not is_compact(base):
            keys = [key]  # written whole, without rows
        if not is_compact(base) and keys != [key]:
            got = f"rows of {', '.join(keys[:2])}" if keys else "no rows"
            raise DamagedError(store.path(name), f"got {got}, allowed: those of {key}")
    except DamagedError as error:
        return error
    said = (table.schema.metadata or {}).get(BESIDE.encode(), b"").decode()
    # rows of an older version say nothing of their curves
    digits = said if len(said) == len(keys) else "0" * len(keys)
    return Contents({key: int(digit) for key, digit in zip(keys, digits, strict=True)}, digest)
