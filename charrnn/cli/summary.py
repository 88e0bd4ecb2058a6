"""What is said at the end of a run: how well it predicts, how long it took, and the next commands, ready to copy."""

from __future__ import annotations

import math
import shlex
import sys
from typing import TYPE_CHECKING

from charrnn.cli.curve import curve
from charrnn.cli.terminal import console, is_ascii, visible

if TYPE_CHECKING:
    from charrnn.training.events import Done

ENDED = {
    "finished": "finished",
    "early": "finished early: validation had stopped improving",
    "interrupted": "interrupted and saved",
    "diverged": "diverged",
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
        shown.print(Text(f"{label:<12}", style="bold").append(visible(text), style="not bold"), soft_wrap=True)


def facts(done: Done) -> list[tuple[str, str]]:
    """Return the lines of the summary: what each is about, and what it says."""
    meta, model = done.model.meta, done.model.config
    shape = f"{model.cell}, {model.layers} layer{'s' * (model.layers > 1)} of {model.hidden}, {done.params:,} parameters"
    took = f"{clock_time(done.seconds)}, {done.steps:,} steps, {short(done.epochs)} epochs"
    took += f", {done.chars_per_second:,.0f} characters/s" if done.chars_per_second else ""  # 0: no step was taken now
    lines = [(ENDED[done.stopped], "")] if done.stopped in ("early", "interrupted") else []
    lines += [("validation", _loss(done.val_loss)), *_bounds(done)] if done.val_loss is not None else []
    lines += [("training", f"{_loss(done.train_loss)}")] if done.train_loss is not None else []
    lines += [("time", took), ("model", f"{done.checkpoint} ({shape})")]
    if done.stopped == "diverged" or done.checkpoint is None:
        return lines
    path = shlex.quote(done.checkpoint)
    more = "" if done.stopped == "interrupted" else f" {_longer(meta['training'], done.steps)}"
    return [
        *lines,
        ("sample it", f"charrnn sample {path} --temp 0.8"),
        ("go on", f"{'' if done.ranks == 1 else f'mpiexec -n {done.ranks} '}charrnn train --resume --out {path}{more}"),
        *([("repeat it", done.command)] if done.repeatable else []),
    ]


def _loss(nats: float) -> str:
    return f"{nats:.3f} nats = {nats / math.log(2):.3f} bits a character"


def _bounds(done: Done) -> list[tuple[str, str]]:
    """Return what the validation loss is held against: counting n-grams, and knowing nothing."""
    uniform = [("uniform", f"{math.log(len(done.model.vocabulary)):.3f} nats (knowing nothing)")]
    if done.floor_nats is None:
        return uniform
    return [("floor", f"{done.floor_nats:.3f} nats (counting n-grams of up to {done.model.meta['floor_order']})"), *uniform]


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


def short(number: float) -> str:
    """Return a number with about three digits, never with an exponent for a large one."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def clock_time(seconds: float) -> str:
    """Return 75 s as 1:15 and 3675 s as 1:01:15."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
