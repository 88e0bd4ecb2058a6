"""Run a learner's file in a process of its own: this module, as a program, is that process.

It reads networks from standard input and writes what `backward` returned to standard output, as
JSON. What the file prints goes to standard error.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

SECONDS = 20.0  # that a file may take
PRINTS = 100_000  # characters that a file may print
ORDER = ("x", "targets", "h_before", "V", "W", "b_h", "U", "b_y", "h", "y_hat")  # of the arguments


def run(path: Path, calls: Sequence[dict[str, Any]], seconds: float = SECONDS) -> dict[str, Any]:
    """Return what `backward` in the file answers to each call, its arguments by name.

    Either {"answers": [...], "forward": ...}, lists of numbers by name for each call and whether
    `forward` is as it was, or {"error": ...} in one or more lines.
    """
    lists = [{name: np.asarray(call[name]).tolist() for name in ORDER} for call in calls]
    words = [sys.executable, "-P", __file__, str(path.absolute())]
    try:
        ended = subprocess.run(
            words,
            input=json.dumps(lists).encode(),
            stdout=subprocess.PIPE,
            timeout=seconds,
            cwd=path.absolute().parent,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it was stopped after {seconds:g} s; does a loop never end?"}
    try:
        found: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return {"error": f"it ended with exit code {ended.returncode} before it had returned"}
    return found


def answers(path: str, calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the answers of the file's `backward`, or the error that it raised."""
    try:
        space = runpy.run_path(path)
        backward = space.get("backward")
        if not callable(backward):
            return {"error": "it has no function called backward"}
        found = [_answer(backward, call) for call in calls]
        return {"answers": found, "forward": _same_forward(space.get("forward"), calls[0])}
    except SyntaxError as error:
        return {"error": f"line {error.lineno}: {error.msg}"}
    except RefusedError as error:
        return {"error": str(error)}
    except (Exception, SystemExit) as error:
        return {"error": _own_lines(path, error)}


class RefusedError(Exception):
    """What the file returned or did cannot be marked."""


class Prints(io.StringIO):
    """What the file prints, which goes to standard error up to a limit."""

    def write(self, text: str) -> int:
        """Write `text`. Raises RefusedError beyond the limit."""
        if self.tell() == PRINTS:
            raise RefusedError("it prints without end, or more than 100 kB")
        shown = text[: PRINTS - self.tell()]
        sys.stderr.write(shown)
        return super().write(shown)


def _arrays(call: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(call[name]) for name in ORDER}


def _same_forward(forward: Any, call: dict[str, Any]) -> bool:
    """Return whether `forward` gives L, h and y_hat, or isn't the template's function at all."""
    *inputs, h, y_hat = _arrays(call).values()
    if not callable(forward) or tuple(inspect.signature(forward).parameters) != ORDER[:-2]:
        return True
    L = -np.log(y_hat[np.arange(len(h)), inputs[1]]).sum()
    try:
        return [*map(np.allclose, forward(*inputs), (L, h, y_hat))] == [True] * 3
    except Exception:
        return False


def _answer(backward: Any, call: dict[str, Any]) -> dict[str, Any]:
    arrays = _arrays(call)
    found = backward(*arrays.values())
    changed = [name for name in ORDER if not np.array_equal(arrays[name], call[name])]
    if changed:
        raise RefusedError(
            f"backward changes its argument {changed[0]}; leave the arguments as they are"
        )
    if not isinstance(found, dict):
        raise RefusedError(
            f"backward returns {type(found).__name__}; expected a dict of six gradients"
        )
    return {str(name): np.asarray(value, np.float64).tolist() for name, value in found.items()}


def _own_lines(path: str, error: BaseException) -> str:
    """Return an error with the last lines of the learner's file that led to it, and no others."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path][-8:]
    lines = [f"line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames]
    lines.append(f"{type(error).__name__}: {error}")
    return "\n".join(shorten(line, 200) for line in lines)


def main() -> None:
    """Be the process that runs the file."""
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    calls = json.load(sys.stdin)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - until the end
    sys.stdout = prints = Prints()
    json.dump(answers(sys.argv[1], calls), output)
    if prints.getvalue()[-1:].strip("\n"):
        print(file=sys.stderr)


if __name__ == "__main__":
    main()
