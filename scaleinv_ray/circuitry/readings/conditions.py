"""Named features of a place in a sequence, as columns of numbers whose splits can be said in words.

Shape suffixes: S sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scaleinv_ray.circuitry.readings.context import CLASSES, NONE, Context, spelled

_NAMED = 16
"""Most frequent tokens that have a feature of their own, as the present and as the previous one."""
Bounds = tuple[float, float]
"""Low and high: low < feature <= high."""


class Feature(NamedTuple):
    """A column.

    Attributes:
        name: in words.
        values_ST: whole numbers; 0 and 1 of a feature that holds or does not.
        of: of those that hold or do not, what they are about: `the token`.
        is_: and what it then is: `'e'`, `of class space`.
        new: the number that stands for a token that did not occur before.
    """

    name: str
    values_ST: np.ndarray
    of: str = ""
    is_: str = ""
    new: int | None = None


def features(context: Context) -> list[Feature]:
    """All that differ between some places of the sequences."""
    tokens_ST, shape = context.tokens_ST, context.tokens_ST.shape
    found = [
        Feature("position", np.broadcast_to(np.arange(shape[1]), shape)),
        Feature("tokens repeated here", context.agreeing_ST, new=0),
        Feature("distance to its last occurrence", context.distance_ST, new=shape[1]),
        *_of_tokens("token", tokens_ST, context),
        *_of_tokens("previous token", context.previous_ST, context),
    ]
    if context.class_ST is not None:
        for number, name in enumerate(CLASSES):
            holds_ST = context.class_ST == number
            found.append(Feature(f"token class {name}", holds_ST, "the token", f"of class {name}"))
    if context.brackets is not None:
        found.append(Feature("bracket depth", context.brackets[0]))
    return [f for f in found if f.values_ST.min() != f.values_ST.max()]


def copied(context: Context) -> dict[str, np.ndarray]:
    """Tokens that an answer can be taken from, in words -> [S, T]; NONE where there is none."""
    found = {
        "what followed its last occurrence": context.followed_ST,
        "what followed it most often": context.usual_ST,
        "what followed the longest stretch repeated here": context.continued_ST,
        "the token itself": context.tokens_ST,
        "the token before it": context.previous_ST,
        "the most frequent token so far": context.frequent_ST,
    }
    if context.brackets is not None:
        found["what closes the innermost bracket"] = context.brackets[1]
    return found


def said(bounds: Sequence[tuple[Feature, Bounds]]) -> tuple[str, ...]:
    """Conditions in words; those that others imply are left out.

    >>> said([(Feature("position", np.arange(9)), (3.5, np.inf))])
    ('position >= 4',)
    """
    words = [_of_number(f, *ends) for f, ends in bounds if not f.of]
    for of in dict.fromkeys(f.of for f, _ in bounds if f.of):
        holds = [f.is_ for f, (low, _) in bounds if f.of == of and low >= 0]
        fails = [f.is_ for f, (low, _) in bounds if f.of == of and low < 0]
        # what a token is says what it is not
        words.append(f"{of} is {holds[-1]}" if holds else f"{of} is not {' or '.join(fails)}")
    return tuple(words)


def _of_number(feature: Feature, low: float, high: float) -> str:
    # all of them are whole numbers
    least, most = np.floor(low) + 1, np.floor(high)
    if np.isinf(low):
        text = f"{feature.name} <= {most:.0f}"
    elif np.isinf(high):
        text = f"{feature.name} >= {least:.0f}"
    elif least == most:
        text = f"{feature.name} = {least:.0f}"
    else:
        text = f"{feature.name} {least:.0f} to {most:.0f}"
    if feature.new is None:
        return text
    present = np.unique(feature.values_ST)
    within = present[(low < present) & (present <= high)]
    if within.tolist() == [feature.new]:
        return "the token is new"
    if feature.new in within:
        return f"{text} or none"
    return "the token stood before" if len(within) == len(present) - 1 else text


def _of_tokens(what: str, tokens_ST: np.ndarray, context: Context) -> Iterator[Feature]:
    ids, counts = np.unique(tokens_ST[tokens_ST != NONE], return_counts=True)
    for token in ids[np.argsort(-counts, kind="stable")][:_NAMED].tolist():
        name = spelled(token, context.spell)
        yield Feature(f"{what} {name}", tokens_ST == token, f"the {what}", name)
