"""The floor: what counting alone achieves on the same split, to hold a network against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.text.vocabulary import Indices

Array = npt.NDArray[Any]
_DENSE = 4  # a table of all keys is filled if it has at most this many entries a position; else the keys are sorted


@dataclass(frozen=True)
class Floor:
    """The best n-gram model of a split: its nats per character on the validation part, its order, and all orders' nats."""

    nats: float
    order: int
    all: tuple[float, ...]


def floor(
    train: Indices, val: Indices, vocabulary_size: int, boundary: int | None = None
) -> Floor | None:
    """Return the best of the Witten-Bell models of order 1 to 7, None if a part is too short to say anything."""
    if len(train) < 2 or len(val) < 1:
        return None
    nats = witten_bell(train, val, vocabulary_size, boundary=boundary)
    best = min(nats)
    return Floor(best, nats.index(best) + 1, nats)


def witten_bell(
    train: Indices,
    val: Indices,
    vocabulary_size: int,
    max_order: int = 7,
    boundary: int | None = None,
) -> tuple[float, ...]:
    """Return the nats per character on `val` of interpolated n-gram models of order 1 to `max_order`, counted on `train`.

    p_n(w|c) = (count(c, w) + T(c) p_{n−1}(w|c')) / (count(c) + T(c)), where c are the n − 1 characters before w, c' is
    c without its first, T(c) the number of distinct characters seen after c, and p_0 = 1/N; p_n = p_{n−1} where c was
    never seen (Witten & Bell 1991, method C, interpolated). `val` follows `train`: its first contexts reach back.

    With a `boundary`, with which `train` begins, each one ends an item and begins the next: contexts reach back to it and
    no further (a longer order leaves p as it is), and the first of all isn't counted.

    A context of order n + 1 is the n-gram that ends before w, so each order ranks (context, character) pairs once, and
    the ranks shifted by one position are the next order's contexts. About 30 bytes a character are held at a time.
    """
    text = np.concatenate([train, val])
    behind = None if boundary is None else _since(text, boundary)
    context, contexts = np.zeros(len(text), np.int32), 1
    p = np.full(len(val), 1 / vocabulary_size)
    nats = []
    for order in range(1, max_order + 1):
        after = text[order - 1 :]  # w, from the first position with a whole context on
        keys = context.astype(np.int64)
        keys *= vocabulary_size
        keys += after
        gram, grams = _ranks(keys, contexts * vocabulary_size)
        del keys
        inside = None if behind is None else behind[order - 1 :] >= order - 1
        _refine(p, context, gram, max(0, len(train) - order + 1), (contexts, grams), inside)
        nats.append(float(-np.log(p).mean()))
        context, contexts = gram[:-1], grams
    return tuple(nats)


def _ranks(keys: Array, space: int) -> tuple[Array, int]:
    """Return the rank of each key in 0 … space − 1 among the distinct ones, int32, and their number; overwrites `keys`."""
    if space <= _DENSE * len(keys):
        seen = np.zeros(space, bool)
        seen[keys] = True
        ranks = np.cumsum(seen, dtype=np.int32)
        return ranks[keys] - 1, int(np.count_nonzero(seen))
    order, ordered = _sorted(keys, space)
    new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    del ordered
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
    return ranks, int(np.count_nonzero(new))


def _sorted(keys: Array, space: int) -> tuple[Array, Array]:
    """Return the positions of the keys in rising order, and the keys in that order; `keys` is overwritten.

    Key and position in one integer, where both fit, sort in place several times faster than positions by their keys.
    """
    bits = len(keys).bit_length()
    if space.bit_length() + bits > 63:
        order = keys.argsort()
        return order, keys[order]
    keys <<= bits
    keys |= np.arange(len(keys))
    keys.sort()
    order = keys & ((1 << bits) - 1)
    keys >>= bits
    return order, keys


def _since(text: Array, boundary: int) -> Array:
    """Return how many symbols each position may look back at: those since the boundary before it, that one included."""
    at = np.arange(len(text), dtype=np.int32)
    last = np.maximum.accumulate(np.where(text == boundary, at, 0))
    since: Array = at - np.append(1, last[:-1])  # −1 at the first of all
    return since


def _refine(
    p: Array,
    context: Array,
    gram: Array,
    counted: int,
    sizes: tuple[int, int],
    inside: Array | None,
) -> None:
    """p_{n−1} → p_n in place: the first `counted` positions of `context` and `gram` train, the last are those of p.

    `inside`: which positions have a whole context, None for all of them.
    """
    training = slice(counted) if inside is None else np.flatnonzero(inside[:counted])
    count = np.bincount(context[training], minlength=sizes[0])
    gram_count = np.bincount(gram[training], minlength=sizes[1])
    follows = np.zeros(sizes[1], np.int32)  # the context of each gram
    follows[gram] = context
    distinct = np.bincount(follows[gram_count > 0], minlength=sizes[0])
    scored = min(len(p), len(gram))  # in a very short text the first of val have no whole context
    if not scored:
        return
    c, w = context[-scored:], gram[-scored:]
    total, T = count[c], distinct[c]
    known = total > 0 if inside is None else (total > 0) & inside[-scored:]
    lower = p[-scored:]
    lower[known] = ((gram_count[w] + T * lower) / np.maximum(total + T, 1))[known]
