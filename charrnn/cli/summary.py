"""What is said at the end of a run: how well it predicts, how long it took, and the next commands, ready to copy."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from charrnn.cli.curve import curve
from charrnn.cli.terminal import console, is_ascii, visible
from charrnn.cli.wording import clock_time, counted, loss, shape

if TYPE_CHECKING:
    from rich.text import Text

    from charrnn.training.events import Done

LABEL = 14  # columns of what a line is about
ENDED = {
    "early": "finished early: validation had stopped improving",
    "interrupted": "interrupted and saved",
}


def print_summary(done: Done, *, picture: bool) -> None:
    """Print the end of a run on stderr; picture: with its learning curve."""
    from rich.text import Text

    shown = console(stderr=True)
    if picture:
        width = min(shown.width - 1, 100)
        drawing = curve(done.model.meta["curve"], width, 12, is_ascii(sys.stderr), done.floor_nats)
        shown.print(Text(f"\n{drawing}\n" if drawing else ""), soft_wrap=True)
    for label, text in facts(done):
        shown.print(labelled(label, text), soft_wrap=True)


def labelled(label: str, text: str) -> Text:
    """Return a line of a summary: what it is about, and what it says."""
    from rich.text import Text

    return Text(f"{label:<{LABEL}}", style="bold").append(visible(text), style="not bold")


def facts(done: Done) -> list[tuple[str, str]]:
    """Return the lines of the summary: what each is about, and what it says."""
    from charrnn.training.reproduce import joined

    meta, model = done.model.meta, done.model.config
    took = f"{clock_time(done.seconds)}, {counted(done.steps, 'step')}, {counted(done.epochs, 'epoch')}"
    took += (
        f", {done.chars_per_second:,.0f} characters/s" if done.chars_per_second else ""
    )  # 0: no step was taken now
    lines = [(ENDED[done.stopped], "")] if done.stopped in ENDED else []
    lines += (
        [("validation", loss(done.val_loss)), *_bounds(done)] if done.val_loss is not None else []
    )
    lines += [("training", loss(done.train_loss))] if done.train_loss is not None else []
    lines += [
        ("time", took),
        (
            "model",
            f"{done.checkpoint} ({shape(model.cell, model.layers, model.hidden)}, {done.params:,} parameters)",
        ),
    ]
    if done.stopped == "diverged" or done.checkpoint is None:
        return lines
    path = joined([done.checkpoint])
    more = "" if done.stopped == "interrupted" else f" {_longer(meta['training'], done.steps)}"
    return [
        *lines,
        ("sample it", f"charrnn sample {path} --temp 0.8"),
        (
            "go on",
            f"{'' if done.ranks == 1 else f'mpiexec -n {done.ranks} '}charrnn train --resume --out {path}{more}",
        ),
        *([("repeat it", done.command)] if done.repeatable else []),
    ]


def _bounds(done: Done) -> list[tuple[str, str]]:
    """Return what the validation loss is held against: counting n-grams, and knowing nothing."""
    uniform = [("uniform", f"{math.log(len(done.model.vocabulary)):.3f} nats (knowing nothing)")]
    if done.floor_nats is None:
        return uniform
    return [("n-gram floor", floor(done.floor_nats, done.model.meta["floor_order"])), *uniform]


def floor(nats: float, order: int | None) -> str:
    """Return the floor, and what it is."""
    return f"{nats:.3f} nats (the best n-gram model{f', order {order}' if order else ''})"


def _longer(training: dict[str, float | None], steps: int) -> str:
    """Return the option that doubles the run."""
    budget = training.get("budget")
    return f"--budget {_duration(2 * budget)}" if budget else f"--steps {2 * steps}"


def _duration(seconds: float) -> str:
    """Return a duration as --budget takes it."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
