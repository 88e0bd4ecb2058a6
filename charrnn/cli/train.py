"""`charrnn train`: options to a TrainConfig, events to whoever listens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from charrnn.cli import app
from charrnn.cli.interruption import Interruption
from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    complete_cell,
    complete_checkpoint,
    complete_optimizer,
    option,
)
from charrnn.cli.ranks import in_ranks
from charrnn.cli.terminal import say
from charrnn.config import TrainConfig
from charrnn.errors import TrainingError, UsageError
from charrnn.training.launch import launched

if TYPE_CHECKING:
    from charrnn.training.events import Done, Event
    from charrnn.training.mpi import MPIEnd


class Listener(Protocol):
    """Who hears of the events of a run."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """Put away what is open; the run may have failed."""


UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
SIGPIPE = 13
MODEL, LENGTH, LEARNING, DATA, FILES = (
    "Model",
    "How long (one of them)",
    "Learning",
    "Text",
    "Files",
)


def _chosen(flags: str, panel: str, text: str, metavar: str, default: str = "chosen") -> Any:
    return option(
        flags,
        panel,
        f"{text}  [default: {default}]" if default else text,
        metavar,
        show_default=False,
    )


Corpora = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CORPUS",
        show_default=False,
        help="Each one text: a file, a folder (its text files in path order), - for standard input, .gz, .bz2, .xz.  "
        "[default: the text that ships with charrnn]",
    ),
]
Out = Annotated[
    Path,
    option(
        "-o --out",
        FILES,
        "Checkpoint to write; an existing one is kept unless --resume or --overwrite says so.",
        "PATH",
        autocompletion=complete_checkpoint,
    ),
]
Resume = Annotated[
    bool,
    option(
        "--resume",
        FILES,
        "Go on with the run in --out, bit for bit; a larger --steps, --epochs or --budget extends it.",
    ),
]
Overwrite = Annotated[bool, option("--overwrite", FILES, "Start afresh over --out.")]
InitFrom = Annotated[
    Path | None,
    option(
        "--init-from",
        FILES,
        "Start from the weights of another checkpoint; new characters are added.",
        "PATH",
        autocompletion=complete_checkpoint,
    ),
]
LogPath = Annotated[
    Path | None,
    option(
        "--log", FILES, "Write the events to a file as JSON lines; --resume continues it.", "PATH"
    ),
]
SaveEvery = Annotated[
    str,
    option("--save-every", FILES, "Save at every new best and at least this often.", "30s|5m|1h"),
]
Cell = Annotated[
    str,
    option(
        "--cell",
        MODEL,
        "Recurrent cell; rnn is the lecture's.",
        "rnn|gru|lstm",
        autocompletion=complete_cell,
    ),
]
Hidden = Annotated[
    int | None,
    _chosen("--hidden", MODEL, "Units in each layer.", "H", "256, or chosen for the budget"),
]
Layers = Annotated[int | None, _chosen("--layers", MODEL, "Layers, one above the other.", "L", "1")]
Dropout = Annotated[
    float | None,
    _chosen("--dropout", MODEL, "Probability of dropping a unit or weight; 0: off.", "P"),
]
Budget = Annotated[
    str | None,
    _chosen(
        "--budget",
        LENGTH,
        "Wall time of the whole command, summed over resumes.",
        "90s|3m|1h",
        "3m",
    ),
]
Epochs = Annotated[
    float | None, _chosen("--epochs", LENGTH, "Passes over the training part.", "X", "")
]
Steps = Annotated[int | None, _chosen("--steps", LENGTH, "Optimizer steps.", "N", "")]
BatchSize = Annotated[
    int | None,
    _chosen(
        "--batch-size", LEARNING, "Parallel streams of text.", "B", "64, or chosen for the budget"
    ),
]
SeqLen = Annotated[
    int | None,
    _chosen(
        "--seq-len",
        LEARNING,
        "Characters of truncated backpropagation.",
        "T",
        "64, or chosen for the budget",
    ),
]
Rate = Annotated[
    float | None,
    _chosen("--lr", LEARNING, "Learning rate at its peak.", "X", "chosen for cell and optimizer"),
]
Optimizer = Annotated[
    str,
    option(
        "--optimizer",
        LEARNING,
        "Update rule; sgd has momentum 0.9.",
        "adam|rmsprop|adagrad|sgd",
        autocompletion=complete_optimizer,
    ),
]
Clip = Annotated[
    float, option("--clip", LEARNING, "Largest global norm of the gradient; 0: off.", "X")
]
Seed = Annotated[int, option("--seed", LEARNING, "Everything random comes from it.", "N")]
Workers = Annotated[
    str,
    option(
        "--workers",
        LEARNING,
        "Processes that share each batch; auto: a rule of model, batch and cores.",
        "N|auto",
    ),
]
ValFraction = Annotated[
    float, option("--val-fraction", DATA, "The last part of each text validates; 0: none.", "F")
]
Encoding = Annotated[str, option("--encoding", DATA, "Encoding of the texts.", "NAME")]
Lines = Annotated[
    bool, option("--lines", DATA, "Every line is an item of its own, such as a name.")
]
SampleEvery = Annotated[
    int | None, _chosen("--sample-every", OUTPUT, "Steps between short samples; 0: none.", "N")
]
ValEvery = Annotated[int | None, _chosen("--val-every", OUTPUT, "Steps between validations.", "N")]
Quiet = Annotated[bool, option("-q --quiet", OUTPUT, "Say nothing but errors.")]
DryRun = Annotated[
    bool,
    option(
        "--dry-run",
        OUTPUT,
        "Print what would be done, with sizes, memory and time, and do nothing.",
    ),
]
D = TrainConfig


def train(
    context: typer.Context,
    corpus: Corpora = None,
    cell: Cell = D.__dataclass_fields__["cell"].metadata["default"],
    hidden: Hidden = None,
    layers: Layers = None,
    dropout: Dropout = None,
    budget: Budget = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    seq_len: SeqLen = None,
    lr: Rate = None,
    optimizer: Optimizer = D.__dataclass_fields__["optimizer"].metadata["default"],
    clip: Clip = D.__dataclass_fields__["clip"].metadata["default"],
    seed: Seed = D.__dataclass_fields__["seed"].metadata["default"],
    workers: Workers = "auto",
    val_fraction: ValFraction = D.__dataclass_fields__["val_fraction"].metadata["default"],
    encoding: Encoding = D.__dataclass_fields__["encoding"].metadata["default"],
    lines: Lines = False,
    out: Out = Path("model.npz"),
    resume: Resume = False,
    overwrite: Overwrite = False,
    init_from: InitFrom = None,
    log: LogPath = None,
    save_every: SaveEvery = "60s",
    sample_every: SampleEvery = None,
    val_every: ValEvery = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a network on texts and write it to a checkpoint.

    Ctrl-C ends after the current step and saves; --resume goes on.

    Example: charrnn train corpus.txt --budget 3m -o corpus.npz
    """
    config, sources = configuration(context), tuple(corpus or ())
    rank, size = launched()
    if not (sources or resume or quiet or rank):
        say("no text was given: the tales that ship with charrnn are taken")
    if dry_run:
        from charrnn.cli.plan import show_plan

        if rank == 0:
            show_plan(sources, config, log, json=json, ranks=size)
        return

    def lead(ranks: MPIEnd | None = None) -> None:
        run(sources, config, _listeners(sources, config, log, json=json, quiet=quiet), ranks)

    if size == 1:
        lead()
    else:
        if rank == 0 and not quiet:
            say(f"one run of {size} ranks over MPI")
        in_ranks(rank, size, lead, debug=debug)


def configuration(context: typer.Context) -> TrainConfig:
    """Return the options that were given as a TrainConfig; the others stay its defaults, which --resume may replace."""
    known = TrainConfig.__dataclass_fields__
    given = {
        name: value
        for name, value in context.params.items()
        if name in known and _was_given(context, name)
    }
    for name in {"budget", "save_every"} & given.keys():
        given[name] = seconds(f"--{name.replace('_', '-')}", given[name])
    if "workers" in given:
        given["workers"] = _count(given["workers"])
    return TrainConfig(**given)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _count(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise UsageError(f"--workers is {text!r}; it must be a whole number of at least 1, or auto")
    return int(text)


def seconds(option: str, text: str) -> float:
    """Return a duration such as 90s, 3m, 1.5h, 1h30m or 90 in seconds. Raises UsageError."""
    parts = re.findall(r"([0-9]+\.?[0-9]*|\.[0-9]+)([a-z]*)", text := text.strip().lower())
    whole = "".join(number + unit for number, unit in parts) == text
    if (
        not parts
        or not whole
        or any(unit not in UNITS for _, unit in parts)
        or (len(parts) > 1 and not all(u for _, u in parts))
    ):
        raise UsageError(
            f"{option} is {text!r}; it must be a duration such as 90s, 3m, 1.5h or 1h30m"
        )
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _listeners(
    sources: Sequence[str], config: TrainConfig, log: Path | None, *, json: bool, quiet: bool
) -> list[Listener]:
    """Return who hears of the events: the log, standard output, the person."""
    from charrnn.cli.display import display
    from charrnn.cli.log import Log, Printed

    listeners: list[Listener] = [Log(log, sources, config)] if log is not None else []
    listeners += [Printed()] if json else []
    return listeners if quiet else [*listeners, display(json=json)]


def run(
    sources: tuple[str, ...],
    config: TrainConfig,
    listeners: list[Listener],
    ranks: MPIEnd | None = None,
) -> None:
    """Train, and tell the listeners; leading `ranks`, if there are any. Raises typer.Exit after a signal, TrainingError if it diverged."""
    from charrnn.training.events import Done, Step
    from charrnn.training.loop import train as events

    with Interruption() as interruption:
        telling = Telling(listeners, interruption)
        done: Done | None = None
        try:
            asking = events(
                sources,
                config,
                interrupted=lambda: bool(interruption),
                started=app.started,
                default_workers="auto",
                ranks=ranks,
            )
            with closing(asking):
                for event in asking:
                    if isinstance(event, Step):
                        interruption.listen()
                    telling(event)
                    done = event if isinstance(event, Done) else done
        except KeyboardInterrupt:
            if not interruption.listening:
                say("interrupted before the first step: nothing was written")
            raise
        finally:
            telling.close()
    if telling.failure is not None:
        raise telling.failure
    assert done is not None
    _end(done, interruption)


class Telling:
    """Tells listeners; one that fails (its pipe or disk is gone) hears no more and lets the run end and be saved."""

    def __init__(self, listeners: Iterable[Listener], interruption: Interruption) -> None:
        self.listeners, self.interruption = list(listeners), interruption
        self.failure: OSError | None = None

    def __call__(self, event: Event) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except OSError as error:
                if not self.interruption.listening:
                    raise
                self.listeners.remove(listener)
                self.failure = self.failure or error
                self.interruption.number = self.interruption.number or SIGPIPE

    def close(self) -> None:
        """Let the listeners put away what they have open."""
        for listener in self.listeners:
            listener.close()


def _end(done: Done, interruption: Interruption) -> None:
    if done.stopped == "diverged":
        kept = (
            f"{done.checkpoint} has the best weights so far"
            if done.val_loss is not None
            else f"{done.checkpoint} has the last good weights"
        )
        raise TrainingError(
            f"the run diverged after step {done.steps:,}: its loss or gradient was no longer finite, or beyond hope; "
            f"{kept}; try a smaller --lr{', or --clip 1' if done.model.meta['training']['clip'] != 1 else ''}"
        )
    if done.stopped == "interrupted":
        raise typer.Exit(128 + (interruption.number or 0))
