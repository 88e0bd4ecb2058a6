"""What a text copied: planted runs are found exactly, and a slow search agrees."""

import random
import string
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from tiny_models import saved, tiny

from charrnn.sampling.copying import RUN, Copied, copied


@pytest.fixture(autouse=True)
def model(cli, tmp_path):
    """A model in tiny.npz."""
    saved(tiny("abcdefgh #\n"), tmp_path)


def slow(texts, source):
    """Return the same, by trying every run of every text."""
    longest, inside = "", 0
    for text in texts:
        standing = set()
        for i in range(len(text)):
            for j in range(i + 1, len(text) + 1):
                if text[i:j] in source:
                    longest = max(longest, text[i:j], key=len)
                    standing |= set(range(i, j)) if j - i >= RUN else set()
        inside += len(standing)
    return Copied(longest, inside / max(1, sum(map(len, texts))))


@pytest.mark.parametrize("length", [19, 20, 50, 200])
def test_a_planted_copy_is_found_exactly(length):
    rng = random.Random(length)
    source = "".join(rng.choices(string.ascii_lowercase, k=5000))
    noise = "".join(rng.choices(string.ascii_uppercase, k=400))
    run = source[1000 : 1000 + length]
    found = copied([noise[:250] + run + noise[250:]], source)
    assert found == (run, length / (400 + length) if length >= RUN else 0.0)


texts = st.lists(st.text("ab", max_size=45), max_size=3)


@given(texts, st.text("ab", max_size=120), st.integers(0, 30))
def test_a_slow_search_finds_the_same(drawn, source, planted):
    drawn = [*drawn, source[:planted] + "c" + source[planted : planted + 25]]
    assert copied(drawn, source) == slow(drawn, source)


def test_the_command_says_what_was_copied(cli):
    text = cli("sample tiny.npz --length 60 --seed 3").out
    copy = "?" * 50 + text[5:45] + "?"
    Path("source.txt").write_text(copy, encoding="utf-8", newline="")
    command = "sample tiny.npz --length 60 --seed 3 --copied source.txt"
    out, err = cli(command)
    assert out == text
    assert "longest run copied: 40 characters" in err
    assert "67% of what was drawn is in runs of 20 or more" in err
    first, second = cli.json(f"{command} --num 2")
    assert (first["longest_copied"], first["copied_share"]) == (40, 40 / 60)
    assert second["longest_copied"] < 40
    Path("source.txt").write_text(text[5], encoding="utf-8", newline="")
    assert "longest run copied: 1 character, " in cli(command).err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--copied no-such-file", 1, "no-such-file"),
        ("--copied - --prime-file -", 2, "standard input can be read only once"),
        ("--copied x --show-probs", 2, "don't go together"),
    ],
)
def test_bad_requests_are_one_line(options, code, said, cli):
    assert said in cli.refusal(f"sample tiny.npz {options}", code)
