"""`charrnn info`: what a model is, on what it was trained, and what recurrence saves."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli.curve import curve
from charrnn.cli.options import Debug, Json, complete_checkpoint, model_path
from charrnn.cli.terminal import (
    clock_time,
    console,
    counted,
    is_ascii,
    loss,
    print_json,
    say,
    shape,
    visible,
)
from charrnn.errors import CheckpointError
from charrnn.pictures.heatmap import symbol

if TYPE_CHECKING:
    from rich.console import Console

    from charrnn.checkpoint.model import Model

WINDOWS = (8, 16, 32, 64, 128, 256)  # T of the feed-forward networks
NARROW = 50  # columns below which nothing stands side by side
SETTINGS = {"batch_size": "B", "seq_len": "T"}  # and by their own names:
SETTINGS |= {name: name for name in ("optimizer", "lr", "dropout", "seed")}
SAID = (  # by the model's attributes and by the JSON's keys
    *("version", "training", "corpus", "step", "steps", "best_step", "epochs", "seconds"),
    *("chars_per_second", "train_loss", "val_loss", "floor_nats", "floor_order", "curve"),
)


def info(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoints, several side by side; default: model.npz here, "
            "else the one that ships.",
            autocompletion=complete_checkpoint,
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model is, how it was trained, and what a feed-forward network would need.

    Example: charrnn info model.npz
    """
    opened, failures = _opened(models or [model_path(None)])
    screen = console()
    if json:
        for path, model in opened:
            print_json(as_json(path, model))
    elif len(opened) > 1 and screen.width >= NARROW:
        columns = [{**facts(model, most=20), **feed_forward_facts(model)} for _, model in opened]
        print_facts(screen, columns, [path for path, _ in opened])
    else:
        for path, model in opened:
            show(screen, path, model)
    for failure in failures[:-1]:
        say(f"charrnn: {failure}")
    if failures:
        raise failures[-1]


def _opened(paths: Sequence[str]) -> tuple[list[tuple[str, Model]], list[CheckpointError]]:
    """Return the models that can be opened with their paths, and what is wrong with the others."""
    from charrnn.checkpoint.model import load

    opened, failures = [], []
    for path in paths:
        try:
            opened.append((path, load(path)))
        except CheckpointError as error:
            failures.append(error)
    return opened, failures


def feed_forward(model: Model, T: int) -> int:
    """Return the parameters of a feed-forward network of the same H over T one-hot characters."""
    H, N = model.config.hidden, len(model.vocabulary)
    return H * N * T + H + N * H + N


def longest_smaller(model: Model) -> int:
    """Return the longest T for which the feed-forward network is the smaller one, 0 if none is."""
    more = model.parameters.flat.size - feed_forward(model, 0) - 1
    return int(max(0, more // (model.config.hidden * len(model.vocabulary))))


def as_json(path: str, model: Model) -> dict[str, Any]:
    """Return all that is known of a model."""
    val = model.val_loss
    return {
        "model": path,
        **asdict(model.config),
        "params": model.parameters.flat.size,
        "vocabulary_size": len(model.vocabulary),
        "vocabulary": model.vocabulary.characters,
        **{name: getattr(model, name) for name in SAID},
        "recipe": model.recipe or None,
        "val_bpc": None if val is None else val / math.log(2),
        "uniform_nats": math.log(len(model.vocabulary)),
        "feed_forward_params": {str(T): feed_forward(model, T) for T in WINDOWS},
        "feed_forward_smaller_up_to": longest_smaller(model),
    }


def facts(model: Model, most: int = 60) -> dict[str, str]:
    """Return what there is to say, by its label; at most so many columns of the vocabulary."""
    config, characters = model.config, model.vocabulary.characters
    symbols = _shortened("".join(map(symbol, characters[:most])), most)
    found = {
        "network": [shape(config.cell, config.layers, config.hidden)],
        "parameters": [f"{model.parameters.flat.size:,}"],
        "characters": [f"{len(characters)}: {symbols}"],
        "trained on": [
            _shortened(", ".join(model.corpus_names), 60),
            _said("{:,} characters".format, model.corpus_characters),
            "a line an item" * model.of_lines,
        ],
        "how long": [
            _said(counted, model.step, "step"),
            _said(counted, model.epochs, "epoch"),
            _said(clock_time, model.seconds),
            _said("{:,.0f} characters/s".format, model.chars_per_second),
        ],
        "settings": [
            _said(f"{shown} {{}}".format, model.training.get(name))
            for name, shown in SETTINGS.items()
        ],
        "made by": [model.command or ""],
        "validation": [_said(loss, model.val_loss, 4)],
        "training": [_said(loss, model.train_loss, 4)],
        "n-gram floor": [
            _said(loss, model.floor_nats, 4),
            _said("order {}".format, model.floor_order),
        ],
        "uniform": [loss(math.log(len(characters)), 4), "ln N"],
    }
    return {label: visible(", ".join(filter(None, parts))) for label, parts in found.items()}


def _said(words: Callable[..., str], value: object, *more: object) -> str:
    """Return `words(value, *more)`, or nothing where nothing is known."""
    return "" if value is None else words(value, *more)


def _shortened(text: str, most: int) -> str:
    return text if len(text) < most else f"{text[: most - 3]}..."


def feed_forward_facts(model: Model) -> dict[str, str]:
    """Return the feed-forward networks' parameters, and where they are the fewer, by label."""
    params, longest = model.parameters.flat.size, longest_smaller(model)
    rows = {}
    for T in WINDOWS:
        count = feed_forward(model, T)
        rows[f"T = {T}"] = f"{count:,}, {count / params:.2f} times this {model.config.cell}"
    return {**rows, "fewer for": f"T up to {longest}" if longest else "no T"}


def show(screen: Console, path: str, model: Model) -> None:
    """Print one model: facts, learning curve, and the feed-forward networks beside it."""
    from rich.text import Text

    screen.print(Text(visible(path), style="bold"), soft_wrap=True)
    print_facts(screen, [facts(model)])
    width = min(screen.width - 1, 100)
    drawing = curve(model.curve, width, 9, is_ascii(sys.stdout), model.floor_nats)
    if drawing:
        screen.print(Text(f"\n{drawing}"), soft_wrap=True)
    screen.print(
        "\nParameters of a feed-forward network with as many hidden units over a window of T "
        "one-hot characters; recurrence reads any length:"
    )
    print_facts(screen, [feed_forward_facts(model)])


def print_facts(
    screen: Console, columns: Sequence[dict[str, str]], headings: Sequence[str] = ()
) -> None:
    """Print facts, a column for each model; a narrow screen has a paragraph for each fact."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    table.add_column(style="cyan", no_wrap=True)
    for heading in headings or [""]:
        table.add_column(Text(visible(heading)), overflow="fold", ratio=1)
    labels = [label for label in columns[0] if any(column[label] for column in columns)]
    for label in labels:
        table.add_row(label, *(Text(column[label] or "-") for column in columns))
    if screen.width >= NARROW:
        screen.print(table)
        return
    for label in labels:
        screen.print(Text.assemble((f"{label}: ", "cyan"), columns[0][label]))
