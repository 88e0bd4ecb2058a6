"""`charrnn sample` and `charrnn next`, as one types them."""

import io
import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import always, saved, tiny

import charrnn
from charrnn.cli.app import main
from charrnn.cli.terminal import Stream
from charrnn.sampling.sampling import Samples

TEXT = "the cat sat on the mat, ÉTÉ\n"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model():
    return tiny(TEXT)


@pytest.fixture
def path(model, tmp_path):
    return saved(model, tmp_path)


@pytest.fixture(autouse=True)
def nobody_reads_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)


def of_lines(tmp_path):
    return saved(tiny("abc\n", training={"lines": True}), tmp_path, "lines.npz")


def objects(output):
    return [json.loads(line) for line in output.splitlines()]


def typed(text):
    return io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")


def test_the_text_is_the_prime_and_what_the_api_draws(model, path, capsys):
    assert (
        main(["sample", path, "--prime", "the ", "--length", "30", "--temp", "0.7", "--seed", "3"])
        == 0
    )
    drawn = "".join(charrnn.sample(model, prime="the ", length=30, temp=0.7, seed=3))
    assert capsys.readouterr().out.rstrip("\n") == ("the " + drawn).rstrip("\n")


def test_no_prime_leaves_the_prime_out_and_changes_nothing_else(model, path, capsys):
    for flags, start in ((["--no-prime"], ""), ([], "the ")):
        main(["sample", path, "--prime", "the ", "--length", "9", "--seed", "3", "--json", *flags])
        (only,) = objects(capsys.readouterr().out)
        assert only["text"] == start + "".join(
            charrnn.sample(model, prime="the ", length=9, seed=3)
        )
        assert only["prime"] == "the "


@pytest.mark.parametrize(("char", "expected"), [("\n", "\n\n"), ("a", "aa\n")])
def test_a_newline_ends_the_output_only_if_the_text_had_none(char, expected, tmp_path, capsys):
    main(["sample", saved(always(char), tmp_path), "--length", "2", "--seed", "0"])
    assert capsys.readouterr().out == expected


def test_a_seed_that_nobody_gave_is_said_and_gives_the_text_again(path, capsys):
    main(["sample", path, "--length", "40"])
    first = capsys.readouterr()
    match = re.fullmatch(r"seed: (\d+)\n", first.err)
    assert match is not None
    main(["sample", path, "--length", "40", "--seed", match[1]])
    assert capsys.readouterr() == (first.out, "")


def test_the_prime_comes_from_a_file_or_from_standard_input(
    model, path, tmp_path, capsys, monkeypatch
):
    (tmp_path / "prime.txt").write_text("the cat", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", typed(b"the cat"))
    for source in (str(tmp_path / "prime.txt"), "-"):
        main(["sample", path, "--prime-file", source, "--length", "20", "--seed", "5", "--json"])
        (only,) = objects(capsys.readouterr().out)
        assert only["text"] == "the cat" + "".join(
            charrnn.sample(model, prime="the cat", length=20, seed=5)
        )


def test_nats_are_those_of_the_drawn_characters_at_temp_1(model, path, capsys):
    main(
        [
            "sample",
            path,
            "--prime",
            "cat",
            "--length",
            "25",
            "--temp",
            "0.5",
            "--num",
            "3",
            "--seed",
            "1",
            "--json",
        ]
    )
    samples = objects(capsys.readouterr().out)
    assert [(sample["seed"], sample["temp"]) for sample in samples] == [(1, 0.5)] * 3
    assert len({str(sample["text"]) for sample in samples}) == 3
    for sample in samples:
        expected = charrnn.score(model, str(sample["text"])).nats[len("cat") - 1 :].sum()
        assert sample["nats"] == pytest.approx(expected, abs=1e-3)


def test_several_texts_stand_one_after_the_other_under_headings(path, capsys):
    options = ["sample", path, "--num", "3", "--length", "15", "--seed", "2", "--prime", "on"]
    main([*options, "--json"])
    texts = [str(sample["text"]) for sample in objects(capsys.readouterr().out)]
    main(options)
    expected = "".join(
        f"---- {i} of 3 ----\n{text}" + "\n" * (text[-1] != "\n") for i, text in enumerate(texts, 1)
    )
    assert capsys.readouterr().out == expected


def test_items_are_a_line_each_in_the_order_of_their_numbers(tmp_path, capsys):
    options = ["sample", of_lines(tmp_path), "--num", "7", "--seed", "4", "--prime", "a"]
    main([*options, "--json"])
    items = [str(sample["text"]) for sample in objects(capsys.readouterr().out)]
    main(options)
    assert capsys.readouterr().out == "".join(f"{item}\n" for item in items)


def test_novel_items_are_not_lines_of_the_file(tmp_path, capsys):
    path, known = of_lines(tmp_path), tmp_path / "known.txt"
    main(["sample", path, "--num", "60", "--seed", "4", "--json"])
    common = {str(sample["text"]) for sample in objects(capsys.readouterr().out)}
    known.write_text("\n".join(sorted(common)) + "\n", encoding="utf-8")
    assert main(["sample", path, "--num", "20", "--seed", "4", "--novel", str(known)]) == 0
    items = capsys.readouterr().out.splitlines()
    assert len(items) == 20
    assert common.isdisjoint(items)


def test_novel_gives_up_when_all_that_is_drawn_is_known(tmp_path, capsys):
    path, known = saved(always("a", training={"lines": True}), tmp_path), tmp_path / "known.txt"
    known.write_text("aaa\n", encoding="utf-8")
    assert main(["sample", path, "--seed", "4", "--length", "3", "--novel", str(known)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "only 0 of 1 items are new after 1,100 tries" in captured.err


def test_novel_is_refused_for_running_text(path, capsys):
    assert main(["sample", path, "--novel", path]) == 2
    assert "models of lines" in capsys.readouterr().err


def test_an_unknown_character_of_the_prime_is_pointed_at_or_skipped(model, path, capsys):
    assert main(["sample", path, "--prime", "caZt"]) == 1
    (told,) = capsys.readouterr().err.splitlines()  # no seed before it: nothing was drawn
    assert told.startswith("charrnn: prime: line 1, column 3: 'Z' (U+005A) ")
    assert told.endswith("--unknown skip")
    assert (
        main(["sample", path, "--prime", "caZt", "--seed", "1", "--unknown", "skip", "--json"]) == 0
    )
    captured = capsys.readouterr()
    assert objects(captured.out)[0]["prime"] == "cat"
    assert "1 unknown character left out" in captured.err


def test_show_probs_gives_the_probability_of_each_drawn_character(model, path, capsys):
    main(
        [
            "sample",
            path,
            "--prime",
            "cat",
            "--length",
            "12",
            "--seed",
            "1",
            "--show-probs",
            "--json",
        ]
    )
    (only,) = objects(capsys.readouterr().out)
    expected = np.exp(-charrnn.score(model, str(only["text"])).nats[2:])
    np.testing.assert_allclose(np.array(only["probabilities"]), expected, rtol=1e-3)


def test_show_probs_says_what_y_hat_is_and_notes_levels_without_colour(model, path, capsys):
    main(["sample", path, "--prime", "cat", "--length", "12", "--seed", "1", "--show-probs"])
    captured = capsys.readouterr()
    text = "cat" + "".join(charrnn.sample(model, prime="cat", length=12, seed=1))
    probabilities = [None, None, None, *np.exp(-charrnn.score(model, text).nats[2:])]
    shown = captured.out.splitlines()[2:]
    assert "".join(shown[::2]).replace("↵", "\n") == text
    digits = "".join(
        row.ljust(len(above)) for above, row in zip(shown[::2], shown[1::2], strict=True)
    )
    halvings = [None if p is None else min(9, int(-np.log2(p))) for p in probabilities]
    assert digits == "".join(" " if n is None else str(n) for n in halvings)
    facts = re.search(
        r"12 vectors: length N = (\d+); .* all in \[0, 1\]; each sums to 1 \(within (\S+)\)",
        captured.err,
    )
    assert facts is not None
    assert int(facts[1]) == len(model.vocabulary)
    assert float(facts[2]) < 1e-12


def test_a_prime_in_another_encoding_is_read_with_encoding(path, tmp_path, capsys):
    (tmp_path / "prime").write_bytes("ÉTÉ".encode("latin-1"))
    asked = [
        "sample",
        path,
        "--prime-file",
        str(tmp_path / "prime"),
        "--length",
        "1",
        "--seed",
        "1",
    ]
    assert main(asked) == 1
    assert "--encoding latin-1" in capsys.readouterr().err
    assert main([*asked, "--encoding", "latin-1"]) == 0
    assert capsys.readouterr().out.startswith("ÉTÉ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [["--length", "5"], ["--json"], ["--length", "99999"]])
def test_an_output_without_room_is_one_line_and_exit_1(options, path):
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "charrnn", "sample", path, "--seed", "1", *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 1
    assert (
        ended.stderr == "charrnn: no space left for the output; make room, or send it elsewhere\n"
    )


def test_a_line_that_is_no_text_ends_the_conversation_with_one_line(path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", typed(b"the\n\xff\n"))
    assert main(["sample", path, "--interactive", "--seed", "1", "--length", "8"]) == 1
    assert capsys.readouterr().err.startswith("charrnn: standard input isn't utf-8 (")


def test_interactive_goes_on_from_each_line_and_survives_a_mistake(
    model, path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.stdin", typed(b"cat\ncaZt\nmat\n"))
    assert main(["sample", path, "--interactive", "--seed", "1", "--length", "8"]) == 0
    captured = capsys.readouterr()
    texts = [
        start + "".join(charrnn.sample(model, prime=start, length=8, seed=1))
        for start in ("cat", "mat")
    ]
    assert captured.out == "".join(text + "\n" * (text[-1] != "\n") for text in texts)
    assert "beginning: line 1, column 3: 'Z' (U+005A)" in captured.err


def test_ctrl_d_at_the_prompt_ends_its_line(path, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", screen)
    assert main(["sample", path, "--interactive"]) == 0
    assert screen.getvalue() == "> \n"


@pytest.mark.parametrize(
    "options",
    [
        ["--prime", "a", "--prime-file", "b"],
        ["--interactive", "--json"],
        ["--interactive", "--num", "2"],
        ["--num", "0"],
        ["--temp", "-1"],
        ["--temp", "nan"],
        ["--length", "0"],
        ["--seed", "-1"],
        ["--unknown", "perhaps"],
        ["--stop", ""],
        ["--top-p", "0"],
        ["--prime-file", "-", "--novel", "-"],
        ["--interactive", "--unknown", "foo"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(options, path, capsys):
    assert main(["sample", path, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("charrnn: ")
    assert captured.err.count("\n") == 1


def test_the_default_model_is_the_one_here_and_is_named(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("charrnn.checkpoint.model.SHIPPED", tmp_path / "none.npz")
    assert main(["sample", "--seed", "1"]) == 1
    assert "charrnn train" in capsys.readouterr().err
    saved(model, tmp_path, "model.npz")
    assert main(["sample", "--seed", "1", "--length", "5"]) == 0
    assert capsys.readouterr().err == "model: model.npz\n"


def test_a_beginning_in_place_of_the_model_is_told_about_prime(capsys):
    assert main(["sample", "ROMEO:"]) == 1
    assert capsys.readouterr().err == (
        "charrnn: ROMEO:: there is no such checkpoint; use --prime to give a text to continue\n"
    )


def test_next_shows_the_likeliest_characters_of_y_hat(model, path, capsys):
    def probability(char):
        return float(np.exp(-charrnn.score(model, "the ca" + char).nats[-1]))

    main(["next", path, "the ca", "--json", "-k", "4"])
    (only,) = objects(capsys.readouterr().out)
    expected = sorted(model.vocabulary.characters, key=probability, reverse=True)[:4]
    assert [one["character"] for one in only["next"]] == expected
    assert [one["probability"] for one in only["next"]] == pytest.approx(
        [probability(char) for char in expected], rel=1e-4
    )


def test_next_draws_bars_in_the_order_of_the_probabilities(path, capsys):
    main(["next", path, "the ca", "--top-k", "100"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(TEXT))
    lengths = [len(line.split("%")[-1].strip()) for line in lines]
    assert lengths == sorted(lengths, reverse=True)
    assert sum(
        float(line.split("%")[0].split()[-1]) for line in lines if "%" in line
    ) == pytest.approx(100, abs=0.1)


class Recorder(io.StringIO):
    """A stream that keeps what it held at each flush."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def flush(self):
        self.seen.append(self.getvalue())


def test_text_flows_without_a_flush_for_each_character():
    stream, now = Recorder(), 0.0
    with Stream(stream, clock=lambda: now) as output:
        for i in range(1000):  # one a millisecond
            now = i / 1000
            output.write("x")
    assert stream.getvalue() == "x" * 1000 + "\n"
    assert 20 <= len(stream.seen) <= 22


def test_what_a_slow_model_draws_is_written_at_once():
    stream, now = Recorder(), 0.0
    output = Stream(stream, clock=lambda: now)
    for i in range(5):
        now = i / 5
        output.write(str(i))
        assert stream.seen[-1] == "01234"[: i + 1]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("options", [[], ["--show-probs"], ["--num", "2"]])
def test_control_characters_reach_a_terminal_only_as_visible_escapes(options, tmp_path):
    path = saved(tiny("\x1b]0;\x07\x9b\u202e\x7fab"), tmp_path)
    output = on_a_terminal(["sample", path, "--length", "300", "--seed", "1", *options])
    text = re.sub(rb"\x1b\[[0-9;]*m", b"", output).decode()  # our own colours
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", text)
    assert {r"\x1b", r"\x9b", r"\x07", r"\u202e"} <= set(re.findall(r"\\x..|\\u....", text))


def on_a_terminal(arguments):
    """Return all that a command writes to a pseudo-terminal."""
    import pty

    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "PYTHONPATH": str(Path(charrnn.__file__).parents[1]),
    }
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "charrnn", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                chunk = b""
            if not chunk:
                break
            output += chunk
    os.close(ours)
    assert process.returncode == 0
    return output


def test_control_characters_pass_unchanged_through_a_pipe(tmp_path, capsys):
    main(["sample", saved(always("\x1b"), tmp_path), "--length", "3", "--seed", "0"])
    assert capsys.readouterr().out == "\x1b\x1b\x1b\n"


@pytest.mark.parametrize("name", ["base.npz", "base", "missing.npz"])
def test_next_with_a_checkpoint_alone_says_that_the_text_is_missing(
    name, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    saved(model, tmp_path, "model.npz")
    if name != "missing.npz":
        Path(saved(model, tmp_path, "base.npz")).rename(name)
    assert main(["next", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err == f"charrnn: TEXT is missing: {name} is a checkpoint; give a text after it\n"
    )


def test_next_takes_a_text_that_is_the_name_of_another_file(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(model, tmp_path, "model.npz")
    (tmp_path / "cat").write_text("a text", encoding="utf-8")
    assert main(["next", "cat", "--json"]) == 0
    assert objects(capsys.readouterr().out)[0]["text"] == "cat"


@pytest.mark.parametrize("stop", ["###", "at#", "\u2028", r"\n"])
def test_a_stop_text_with_an_unknown_character_is_refused(stop, path, capsys):
    assert main(["sample", path, "--stop", stop]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("charrnn: stop text: line 1, column ")
    assert captured.err.count("\n") == 1


def test_the_unknown_characters_of_a_stop_text_are_skipped_where_that_is_asked_for(path, capsys):
    options = ["sample", path, "--seed", "1", "--length", "200"]
    main([*options, "--stop", "a"])
    expected = capsys.readouterr().out
    assert main([*options, "--stop", "#a", "--unknown", "skip"]) == 0
    assert capsys.readouterr() == (expected, "stop text: 1 unknown character left out\n")
    assert main([*options, "--stop", "#", "--unknown", "skip"]) == 2
    assert "--stop is empty" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--prime", "--stop"])
@pytest.mark.parametrize("escape", [r"\n", r"\t"])
def test_a_literal_escape_is_told_how_the_shell_writes_it(option, escape, path, capsys):
    assert main(["sample", path, option, f"the{escape}"]) == 1
    assert f"$'{escape}'" in capsys.readouterr().err


def test_a_literal_escape_is_a_text_like_any_other_to_a_model_with_a_backslash(tmp_path, capsys):
    path = saved(tiny("the\\n"), tmp_path)
    assert main(["sample", path, "--prime", r"\n", "--stop", r"\n", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith(r"\n")


@pytest.mark.parametrize("shown", [[], ["--json"]])
def test_items_that_length_cuts_off_are_not_new(shown, tmp_path, capsys):
    path, known = of_lines(tmp_path), tmp_path / "known.txt"
    main(["sample", path, "--num", "300", "--seed", "4", "--json"])
    items = {str(sample["text"]) for sample in objects(capsys.readouterr().out)}
    short = {item for item in items if len(item) < 2}  # with their newline, of at most --length
    known.write_text("\n".join(items - short) + "\n", encoding="utf-8")
    options = ["--novel", str(known), "--length", "2", *shown]
    assert main(["sample", path, "--num", "30", "--seed", "4", *options]) == 0
    output = capsys.readouterr().out
    drawn = [str(one["text"]) for one in objects(output)] if shown else output.splitlines()
    assert len(drawn) == 30
    assert all(len(item) < 2 for item in drawn)


def test_novel_says_how_many_items_length_cut_off(tmp_path, capsys):
    path, known = saved(always("a", training={"lines": True}), tmp_path), tmp_path / "known.txt"
    known.write_text("bob\n", encoding="utf-8")
    assert main(["sample", path, "--seed", "4", "--length", "3", "--novel", str(known)]) == 1
    error = capsys.readouterr().err
    assert "1,100 tries, 1,100 of which --length cut off; raise --temp or --length" in error


@pytest.mark.skipif(not hasattr(select, "poll"), reason="needs poll")
@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (b"ROMEO:\n", [], True),
        (b"ROMEO:\n", ["--prime", "the"], True),
        (b"ROMEO:\n", ["--json"], True),
        (b"the", ["--prime-file", "-"], False),
        (b"the\n", ["--interactive"], False),
        (b"", [], False),
    ],
)
def test_a_pipe_with_bytes_that_nobody_reads_is_told_about_prime_file(
    text, options, told, path, capsys, monkeypatch
):
    ours, theirs = os.pipe()
    os.write(theirs, text)
    os.close(theirs)
    with open(ours, encoding="utf-8") as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        assert main(["sample", path, "--seed", "1", "--length", "5", *options]) == 0
        assert ("--prime-file -" in capsys.readouterr().err) == told
        assert not told or standard_input.read().encode() == text


def test_an_open_pipe_without_bytes_is_neither_waited_for_nor_mentioned(path, capsys, monkeypatch):
    ours, theirs = os.pipe()
    with open(ours, encoding="utf-8") as standard_input, open(theirs, "w"):
        monkeypatch.setattr("sys.stdin", standard_input)
        assert main(["sample", path, "--seed", "1", "--length", "5"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["file", "nothing", "closed"])
def test_a_standard_input_that_is_no_pipe_is_not_mentioned(
    kind, path, tmp_path, capsys, monkeypatch
):
    (tmp_path / "list").write_text("one\ntwo\n", encoding="utf-8")
    with open(tmp_path / "list" if kind == "file" else os.devnull) as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        if kind == "closed":
            standard_input.close()
        assert main(["sample", path, "--seed", "1", "--length", "5"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lines", [False, True])
def test_each_drawn_character_is_put_into_a_text_once_however_many_samples_there_are(
    lines, tmp_path, capsys, monkeypatch
):
    path = saved(tiny("abc\n", training={"lines": lines}), tmp_path)
    made = []
    sample, follow = Samples.sample, Samples.follow

    def counted_sample(self, i):
        made.append(len((found := sample(self, i)).text))
        return found

    def counted_follow(self, i):
        for piece in follow(self, i):
            made.append(len(piece))
            yield piece

    monkeypatch.setattr(Samples, "sample", counted_sample)
    monkeypatch.setattr(Samples, "follow", counted_follow)
    options = ["--num", "200", "--seed", "1", "--length", "60", "--stop", "ab"]
    for shown in ([], ["--json"]):
        made.clear()
        assert main(["sample", path, *options, *shown]) == 0
        assert 0 < sum(made) <= len(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--temp", "1e301"], "--temp is beyond all limits; it must be at least 0"),
        (["--temp", "inf"], "--temp is beyond all limits; it must be at least 0"),
        (["--temp", "-1"], "--temp is -1; it must be at least 0"),
        (["--interactive", "--num", "2"], "--interactive and --num don't go together"),
        (["--prime", "", "--prime-file", "a"], "--prime and --prime-file don't go together"),
    ],
)
def test_what_is_said_about_wrong_usage_is_true(options, told, path, capsys):
    assert main(["sample", path, *options]) == 2
    assert told in capsys.readouterr().err
