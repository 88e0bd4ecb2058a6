"""How much of a text was copied: the runs of characters that it shares with another text."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

RUN = 20  # characters; any two texts of a language share shorter runs


class Copied(NamedTuple):
    """What texts share with a source: the longest run of characters (the first, if several are
    equally long), and the fraction of the texts' characters in runs of at least `RUN`.
    """

    longest: str
    share: float


def copied(texts: Sequence[str], source: str) -> Copied:
    """Return what `texts` share with `source`.

    A run of n characters or more consists of windows of n characters that are in the source. One
    pass over the source finds these windows for a given n. So the share takes one pass; finding
    the longest run by bisection takes one pass per binary digit of the longest text's length.
    """
    total, most = sum(map(len, texts)), max(map(len, texts), default=0)
    shared = _shared(texts, source, RUN)
    inside = sum(_covered(text, shared) for text in texts)
    length = bisect(range(1, most + 1), False, key=lambda n: not _shared(texts, source, n))
    longest = _shared(texts, source, length)
    first = next((w for text in texts for w in _windows(text, length) if w in longest), "")
    return Copied(first, inside / total if total else 0.0)


def _shared(texts: Iterable[str], source: str, length: int) -> set[str]:
    """Return the windows of this length that are in a text and in the source."""
    windows = {window for text in texts for window in _windows(text, length)}
    return windows.intersection(_windows(source, length))


def _windows(text: str, length: int) -> Iterable[str]:
    return (text[i : i + length] for i in range(len(text) - length + 1))


def _covered(text: str, shared: set[str]) -> int:
    """Return the number of characters in windows of `RUN` that are in the source."""
    covered = end = 0
    for i, window in enumerate(_windows(text, RUN)):
        if window in shared:
            covered += i + RUN - max(i, end)
            end = i + RUN
    return covered
