"""The n-gram floor: the loss that counting alone reaches on the same split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from charrnn.text.batches import Items
from charrnn.text.corpus import Part
from charrnn.text.vocabulary import Indices

LIMIT = 2_500_000  # characters counted at most; each takes up to 54 bytes
MOST = 1 << 18  # distinct characters; _ranks has 63 bits for LIMIT² · MOST
_DENSE = 2  # use a table of all keys if it has at most this many entries a position; else sort


@dataclass(frozen=True)
class Floor:
    """The best n-gram model of a split, if it is known."""

    nats: float | None = None  # per character of the validation part
    order: int | None = None
    notes: tuple[str, ...] = ()  # says so if only a part of the text was counted


def floor(training: Part | Items, validation: Part | Items, N: int) -> Floor:
    """Return the best of the Witten-Bell models of order 1 to 7.

    Of a text longer than LIMIT, only the characters on both sides of the border between the two
    parts are counted: so many of each that their ratio stays.
    """
    sizes = training.characters, validation.characters
    if sizes[0] < 2 or not sizes[1] or N > MOST:
        return Floor()
    last, first = (math.ceil(size * min(1, LIMIT / sum(sizes))) for size in sizes)
    text = np.concatenate([training.read(sizes[0] - last, sizes[0]), validation.read(0, first)])
    boundary = int(training.symbols[0]) if isinstance(training, Items) else None
    if boundary is not None:
        text = np.insert(text, 0, boundary)
    nats = witten_bell(text, len(text) - first, N, boundary=boundary)
    note = (
        f"the n-gram floor is that of the last {last:,} characters of the training part and the "
        f"first {first:,} of the validation part"
    )
    return Floor(min(nats), nats.index(min(nats)) + 1, (note,) if sum(sizes) > LIMIT else ())


def witten_bell(
    text: Indices, border: int, N: int, max_order: int = 7, boundary: int | None = None
) -> tuple[float, ...]:
    """Return the nats per character of text[border:] under n-gram models of order 1 to `max_order`.

    p_n(w|c) = (count(c, w) + T(c) p_{n−1}(w|c')) / (count(c) + T(c)), where c are the n − 1
    characters before w, c' is c without its first, T(c) the number of distinct characters seen
    after c, and p_0 = 1/N; p_n = p_{n−1} where c was never seen (Witten & Bell 1991, method C,
    interpolated). They are counted in text[:border], into which the first contexts reach back.

    With a `boundary`, with which the text begins, each one ends an item and begins the next: a
    context reaches back to it and no further (a longer order leaves p as it is), and the first
    boundary isn't counted.

    A context of order n + 1 is the n-gram that ends before w, so each order ranks (context,
    character) pairs once, and the ranks shifted by one position are the next order's contexts.
    """
    behind = None if boundary is None else _since(text, boundary)
    context, contexts = np.zeros(len(text), np.int32), 1
    p = np.full(len(text) - border, 1 / N)
    nats = []
    for order in range(1, max_order + 1):
        gram, grams = _ranks(context, contexts, text[order - 1 :], N)
        inside = None if behind is None else behind[order - 1 :] >= order - 1
        _refine(p, context, gram, max(0, border - order + 1), (contexts, grams), inside)
        nats.append(max(0.0, float(-np.log(p).mean())))  # never −0
        context, contexts = gram[:-1], grams
    return tuple(nats)


def _ranks(context: Indices, contexts: int, after: Indices, N: int) -> tuple[Indices, int]:
    """Return the rank of each pair (context, character) among the distinct pairs, and their number.

    To sort, key and position are packed into one integer: that sorts in place, several times
    faster than np.unique.
    """
    keys, space, bits = context.astype(np.int64), contexts * N, len(context).bit_length()
    keys *= N
    keys += after
    if space <= _DENSE * len(keys):
        seen = np.zeros(space, bool)
        seen[keys] = True
        ranks = np.cumsum(seen, dtype=np.int32)
        return ranks[keys] - 1, int(seen.sum())
    keys <<= bits
    keys |= np.arange(len(keys))
    keys.sort()
    position = keys & ((1 << bits) - 1)
    keys >>= bits
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    del keys
    ranks = np.empty(len(new), np.int32)
    ranks[position] = np.cumsum(new, dtype=np.int32) - 1
    return ranks, int(new.sum())


def _since(text: Indices, boundary: int) -> Indices:
    """Return how many symbols before each position belong to its context.

    They are those since the last boundary, which counts too; −1 for the first position of all.
    """
    at = np.arange(len(text), dtype=np.int32)
    last = np.maximum.accumulate(np.where(text == boundary, at, 0))
    since: Indices = at - np.append(1, last[:-1])
    return since


def _refine(
    p: Indices,
    context: Indices,
    gram: Indices,
    counted: int,
    sizes: tuple[int, int],
    inside: Indices | None,
) -> None:
    """Turn p_{n−1} into p_n in place: the first `counted` positions train, the last are those of p.

    inside: which positions have a whole context, None for all of them.
    """
    training = slice(counted) if inside is None else np.flatnonzero(inside[:counted])
    count = _count(context[training], sizes[0])
    gram_count = _count(gram[training], sizes[1])
    follows = np.zeros(sizes[1], np.int32)  # the context of each gram
    follows[gram] = context
    distinct = _count(follows[gram_count > 0], sizes[0])
    del follows
    scored = min(len(p), len(gram))  # in a very short text the first of val have no whole context
    if not scored:
        return
    c, w, lower = context[-scored:], gram[-scored:], p[-scored:]
    total, T = count[c], distinct[c]
    known = total > 0 if inside is None else (total > 0) & inside[-scored:]
    refined = T * lower
    refined += gram_count[w]
    total += T
    refined /= np.maximum(total, 1, out=total)
    np.copyto(lower, refined, where=known)


def _count(ranks: Indices, size: int) -> Indices:
    counts = np.zeros(size, np.int32)
    np.add.at(counts, ranks, np.int32(1))  # np.bincount would take 16 more bytes a character
    return counts
