"""The command `charrnn`: its commands, and how errors and signals become exit codes.

Whatever takes time to import is imported within functions, so that Ctrl-C is quiet from the first
moment on. Tests call `main([...])`.
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
    "Run charrnn help COMMAND for its options. The README of charrnn has recipes, the lecture "
    "line by line, and the Python API."
)
COMMANDS = {  # and their functions, each in a file of the command's name
    "train": "train",
    "sample": "sample",
    "gradcheck": "gradcheck",
    "eval": "evaluate",
    "info": "info",
    "next": "next_characters",
    "export": "export",
}
LEAST_WIDTH = 60  # columns, below which typer's tables cut off what doesn't fit
# What MPI launchers set: MPICH, Intel MPI, MS-MPI, Cray and srun --mpi=pmi2; Open MPI; MVAPICH;
# srun --mpi=pmix. The first pair that is set counts.
LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)


class Terminated(BaseException):
    """SIGTERM has come."""

    exit_code = 143


def program(names: Iterable[str] = COMMANDS) -> "Typer":
    """Return the program with the commands of these names; others aren't imported."""
    import typer

    from charrnn import __version__
    from charrnn.cli.options import switch

    app = typer.Typer(
        rich_markup_mode="rich",  # else typer shows no panels
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
    """Return the exit code of the command line `args` (None: sys.argv's), after running it."""
    started = time.perf_counter()  # a budget counts from here
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] in ([], ["help"]):
        words = [*words[1:], "--help"]
    if get_terminal_size().columns < LEAST_WIDTH:
        os.environ.setdefault("TERMINAL_WIDTH", str(LEAST_WIDTH))
    try:
        with _handled_by(_terminate, signal.SIGTERM):
            _prepare_streams()
            code = _run(words, started)
            sys.stdout.flush()
            return code
    except BaseException as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # completion has ended
        with _handled_by(signal.SIG_IGN, signal.SIGINT):  # Ctrl-C is often pressed twice
            return fail(error, debug="--debug" in words)


def _run(words: Sequence[str], started: float) -> int:
    from typer.main import get_command

    program_of_words = program(words[:1] if words[0] in COMMANDS else COMMANDS)
    code = get_command(program_of_words).main(
        args=words, prog_name="charrnn", standalone_mode=False, obj=started
    )
    return code if isinstance(code, int) else 0


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (rank, ranks) of this process under an MPI launcher, (0, 1) without one."""
    for rank, size in LAUNCHERS:
        with contextlib.suppress(KeyError, ValueError):
            return int(environment[rank]), int(environment[size])
    return 0, 1


def fail(error: BaseException, *, debug: bool = False, where: str = "") -> int:
    """Return the exit code of `error`, after one line on stderr; debug: and a traceback.

    `where`: the rank that the error is of. Without it all ranks have the error, and one says so.
    """
    from charrnn.cli.terminal import say
    from charrnn.errors import CharRNNError, UsageError

    message, code = explain(error)
    common = code == UsageError.exit_code or isinstance(error, CharRNNError)
    if common and not where and launched()[0]:
        message = ""
    with contextlib.suppress(OSError):  # stderr may be what is broken
        if debug and message:
            import traceback

            traceback.print_exception(error)
        if message:
            say(f"charrnn: {where}{message}")
    if isinstance(error, OSError | SystemExit):
        _discard_output()
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to say about `error`, nothing if it was wanted, and the exit code."""
    from charrnn.errors import CharRNNError

    if isinstance(error, KeyboardInterrupt):
        return "", 130
    if isinstance(error, BrokenPipeError | SystemExit):  # rich makes the second of the first
        return "", 141
    code = getattr(error, "exit_code", None)
    if not isinstance(code, int):
        return _explain_foreign(error), 1
    if hasattr(error, "format_message"):  # wrong usage, found by typer
        return _explain_usage(error), code
    return str(error) if isinstance(error, CharRNNError) else "", code


def _explain_usage(error: Any) -> str:
    message = re.sub("Value error, |, unable to parse.*", "", error.format_message())  # pydantic's
    context = getattr(error, "ctx", None)
    more = "" if context is None else f"; see {context.command_path} --help"
    return " ".join(message.split()).rstrip(".") + more


def _explain_foreign(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return (
            "not enough memory; try a smaller --hidden, --batch-size, --seq-len or --num, "
            "or less text"
        )
    if isinstance(error, OSError):
        if error.filename is None and error.errno == errno.ENOSPC:
            return "no space left for the output; make room, or send it elsewhere"
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{name}{error.strerror or type(error).__name__}"
    return (
        f"internal error: {type(error).__name__}: {error}; please report it with the command, "
        "the output of --debug, and charrnn --version"
    )


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Raise Terminated, so that locks and half-written files are removed."""
    raise Terminated


@contextlib.contextmanager
def _handled_by(handler: Any, number: int) -> Iterator[None]:
    """Let a handler take a signal for a while."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # not the main thread
            stack.callback(signal.signal, number, signal.signal(number, handler))
        yield


def _prepare_streams() -> None:
    """Make sure that stdout and stderr exist, and that no character breaks them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - stays open
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            if os.name == "nt" and not stream.isatty() and "PYTHONIOENCODING" not in os.environ:
                stream.reconfigure(encoding="utf-8")  # as elsewhere: samples are read again


def _discard_output() -> None:
    """Discard what a closed pipe or a full disk hasn't taken, or Python complains at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
