"""The table of commands. A new one is a function in a file of its own and a line here."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from charrnn import __version__
from charrnn.cli.app import guarded
from charrnn.cli.help import SETTINGS, Command, Group

app = typer.Typer(name="charrnn", cls=Group, pretty_exceptions_enable=False, rich_markup_mode=None, context_settings=SETTINGS)


def print_version(asked: bool) -> None:
    """Print the version and end, if --version was given."""
    if asked:
        print(f"charrnn {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def charrnn(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Train a character-level recurrent network on a text, and let it write.

    Begin with: charrnn train corpus.txt --budget 3m, then charrnn sample
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


for module, function, name in (
    ("train", "train", "train"), ("sample", "sample", "sample"), ("gradcheck", "gradcheck", "gradcheck"),
    ("eval", "evaluate", "eval"), ("info", "info", "info"), ("next", "next_characters", "next"),
):  # fmt: skip
    try:  # development only
        command = getattr(importlib.import_module(f"charrnn.cli.{module}"), function)
    except (ImportError, AttributeError):
        continue
    app.command(name, cls=Command, context_settings=SETTINGS)(guarded(command))
