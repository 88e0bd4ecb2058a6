"""`charrnn train`: makes a TrainConfig of the options, and passes the run's events to listeners."""

from __future__ import annotations

import platform
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
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
    from charrnn.training.events import Event
    from charrnn.training.mpi import MPIEnd

Listener = Callable[["Event"], None]

NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
CHOSEN = "chosen automatically"
SIGNALS = {  # they end a run; SIGHUP (not on Windows) means that the terminal was closed
    getattr(signal, name, signal.SIGINT) for name in ("SIGINT", "SIGTERM", "SIGHUP")
}


def seconds(text: str) -> float:
    """Return the seconds of a duration such as 90s, 3m, 1.5h, 1h30m or 90. Raises BadParameter."""
    text = text.strip().lower()
    if not re.fullmatch(f"{NUMBER}|({NUMBER}(ms|min|[smhd]))+", text):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 3m, 1.5h or 1h30m")
    return sum(float(n) * UNITS[unit] for n, unit in re.findall(f"({NUMBER})([a-z]*)", text))


def count_or_auto(text: str) -> int | str:
    """Return a number of processes, or the text itself; TrainConfig accepts only "auto"."""
    return int(text) if text.isdecimal() else text


MODEL = partial(of_field, TrainConfig, "Model")
LENGTH = partial(of_field, TrainConfig, "How long (one of them)")
LEARNING = partial(of_field, TrainConfig, "Learning")
TEXT = partial(of_field, TrainConfig, "Text")
FILES = partial(of_field, TrainConfig, "Files")
EVENTS = partial(of_field, TrainConfig, OUTPUT)


@with_options(
    MODEL("--cell", "Recurrent cell; rnn is the one from the lecture."),
    MODEL(
        "--hidden",
        "Units in each layer.",
        "H",
        "chosen for the budget; 256 with --steps or --epochs",
    ),
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
    LEARNING(
        "--batch-size",
        "Streams of text that are read in parallel.",
        "B",
        "chosen for the budget; 64 with --steps or --epochs",
    ),
    LEARNING(
        "--seq-len",
        "Characters to backpropagate through (truncated BPTT).",
        "T",
        "chosen for the budget; 64 with --steps or --epochs",
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
        "Validate on this many characters, spread evenly over the validation text.",
        "N",
        "chosen for the budget; all with --steps or --epochs",
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
    if options["workers"] is None and not options["resume"]:  # a resumed run keeps its number
        options["workers"] = "auto"
    config = TrainConfig(**options)
    sources, (rank, size) = tuple(corpus or ()), app.launched()
    if not (sources or config.resume or quiet or rank):
        say("no text given: training on the tales that ship with charrnn")

    def lead(ranks: MPIEnd | None = None) -> None:
        from charrnn.cli.display import display, show_plan
        from charrnn.cli.log import Log, print_event

        listeners: list[Listener] = [] if log is None else [Log(log, sources, config)]
        if dry_run:
            show_plan(sources, config, ranks=size, json=json)
            return
        listeners += [print_event] if json else []
        listeners += [] if quiet else [display(json=json, samples=bool(config.sample_every))]
        with Session(listeners) as session:
            session.run(sources, config, context.obj, ranks)

    if size == 1 or dry_run:
        if rank == 0:
            lead()
        return
    from charrnn.training.mpi import joined

    where = f"rank {rank} of {size} on {platform.node()}: "
    with joined(rank, size, partial(app.fail, debug=debug, where=where)) as ranks:
        if rank:
            ranks.follow()
        else:
            lead(ranks)


class Session(ExitStack):
    """A run with its listeners, and what may end it early: a signal, or a listener that fails.

    After the first step, the first Ctrl-C lets the current step end and the run be saved, and the
    second ends it at once; before, signals act as usual. If a listener fails (its pipe or disk is
    gone), it gets no further events, and the run is saved as after Ctrl-C.
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

    def interrupted(self) -> bool:
        """Whether the run is to end after this step."""
        return self.signal is not None or self.failure is not None

    def run(
        self, sources: Sequence[str], config: TrainConfig, started: float, ranks: MPIEnd | None
    ) -> None:
        """Train, and pass the events on; ranks: the ones that this process leads.

        Raises typer.Exit after a signal, TrainingError if the run diverged.
        """
        from charrnn.training.events import Done
        from charrnn.training.loop import train as events

        run = events(
            sources,
            config,
            interrupted=self.interrupted,
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
        assert isinstance(event, Done)
        if self.signal is not None and event.stopped == "interrupted":
            raise typer.Exit(128 + self.signal)
        if self.failure is not None:
            raise self.failure
        if event.stopped == "diverged":
            raise TrainingError(
                f"the run diverged after step {event.steps:,}: its loss or gradient became "
                f"infinite or far too large; {event.checkpoint} has the last good weights; "
                "try a smaller --lr, or --clip 1"
            )

    def tell(self, event: Event) -> None:
        """Pass an event to all listeners; after the first step one that fails is dropped."""
        if event.name == "step" and not self.begun:
            self.begun = True
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # by nohup, or a script's &
                    self.enter_context(app.handled_by(self._interrupt, number))
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except OSError as error:
                if not self.begun:
                    raise
                self.listeners.remove(listener)
                self.failure = self.failure or error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
