"""`charrnn eval --each`: every line scored as an item, in order, as it comes."""

import io
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_models import tiny

import charrnn
from charrnn.cli import each
from charrnn.cli.app import main
from charrnn.errors import VocabularyError
from charrnn.sampling.scoring import score, score_lines

LINES = ["ab", "", "a", "bbbbbbbbbbbb", "ba", "", "c"]


@pytest.fixture
def model(tmp_path):
    """Return the path of a model of lines over abc and the newline."""
    path = tmp_path / "m.npz"
    charrnn.save(path, tiny("\nabc", cell="gru", training={"lines": True}))
    return path


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def alone(model, line):
    """Return the nats of one line by the network's own loss, one column, no batching."""
    from charrnn.network.network import Network, zero_state

    indices = model.vocabulary.encode(f"\n{line}\n").astype(np.intp)[:, None]
    network = Network(model.config, np.float32)
    state = zero_state(model.config, 1, np.float32)
    return float(network.losses(model.parameters, indices[:-1], indices[1:], state)[0].sum())


def test_each_line_is_an_item_of_its_own_whatever_stands_beside_it(model, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("\n".join(LINES), encoding="ascii")
    assert main(["eval", str(model), str(tmp_path / "t.txt"), "--each", "--json"]) == 0
    found, opened = rows(capsys), charrnn.load(model)
    assert [row["line"] for row in found] == LINES
    assert [row["number"] for row in found] == list(range(1, 8))
    assert [row["characters"] for row in found] == [len(line) + 1 for line in LINES]
    for row in found:
        assert row["total"] == pytest.approx(alone(opened, row["line"]), rel=1e-5)
        assert row["nats"] == pytest.approx(row["total"] / row["characters"])


def test_the_text_form_is_nats_a_tab_and_the_line(model, tmp_path, capsys):
    (tmp_path / "t.txt").write_bytes(b"ab\r\n\r\nc")
    assert main(["eval", str(model), str(tmp_path / "t.txt"), "--each"]) == 0
    values = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line for _, line in values] == ["ab", "", "c"]
    middle = sorted(float(nats) for nats, _ in values)[1]
    assert (
        main(["eval", str(model), str(tmp_path / "t.txt"), "--each", "--above", str(middle)]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_sum_is_what_eval_says_of_lines_that_are_not_empty(model):
    opened = charrnn.load(model)
    full = [line for line in LINES if line]
    lines, whole = score_lines(opened, "\n".join(full)), score(opened, "\n".join(full))
    assert lines.nats.sum() == pytest.approx(float(whole.nats.sum()), rel=1e-5)
    assert lines.characters == whole.characters


def test_unknown_characters_are_skipped_or_cost_ln_of_one_more_than_the_training_part(
    model, tmp_path, capsys
):
    opened = charrnn.load(model)
    _, nats, characters = score_lines(opened, "ab\naZb\nZZ", "skip").by_line()
    assert nats[0] == pytest.approx(nats[1], rel=1e-6)
    assert characters.tolist() == [3, 3, 1]
    counted = trained_on(opened, 999)
    _, scored, counts = score_lines(counted, "ab\naZb\nZZ", "score").by_line()
    assert scored - nats == pytest.approx([0, math.log(1000), 2 * math.log(1000)], rel=1e-5)
    assert counts.tolist() == [3, 4, 3]
    (tmp_path / "t.txt").write_text("ab\naZ\nb\n", encoding="ascii")
    command = ["eval", str(model), str(tmp_path / "t.txt"), "--each"]
    assert main([*command, "--json", "--unknown", "skip"]) == 0
    assert [row["unknown"] for row in rows(capsys)] == [0, 1, 0]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert out.endswith("\tab\n")
    assert "line 2, column 2: 'Z' (U+005A)" in err
    assert err.endswith("or use --unknown skip or score\n")


def trained_on(model, characters):
    from dataclasses import replace

    meta = {**model.meta, "corpus": {"training_characters": characters}}
    found = replace(model, meta=meta)
    if found.training_characters != characters:
        pytest.fail("the key of the training part's characters has changed")
    return found


def test_a_vocabulary_without_a_newline_is_an_error():
    with pytest.raises(VocabularyError, match="newline"):
        each.write_each(tiny("ab", cell="rnn"), "-", None, "error", None, json=False)


def test_bytes_that_are_no_text_end_it_after_the_lines_before_them(model, tmp_path, capsys):
    (tmp_path / "t.txt").write_bytes(b"ab\nb\nc\xff\n")
    assert main(["eval", str(model), str(tmp_path / "t.txt"), "--each"]) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == ["ab", "b"]
    assert "byte 0xff at offset 6" in err
    assert "(after line 2)" in err


@pytest.mark.parametrize(
    "more", [["--heat"], ["--worst", "2"], ["--unit", "0"], ["--streams", "3"], ["--svg", "x.svg"]]
)
def test_what_does_not_go_with_single_lines_is_a_usage_error(more, model):
    assert main(["eval", str(model), "-", "--each", *more]) == 2


def test_above_alone_is_a_usage_error(model):
    assert main(["eval", str(model), "-", "--above", "2"]) == 2


def test_lines_of_any_length_and_many_pieces_are_cut_at_newlines_alone(monkeypatch, tmp_path):
    from charrnn.text import sources

    monkeypatch.setattr(sources, "CHUNK", 7)
    monkeypatch.setattr(each, "TOGETHER", 2)
    lines = ["", "a" * 40, "bb", "", "c" * 9, "d"]
    for end in ("", "\n"):
        (tmp_path / "t.txt").write_text("\n".join(lines) + end, encoding="ascii")
        source = sources.Source(tmp_path / "t.txt")
        assert [line for batch in each.batches(source) for line in batch] == lines


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="reads a pipe as it fills")
@pytest.mark.parametrize("name", ["-", "pipe"])
def test_a_line_is_out_before_the_input_has_ended(name, model, tmp_path):
    if name == "pipe":
        os.mkfifo(name := str(tmp_path / name))
    words = [sys.executable, "-m", "charrnn", "eval", str(model), name, "--each"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin if name == "-" else open(name, "wb") as pipe:
            for line in (b"ab\n", b"c\n"):
                pipe.write(line)
                pipe.flush()
                assert process.stdout.readline().endswith(b"\t" + line)
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_reader_that_goes_away_ends_it_quietly(model):
    command = f"yes ab | {sys.executable} -m charrnn eval {model} - --each | head -n 3"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (ended.stdout.count("\tab\n"), ended.stderr) == (3, "")


def test_a_slow_pipe_is_waited_for_no_longer_than_a_tenth_of_a_second(monkeypatch):
    class Slow(io.RawIOBase):
        def __init__(self):
            self.left = [b"ab\n", b"c\n"]

        def readable(self):
            return True

        def readinto(self, buffer):
            if not self.left:
                return 0
            if len(self.left) == 1:
                released.append(time.perf_counter())
                while not seen:  # until the first line has been handed on
                    time.sleep(0.001)
            piece = self.left.pop(0)
            buffer[: len(piece)] = piece
            return len(piece)

    from charrnn.text.sources import Source

    released = []
    seen = []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow())))
    for batch in each.batches(Source("-")):
        seen += [batch]
    assert seen == [["ab"], ["c"]]
