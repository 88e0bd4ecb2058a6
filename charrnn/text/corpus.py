"""Texts as indices: what was read, where it is kept, its vocabulary, and how it is split."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.errors import CorpusError, UsageError, VocabularyError
from charrnn.text.sources import Source
from charrnn.text.vocabulary import Indices, Vocabulary

MEMORY = 32 << 20  # bytes a store may hold in memory before it moves to a temporary file
_BLOCK = 4 << 20  # elements handled at once when all of them are rewritten


@contextmanager
def _space_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"no temporary file can take the corpus ({error.strerror}); "
            "set TMPDIR to a folder with space"
        ) from error


def _close(file: Any) -> None:
    with suppress(OSError):  # on a full disk it flushes once more what a write has failed on
        file.close()


class Store:
    """A sequence of indices, kept in memory while small, else in a temporary file.

    It is appended to, then read by range from any number of threads and processes.
    """

    def __init__(self, dtype: npt.DTypeLike, memory: int = MEMORY) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.length, self._limit, self._lock = 0, memory, threading.Lock()
        self._by_position = False  # whether other processes share the file's offset
        file = tempfile.SpooledTemporaryFile(memory, prefix="charrnn-")  # noqa: SIM115 (see _keep)
        self._keep(file)

    def _keep(self, file: Any) -> None:
        self._file = file
        weakref.finalize(self, _close, file)

    def append(self, indices: Indices) -> None:
        """Add `indices`, which fit the dtype, at the end.

        Raises CorpusError if the temporary folder is full.
        """
        self._write(self.length, indices)
        self.length += len(indices)

    def _write(self, start: int, indices: Indices) -> None:
        with _space_needed(), self._lock:
            self._file.seek(start * self.dtype.itemsize)
            self._file.write(indices.astype(self.dtype, copy=False).tobytes())
            self._file.flush()

    def read(self, start: int, stop: int) -> Indices:
        """Return the indices start … stop−1, (stop − start,) of `dtype`."""
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"{start}:{stop} isn't within the store's 0:{self.length}")
        at, count = start * self.dtype.itemsize, (stop - start) * self.dtype.itemsize
        if self._by_position:
            return np.frombuffer(os.pread(self._file.fileno(), count, at), self.dtype)
        with self._lock:
            self._file.seek(at)
            return np.frombuffer(self._file.read(count), self.dtype)

    def recode(self, table: Indices) -> Store:
        """Return a store of table[i] for each index i: this one, rewritten, if its dtype stays."""
        target = self if table.dtype == self.dtype else Store(table.dtype, self._limit)
        for start in range(0, self.length, _BLOCK):
            block = self.read(start, min(start + _BLOCK, self.length))
            if table.dtype == self.dtype == np.uint8:  # several times faster than table[block]
                data = block.tobytes().translate(table.tobytes().ljust(256))
                target._write(start, np.frombuffer(data, np.uint8))
            else:
                target._write(start, table[block])
        target.length = self.length
        return target

    def share(self) -> tuple[int, ...]:
        """Return the descriptors that a child needs to unpickle this store (Popen's pass_fds).

        On POSIX the file has a descriptor and no name, on Windows a name that can be opened again.
        """
        with _space_needed(), self._lock:
            self._file.rollover()
            self._file.flush()
        return (self._file.name,) if isinstance(self._file.name, int) else ()

    def __reduce__(self) -> tuple[Any, ...]:
        self.share()
        return Store._attached, (self._file.name, self.dtype.str, self.length)

    @classmethod
    def _attached(cls, place: int | str, dtype: str, length: int) -> Store:
        """Return the store of another process, for reading."""
        store = cls(dtype)
        store.length, store._by_position = length, isinstance(place, int)
        # Windows wants every handle to agree to the deletion on close.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_TEMPORARY", 0)
        handle = os.dup(place) if isinstance(place, int) else os.open(place, flags)
        store._keep(os.fdopen(handle, "rb"))
        return store


def training_share(count: int, val_fraction: float) -> int:
    """Return floor((1 − F)·count), exact for F as written in decimal: 0.1 leaves 9 of 10, not 8."""
    return math.floor((1 - Fraction(str(val_fraction))) * count)


@dataclass(frozen=True)
class Part:
    """A text made of ranges of a store, one after the other.

    If the store has only a piece of the text, as on a rank that reads no other, then the range
    reaches beyond the store, and only that piece can be read.
    """

    store: Store
    extents: tuple[tuple[int, int], ...]  # (start, stop) in the store

    @cached_property
    def _borders(self) -> list[int]:
        """Where each extent begins, counted in this part, and where the last one ends."""
        return list(accumulate((stop - start for start, stop in self.extents), initial=0))

    @property
    def characters(self) -> int:
        """How many characters the part has."""
        return self._borders[-1]

    def read(self, start: int, stop: int) -> Indices:
        """Return the indices start … stop−1 of this part, (stop − start,) of the store's dtype."""
        if not 0 <= start <= stop <= self.characters:
            raise IndexError(f"{start}:{stop} isn't within the part's 0:{self.characters}")
        pieces = [np.empty(0, self.store.dtype)]
        which = bisect_right(self._borders, start) - 1
        while start < stop:
            end = min(stop, self._borders[which + 1])
            shift = self.extents[which][0] - self._borders[which]  # of the store's positions
            pieces.append(self.store.read(start + shift, end + shift))
            start, which = end, which + 1
        return np.concatenate(pieces) if len(pieces) != 2 else pieces[1]


@dataclass(frozen=True)
class Corpus:
    """Texts that were read: their characters as indices, one text after the other."""

    vocabulary: Vocabulary
    store: Store
    lengths: tuple[int, ...]  # characters of each text
    notes: tuple[str, ...]  # what was changed or left out, a line each
    digest: str  # of the characters and of where each text ends

    @property
    def characters(self) -> int:
        """How many characters all texts have together."""
        return sum(self.lengths)

    @property
    def texts(self) -> list[tuple[int, int]]:
        """(start, stop) of each text in the store."""
        return list(pairwise(accumulate(self.lengths, initial=0)))

    def split(self, val_fraction: float) -> tuple[Part, Part]:
        """Return (training, validation).

        Of each text of n characters the first floor((1 − F)·n) train, the others validate.
        """
        starts, stops = zip(*self.texts, strict=True)
        borders = [start + training_share(stop - start, val_fraction) for start, stop in self.texts]
        return (
            Part(self.store, tuple(zip(starts, borders, strict=True))),
            Part(self.store, tuple(zip(borders, stops, strict=True))),
        )


def _extended(vocabulary: Vocabulary | None, text: str) -> tuple[Vocabulary, Indices]:
    """Return the vocabulary, with new characters of `text` at its end, and the text's indices."""
    if vocabulary is None:
        vocabulary = Vocabulary.of(text)
    try:
        return vocabulary, vocabulary.encode(text)
    except VocabularyError:  # rare; to ask first what is missing would scan each piece twice
        vocabulary = Vocabulary(vocabulary.characters + vocabulary.missing(text))
        return vocabulary, vocabulary.encode(text)


def read_corpus(
    sources: Sequence[str | Path],
    *,
    encoding: str | None = None,
    base: Vocabulary | None = None,
    lines: bool = False,
) -> Corpus:
    """Return the texts of `sources`, read once and piece by piece, each source a text.

    encoding: None if none was given by name. base: a vocabulary to extend; its characters keep
    their indices and new ones follow. lines: every line is an item, and a file's end ends one.
    Raises CorpusError, UsageError.
    """
    texts = [Source(source, encoding, lines=lines) for source in sources]
    if not texts:
        raise UsageError("no corpus was given; give a file, a folder or - for standard input")
    if sum(text.is_stdin for text in texts) > 1:
        raise UsageError("- is given more than once, and standard input can be read only once")
    vocabulary, store = base, Store(np.uint8 if base is None else base.dtype)
    notes, lengths, digest = list[str](), list[int](), blake2b(digest_size=16)
    for text in texts:
        of_text, before = blake2b(), store.length
        for piece in text:
            of_text.update(_utf8(piece, text.name))
            vocabulary, indices = _extended(vocabulary, piece)
            if vocabulary.dtype != store.dtype:
                store = store.recode(np.arange(len(vocabulary), dtype=vocabulary.dtype))
            store.append(indices)
        lengths.append(store.length - before)
        notes += text.notes
        digest.update(of_text.digest())  # of fixed size, so that moving a border changes the whole
    if vocabulary is None or store.length < 2:
        raise CorpusError(
            "the corpus is a single character: there is nothing to predict; give a longer text"
        )
    final = _in_order(vocabulary, 0 if base is None else len(base))
    if final != vocabulary:
        store = store.recode(final.encode(vocabulary.characters))
    return Corpus(final, store, tuple(lengths), tuple(notes), digest.hexdigest())


def _in_order(vocabulary: Vocabulary, known: int) -> Vocabulary:
    """Return the first `known` characters as they are, and then the others ascending."""
    kept, new = vocabulary.characters[:known], vocabulary.characters[known:]
    return Vocabulary(kept + "".join(sorted(new)))


def _utf8(text: str, name: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{name}: has U+{ord(text[error.start]):04X}, half of a UTF-16 pair and no character; "
            "give the right --encoding"
        ) from None


def read_text(
    source: str | Path,
    *,
    encoding: str | None = None,
    limit: int | None = None,
) -> tuple[str, list[str]]:
    """Return (the characters of one source, at most the first `limit`; notes on what was changed).

    Raises CorpusError, UsageError.
    """
    read, text = Source(source, encoding), ""
    for piece in read:
        text += piece
        if limit is not None and len(text) >= limit:
            break
    _utf8(text, read.name)
    return text[:limit], read.notes


def default_corpus() -> Path:
    """Return the text that ships with charrnn. Raises CorpusError if this installation lacks it."""
    for root in Path(__file__).parents[1:3]:
        path = root / "corpora" / "tales.txt"
        if path.is_file():
            return path
    raise CorpusError(
        f"{path}: the text that ships with charrnn is missing; give a file, or install it again"
    )
