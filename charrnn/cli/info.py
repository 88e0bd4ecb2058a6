"""`charrnn info`: what a model is, how it was trained, and how many parameters recurrence saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import app
from charrnn.cli.options import DEFAULT_MODEL, Debug, Json, complete_checkpoint, model_path
from charrnn.cli.terminal import console, labelled, print_json, visible
from charrnn.errors import CheckpointError

if TYPE_CHECKING:
    from rich.console import Console

    from charrnn.checkpoint.model import Model

WINDOWS = (8, 16, 32, 64, 128, 256)  # T of the feed-forward networks
NARROW = 50  # below this many columns, models are shown one below the other


def info(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Checkpoints to show side by side. Default: {DEFAULT_MODEL}",
            autocompletion=complete_checkpoint,
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model is, how it was trained, and how large a feed-forward network would be.

    Example: charrnn info model.npz
    """
    from charrnn.checkpoint.model import load

    screen, opened, code = console(), list[tuple[str, "Model"]](), 0
    for path in models or [model_path(None)]:
        try:
            opened.append((path, load(path)))
        except CheckpointError as error:
            code = app.fail(error, debug=debug)
    if json:
        for path, model in opened:
            print_json(as_json(path, model))
    elif len(opened) > 1 and screen.width >= NARROW:
        show_side_by_side(screen, opened)
    else:
        for path, model in opened:
            show(screen, path, model)
    raise typer.Exit(code)


def feed_forward(model: Model, T: int) -> int:
    """Return the parameters of a feed-forward network of the same H over T one-hot characters."""
    H, N = model.config.hidden, len(model.vocabulary)
    return H * N * T + H + N * H + N


def as_json(path: str, model: Model) -> dict[str, Any]:
    """Return all that is known about a model."""
    from charrnn.checkpoint.model import MetaField, Model
    from charrnn.training.reproduce import command

    val = model.val_loss
    return {
        "model": path,
        **asdict(model.config),
        "params": model.parameters.flat.size,
        "vocabulary_size": len(model.vocabulary),
        "vocabulary": model.vocabulary.characters,
        **{
            name: getattr(model, name)
            for name, field in vars(Model).items()
            if type(field) is MetaField
        },
        "command": command(model, model.corpus_names) or None,
        "val_bpc": None if val is None else val / math.log(2),
        "uniform_nats": math.log(len(model.vocabulary)),
        "feed_forward_params": {T: feed_forward(model, T) for T in WINDOWS},
    }


def feed_forward_facts(model: Model) -> dict[str, str]:
    """Return the number of parameters of feed-forward networks, by label."""
    params, cell, rows = model.parameters.flat.size, model.config.cell, {}
    for T in WINDOWS:
        count = feed_forward(model, T)
        fewer = " (fewer)" if count < params else ""
        rows[f"T = {T}"] = f"{count:,}, {count / params:.2f} times this {cell}{fewer}"
    return rows


def show(screen: Console, path: str, model: Model) -> None:
    """Print one model: facts, learning curve, and feed-forward networks for comparison."""
    from rich.text import Text

    from charrnn.cli.facts import curve, facts

    screen.print(Text(visible(path), style="bold"), soft_wrap=True)
    screen.print(labelled(facts(model), screen), soft_wrap=True)
    if drawing := curve(model, 9, screen):
        screen.print(Text(f"\n{drawing}"), soft_wrap=True)
    screen.print(
        "\nFor comparison, the parameters of a feed-forward network with as many hidden units that "
        "reads a window of T one-hot characters; a recurrent network reads any number:"
    )
    screen.print(labelled(feed_forward_facts(model), screen), soft_wrap=True)


def show_side_by_side(screen: Console, opened: Sequence[tuple[str, Model]]) -> None:
    """Print a table with a column for each model."""
    from rich.table import Column, Table
    from rich.text import Text

    from charrnn.cli.facts import facts

    heads = [Column(Text(visible(path)), overflow="fold", ratio=1) for path, _ in opened]
    table = Table("", *heads, box=None, pad_edge=False)
    columns = [facts(model, most=20) | feed_forward_facts(model) for _, model in opened]
    for label in columns[0]:
        cells = [Text(visible(column[label]) or "-") for column in columns]
        table.add_row(Text(label, style="bold", no_wrap=True), *cells)
    screen.print(table)
