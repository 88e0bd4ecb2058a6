"""The corpora: what their README says about them is true."""

import math
from pathlib import Path

import pytest

CORPORA = Path(__file__).parents[1] / "corpora"


def test_the_tales_are_long_and_plain():
    text = (CORPORA / "tales.txt").read_bytes()
    assert len(text) >= 100_000
    assert text.isascii()
    assert b"\r" not in text
    paragraphs = text.split(b"\n\n")
    assert len(set(paragraphs)) == len(paragraphs)


def test_the_minerals_are_distinct_names_one_a_line():
    names = (CORPORA / "minerals.txt").read_text(encoding="ascii").split("\n")
    assert names.pop() == ""
    assert len(names) >= 1000
    assert len(set(names)) == len(names)
    assert all(name.isalpha() and name.islower() for name in names)


def test_the_markov_text_is_what_its_source_writes(markov):
    assert markov.generate(markov.LENGTH, markov.SEED) == (CORPORA / "markov.txt").read_text(
        encoding="ascii"
    )


def test_the_entropy_rate_is_what_the_text_costs_under_its_source(markov):
    text = (CORPORA / "markov.txt").read_text(encoding="ascii")
    nats, pair = 0.0, markov.START
    for char in text:
        weights = markov.WEIGHTS[pair]
        nats -= math.log(weights[markov.ALPHABET.index(char)] / sum(weights))
        pair = pair[1] + char
    assert nats / len(text) == pytest.approx(markov.entropy_rate(), abs=0.005)
