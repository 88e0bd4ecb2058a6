"""Batches: parallel streams of contiguous text, or distinct lines of much the same length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

from charrnn.config import Stream
from charrnn.errors import CorpusError
from charrnn.text.corpus import Corpus, Part, training_share
from charrnn.text.vocabulary import Indices

Symbols = npt.NDArray[np.intp]
_AHEAD = 1 << 16  # characters that Streams reads at once, over all streams
_POOL = 32  # batches within which items are sorted by length
LONGEST = 512  # characters of an item that are predicted in one batch; a longer one takes several
_READ = 1 << 22  # characters of the store that read_items looks at at once


@dataclass(frozen=True)
class Batch:
    """What one step learns from; column b at row t reads x[t, b] and predicts y[t, b]."""

    x: Symbols  # (T, B)
    y: Symbols  # (T, B)
    lengths: Symbols | None  # (B,) predictions of each column, 0 behind them; None: T each
    predictions: int  # of the whole batch, also when these are only some of its columns
    fresh: bool  # from a zero state; else column b goes on from column b of the batch before


def _batch(symbols: Indices, lengths: Symbols, columns: slice, *, fresh: bool) -> Batch:
    """Return the columns of a batch: `symbols` (T + 1, own) are read and, one later, predicted.

    lengths (B,): the predictions of each column of the whole batch.
    """
    x, y = symbols[:-1].astype(np.intp, "C"), symbols[1:].astype(np.intp, "C")
    own, predictions = lengths[columns], int(lengths.sum())
    if lengths.min() == len(x):
        return Batch(x, y, None, predictions, fresh)
    beyond = np.arange(len(x))[:, None] >= own
    x[beyond] = y[beyond] = 0
    return Batch(x, y, own, predictions, fresh)


class Batches(Protocol):
    """Text cut into batches without end: `batch(step)` belongs to epoch step // steps_per_epoch."""

    batch_size: int
    seq_len: int
    steps_per_epoch: int
    predictions: int  # in an epoch

    def batch(self, step: int, columns: slice = ...) -> Batch: ...


class Streams:
    """B contiguous pieces of a text side by side, T characters a step.

    The state is carried on, also from a stream's end to its beginning in the next epoch.

    Stream b of a text of n characters covers b·n//B … (b+1)·n//B. Each of its characters but the
    first is predicted once an epoch, or only the first of them: `most` in all streams together. A
    short text gets fewer streams, a very short one shorter steps. Raises CorpusError if n < 2.
    """

    def __init__(self, part: Part, batch_size: int, seq_len: int, most: int | None = None) -> None:
        n = part.characters
        if n < 2:
            raise CorpusError(
                f"a text of {n} characters: there is nothing to predict; give a longer one"
            )
        self.batch_size = B = min(batch_size, max(1, n // (seq_len + 1)))
        self._borders = np.array([b * n // B for b in range(B + 1)], np.intp)
        self._lengths = np.diff(self._borders) - 1  # predictions of each stream
        if most is not None and most < n:
            self._lengths = np.minimum(self._lengths, max(1, most // B))
        longest = int(self._lengths.max())
        self.seq_len = min(seq_len, longest)
        self.steps_per_epoch = -(-longest // self.seq_len)
        self.predictions = int(self._lengths.sum())  # per epoch
        self.part = part
        self._steps_ahead = max(1, _AHEAD // (B * self.seq_len))
        # The last block that was read by range of columns, and its number.
        self._ahead: dict[tuple[int, int], tuple[int, Indices]] = {}

    def batch(self, step: int, columns: slice = slice(None)) -> Batch:
        """Return the batch of `step`, which counts on over epochs, or some of its columns.

        It doesn't depend on earlier calls.
        """
        step %= self.steps_per_epoch
        left = np.clip(self._lengths - step * self.seq_len, 0, self.seq_len)
        number, ahead = divmod(step, self._steps_ahead)
        at = ahead * self.seq_len
        symbols = self._block(number, columns)[:, at : at + int(left.max()) + 1]
        return _batch(symbols.T, left, columns, fresh=False)

    def extent(self, columns: slice) -> tuple[int, int]:
        """Return (start, stop) in the part of all that these streams ever read."""
        first, stop, _ = columns.indices(self.batch_size)
        return int(self._borders[first]), int(self._borders[stop])

    def _block(self, number: int, columns: slice) -> Indices:
        """Return what these streams read in a block of steps: (columns, steps·T + 1), 0 behind."""
        first, stop, _ = columns.indices(self.batch_size)
        known, block = self._ahead.get((first, stop), (-1, np.empty(0)))
        if known == number:
            return block
        width = self._steps_ahead * self.seq_len
        starts = self._borders[first:stop] + number * width
        ends = np.minimum(starts + width + 1, self._borders[first + 1 : stop + 1])
        block = np.zeros((len(starts), width + 1), self.part.store.dtype)
        for row, start, end in zip(block, starts.tolist(), ends.tolist(), strict=True):
            row[: max(0, end - start)] = self.part.read(min(start, end), end)
        self._ahead[first, stop] = (number, block)
        return block


@dataclass(frozen=True)
class Items:
    """Texts of their own, such as names, each between two newlines."""

    symbols: Indices  # newline, item, newline, item, …, newline
    starts: Symbols  # (items + 1,) where the newline before each item stands, and the last newline
    notes: tuple[str, ...] = ()  # what was changed or left out, a line each

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def newline(self) -> int:
        """The index of the newline."""
        return int(self.symbols[0])

    @property
    def lengths(self) -> Symbols:
        """(items,) symbols of each, without the newline."""
        return np.diff(self.starts) - 1

    @property
    def characters(self) -> int:
        """How many characters are to be predicted: those of each item and the newline behind."""
        return int(self.starts[-1] - self.starts[0])

    def read(self, start: int, stop: int) -> Indices:
        """Return the characters start … stop−1 of those that are to be predicted."""
        first = self.starts[0] + 1
        return self.symbols[first + start : first + stop]

    def first(self, most: int | None) -> Items:
        """Return the first items of at most so many characters together, one at least."""
        if most is None:
            return self
        count = np.searchsorted(self.starts[1:] - self.starts[0], most, "right")
        return Items(self.symbols, self.starts[: max(1, int(count)) + 1])

    def split(self, val_fraction: float) -> tuple[Items, Items]:
        """Return (training, validation): the first floor((1 − F)·n) items and the others."""
        border = training_share(len(self), val_fraction)
        return (
            Items(self.symbols, self.starts[: border + 1]),
            Items(self.symbols, self.starts[border:]),
        )


def read_items(corpus: Corpus) -> Items:
    """Return the distinct lines of a corpus, without empty ones, in an order of their own.

    The order depends on nothing but the lines. Raises CorpusError if there is no newline or line.
    """
    if "\n" not in corpus.vocabulary:
        raise CorpusError(
            "the corpus has no newline, and with --lines every line is an item; "
            "give a text of several lines"
        )
    counts = Counter(_lines(corpus))
    if not counts:
        raise CorpusError(
            "the corpus has nothing but empty lines; give a text with something in its lines"
        )
    ordered = sorted(
        counts, key=lambda line: blake2b(line.encode(), digest_size=16).digest() + line.encode()
    )
    symbols = corpus.vocabulary.encode("\n".join(["", *ordered, ""]))
    starts = np.flatnonzero(symbols == symbols[0])
    return Items(symbols, starts, (*corpus.notes, *_notes(counts)))


def _notes(counts: Counter[str]) -> Iterator[str]:
    """Yield what is worth saying about lines, of which there are so many each."""
    if counts.total() > len(counts):
        yield f"{counts.total():,} lines, {len(counts):,} of them distinct: repeats are left out"
    long = [line for line in counts if len(line) >= LONGEST]
    if long:
        longest = max(long, key=len)
        yield (
            f"lines of {LONGEST} characters or more are learned in pieces: {len(long):,} of "
            f"{len(counts):,}; the longest has {len(longest):,} and begins {longest[:40]!r}"
        )


def _lines(corpus: Corpus) -> Iterator[str]:
    """Yield the lines of a corpus that aren't empty; the end of a text ends a line."""
    for start, stop in corpus.texts:
        rest = ""
        for at in range(start, stop, _READ):
            indices = corpus.store.read(at, min(at + _READ, stop))
            *lines, rest = (rest + corpus.vocabulary.decode(indices)).split("\n")
            yield from filter(None, lines)
        if rest:
            yield rest


class ItemBatches:
    """Batches of B items, each read from a zero state: the newline first, and predicted last.

    Every epoch has an order of its own from (seed, epoch); without a seed items are ordered by
    length, always the same. Items of much the same length stand together, so that little is padded.

    Items longer than LONGEST stand together too, the longest first. Their batch is read in pieces
    of LONGEST, step after step, in which the state is carried on; a column ends with its item. A
    batch has fewer than B columns where no more items are left.
    """

    def __init__(self, items: Items, batch_size: int, seed: int | None = None) -> None:
        if not len(items):
            raise CorpusError("there are no items to predict; give more lines")
        self.batch_size = B = min(batch_size, len(items))
        self._items, self._seed = items, seed
        self._lengths = np.diff(items.starts)  # predictions of each
        self.seq_len = min(LONGEST, int(self._lengths.max()))
        self.predictions = items.characters  # per epoch
        longest_first = np.argsort(-self._lengths, kind="stable")
        long = np.count_nonzero(self._lengths > LONGEST)
        self._short, self._long = np.sort(longest_first[long:]), _cut(longest_first[:long], B)
        self._epoch, self._steps = 0, self._arrange(0)
        self.steps_per_epoch = len(self._steps)

    def batch(self, step: int, columns: slice = slice(None)) -> Batch:
        """Return the batch of `step`, which counts on over epochs, or some of its columns.

        It doesn't depend on earlier calls.
        """
        starts, lengths, fresh = self._columns(step)
        at = starts[columns] + np.arange(lengths.max() + 1)[:, None]
        return _batch(self._items.symbols.take(at, mode="clip"), lengths, columns, fresh=fresh)

    def _columns(self, step: int) -> tuple[Symbols, Symbols, bool]:
        """Return where each column begins in the symbols, its predictions, and if it is fresh."""
        epoch, step = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._steps = epoch, self._arrange(epoch)
        items, done = self._steps[step]
        items = items[self._lengths[items] > done]
        return (
            self._items.starts[items] + done,
            np.minimum(self._lengths[items] - done, LONGEST),
            not done,
        )

    def _arrange(self, epoch: int) -> list[tuple[Symbols, int]]:
        """Return what each step of an epoch reads: these items, so many characters done before."""
        short, lengths = self._short, self._lengths
        if self._seed is None:
            by_length = short[np.argsort(lengths[short], kind="stable")]
            groups = [*_cut(by_length, self.batch_size), *self._long]
        else:
            seeds = np.random.SeedSequence([self._seed, Stream.ORDER, epoch])
            rng = np.random.Generator(np.random.PCG64(seeds))
            shuffled = rng.permutation(short)
            pool = np.arange(len(short)) // (_POOL * self.batch_size)
            by_length = shuffled[np.lexsort((lengths[shuffled], pool))]
            groups = [*_cut(by_length, self.batch_size), *self._long]
            groups = [groups[i] for i in rng.permutation(len(groups))]
        return [
            (group, done)
            for group in groups
            for done in range(0, int(lengths[group].max()), LONGEST)
        ]


def _cut(items: Symbols, size: int) -> list[Symbols]:
    return [items[at : at + size] for at in range(0, len(items), size)]
