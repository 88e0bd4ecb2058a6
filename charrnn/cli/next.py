"""`charrnn next`: the characters that the model thinks are likely to come next."""

from __future__ import annotations

from typing import Annotated

import typer

from charrnn.cli.options import (
    DEFAULT_MODEL,
    Debug,
    Json,
    UnknownChoice,
    complete_checkpoint,
    model_path,
    option,
    unknown_option,
    without_unknown,
)
from charrnn.cli.terminal import bar, console, print_json
from charrnn.config import check
from charrnn.errors import UsageError


def next_characters(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] TEXT",
            help=f"A checkpoint, and the text to continue. Default model: {DEFAULT_MODEL}",
            autocompletion=complete_checkpoint,
            show_default=False,
        ),
    ],
    k: Annotated[int, option("-k --top-k", None, "Number of characters to show.", "N")] = 10,
    unknown: Annotated[UnknownChoice, unknown_option(None)] = "error",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the likeliest next characters after TEXT, with their probabilities as bars.

    Example: charrnn next model.npz "ROM"
    """
    from charrnn.checkpoint.model import load
    from charrnn.sampling.sampling import likeliest

    check("-k", k, least=1)
    *path, text = words
    if len(path) > 1:
        raise UsageError(
            f"{len(words)} arguments were given; "
            "give a model and a text in quotation marks, or a text alone"
        )
    if not path and _is_checkpoint(text):
        raise UsageError(f"TEXT is missing: {text} is a checkpoint; give a text after it")
    model = load(model_path(path[0] if path else None))
    text = without_unknown(model, text, unknown, "text")
    likely = likeliest(model, text, k)
    if json:
        shown = [{"character": char, "probability": p} for char, p in likely]
        print_json({"text": text, "next": shown})
    else:
        print_bars(likely)


def _is_checkpoint(text: str) -> bool:
    from zipfile import is_zipfile

    return text.endswith(".npz") or is_zipfile(text)


def print_bars(likely: list[tuple[str, float]]) -> None:
    """Print each character with its probability and a bar; a full bar is certainty."""
    from rich.table import Table
    from rich.text import Text

    from charrnn.pictures.heatmap import symbol

    screen, table = console(), Table.grid("", "", "", padding=(0, 2))
    table.columns[0].justify = "right"
    for char, p in likely:
        name = "space" if char == " " else symbol(char)
        shown = bar(p, max(10, min(60, screen.width - 24)), ascii=screen.options.ascii_only)
        probability = f"{p:9.4%}" if p >= 1e-6 else "<0.0001%"
        table.add_row(Text(name), probability, Text(shown, style="cyan"))
    screen.print(table)
