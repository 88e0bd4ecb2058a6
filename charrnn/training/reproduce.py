"""The command that repeats a run bit for bit."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from charrnn.checkpoint.atomic_write import FilePath
from charrnn.config import OPTIONS, flag

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model


def command(model: Model, sources: Iterable[FilePath], *more: str) -> str:
    """Return the command that repeats a model's run on these texts, with `more` at its end.

    It is empty if nothing is known about the run. It gives the number of steps or, while that isn't
    fixed, the budget, with which a run may take another number of steps.
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


def joined(words: Iterable[str]) -> str:
    """Return the words as one command line, quoted for this system's shell."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
