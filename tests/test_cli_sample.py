"""`charrnn sample` and `charrnn next`, as one types them."""

import io
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
from charrnn.cli.terminal import Stream
from charrnn.sampling.sampling import Samples

TEXT = "the cat sat on the mat, ÉTÉ\n"
LINES = {"lines": True}


@pytest.fixture(autouse=True)
def model(cli, tmp_path, monkeypatch):
    """The model in tiny.npz. Nobody reads standard input."""
    monkeypatch.setattr("sys.stdin", None)
    model = tiny(TEXT)
    saved(model, tmp_path)
    return model


@pytest.fixture
def lines(tmp_path):
    """A model of lines, in lines.npz."""
    return saved(tiny("abc\n", training=LINES), tmp_path, "lines.npz")


def typed(text):
    return io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")


def drawn(model, prime, **options):
    return prime + "".join(charrnn.sample(model, prime=prime, **options))


def ended(text):
    """The text as it is shown: its last line ends."""
    return text + "\n" * (not text.endswith("\n"))


def test_the_text_is_the_prime_and_what_the_api_draws(model, cli):
    out, _ = cli("sample tiny.npz --prime 'the ' --length 30 --temp 0.7 --seed 3")
    assert out == ended(drawn(model, "the ", length=30, temp=0.7, seed=3))


@pytest.mark.parametrize(("flag", "start"), [("--no-prime", 4), ("", 0)])
def test_no_prime_leaves_the_prime_out_and_changes_nothing_else(flag, start, model, cli):
    (only,) = cli.json(f"sample tiny.npz --prime 'the ' --length 9 --seed 3 {flag}")
    assert only["text"] == drawn(model, "the ", length=9, seed=3)[start:]
    assert only["prime"] == "the "


@pytest.mark.parametrize(
    ("char", "expected"), [("\n", "\n\n"), ("a", "aa\n"), ("\x1b", "\x1b" * 2 + "\n")]
)
def test_a_pipe_gets_the_characters_themselves_and_a_newline_if_the_text_ends_without(
    char, expected, tmp_path, cli
):
    saved(always(char), tmp_path)
    assert cli("sample tiny.npz --length 2 --seed 0").out == expected


def test_a_seed_that_nobody_gave_is_said_and_gives_the_text_again(cli):
    out, err = cli("sample tiny.npz --length 40")
    (seed,) = re.findall(r"^seed: (\d+)\n$", err)
    assert cli(f"sample tiny.npz --length 40 --seed {seed}") == (out, "")


@pytest.mark.parametrize("source", ["prime.txt", "-"])
def test_the_prime_comes_from_a_file_or_from_standard_input(source, model, cli, monkeypatch):
    Path("prime.txt").write_text("the cat", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", typed(b"the cat"))
    (only,) = cli.json(f"sample tiny.npz --prime-file {source} --length 20 --seed 5")
    assert only["text"] == drawn(model, "the cat", length=20, seed=5)


def test_nats_are_those_of_the_drawn_characters_at_temp_1(model, cli):
    samples = cli.json("sample tiny.npz --prime cat --length 25 --temp 0.5 --num 3 --seed 1")
    assert [(sample["seed"], sample["temp"]) for sample in samples] == [(1, 0.5)] * 3
    assert len({sample["text"] for sample in samples}) == 3
    for sample in samples:
        expected = charrnn.score(model, sample["text"]).nats[len("cat") - 1 :].sum()
        assert sample["nats"] == pytest.approx(expected, abs=1e-3)


def test_several_texts_stand_one_after_the_other_under_headings(cli):
    command = "sample tiny.npz --num 3 --length 15 --seed 2 --prime on"
    texts = enumerate(cli.json(command), 1)
    expected = "".join(f"---- {i} of 3 ----\n{ended(sample['text'])}" for i, sample in texts)
    assert cli(command).out == expected


def test_items_are_a_line_each_in_the_order_of_their_numbers(lines, cli):
    command = "sample lines.npz --num 7 --seed 4 --prime a"
    assert cli(command).out == "".join(f"{item['text']}\n" for item in cli.json(command))


def test_novel_items_are_not_lines_of_the_file(lines, cli):
    common = {item["text"] for item in cli.json("sample lines.npz --num 60 --seed 4")}
    Path("known.txt").write_text("\n".join(sorted(common)) + "\n", encoding="utf-8")
    items = cli("sample lines.npz --num 20 --seed 4 --novel known.txt").out.splitlines()
    assert len(items) == 20
    assert common.isdisjoint(items)


@pytest.mark.parametrize("char", ["\n", "a"])
def test_novel_gives_up_when_all_items_are_known_or_cut_off(char, tmp_path, cli):
    saved(always(char, training=LINES), tmp_path)
    Path("known.txt").write_text("ab\n", encoding="utf-8")
    said = cli.refusal("sample tiny.npz --prime ab --seed 4 --length 3 --novel known.txt")
    assert "only 0 of 1 items are new after 1,100 tries; raise --temp or --length, lower" in said


@pytest.mark.parametrize("prints_json", [False, True])
def test_items_that_length_cuts_off_are_not_new(prints_json, lines, cli):
    items = {item["text"] for item in cli.json("sample lines.npz --num 300 --seed 4")}
    short = {item for item in items if len(item) < 2}  # with their newline, of at most --length
    Path("known.txt").write_text("\n".join(items - short) + "\n", encoding="utf-8")
    command = "sample lines.npz --num 30 --seed 4 --novel known.txt --length 2"
    texts = [item["text"] for item in cli.json(command)]
    found = texts if prints_json else cli(command).out.splitlines()
    assert len(found) == 30
    assert all(len(item) < 2 for item in found)


def test_an_unknown_character_of_the_prime_is_pointed_at_or_skipped(cli):
    told = cli.refusal("sample tiny.npz --prime caZt")  # no seed before it: nothing was drawn
    assert told.startswith("prime: line 1, column 3: 'Z' (U+005A) ")
    assert told.endswith("--unknown skip")
    out, err = cli("sample tiny.npz --prime caZt --seed 1 --unknown skip --length 5")
    assert out.startswith("cat")
    assert "1 unknown character left out" in err


def test_show_probs_gives_the_probability_of_each_drawn_character(model, cli):
    (only,) = cli.json("sample tiny.npz --prime cat --length 12 --seed 1 --show-probs")
    expected = np.exp(-charrnn.score(model, only["text"]).nats[2:])
    np.testing.assert_allclose(only["probabilities"], expected, rtol=1e-3)


def test_show_probs_says_what_y_hat_is_and_notes_levels_without_colour(model, cli):
    out, err = cli("sample tiny.npz --prime cat --length 12 --seed 1 --show-probs")
    text = drawn(model, "cat", length=12, seed=1)
    shown = out.splitlines()[2:]
    assert "".join(shown[::2]).replace("↵", "\n") == text
    rows = zip(shown[::2], shown[1::2], strict=True)
    digits = "".join(row.ljust(len(above)) for above, row in rows)
    halvings = -np.log2(np.exp(-charrnn.score(model, text).nats[2:]))
    assert digits == "   " + "".join(str(min(9, int(n))) for n in halvings)
    (facts,) = re.findall(
        r"12 vectors: length N = (\d+); .* all in \[0, 1\]; each sums to 1 \(within (\S+)\)", err
    )
    assert int(facts[0]) == len(model.vocabulary)
    assert float(facts[1]) < 1e-12


def test_a_prime_in_another_encoding_is_read_with_encoding(cli):
    Path("prime").write_bytes("ÉTÉ".encode("latin-1"))
    command = "sample tiny.npz --prime-file prime --length 1 --seed 1"
    assert "--encoding latin-1" in cli.refusal(command)
    assert cli(f"{command} --encoding latin-1").out.startswith("ÉTÉ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", ["--length 5", "--json", "--length 99999"])
def test_an_output_without_room_is_one_line_and_exit_1(options):
    words = f"-m charrnn sample tiny.npz --seed 1 {options}".split()
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    said = "charrnn: no space left for the output; make room, or send it elsewhere\n"
    assert (process.returncode, process.stderr) == (1, said)


def test_a_line_that_is_no_text_ends_the_conversation_with_one_line(monkeypatch, cli):
    monkeypatch.setattr("sys.stdin", typed(b"the\n\xff\n"))
    _, err = cli("sample tiny.npz --interactive --seed 1 --length 8", 1)
    assert err.startswith("charrnn: standard input isn't utf-8 (")


def test_interactive_goes_on_from_each_line_and_survives_a_mistake(model, cli, monkeypatch):
    monkeypatch.setattr("sys.stdin", typed(b"cat\ncaZt\nmat\n"))
    out, err = cli("sample tiny.npz --interactive --seed 1 --length 8")
    assert out == "".join(ended(drawn(model, prime, length=8, seed=1)) for prime in ("cat", "mat"))
    assert "prime: line 1, column 3: 'Z' (U+005A)" in err


def test_a_conversation_has_one_seed_which_is_said_once_and_counts_up(model, cli, monkeypatch):
    monkeypatch.setattr("sys.stdin", typed(b"cat\ncaZt\ncat\n"))  # caZt is refused
    out, err = cli("sample tiny.npz --interactive --length 30")
    seed = int(re.match(r"seed: (\d+) for the first text, then 1 higher each time\n", err)[1])
    texts = [drawn(model, "cat", length=30, seed=seed + i) for i in (0, 1)]
    assert out == "".join(map(ended, texts))


def test_a_pattern_that_is_none_ends_a_conversation_before_it_begins(cli):
    cli.refusal("sample tiny.npz --interactive --match [A-Z", 2)


def test_ctrl_d_at_the_prompt_ends_its_line(cli, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", screen)
    cli("sample tiny.npz --interactive")
    assert screen.getvalue() == "> \n"


def test_a_beginning_in_place_of_the_model_is_told_about_prime(cli):
    assert cli.refusal("sample ROMEO:") == (
        "ROMEO:: there is no such checkpoint; use --prime to give a text to continue"
    )


def test_next_shows_the_likeliest_characters_of_y_hat(model, cli):
    def probability(char):
        return float(np.exp(-charrnn.score(model, "the ca" + char).nats[-1]))

    (only,) = cli.json("next tiny.npz 'the ca' -k 4")
    expected = sorted(model.vocabulary.characters, key=probability, reverse=True)[:4]
    assert [one["character"] for one in only["next"]] == expected
    assert [one["probability"] for one in only["next"]] == pytest.approx(
        [probability(char) for char in expected], rel=1e-4
    )


def test_next_draws_bars_in_the_order_of_the_probabilities(cli):
    lines = cli("next tiny.npz 'the ca' --top-k 100").out.splitlines()
    rows = [line.rpartition("%") for line in lines]
    assert len(rows) == len(set(TEXT))
    lengths = [len(bar.strip()) for _, _, bar in rows]
    assert lengths == sorted(lengths, reverse=True)
    shares = [float(before.split()[-1]) for before, sign, _ in rows if sign]
    assert sum(shares) == pytest.approx(100, abs=0.1)


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
@pytest.mark.parametrize("options", ["", "--show-probs", "--num 2"])
def test_control_characters_reach_a_terminal_only_as_visible_escapes(options, tmp_path):
    saved(tiny("\x1b]0;\x07\x9b\u202e\x7fab"), tmp_path)
    output = on_a_terminal(f"sample tiny.npz --length 300 --seed 1 {options}")
    text = re.sub(rb"\x1b\[[0-9;]*m", b"", output).decode()  # our own colours
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", text)
    assert {r"\x1b", r"\x9b", r"\x07", r"\u202e"} <= set(re.findall(r"\\x..|\\u....", text))


def on_a_terminal(command):
    """Return all that a command writes to a pseudo-terminal."""
    import pty

    ours, theirs = pty.openpty()
    package = str(Path(charrnn.__file__).parents[1])
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": package}
    environment.pop("NO_COLOR", None)
    words, output = [sys.executable, "-m", "charrnn", *command.split()], b""
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # Linux says so when the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return output


@pytest.mark.parametrize("name", ["base.npz", "base", "missing.npz"])
def test_next_with_a_checkpoint_alone_says_that_the_text_is_missing(name, cli):
    Path("tiny.npz").rename("model.npz")
    if name != "missing.npz":
        Path(name).write_bytes(Path("model.npz").read_bytes())
    assert cli.refusal(f"next {name}", 2) == (
        f"TEXT is missing: {name} is a checkpoint; give a text after it"
    )


def test_next_takes_a_text_that_is_the_name_of_another_file(cli):
    Path("tiny.npz").rename("model.npz")
    Path("cat").write_text("a text", encoding="utf-8")
    assert cli.json("next cat")[0]["text"] == "cat"


@pytest.mark.parametrize("stop", ["###", "at#", "\u2028", r"'\n'"])
def test_a_stop_text_with_an_unknown_character_is_refused(stop, cli):
    assert cli.refusal(f"sample tiny.npz --stop {stop}").startswith("stop text: line 1, column ")


def test_the_unknown_characters_of_a_stop_text_are_skipped_where_that_is_asked_for(cli):
    command = "sample tiny.npz --seed 1 --length 200 --unknown skip --stop"
    told = "stop text: 1 unknown character left out\n"
    assert cli(f"{command} '#a'") == (cli(f"{command} a").out, told)
    assert "--stop is empty" in cli(f"{command} '#'", 2).err


@pytest.mark.parametrize("option", ["--prime", "--stop"])
@pytest.mark.parametrize("escape", [r"\n", r"\t"])
def test_a_literal_escape_is_told_how_the_shell_writes_it(option, escape, cli):
    assert f"$'{escape}'" in cli.refusal(f"sample tiny.npz {option} 'the{escape}'")


def test_a_literal_escape_is_a_text_like_any_other_to_a_model_with_a_backslash(tmp_path, cli):
    saved(tiny("the\\n"), tmp_path)
    assert cli(r"sample tiny.npz --prime '\n' --stop '\n' --seed 1").out.startswith(r"\n")


@pytest.mark.skipif(not hasattr(select, "poll"), reason="needs poll")
@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (b"ROMEO:\n", "", True),
        (b"ROMEO:\n", "--prime the", True),
        (b"ROMEO:\n", "--json", True),
        (b"the", "--prime-file -", False),
        (b"the\n", "--interactive", False),
        (b"", "", False),
    ],
)
def test_a_pipe_with_bytes_that_nobody_reads_is_told_about_prime_file(
    text, options, told, cli, monkeypatch
):
    ours, theirs = os.pipe()
    os.write(theirs, text)
    os.close(theirs)
    with open(ours, encoding="utf-8") as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        err = cli(f"sample tiny.npz --seed 1 --length 5 {options}").err
        assert ("--prime-file -" in err) == told
        assert not told or standard_input.read().encode() == text


def test_an_open_pipe_without_bytes_is_neither_waited_for_nor_mentioned(cli, monkeypatch):
    ours, theirs = os.pipe()
    with open(ours, encoding="utf-8") as standard_input, open(theirs, "w"):
        monkeypatch.setattr("sys.stdin", standard_input)
        assert cli("sample tiny.npz --seed 1 --length 5").err == ""


@pytest.mark.parametrize("kind", ["file", "nothing", "closed"])
def test_a_standard_input_that_is_no_pipe_is_not_mentioned(kind, cli, monkeypatch):
    Path("list").write_text("one\ntwo\n", encoding="utf-8")
    with open("list" if kind == "file" else os.devnull) as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        if kind == "closed":
            standard_input.close()
        assert cli("sample tiny.npz --seed 1 --length 5").err == ""


@pytest.mark.parametrize("options", ["", "--json"])
@pytest.mark.parametrize("lines", [False, True])
def test_each_drawn_character_is_put_into_a_text_once_however_many_samples_there_are(
    lines, options, tmp_path, cli, monkeypatch
):
    saved(tiny("abc\n", training={"lines": lines}), tmp_path)
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
    out, _ = cli(f"sample tiny.npz --num 200 --seed 1 --length 60 --stop ab {options}")
    assert 0 < sum(made) <= len(out)


def test_next_calls_its_text_a_text(cli):
    assert cli("next tiny.npz 'a€'", 1).err.startswith("charrnn: text: ")
