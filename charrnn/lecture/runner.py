"""Run a learner's file in a process of its own: this module, as a program, is that process.

It reads networks from standard input and writes what `backward` returned to standard output, as
JSON. What the file prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 20.0  # that a file may take
ORDER = ("x", "targets", "h_before", "V", "W", "b_h", "U", "b_y", "h", "y_hat")  # of the arguments
INTEGERS = ("x", "targets")


def run(path: Path, calls: Sequence[dict[str, Any]], seconds: float = SECONDS) -> dict[str, Any]:
    """Return what `backward` in the file answers to each call, its arguments by name.

    Either {"answers": [...]}, lists of numbers by name for each call, or {"error": ...} in one or
    more lines.
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
        backward = runpy.run_path(path).get("backward")
        if not callable(backward):
            return {"error": "it has no function called backward"}
        return {"answers": [_answer(backward, call) for call in calls]}
    except SyntaxError as error:
        return {"error": f"line {error.lineno}: {error.msg}"}
    except RefusedError as error:
        return {"error": str(error)}
    except (Exception, SystemExit) as error:
        return {"error": _own_lines(path, error)}


class RefusedError(Exception):
    """What `backward` returned or did cannot be marked."""


def _answer(backward: Any, call: dict[str, Any]) -> dict[str, Any]:
    arrays = {
        name: np.array(call[name], np.intp if name in INTEGERS else np.float64) for name in ORDER
    }
    before = {name: array.copy() for name, array in arrays.items()}
    found = backward(*arrays.values())
    changed = [name for name in ORDER if not np.array_equal(arrays[name], before[name])]
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
    """Return an error with the lines of the learner's file that led to it, and no others."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    lines = [f"line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames]
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def main() -> None:
    """Be the process that runs the file."""
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    calls = json.load(sys.stdin)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - until the end
    json.dump(answers(sys.argv[1], calls), output)


if __name__ == "__main__":
    main()
