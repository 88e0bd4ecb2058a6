"""The table of commands. A new one is a function in a file of its own and a line here."""

from __future__ import annotations

from typing import Annotated

import typer

from charrnn import __version__
from charrnn.cli.app import guarded
from charrnn.cli.eval import evaluate
from charrnn.cli.gradcheck import gradcheck
from charrnn.cli.help import SETTINGS, Command, Group
from charrnn.cli.info import info
from charrnn.cli.next import next_characters
from charrnn.cli.sample import sample
from charrnn.cli.train import train

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


for name, command in (
    ("train", train), ("sample", sample), ("gradcheck", gradcheck), ("eval", evaluate), ("info", info), ("next", next_characters),
):  # fmt: skip
    app.command(name, cls=Command, context_settings=SETTINGS)(guarded(command))
