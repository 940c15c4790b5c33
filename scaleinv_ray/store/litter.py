"""Names that are no file of ours: hidden ones, and what systems and editors leave in folders."""

from __future__ import annotations

_LITTER = {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", "Icon\r", "lost+found"}
_LITTER_ENDS = ("~", ".tmp", ".crc", ".swp", ".swo", ".part", ".partial", ".crdownload")


def is_litter(name: str) -> bool:
    """Whether a name is of a hidden file, or of what systems and editors leave in folders.

    Args:
        name: without folders.

    Returns:
        True for one that no reader should look at.

    >>> [is_litter(n) for n in ("._a.parquet", "_SUCCESS", "a.parquet~", "a.parquet")]
    [True, True, True, False]
    """
    return name.startswith((".", "_")) or name in _LITTER or name.endswith(_LITTER_ENDS)
