"""Texts as indices: what was read, its vocabulary, and the split into a training and a validation part."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from charrnn.errors import CorpusError, UsageError, VocabularyError
from charrnn.text.sources import CHUNK, Notes, check_encoding, read_source
from charrnn.text.store import Store
from charrnn.text.vocabulary import Vocabulary, printable


def training_share(count: int, val_fraction: float) -> int:
    """floor((1 − F)·count), exact for F as it is written in decimal: 0.1 leaves 9 of 10, not 8."""
    return math.floor((1 - Fraction(str(val_fraction))) * count)


@dataclass(frozen=True)
class Part:
    """A text made of ranges of a store, one after the other."""

    store: Store
    extents: tuple[tuple[int, int], ...]  # (start, stop) in the store

    @cached_property
    def _ends(self) -> list[int]:
        """Where each extent ends, counted in this part."""
        return list(accumulate(stop - start for start, stop in self.extents))

    def __len__(self) -> int:
        return self._ends[-1] if self.extents else 0

    @property
    def characters(self) -> int:
        """How many characters the part has."""
        return len(self)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The indices start … stop−1 of this part, (stop − start,) of the store's dtype."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"{start}:{stop} isn't within the part's 0:{len(self)}")
        pieces = []
        which = bisect_right(self._ends, start)
        while start < stop:
            end = min(stop, self._ends[which])
            shift = (
                self.extents[which][1] - self._ends[which]
            )  # from a position here to one in the store
            pieces.append(self.store.read(start + shift, end + shift))
            start, which = end, which + 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self.store.dtype)


@dataclass(frozen=True)
class Excerpt:
    """A range of a part, under the positions that it has there: what is kept by a rank that reads nothing else."""

    store: Store  # the range alone
    start: int  # of the range in the part
    length: int  # of the whole part

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The indices start … stop−1 of the part, (stop − start,) of the store's dtype. Raises IndexError beyond the range."""
        return self.store.read(start - self.start, stop - self.start)


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
    def texts(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each text in the store."""
        ends = list(accumulate(self.lengths))
        return tuple(zip([0, *ends[:-1]], ends, strict=True))

    def split(self, val_fraction: float) -> tuple[Part, Part]:
        """(training, validation): of each text of n characters the first floor((1 − F)·n) train, the others validate."""
        borders = [
            (start, start + training_share(stop - start, val_fraction), stop)
            for start, stop in self.texts
        ]
        training = tuple((start, border) for start, border, _ in borders if start < border)
        validation = tuple((border, stop) for _, border, stop in borders if border < stop)
        return Part(self.store, training), Part(self.store, validation)


class _Recorder:
    """Takes characters piece by piece; the vocabulary grows, and the store changes its dtype, as new ones appear."""

    def __init__(self, base: Vocabulary | None) -> None:
        self.base = base
        self.vocabulary = base
        self.store = Store(np.uint8 if base is None else base.dtype)

    def add(self, text: str) -> None:
        vocabulary = self.vocabulary or Vocabulary.of(text)
        try:
            indices = vocabulary.encode(text)
        except (
            VocabularyError
        ):  # rare; asking first for what is missing would scan every piece twice
            vocabulary = Vocabulary(vocabulary.characters + vocabulary.missing(text))
            indices = vocabulary.encode(text)
        if vocabulary.dtype != self.store.dtype:
            self.store = self.store.recode(
                np.arange(1 << 8 * self.store.dtype.itemsize, dtype=vocabulary.dtype)
            )
        self.vocabulary = vocabulary
        self.store.append(indices)

    def finish(self) -> tuple[Vocabulary, Store]:
        """The vocabulary in its final order (the base's characters, then the others ascending) and the indices in it."""
        assert self.vocabulary is not None
        known = "" if self.base is None else self.base.characters
        final = Vocabulary(known + "".join(sorted(self.vocabulary.characters[len(known) :])))
        return final, self.store.recode(final.encode(self.vocabulary.characters))


def read_corpus(
    sources: Sequence[str | Path],
    *,
    encoding: str = "utf-8",
    stdin: BinaryIO | None = None,
    base: Vocabulary | None = None,
    chunk_size: int = CHUNK,
) -> Corpus:
    """The texts of `sources` (files, folders, "-", .gz, .bz2, .xz), one text each, read once and piece by piece.

    base: a vocabulary to extend; its characters keep their indices and new ones follow. Raises CorpusError, UsageError.
    """
    _check(sources, encoding)
    notes, recorder, lengths, digest = Notes(), _Recorder(base), [], blake2b(digest_size=16)
    for source in sources:
        of_text, length = blake2b(), 0
        for text in read_source(
            source, encoding=encoding, stdin=stdin, notes=notes, chunk_size=chunk_size
        ):
            of_text.update(_utf8(text, source))
            recorder.add(text)
            length += len(text)
        lengths.append(length)
        digest.update(of_text.digest())  # of fixed size, so that moving a border changes the whole
    if sum(lengths) < 2:
        raise CorpusError(
            "the corpus is a single character: there is nothing to predict; give a longer text"
        )
    vocabulary, store = recorder.finish()
    return Corpus(vocabulary, store, tuple(lengths), notes.lines(), digest.hexdigest())


def _check(sources: Sequence[str | Path], encoding: str) -> None:
    check_encoding(encoding)
    if not sources:
        raise UsageError("no corpus was given; give a file, a folder or - for standard input")
    if sum(str(source) == "-" for source in sources) > 1:
        raise UsageError("- is given more than once, and standard input can be read only once")


def _utf8(text: str, source: str | Path) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        name, half = printable(str(source)), f"U+{ord(text[error.start]):04X}"
        raise CorpusError(
            f"{name}: has {half}, half of a UTF-16 pair and no character; give the right --encoding"
        ) from None


def read_text(
    source: str | Path,
    *,
    encoding: str = "utf-8",
    stdin: BinaryIO | None = None,
    limit: int | None = None,
) -> tuple[str, tuple[str, ...]]:
    """(the clean characters of one source, at most the first `limit`; notes on what was changed). Raises CorpusError."""
    check_encoding(encoding)
    notes, pieces, count = Notes(), list[str](), 0
    with closing(read_source(source, encoding=encoding, stdin=stdin, notes=notes)) as stream:
        for piece in stream:
            _utf8(piece, source)
            pieces.append(piece)
            count += len(piece)
            if limit is not None and count >= limit:
                break
    return "".join(pieces)[:limit], notes.lines()


def default_corpus() -> Path:
    """The text that ships with charrnn. Raises CorpusError if this installation lacks it."""
    installed = Path(str(resources.files("charrnn"))) / "corpora" / "tales.txt"
    for path in (installed, Path(__file__).parents[2] / "corpora" / "tales.txt"):
        if path.is_file():
            return path
    raise CorpusError(
        f"{installed}: the text that ships with charrnn is missing; give a file, or install charrnn again"
    )
