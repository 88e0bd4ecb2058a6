"""Streams and items against the plain definition: which character follows which, counted one by
one.
"""

import sys
from collections import Counter
from hashlib import blake2b
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from charrnn.errors import CorpusError
from charrnn.text import batches as batches_module
from charrnn.text.batches import ItemBatches, Items, Streams, read_items
from charrnn.text.corpus import Part, Store, read_corpus
from charrnn.text.vocabulary import Vocabulary

NAMES = Path(__file__).parents[2] / "shared" / "corpora" / "names.txt"
SIZES = {"n": st.integers(2, 400), "B": st.integers(1, 20), "T": st.integers(1, 40)}


def counting(n, pieces=1):
    """A text whose character at position p is p, in one extent or in several with gaps between
    them.
    """
    store = Store(np.uint16)
    borders = [n * i // pieces for i in range(pieces + 1)]
    extents = []
    for start, stop in pairwise(borders):
        store.append(np.array([9999]))
        extents.append((store.length, store.length + stop - start))
        store.append(np.arange(start, stop))
    return Part(store, extents)


def corpus_of(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode())))
        return read_corpus(["-"])


def items_from(*lines):
    text = "\n".join(["", *lines, ""])
    return Items(Vocabulary.of(text).encode(text))


def each(items):
    """The symbols of each item."""
    return [items.symbols[start + 1 : stop] for start, stop in pairwise(items.starts)]


def lines_of(corpus, items):
    return [corpus.vocabulary.decode(item) for item in each(items)]


def predictions(batch, column):
    """(read, predicted) of one column, and a check that nothing but 0 stands behind them."""
    length = len(batch.x) if batch.lengths is None else int(batch.lengths[column])
    assert not batch.x[length:, column].any()
    assert not batch.y[length:, column].any()
    return list(
        zip(batch.x[:length, column].tolist(), batch.y[:length, column].tolist(), strict=True)
    )


@given(**SIZES, pieces=st.integers(1, 4), ahead=st.sampled_from([1, 50, 1 << 16]))
def test_every_character_but_a_streams_first_is_predicted_once(n, B, T, pieces, ahead):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "_AHEAD", ahead)
        streams = Streams(counting(n, pieces), B, T)
        epoch = [streams.batch(step) for step in range(streams.steps_per_epoch)]
    for b in range(streams.batch_size):
        start, stop = b * n // streams.batch_size, (b + 1) * n // streams.batch_size
        read = [pair for batch in epoch for pair in predictions(batch, b)]
        assert read == [(p, p + 1) for p in range(start, stop - 1)]
    total = sum(batch.predictions for batch in epoch)
    assert streams.predictions == total == n - streams.batch_size


@given(**SIZES, cut=st.integers(0, 20), step=st.integers(0, 1000))
def test_slices_of_columns_make_up_the_batch(n, B, T, cut, step):
    streams = Streams(counting(n), B, T)
    whole, left, right = (
        streams.batch(step, columns) for columns in (slice(None), slice(0, cut), slice(cut, None))
    )
    np.testing.assert_array_equal(np.concatenate([left.x, right.x], axis=1), whole.x)
    np.testing.assert_array_equal(np.concatenate([left.y, right.y], axis=1), whole.y)
    assert left.predictions == right.predictions == whole.predictions
    _lengths_agree(whole, left, right)


def _lengths_agree(whole, left, right):
    if whole.lengths is None:
        assert left.lengths is right.lengths is None
        assert whole.x.size == whole.predictions
    else:
        assert left.lengths is not None
        assert right.lengths is not None
        assert [*left.lengths, *right.lengths] == [*whole.lengths]
        assert whole.lengths.sum() == whole.predictions


@given(**SIZES)
def test_a_short_text_gets_fewer_streams_and_a_very_short_one_shorter_steps(n, B, T):
    streams = Streams(counting(n), B, T)
    assert streams.batch_size == min(B, max(1, n // (T + 1)))
    assert streams.seq_len == min(T, n - 1)
    assert streams.batch(0).x.shape == (streams.seq_len, streams.batch_size)


@given(**SIZES)
def test_a_column_is_short_only_in_the_last_batch_and_by_at_most_one(n, B, T):
    streams = Streams(counting(n), B, T)
    epoch = [streams.batch(step) for step in range(streams.steps_per_epoch)]
    assert all(batch.lengths is None and len(batch.x) == streams.seq_len for batch in epoch[:-1])
    if epoch[-1].lengths is not None:
        assert set(epoch[-1].lengths.tolist()) == {len(epoch[-1].x) - 1, len(epoch[-1].x)}


def test_steps_count_on_over_epochs_in_any_order():
    streams = Streams(counting(100), 3, 7)
    assert streams.steps_per_epoch == 5
    once = [streams.batch(step).x.tolist() for step in range(5)]
    for step in (14, 3, 5, 0, 9):
        assert streams.batch(step).x.tolist() == once[step % 5]
    assert not streams.batch(0).fresh


def test_batches_are_contiguous_arrays_of_intp():
    batch = Streams(counting(100), 3, 7).batch(1)
    for array in (batch.x, batch.y):
        assert array.dtype == np.intp
        assert array.flags.c_contiguous


def test_lines_are_ended_by_newlines_alone():
    corpus = corpus_of("ab\n\nb\nab\nc\x0bd\u2028e\n")
    items = read_items(corpus)
    assert sorted(lines_of(corpus, items)) == ["ab", "b", "c\x0bd\u2028e"]
    assert items.characters == 11


@given(st.lists(st.text("ab\n", max_size=4), min_size=1, max_size=30), st.integers(1, 9))
def test_items_are_the_distinct_lines_in_the_order_of_their_digests(lines, read):
    text = "\n".join(lines) + "\nx"
    corpus = corpus_of(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "_READ", read)
        items = read_items(corpus)
    expected = sorted(
        {*text.split("\n")} - {""}, key=lambda line: blake2b(line.encode(), digest_size=16).digest()
    )
    assert lines_of(corpus, items) == expected
    assert items.characters == sum(len(line) + 1 for line in expected)


def test_the_end_of_a_text_ends_a_line(tmp_path):
    (tmp_path / "a").write_text("one\ntwo")
    (tmp_path / "b").write_text("three\none")
    corpus = read_corpus([tmp_path / "a", tmp_path / "b"])
    assert sorted(lines_of(corpus, read_items(corpus))) == ["one", "three", "two"]


LONG = "x" * 511


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("ab\ncd\n\nab\nab\n", ["4 lines, 2 of them distinct: repeats are left out"]),
        ("ab\ncd\n\n", []),
        (f"ab\n{LONG}\n", []),
        (
            f"ab\n{LONG}y\n",
            [
                "lines of 512 characters or more are learned in pieces: 1 of 2; "
                f"the longest has 512 and begins {LONG[:40]!r}"
            ],
        ),
        ("ab\r\ncd", [r"standard input: line ends \r or \r\n changed to \n"]),
    ],
    ids=["repeats", "no repeats", "511 characters", "512 characters", "carriage returns"],
)
def test_repeats_long_lines_and_other_line_ends_are_noted(text, notes):
    assert read_items(corpus_of(text)).notes == notes


def test_items_need_a_newline_and_something_in_a_line():
    for text in ("abc", "\n\n"):
        with pytest.raises(CorpusError, match="no newline, or nothing but empty lines"):
            read_items(corpus_of(text))


def test_the_first_share_of_the_items_trains_and_the_others_validate():
    items = items_from(*"abcdefghij")
    training, validation = items.split(0.1)
    for part, item in zip([*each(training), *each(validation)], each(items), strict=True):
        assert part.tolist() == item.tolist()
    assert (len(training), training.characters) == (9, 18)
    assert (len(validation), validation.characters) == (1, 2)
    assert [len(part) for part in items.split(0)] == [10, 0]


def test_items_are_read_each_with_the_newline_behind_in_every_part():
    items = items_from("ab", "c", "bca", "a")
    newline = int(items.symbols[0])
    a, b, c = range(newline + 1, newline + 4)
    training, validation = items.split(0.5)
    assert training.read(0, training.characters).tolist() == [a, b, newline, c, newline]
    assert validation.read(1, validation.characters).tolist() == [c, a, newline, a, newline]


ITEMS = st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=70)


LONGEST = st.sampled_from([1, 2, 3, 512])


@given(
    lines=ITEMS,
    B=st.integers(1, 9),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 2),
    longest=LONGEST,
)
def test_an_epoch_predicts_each_item_once_between_newlines(lines, B, seed, epoch, longest):
    items = items_from(*lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "LONGEST", longest)
        batches = ItemBatches(items, B, seed)
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        found = [batches.batch(step) for step in steps]
    ended, columns = [], []
    for batch in found:
        pieces = [predictions(batch, column) for column in range(batch.x.shape[1])]
        assert all(0 < len(piece) <= longest for piece in pieces)
        if batch.fresh:
            ended, columns = ended + columns, [[] for _ in pieces]
        ended, columns = ended + columns[len(pieces) :], columns[: len(pieces)]
        columns = [before + piece for before, piece in zip(columns, pieces, strict=True)]
    whole = [[int(items.symbols[0]), *item.tolist(), int(items.symbols[0])] for item in each(items)]
    assert Counter(map(tuple, ended + columns)) == Counter(tuple(pairwise(item)) for item in whole)
    assert sum(batch.predictions for batch in found) == batches.predictions == items.characters
    assert found[0].fresh
    assert batches.seq_len == max(len(batch.x) for batch in found)


@given(lines=ITEMS, B=st.integers(1, 9), cut=st.integers(0, 9), longest=LONGEST)
def test_slices_of_columns_make_up_the_batch_of_items(lines, B, cut, longest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "LONGEST", longest)
        batches = ItemBatches(items_from(*lines), B, seed=1)
        for step in range(2 * batches.steps_per_epoch):
            whole, left, right = (
                batches.batch(step, columns)
                for columns in (slice(None), slice(0, cut), slice(cut, None))
            )
            np.testing.assert_array_equal(np.concatenate([left.x, right.x], axis=1), whole.x)
            np.testing.assert_array_equal(np.concatenate([left.y, right.y], axis=1), whole.y)
            assert left.predictions == right.predictions == whole.predictions
            assert left.fresh == right.fresh == whole.fresh
            _lengths_agree(whole, left, right)


def test_one_long_item_pads_no_other():
    items = items_from(*(f"{i:x}" for i in range(600)), "long" * 5000)
    batches = ItemBatches(items, 32, 0)
    sizes = [batches.batch(step).x.shape for step in range(batches.steps_per_epoch)]
    assert max(T * B for T, B in sizes) <= 512
    assert sum(T * B for T, B in sizes) < 1.01 * items.characters
    assert batches.seq_len == 512


def numbered(count):
    return items_from(*(f"{i:x}" * (1 + i % 7) for i in range(count)))


def epochs_of(batches, epoch):
    steps = batches.steps_per_epoch
    return [batches.batch(step).x.tolist() for step in range(epoch * steps, (epoch + 1) * steps)]


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    items = numbered(100)
    one, other = ItemBatches(items, 8, 5), ItemBatches(items, 8, 5)
    later = epochs_of(one, 1)
    first = epochs_of(one, 0)
    assert epochs_of(other, 0) == first
    assert epochs_of(other, 1) == later
    assert first != later
    assert epochs_of(ItemBatches(items, 8, 6), 0) != first
    assert one.batch(0).fresh


def test_items_of_a_pool_are_ordered_by_length():
    batches = ItemBatches(numbered(100), 8)
    lengths = [
        sorted(len(predictions(batch, b)) for b in range(batch.x.shape[1]))
        for batch in map(batches.batch, range(batches.steps_per_epoch))
    ]
    joined = [length for of_batch in sorted(lengths) for length in of_batch]
    assert joined == sorted(joined)
    assert len(joined) == 100


def test_items_of_much_the_same_length_stand_together():
    items = numbered(1000)
    batches = ItemBatches(items, 8, 0)
    shapes = sum(batches.batch(step).x.size for step in range(batches.steps_per_epoch))
    assert shapes < 1.2 * items.characters


def test_few_items_make_a_narrow_batch():
    items = items_from("ab", "c", "d")
    batches = ItemBatches(items, 8, 0)
    assert (batches.batch_size, batches.steps_per_epoch, batches.seq_len) == (3, 1, 3)
    assert batches.batch(0).x.shape == (3, 3)


@pytest.mark.skipif(not NAMES.exists(), reason="needs the shared corpora")
def test_the_shared_names_are_29494_distinct_lines_and_228146_transitions():
    corpus = read_corpus([NAMES])
    items = read_items(corpus)
    lines = NAMES.read_text().split("\n")
    assert len(items) == len({*lines}) == 29_494
    assert items.characters == sum(len(line) + 1 for line in {*lines})
    assert corpus.characters == 228_145
    assert [len(part) for part in items.split(0.1)] == [26_544, 2_950]


@pytest.mark.parametrize("most", [65, 66, 10**6, 10**30])
def test_as_many_characters_as_there_are_or_more_are_all_of_them(most):
    text = counting(65)
    assert Streams(text, 2, 8, most).predictions == Streams(text, 2, 8).predictions == 63
    items = items_from("ab", "c", "def")
    assert items.first(most).characters == items.characters
