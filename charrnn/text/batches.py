"""Batches: parallel streams of contiguous text, or distinct lines of similar length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from charrnn.config import Stream
from charrnn.errors import CorpusError
from charrnn.text.corpus import Corpus, Part, training_share
from charrnn.text.vocabulary import Indices

Symbols = npt.NDArray[np.intp]
_AHEAD = 1 << 16  # characters that Streams reads at once, all streams together
_POOL = 32  # batches within which items are sorted by length
LONGEST = 512  # most characters of an item in one batch; a longer item takes several batches
_READ = 1 << 22  # characters that read_items reads at once


@dataclass(frozen=True)
class Batch:
    """What one step learns from: at row t, column b reads x[t, b] and predicts y[t, b]."""

    x: Symbols  # (T, B)
    y: Symbols  # (T, B)
    lengths: Symbols | None  # (B,) predictions per column, None: T; x and y are 0 after them
    predictions: int  # of the whole batch, even if only some of its columns are here
    fresh: bool  # starts from a zero state; else column b continues that of the previous batch


def _batch(symbols: Indices, lengths: Symbols, columns: slice, *, fresh: bool) -> Batch:
    """Return some columns of a batch.

    symbols (T + 1, these columns): each row is the input whose target is the next row. lengths
    (B,): the number of predictions in each column of the whole batch.
    """
    x, y = symbols[:-1].astype(np.intp, "C"), symbols[1:].astype(np.intp, "C")
    own = None
    if lengths.min() < len(x):
        own = lengths[columns]
        beyond = np.arange(len(x))[:, None] >= own
        x[beyond] = y[beyond] = 0
    return Batch(x, y, own, int(lengths.sum()), fresh)


class Streams:
    """B contiguous pieces of a text side by side, T characters per step.

    The state is carried over, even from a stream's end to its beginning in the next epoch.

    Stream b of a text of n characters covers b·n//B … (b+1)·n//B. Each of its characters
    except the first is predicted once per epoch. With `most`, only the beginning of each stream is
    read: about `most` characters in all. The text must have at least 2 characters; a short one gets
    fewer streams, and a very short one also shorter steps.
    """

    def __init__(self, part: Part, batch_size: int, seq_len: int, most: int | None = None) -> None:
        n = part.characters
        self.part, self.batch_size = part, min(batch_size, max(1, n // (seq_len + 1)))
        self._borders = np.arange(self.batch_size + 1) * n // self.batch_size
        most = max(1, min(most or n, n) // self.batch_size)
        self._lengths = np.minimum(np.diff(self._borders) - 1, most)  # predictions of each stream
        longest = int(self._lengths.max())
        self.seq_len = min(seq_len, longest)
        self.steps_per_epoch = -(-longest // self.seq_len)
        self.predictions = int(self._lengths.sum())  # per epoch
        # A block is the characters of several steps, read at once; we keep the last one.
        self._width = self.seq_len * max(1, _AHEAD // (self.batch_size * self.seq_len))
        self._block, self._block_of = np.empty((0, 0)), (-1, slice(0))

    def batch(self, step: int, columns: slice = slice(None)) -> Batch:
        """Return the batch of `step`, or some of its columns; steps may come in any order.

        Step numbers continue across epochs: `step` belongs to epoch step // steps_per_epoch.
        """
        done = step % self.steps_per_epoch * self.seq_len
        left = np.clip(self._lengths - done, 0, self.seq_len)
        block, at = divmod(done, self._width)
        if self._block_of != (block, columns):
            self._block, self._block_of = self._read(block * self._width, columns), (block, columns)
        symbols = self._block[:, at : at + int(left.max()) + 1]
        return _batch(symbols.T, left, columns, fresh=False)

    def extent(self, columns: slice) -> tuple[int, int]:
        """Return (start, stop), the range of the part that these streams read."""
        first, stop, _ = columns.indices(self.batch_size)
        return int(self._borders[first]), int(self._borders[stop])

    def _read(self, done: int, columns: slice) -> Indices:
        """Return width + 1 characters of each stream from `done` on, with 0 past a stream's end."""
        starts, stops = self._borders[:-1][columns] + done, self._borders[1:][columns]
        block = np.zeros((len(starts), self._width + 1), self.part.store.dtype)
        for row, start, stop in zip(block, starts.tolist(), stops.tolist(), strict=True):
            found = self.part.read(min(start, stop), min(start + len(row), stop))
            row[: len(found)] = found
        return block


@dataclass(frozen=True)
class Items:
    """Separate texts, such as names, each between two newlines."""

    symbols: Indices  # newline, item, newline, item, …, newline
    notes: Sequence[str] = ()  # what was changed or left out, one line each

    @cached_property
    def starts(self) -> Symbols:
        """The position of the newline before each item and of the last newline, (items + 1,)."""
        return np.flatnonzero(self.symbols == self.symbols[0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def characters(self) -> int:
        """The number of characters to predict: those of each item and the newline after it."""
        return len(self.symbols) - 1

    def read(self, start: int, stop: int) -> Indices:
        """Return characters start … stop−1 of those to predict, (stop − start,)."""
        return self.symbols[1 + start : 1 + stop]

    def first(self, most: int | None) -> Items:
        """Return the first items, at least one, that have at most `most` characters in total."""
        count = np.searchsorted(self.starts[1:], most or self.characters, "right")
        return self._cut(max(1, int(count)))[0]

    def split(self, val_fraction: float) -> tuple[Items, Items]:
        """Return (training, validation): the first floor((1 − F)·n) items and the rest."""
        return self._cut(training_share(len(self), val_fraction))

    def _cut(self, count: int) -> tuple[Items, Items]:
        border = int(self.starts[count])
        return Items(self.symbols[: border + 1]), Items(self.symbols[border:])


def read_items(corpus: Corpus) -> Items:
    """Return the distinct nonempty lines of a corpus, in an order that depends only on them.

    Raises CorpusError if there is no newline, or nothing but empty lines.
    """
    counts = Counter(_lines(corpus))
    if "\n" not in corpus.vocabulary or not counts:
        raise CorpusError(
            "--lines makes every line an item, but the corpus has no newline, or nothing but "
            "empty lines; give a text of several lines"
        )
    ordered = sorted(counts, key=lambda line: blake2b(line.encode(), digest_size=16).digest())
    symbols = corpus.vocabulary.encode("\n".join(["", *ordered, ""]))
    return Items(symbols, [*corpus.notes, *_notes(counts)])


def _notes(counts: Counter[str]) -> Iterator[str]:
    """Yield notes about repeated and long lines; `counts` says how often each line occurs."""
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
    """Yield the nonempty lines of a corpus; the end of a text also ends a line."""
    for start, stop in corpus.texts:
        rest = ""
        for at in range(start, stop, _READ):
            indices = corpus.store.read(at, min(at + _READ, stop))
            *lines, rest = (rest + corpus.vocabulary.decode(indices)).split("\n")
            yield from filter(None, lines)
        if rest:
            yield rest


class ItemBatches:
    """Batches of B items, each read from a zero state; first input and last target are a newline.

    Each epoch has its own order, derived from (seed, epoch). Items of similar length are batched
    together, to keep padding small.

    Items longer than LONGEST are batched together too, the longest first. Such a batch is read in
    pieces of LONGEST over several steps, with the state carried over; a column ends with its item.
    A batch has fewer than B columns when no more items are left.
    """

    def __init__(self, items: Items, batch_size: int, seed: int = 0) -> None:
        self.batch_size = min(batch_size, len(items))
        self._items, self._seed = items, seed
        self._lengths = np.diff(items.starts)  # predictions per item
        self.seq_len = min(LONGEST, int(self._lengths.max()))
        self.predictions = items.characters  # per epoch
        self._epoch, self._steps = 0, self._arrange(0)
        self.steps_per_epoch = len(self._steps)

    def batch(self, step: int, columns: slice = slice(None)) -> Batch:
        """Return the batch of `step`, or some of its columns; steps may come in any order.

        Step numbers continue across epochs: `step` belongs to epoch step // steps_per_epoch.
        """
        epoch, step = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._steps = epoch, self._arrange(epoch)
        items, done = self._steps[step]
        items = items[self._lengths[items] > done]
        lengths = np.minimum(self._lengths[items] - done, LONGEST)
        at = self._items.starts[items[columns]] + done + np.arange(lengths.max() + 1)[:, None]
        symbols = self._items.symbols.take(at, mode="clip")
        return _batch(symbols, lengths, columns, fresh=not done)

    def _arrange(self, epoch: int) -> list[tuple[Symbols, int]]:
        """Return for each step (its items, how many characters of each were read before it)."""
        lengths, B = self._lengths, self.batch_size
        rng = np.random.default_rng([self._seed, Stream.ORDER, epoch])
        short = rng.permutation(np.flatnonzero(lengths <= LONGEST))
        short = short[np.lexsort((lengths[short], np.arange(len(short)) // (_POOL * B)))]
        longest = np.argsort(-lengths, kind="stable")[: len(lengths) - len(short)]
        groups = [some[at : at + B] for some in (short, longest) for at in range(0, len(some), B)]
        return [
            (groups[i], done)
            for i in rng.permutation(len(groups))
            for done in range(0, int(lengths[groups[i]].max()), LONGEST)
        ]


Batches = Streams | ItemBatches
