"""The command line as a whole: help, exit codes, one-line errors, signals, pipes, completion."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from tiny_models import saved, tiny
from typer.main import get_command

import charrnn
from charrnn.cli import app, terminal
from charrnn.cli.options import complete_checkpoint
from charrnn.cli.terminal import counted
from charrnn.errors import CorpusError, UsageError

COMMANDS = ["train", "sample", "gradcheck", "eval", "info", "next", "export"]
RUN = [sys.executable, "-m", "charrnn"]


def failing(monkeypatch, error, *options):
    """The exit code of a program whose only command raises `error`."""
    program = typer.Typer()

    @program.command()
    def command(debug: bool = False):  # typer makes an option of the type
        raise error

    monkeypatch.setattr(app, "program", lambda names: program)
    return app.main(options or ["--"])


def shown(args, columns=80, **variables):
    """What a command writes to a pipe, in a process of its own."""
    environment = {**os.environ, "COLUMNS": str(columns), **variables}
    ended = subprocess.run([*RUN, *args], capture_output=True, env=environment, check=True)
    assert ended.stderr == b""
    return ended.stdout.decode("utf-8")


def words(text):
    """The words of a help, without the boxes that they stand in."""
    return re.sub("[│╭╮╰╯─|+-]+ |[│╭╮╰╯─]", " ", text).split()


def test_the_version_is_the_packages(cli):
    assert cli("--version").out == f"charrnn {charrnn.__version__}\n"


@pytest.mark.parametrize("args", ["", "help", "--help", "-h"])
def test_without_a_command_the_help_names_all_commands_and_where_more_is_said(args, cli):
    out = cli(args).out
    assert all(f"\n│ {name} " in out for name in COMMANDS)
    assert "README of charrnn" in " ".join(out.split("─╯")[-1].split())


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("columns", "variables"), [(80, {}), (20, {}), (80, {"TERM": "dumb"}), (80, {"LANG": "C"})]
)
def test_every_commands_help_has_groups_an_example_json_and_debug(name, columns, variables):
    out = shown([name, "--help"], columns, **variables)
    told = words(out)
    assert f"charrnn {name}" in " ".join(out.split("Example: ", 1)[1].split())
    assert "─ Output ─" in out
    assert {"--json", "--debug", "traceback"} <= set(told)
    assert "…" not in out  # nothing is cut off
    assert "\x1b" not in out


def test_a_commands_help_is_also_told_by_the_command_help():
    assert shown(["help", "next"]) == shown(["next", "--help"])


def test_what_options_and_commands_say_of_themselves_is_no_markup():
    from rich.text import Text

    for command in get_command(app.program()).commands.values():
        for text in (command.help, *(getattr(p, "help", None) or "" for p in command.params)):
            assert Text.from_markup(text).plain == text.replace("\\[", "[")


def test_every_option_stands_in_a_panel_and_its_default_or_unit_beside_it():
    out = shown(["train", "--help"])
    for panel in ("Model", "How long (one of them)", "Learning", "Text", "Files", "Output"):
        assert f"─ {panel} ─" in out
    assert "the budget; 256 with --steps or --epochs" in " ".join(re.sub("│", " ", out).split())
    told = " ".join(words(out))
    assert "[default: 3m]" in told
    assert "[default: auto]" in told
    assert "90s|3m|1h" in told
    assert "rnn|gru|lstm" in told


@pytest.fixture
def files(cli, tmp_path):
    """A model and a text."""
    saved(tiny("abc\n"), tmp_path)
    (tmp_path / "text.txt").write_text("abc")


WRONG_USAGE = """\
--nope
trian
train --nope
train --steps x
train --steps
sample tiny.npz --num 0
sample tiny.npz --temp nan
sample tiny.npz --length 0
sample tiny.npz --seed -1
sample tiny.npz --unknown perhaps
sample tiny.npz --stop ''
sample tiny.npz --top-p 0
sample tiny.npz --prime-file - --novel -
sample tiny.npz --interactive --json
sample tiny.npz --interactive --unknown foo
sample tiny.npz --novel text.txt
eval tiny.npz text.txt --unit 6
eval tiny.npz text.txt --unit -1
eval tiny.npz text.txt --streams 0
eval tiny.npz text.txt --worst 0
eval tiny.npz text.txt --values
eval tiny.npz text.txt --unknown no
eval tiny.npz text.txt --above 2
eval tiny.npz - --each --heat
eval tiny.npz - --each --worst 2
eval tiny.npz - --each --unit 0
eval tiny.npz - --each --streams 3
eval tiny.npz - --each --svg x.svg
gradcheck --cell elman
gradcheck --hidden 0
gradcheck --seq-len 2
gradcheck --seed -1
gradcheck --tolerance 0
gradcheck --tolerance nan
gradcheck --lecture --gain 0
gradcheck --model tiny.npz --cell rnn
gradcheck --model tiny.npz --hidden 4
gradcheck --gain 2
gradcheck --hint
gradcheck --hint --json
gradcheck --mine . --hint
gradcheck --exercise new.py --hint
"""


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", WRONG_USAGE.splitlines())
def test_wrong_usage_is_one_line_and_exit_2(command, cli):
    cli.refusal(command, 2)


SAID = {
    "sample --num 0": "--num is 0; it must be at least 1",
    "sample --temp 1e301": "--temp is out of range; it must be at least 0",
    "sample --temp inf": "--temp is out of range; it must be at least 0",
    "sample --temp -1": "--temp is -1; it must be at least 0",
    "sample --interactive --num 2": "--interactive and --num don't go together",
    "sample --prime '' --prime-file a": "--prime and --prime-file don't go together",
}
SAID_BY_TYPER = {
    "train --lr abc": "Invalid value for '--lr': Input should be a valid number; "
    "usage: charrnn train [OPTIONS] [CORPUS]... (see --help)",
    "train --steps 1.5": "Invalid value for '--steps': Input should be a valid integer; "
    "usage: charrnn train [OPTIONS] [CORPUS]... (see --help)",
    "train --cell tree": "Invalid value for '--cell': 'tree' is not one of 'rnn', 'gru', 'lstm'; "
    "usage: charrnn train [OPTIONS] [CORPUS]... (see --help)",
    "eval text.txt": "Missing argument 'TEXT'; "
    "usage: charrnn eval [OPTIONS] MODEL TEXT... (see --help)",
}


@pytest.mark.parametrize("command", SAID)
def test_wrong_usage_is_said_plainly(command, cli):
    assert cli.refusal(command, 2).startswith(SAID[command])


@pytest.mark.skipif(
    tuple(map(int, version("typer").split(".")[:2])) < (0, 27),
    reason="older typer words it otherwise",
)
@pytest.mark.parametrize("command", SAID_BY_TYPER)
def test_what_is_no_number_or_choice_is_said_plainly(command, cli):
    assert cli.refusal(command, 2) == SAID_BY_TYPER[command]


@pytest.mark.parametrize("command", ["sample --seed 1 --length 5", "info", "next a", "export"])
def test_the_default_model_is_the_one_here_and_is_named(command, tmp_path, cli, monkeypatch):
    monkeypatch.setattr("charrnn.checkpoint.model.SHIPPED", tmp_path / "none.npz")
    assert "charrnn train" in cli(command, 1).err
    saved(tiny("abc\n"), tmp_path, "model.npz")
    assert cli(command).err.startswith("model: model.npz\n")


USAGE = """\
train [OPTIONS] [CORPUS]
sample [OPTIONS] [MODEL]
eval [OPTIONS] MODEL TEXT
info [OPTIONS] [MODEL]
next [OPTIONS] [MODEL] TEXT
export [OPTIONS] [MODEL]
gradcheck [OPTIONS]
"""


@pytest.mark.parametrize("usage", USAGE.splitlines())
def test_the_usage_line_tells_what_may_be_left_out(usage):
    told = next(line for line in shown([usage.split()[0], "--help"]).splitlines() if line.strip())
    plain = re.sub(r"[{}]|\.\.\.", "", told)  # with which typer marks what is required or many
    assert plain.strip() == f"Usage: charrnn {usage}"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 steps"),
        (1, "1 step"),
        (1.0, "1 step"),
        (0.143, "0.143 steps"),
        (1200, "1,200 steps"),
        (44.42, "44.4 steps"),
    ],
)
def test_a_number_has_its_noun_in_the_singular_or_plural(number, said):
    assert counted(number, "step") == said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CorpusError("x: no such file"), 1, "charrnn: x: no such file\n"),
        (UsageError("--x is 0"), 2, "charrnn: --x is 0\n"),
        (CorpusError("two\nlines \x1b[31m"), 1, "charrnn: two\\nlines \\x1b[31m\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x"),
            1,
            "charrnn: x: No such file or directory\n",
        ),
        (
            ZeroDivisionError("oh"),
            1,
            "charrnn: internal error: ZeroDivisionError: oh; please report it with the command, "
            "the output of --debug, and charrnn --version\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(143), 143, ""),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(error, code, said, monkeypatch, capsys):
    assert failing(monkeypatch, error) == code
    assert capsys.readouterr() == ("", said)


def test_memory_that_runs_out_is_said_in_one_line(monkeypatch, capsys):
    assert failing(monkeypatch, MemoryError()) == 1
    assert capsys.readouterr().err.startswith("charrnn: not enough memory; try")


def test_debug_shows_the_traceback(monkeypatch, capsys):
    assert failing(monkeypatch, ZeroDivisionError("oh"), "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "raise error" in err


def test_a_traceback_shows_no_escape_sequence_raw(cli):
    err = cli("info 'a\x1b[31m.npz' --debug", 1).err
    assert "Traceback" in err
    assert "\x1b" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_ends_with_143_and_the_former_handler_comes_back(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app, "program", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert app.main([]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_pipe_ends_it_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*RUN, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_name_that_the_encoding_lacks_is_written_in_escapes():
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    ended = subprocess.run(
        [*RUN, "train", "тайна.txt"], capture_output=True, env=environment, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(rb"charrnn: \u0442\u0430\u0439\u043d\u0430.txt: cannot be read")


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("charrnn tr", ["train"]),
        ("charrnn train --cell ", ["rnn", "gru", "lstm"]),
        ("charrnn sample ro", ["romeo.npz"]),
    ],
)
def test_the_shell_completes_commands_cells_and_checkpoints(words, expected, tmp_path):
    (tmp_path / "romeo.npz").touch()
    (tmp_path / "romeo.txt").touch()
    package = str(Path(charrnn.__file__).parents[1])
    environment = {
        **os.environ,
        "_CHARRNN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "PYTHONPATH": package,
    }
    environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    ended = subprocess.run(
        RUN, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert ended.stdout.split() == expected


def test_checkpoints_are_completed_in_folders_too(tmp_path):
    (tmp_path / "a.npz").touch()
    (tmp_path / "deeper").mkdir()
    assert complete_checkpoint(f"{tmp_path}/") == [f"{tmp_path}/a.npz", f"{tmp_path}/deeper/"]
    assert complete_checkpoint(f"{tmp_path}/nowhere/x") == []


@pytest.mark.parametrize("number", [float("nan"), -float("inf"), 1e300, 10**301])
def test_json_has_null_for_the_numbers_that_a_checkpoint_has_null_for(number):
    assert terminal.as_json({"loss": [number, 1e299]}) == '{"loss": [null, 1e+299]}'


def test_control_characters_and_overrides_are_shown_as_escapes():
    shown = terminal.visible("a\x1b[2J\x07\x9b\x7f\u202e\u2028é漢")
    assert shown == r"a\x1b[2J\x07\x9b\x7f\u202e\u2028é漢"
    assert terminal.visible("a\n\tb") == "a\\n\\tb"
    assert terminal.visible("a\n\tb\r", lines=True) == "a\n\tb\\r"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_console_takes_markup_and_emoji_codes_as_text(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    terminal.console().print("[bold]x[/] :smile: [link=a]")
    assert sys.stdout.getvalue() == "[bold]x[/] :smile: [link=a]\n"


@pytest.mark.parametrize(
    ("variables", "stream", "coloured"),
    [
        ({}, Terminal, True),
        ({}, io.StringIO, False),
        ({"NO_COLOR": "1"}, Terminal, False),
        ({"FORCE_COLOR": "1"}, io.StringIO, True),
        ({"TERM": "dumb"}, Terminal, False),
    ],
)
def test_no_color_force_color_and_dumb_terminals_are_honoured(
    variables, stream, coloured, monkeypatch
):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream())
    terminal.console().print("x", style="red")
    assert ("\x1b[" in sys.stdout.getvalue()) == coloured


@pytest.mark.parametrize(("name", "plain"), [("xterm", False), ("dumb", True)])
def test_a_dumb_terminal_is_plain(name, plain, monkeypatch):
    monkeypatch.setenv("TERM", name)
    assert terminal.is_plain(Terminal()) == plain
    assert terminal.is_plain(io.StringIO())


def test_json_is_ascii_on_one_line_without_nan(capsys):
    terminal.print_json({"a": [float("nan"), float("inf"), 1.5], "b": "漢\n\x1b"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": [None, None, 1.5], "b": "漢\n\x1b"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_second_ctrl_c_while_the_first_is_dealt_with_changes_nothing(monkeypatch):
    heard = []

    def explain(error):
        os.kill(os.getpid(), signal.SIGINT)
        return "", 130

    def hear(number, frame):
        heard.append(number)

    def program(names):  # as while it is imported
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hear)
    try:
        monkeypatch.setattr(app, "explain", explain)
        monkeypatch.setattr(app, "program", program)
        assert app.main(["info"]) == 130
        assert heard == []
        assert signal.getsignal(signal.SIGINT) is hear
    finally:
        signal.signal(signal.SIGINT, before)
