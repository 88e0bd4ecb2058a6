"""Help in groups, without boxes: the same on a terminal, through a pipe and at any width, and there at once.

Typer's own drawing of it loads a Markdown reader first, which takes longer than all the rest.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand

from charrnn.cli.terminal import is_plain

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(TyperCommand):
    """A command whose options stand under the headings that they were declared with."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the command's name: [OPTIONS] MODEL TEXT..."""
        return [
            "[OPTIONS]",
            *(
                _place(parameter)
                for parameter in self.get_params(ctx)
                if parameter.param_type_name == "argument"
            ),
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write each group of options under its heading, in the order of the first of each."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else "Other"
                panel = getattr(parameter, "rich_help_panel", None) or default
                groups.setdefault(panel, []).append((_name(parameter) or record[0], record[1]))
        for panel, records in groups.items():
            with formatter.section(heading(panel)):
                formatter.write_dl(records, col_max=28)


def _place(argument: Any) -> str:
    """Return an argument as the usage line has it; one whose metavar says by itself what may be left out stays as it is."""
    name: str = argument.metavar
    if name.startswith("["):
        return name
    more = "..." if argument.nargs == -1 else ""
    return f"{name if argument.required else f'[{name}]'}{more}"


def _name(parameter: Any) -> str | None:
    """Return an option with its metavar, such as "-o, --out PATH"; None: what typer makes of it will do."""
    metavar: str | None = parameter.metavar
    if not metavar or parameter.param_type_name == "argument":
        return metavar
    return f"{', '.join(sorted(parameter.opts, key=len))} {metavar}"


def heading(text: str) -> str:
    """Return `text` as a heading: bold where stdout is a terminal that may be coloured."""
    plain = is_plain(sys.stdout) or os.environ.get("NO_COLOR")
    return text if plain else typer.style(text, bold=True)
