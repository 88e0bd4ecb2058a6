"""`charrnn eval --each`: every line scored as an item, in order, as it comes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import oracle
import pytest
from tiny_models import saved, tiny

from charrnn.cli import each
from charrnn.sampling.scoring import score, score_lines
from charrnn.text.sources import Source

LINES = ["ab", "", "a", "bbbbbbbbbbbb", "ba", "", "c"]


@pytest.fixture(autouse=True)
def model(cli, tmp_path):
    """A model of lines, in tiny.npz."""
    corpus = {"training_characters": 999}
    model = tiny("\nabc", cell="gru", training={"lines": True}, corpus=corpus)
    saved(model, tmp_path)
    return model


def write(text):
    Path("t.txt").write_bytes(text)


def test_each_line_is_an_item_of_its_own_whatever_stands_beside_it(model, cli):
    write("\n".join(LINES).encode())
    found = cli.json("eval tiny.npz t.txt --each")
    assert [row["line"] for row in found] == LINES
    assert [row["number"] for row in found] == list(range(1, 8))
    assert [row["characters"] for row in found] == [len(line) + 1 for line in LINES]
    for row in found:
        expected = oracle.nats(model, f"\n{row['line']}\n")
        assert row["total"] == pytest.approx(expected.sum(), rel=1e-5)
        assert row["nats"] == pytest.approx(expected.mean(), rel=1e-5)


def test_the_text_form_is_nats_a_tab_and_the_line(cli):
    write(b"ab\r\n\r\nc")
    rows = [line.split("\t") for line in cli("eval tiny.npz t.txt --each").out.splitlines()]
    assert [line for _, line in rows] == ["ab", "", "c"]
    middle = sorted(float(nats) for nats, _ in rows)[1]
    assert cli(f"eval tiny.npz t.txt --each --above {middle}").out.count("\n") == 1


def test_the_sum_is_what_eval_says_of_lines_that_are_not_empty(model):
    text = "\n".join(line for line in LINES if line)
    lines, whole = score_lines(model, text), score(model, text)
    assert lines.nats.sum() == pytest.approx(float(whole.nats.sum()), rel=1e-5)
    assert lines.characters == whole.characters


def test_unknown_characters_are_skipped_or_cost_ln_of_one_more_than_the_training_part(model):
    _, nats, characters = score_lines(model, "ab\naZb\nZZ", "skip").by_line()
    assert nats[0] == pytest.approx(nats[1], rel=1e-6)
    assert characters.tolist() == [3, 3, 1]
    _, scored, counts = score_lines(model, "ab\naZb\nZZ", "score").by_line()
    assert scored - nats == pytest.approx([0, math.log(1000), 2 * math.log(1000)], rel=1e-5)
    assert counts.tolist() == [3, 4, 3]


def test_unknown_characters_are_counted_or_end_it_after_the_lines_before(cli):
    write(b"ab\naZ\nb\n")
    found = cli.json("eval tiny.npz t.txt --each --unknown skip")
    assert [row["unknown"] for row in found] == [0, 1, 0]
    out, err = cli("eval tiny.npz t.txt --each", 1)
    assert out.endswith("\tab\n")
    assert "line 2, column 2: 'Z' (U+005A)" in err
    assert err.endswith("or use --unknown skip or score\n")


def test_a_vocabulary_without_a_newline_is_an_error(tmp_path, cli):
    saved(tiny("ab", cell="rnn"), tmp_path)
    assert "newline" in cli.refusal("eval tiny.npz t.txt --each")


def test_bytes_that_are_no_text_end_it_after_the_lines_before_them(cli):
    write(b"ab\nb\nc\xff\n")
    out, err = cli("eval tiny.npz t.txt --each", 1)
    assert [line.split("\t")[1] for line in out.splitlines()] == ["ab", "b"]
    assert "byte 0xff at offset 6" in err
    assert "(after line 2)" in err


@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_of_any_length_and_many_pieces_are_cut_at_newlines_alone(end, monkeypatch):
    monkeypatch.setattr("charrnn.text.sources.CHUNK", 7)
    monkeypatch.setattr(each, "TOGETHER", 2)
    lines = ["", "a" * 40, "bb", "", "c" * 9, "d"]
    write(("\n".join(lines) + end).encode())
    assert [line for batch in each.batches(Source("t.txt")) for line in batch] == lines


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="reads a pipe as it fills")
@pytest.mark.parametrize("name", ["-", "pipe"])
def test_a_line_is_out_before_the_input_has_ended(name):
    if name == "pipe":
        os.mkfifo(name)
    words = [sys.executable, "-m", "charrnn", "eval", "tiny.npz", name, "--each"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with process.stdin if name == "-" else open(name, "wb") as pipe:
            for line in (b"ab\n", b"c\n"):
                pipe.write(line)
                pipe.flush()
                assert process.stdout.readline().endswith(b"\t" + line)
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_reader_that_goes_away_ends_it_quietly():
    command = f"yes ab | {sys.executable} -m charrnn eval tiny.npz - --each | head -n 3"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (ended.stdout.count("\tab\n"), ended.stderr) == (3, "")
