"""Options that several commands have, each declared once; what the shell completes them with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from charrnn.config import CELLS, OPTIMIZERS

OUTPUT = "Output"  # the help's last panel


def _starting(choices: tuple[str, ...], incomplete: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(incomplete)]


def complete_cell(incomplete: str) -> list[str]:
    """Return the cells that begin like this."""
    return _starting(CELLS, incomplete)


def complete_optimizer(incomplete: str) -> list[str]:
    """Return the optimizers that begin like this."""
    return _starting(OPTIMIZERS, incomplete)


def complete_checkpoint(incomplete: str) -> list[str]:
    """Return the checkpoints (*.npz) and the folders that begin like this."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(
            path for path in Path(folder + slash or ".").iterdir() if path.name.startswith(start)
        )
    except OSError:
        return []
    names = [
        path.name + "/" * path.is_dir() for path in found if path.suffix == ".npz" or path.is_dir()
    ]
    return [folder + slash + name for name in names if start or not name.startswith(".")]


def option(
    flags: str, panel: str | None, help: str, metavar: str | None = None, **more: Any
) -> Any:
    """Return the declaration of an option, such as "-o --out", for a panel of the help.

    `more` is what else typer.Option takes. Where the default is None, the help says what that means.
    """
    return typer.Option(*flags.split(), help=help, rich_help_panel=panel, metavar=metavar, **more)


Json = Annotated[bool, option("--json", OUTPUT, "Print JSON on stdout, one object a line.")]
Debug = Annotated[bool, option("--debug", OUTPUT, "Show the traceback of an error.")]
