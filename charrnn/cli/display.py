"""A training run as a person sees it, all of it on stderr: one live line with samples above it, or few plain lines."""

from __future__ import annotations

import math
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from charrnn.cli.summary import LABEL, floor, labelled, print_summary
from charrnn.cli.terminal import console, is_plain, say, visible
from charrnn.cli.wording import clock_time, counted, shape

if TYPE_CHECKING:
    from rich.text import Text

    from charrnn.training.events import Done, Event, Notice, Sampled, Start, Step, Validated

SMOOTHING = 0.97  # share of the old mean kept in a step, of loss and speed
REFRESH = 0.1  # seconds between two drawings of the live line
SHOWN_AT = (
    0.0,
    0.02,
    0.05,
    0.1,
    0.2,
    0.35,
    0.5,
    0.7,
    0.9,
)  # progress from which another sample is shown: often early on
SAMPLE_LINES = 4
PLAIN_COLUMNS = (
    87  # of the figures with room between them; without the floor and a bar they fit into 80
)


def display(*, json: bool = False) -> Notices:
    """Return who shows a run on this stderr; json: the events are on stdout, so what they have isn't told twice in plain lines."""
    if json and (
        sys.stdout.isatty() or is_plain(sys.stderr)
    ):  # on a terminal events and a live line would write over each other
        return Notices()
    return Plain() if is_plain(sys.stderr) else Live()


class Notices:
    """What is worth saying, and nothing else."""

    def __call__(self, event: Event) -> None:
        handler = getattr(self, event.name, None)
        if handler is not None:
            handler(event)

    def notice(self, event: Notice) -> None:
        """Say it."""
        say(event.text)

    def close(self) -> None:
        """Nothing is open."""


class Figures:
    """What is known of the run so far, smoothed for the eye."""

    def __init__(self) -> None:
        self.loss = self.speed = 0.0
        self.seen = 0
        self.val_loss: float | None = None
        self.floor: float | None = None

    def add(self, step: Step) -> None:
        """Take in a step: means over steps that forget the old ones."""
        self.seen += 1
        keep = min(SMOOTHING, 1 - 1 / self.seen)
        self.loss += (1 - keep) * (step.loss - self.loss)
        self.speed += (1 - keep) * (step.chars_per_second - self.speed)

    def line(self, step: Step, columns: int) -> str:
        """Return the figures on one line that fits beside a bar into `columns`."""
        val, left, wide = self.val_loss, clock_time(step.seconds_left), columns >= 127
        count = f"{step.step:,}" + (f"/{step.steps:,}" if step.steps is not None else "")
        parts = (
            [f"step {count}", f"{self.speed:,.0f} characters/s"]
            if wide
            else [count, f"{self.speed / 1000:.3g}k/s"]
        )
        parts += [f"loss {self.loss:.3f}"]
        parts += (
            [f"{'validation' if wide else 'val'} {val:.3f} = {val / math.log(2):.2f} bits"]
            if val is not None
            else []
        )
        parts += (
            [f"{'n-gram floor' if wide else 'floor'} {self.floor:.2f}"]
            if self.floor is not None and columns >= 67
            else []
        )
        return ("  " if columns >= 87 else " ").join(
            [*parts, f"{left} left" if columns >= 87 else left]
        )


class Plain(Notices):
    """A few lines at the start, some 20 as it goes, and the summary; none has more than 80 columns unless the terminal has."""

    def __init__(self) -> None:
        self.figures, self.told = Figures(), 0.0
        self.last: Step | None = None

    def start(self, event: Start) -> None:
        """Say what is trained on what; the floor stays as it is and isn't said again on each line."""
        for label, text in beginning(event):
            say(f"{label:<{LABEL}}{text}")

    def step(self, event: Step) -> None:
        """Say how it goes where no validation has for a tenth of the run."""
        self.figures.add(event)
        self.last = event
        if event.progress - self.told >= 0.1:
            self._tell(event)

    def validated(self, event: Validated) -> None:
        """Say how well it predicts, if it wasn't said just now."""
        self.figures.val_loss = event.val_loss
        if self.last is not None and (self.last.progress - self.told >= 0.04 or not self.told):
            self._tell(self.last)

    def _tell(self, step: Step) -> None:
        self.told = step.progress
        say(f"{step.progress:4.0%}  {self.figures.line(step, max(PLAIN_COLUMNS, columns()))}")

    def done(self, event: Done) -> None:
        """Say what has come of it."""
        print_summary(event, picture=False)


class Live(Notices):
    """One line that changes, samples and notices above it, and the summary with the learning curve."""

    def __init__(self) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        class Bar(tqdm):  # type: ignore[misc]
            monitor_interval = 0  # no thread of its own: it is drawn between steps

        Bar.set_lock(threading.RLock())  # the default one opens semaphores for processes
        self.figures, self.drawn, self.samples = Figures(), 0.0, 0
        self.progress = 0.0
        self.bar: Any = Bar(
            total=1000,
            file=sys.stderr,
            leave=False,
            ncols=columns(),
            bar_format="{desc}",
            disable=False,
        )
        self.bar.set_description_str("reading the text")

    def notice(self, event: Notice) -> None:
        """Show something worth saying above the line."""
        from rich.text import Text

        self._above(Text(visible(event.text), style="yellow"))

    def start(self, event: Start) -> None:
        """Say what is trained on what."""
        self.figures.floor = event.floor_nats
        self._above(*(labelled(label, text) for label, text in beginning(event)))
        self.bar.set_description_str("the first step")

    def step(self, event: Step) -> None:
        """Redraw the line, if the eye can follow."""
        self.figures.add(event)
        self.progress = event.progress
        now = self.bar._time()
        if now - self.drawn >= REFRESH or event.step == event.steps:
            self.drawn, self.bar.n = now, round(1000 * event.progress)
            self.bar.bar_format = "{percentage:3.0f}%|{bar}| {desc}"
            self.bar.ncols = columns()
            self.bar.set_description_str(self.figures.line(event, self.bar.ncols))

    def validated(self, event: Validated) -> None:
        """Keep the loss for the line."""
        self.figures.val_loss = event.val_loss

    def sampled(self, event: Sampled) -> None:
        """Show a sample now and then, above the line."""
        if self.samples < len(SHOWN_AT) and self.progress >= SHOWN_AT[self.samples]:
            from rich.text import Text

            self.samples = sum(self.progress >= share for share in SHOWN_AT)
            self._above(
                Text(f"step {event.step:,}", style="dim"), Text(excerpt(event.text, columns()))
            )

    def done(self, event: Done) -> None:
        """Clear the line and say what has come of it."""
        self.close()
        print_summary(event, picture=True)

    def _above(self, *lines: Text) -> None:
        with self.bar.external_write_mode(file=sys.stderr):
            for line in lines:
                console(stderr=True).print(line, soft_wrap=True)

    def close(self) -> None:
        """Clear the line, with the ^C that a terminal may have put at its end."""
        if not self.bar.disable:
            self.bar.close()
            if os.name != "nt":
                sys.stderr.write("\r\x1b[K")


def columns() -> int:
    """Return how many columns a line on stderr may take; a few are left for the ^C that a terminal shows."""
    try:
        wide = (
            os.get_terminal_size(sys.stderr.fileno()).columns or 80
        )  # 0: a terminal that doesn't know
    except (OSError, ValueError):
        wide = 80
    return max(20, wide - 3)


def beginning(event: Start) -> list[tuple[str, str]]:
    """Return what is trained on what, each line with its label."""
    workers = (
        f", {event.workers} workers"
        if event.workers > 1
        else f", {event.ranks} ranks"
        if event.ranks > 1
        else ""
    )
    after = f", from step {event.first_step:,} on" if event.first_step else ""
    network = f"{shape(event.cell, event.layers, event.hidden)}, {counted(event.params, 'parameter')}{workers}{after}"
    lines = [
        (
            "text",
            f"{counted(event.corpus_characters, 'character')}, {event.vocabulary_size:,} distinct",
        ),
        ("network", network),
    ]
    if event.floor_nats is not None:
        lines.append(
            ("n-gram floor", f"{floor(event.floor_nats, event.floor_order)}: the loss to get below")
        )
    return lines


def excerpt(text: str, columns: int) -> str:
    """Return the first lines of a sample, indented, each cut to the terminal's width."""
    from rich.cells import set_cell_size

    lines = [visible(line.replace("\t", "    ")) for line in text.split("\n") if line.strip()][
        :SAMPLE_LINES
    ]
    return "\n".join("  " + set_cell_size(line, columns - 2).rstrip() for line in lines)
