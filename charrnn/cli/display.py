"""A training run as a person sees it on stderr: a live line or a few plain ones, and a summary."""

from __future__ import annotations

import math
import os
import sys
import threading
from typing import Any

from rich.console import Group
from rich.text import Text
from tqdm.std import EMA, tqdm

from charrnn.cli.curve import curve
from charrnn.cli.facts import beginning, facts
from charrnn.cli.terminal import (
    clock_time,
    console,
    is_ascii,
    is_plain,
    labelled,
    say,
    visible,
)
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
from charrnn.training.reproduce import joined

SMOOTHING = 0.03  # share of the last step in the loss and the speed that are shown
CTRL_C = 3  # columns that are left free for the ^C that a terminal shows
FIRST_SAMPLE = 0.02  # progress at which a second sample is shown; the next ones at twice that
SAMPLE_LINES = 4
SUMMARY = ("validation", "n-gram floor", "uniform", "training", "time")  # the facts at the end
ENDED = {
    "early": "early: validation had stopped improving",
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
        self.above(Text(visible(event.text), style="yellow"))

    def above(self, text: Text) -> None:
        """Print a text, above the live line where there is one."""
        console(stderr=True).print(Group(text), soft_wrap=True)  # else print forgets how to crop it

    def close(self) -> None:
        """Leave the terminal as it was."""


class Plain(Notices):
    """Prints a few lines at the start, some 20 as it goes, and the summary."""

    def __init__(self) -> None:
        self.loss, self.speed = EMA(SMOOTHING), EMA(SMOOTHING)
        self.val_loss: float | None = None
        self.last: Step | None = None
        self.told = -1.0  # the progress that the last line showed

    def start(self, event: Start) -> None:
        """Say what is trained on what."""
        self.above(labelled(beginning(event)))

    def step(self, event: Step) -> None:
        """Say how it goes, a tenth of the run after the last line."""
        self.last = event
        self.loss(event.loss)
        self.speed(event.chars_per_second)
        self.tell(event, since=0.1)

    def validated(self, event: Validated) -> None:
        """Say how well it predicts, if no line was printed just now."""
        self.val_loss = event.val_loss
        if self.last is not None:
            self.tell(self.last, since=0.04)

    def tell(self, step: Step, since: float) -> None:
        """Print a line, unless the last one shows more than the progress `since` ago."""
        if step.progress - self.told >= since:
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
        self.bar.set_description_str("taking the first step")

    def tell(self, step: Step, since: float) -> None:
        """Redraw the line, if the eye can follow."""
        self.bar.ncols = max(1, console(stderr=True).width - CTRL_C)
        self.bar.bar_format = "{percentage:3.0f}%|{bar}| {desc}"
        self.bar.set_description_str(self.line(step), refresh=False)
        self.bar.update(step.progress - self.bar.n)

    def validating(self, event: Validating) -> None:
        """Say what takes so long."""
        self.bar.set_description_str("validating")

    def sampled(self, event: Sampled) -> None:
        """Show a sample now and then, more often early on."""
        if self.bar.n >= self.next_sample:
            self.next_sample = max(FIRST_SAMPLE, 2 * self.bar.n)
            self.above(excerpt(event))

    def done(self, event: Done) -> None:
        """Clear the line, and show the learning curve and what has come of it."""
        self.close()
        width = min(console(stderr=True).width - 1, 100)
        drawing = curve(event.model.curve, width, 12, is_ascii(sys.stderr), event.floor_nats)
        if drawing:
            self.above(Text(f"\n{drawing}\n"))
        super().done(event)

    def above(self, text: Text) -> None:
        """Print a text above the line."""
        with self.bar.external_write_mode(file=sys.stderr):
            super().above(text)

    def close(self) -> None:
        """Clear the line, with the ^C that a terminal may have put at its end."""
        if not self.bar.disable:
            self.bar.close()
            if os.name != "nt":
                sys.stderr.write("\r\x1b[K")


def excerpt(event: Sampled) -> Text:
    """Return the first lines of a sample, indented, each to be cut to the terminal's width."""
    lines = [f"  {visible(line)}" for line in event.text.expandtabs(4).split("\n") if line.strip()]
    return Text.assemble(
        (f"step {event.step:,}\n", "dim"),
        "\n".join(lines[:SAMPLE_LINES]),
        no_wrap=True,
        overflow="crop",
    )


def summary(done: Done) -> dict[str, str]:
    """Return what has come of a run, and what can be done next, by its label."""
    known = facts(done.model)
    rows = {
        "ended": ENDED.get(done.stopped, ""),
        **{label: known[label] for label in SUMMARY},
        "checkpoint": done.checkpoint or "",
    }
    return rows | (_next_commands(done) if done.stopped != "diverged" else {})


def _next_commands(done: Done) -> dict[str, str]:
    """Return what can be done with the model, ready to be copied."""
    if done.checkpoint is None:
        return {}
    longer = ["mpiexec", "-n", str(done.ranks)] if done.ranks > 1 else []
    longer += ["charrnn", "train", "--resume", "--out", done.checkpoint]
    if done.stopped != "interrupted":
        budget = done.model.training.get("budget")
        longer += (
            ["--budget", f"{2 * budget:.10g}s"] if budget else ["--steps", str(2 * done.steps)]
        )
    return {
        "sample it": joined(["charrnn", "sample", done.checkpoint, "--temp", "0.8"]),
        "go on": joined(longer),
        "repeat it": done.command if done.repeatable else "",
    }
