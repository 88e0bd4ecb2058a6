"""The command that repeats a run bit for bit."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.checkpoint.atomic_write import part_of
from charrnn.config import OPTIONS, flag

if TYPE_CHECKING:
    from charrnn.training.setup import Run


def command(run: Run) -> str:
    """Return the complete command that repeats a run, to a checkpoint of another name.

    While the steps of a budget aren't known it names the budget; a repetition turns that into
    steps of its own.
    """
    config, path = run.config, Path(run.config.out or "model.npz")
    if run.progress.steps is not None:
        config = replace(config, steps=run.progress.steps, budget=None, epochs=None)
    words = ["mpiexec", "-n", str(config.ranks)] if config.ranks > 1 else []
    words += ["charrnn", "train"]
    words += [f"./{path}" if re.match("-.", path) else path for path in map(str, run.text.sources)]
    for option in OPTIONS:
        value = getattr(config, option.name)
        if option.metadata.get("repeat", True) and value is not None and value is not False:
            words += [flag(option.name)] if value is True else [flag(option.name), str(value)]
    return joined([*words, "--out", str(path.with_stem(f"{path.stem}-again"))])


def repeatable(run: Run) -> bool:
    """Return whether `command` repeats the run.

    It cannot where an input is gone: standard input, a pipe, a file that has changed since it was
    read, a starting checkpoint that the run has replaced. No option names another dtype.
    """
    config = run.config
    replaced = config.out and config.init_from and part_of(config.out, [config.init_from])
    stays = run.text.stays() and not replaced
    known = run.progress.repeatable and run.progress.steps is not None
    return known and stays and config.dtype == "float32"


def joined(words: Sequence[str]) -> str:
    """Return words as a shell of this system takes them, quoted where they must be."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
