"""`charrnn train`: options to a TrainConfig, and the events of its run to whoever listens."""

from __future__ import annotations

import platform
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import app
from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    complete_checkpoint,
    of_field,
    option,
    switch,
    with_options,
)
from charrnn.cli.terminal import say
from charrnn.config import TrainConfig
from charrnn.errors import TrainingError

if TYPE_CHECKING:
    from charrnn.training.events import Done, Event
    from charrnn.training.mpi import MPIEnd

Listener = Callable[["Event"], None]

UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
CHOSEN, BUDGETED = "chosen automatically", ", or chosen for the budget"
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last where there is one: the terminal was closed


def seconds(text: str) -> float:
    """Return a duration such as 90s, 3m, 1.5h, 1h30m or 90 in seconds. Raises BadParameter."""
    number, text = r"([0-9]+\.?[0-9]*|\.[0-9]+)", text.strip().lower()
    if re.fullmatch(number, text):
        return float(text)
    parts = re.findall(rf"{number}(ms|min|[smhd])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise typer.BadParameter(f"{text!r} is no duration such as 90s, 3m, 1.5h or 1h30m")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def count_or_auto(text: str) -> int | str:
    """Return a number of processes, or a word: TrainConfig knows but "auto"."""
    return int(text) if text.isdecimal() else text


MODEL = partial(of_field, TrainConfig, "Model")
LENGTH = partial(of_field, TrainConfig, "How long (one of them)")
LEARNING = partial(of_field, TrainConfig, "Learning")
TEXT = partial(of_field, TrainConfig, "Text")
FILES = partial(of_field, TrainConfig, "Files")
EVENTS = partial(of_field, TrainConfig, OUTPUT)


@with_options(
    MODEL("--cell", "Recurrent cell; rnn is the one from the lecture."),
    MODEL("--hidden", "Units in each layer.", "H", "256" + BUDGETED),
    MODEL("--layers", "Stacked layers.", "L"),
    MODEL("--dropout", "Dropout probability; 0: off.", "P", CHOSEN),
    LENGTH(
        "--budget",
        "Wall time of the whole command; on --resume, the total of all runs.",
        "90s|3m|1h",
        "3m",
        parser=seconds,
    ),
    LENGTH("--epochs", "Passes over the training text.", "X"),
    LENGTH("--steps", "Optimizer steps.", "N"),
    LEARNING("--batch-size", "Streams of text that are read in parallel.", "B", "64" + BUDGETED),
    LEARNING(
        "--seq-len", "Characters to backpropagate through (truncated BPTT).", "T", "64" + BUDGETED
    ),
    LEARNING("--lr", "Peak learning rate.", "X", "chosen for the cell and optimizer"),
    LEARNING("--optimizer", "Optimizer; sgd has momentum 0.9."),
    LEARNING(
        "--weight-decay",
        "Decoupled weight decay: each step shrinks the weights by --lr times X; 0: off.",
        "X",
        CHOSEN,
    ),
    LEARNING("--clip", "Clip the gradient to this global norm; 0: off.", "X"),
    LEARNING("--seed", "Seed of everything random.", "N"),
    LEARNING(
        "--workers",
        "Processes that share each batch; auto: chosen for the model, batch and cores.",
        "N|auto",
        "auto",
        parser=count_or_auto,
    ),
    TEXT("--val-fraction", "Share of each text, at its end, to validate on; 0: none.", "F"),
    TEXT("--encoding", "Encoding of the texts.", "NAME", "utf-8"),
    TEXT("--lines", "Treat every line as a separate item, such as a name.", ""),
    FILES(
        "-o --out",
        "Checkpoint to write; an existing one is replaced only with --resume or --overwrite.",
        "PATH",
        parser=Path,
        autocompletion=complete_checkpoint,
    ),
    FILES(
        "--resume",
        "Continue the run in --out exactly where it stopped; a larger --steps, --epochs or "
        "--budget extends it.",
        "",
    ),
    FILES("--overwrite", "Replace --out with a new run.", ""),
    FILES(
        "--init-from",
        "Start from another checkpoint's weights; new characters are added to its vocabulary.",
        "PATH",
        parser=Path,
        autocompletion=complete_checkpoint,
    ),
    FILES(
        "--save-every",
        "Save at every new best, and at least this often.",
        "30s|5m|1h",
        "60s",
        parser=seconds,
    ),
    EVENTS("--sample-every", "Steps between short samples; 0: none.", "N", CHOSEN),
    EVENTS("--val-every", "Steps between validations.", "N", CHOSEN),
    EVENTS(
        "--val-characters",
        "Validate on so many characters, spread evenly over the validation text.",
        "N",
        "all, or chosen for the budget",
    ),
)
def train(
    context: typer.Context,
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS",
            help="Text to train on: a file (.gz, .bz2 and .xz too), a folder (its text files, "
            "joined in path order), or - for standard input. Default: the text that ships with "
            "charrnn.",
        ),
    ] = None,
    *,
    log: Annotated[
        Path | None,
        option(
            "--log",
            "Files",
            "Write the events to this file too, as JSON lines; --resume continues it.",
            "PATH",
        ),
    ] = None,
    quiet: Annotated[bool, switch("-q --quiet", OUTPUT, "Print nothing but errors.")] = False,
    dry_run: Annotated[
        bool,
        switch(
            "--dry-run",
            OUTPUT,
            "Print the sizes, memory and time of the run without running it.",
        ),
    ] = False,
    json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> None:
    """Train a network on texts and save it as a checkpoint.

    Ctrl-C stops after the current step and saves; --resume continues.

    Example: charrnn train corpus.txt --budget 3m -o corpus.npz
    """
    if options["workers"] is None and not options["resume"]:  # which has its own number
        options["workers"] = "auto"
    config = TrainConfig(**options)
    sources, (rank, size) = tuple(corpus or ()), app.launched()
    if not (sources or config.resume or quiet or rank):
        say("no text given: training on the tales that ship with charrnn")
    if dry_run:
        from charrnn.cli.dry_run import show

        if rank == 0:
            show(sources, config, log, json=json, ranks=size)
        return

    def lead(ranks: MPIEnd | None = None) -> None:
        from charrnn.cli.display import display
        from charrnn.cli.log import Log, print_event

        listeners: list[Listener] = [] if log is None else [Log(log, sources, config)]
        listeners += [print_event] if json else []
        listeners += [] if quiet else [display(json=json)]
        with Session(listeners) as session:
            session.run(sources, config, context.obj, ranks)

    if size == 1:
        lead()
    else:
        from charrnn.training.mpi import joined

        if rank == 0 and not quiet:
            say(f"one run of {size} ranks over MPI")
        where = f"rank {rank} of {size} on {platform.node()}: "
        with joined(rank, size, partial(app.fail, debug=debug, where=where)) as ranks:
            if rank:
                ranks.follow()
            else:
                lead(ranks)


class Session(ExitStack):
    """A run with its listeners, and with what may end it: a signal, or a listener that fails.

    From the first step on, the first Ctrl-C lets the step end and the run be saved, and the second
    ends at once; until then signals do what they always do. A listener that fails (its pipe or
    disk is gone) hears no more, and the run is saved as after Ctrl-C.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        super().__init__()
        self.listeners = list(listeners)
        for listener in listeners:
            if hasattr(listener, "close"):
                self.callback(listener.close)
        self.begun = False  # whether a step was taken, so that there is something to save
        self.signal: int | None = None  # the signal that came
        self.failure: OSError | None = None  # of the first listener that failed

    @property
    def interrupted(self) -> bool:
        """Whether the run is to end after this step."""
        return self.signal is not None or self.failure is not None

    def run(
        self, sources: Sequence[str], config: TrainConfig, started: float, ranks: MPIEnd | None
    ) -> None:
        """Train, and tell the listeners; ranks: those that this process leads.

        Raises typer.Exit after a signal, TrainingError if the run diverged.
        """
        from charrnn.training.events import Done
        from charrnn.training.loop import train as events

        run = events(
            sources,
            config,
            interrupted=lambda: self.interrupted,
            started=started,
            ranks=ranks,
        )
        try:
            with closing(run):
                for event in run:
                    self.tell(event)
        except KeyboardInterrupt:
            if not self.begun:
                say("interrupted before the first step: nothing was written")
            raise
        if self.failure is not None:
            raise self.failure
        assert isinstance(event, Done)
        _check_diverged(event)
        if event.stopped == "interrupted":
            raise typer.Exit(128 + (self.signal or 0))

    def tell(self, event: Event) -> None:
        """Let all listeners hear of an event; from the first step on without those that fail."""
        if event.name == "step" and not self.begun:
            self.begun = True
            self._catch_signals()
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except OSError as error:
                if not self.begun:
                    raise
                self.listeners.remove(listener)
                self.failure = self.failure or error

    def _catch_signals(self) -> None:
        """Let signals end the run after a step; ignored ones (nohup, a script's &) stay ignored."""
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) != signal.SIG_IGN:
                with suppress(ValueError):  # not the main thread
                    self.callback(signal.signal, number, signal.signal(number, self._interrupt))

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def _check_diverged(done: Done) -> None:
    """Raise TrainingError if the run diverged."""
    if done.stopped == "diverged":
        kept = "last good" if done.val_loss is None else "best"
        clip = "" if done.model.training.get("clip") == 1 else ", or --clip 1"
        raise TrainingError(
            f"the run diverged after step {done.steps:,}: its loss or gradient became infinite or "
            f"far too large; {done.checkpoint} has the {kept} weights so far; "
            f"try a smaller --lr{clip}"
        )
