"""`charrnn info`: what a model is, on what it was trained, and how many parameters recurrence saves."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli.curve import Point, curve
from charrnn.cli.models import open_default, open_model
from charrnn.cli.options import Debug, Json, complete_checkpoint
from charrnn.cli.pictures import symbol
from charrnn.cli.terminal import console, counted, is_ascii, loss, print_json, shape, visible

if TYPE_CHECKING:
    from rich.console import Console

    from charrnn.checkpoint.model import Model

WINDOWS = (8, 16, 32, 64, 128, 256)  # T of the feed-forward networks


def info(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoints, several side by side; default: model.npz here, else one that ships, if any.",
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
    known = (
        [Known(path, open_model(path)) for path in models] if models else [Known(*open_default())]
    )
    if json:
        for one in known:
            print_json(one.as_json())
    elif len(known) == 1:
        show(known[0])
    else:
        compare(known)


@dataclass(frozen=True)
class Known:
    """What is known of a model; a file that others made may say nothing, or nonsense, about its training."""

    path: str
    model: Model

    def number(self, key: str, within: str = "") -> float | None:
        """Return a number of the meta, None if there is none."""
        where = self.record(within) if within else self.model.meta
        value = where.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def record(self, key: str) -> dict[str, Any]:
        """Return an object of the meta, empty if there is none."""
        value = self.model.meta.get(key)
        return value if isinstance(value, dict) else {}

    @property
    def params(self) -> int:
        """Return how many parameters it has."""
        return int(self.model.parameters.flat.size)

    @property
    def uniform(self) -> float:
        """Return the loss of knowing nothing, ln N in nats."""
        return math.log(len(self.model.vocabulary))

    @property
    def curve(self) -> list[Point]:
        """Return the learning curve: step, training loss, validation loss."""
        points = self.model.meta.get("curve")
        good = [point for point in points if _is_point(point)] if isinstance(points, list) else []
        return [(int(step), train, val) for step, train, val in good]

    @property
    def feed_forward(self) -> dict[int, int]:
        """Return the parameters of a feed-forward network of the same hidden size over T one-hot characters, by T."""
        H, N = self.model.config.hidden, len(self.model.vocabulary)
        return {T: H * N * T + H + N * H + N for T in WINDOWS}

    @property
    def longest_smaller(self) -> int:
        """Return the longest window T for which the feed-forward network has fewer parameters, 0 if there is none."""
        H, N = self.model.config.hidden, len(self.model.vocabulary)
        return max(0, (self.params - (H + N * H + N) - 1) // (H * N))

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        config, meta, val = self.model.config, self.model.meta, self.number("val_loss")
        names = (
            "version",
            "training",
            "corpus",
            "step",
            "steps",
            "best_step",
            "epochs",
            "seconds",
            "chars_per_second",
            "train_loss",
        )
        return {
            "model": self.path,
            "cell": config.cell,
            "hidden": config.hidden,
            "layers": config.layers,
            "params": self.params,
            "vocabulary_size": len(self.model.vocabulary),
            "vocabulary": self.model.vocabulary.characters,
            **{name: meta.get(name) for name in names},
            "recipe": self.record("recipe") or None,
            "val_loss": val,
            "val_bpc": None if val is None else val / math.log(2),
            "floor_nats": self.number("floor_nats"),
            "floor_order": self.number("floor_order"),
            "uniform_nats": self.uniform,
            "curve": self.curve,
            "feed_forward_params": {str(T): count for T, count in self.feed_forward.items()},
            "feed_forward_smaller_up_to": self.longest_smaller,
        }


def _is_point(point: object) -> bool:
    if not (
        isinstance(point, list | tuple) and len(point) == 3 and isinstance(point[0], int | float)
    ):
        return False
    return all(loss is None or isinstance(loss, int | float) for loss in point[1:])


def facts(known: Known, most: int = 60) -> dict[str, str]:
    """Return what there is to say, by what it is about; of the vocabulary at most so many columns. Empty: not known."""
    config, v = known.model.config, known.model.vocabulary
    return {
        "network": shape(config.cell, config.layers, config.hidden),
        "parameters": f"{known.params:,}",
        "characters": f"{len(v)}: {_shortened(''.join(map(symbol, v.characters[:most])), most)}",
        "trained on": _corpus(known),
        "how long": _length(known),
        "settings": _settings(known),
        "made by": visible(str(known.record("recipe").get("command", ""))),
        "validation": _loss(known.number("val_loss")),
        "training": _loss(known.number("train_loss")),
        "n-gram floor": _floor(known),
        "uniform": f"{_loss(known.uniform)}, ln N",
    }


def _shortened(text: str, most: int) -> str:
    return text if len(text) < most else f"{text[: most - 3]}..."


def _loss(nats: float | None) -> str:
    return "" if nats is None else loss(nats, 4)


def _floor(known: Known) -> str:
    order = known.number("floor_order")
    text = _loss(known.number("floor_nats"))
    return f"{text}, order {order}" if text and order else text


def _corpus(known: Known) -> str:
    names, count = known.record("corpus").get("names"), known.number("characters", "corpus")
    listed = (
        ", ".join(visible(name) for name in names if isinstance(name, str))
        if isinstance(names, list)
        else ""
    )
    of_lines = ", a line an item" if known.record("training").get("lines") else ""
    return (
        ", ".join(
            part
            for part in (_shortened(listed, 60), "" if count is None else f"{count:,} characters")
            if part
        )
        + of_lines
    )


def _length(known: Known) -> str:
    step, epochs, seconds, speed = (
        known.number(key) for key in ("step", "epochs", "seconds", "chars_per_second")
    )
    parts = [
        "" if step is None else counted(step, "step"),
        "" if epochs is None else counted(epochs, "epoch"),
    ]
    parts += [
        "" if seconds is None else _duration(seconds),
        "" if speed is None else f"{speed:,.0f} characters/s",
    ]
    return ", ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
    )


def _settings(known: Known) -> str:
    names = (
        ("B", "batch_size"),
        ("T", "seq_len"),
        ("optimizer", "optimizer"),
        ("lr", "lr"),
        ("dropout", "dropout"),
        ("seed", "seed"),
    )
    training = known.record("training")
    return ", ".join(
        f"{short} {visible(str(training[name]))}"
        for short, name in names
        if training.get(name) is not None
    )


def show(known: Known) -> None:
    """Print one model: facts, learning curve, and the feed-forward networks beside it."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(Text(visible(known.path), style="bold"), soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for about, text in facts(known).items():
        if text:
            table.add_row(about, Text(text))
    screen.print(table)
    drawing = curve(
        known.curve, min(screen.width - 1, 100), 9, is_ascii(sys.stdout), known.number("floor_nats")
    )
    if drawing:
        screen.print(Text(f"\n{drawing}"), soft_wrap=True)
    _show_feed_forward(known, screen)


def _show_feed_forward(known: Known, screen: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, title_justify="left")
    for name in ("window T", *map(str, WINDOWS)):
        table.add_column(name, justify="left" if name == "window T" else "right")
    table.add_row("feed-forward", *(f"{count:,}" for count in known.feed_forward.values()))
    table.add_row(
        f"times this {known.model.config.cell}",
        *(f"{count / known.params:.2f}" for count in known.feed_forward.values()),
    )
    screen.print(
        Text(
            "\nParameters of a feed-forward network with as many hidden units over T one-hot characters"
        )
    )
    screen.print(table)
    screen.print(Text(feed_forward_sentence(known)))


def feed_forward_sentence(known: Known) -> str:
    """Return where the feed-forward network is the smaller one."""
    longest = known.longest_smaller
    this = f"this {known.model.config.cell} ({known.params:,})"
    if not longest:
        return f"Whatever the window, {this} is the smaller one."
    upto = f"of up to {longest} characters" if longest > 1 else "of 1 character"
    return f"For windows {upto} the feed-forward network is the smaller one; for longer ones {this} is, which reads any length."


def compare(models: list[Known]) -> None:
    """Print several models side by side."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    table = Table(box=None, pad_edge=False)
    table.add_column("", style="cyan", no_wrap=True)
    for known in models:
        table.add_column(Text(visible(known.path)), overflow="fold", ratio=1)
    columns = [facts(known, most=20) for known in models]
    for about in columns[0]:
        if any(column[about] for column in columns):
            table.add_row(about, *(Text(column[about] or "-") for column in columns))
    for T in WINDOWS:
        table.add_row(
            f"feed-forward, T = {T}", *(Text(f"{known.feed_forward[T]:,}") for known in models)
        )
    smaller = [
        f"T up to {known.longest_smaller}" if known.longest_smaller else "never" for known in models
    ]
    table.add_row("which is smaller for", *map(Text, smaller))
    screen.print(table)
