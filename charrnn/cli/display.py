"""What a person sees of a training run: its plan and, on stderr, its progress and summary."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from rich.console import Group
from rich.text import Text
from tqdm.std import EMA, tqdm

from charrnn.cli.facts import beginning, curve, duration, facts
from charrnn.cli.terminal import console, is_plain, labelled, print_json, say, visible
from charrnn.config import TrainConfig, flag
from charrnn.training.defaults import characters_per_second, measured_flops
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
from charrnn.training.setup import prepare

SMOOTHING = 0.03  # weight of the last step in the loss and the speed that are shown
PLAIN_LINES = 20  # about how many progress lines are printed without a terminal
CTRL_C = 3  # columns left free for the ^C that a terminal shows
FIRST_SAMPLE = 0.02  # progress at the second sample shown; it doubles from each to the next
SAMPLE_LINES = 4
SUMMARY = ("validation", "n-gram floor", "uniform", "training", "time")  # the facts at the end
ENDED = {
    "early": "early: validation had stopped improving",
    "interrupted": "interrupted and saved",
}


def show_plan(sources: Sequence[str], config: TrainConfig, *, ranks: int, json: bool) -> None:
    """Print what a run would do on stdout. Raises what the run would raise before its first step.

    With a budget, the number of steps is an estimate.
    """
    run = prepare(sources, replace(config, ranks=ranks, overwrite=not config.resume))
    for note in run.notes:
        say(note)
    c, progress, training, start = run.config, run.progress, run.training, run.start_event()
    speed = characters_per_second(
        c.model, len(run.vocabulary), run.workers * ranks, measured_flops()
    )
    speed *= training.steps_per_epoch / training.predictions  # steps a second
    left = max(1, round(speed * ((c.budget or 0.0) - progress.seconds)))
    steps = progress.steps or progress.step + left
    plan: dict[str, Any] = {
        "steps": steps,
        "seconds": max(0, steps - progress.step) / speed,
        "memory_bytes": run.memory,
        "settings": c.as_dict(),
        "out": str(c.out),
    }
    if json:
        print_json(vars(start) | plan)
        return
    rows = {
        "steps": f"{'' if progress.steps else 'about '}{steps:,} "
        f"({training.steps_per_epoch:,} an epoch)",
        "time": f"about {duration(plan['seconds'])}",
        "memory": f"about {run.memory / 1e6:,.0f} MB",
        "checkpoint": plan["out"],
        **{f"{flag(name)} ": str(v) for name, v in plan["settings"].items() if v is not None},
    }
    screen = console()
    screen.print(labelled(beginning(start) | rows, screen), soft_wrap=True)


def display(*, json: bool, samples: bool) -> Callable[[Event], None]:
    """Return the display for stderr.

    json: the events go to stdout, so stderr gets only notices, unless a live line can be drawn
    there without disturbing them. samples: show every sample, since --sample-every was given.
    """
    plain = is_plain(sys.stderr)
    if json and (plain or sys.stdout.isatty()):
        return lambda event: say(event.text) if isinstance(event, Notice) else None
    return Plain(samples) if plain else Live(samples)


class Plain:
    """Prints lines without overwriting any: the start, the progress, and the summary."""

    def __init__(self, samples: bool = False) -> None:
        self.samples = samples
        self.loss, self.speed = EMA(SMOOTHING), EMA(SMOOTHING)
        self.val_loss: float | None = None
        self.told = 0  # progress lines that were due so far

    def __call__(self, event: Event) -> None:
        if handler := getattr(self, event.name, None):
            handler(event)

    def notice(self, event: Notice) -> None:
        """Print a notice."""
        self.above(Text(visible(event.text), style="yellow"))

    def above(self, text: Text) -> None:
        """Print a text, above the live line if there is one."""
        console(stderr=True).print(Group(text), soft_wrap=True)  # without Group, it isn't cropped

    def start(self, event: Start) -> None:
        """Print the facts about the text and the network."""
        self.above(labelled(beginning(event), console(stderr=True)))

    def step(self, event: Step) -> None:
        """Show the progress."""
        self.loss(event.loss)
        self.speed(event.chars_per_second)
        self.tell(event)

    def tell(self, step: Step) -> None:
        """Print a line if the next one is due."""
        if step.progress * PLAIN_LINES >= self.told:
            self.told = int(step.progress * PLAIN_LINES) + 1
            say(f"{step.progress:4.0%}  {self.line(step)}")

    def line(self, step: Step) -> str:
        """Return the figures on one line, the most important first."""
        val = self.val_loss
        bits = "" if val is None else f"  val {val:.3f} = {val / math.log(2):.2f} bits"
        speed = f"{duration(step.seconds_left)} left  {self.speed() / 1000:.3g}k/s"
        return f"loss {self.loss():.3f}{bits}  {speed}  step {step.step:,}"

    def validated(self, event: Validated) -> None:
        """Keep the loss for the next line."""
        self.val_loss = event.val_loss

    def sampled(self, event: Sampled) -> None:
        """Print the sample if all are wanted."""
        if self.samples:
            self.above(excerpt(event))

    def done(self, event: Done) -> None:
        """Print the summary."""
        self.above(labelled(summary(event), console(stderr=True)))


class Live(Plain):
    """Redraws one line, with notices and samples above; at the end it prints a learning curve."""

    def __init__(self, samples: bool = False) -> None:
        super().__init__(samples)
        tqdm.monitor_interval = 0  # no monitor thread: the line is drawn between steps
        tqdm.set_lock(threading.RLock())  # the default one opens semaphores for processes
        self.next_sample = 0.0  # the progress at which the next one is shown
        self.bar: Any = tqdm(
            total=1.0,
            desc="starting",
            bar_format="{desc}",
            file=sys.stderr,
            leave=False,
            miniters=0,  # otherwise a slow step would be drawn seconds late
            disable=False,  # even if TQDM_DISABLE is set
        )

    def tell(self, step: Step) -> None:
        """Redraw the line unless it was drawn just now."""
        self.bar.ncols = max(1, console(stderr=True).width - CTRL_C)
        self.bar.bar_format = "{percentage:3.0f}%|{bar}| {desc}"
        self.bar.set_description_str(self.line(step), refresh=False)
        self.bar.update(step.progress - self.bar.n)

    def validating(self, event: Validating) -> None:
        """Say why the next step takes so long."""
        self.bar.set_description_str("validating")

    def sampled(self, event: Sampled) -> None:
        """Print the sample if all are wanted; otherwise only some, more often early on."""
        if self.samples or self.bar.n >= self.next_sample:
            self.next_sample = max(FIRST_SAMPLE, 2 * self.bar.n)
            self.above(excerpt(event))

    def done(self, event: Done) -> None:
        """Clear the line, and print the learning curve and the summary."""
        self.close()
        if drawing := curve(event.model, 12, console(stderr=True)):
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
                with suppress(OSError):  # the terminal is gone
                    sys.stderr.write("\r\x1b[K")


def excerpt(event: Sampled) -> Text:
    """Return the first lines of a sample, indented; each will be cut to the terminal's width."""
    lines = [f"  {visible(line)}" for line in event.text.expandtabs(4).split("\n") if line.strip()]
    return Text.assemble(
        (f"step {event.step:,}\n", "dim"),
        "\n".join(lines[:SAMPLE_LINES]),
        no_wrap=True,
        overflow="crop",
    )


def summary(done: Done) -> dict[str, str]:
    """Return by label how a run ended, and commands to use the model or continue the run."""
    known, out = facts(done.model), str(done.checkpoint)
    rows = {
        "ended": ENDED.get(done.stopped, ""),
        **{label: known[label] for label in SUMMARY},
        "checkpoint": out,
    }
    if done.stopped == "diverged":
        return rows
    longer = ["mpiexec", "-n", str(done.ranks)] if done.ranks > 1 else []
    longer += ["charrnn", "train", "--resume", "--out", out]
    if done.stopped != "interrupted":
        budget = done.model.training.get("budget")
        longer += (
            ["--budget", f"{2 * budget:.10g}s"] if budget else ["--steps", str(2 * done.steps)]
        )
    return rows | {
        "sample": joined(["charrnn", "sample", out, "--temp", "0.7"]),
        "continue": joined(longer),
        "repeat": done.command if done.repeatable else "",
    }
