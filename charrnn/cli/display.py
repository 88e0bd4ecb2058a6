"""A training run as a person sees it on stderr: a live line or a few plain ones, and a summary."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from charrnn.cli.curve import curve
from charrnn.cli.terminal import (
    clock_time,
    console,
    counted,
    is_ascii,
    is_plain,
    labelled,
    loss,
    say,
    shape,
    visible,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from charrnn.training.events import (
        Done,
        Event,
        Notice,
        Sampled,
        Start,
        Step,
        Validated,
        Validating,
    )

SMOOTHING = 0.03  # share of the last step in the loss and the speed that are shown
CTRL_C = 3  # columns that are left free for the ^C that a terminal shows
FIRST_SAMPLE = 0.02  # progress at which a second sample is shown; the next ones at twice that
SAMPLE_LINES = 4
ENDED = {
    "early": "finished early: validation had stopped improving",
    "interrupted": "interrupted and saved",
}


def display(*, json: bool = False) -> Notices:
    """Return the display for stderr. json: the events are on stdout, and plain lines repeat none.

    Where both are on a terminal, events and a live line would overwrite each other.
    """
    plain = is_plain(sys.stderr)
    if json and (plain or sys.stdout.isatty()):
        return Notices()
    return Plain() if plain else Live()


class Notices:
    """Prints what is worth saying, and nothing else."""

    def __call__(self, event: Event) -> None:
        handler = getattr(self, event.name, None)
        if handler is not None:
            handler(event)

    def notice(self, event: Notice) -> None:
        """Say it."""
        from rich.text import Text

        self.above(Text(visible(event.text), style="yellow"))

    def above(self, *shown: RenderableType) -> None:
        """Print something, above the live line where there is one."""
        from rich.console import Group

        console(stderr=True).print(Group(*shown), soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""


class Plain(Notices):
    """Prints a few lines at the start, some 20 as it goes, and the summary."""

    def __init__(self) -> None:
        from tqdm.std import EMA

        self.loss, self.speed = EMA(SMOOTHING), EMA(SMOOTHING)
        self.val_loss: float | None = None
        self.last: Step | None = None
        self.told = -1.0  # the progress that the last line showed

    def start(self, event: Start) -> None:
        """Say what is trained on what."""
        self.above(labelled(beginning(event)))

    def step(self, event: Step) -> None:
        """Say how it goes, a tenth of the run after the last line."""
        self.count(event)
        self._tell(since=0.1)

    def count(self, event: Step) -> None:
        """Take a step into the figures."""
        self.last = event
        self.loss(event.loss)
        self.speed(event.chars_per_second)

    def validated(self, event: Validated) -> None:
        """Say how well it predicts, if no line was printed just now."""
        self.val_loss = event.val_loss
        self._tell(since=0.04)

    def _tell(self, since: float) -> None:
        """Print a line, unless the last one shows more than the progress `since` ago."""
        step = self.last
        if step is not None and step.progress - self.told >= since:
            self.told = step.progress
            say(f"{step.progress:4.0%}  {self.line(step)}")

    def line(self, step: Step) -> str:
        """Return the figures on one line, the most important first."""
        parts = [f"loss {self.loss():.3f}"]
        if self.val_loss is not None:
            parts.append(f"val {self.val_loss:.3f} = {self.val_loss / math.log(2):.2f} bits")
        total = "" if step.steps is None else f"/{step.steps:,}"
        parts.append(f"{clock_time(step.seconds_left)} left")
        parts.append(f"{self.speed() / 1000:.3g}k/s")
        return "  ".join([*parts, f"{step.step:,}{total}"])

    def done(self, event: Done) -> None:
        """Say what has come of it."""
        self.above(labelled(summary(event)))


class Live(Plain):
    """Draws one line that changes, samples and notices above it, and the summary with a curve."""

    def __init__(self) -> None:
        from tqdm import tqdm

        super().__init__()
        tqdm.monitor_interval = 0  # no thread of its own: it is drawn between steps
        tqdm.set_lock(threading.RLock())  # the default one opens semaphores for processes
        self.next_sample = 0.0  # the progress at which one is shown
        self.bar: Any = tqdm(
            total=1.0,
            desc="reading the text",
            bar_format="{desc}",
            file=sys.stderr,
            leave=False,
            miniters=0,  # else a slow step is drawn seconds late
            disable=False,  # whatever TQDM_DISABLE says
        )

    def start(self, event: Start) -> None:
        """Say what is trained on what."""
        super().start(event)
        self.bar.set_description_str("the first step")

    def step(self, event: Step) -> None:
        """Redraw the line, if the eye can follow."""
        self.count(event)
        self.bar.ncols = max(1, console(stderr=True).width - CTRL_C)
        self.bar.bar_format = "{percentage:3.0f}%|{bar}| {desc}"
        self.bar.set_description_str(self.line(event), refresh=False)
        self.bar.update(event.progress - self.bar.n)

    def validating(self, event: Validating) -> None:
        """Say what takes so long."""
        self.bar.set_description_str("validating")

    def validated(self, event: Validated) -> None:
        """Keep the loss for the line."""
        self.val_loss = event.val_loss

    def sampled(self, event: Sampled) -> None:
        """Show a sample now and then, more often early on."""
        from rich.text import Text

        if self.bar.n >= self.next_sample:
            self.next_sample = max(FIRST_SAMPLE, 2 * self.bar.n)
            self.above(Text(f"step {event.step:,}", style="dim"), excerpt(event.text))

    def done(self, event: Done) -> None:
        """Clear the line, and show the learning curve and what has come of it."""
        self.close()
        width = min(console(stderr=True).width - 1, 100)
        drawing = curve(event.model.curve, width, 12, is_ascii(sys.stderr), event.floor_nats)
        self.above(f"\n{drawing}\n" if drawing else "")
        super().done(event)

    def above(self, *shown: RenderableType) -> None:
        """Print something above the line."""
        with self.bar.external_write_mode(file=sys.stderr):
            super().above(*shown)

    def close(self) -> None:
        """Clear the line, with the ^C that a terminal may have put at its end."""
        if not self.bar.disable:
            self.bar.close()
            if os.name != "nt":
                sys.stderr.write("\r\x1b[K")


def beginning(event: Start) -> Iterable[tuple[str, str]]:
    """Yield what is trained on what, each line with its label."""
    characters = counted(event.corpus_characters, "character")
    yield "text", f"{characters}, {event.vocabulary_size:,} distinct"
    parts = [shape(event.cell, event.layers, event.hidden), counted(event.params, "parameter")]
    parts += [counted(event.workers, "worker")] if event.workers > 1 else []
    parts += [counted(event.ranks, "rank")] if event.ranks > 1 else []
    parts += [f"from step {event.first_step:,} on"] if event.first_step else []
    yield "network", ", ".join(parts)
    if event.floor_nats is not None:
        told = floor(event.floor_nats, event.floor_order)
        yield "n-gram floor", f"{told}: the loss to get below"


def floor(nats: float, order: int | None) -> str:
    """Return what the best n-gram model reaches."""
    return f"{nats:.3f} nats (the best n-gram model{f', order {order}' if order else ''})"


def excerpt(text: str) -> Text:
    """Return the first lines of a sample, indented, each to be cut to the terminal's width."""
    from rich.text import Text

    lines = [f"  {visible(line)}" for line in text.expandtabs(4).split("\n") if line.strip()]
    return Text("\n".join(lines[:SAMPLE_LINES]), no_wrap=True, overflow="crop")


def summary(done: Done) -> Iterable[tuple[str, str]]:
    """Yield the lines of the summary: what each is about, and what it says."""
    if done.stopped in ENDED:
        yield ENDED[done.stopped], ""
    if done.val_loss is not None:
        yield "validation", loss(done.val_loss)
        if done.floor_nats is not None:
            yield "n-gram floor", floor(done.floor_nats, done.model.floor_order)
        uniform = math.log(len(done.model.vocabulary))
        yield "uniform", f"{uniform:.3f} nats (knowing nothing)"
    if done.train_loss is not None:
        yield "training", loss(done.train_loss)
    took = [clock_time(done.seconds), counted(done.steps, "step"), counted(done.epochs, "epoch")]
    if done.chars_per_second:  # 0: no step was taken
        took.append(f"{done.chars_per_second:,.0f} characters/s")
    yield "time", ", ".join(took)
    model = done.model.config
    size = f"{shape(model.cell, model.layers, model.hidden)}, {counted(done.params, 'parameter')}"
    yield "model", f"{done.checkpoint} ({size})"
    if done.stopped != "diverged" and done.checkpoint is not None:
        yield from _next_commands(done, done.checkpoint)


def _next_commands(done: Done, checkpoint: str) -> Iterable[tuple[str, str]]:
    """Yield what can be done with the model, ready to be copied."""
    from charrnn.training.reproduce import joined

    yield "sample it", joined(["charrnn", "sample", checkpoint, "--temp", "0.8"])
    longer = ["mpiexec", "-n", str(done.ranks)] if done.ranks > 1 else []
    longer += ["charrnn", "train", "--resume", "--out", checkpoint]
    if done.stopped != "interrupted":
        budget = done.model.training.get("budget")
        longer += (
            ["--budget", f"{2 * budget:.10g}s"] if budget else ["--steps", str(2 * done.steps)]
        )
    yield "go on", joined(longer)
    if done.repeatable:
        yield "repeat it", done.command
