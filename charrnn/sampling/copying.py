"""Whether a text was written or copied: its runs of characters that another text has too."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

RUN = 20  # characters: fewer in a row are shared by any two texts of a language


class Copied(NamedTuple):
    """What texts share with a source: the longest run of characters, the first of several, and the
    share of their characters that is in runs of at least `RUN`.
    """

    longest: str
    share: float


def copied(texts: Sequence[str], source: str) -> Copied:
    """Return what `texts` share with `source`.

    A run is at least n characters long exactly if all its windows of n are in the source, which is
    found in one pass over the source for a given n. So the share takes one pass, and the longest
    run, by bisection, as many as its length has binary digits.
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
