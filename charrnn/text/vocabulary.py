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

Indices = npt.NDArray[Any]  # unsigned integers, of Vocabulary.dtype if a vocabulary made them
_ALIKE = ("'’‘‚`", '"”“„«»', "-–—−‐‑", " \t")


def code_points(text: str) -> Indices:
    """Return the code point of each character, read-only: uint8 if all are ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def _text(codes: Indices) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _named(char: str) -> str:
    """Return a character as a message shows it: quoted, escaped, with its code point."""
    return f"{char!r} (U+{ord(char):04X})"


@dataclass(frozen=True)
class Vocabulary:
    """N distinct characters; the position of each is its index."""

    characters: str

    def __post_init__(self) -> None:
        if not 0 < len(self.characters) == len(set(self.characters)):
            raise VocabularyError("a vocabulary needs at least one character, and none twice")
        half = next((char for char in self.characters if "\ud800" <= char <= "\udfff"), None)
        if half:
            raise VocabularyError(
                f"{_named(half)} is half of a UTF-16 pair, not a character; "
                "give the text's encoding"
            )

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of a text: its distinct characters by ascending code point."""
        return cls(_text(np.unique(code_points(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, char: object) -> bool:
        return isinstance(char, str) and len(char) == 1 and char in self.characters

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest of uint8, uint16, uint32 that holds every index."""
        return np.min_scalar_type(len(self) - 1)

    @cached_property
    def _codes(self) -> npt.NDArray[np.uint32]:
        return code_points(self.characters).astype(np.uint32)

    @cached_property
    def _table(self) -> npt.NDArray[np.int32]:
        """The index of each code point, −1 if unknown; the last entry is for all larger ones."""
        table = np.full(int(self._codes.max()) + 2, -1, np.int32)
        table[self._codes] = np.arange(len(self), dtype=np.int32)
        return table

    def lookup(self, text: str) -> npt.NDArray[np.int32]:
        """Return the index of each character, −1 where unknown."""
        return self._table.take(code_points(text), mode="clip")

    def index(self, char: str) -> int:
        """Return the index of one character. Raises VocabularyError if it isn't known."""
        return int(self.encode(char)[0])

    def find_unknown(self, text: str) -> int:
        """Return the position of the first character of `text` that isn't known, −1 if all are."""
        unknown = np.flatnonzero(self.lookup(text) < 0)
        return int(unknown[0]) if len(unknown) else -1

    def missing(self, text: str) -> str:
        """Return the distinct characters of `text` that aren't known, in ascending order."""
        return _text(np.unique(code_points(text)[self.lookup(text) < 0]))

    def encode(self, text: str) -> Indices:
        """Return the index of each character, (len(text),) of `dtype`.

        Raises VocabularyError naming the first unknown one.
        """
        indices = self.lookup(text)
        if indices.min(initial=0) < 0:
            raise self.unknown(text)
        return indices.astype(self.dtype)

    def decode(self, indices: Indices | Sequence[int]) -> str:
        """Return the characters at `indices` as one string.

        Raises VocabularyError for an index outside 0 … N−1.
        """
        array = np.asarray(indices, np.intp)
        if array.size and not 0 <= array.min() <= array.max() < len(self):
            raise VocabularyError(f"an index isn't in 0 … {len(self) - 1}")
        return _text(self._codes[array])

    def nearest(self, char: str) -> str:
        """Return up to 3 known characters that might replace `char`.

        They look similar or are a variant of the same letter; if none of these is known, they are
        the nearest by code point.
        """
        plain = unicodedata.normalize("NFKD", char)
        alike = "".join(group for group in _ALIKE if char in group or plain[0] in group)
        likely = dict.fromkeys(alike + char.swapcase() + plain + plain.swapcase())
        near = sorted(self.characters, key=lambda known: abs(ord(known) - ord(char)))
        return "".join(([c for c in likely if c in self] or near)[:3])

    def unknown(self, text: str, line: int = 1) -> VocabularyError:
        """Return the error for the first unknown character of a text that begins at `line`."""
        at, count = self.find_unknown(text), len(self.missing(text))
        line, column = line + text.count("\n", 0, at), at - text.rfind("\n", 0, at)
        near = ", ".join(map(repr, self.nearest(text[at])))
        advice = f"replace it, for example by {near}"
        if (escape := text[at : at + 2]) in (r"\n", r"\r", r"\t"):
            advice = f"{escape} is two characters here; in the shell, write one as $'{escape}'"
        return VocabularyError(
            f"line {line}, column {column}: {_named(text[at])} isn't among the {len(self)} "
            f"characters the model knows{f' (one of {count:,} unknown)' if count > 1 else ''}; "
            f"{advice}, or use --unknown skip"
        )
