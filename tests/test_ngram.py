"""The n-gram floor against a slow model that keeps dictionaries, and against published figures."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from charrnn.text import ngram as ngram_module
from charrnn.text.batches import Items
from charrnn.text.corpus import Part, Store
from charrnn.text.ngram import Floor, floor, witten_bell as counted


def witten_bell(train, val, N, *options):
    """The nats on `val` by what is counted in `train`."""
    return counted(np.concatenate([train, val]), len(train), N, *options)


texts = st.lists(st.integers(0, 3), max_size=60)


def slow_witten_bell(train, val, N, max_order):
    """The same by its recursive definition, one character at a time."""
    grams = Counter(
        tuple(train[i : i + n]) for n in range(max_order + 1) for i in range(len(train) - n + 1)
    )
    distinct, total = Counter(), Counter()
    for gram, count in grams.items():
        if gram:
            distinct[gram[:-1]] += 1
            total[gram[:-1]] += count

    def probability(context, w):
        lower = probability(context[1:], w) if context else 1 / N
        c = tuple(context)
        if not total[c]:
            return lower
        return (grams[(*c, w)] + distinct[c] * lower) / (total[c] + distinct[c])

    text = train + val
    return [
        -sum(
            math.log(probability(tuple(text[max(0, i - n + 1) : i]), text[i]))
            for i in range(len(train), len(text))
        )
        / len(val)
        for n in range(1, max_order + 1)
    ]


@given(texts, texts.filter(bool))
def test_every_order_agrees_with_a_model_that_keeps_dictionaries(train, val):
    found = witten_bell(np.array(train, np.uint8), np.array(val, np.uint8), 4)
    assert found == pytest.approx(slow_witten_bell(train, val, 4, 7), rel=1e-12)


@given(st.lists(st.integers(0, 90), min_size=2, max_size=60), st.integers(91, 2**40))
def test_large_vocabularies_are_counted_by_sorting_and_agree_too(text, N):
    train, val = text[: len(text) // 2], text[len(text) // 2 :]
    found = witten_bell(np.array(train, np.uint32), np.array(val, np.uint32), N, 3)
    assert found == pytest.approx(slow_witten_bell(train, val, N, 3), rel=1e-12)


def slow_items(train, val, N, max_order):
    """The Witten-Bell models of items by their definition: 0 stands before and behind each, and no
    context goes beyond. The 0 before the first item is counted like the others.
    """
    grams = Counter([(0,)])
    for item in train:
        whole = (0, *item, 0)
        grams.update(
            whole[i - n + 1 : i + 1] for i in range(1, len(whole)) for n in range(1, i + 2)
        )
    after = {}
    for gram, count in grams.items():
        after.setdefault(gram[:-1], []).append((gram[-1], count))

    def probability(context, w):
        lower = probability(context[1:], w) if context else 1 / N
        seen = after.get(context, [])
        return (
            (dict(seen).get(w, 0) + len(seen) * lower)
            / (sum(count for _, count in seen) + len(seen))
            if seen
            else lower
        )

    def nats(order):
        pairs = [
            ((0, *item)[max(0, i - order + 2) : i + 1], w)
            for item in val
            for i, w in enumerate((*item, 0))
        ]
        return -sum(math.log(probability(context, w)) for context, w in pairs) / len(pairs)

    return [nats(order) for order in range(1, max_order + 1)]


items = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=9)


@given(items, items)
def test_items_agree_with_a_model_that_keeps_dictionaries(train, val):
    stream = [
        np.array([symbol for item in part for symbol in (*item, 0)], np.uint8)
        for part in (train, val)
    ]
    found = witten_bell(np.insert(stream[0], 0, 0), stream[1], 4, 7, 0)
    assert found == pytest.approx(slow_items(train, val, 4, 7), rel=1e-12)


def test_the_text_is_left_as_it_was():
    text = np.array([0, 1, 0, 2, 1, 1, 0], np.uint8)
    before = text.copy()
    counted(text, 5, 3)
    assert np.array_equal(text, before)


def test_a_text_of_one_symbol_costs_nothing():
    assert witten_bell(np.zeros(9, np.uint8), np.zeros(3, np.uint8), 1) == (0.0,) * 7


def part(indices):
    """A text of its own."""
    store = Store(indices.dtype)
    store.append(indices)
    return Part(store, [(0, len(indices))])


def test_a_certain_text_has_a_floor_of_0_and_not_of_minus_0():
    text = np.zeros(100, np.uint8)
    assert {math.copysign(1, nats) for nats in witten_bell(text, text, 1)} == {1}


def test_the_floor_is_the_best_order():
    text = np.tile([0, 1, 1, 2, 0, 2], 60).astype(np.uint8)
    found = floor(part(text[:300]), part(text[300:]), 3)
    assert found is not None
    nats = witten_bell(text[:300], text[300:], 3)
    assert (found.nats, found.order) == (min(nats), nats.index(min(nats)) + 1)
    assert found.order > 1
    assert found.notes == ()


def test_only_the_text_around_the_border_of_a_long_text_is_counted(monkeypatch):
    text = np.random.default_rng(0).integers(0, 3, 1000).astype(np.uint8)
    monkeypatch.setattr(ngram_module, "LIMIT", 500)
    found = floor(part(text[:900]), part(text[900:]), 3)
    assert found is not None
    assert found.nats == min(witten_bell(text[450:900], text[900:950], 3))
    assert "last 450 characters of the training part and the first 50 of" in found.notes[0]
    monkeypatch.setattr(ngram_module, "LIMIT", 1000)
    whole = floor(part(text[:900]), part(text[900:]), 3)
    assert whole is not None
    assert (whole.nats, whole.notes) == (min(witten_bell(text[:900], text[900:], 3)), ())


@pytest.mark.parametrize(("N", "val"), [(3, 0.1), (65, 0.1), (70_000, 0.1), (70_000, 0.9)])
def test_a_long_text_is_counted_in_bounded_memory(N, val, monkeypatch, peak_memory):
    monkeypatch.setattr(ngram_module, "LIMIT", 25_000)  # a hundredth of what it is
    text = np.random.default_rng(0).integers(0, N, 200_000).astype(np.uint32)
    border = int(len(text) * (1 - val))
    training, validation = part(text[:border]), part(text[border:])
    peak = peak_memory(lambda: floor(training, validation, N))
    assert peak < 1_500_000  # a hundredth of 150 MB


def test_the_floor_of_items_knows_their_ends():
    symbols = np.array([0, 1, 2, 0, 2, 0, 1, 0, 1, 2, 0], np.uint8)
    train, val = Items(symbols).split(0.25)
    found = floor(train, val, 3)
    assert found is not None
    assert found.nats == pytest.approx(
        min(slow_items([[1, 2], [2], [1]], [[1, 2]], 3, 7)), rel=1e-12
    )


@pytest.mark.parametrize(("train", "val", "N"), [(0, 5, 2), (5, 0, 2), (5, 5, 1 << 19)])
def test_there_is_no_floor_where_a_part_is_empty_or_keys_have_no_room(train, val, N):
    assert floor(part(np.zeros(train, np.uint8)), part(np.zeros(val, np.uint8)), N) == Floor()


def test_the_largest_keys_fit_into_63_bits():
    positions = ngram_module.LIMIT + 3  # shares are rounded up, and items begin with a boundary
    space = positions * ngram_module.MOST
    assert space.bit_length() + positions.bit_length() <= 63


def test_the_published_figures_on_shakespeare_are_met(shakespeare):
    characters = np.frombuffer(shakespeare.read_bytes(), np.uint8)
    indices = np.searchsorted(np.unique(characters), characters).astype(np.uint8)
    found = witten_bell(indices[:1_003_854], indices[1_003_854:], 65)
    assert found == pytest.approx((3.347, 2.486, 2.049, 1.774, 1.669, 1.698, 1.779), abs=1e-3)
