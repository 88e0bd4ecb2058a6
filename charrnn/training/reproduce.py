"""The command that repeats a run bit for bit."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from charrnn.checkpoint.atomic_write import FilePath, part_of
from charrnn.config import OPTIONS, flag

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.training.setup import Run


def command(model: Model, sources: Iterable[FilePath], *more: str) -> str:
    """Return the command that repeats a model's run on these texts, with `more` at its end.

    It is empty for a model of which no run is known. While the steps of a budget aren't
    known it names the budget; a repetition turns that into steps of its own.
    """
    if not model.training:
        return ""
    has = model.training
    if model.steps:
        has = has | {"steps": model.steps, "budget": None, "epochs": None}
    words = ["mpiexec", "-n", str(has["ranks"])] if has.get("ranks", 1) != 1 else []
    words += ["charrnn", "train"]
    words += [f"./{path}" if re.match("-.", path) else path for path in map(str, sources)]
    for option in OPTIONS:
        value = has.get(option.name)
        if option.metadata.get("repeat", True) and value is not None and value is not False:
            words += [flag(option.name)] if value is True else [flag(option.name), str(value)]
    return joined([*words, *more])


def repeatable(run: Run) -> bool:
    """Return whether `command` repeats the run.

    It cannot where an input is gone: standard input, a pipe, a file that has changed since it was
    read, a starting checkpoint that the run has replaced. No option names another dtype.
    """
    config = run.config
    replaced = config.out and config.init_from and part_of(config.out, [config.init_from])
    return (
        run.progress.repeatable
        and run.progress.steps is not None
        and run.text.stays()
        and not replaced
        and config.dtype == "float32"
    )


def joined(words: Iterable[str]) -> str:
    """Return words as a shell of this system takes them, quoted where they must be."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
