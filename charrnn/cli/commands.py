"""The table of commands. A new one is a function in a file of its own and a line here.

A command is loaded when it is asked for, so that each starts without the time that the others take.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from charrnn import __version__
from charrnn.cli.app import guarded
from charrnn.cli.help import SETTINGS, Command, heading

COMMANDS = {  # its function, the first line of that one's help
    "train": ("train.train", "Train a network on texts and write it to a checkpoint."),
    "sample": ("sample.sample", "Write text with a model."),
    "gradcheck": (
        "gradcheck.gradcheck",
        "Prove the gradients: every parameter of every cell, in float64.",
    ),
    "eval": (
        "eval.evaluate",
        "Measure how well a model predicts texts: nats, bits and perplexity per character.",
    ),
    "info": (
        "info.info",
        "Show what a model is, how it was trained, and what a feed-forward network would need.",
    ),
    "next": (
        "next.next_characters",
        "Show the likeliest next characters after TEXT, with their probabilities as bars.",
    ),
}


def loaded(name: str) -> Any:
    """Return a command of the table, its module imported."""
    module, _, function = COMMANDS[name][0].partition(".")
    alone = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    alone.command(name, cls=Command, context_settings=SETTINGS)(
        guarded(getattr(import_module(f"charrnn.cli.{module}"), function))
    )
    return get_command(alone)


class Program(TyperGroup):
    """The program itself: its commands in the order of the table, the main ones first."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, None if there is none of this name."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = loaded(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is asked for; for a wrong name all are loaded first, so that the nearest can be told."""
        if args and args[0] not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the first line of its help."""
        with formatter.section(heading("Commands")):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    name="charrnn",
    cls=Program,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=SETTINGS,
)


def print_version(asked: bool) -> None:
    """Print the version and end, if --version was given."""
    if asked:
        print(f"charrnn {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def charrnn(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train a character-level recurrent network on a text, and let it write.

    Begin with: charrnn train corpus.txt --budget 3m, then charrnn sample
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
