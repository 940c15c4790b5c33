"""What can be said of a place in a sequence, in words: its token, what stood before, what repeats.

Shape suffixes: S sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NONE = -1
"""Where there is no such token, or no such place."""
BRACKETS = {"(": ")", "[": "]", "{": "}"}
CLASSES = (
    "letters",
    "word beginning",
    "digits",
    "space",
    "line break",
    "opening bracket",
    "closing bracket",
    "punctuation",
    "other",
)
_SPECIALS = ("\n", "\r")


def class_of(text: str) -> str:
    """The class of a token by its text, out of `CLASSES`.

    >>> [class_of(t) for t in ("the", " the", " 12", "  ", ").", "(", "")]
    ['letters', 'word beginning', 'digits', 'space', 'punctuation', 'opening bracket', 'other']
    """
    bare = text.strip()
    if not bare:
        if any(c in text for c in _SPECIALS):
            return "line break"
        return "space" if text else "other"
    if bare in BRACKETS:
        return "opening bracket"
    if bare in BRACKETS.values():
        return "closing bracket"
    if bare.isdigit():
        return "digits"
    if bare.replace("'", "").isalpha():
        return "word beginning" if text[0].isspace() else "letters"
    printable = bare.isprintable() and "\ufffd" not in bare
    return "punctuation" if printable and not any(c.isalnum() for c in bare) else "other"


def spelled(token: int, spell: Callable[[int], str] | None) -> str:
    """A token for a person: its text in quotes, or its number where there is no tokenizer."""
    return f"token {token}" if spell is None else repr(spell(token))


@dataclass(frozen=True)
class Context:
    """Sequences, and what can be said of every place in them.

    Attributes:
        tokens_ST: ids.
        spell: the text of a token; None without a tokenizer.
    """

    tokens_ST: np.ndarray
    spell: Callable[[int], str] | None = None

    @cached_property
    def previous_ST(self) -> np.ndarray:
        """The token before; NONE at the start."""
        before = np.full_like(self.tokens_ST, NONE)
        before[:, 1:] = self.tokens_ST[:, :-1]
        return before

    @cached_property
    def _matches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Last earlier place of the token, the one whose past agrees longest, and how long."""
        last, longest = np.full_like(self.tokens_ST, NONE), np.full_like(self.tokens_ST, NONE)
        length = np.zeros_like(self.tokens_ST)
        for s, row_T in enumerate(self.tokens_ST):
            same_TT = row_T[:, None] == row_T
            run_T = np.zeros(len(row_T), dtype=np.int64)  # of agreement, with each earlier place
            for t in range(len(row_T)):
                run_T[1:] = np.where(same_TT[t, 1:], run_T[:-1] + 1, 0)
                run_T[0] = same_TT[t, 0]
                earlier = np.flatnonzero(run_T[:t])
                if len(earlier):
                    last[s, t] = earlier[-1]
                    # of equally long ones the latest
                    longest[s, t] = earlier[run_T[earlier] == run_T[earlier].max()][-1]
                    length[s, t] = run_T[longest[s, t]]
        return last, longest, length

    @property
    def repeated_ST(self) -> np.ndarray:
        """Whether the token stood in the sequence before."""
        return self._matches[0] != NONE

    @property
    def distance_ST(self) -> np.ndarray:
        """Tokens back to its last occurrence; the length of the sequence where there is none."""
        at_T = np.arange(self.tokens_ST.shape[1])
        return np.where(self.repeated_ST, at_T - self._matches[0], self.tokens_ST.shape[1])

    @property
    def agreeing_ST(self) -> np.ndarray:
        """How many tokens up to here stood before in the same order; 0 where the token is new."""
        return self._matches[2]

    @property
    def followed_ST(self) -> np.ndarray:
        """What followed the last occurrence of the token; NONE where it is new."""
        return self._behind(self._matches[0])

    @property
    def continued_ST(self) -> np.ndarray:
        """What followed the longest stretch that ends here and stood before; NONE without one."""
        return self._behind(self._matches[1])

    @cached_property
    def usual_ST(self) -> np.ndarray:
        """What followed earlier occurrences of the token most often, of equal ones the latest."""
        found = np.full_like(self.tokens_ST, NONE)
        for s, row_T in enumerate(self.tokens_ST.tolist()):
            followers: dict[int, list[int]] = {}
            for t, token in enumerate(row_T):
                if t:
                    followers.setdefault(row_T[t - 1], []).append(token)
                found[s, t] = _mode(followers.get(token, []))
        return found

    @cached_property
    def frequent_ST(self) -> np.ndarray:
        """The most frequent token up to here, of equal ones the latest."""
        return np.array([
            [_mode(row_T[: t + 1]) for t in range(len(row_T))] for row_T in self.tokens_ST.tolist()
        ])

    def _behind(self, at_ST: np.ndarray) -> np.ndarray:
        # the place is earlier than t, so that there is one behind it
        found = np.take_along_axis(self.tokens_ST, np.maximum(at_ST, 0) + (at_ST >= 0), axis=1)
        return np.where(at_ST >= 0, found, NONE)

    @cached_property
    def class_ST(self) -> np.ndarray | None:
        """Index into `CLASSES`; None without a tokenizer."""
        if self.spell is None:
            return None
        ids, where = np.unique(self.tokens_ST, return_inverse=True)
        of = np.array([CLASSES.index(class_of(self.spell(int(i)))) for i in ids])
        return of[where].reshape(self.tokens_ST.shape)

    @cached_property
    def brackets(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Depth behind each token, and the token that closes the innermost bracket (or NONE).

        None without a tokenizer, or where no sequence opens a bracket. A bracket that closes
        another one than the innermost is passed over, as prose has them.
        """
        if self.spell is None:
            return None
        text = {int(i): self.spell(int(i)).strip() for i in np.unique(self.tokens_ST)}
        closers = {t: i for i, t in text.items() if t in BRACKETS.values()}
        if not any(t in BRACKETS for t in text.values()):
            return None
        depth, closing = np.zeros_like(self.tokens_ST), np.full_like(self.tokens_ST, NONE)
        for s, row_T in enumerate(self.tokens_ST.tolist()):
            opened: list[str] = []
            for t, token in enumerate(row_T):
                if text[token] in BRACKETS:
                    opened.append(BRACKETS[text[token]])
                elif opened and text[token] == opened[-1]:
                    opened.pop()
                depth[s, t] = len(opened)
                if opened:
                    closing[s, t] = closers.get(opened[-1], NONE)
        return depth, closing

    def prefixes_ST(self) -> np.ndarray:
        """A number for every beginning of a sequence; equal ones have the same."""
        known: dict[tuple[int, int], int] = {}
        found = np.empty_like(self.tokens_ST)
        for s, row_T in enumerate(self.tokens_ST.tolist()):
            state = NONE
            for t, token in enumerate(row_T):
                state = known.setdefault((state, token), len(known))
                found[s, t] = state
        return found


def _mode(tokens: list[int]) -> int:
    """The most frequent, of equal ones the one that comes last; NONE of none."""
    return max(reversed(tokens), key=tokens.count, default=NONE)
