"""Whether a text was written or copied: its runs that stand verbatim in another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

RUN = 20  # characters: fewer in a row are shared by any two texts of a language


class Copied(NamedTuple):
    """What texts share with a source: the longest run, and the part of their characters in runs of
    at least `RUN`.
    """

    longest: str
    share: float


def copied(texts: Sequence[str], source: str) -> Copied:
    """Return what `texts` share with `source`.

    A run is at least n characters long exactly if it is made of windows of n that stand in the
    source, and the source's windows of one length are looked up in a single pass. So the share
    takes one pass, and the longest run, by bisection, as many as its length has binary digits.
    """
    total = sum(map(len, texts))
    standing = _standing(texts, source, RUN)
    inside = sum(_covered(text, standing) for text in texts)
    found, low, high = "", 0, max(map(len, texts), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        windows = standing if middle == RUN else _standing(texts, source, middle)
        if windows:
            # of several, the one that was drawn first
            found, low = (
                next(w for text in texts for w in _windows(text, middle) if w in windows),
                middle,
            )
        else:
            high = middle - 1
    return Copied(found, inside / total if total else 0.0)


def _standing(texts: Iterable[str], source: str, length: int) -> set[str]:
    """Return the windows of this length that stand in a text and in the source."""
    wanted = {window for text in texts for window in _windows(text, length)}
    return wanted.intersection(_windows(source, length)) if wanted else wanted


def _windows(text: str, length: int) -> Iterable[str]:
    return (text[i : i + length] for i in range(len(text) - length + 1))


def _covered(text: str, standing: set[str]) -> int:
    """Return the number of characters in windows of `RUN` that stand in the source."""
    covered = end = 0
    for i, window in enumerate(_windows(text, RUN)):
        if window in standing:
            covered += i + RUN - max(i, end)
            end = i + RUN
    return covered
