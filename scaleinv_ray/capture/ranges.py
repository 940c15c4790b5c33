"""Which blocks lie together: contiguous ranges, the largest of which is as small as it can be."""

from __future__ import annotations

from collections.abc import Sequence


def balanced(sizes: Sequence[int], num: int) -> list[range]:
    """Contiguous ranges, none empty, the largest sum of which is as small as it can be.

    Args:
        sizes: of the parts, in order.
        num: of ranges.

    Returns:
        The ranges, which cover all parts.

    Raises:
        ValueError: for more ranges than parts, or less than one.

    >>> balanced([5, 1, 1, 1, 4], 3)
    [range(0, 1), range(1, 4), range(4, 5)]
    """
    if not 1 <= num <= len(sizes):
        raise ValueError(f"num: got {num}, allowed 1..{len(sizes)} (parts)")

    def filled(limit: int) -> list[range] | None:
        found: list[range] = []
        start, held = 0, 0
        for i, size in enumerate(sizes):
            closes = num - len(found) > len(sizes) - i  # one part is left for each range
            if i > start and (held + size > limit or closes):
                found.append(range(start, i))
                start, held = i, 0
            held += size
        found.append(range(start, len(sizes)))
        return found if len(found) <= num and held <= limit else None

    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if filled(middle) else (middle + 1, high)
    ranges = filled(low)
    assert ranges is not None
    return ranges
