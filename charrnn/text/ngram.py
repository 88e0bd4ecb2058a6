"""The n-gram floor: the loss that counting alone reaches on the same split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from charrnn.arrays import Array
from charrnn.text.batches import Items
from charrnn.text.corpus import Part
from charrnn.text.vocabulary import Indices

LIMIT = 2_500_000  # most characters to count; each takes up to 54 bytes of memory
MOST = 1 << 18  # most distinct characters: in _ranks, LIMIT² · MOST must fit in 63 bits
_DENSE = 2  # use a table of all keys if it has at most this many entries per position; else sort


@dataclass(frozen=True)
class Floor:
    """The best n-gram model of a split, if it is known."""

    nats: float | None = None  # per character of the validation part
    order: int | None = None
    notes: tuple[str, ...] = ()  # not empty if only a part of the text was counted


def floor(training: Part | Items, validation: Part | Items, N: int) -> Floor:
    """Return the best of the Witten-Bell models of order 1 to 7.

    If the text is longer than LIMIT, count only the characters nearest the border between the two
    parts, in the same ratio as the parts.
    """
    sizes = training.characters, validation.characters
    if not all(sizes) or N > MOST:
        return Floor()
    last, first = (math.ceil(size * min(1, LIMIT / sum(sizes))) for size in sizes)
    text = np.concatenate([training.read(sizes[0] - last, sizes[0]), validation.read(0, first)])
    boundary = int(training.symbols[0]) if isinstance(training, Items) else None
    if boundary is not None:
        text = np.insert(text, 0, boundary)
    nats = witten_bell(text, len(text) - first, N, boundary=boundary)
    note = (
        f"the n-gram floor was computed from the last {last:,} characters of the training part and "
        f"the first {first:,} of the validation part"
    )
    return Floor(min(nats), nats.index(min(nats)) + 1, (note,) if sum(sizes) > LIMIT else ())


def witten_bell(
    text: Indices, border: int, N: int, max_order: int = 7, boundary: int | None = None
) -> tuple[float, ...]:
    """Return the nats per character of text[border:] under n-gram models of order 1 to `max_order`.

    p_n(w|c) = (count(c, w) + T(c) p_{n−1}(w|c')) / (count(c) + T(c)), where c are the n − 1
    characters before w, c' is c without its first, T(c) the number of distinct characters seen
    after c, and p_0 = 1/N; p_n = p_{n−1} where c was never seen (Witten & Bell 1991, method C,
    interpolated). The counts are those of text[:border]; the first contexts of text[border:]
    reach back into it.

    `boundary` is the character between items, which the text must begin with. No context reaches
    back beyond one; where c would, p_n = p_{n−1}.

    Each order ranks its (context, character) pairs. Shifted by one position, the ranks are the
    contexts of the next order. Context 0 stands for those that would reach beyond a boundary.
    """
    context, contexts = np.ones(len(text), np.int32), 2
    p = np.full(len(text) - border, 1 / N)
    nats = []
    for order in range(1, max_order + 1):
        after = text[order - 1 :]
        gram, grams = _ranks(context, contexts, after, N)
        _refine(p, context, gram, max(0, border - order + 1), (contexts, grams))
        nats.append(max(0.0, float(-np.log(p).mean())))  # never −0
        if boundary is not None and order > 1:
            gram[(context == 0) | (after == boundary)] = 0
        context, contexts = gram[:-1], grams
    return tuple(nats)


def _ranks(context: Indices, contexts: int, after: Indices, N: int) -> tuple[Indices, int]:
    """Return the rank, from 1, of each (context, character) pair among the distinct pairs.

    Also return the number of ranks, 0 included. For sorting, key and position are packed into one
    integer, which sorts in place and several times faster than np.unique.
    """
    keys, space, bits = context.astype(np.int64), contexts * N, len(context).bit_length()
    keys *= N
    keys += after
    if space <= _DENSE * len(keys):
        seen = np.zeros(space, bool)
        seen[keys] = True
        ranks = np.cumsum(seen, dtype=np.int32)
        return ranks[keys], int(seen.sum()) + 1
    keys <<= bits
    keys |= np.arange(len(keys))
    keys.sort()
    position = keys & ((1 << bits) - 1)
    keys >>= bits
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    del keys
    ranks = np.empty(len(new), np.int32)
    ranks[position] = np.cumsum(new, dtype=np.int32)
    return ranks, int(new.sum()) + 1


def _refine(
    p: Array, context: Indices, gram: Indices, counted: int, sizes: tuple[int, int]
) -> None:
    """Turn p_{n−1} into p_n in place, with counts from the first `counted` positions.

    p holds only the positions to score, the last ones. sizes: the number of contexts and of grams.
    """
    count, gram_count = _count(context[:counted], sizes[0]), _count(gram[:counted], sizes[1])
    follows = np.zeros(sizes[1], np.int32)  # the context of each gram
    follows[gram] = context
    distinct = _count(follows[gram_count > 0], sizes[0])
    del follows
    count[0] = 0
    scored = len(gram) - min(len(p), len(gram))  # the first of a short text lack a full context
    c, w, lower = context[scored:], gram[scored:], p[len(p) - len(gram) + scored :]
    total, T = count[c], distinct[c]
    known = total > 0
    refined = T * lower
    refined += gram_count[w]
    total += T
    refined /= np.maximum(total, 1, out=total)
    np.copyto(lower, refined, where=known)


def _count(ranks: Indices, size: int) -> Indices:
    counts = np.zeros(size, np.int32)
    np.add.at(counts, ranks, np.int32(1))  # np.bincount would take 16 more bytes per character
    return counts
