"""Batches: parallel streams of contiguous text, or distinct lines of much the same length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

from charrnn.config import Stream
from charrnn.errors import CorpusError
from charrnn.text.corpus import Corpus, Excerpt, Part, training_share
from charrnn.text.vocabulary import Indices

Symbols = npt.NDArray[np.intp]
_AHEAD = 1 << 16  # characters that Streams reads at once, over all streams
_POOL = 32  # batches within which items are sorted by length
_READ = 1 << 22  # characters of the store that read_items looks at at once


@dataclass(frozen=True)
class Batch:
    """What one step learns from; column b at row t reads x[t, b] and predicts y[t, b]."""

    x: Symbols  # (T, B)
    y: Symbols  # (T, B)
    lengths: Symbols | None  # (B,) predictions of each column, 0 behind them; None: T each
    predictions: int  # of the whole batch, also when these are only some of its columns


def _batch(symbols: Indices, lengths: Symbols, columns: slice) -> Batch:
    """Return the columns of a batch: `symbols` (T + 1, own) are read and, one later, predicted.

    lengths (B,): the predictions of each column of the whole batch.
    """
    x, y = symbols[:-1].astype(np.intp, "C"), symbols[1:].astype(np.intp, "C")
    own, predictions = lengths[columns], int(lengths.sum())
    if lengths.min() == len(x):
        return Batch(x, y, None, predictions)
    beyond = np.arange(len(x))[:, None] >= own
    x[beyond] = y[beyond] = 0
    return Batch(x, y, own, predictions)


class Batches(Protocol):
    """Text cut into batches without end: `batch(step)` belongs to epoch step // steps_per_epoch."""

    batch_size: int
    seq_len: int
    steps_per_epoch: int
    predictions: int  # in an epoch
    fresh: bool  # every batch starts from a zero state

    def batch(self, step: int, columns: slice = ...) -> Batch: ...


class Streams:
    """B contiguous pieces of a text side by side, T characters a step; the state is carried on.

    Stream b of a text of n characters covers b·n//B … (b+1)·n//B. Each of its characters but the
    first is predicted once an epoch, or only the first of them: `most` in all streams together. A
    short text gets fewer streams, a very short one shorter steps. Raises CorpusError if n < 2.
    """

    # The state goes on from step to step, and from a stream's end to its beginning, an epoch later.
    fresh = False

    def __init__(
        self, part: Part | Excerpt, batch_size: int, seq_len: int, most: int | None = None
    ) -> None:
        n = len(part)
        if n < 2:
            raise CorpusError(
                f"a text of {n} characters: there is nothing to predict; give a longer one"
            )
        self.batch_size = B = min(batch_size, max(1, n // (seq_len + 1)))
        self._borders = np.array([b * n // B for b in range(B + 1)], np.intp)
        self._lengths = np.diff(self._borders) - 1  # predictions of each stream
        if most is not None:
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
        return _batch(symbols.T, left, columns)

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
        """Return the first items of at most so many characters together, one at least; None: all."""
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


def items_of(indices: Indices, newline: int) -> Items:
    """Return all lines of one encoded text in order, repeats kept, empty ones left out."""
    text = np.concatenate([[newline], indices, [newline]]).astype(indices.dtype)
    ends = text == newline
    symbols = text[~(ends & np.append(False, ends[:-1]))]
    return Items(symbols, np.flatnonzero(symbols == newline))


def read_items(corpus: Corpus) -> Items:
    """Return the distinct lines of a corpus, without empty ones, in an order of their own.

    The order depends on nothing but the lines. Raises CorpusError if there is no newline or line.
    """
    if "\n" not in corpus.vocabulary:
        raise CorpusError(
            "the corpus has no newline, and with --lines every line is an item; "
            "give a text of several lines"
        )
    distinct = {
        line for start, stop in corpus.texts for line in _lines(corpus, start, stop) if line
    }
    if not distinct:
        raise CorpusError(
            "the corpus has nothing but empty lines; give a text with something in its lines"
        )
    ordered = sorted(
        distinct, key=lambda line: blake2b(line.encode(), digest_size=16).digest() + line.encode()
    )
    newline = corpus.vocabulary.index("\n")
    return items_of(corpus.vocabulary.encode("\n".join(ordered)), newline)


def _lines(corpus: Corpus, start: int, stop: int) -> Iterator[str]:
    """Yield the lines of the text start … stop−1, read piece by piece."""
    begun: list[str] = []  # pieces of the line that hasn't ended yet
    for at in range(start, stop, _READ):
        indices = corpus.store.read(at, min(at + _READ, stop))
        first, *others = corpus.vocabulary.decode(indices).split("\n")
        begun.append(first)
        if others:
            yield "".join(begun)
            yield from others[:-1]
            begun = others[-1:]
    yield "".join(begun)


class ItemBatches:
    """Batches of B items, each read from a zero state: the newline first, and predicted last.

    Every epoch has an order of its own from (seed, epoch); without a seed items are ordered by
    length, always the same. Items of much the same length stand together, so that little is padded.
    The last batch may have fewer columns.
    """

    fresh = True  # every batch starts from a zero state

    def __init__(self, items: Items, batch_size: int, seed: int | None = None) -> None:
        if not len(items):
            raise CorpusError("there are no items to predict; give more lines")
        self.batch_size = min(batch_size, len(items))
        self.seq_len = int(items.lengths.max()) + 1
        self.steps_per_epoch = -(-len(items) // self.batch_size)
        self.predictions = items.characters  # per epoch
        self._items, self._seed = items, seed
        self._lengths = items.lengths + 1  # predictions of each
        self._order: tuple[int, Symbols] | None = None

    def batch(self, step: int, columns: slice = slice(None)) -> Batch:
        """Return the batch of `step`, which counts on over epochs, or some of its columns.

        It doesn't depend on earlier calls.
        """
        chosen = self._chosen(step)
        lengths = self._lengths[chosen]
        at = self._items.starts[chosen[columns]] + np.arange(lengths.max() + 1)[:, None]
        return _batch(self._items.symbols.take(at, mode="clip"), lengths, columns)

    def _chosen(self, step: int) -> Symbols:
        """Return the items of the batch of `step`."""
        epoch, step = divmod(step, self.steps_per_epoch)
        epoch = 0 if self._seed is None else epoch
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._arrange(epoch))
        items: Symbols = self._order[1][step]
        return items[items >= 0]

    def _arrange(self, epoch: int) -> Symbols:
        n, B, steps = len(self._items), self.batch_size, self.steps_per_epoch
        rows = np.full(steps * B, -1, np.intp)
        if self._seed is None:
            rows[:n] = np.argsort(self._lengths, kind="stable")
            return rows.reshape(steps, B)
        rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([self._seed, Stream.ORDER, epoch]))
        )
        shuffled = rng.permutation(n)
        rows[:n] = shuffled[np.lexsort((self._lengths[shuffled], np.arange(n) // (_POOL * B)))]
        return rows.reshape(steps, B)[rng.permutation(steps)]
