"""`charrnn train` as it is typed: bad input, events, the log, signals, the dry run, the display."""

import errno
import io
import json
import math
import os
import re
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from rich.console import Console
from tiny_models import tiny

import charrnn
from charrnn.cli.display import Live, Plain, excerpt, summary
from charrnn.cli.facts import curve, duration
from charrnn.cli.log import Log
from charrnn.cli.terminal import console, labelled
from charrnn.cli.train import Session, seconds
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.parameters import Parameters
from charrnn.training.defaults import BASE_BYTES, memory_bytes, resolve
from charrnn.training.events import Done, Notice, Sampled, Saved, Start, Step, Validated

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
TRAIN = "train text.txt --hidden 8 --batch-size 4 --seq-len 16 --workers 1 --steps 5 --out m.npz"
RESUME = "train --resume --out m.npz"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
KEYS = {
    "start": "corpus_characters vocabulary_size params cell hidden layers batch_size seq_len "
    "workers ranks seed floor_nats floor_order",
    "step": "step steps epoch loss grad_norm lr chars_per_second",
    "validated": "step val_loss best val_characters",
    "sampled": "step text",
    "notice": "text",
    "saved": "step checkpoint",
    "done": "steps epochs seconds train_loss val_loss val_bpc val_characters floor_nats "
    "chars_per_second params workers ranks checkpoint stopped command",
}


@pytest.fixture(autouse=True)
def folder(cli, tmp_path):
    """A folder with corpora of all kinds."""
    Path("text.txt").write_text(TEXT)
    Path("empty.txt").touch()
    Path("one.txt").write_text("a")
    Path("binary").write_bytes(bytes(range(256)))
    Path("latin1.txt").write_bytes("café au lait".encode("latin-1"))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(path="m.npz"):
    return charrnn.load(path).parameters.flat


def objects(lines):
    return [json.loads(line, parse_constant=pytest.fail) for line in lines.splitlines()]


FAILURES = """\
nowhere.txt
empty.txt
one.txt
binary
latin1.txt
text.txt --out old.npz
text.txt --out .
text.txt --out nowhere/m.npz
--resume --out nowhere.npz
--resume --out text.txt
--resume --out old.npz
text.txt --init-from text.txt
text.txt --log .
text.txt --log nowhere/log
text.txt --log text.txt
text.txt --log text.txt --overwrite
"""
WRONG_USAGE = """\
- -
text.txt --hidden 0
text.txt --hidden x
text.txt --val-fraction 1.5
text.txt --cell tree
text.txt --budget 3x
text.txt --budget 0
text.txt --budget -1s
text.txt --steps 5 --budget 3m
text.txt --workers many
text.txt --workers 0
text.txt --lr nan
text.txt --lr inf
text.txt --clip -1
text.txt --seed -1
text.txt --encoding nonsense
text.txt --dropout 1
text.txt --save-every 0
text.txt --resume --overwrite
text.txt --resume --init-from m.npz
"""
BAD = dict.fromkeys(FAILURES.splitlines(), 1) | dict.fromkeys(WRONG_USAGE.splitlines(), 2)


@pytest.mark.parametrize("options", BAD)
def test_bad_input_is_one_line_with_the_right_code_and_touches_no_file(
    options, folder, cli, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    Path("old.npz").write_bytes(b"PK not really")
    before = contents(folder)
    length = "" if "--budget" in options or "--steps" in options else "--steps 1"
    assert "internal error" not in cli.refusal(f"train {options} {length}", BAD[options])
    assert contents(folder) == before


def test_json_has_the_events_in_order_with_the_keys_of_the_contract(cli):
    out, err = cli(f"{TRAIN} --json --sample-every 2 --val-every 3")
    told = objects(out)
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        "a text of fewer than 5,000 characters is too short to learn spelling from",
        "the validation part has only 178 characters to predict",
    ]
    for line in err.splitlines():
        assert told.pop(0) == {"event": "notice", "text": line}
    for event in told:
        assert " ".join(event) == f"event {KEYS[event['event']]}"
    names = [event["event"] for event in told]
    assert names[0] == "start"
    assert names[-2:] == ["saved", "done"]
    assert [event["step"] for event in told if event["event"] == "sampled"] == [2, 4]
    assert [event["step"] for event in told if event["event"] == "validated"] == [3, 5]
    assert (told[-1]["stopped"], told[-1]["steps"]) == ("finished", 5)


def test_a_bar_that_the_environment_switches_off_is_drawn_all_the_same(cli, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr("charrnn.cli.display.is_plain", lambda stream: False)
    cli(TRAIN)


def test_the_printed_command_repeats_the_run_bit_for_bit(cli):
    command = cli.json(f"{TRAIN} --seed 3 --val-every 2")[-1]["command"]
    first = weights()
    assert cli(f"{command.removeprefix('charrnn ')} --overwrite --quiet") == ("", "")
    assert np.array_equal(weights(), first)


def test_without_validation_losses_are_null(cli):
    done = cli.json(f"{TRAIN} --val-fraction 0")[-1]
    assert (done["val_loss"], done["val_bpc"], done["floor_nats"]) == (None, None, None)


def test_quiet_says_nothing(cli):
    assert cli(f"{TRAIN} --quiet") == ("", "")


def test_plain_output_is_few_lines_on_stderr_with_the_next_commands(cli):
    out, err = cli(f"{TRAIN} --val-every 1 --steps 60")
    assert out == ""
    assert len(err.splitlines()) < 40
    assert "charrnn sample m.npz --temp 0.7" in err
    assert "charrnn train --resume --out m.npz --steps 120" in err
    assert "\x1b" not in err
    assert "\r" not in err


@pytest.mark.parametrize(("option", "shown"), [("--quiet", []), ("", ["step 2", "step 4"])])
def test_without_a_terminal_samples_are_shown_where_sample_every_asks_for_them(option, shown, cli):
    err = cli(f"{TRAIN} --sample-every 2 {option}").err
    assert [line for line in err.splitlines() if line.startswith("step ")] == shown


def test_without_a_terminal_no_sample_is_shown_unasked(capsys):
    Plain()(Sampled(6, "text"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("asked", "shown"), [(True, 4), (False, 1)])
def test_a_terminal_shows_every_sample_where_sample_every_asks_for_them(asked, shown, monkeypatch):
    stream = screen(monkeypatch)
    live = Live(asked)
    for number in range(4):
        live(Sampled(number, "text"))
    live.close()
    assert stream.getvalue().count("  text") == shown


def test_resume_without_options_takes_the_runs_own_and_a_given_default_counts_as_given(cli):
    cli(f"{TRAIN} --cell gru --seed 7 --quiet")
    told = cli.json(f"{RESUME} --steps 8")
    start = next(event for event in told if event["event"] == "start")
    assert (start["cell"], start["seed"], told[-1]["steps"]) == ("gru", 7, 8)
    said = cli(f"{RESUME} --steps 9 --cell lstm", 1).err
    assert "--cell lstm was asked for, but the run has gru" in said


def test_nothing_left_to_do_says_so_and_leaves_the_log_alone(cli):
    cli(f"{TRAIN} --quiet --log run.jsonl")
    before = Path("run.jsonl").read_bytes()
    assert "nothing left to do" in cli(f"{RESUME} --log run.jsonl").err
    assert Path("run.jsonl").read_bytes() == before


def test_the_log_is_what_json_prints(cli):
    assert cli(f"{TRAIN} --json --log run.jsonl").out == Path("run.jsonl").read_text()


def test_a_resumed_log_is_cut_back_to_the_checkpoint_and_continued(cli):
    log = Path("run.jsonl")
    cli(f"{TRAIN} --quiet --log run.jsonl --val-every 2")
    whole = log.read_text()
    later = '{"event": "validated", "step": 9, "val_loss": 1.0, "best": true}\n{"event": "saved", "'
    log.write_text(whole + later)
    cli(f"{RESUME} --steps 8 --log run.jsonl --quiet")
    told = objects(log.read_text())
    assert log.read_text().startswith(whole)
    assert [event["event"] for event in told].count("start") == 2
    steps = [
        event.get("step", event.get("steps"))
        for event in told
        if event["event"] not in ("start", "notice")
    ]
    assert steps == sorted(steps)
    assert told[-1]["steps"] == 8


def test_before_the_first_step_neither_log_nor_checkpoint_is_there(monkeypatch, folder, cli):
    def stop(*_):
        raise KeyboardInterrupt

    before = contents(folder)
    monkeypatch.setattr("charrnn.training.replica.Replica.step", stop)
    cli(f"{TRAIN} --log run.jsonl", 130)
    assert contents(folder) == before


def stopping(number):
    """A listener's step that sends this process a signal after the third."""

    def step(self, event):
        if event.step == 3:
            os.kill(os.getpid(), number)

    return step


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_after_the_step_saves_and_can_be_resumed(number, code, monkeypatch, cli):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Plain, "step", stopping(number))
        err = cli(TRAIN, code).err
    assert "interrupted and saved" in err
    assert "charrnn train --resume --out m.npz\n" in err
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    cli(f"{RESUME} --quiet")
    cli(f"{TRAIN} --quiet --out whole.npz")
    assert np.array_equal(weights(), weights("whole.npz"))


@POSIX
def test_a_second_ctrl_c_ends_at_once():
    with Session([]) as session:
        session.tell(step(1))
        os.kill(os.getpid(), signal.SIGINT)
        assert session.interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@POSIX
def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Session([]) as session:
            session.tell(step(1))
            os.kill(os.getpid(), signal.SIGHUP)
            assert not session.interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_diverging_run_is_exit_1_with_one_line_that_says_what_to_try(cli):
    said = cli.refusal(f"{TRAIN} --optimizer sgd --lr 1e6 --clip 0 --quiet --steps 200")
    assert "m.npz has the last good weights" in said
    assert "try a smaller --lr, or --clip 1" in said
    assert np.isfinite(weights()).all()


def deaf(event):
    """A listener whose pipe is closed."""
    raise BrokenPipeError


def test_a_closed_pipe_lets_the_run_be_saved_once_it_has_begun():
    heard = []
    with Session([deaf, heard.append]) as session:
        with pytest.raises(BrokenPipeError):
            session.tell(Saved(1, "m.npz"))
        session.tell(step(1))
        session.tell(Saved(1, "m.npz"))
        assert session.interrupted()
        assert isinstance(session.failure, BrokenPipeError)
    assert [event.name for event in heard] == ["step", "saved"]


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def isatty(self):
        return True


@POSIX
@pytest.mark.parametrize("signalled", [False, True])
def test_a_terminal_that_is_closed_saves_the_run_and_is_exit_129(signalled, monkeypatch, cli):
    monkeypatch.setenv("TERM", "xterm")

    def step(self, event):
        if signalled:
            os.kill(os.getpid(), signal.SIGHUP)
        monkeypatch.setattr(sys, "stderr", Gone())
        print("lost", file=sys.stderr)

    monkeypatch.setattr("charrnn.cli.display.is_plain", lambda stream: False)
    monkeypatch.setattr(Live, "step", step)
    cli(TRAIN, 129)
    assert charrnn.load("m.npz").step == 1


def test_a_dry_run_says_what_would_be_done_and_does_nothing(folder, cli):
    Path("m.npz").write_text("an older model, which stays")
    before = contents(folder)
    (plan,) = cli.json(f"{TRAIN} --dry-run --log run.jsonl")
    assert "\n--hidden      8\n" in (table := cli(f"{TRAIN} --dry-run").out)
    assert "\n--val-fraction 0.1\n" in table
    assert contents(folder) == before
    assert plan["steps"] == 5
    H, N = 8, plan["vocabulary_size"]
    assert plan["params"] == 4 * H * (N + H + 1) + N * (H + 1)
    assert plan["settings"]["hidden"] == 8
    assert plan["memory_bytes"] > 4 * plan["params"]


def test_a_text_of_a_few_characters_is_said_to_be_short_in_plain_words(cli):
    Path("short.txt").write_text("short\n")
    assert cli("train short.txt --dry-run").err.splitlines()[:2] == [
        "the text is short: each step reads 1 stream of 4 characters, not 32 of 32",
        "a text of fewer than 5,000 characters is too short to learn spelling from",
    ]


@pytest.mark.parametrize(
    ("option", "told"),
    [("", "no text given: training on the tales that ship with charrnn\n"), ("--quiet", "")],
)
def test_it_says_that_without_a_text_the_tales_are_taken(option, told, cli):
    assert cli(f"train --steps 5 --hidden 8 --workers 1 --dry-run {option}").err == told


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("B", [64, 128])
def test_the_memory_estimate_is_near_what_the_arrays_of_a_run_take(cell, B):
    config = charrnn.TrainConfig(
        cell=cell, hidden=64, batch_size=B, seq_len=64, steps=1, dropout=0.2
    )
    settings = resolve(config, characters=10**6, validation=10**5, N=50, processors=1)
    arrays = {}
    for a in vars(CELL_CLASSES[cell](64, 64, B, np.float32)).values():
        if isinstance(a, np.ndarray):
            whole = a if a.base is None else a.base  # views of the same array count once
            arrays[id(whole)] = whole.nbytes
    beside = 4 * (
        64 * 64 * B * 4 + 2 * 50 * 64 * B
    )  # dh, masks and temporaries; ŷ and the one-hot columns
    validation = 0 if B == 64 else sum(arrays.values()) / 2
    twins = 4 * 12 * Parameters(settings.model, 50).flat.size
    expected = sum(arrays.values()) + beside + validation + twins + BASE_BYTES
    assert memory_bytes(settings, 50, 1) == pytest.approx(expected, rel=0.15)


def test_a_dry_run_of_a_resume_counts_from_the_checkpoint(cli):
    cli(f"{TRAIN} --quiet")
    (plan,) = cli.json(f"{RESUME} --steps 20 --dry-run")
    assert (plan["first_step"], plan["steps"]) == (5, 20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("3m", 180),
        ("1h", 3600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("90", 90),
        (" 2M ", 120),
    ],
)
def test_a_duration_is_read_in_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "m", "3x", "3 m", "1h30", "-1s", "1e3", "nan", "3m!", "1..5h"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(typer.BadParameter, match="is not a duration such as 90s"):
        seconds(text)


def test_a_time_is_shown_as_a_clock_shows_it():
    assert [duration(t) for t in (5, 75, 3675)] == ["00:05", "01:15", "1:01:15"]
    assert duration(90_000) == "1 day, 1:00:00"
    assert duration(1e300) == duration(1e13)


CURVE = [(100 * i, 1 + 2 / i, 1.2 + 2 / i) for i in range(1, 30)]


def drawn(points, floor=None, columns=81, encoding="utf-8"):
    """The lines of a learning curve on a screen of so many columns."""
    model = SimpleNamespace(curve=points, floor_nats=floor)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return curve(model, 12, Console(file=file, width=columns)).split("\n")


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_curve_fits_and_falls_and_names_its_ends(width):
    lines = drawn(CURVE, columns=width + 1)
    assert len(lines) == 12
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("  3.20 ┤")
    assert lines[8].startswith("  1.07 ┤")
    assert "100" in lines[-2]
    assert "step 2,900" in lines[-2]
    heights = [
        next(y for y in range(10) if lines[y][8 + x : 9 + x] == "─") for x in range(0, width - 8, 5)
    ]
    assert heights == sorted(heights)


def test_a_curve_in_ascii_is_ascii():
    assert "".join(drawn(CURVE, floor=1.1, encoding="ascii")).isascii()


def test_a_curve_of_fewer_than_two_losses_is_empty_and_a_level_one_is_level():
    assert drawn([]) == drawn([(1, 2.0, 2.0)]) == [""]
    assert drawn([(1, None, None), (2, None, None)], floor=1.0) == [""]
    assert "·····" in drawn([(1, 2.0, None), (2, 2.0, None)])[0]


def test_a_curve_has_the_floor_where_it_is_known():
    assert "╌╌╌╌╌" in drawn(CURVE, floor=0.9)[8]
    assert "n-gram floor" in drawn(CURVE, floor=0.9)[-1]
    assert "floor" not in drawn(CURVE)[-1]


def step(number, **more):
    given = {
        "steps": 1000,
        "epoch": 0.5,
        "loss": 2.0,
        "grad_norm": 1.0,
        "lr": 0.1,
        "chars_per_second": 62_100.0,
        "progress": 0.0,
    }
    return Step(**{"step": number, "seconds_left": 61.0, "shown": True, **given, **more})


def test_the_line_of_figures_leaves_room_for_a_bar():
    plain = Plain()
    plain.val_loss = 2 * math.log(2)
    plain.step(step(999, steps=123_456))
    line = plain.line(step(99_999, steps=123_456))
    assert len(line) < 80 - 5
    for shown in ("step 99,999", "62.1k/s", "2.000", "1.386", "2.00 bits", "01:01 left"):
        assert shown in line


def test_the_shown_loss_is_the_plain_mean_at_first():
    plain = Plain()
    for loss in (3.0, 1.0):
        plain.step(step(1, loss=loss))
    assert plain.loss() == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("columns", [20, 40, 77, 100, 200])
def test_the_live_line_fits_the_terminal_whatever_its_width_is_now(columns, monkeypatch):
    stream = screen(monkeypatch)
    live = Live()
    for width in (150, columns):
        monkeypatch.setenv("COLUMNS", str(width))
        live(step(99_999, steps=99_999, progress=0.5))
        live.bar.refresh()  # not waiting for the next drawing
        drawn = stream.getvalue().split("\r")[-1]
        assert drawn.startswith(" 50%|")
        assert len(drawn.rstrip()) <= width - 3
    live.close()


class Screen(io.StringIO):
    """A terminal that keeps what it is sent."""

    encoding = "utf-8"

    def isatty(self):
        return True


def screen(monkeypatch):
    """Standard error as a terminal without colour, from now on."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Screen()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_terminal_gets_a_bar_samples_and_a_curve(monkeypatch, cli):
    stream = screen(monkeypatch)
    cli(f"{TRAIN} --sample-every 5 --val-every 2 --steps 20")
    shown = stream.getvalue()
    assert "100%|" in shown
    assert "step 5" in shown
    assert "─ validation" in shown
    assert shown.rstrip().endswith("--out m-again.npz")


def test_without_a_terminal_the_lines_fit_into_80_columns(capsys):
    plain = Plain()
    given = {
        "params": 1_107_713,
        "cell": "lstm",
        "hidden": 1024,
        "layers": 3,
        "batch_size": 64,
        "seq_len": 64,
        "workers": 16,
        "ranks": 1,
    }
    text = {
        "corpus_characters": 123_456_789,
        "vocabulary_size": 1000,
        "floor_nats": 1.5,
        "floor_order": 6,
    }
    plain(Start(**given, **text, seed=0, first_step=0))
    plain(Validated(1, 1.4, True, 99))
    plain(step(99_999, steps=123_456, progress=0.99, seconds_left=36_001.0))
    *begun, line = capsys.readouterr().err.splitlines()
    assert [shown[:14].strip() for shown in begun] == ["text", "network", "n-gram floor"]
    expected = "loss 2.000  val 1.400 = 2.02 bits  10:00:01 left  62.1k/s  step 99,999"
    assert line == f" 99%  {expected}"
    assert max(map(len, (*begun, line))) <= 80


def test_samples_and_notices_cannot_move_the_cursor_or_speak_markup(monkeypatch):
    stream = screen(monkeypatch)
    live = Live()
    live(Notice("a\x1b[2J [red]b[/red]"))
    live(step(1))
    live(Sampled(1, "x\x1b]0;title\x07\n[bold]y"))
    live.close()
    shown = stream.getvalue()
    assert "a\\x1b[2J [red]b[/red]" in shown
    assert "  x\\x1b]0;title\\x07\n  [bold]y" in shown
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert shown.endswith("\r\x1b[K")


def test_an_excerpt_is_cut_by_columns_not_characters(monkeypatch):
    stream = screen(monkeypatch)
    monkeypatch.setenv("COLUMNS", "22")
    plain = Plain()
    plain.above(excerpt(Sampled(7, "漢字" * 30 + "\n\n" + "a" * 100 + "\n\tb")))
    heading, *shown = stream.getvalue().splitlines()
    assert "step 7" in heading
    assert shown == ["  " + "漢字" * 5, "  " + "a" * 20, "      b"]
    assert len(excerpt(Sampled(7, "a\n" * 100)).plain.split("\n")) == 1 + 4


def test_the_summary_holds_the_loss_against_floor_and_uniform_and_quotes_paths():
    meta = {"step": 5, "val_loss": 2.0, "floor_nats": 1.5, "floor_order": 3}
    done = dict.fromkeys(field.name for field in fields(Done)) | {
        "steps": 5,
        "ranks": 1,
        "checkpoint": "a b.npz",
        "stopped": "finished",
        "command": "charrnn train x",
        "repeatable": True,
        "model": tiny("abcd", **meta),
    }
    told = summary(Done(**done))
    assert told["validation"].startswith("2.000 nats = 2.885 bits")
    assert told["n-gram floor"].startswith("1.500 nats")
    assert told["uniform"].startswith(f"{math.log(4):.3f}")
    assert told["sample"] == "charrnn sample 'a b.npz' --temp 0.7"
    assert told["repeat"] == "charrnn train x"
    assert "continue" not in summary(Done(**done | {"stopped": "diverged"}))


def test_in_a_narrow_terminal_facts_are_broken_between_words_and_commands_stay_whole(monkeypatch):
    stream = screen(monkeypatch)
    monkeypatch.setenv("COLUMNS", "60")
    floor = "1.669 nats = 2.408 bits a character (n-grams of order 5)"
    repeat = "charrnn train" + " a-long-name.txt" * 9
    plain = Plain()
    path = "a-long-folder/" * 5 + "model.npz"
    rows = {"n-gram floor": floor, "checkpoint": path, "repeat": repeat, "ended": ""}
    plain.above(labelled(rows, console(True)))
    *facts, label, shown, command = re.sub(r"\x1b\[\d+m", "", stream.getvalue()).splitlines()
    assert facts == ["n-gram floor  1.669 nats = 2.408 bits a character (n-grams", "of order 5)"]
    assert (label, shown) == ("checkpoint", path)
    assert command == "repeat        " + repeat
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # a file has each fact on one line
    assert labelled({"n-gram floor": floor}, console(True)).plain == f"n-gram floor  {floor}"


def test_a_terminal_without_columns_shows_a_word_a_line(monkeypatch):
    screen(monkeypatch)
    monkeypatch.setenv("COLUMNS", "0")
    assert "".join(labelled({"text": "two words"}, console(True)).plain.split()) == "texttwowords"


def test_a_log_is_only_opened_by_the_first_step(folder):
    log = Log(Path("run.jsonl"), (), charrnn.TrainConfig())
    start = Start(9, 3, 5, "lstm", 8, 1, 4, 16, 1, 1, 0, None, None, 0)
    log(start)
    assert not Path("run.jsonl").exists()
    log(step(1, loss=math.nan))
    log(Validated(1, 2.0, True, 99))
    log.close()
    told = objects(Path("run.jsonl").read_text())
    assert [event["event"] for event in told] == ["start", "step", "validated"]
    assert told[1]["loss"] is None


def test_a_log_on_a_disk_that_takes_a_part_of_a_line_writes_the_rest(folder):
    taken = []

    class Disk(io.RawIOBase):
        def writable(self):
            return True

        def write(self, line):
            taken.append(bytes(line[:10]))
            return len(taken[-1])

    log = Log(Path("run.jsonl"), (), charrnn.TrainConfig())
    log.file = io.TextIOWrapper(io.BufferedWriter(Disk()))
    log(Validated(1, 2.0, True, 99))
    assert objects(b"".join(taken).decode())[0]["val_loss"] == 2.0


@pytest.mark.parametrize(
    ("log", "what"),
    [
        ("m.npz", "m.npz, which this command uses"),
        ("texts/run.jsonl", "texts, which this command uses"),
        ("texts/a.txt", "texts, which this command uses"),
    ],
)
def test_a_log_that_would_become_the_model_or_a_text_is_refused(log, what, folder, cli):
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("abc" * 50)
    before = sorted(folder.rglob("*"))
    assert what in cli.refusal(f"train texts --out m.npz --log {log} --steps 2")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_a_pipe_that_is_the_text_is_no_log(cli):
    os.mkfifo("pipe")
    assert "pipe" in cli.refusal("train pipe --out m.npz --log pipe --steps 2")


def test_ctrl_c_before_the_first_step_says_that_nothing_was_written(monkeypatch, cli):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("charrnn.training.loop.prepare", interrupt)
    err = cli("train --out m.npz", 130).err
    assert "interrupted before the first step: nothing was written" in err
    assert not Path("m.npz").exists()
