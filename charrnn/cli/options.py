"""How options are declared, and those that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

OUTPUT = "Output"  # the help's last panel


def option(
    flags: str, panel: str | None, help: str, metavar: str | None = None, **more: Any
) -> Any:
    """Return the declaration of an option, such as "-o --out", for a panel of the help.

    metavar: what stands for its value; None: the choices of a Literal. `more` is what else
    typer.Option takes. `help` is read as rich markup, so it has no square brackets.
    """
    return typer.Option(*flags.split(), help=help, rich_help_panel=panel, metavar=metavar, **more)


def switch(flags: str, panel: str | None, help: str, **more: Any) -> Any:
    """Return the declaration of an option without a value."""
    return option(flags, panel, help, "", **more)


def complete_checkpoint(incomplete: str) -> list[str]:
    """Return the checkpoints (*.npz) and the folders that begin like this."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").glob(f"{start}*"))
    except OSError:
        return []
    return [
        f"{folder}{slash}{path.name}{'/' * path.is_dir()}"
        for path in found
        if path.suffix == ".npz" or path.is_dir()
    ]


Json = Annotated[bool, switch("--json", OUTPUT, "Print JSON on stdout, one object a line.")]
Debug = Annotated[bool, switch("--debug", OUTPUT, "Show the traceback of an error.")]
