"""Run a learner's file in a separate process, whose program is this module.

That process reads networks from standard input and writes what `backward` returned to standard
output, as JSON. What the file prints goes to standard error.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from threading import Timer
from typing import Any, NoReturn

import numpy as np

SECONDS = 10.0  # time limit for a file
PRINTS = 30_000  # characters that a file may print

Call = dict[str, Any]  # the arguments of `backward`, in order


def run(path: Path, calls: Sequence[Call], seconds: float = SECONDS) -> dict[str, Any]:
    """Return what `backward` in the file returns for each call.

    That is {"answers": [...]}, lists of numbers by name, or {"error": ...}, one or more lines.
    """
    lists = [{name: array.tolist() for name, array in call.items()} for call in calls]
    words = [sys.executable, "-P", __file__, str(path.absolute()), f"{seconds:g}"]
    try:
        ended = subprocess.run(
            words,
            input=json.dumps(lists).encode(),
            stdout=subprocess.PIPE,
            timeout=2 * seconds,  # in case the signal after `seconds` doesn't stop it
            cwd=path.absolute().parent,
            check=False,
        )
        found: dict[str, Any] = json.loads(ended.stdout)
    except subprocess.TimeoutExpired as error:
        return {"error": f"it was still running after {error.timeout:g} s"}
    except ValueError:
        return {"error": f"it ended with exit code {ended.returncode} before it returned anything"}
    return found


class RefusedError(BaseException):
    """The file cannot be marked. No `except Exception` in it catches this."""


class Prints(io.StringIO):
    """What the file prints, which goes to standard error up to a limit."""

    def write(self, text: str) -> int:
        """Write `text`. Raises RefusedError beyond the limit."""
        if self.tell() + len(text) > PRINTS:
            raise RefusedError("it prints endlessly, or more than 30 kB")
        sys.stderr.write(text)
        return super().write(text)


def answers(path: str, calls: Sequence[Call]) -> dict[str, Any]:
    """Return the answers of the file's `backward`, or the error that it raised."""
    try:
        backward = runpy.run_path(path).get("backward")
        if not callable(backward):
            raise RefusedError("it has no function called backward")
        return {"answers": [_answer(backward, call) for call in calls]}
    except (Exception, SystemExit, RefusedError) as error:
        return {"error": _own_lines(path, error)}


def _answer(backward: Any, call: Call) -> dict[str, Any]:
    arrays = {name: np.array(values) for name, values in call.items()}
    found = backward(*arrays.values())
    for name, array in arrays.items():
        if not np.array_equal(array, call[name]):
            raise RefusedError(f"backward changes its argument {name}; leave it as it is")
    if not isinstance(found, dict):
        raise RefusedError(f"backward returns {type(found).__name__}, not a dict of six gradients")
    return {str(name): np.asarray(value, np.float64).tolist() for name, value in found.items()}


def _own_lines(path: str, error: BaseException) -> str:
    """Return the lines of the learner's file that led to an error, at most 8, then the error."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path][-8:]
    lines = [f"line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames]
    kind = "" if isinstance(error, RefusedError) else f"{type(error).__name__}: "
    lines.append(f"{kind}{error}")
    return "\n".join(shorten(line, 200) for line in lines)


def _stop(*_: object) -> NoReturn:
    raise RefusedError(f"it was stopped after {sys.argv[2]} s; does this loop ever end?")


def main() -> None:
    """Run the file, in the separate process."""
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    calls = json.load(sys.stdin)
    sys.stdin = io.StringIO()
    sys.stdout = prints = Prints()
    signal.signal(signal.SIGINT, _stop)
    timer = Timer(float(sys.argv[2]), signal.raise_signal, [signal.SIGINT])
    timer.daemon = True
    timer.start()
    json.dump(answers(sys.argv[1], calls), output)
    if prints.getvalue()[-1:].strip("\n"):
        print(file=sys.stderr)


if __name__ == "__main__":
    main()
