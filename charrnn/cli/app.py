"""The program `charrnn`: its commands, and the exit codes of errors and signals.

Slow imports are inside functions, so that Ctrl-C is quiet from the start. Tests call `main([...])`.
"""

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from shutil import get_terminal_size
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

if TYPE_CHECKING:
    from typer import Typer

DOCUMENTATION = (
    "Run charrnn help COMMAND for a command's options. The README of charrnn has recipes, the "
    "lecture line by line, and the Python API."
)
COMMANDS = {  # command: its function, in the file named after the command
    "train": "train",
    "sample": "sample",
    "gradcheck": "gradcheck",
    "eval": "evaluate",
    "info": "info",
    "next": "next_characters",
    "export": "export",
}
USAGE = 2  # the exit code for wrong usage
LEAST_WIDTH = 60  # columns; in a narrower terminal typer's help would cut words off
# Variables of rank and size, by launcher: MPICH, Intel MPI, MS-MPI, Cray and srun --mpi=pmi2;
# Open MPI; MVAPICH; srun --mpi=pmix. The first pair that is set counts.
LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)


def program(names: Iterable[str] = COMMANDS) -> "Typer":
    """Return the program with these commands; the other commands' modules aren't imported."""
    import typer

    from charrnn import __version__
    from charrnn.cli.options import switch

    app = typer.Typer(
        rich_markup_mode="rich",  # without it the help has no panels
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=DOCUMENTATION,
    )
    for name in names:
        app.command(name)(getattr(import_module(f"charrnn.cli.{name}"), COMMANDS[name]))

    def print_version(asked: bool) -> None:
        if asked:
            print(f"charrnn {__version__}")
            raise typer.Exit

    version = switch("--version", None, "Print the version.", callback=print_version, is_eager=True)

    @app.callback()
    def charrnn(version: Annotated[bool, version] = False) -> None:
        """Train a character-level recurrent network on any text and generate more like it.

        Start with: charrnn train corpus.txt --budget 3m, then charrnn sample
        """

    return app


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line `args` (default: sys.argv) and return its exit code."""
    started = time.perf_counter()  # a budget counts from here
    from charrnn.blas import ONE_THREAD

    os.environ |= ONE_THREAD | os.environ  # what the user has set counts
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] in ([], ["help"]):
        words = [*words[1:], "--help"]
    if get_terminal_size().columns < LEAST_WIDTH:
        os.environ.setdefault("TERMINAL_WIDTH", str(LEAST_WIDTH))
    try:
        with handled_by(_terminate, signal.SIGTERM):
            _prepare_streams()
            from typer.main import get_command

            command = get_command(program(words[:1] if words[0] in COMMANDS else COMMANDS))
            code = command.main(words, "charrnn", standalone_mode=False, obj=started) or 0
            sys.stdout.flush()
    except BaseException as error:
        with handled_by(signal.SIG_IGN, signal.SIGINT):  # Ctrl-C is often pressed twice
            code = fail(error, debug="--debug" in words)
    _discard_output()
    return code


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (rank, ranks) of this process under an MPI launcher, (0, 1) without one."""
    for rank, size in LAUNCHERS:
        with contextlib.suppress(KeyError, ValueError):
            return int(environment[rank]), int(environment[size])
    return 0, 1


def fail(error: BaseException, *, debug: bool = False, where: str = "") -> int:
    """Print `error` as one line on stderr, with its traceback if asked, and return the exit code.

    where: the rank, if only one failed. An error that occurs on every rank is printed by rank 0.
    """
    from charrnn.cli.terminal import say
    from charrnn.errors import CharRNNError

    message, code = explain(error)
    common = isinstance(error, CharRNNError) or code == USAGE
    if message and (where or not (common and launched()[0])):
        with contextlib.suppress(OSError):  # stderr itself may be broken
            if debug:
                import traceback

                for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
                    say(line)
            say(f"charrnn: {where}{message}")
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """Return the message for `error`, empty if there is nothing to say, and the exit code."""
    from charrnn.errors import CharRNNError

    match error:
        case CharRNNError():
            return str(error), error.exit_code
        case KeyboardInterrupt():
            return "", 130
        case BrokenPipeError() | SystemExit(__context__=BrokenPipeError()):  # the second is rich's
            return "", 141
        case SystemExit():  # SIGTERM, or shell completion has ended
            return "", int(error.code or 0)
        case MemoryError():
            return (
                "not enough memory; try a smaller --hidden, --batch-size, --seq-len or --num, "
                "or less text"
            ), 1
        case OSError(filename=None, errno=errno.ENOSPC):
            return "no space left for the output; make room, or send it elsewhere", 1
        case OSError(filename=None, errno=errno.EIO):
            return "the output is gone; its terminal may have been closed", 129  # as by SIGHUP
        case OSError():
            name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            return f"{name}{error.strerror or type(error).__name__}", 1
    if hasattr(error, "format_message"):  # wrong usage, found by typer
        return _usage(error), USAGE
    return (
        f"internal error: {type(error).__name__}: {error}; please report it with the command, "
        "the output of --debug, and charrnn --version"
    ), 1


def _usage(error: Any) -> str:
    """Return typer's message on one line, without pydantic's phrases, and the usage."""
    message = re.sub("Value error, |, unable to parse.*", "", error.format_message())
    message, context = " ".join(message.split()).rstrip("."), getattr(error, "ctx", None)
    if context is None:
        return message
    usage = re.sub("[{}]|Usage: ", "", " ".join(context.get_usage().split()))
    return f"{message}; usage: {usage} (see --help)"


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End with an exception, so that locks and half-written files are removed."""
    sys.exit(128 + number)


@contextlib.contextmanager
def handled_by(handler: Any, number: int) -> Iterator[None]:
    """Handle a signal with `handler` during the block."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _prepare_streams() -> None:
    """Make stdout and stderr exist and accept every character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - stays open
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            if os.name == "nt" and not stream.isatty() and "PYTHONIOENCODING" not in os.environ:
                stream.reconfigure(encoding="utf-8")  # as on other systems


def _discard_output() -> None:
    """Discard output that a closed pipe or a full disk refused; Python would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
