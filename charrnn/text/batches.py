"""Batches: parallel streams of contiguous text, or distinct lines of much the same length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from charrnn.config import Stream
from charrnn.errors import CorpusError
from charrnn.text.corpus import Corpus, Excerpt, Part, training_share

Symbols = npt.NDArray[np.intp]
_ALL = slice(None)
_AHEAD = 1 << 16  # characters that Streams reads at once, over all streams
_POOL = 32  # batches within which items are sorted by length
_READ = 1 << 22  # characters of the store that read_items looks at at once


@dataclass(frozen=True)
class Batch:
    """What one step learns from; column b at row t reads x[t, b] and predicts y[t, b]."""

    x: Symbols  # (T, B)
    y: Symbols  # (T, B)
    lengths: (
        npt.NDArray[np.intp] | None
    )  # (B,) predictions of each column, 0 … T, symbol 0 behind them; None: T each
    predictions: int  # of the whole batch, also when these are only some of its columns


class Batches(Protocol):
    """Text cut into batches without end: `batch(step)` belongs to epoch step // steps_per_epoch."""

    batch_size: int
    seq_len: int
    steps_per_epoch: int
    predictions: int  # in an epoch
    fresh: bool  # every batch starts from a zero state

    def batch(self, step: int, columns: slice = ...) -> Batch: ...


class Streams:
    """B contiguous pieces of a text side by side, T characters a step; the state is carried from step to step.

    Stream b of a text of n characters covers b·n//B … (b+1)·n//B. Each of its characters but the first is predicted once
    an epoch. A short text gets fewer streams, a very short one shorter steps. Raises CorpusError if n < 2.
    """

    fresh = False  # the state goes on from step to step, and from a stream's end to its beginning in the next epoch

    def __init__(
        self, part: Part | Excerpt, batch_size: int, seq_len: int, most: int | None = None
    ) -> None:
        n = len(part)
        if n < 2:
            raise CorpusError(
                f"a text of {n} characters: there is nothing to predict; give a longer one"
            )
        self.batch_size = B = min(batch_size, max(1, n // (seq_len + 1)))
        self._borders = np.array([b * n // B for b in range(B + 1)], np.int64)
        self._lengths = np.diff(self._borders) - 1  # predictions of each stream
        if most is not None:
            self._lengths = np.minimum(self._lengths, max(1, most // B))
        longest = int(self._lengths.max())
        self.seq_len = min(seq_len, longest)
        self.steps_per_epoch = -(-longest // self.seq_len)
        self.predictions = int(self._lengths.sum())  # per epoch
        self.part = part
        self._steps_ahead = max(1, _AHEAD // (B * self.seq_len))
        self._ahead: dict[
            tuple[int, int], tuple[int, npt.NDArray[Any]]
        ] = {}  # the last block by range of columns

    def batch(self, step: int, columns: slice = _ALL) -> Batch:
        """The batch of `step`, which counts on over epochs, or some columns of it; it doesn't depend on earlier calls."""
        step %= self.steps_per_epoch
        left = np.clip(self._lengths - step * self.seq_len, 0, self.seq_len)
        T = int(left.max())
        first, stop, _ = columns.indices(self.batch_size)
        block = self._read_ahead(step // self._steps_ahead, first, stop)
        at = step % self._steps_ahead * self.seq_len
        x = np.ascontiguousarray(block[:, at : at + T].T, np.intp)
        y = np.ascontiguousarray(block[:, at + 1 : at + T + 1].T, np.intp)
        if left.min() == T:
            return Batch(x, y, None, T * self.batch_size)
        lengths = left[first:stop].astype(np.intp)
        beyond = np.arange(T)[:, None] >= lengths
        x[beyond] = y[beyond] = 0
        return Batch(x, y, lengths, int(left.sum()))

    def extent(self, columns: slice) -> tuple[int, int]:
        """(start, stop) in the part of all that these streams, which stand side by side, ever read."""
        first, stop, _ = columns.indices(self.batch_size)
        return int(self._borders[first]), int(self._borders[stop])

    def _read_ahead(self, number: int, first: int, stop: int) -> npt.NDArray[Any]:
        """The characters of streams first … stop−1 for a block of steps and one more, (columns, ≤ steps·T + 1), 0 behind."""
        known, block = self._ahead.get((first, stop), (-1, None))
        if block is not None and known == number:
            return block
        width = self._steps_ahead * self.seq_len
        starts = self._borders[first:stop] + number * width
        ends = np.minimum(starts + width + 1, self._borders[first + 1 : stop + 1])
        block = np.zeros((len(starts), width + 1), self.part.store.dtype)
        for row, start, end in zip(block, starts.tolist(), ends.tolist(), strict=True):
            row[: max(0, end - start)] = self.part.read(min(start, end), end)
        self._ahead[first, stop] = (number, block)
        return block


class Items:
    """Texts of their own, such as names: item i is the symbols before its newline."""

    def __init__(self, symbols: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> None:
        self.symbols = symbols  # all items, one after the other
        self.starts = starts  # (items + 1,): item i is symbols[starts[i] : starts[i + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> npt.NDArray[Any]:
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of {len(self)}")
        return self.symbols[self.starts[i] : self.starts[i + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(items,) symbols of each, without the newline."""
        return np.diff(self.starts)

    @property
    def transitions(self) -> int:
        """Predictions in all items: each symbol and the newline behind."""
        return int(self.starts[-1] - self.starts[0]) + len(self)

    def joined(self, newline: int) -> npt.NDArray[Any]:
        """(transitions,) what is to be predicted: each item and the newline behind, one after the other."""
        whole = np.full(self.transitions, newline, self.symbols.dtype)
        ends = np.cumsum(self.lengths + 1) - 1
        inside = np.ones(len(whole), bool)
        inside[ends] = False
        whole[inside] = self.symbols[self.starts[0] : self.starts[-1]]
        return whole

    def first(self, characters: int | None) -> Items:
        """Return the first items of at most so many characters together, one at least; None: all."""
        ends = self.starts[1:] - self.starts[0] + np.arange(1, len(self) + 1)
        count = len(self) if characters is None else np.searchsorted(ends, characters, "right")
        return Items(self.symbols, self.starts[: max(1, int(count)) + 1])

    def split(self, val_fraction: float) -> tuple[Items, Items]:
        """(training, validation): the first floor((1 − F)·n) items train, the others validate."""
        border = training_share(len(self), val_fraction)
        return Items(self.symbols, self.starts[: border + 1]), Items(
            self.symbols, self.starts[border:]
        )


def items_of(indices: npt.NDArray[Any], newline: int) -> Items:
    """All lines of one encoded text in order, repeats kept, empty ones left out."""
    ends = np.append(np.flatnonzero(indices == newline), len(indices))
    lengths = np.diff(ends, prepend=-1) - 1
    return Items(
        indices[indices != newline], np.append(0, np.cumsum(lengths[lengths > 0])).astype(np.int64)
    )


def read_items(corpus: Corpus) -> Items:
    """The distinct lines of a corpus, empty ones left out, in an order that depends on nothing but the lines themselves.

    Raises CorpusError if there is no newline or no line.
    """
    if "\n" not in corpus.vocabulary:
        raise CorpusError(
            "the corpus has no newline, and with --lines every line is an item; give a text of several lines"
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
    """The lines of the text start … stop−1, read piece by piece."""
    begun: list[str] = []  # pieces of the line that hasn't ended yet
    for at in range(start, stop, _READ):
        first, *others = corpus.vocabulary.decode(
            corpus.store.read(at, min(at + _READ, stop))
        ).split("\n")
        begun.append(first)
        if others:
            yield "".join(begun)
            yield from others[:-1]
            begun = others[-1:]
    yield "".join(begun)


class ItemBatches:
    """Batches of B items, each from a zero state: the newline, then the item, and the item, then the newline, as targets.

    Every epoch has an order of its own from (seed, epoch); seed None: by length, always the same. Items of much the same
    length stand together, so that little is padded. In the last batch columns without an item have length 0.
    """

    fresh = True  # every batch starts from a zero state

    def __init__(
        self, items: Items, batch_size: int, newline: int, seed: int | None = None
    ) -> None:
        if not len(items):
            raise CorpusError("there are no items to predict; give more lines")
        self.batch_size = min(batch_size, len(items))
        self.seq_len = int(items.lengths.max()) + 1
        self.steps_per_epoch = -(-len(items) // self.batch_size)
        self.predictions = items.transitions  # per epoch
        self._items, self._newline, self._seed = items, newline, seed
        self._lengths = items.lengths
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def batch(self, step: int, columns: slice = _ALL) -> Batch:
        """The batch of `step`, which counts on over epochs, or some columns of it; it doesn't depend on earlier calls."""
        epoch, step = divmod(step, self.steps_per_epoch)
        chosen = self._rows(epoch)[step]
        all_lengths = np.where(chosen >= 0, self._lengths[chosen] + 1, 0)
        T, predictions = int(all_lengths.max()), int(all_lengths.sum())
        chosen, lengths = chosen[columns], all_lengths[columns].astype(np.intp)
        rows = np.arange(T)[:, None]
        inside = rows < lengths - 1
        source = self._items.symbols.take(self._items.starts[chosen] + rows, mode="clip")
        y = np.where(inside, source, 0).astype(np.intp)
        x = np.zeros_like(y)
        x[1:] = y[:-1]
        x[0, lengths > 0] = self._newline
        y[rows == lengths - 1] = self._newline
        return Batch(x, y, lengths, predictions)

    def _rows(self, epoch: int) -> npt.NDArray[np.int64]:
        """The items of each batch of an epoch, (steps, B); −1 where the last batch has no item."""
        epoch = 0 if self._seed is None else epoch
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._arrange(epoch))
        return self._order[1]

    def _arrange(self, epoch: int) -> npt.NDArray[np.int64]:
        n, B, steps = len(self._items), self.batch_size, self.steps_per_epoch
        rows = np.full(steps * B, -1, np.int64)
        if self._seed is None:
            rows[:n] = np.argsort(self._lengths, kind="stable")
            return rows.reshape(steps, B)
        rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([self._seed, Stream.ORDER, epoch]))
        )
        shuffled = rng.permutation(n)
        rows[:n] = shuffled[np.lexsort((self._lengths[shuffled], np.arange(n) // (_POOL * B)))]
        return rows.reshape(steps, B)[rng.permutation(steps)]
