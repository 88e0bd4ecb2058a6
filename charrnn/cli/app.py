"""The command `charrnn`: the one place where errors and signals become lines on stderr and exit codes.

Everything else is imported within `main`, so that Ctrl-C is quiet from the first moment on. Tests call `main([...])`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

started = time.perf_counter()  # when this command began: a budget counts from here


class Terminated(BaseException):
    """SIGTERM has come."""


def main(args: Sequence[str] | None = None) -> int:
    """Return the exit code of the command line `args` (None: sys.argv's), after running it."""
    global started
    started = time.perf_counter()
    try:
        with _terminable():
            _prepare_streams()
            code = _run(args)
            sys.stdout.flush()
            return code
    except (
        SystemExit
    ) as ended:  # typer's: of completion, or of a pipe that was closed while it printed help
        if isinstance(ended.__context__, BrokenPipeError):
            return fail(ended.__context__)
        raise
    except BaseException as error:
        return fail(error)


def _run(args: Sequence[str] | None) -> int:
    from typer.main import get_command

    from charrnn.cli.commands import app

    code = get_command(app).main(
        args=None if args is None else list(args), prog_name="charrnn", standalone_mode=False
    )
    return code if isinstance(code, int) else 0


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with its errors turned into a line and an exit code, with a traceback if its --debug says so."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        import typer

        try:
            command(*args, **options)
            sys.stdout.flush()
        except BaseException as error:
            raise typer.Exit(fail(error, debug=options.get("debug", False))) from None

    return run


def fail(error: BaseException, *, debug: bool = False) -> int:
    """Return the exit code of `error`, after saying in one line on stderr what is wrong; debug: and where."""
    from charrnn.cli.terminal import say
    from charrnn.errors import UsageError, VocabularyError
    from charrnn.training.launch import launched

    message, code = explain(error)
    if code == UsageError.exit_code and launched()[0]:
        message = ""  # of the ranks of one command, which all see it, the first says it
    if isinstance(error, OSError):
        _silence()
    with contextlib.suppress(OSError):  # stderr may be what is broken
        if debug and message:
            import traceback

            traceback.print_exception(error)
        if message:
            say(
                f"charrnn: {message}", lines=isinstance(error, VocabularyError)
            )  # the lines below point at the character
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to say about `error`, nothing if it was wanted, and the exit code."""
    from charrnn.errors import CharRNNError

    if isinstance(error, KeyboardInterrupt):
        return "", 130
    if isinstance(error, Terminated):
        return "", 143
    if isinstance(error, BrokenPipeError | SystemExit):  # rich makes a SystemExit of a broken pipe
        return "", 141
    if isinstance(error, CharRNNError):
        return str(error), error.exit_code
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):  # typer's: Exit, or an error of usage that can format itself
        return _usage(error) if hasattr(error, "format_message") else "", code
    return _explain_foreign(error), 1


def _usage(error: Any) -> str:
    """Return an error of usage on one line, with the help that tells more."""
    message = _no_number(error) or " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return (
        message if context is None else f"{message.rstrip('.')}; see {context.command_path} --help"
    )


def _no_number(error: Any) -> str:
    """Return what to say of an option whose value isn't the number that it must be, empty for other errors."""
    option, kind = (
        getattr(error, "param", None),
        re.search("valid (number|float|integer)", error.message),
    )
    if option is None or kind is None:
        return ""
    return f"{' / '.join(option.opts)} must be {'a whole number' if kind[1] == 'integer' else 'a number'}"


def _explain_foreign(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory; try a smaller --hidden, --batch-size, --seq-len or --num, or less text"
    if isinstance(error, OSError):
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        if not name and error.errno == errno.ENOSPC:
            return "the output: no space left where it goes; make room, or send it elsewhere"
        return f"{name}{error.strerror or type(error).__name__}"
    if type(error).__name__ == "Abort":
        return "aborted"
    return f"internal error: {type(error).__name__}: {error}; run again with --debug to see where"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated, so that what is open is closed and locks and temporary files are removed."""
    try:
        before = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _prepare_streams() -> None:
    """Make sure that there are two streams and that no character can break them, whatever their encoding."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this
            setattr(sys, name, open(os.devnull, "w"))
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    if (
        os.name == "nt"
        and not sys.stdout.isatty()
        and "PYTHONIOENCODING" not in os.environ
        and hasattr(sys.stdout, "reconfigure")
    ):
        sys.stdout.reconfigure(
            encoding="utf-8"
        )  # as everywhere else: what is drawn must be readable again


def _silence() -> None:
    """Send what is still buffered for a closed pipe or a full disk nowhere, so that Python doesn't complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
                continue
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
