"""What a text copied: planted runs are found exactly, and a slow search agrees."""

import json
import random
import string

import pytest
from hypothesis import given, strategies as st
from tiny_models import saved, tiny

from charrnn.cli.app import main
from charrnn.sampling.copying import RUN, Copied, copied

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path):
    return saved(tiny("abcdefgh #\n"), tmp_path)


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


def test_the_command_says_what_was_copied(model, tmp_path, capsys):
    words = ["sample", model, "--length", "60", "--seed", "3"]
    assert main(words) == 0
    text = capsys.readouterr().out.removesuffix("\n")
    source = tmp_path / "source.txt"
    source.write_text("?" * 50 + text[5:45] + "?", encoding="utf-8", newline="")
    assert main([*words, "--copied", str(source)]) == 0
    told = capsys.readouterr()
    assert told.out.removesuffix("\n") == text
    assert "longest run copied: 40 characters" in told.err
    assert "67% of what was drawn is in runs of 20 or more" in told.err
    assert main([*words, "--copied", str(source), "--json", "--num", "2"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["longest_copied"], first["copied_share"]) == (40, 40 / 60)
    assert second["longest_copied"] < 40


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--copied", "no-such-file"], "no-such-file"),
        (["--copied", "-", "--prime-file", "-"], "standard input can be read only once"),
        (["--copied", "x", "--show-probs"], "don't go together"),
    ],
)
def test_bad_requests_are_one_line(words, says, model, capsys):
    assert main(["sample", model, *words]) != 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert says in told.err
