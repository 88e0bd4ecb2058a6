"""What is drawn with a pattern matches it, with the frequencies of the masked process."""

import io
import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tiny_models import saved, tiny

from charrnn.config import SampleConfig
from charrnn.errors import UsageError
from charrnn.sampling.decoding import distribution
from charrnn.sampling.matching import NEVER, Matcher
from charrnn.sampling.sampling import sample, sample_many
from charrnn.sampling.stepping import Sampler

ALPHABET = "aAb1_ .-"
PATTERNS = [
    *("", "a", "ab*", "(a|b)+", "a{2}", "a{,2}b", "a{1,}", "a{0,3}", "(?:ab|A)*b?", "[ab]+"),
    *("[^a]{2}", r"\d+", r"\w\W?", r"\s|\S\S", r"\D{1,2}", ".*b", "(?i)a+b", "(?i)[a-b]", r"\."),
    *(
        "^ab",
        "a$",
        "^(a|b$)",
        "a|^b|",
        "(^a)*b",
        "(a$|ab)",
        "(a{3}){2}",
        "[]a]",
        "[-a]",
        r"\x61{2}",
    ),
    *(
        r"\x61{2}",
        r"[\d_]{2}",
        "{",
        "a{",
        "a{,}",
        "((a))",
        "(a*)*b",
        "(|a)+",
        r"\Aa\Z",
        "a{0}b",
        "-+|_",
    ),
]


def strings(most):
    return ["".join(s) for n in range(most + 1) for s in itertools.product(ALPHABET, repeat=n)]


def ways(matcher, left, state=0, text=""):
    """Return all texts that may be drawn, which end where no character is left."""
    if not matcher.goes_on(state, left):
        return {text}
    found = set()
    for i in np.flatnonzero(matcher.may_be_drawn(state, left)):
        char = (ALPHABET + "\n")[i]
        if char == "\n":
            found.add(text)
        else:
            found |= ways(matcher, left - 1, int(matcher.after(state, i)), text + char)
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_may_be_drawn_is_what_re_matches(pattern):
    wanted = {text for text in strings(3) if re.fullmatch(pattern, text)}
    matcher = Matcher(pattern, ALPHABET + "\n", end="\n")
    if matcher.least > 3:
        assert wanted == set()
    else:
        assert ways(matcher, 3) == wanted


pieces = st.recursive(
    st.sampled_from(["a", "b", "A", ".", r"\d", "[ab1]", "[^a]", r"\w", "^", "$"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: "(?:" + "|".join(two) + ")"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,1}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@given(pieces, st.sampled_from(["", "(?i)"]), st.sampled_from(["", "a", "b1"]))
def test_any_pattern_allows_what_re_matches_after_any_prime(pattern, flag, prime):
    matcher = Matcher(flag + pattern, ALPHABET + "\n", end="\n", prime=prime)
    wanted = {s for s in strings(3) if re.fullmatch(flag + pattern, prime + s)}
    assert (ways(matcher, 3) if matcher.least <= 3 else set()) == wanted


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        "(?!a)b",
        r"(a)\1",
        r"\bab",
        "a*?",
        "a++",
        "(?P<x>a)",
        "(?i:a)",
        r"\Ba",
        "(?s).",
        "a(",
    ],
)
def test_what_is_not_supported_is_named(pattern):
    with pytest.raises(UsageError, match="--match: "):
        Matcher(pattern, ALPHABET)


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "(a|b)*a(a|b){18}"])
def test_a_pattern_that_is_too_large_is_refused(pattern):
    with pytest.raises(UsageError, match="too large"):
        Matcher(pattern, ALPHABET)


@pytest.fixture
def items():
    return tiny("abc\n", training={"lines": True})


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("[ab]+c?", {}),
        ("a.*", {"length": 3}),
        ("(a|bc)*", {"temp": 0.5, "top_k": 2}),
        ("b(b|c){2,4}", {"prime": "bb"}),
        (".*", {"prime": "cab", "stop": "b"}),
        ("c+", {"temp": 0.0, "length": 5}),
        ("(ab?c)+", {"min_p": 0.2, "top_p": 0.9}),
    ],
)
def test_ten_thousand_draws_all_match(items, pattern, options):
    drawn = sample_many(items, 10_000 // 6, seed=1, match=pattern, **options)
    prime = str(options.get("prime", ""))
    for one in drawn.samples():
        assert re.fullmatch(pattern, prime + one.text)
    alone = "".join(sample(items, seed=1, match=pattern, **options))
    assert alone == sample_many(items, 1, seed=1, match=pattern, **options).sample(0).text


def test_frequencies_are_those_of_the_masked_process(items):
    """Each character is drawn from ŷ_t, to scale among those that can still lead to a match."""
    pattern, length, num = "a|b[ab]|c[abc]c?", 3, 40_000
    expected = Counter()

    def follow(text, p):
        sampler = Sampler(items)
        for char in "\n" + text:
            sampler.feed(items.vocabulary.index(char))
        y_hat = distribution(sampler.logits, SampleConfig())
        rest = [s for s in wanted if s.startswith(text)]
        may = {s[len(text)] if len(s) > len(text) else "\n" for s in rest}
        total = sum(y_hat[items.vocabulary.index(char)] for char in may)
        for char in may:
            then = p * y_hat[items.vocabulary.index(char)] / total
            if char == "\n":
                expected[text] += then
            elif len(text) == length - 1:
                expected[text + char] += then
            else:
                follow(text + char, then)

    texts = ["".join(s) for n in range(1, 4) for s in itertools.product("abc", repeat=n)]
    wanted = [text for text in texts if re.fullmatch(pattern, text)]
    follow("", 1.0)
    seen = Counter(
        one.text for one in sample_many(items, num, seed=5, match=pattern, length=length).samples()
    )
    assert set(seen) <= set(expected)
    chi2 = sum((seen[text] - num * p) ** 2 / (num * p) for text, p in expected.items())
    assert chi2 < 2 * len(expected) + 30


def test_a_text_ends_at_the_stop_text_or_where_nothing_can_follow():
    model = tiny("ab. ")
    pattern = r"[ab]{2}( [ab]{2})*\."
    for one in sample_many(model, 300, seed=2, match=pattern, length=15).samples():
        assert re.fullmatch(pattern, one.text)
    for one in sample_many(model, 300, seed=2, match="[ab]+[. ab]*", stop="b.", length=9).samples():
        assert re.fullmatch("[ab]+[. ab]*", one.text)
        assert "b." not in one.text[:-2]
    for one in sample_many(model, 300, seed=2, match="a+b|aba", stop="ab", length=9).samples():
        assert re.fullmatch("a+b", one.text)
    drawn = sample_many(model, 50, seed=2, match="abb|ba", stop="ab").samples()
    assert {one.text for one in drawn} == {"ba"}  # at the stop text "abb" isn't matched yet
    with pytest.raises(UsageError, match="can't be matched"):
        sample_many(model, 1, match="abb", stop="ab")
    assert list(sample(model, match="")) == []


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a{600}", "can't be matched by the model's characters within --length 500"),
        ("x", "can't be matched"),
        (r"a\b", r"\\b"),
        ("a(", "pattern"),
    ],
)
def test_the_command_refuses_before_the_first_character(pattern, says, items, tmp_path, cli):
    saved(items, tmp_path)
    assert says in cli.refusal(f"sample tiny.npz --match '{pattern}'", 2)  # and no seed is said


def test_the_command_draws_what_matches(items, tmp_path, cli):
    saved(items, tmp_path)
    lines = cli("sample tiny.npz --match '(?i)A[^b]*' --num 3").out.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch("a[^b]*", line) for line in lines)


def test_a_typed_beginning_may_bring_a_match_within_the_length(items, tmp_path, cli, monkeypatch):
    saved(items, tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\na\n"))
    out, err = cli("sample tiny.npz --interactive --match abcab --length 3 --seed 1")
    assert out == "abcab\n"
    assert "within --length 3" in err  # for the second line


def test_a_pattern_over_an_alphabet_without_its_characters_has_no_match():
    assert Matcher("x|y", ALPHABET).least == NEVER
