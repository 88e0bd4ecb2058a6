"""The vocabulary against Python's own str methods."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from charrnn.errors import VocabularyError
from charrnn.text.vocabulary import Vocabulary, code_points

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
MANY = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))


@given(ANY_TEXT)
def test_of_agrees_with_sorted_set(text):
    assert Vocabulary.of(text).characters == "".join(sorted(set(text)))


@given(ANY_TEXT)
def test_encode_gives_positions_and_decode_gives_the_text_back(text):
    vocabulary = Vocabulary.of(text)
    indices = vocabulary.encode(text)
    assert indices.tolist() == [vocabulary.characters.index(char) for char in text]
    assert vocabulary.decode(indices) == text


@given(ANY_TEXT, ANY_TEXT)
def test_unknown_characters_are_found_and_the_first_is_named(known, text):
    vocabulary = Vocabulary.of(known)
    missing = [char for char in text if char not in known]
    assert vocabulary.missing(text) == "".join(sorted(set(missing)))
    assert vocabulary.find_unknown(text) == (text.index(missing[0]) if missing else -1)
    if missing:
        with pytest.raises(VocabularyError, match=re.escape(f"(U+{ord(missing[0]):04X})")):
            vocabulary.encode(text)


@given(st.text(), st.text("abc\n é語😀"))
def test_code_points_agree_with_ord(one, other):
    for text in (one, other):
        assert code_points(text).tolist() == [ord(char) for char in text]


def test_the_order_given_is_the_order_of_the_indices():
    vocabulary = Vocabulary("zaб")
    assert vocabulary.encode("azб").tolist() == [1, 0, 2]
    assert vocabulary.decode([2, 0]) == "бz"
    assert vocabulary.index("б") == 2


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65_536, "u2"), (65_537, "u4")]
)
def test_dtype_is_the_narrowest_that_holds_every_index(size, dtype):
    vocabulary = Vocabulary("".join(map(chr, range(0x10000, 0x10000 + size))))
    assert vocabulary.dtype == np.dtype(dtype)
    encoded = vocabulary.encode(vocabulary.characters)
    assert encoded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(encoded, np.arange(size))


def test_every_code_point_but_surrogates_is_a_character():
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    vocabulary = Vocabulary(everything)
    assert vocabulary.index("\U0010ffff") == len(everything) - 1
    assert vocabulary.decode(vocabulary.encode("a\0\U0010ffff")) == "a\0\U0010ffff"


def test_ascii_text_is_encoded_by_a_wide_vocabulary_too():
    vocabulary = Vocabulary("ba" + MANY)
    assert vocabulary.encode("abba").tolist() == [1, 0, 0, 1]
    assert vocabulary.encode("abba").dtype == np.uint16


def test_nothing_encodes_to_nothing():
    assert Vocabulary("ab").encode("").dtype == np.uint8
    assert Vocabulary("ab").encode("").tolist() == []
    assert Vocabulary("a" + MANY).encode("").dtype == np.uint16
    assert Vocabulary("ab").decode([]) == ""


def test_encoded_text_may_be_written_to():
    for text in ("abba", "aéa"):
        indices = Vocabulary("abé").encode(text)
        indices[0] = 1
        assert indices[0] == 1


def test_membership_is_of_single_characters():
    vocabulary = Vocabulary("ab")
    assert "a" in vocabulary
    assert not any(other in vocabulary for other in ("c", "ab", "", 0))


def test_vocabularies_are_equal_by_their_characters_in_order():
    assert Vocabulary("ab") == Vocabulary.of("abba")
    assert hash(Vocabulary("ab")) == hash(Vocabulary.of("abba"))
    assert Vocabulary("ab") != Vocabulary("ba")
    assert pickle.loads(pickle.dumps(Vocabulary("ab"))) == Vocabulary("ab")


@pytest.mark.parametrize("make", [Vocabulary, Vocabulary.of])
def test_an_empty_vocabulary_is_refused(make):
    with pytest.raises(VocabularyError, match="at least one"):
        make("")


def test_a_repeated_character_is_refused():
    with pytest.raises(VocabularyError, match="none twice"):
        Vocabulary("abcb")


def test_an_unknown_character_is_named_with_line_and_column():
    with pytest.raises(
        VocabularyError,
        match=r"^line 3, column 2: 'é' \(U\+00E9\) isn't among the 5 characters .* by 'e', or",
    ):
        Vocabulary("abe\n ").encode("ab\n\naé\n")


@pytest.mark.parametrize(
    ("text", "named"),
    [("q", r"\(U\+0071\)"), ("\x07", r"'\\x07'"), ("\udc80", r"'\\udc80'"), ("😀", "U\\+1F600")],
)
def test_an_unknown_character_is_escaped_on_one_line(text, named):
    for vocabulary in (Vocabulary("a\n"), Vocabulary("a\n" + MANY)):
        with pytest.raises(VocabularyError, match=named) as raised:
            vocabulary.encode("a\n" + text)
        assert "\n" not in str(raised.value)


def test_further_unknown_characters_are_counted():
    with pytest.raises(VocabularyError, match="one of 3 unknown"):
        Vocabulary("ab").encode("axyzxyz")
    with pytest.raises(VocabularyError, match="one of 2 unknown"):
        Vocabulary("ab").encode("axyx")


@pytest.mark.parametrize(
    ("char", "known", "nearest"),
    [
        ("é", "aez", "e"),
        ("É", "aez", "e"),
        ("Q", "pqr", "q"),
        ("’", "a'", "'"),
        ("—", "a-", "-"),
        ("\xa0", "a ", " "),
        ("ﬁ", "fi", "fi"),
        ("m", "azk", "kaz"),
        ("ж", "abш", "шba"),
    ],
)
def test_the_nearest_known_characters_look_alike_or_stand_close(char, known, nearest):
    assert Vocabulary(known).nearest(char) == nearest


@pytest.mark.parametrize("index", [-1, 2, 300])
def test_an_index_outside_the_vocabulary_is_refused(index):
    with pytest.raises(VocabularyError, match="an index isn't in 0 … 1"):
        Vocabulary("ab").decode([0, index])


@pytest.mark.parametrize("char", ["c", "é"])
def test_the_index_of_what_is_not_a_known_character_is_refused(char):
    with pytest.raises(VocabularyError, match="isn't among the 2 characters"):
        Vocabulary("ab").index(char)


@pytest.mark.parametrize("half", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_every_half_of_a_pair_is_refused_by_name(half):
    said = rf"'\\u{half:04x}' \(U\+{half:04X}\).* half of a UTF-16 pair"
    with pytest.raises(VocabularyError, match=said):
        Vocabulary("ab" + chr(half))
    assert len(Vocabulary("\ud7ff\ue000")) == 2
