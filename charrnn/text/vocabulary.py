"""Characters and their indices."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.errors import VocabularyError

Indices = npt.NDArray[Any]  # unsigned integers, of Vocabulary.dtype when they come from here
_LOOKALIKES = {
    "‘": "'",
    "’": "'",
    "‚": "'",
    "`": "'",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "\t": " ",
    "–": "-",
    "—": "-",
    "−": "-",
    "‐": "-",
    "‑": "-",
    "'": "’‘",
    '"': "”“„",
    "-": "–—",
}


def printable(text: str) -> str:
    """`text` with everything that would break a one-line message (newlines, controls, surrogates) escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def code_points(text: str) -> Indices:
    """The code point of each character, read-only: (len(text),) uint8 if all are ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def distinct(codes: Indices) -> str:
    """The distinct characters of an array of code points, in ascending order."""
    if not len(codes):
        return ""
    seen = np.zeros(int(codes.max()) + 1, bool)
    seen[codes] = True
    return _text(np.flatnonzero(seen))


def _text(codes: Indices) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _named(char: str) -> str:
    """A character as a message shows it: quoted, escaped, with its code point."""
    return f"{char!r} (U+{ord(char):04X})"


@dataclass(frozen=True)
class Vocabulary:
    """N distinct characters; the position of each is its index. Equal if the characters and their order are."""

    characters: str

    def __post_init__(self) -> None:
        if not self.characters:
            raise VocabularyError("a vocabulary needs at least one character and has none")
        codes = code_points(self.characters)
        counts = np.bincount(codes)
        if counts.max() > 1:
            twice = chr(int(counts.argmax()))
            raise VocabularyError(
                f"a vocabulary has each character once, and {_named(twice)} is there {counts.max()} times"
            )
        if counts[0xD800:0xE000].any():
            lone = chr(0xD800 + int(counts[0xD800:0xE000].argmax()))
            raise VocabularyError(
                f"{_named(lone)} is half of a UTF-16 pair, not a character; give the text's encoding"
            )

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The vocabulary of a text: its distinct characters by ascending code point."""
        return cls(distinct(code_points(text)))

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, char: object) -> bool:
        return isinstance(char, str) and len(char) == 1 and char in self.characters

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest of uint8, uint16, uint32 that holds every index."""
        return np.dtype(
            np.uint8 if len(self) <= 1 << 8 else np.uint16 if len(self) <= 1 << 16 else np.uint32
        )

    @cached_property
    def _codes(self) -> npt.NDArray[np.uint32]:
        return code_points(self.characters).astype(np.uint32)

    @cached_property
    def _table(self) -> npt.NDArray[np.int32]:
        """Index by code point, −1 where unknown. The last entry is always −1: larger code points are clipped to it."""
        table = np.full(max(int(self._codes.max()) + 2, 129), -1, np.int32)
        table[self._codes] = np.arange(len(self), dtype=np.int32)
        return table

    @cached_property
    def _ascii(self) -> tuple[bytes, bytes]:
        """For bytes.translate, several times faster than an array lookup: (the known ASCII bytes, index by byte)."""
        known = self._table[:128] >= 0
        return np.flatnonzero(known).astype(np.uint8).tobytes(), self._table[:128].astype(
            np.uint8
        ).tobytes().ljust(256, b"\0")

    def _lookup(self, codes: Indices) -> npt.NDArray[np.int32]:
        return self._table.take(codes, mode="clip")

    def index(self, char: str) -> int:
        """The index of one character. Raises VocabularyError if it isn't known."""
        if char not in self:
            shown = _named(char) if len(char) == 1 else repr(char)
            raise VocabularyError(f"{shown} isn't among the {len(self)} known characters")
        return int(self._table[ord(char)])

    def missing(self, text: str) -> str:
        """The distinct characters of `text` that aren't known, in ascending order."""
        if text.isascii():
            return "".join(
                sorted(set(text.encode("ascii").translate(None, self._ascii[0]).decode("ascii")))
            )
        codes = code_points(text)
        unknown = self._lookup(codes) < 0
        return distinct(codes[unknown]) if unknown.any() else ""

    def encode(self, text: str) -> Indices:
        """The index of each character, (len(text),) of `dtype`. Raises VocabularyError naming the first unknown one."""
        if text.isascii() and self.dtype == np.uint8:
            known, by_byte = self._ascii
            raw = text.encode("ascii")
            if not raw.translate(None, known):
                return np.frombuffer(raw.translate(by_byte), np.uint8).copy()
        indices = self._lookup(code_points(text))
        if len(indices) and indices.min() < 0:
            raise self._unknown(text)
        return indices.astype(self.dtype)

    def decode(self, indices: Indices | Sequence[int]) -> str:
        """The characters at `indices`, one string. Raises VocabularyError for an index outside 0 … N−1."""
        array = np.asarray(indices)
        if not array.size:
            return ""
        if array.min() < 0 or array.max() >= len(self):
            raise VocabularyError(
                f"index {array[(array < 0) | (array >= len(self))].flat[0]} isn't in 0 … {len(self) - 1}"
            )
        return _text(self._codes[array])

    def find_unknown(self, text: str) -> list[tuple[int, str]]:
        """(position, character) of every character of `text` that isn't known, in order."""
        return [(int(at), text[at]) for at in np.flatnonzero(self._lookup(code_points(text)) < 0)]

    def nearest(self, char: str, most: int = 3) -> str:
        """Up to `most` known characters that might stand for `char`: same letter, same look, else close by in Unicode."""
        plain = unicodedata.normalize("NFKD", char)
        candidates = [
            _LOOKALIKES.get(char, ""),
            char.swapcase(),
            plain,
            plain.swapcase(),
            _LOOKALIKES.get(plain[:1], ""),
        ]
        likely = dict.fromkeys(
            c for c in "".join(candidates) if c in self and not unicodedata.combining(c)
        )
        if not likely:
            distance = np.abs(self._codes.astype(np.int64) - ord(char))
            likely = dict.fromkeys(
                self.characters[i] for i in np.argsort(distance, kind="stable")[:most]
            )
        return "".join(likely)[:most]

    def _unknown(self, text: str) -> VocabularyError:
        positions = np.flatnonzero(self._lookup(code_points(text)) < 0)
        at, others = int(positions[0]), len(distinct(code_points(text)[positions])) - 1
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        near = ", ".join(repr(c) for c in self.nearest(text[at]))
        more = (
            f" (nor are {others} other characters of the text)"
            if others > 1
            else " (nor is one other)"
            if others
            else ""
        )
        return VocabularyError(
            f"line {line}, column {column}: {_named(text[at])} isn't among the {len(self)} characters the model knows{more}; "
            f"the nearest it knows: {near}; replace it, or use --unknown skip"
        )
