"""Texts as indices: what was read, where it is stored, its vocabulary, and how it is split."""

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
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.config import check_stdin_once
from charrnn.errors import CorpusError, VocabularyError
from charrnn.text.sources import Source
from charrnn.text.vocabulary import Indices, Vocabulary

_BLOCK = 4 << 20  # indices copied at once
# Windows deletes a file on close only if every handle was opened with this flag.
_SHARED = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_TEMPORARY", 0)


@contextmanager
def _space_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"cannot store the corpus in a temporary file ({error.strerror}); "
            "set TMPDIR to a folder with space"
        ) from error


def _close(file: Any) -> None:
    with suppress(OSError):  # on a full disk, close repeats the flush that failed
        file.close()


class Store:
    """A sequence of indices in a temporary file.

    Indices are first appended, then read by range from any number of threads and processes.
    """

    table: Indices | None = None  # maps stored indices to those that `read` returns; None: the same

    def __init__(self, dtype: npt.DTypeLike, place: int | str | None = None) -> None:
        """Make an empty store, or attach to another process's file."""
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.length, self._lock = 0, threading.Lock()
        self._file: Any
        with _space_needed():
            if place is None:
                self._file = tempfile.TemporaryFile(prefix="charrnn-")  # noqa: SIM115 (_close does)
            else:
                descriptor = os.dup(place) if isinstance(place, int) else os.open(place, _SHARED)
                self._file = os.fdopen(descriptor, "rb")
        weakref.finalize(self, _close, self._file)

    def append(self, indices: Indices) -> None:
        """Append `indices`, which must fit the dtype.

        Raises CorpusError if the temporary folder is full.
        """
        with _space_needed():
            self._file.seek(0, os.SEEK_END)
            self._file.write(indices.astype(self.dtype, copy=False).tobytes())
            self._file.flush()
        self.length += len(indices)

    def read(self, start: int, stop: int) -> Indices:
        """Return the indices start … stop−1, (stop − start,)."""
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"{start}:{stop} isn't within the store's 0:{self.length}")
        at, count = start * self.dtype.itemsize, (stop - start) * self.dtype.itemsize
        if hasattr(os, "pread"):  # because processes share the file's position
            data = os.pread(self._file.fileno(), count, at)
        else:
            with self._lock:
                self._file.seek(at)
                data = self._file.read(count)
        found = np.frombuffer(data, self.dtype)
        return found if self.table is None else self.table[found]

    def widened(self, dtype: npt.DTypeLike) -> Store:
        """Return a store of the same indices in another dtype."""
        wider = Store(dtype)
        for start in range(0, self.length, _BLOCK):
            wider.append(self.read(start, min(start + _BLOCK, self.length)))
        return wider

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that a child needs to unpickle this store (Popen's pass_fds).

        On POSIX the file has a descriptor and no name; on Windows, a name that can be opened again.
        """
        return (self._file.name,) if isinstance(self._file.name, int) else ()

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"length": self.length, "table": self.table}
        return Store, (self.dtype, self._file.name), state


def training_share(count: int, val_fraction: float) -> int:
    """Return floor((1 − F)·count), exact for F as written in decimal: 0.1 leaves 9 of 10, not 8."""
    return math.floor((1 - Fraction(str(val_fraction))) * count)


@dataclass(frozen=True)
class Part:
    """A text made of ranges of a store, one after the other.

    On an MPI rank, the store may hold only the characters that this rank needs. The part still has
    its full length, but only those characters can be read.
    """

    store: Store
    extents: list[tuple[int, int]]  # (start, stop) in the store

    @cached_property
    def _borders(self) -> list[int]:
        """The start of each extent, counted in this part, and the end of the last one."""
        return list(accumulate((stop - start for start, stop in self.extents), initial=0))

    @property
    def characters(self) -> int:
        """The number of characters in this part."""
        return self._borders[-1]

    def read(self, start: int, stop: int) -> Indices:
        """Return the indices start … stop−1 of this part, (stop − start,)."""
        pieces = [np.empty(0, self.store.dtype)]
        which = bisect_right(self._borders, start) - 1
        while start < stop:
            end = min(stop, self._borders[which + 1])
            shift = self.extents[which][0] - self._borders[which]  # from the part to the store
            pieces.append(self.store.read(start + shift, end + shift))
            start, which = end, which + 1
        return np.concatenate(pieces)


@dataclass(frozen=True)
class Corpus:
    """Texts that were read: their characters as indices, one text after the other."""

    vocabulary: Vocabulary
    store: Store
    texts: list[tuple[int, int]]  # (start, stop) of each in the store
    notes: list[str]  # what was changed or left out, one line each
    digest: str  # a hash of the characters and of where each text ends

    @property
    def characters(self) -> int:
        """The number of characters in all texts together."""
        return self.store.length

    def split(self, val_fraction: float) -> tuple[Part, Part]:
        """Return (training, validation).

        The first floor((1 − F)·n) of a text's n characters are for training, the rest for
        validation.
        """
        cuts = [(a, a + training_share(b - a, val_fraction), b) for a, b in self.texts]
        training, validation = [(a, cut) for a, cut, _ in cuts], [(cut, b) for _, cut, b in cuts]
        return Part(self.store, training), Part(self.store, validation)


def read_corpus(
    sources: Sequence[str | Path],
    *,
    encoding: str | None = None,
    base: Vocabulary | None = None,
    lines: bool = False,
) -> Corpus:
    """Return the corpus of `sources`, each one a text, read once and piece by piece.

    encoding: None if the user gave none. base: a vocabulary to extend; its characters keep
    their indices and new ones follow. lines: every line is an item; a file's end also ends a line.
    Raises CorpusError, UsageError.
    """
    check_stdin_once(sources)
    vocabulary, store = base, Store(np.uint8 if base is None else base.dtype)
    texts, notes, digest = list[tuple[int, int]](), list[str](), blake2b(digest_size=16)
    for path in sources:
        source, start, of_text = Source(path, encoding, lines=lines), store.length, blake2b()
        for piece in source:
            of_text.update(piece.encode("utf-8", "surrogatepass"))
            vocabulary, indices = _extended(vocabulary or Vocabulary.of(piece), piece)
            if vocabulary.dtype != store.dtype:
                store = store.widened(vocabulary.dtype)
            store.append(indices)
        texts.append((start, store.length))
        notes += source.notes
        digest.update(of_text.digest())  # by text, so that the borders between texts count
    if vocabulary is None or store.length < 2:
        raise CorpusError(
            "the corpus is a single character: there is nothing to predict; give a longer text"
        )
    kept = base.characters if base else ""
    new = sorted(vocabulary.characters.removeprefix(kept))
    final = Vocabulary(kept + "".join(new))
    store.table = final.encode(vocabulary.characters)
    return Corpus(final, store, texts, notes, digest.hexdigest())


def _extended(vocabulary: Vocabulary, text: str) -> tuple[Vocabulary, Indices]:
    """Return the vocabulary, with new characters of `text` at its end, and the text's indices."""
    try:
        return vocabulary, vocabulary.encode(text)
    except VocabularyError:  # rare, so don't scan every piece for new characters
        vocabulary = Vocabulary(vocabulary.characters + vocabulary.missing(text))
        return vocabulary, vocabulary.encode(text)


def read_text(
    source: str | Path, *, encoding: str | None = None, limit: int = 100_000_000
) -> tuple[str, list[str]]:
    """Return (the characters of one source, notes on what was changed).

    Raises CorpusError, also for more than `limit` characters, and UsageError.
    """
    read, text = Source(source, encoding), ""
    for piece in read:
        text += piece
        if len(text) > limit:  # a small .gz can expand to any length
            raise CorpusError(f"{read.name}: has more than {limit:,} characters; split it")
    return text, read.notes


def default_corpus() -> Path:
    """Return the path of the text that ships with charrnn: in the package, or in a checkout."""
    package, checkout = (root / "corpora" / "tales.txt" for root in Path(__file__).parents[1:3])
    return package if package.exists() else checkout
