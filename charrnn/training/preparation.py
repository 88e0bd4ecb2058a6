"""What a run starts from: the corpus cut into batches, the settings chosen, fresh weights or those of an earlier run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import cores
from charrnn.checkpoint.model import Model, load
from charrnn.config import TrainConfig
from charrnn.errors import CheckpointError, CorpusError, UsageError
from charrnn.network.network import zero_state
from charrnn.network.parameters import Parameters, initialize
from charrnn.text.batches import Batches, ItemBatches, Items, Streams, read_items
from charrnn.text.corpus import Corpus, Part, default_corpus, read_corpus
from charrnn.text.ngram import Floor, floor
from charrnn.training.defaults import Settings, choose
from charrnn.training.evaluation import CHUNK, VALIDATION_STREAMS

Array = NDArray[Any]
MOST_POINTS = 1000  # of the learning curve
RELIABLE = 500  # characters to predict below which a validation loss says little
FLOOR_LIMIT = 20_000_000  # characters of text beyond which no n-grams are counted


@dataclass
class Record:
    """How far a run has come; kept in the checkpoint."""

    step: int = 0  # optimizer steps done
    steps: int | None = None  # their total, None while a budget in time isn't yet turned into one
    seconds: float = 0.0  # wall time of the parts before this one
    early: bool = False  # the total was fixed before the time was up, for want of progress
    extended: bool = False  # the rate left the schedule of its total, for a longer run or lost time: no single command repeats it
    changed: bool = False  # other workers, ranks or validations than at its start, which no single command repeats either
    ranks: int = 1  # of MPI, in the last part
    train_loss: float | None = None  # mean of the training losses between the last two validations
    recent_sum: float = 0.0  # training losses since the last validation
    recent_count: int = 0
    best: float | None = None  # lowest validation loss
    best_step: int | None = None
    without_best: int = 0  # validations since then
    curve: list[tuple[int, float | None, float | None]] = field(
        default_factory=list
    )  # step, training, validation loss
    speeds: list[float] = field(
        default_factory=list
    )  # characters a second, of every stride-th step
    stride: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON keeps it for resuming, which no clock may change; the meta has what comes of one."""
        return {
            name: value for name, value in asdict(self).items() if name not in ("seconds", "speeds")
        }

    def mean_recent(self) -> float | None:
        """Return the mean training loss since the last validation, or between the last two if nothing came since."""
        return self.recent_sum / self.recent_count if self.recent_count else self.train_loss

    def add_point(self, val_loss: float | None) -> None:
        """Add a point to the learning curve; every second one is dropped when there are too many to draw."""
        self.train_loss, self.recent_sum, self.recent_count = self.mean_recent(), 0.0, 0
        self.curve.append((self.step, self.train_loss, val_loss))
        if len(self.curve) > MOST_POINTS:
            del self.curve[1:-1:2]

    def add_speed(self, speed: float) -> None:
        """Add the speed of the last step in characters a second; of a long run every second one is dropped again and again."""
        if self.step % self.stride == 0:
            self.speeds.append(round(speed, 1))
        if len(self.speeds) > MOST_POINTS:
            del self.speeds[::2]
            self.stride *= 2

    def speed(self) -> float | None:
        """Return the median speed of the run's steps in characters a second."""
        return round(median(self.speeds), 1) if self.speeds else None


@dataclass
class Prepared:
    """All that a run is made of."""

    corpus: Corpus
    sources: tuple[str | Path, ...]
    init_from: str | Path | None
    settings: Settings
    training: Batches
    validation: Batches | None
    floor: Floor | None
    workers: int  # as in the settings, but no more than there are streams
    ranks: int  # of MPI, each with one worker; 1: a run without MPI
    arrays: dict[str, Array]  # theta, average, moments, state, until the run has begun
    best: Parameters  # the named arrays
    record: Record
    notes: list[str]


def begin(sources: Sequence[str | Path], config: TrainConfig, ranks: int = 1) -> Prepared:
    """Return a run ready to start. Raises CharRNNError for a text, option or checkpoint that doesn't fit."""
    if config.batch_size is not None:
        check_ranks(
            ranks, config.batch_size
        )  # once before a large text is read, and again when its streams are known
    start = load(config.init_from) if config.init_from is not None else None
    sources = tuple(sources) or (default_corpus(),)
    corpus = read_corpus(
        sources, encoding=config.encoding, base=start.vocabulary if start else None
    )
    if start is not None:
        config = _shape_of(start, config)
    parts = parts_of(corpus, config.lines, config.val_fraction)
    validation = validation_batches(corpus, parts[1])
    settings = choose(
        config,
        characters=_size(parts[0]),
        validation=validation.predictions if validation else 0,
        N=len(corpus.vocabulary),
        processors=cores() if ranks == 1 else ranks,
        ranks=ranks,
        item=parts[0].transitions / len(parts[0]) if isinstance(parts[0], Items) else None,
    )
    training = training_batches(corpus, parts[0], settings)
    check_ranks(ranks, training.batch_size)
    if settings.steps is None and settings.epochs is not None:
        settings = replace(settings, steps=steps_of(settings.epochs, training), epochs=None)
    best = _initial(corpus, parts[0], settings, start)
    arrays = {
        "theta": best.flat.copy(),
        "average": best.flat.copy(),
        "state": zero_state(settings.model, training.batch_size, settings.dtype),
    }
    notes = [*corpus.notes, *_notes(settings, training, validation)]
    if settings.budget is not None:
        notes.append(_chosen(config, settings))
    return Prepared(
        corpus=corpus,
        sources=sources,
        init_from=config.init_from,
        settings=settings,
        training=training,
        validation=validation,
        floor=_floor(parts, corpus),
        workers=min(settings.workers, training.batch_size),
        ranks=ranks,
        arrays=arrays,
        best=best,
        record=Record(steps=settings.steps, ranks=ranks),
        notes=notes,
    )


def check_ranks(ranks: int, columns: int) -> None:
    """Raise UsageError if there are ranks that would get none of a batch's columns and only keep a machine busy."""
    if ranks > columns:
        raise UsageError(
            f"{ranks} ranks share a batch of {columns} streams, and some would get none; use fewer ranks or a larger --batch-size"
        )


def steps_of(epochs: float, training: Batches) -> int:
    """Return the steps of so many passes over the training part, the last one begun whole."""
    return max(1, math.ceil(epochs * training.steps_per_epoch - 1e-9))


def parts_of(
    corpus: Corpus, lines: bool, val_fraction: float
) -> tuple[Part, Part] | tuple[Items, Items]:
    """Return the training and the validation part: of the text, or of its distinct lines."""
    parts: tuple[Part, Part] | tuple[Items, Items] = (
        read_items(corpus).split(val_fraction) if lines else corpus.split(val_fraction)
    )
    if _size(parts[0]) < 2:
        raise CorpusError(
            f"--val-fraction {val_fraction:g} leaves nothing to train on of {corpus.characters} characters; give a smaller one"
        )
    return parts


def _size(part: Part | Items) -> int:
    """Return the characters of a part, of items each with its newline."""
    return part.transitions if isinstance(part, Items) else len(part)


def training_batches(corpus: Corpus, part: Part | Items, settings: Settings) -> Batches:
    if isinstance(part, Items):
        return ItemBatches(part, settings.batch_size, corpus.vocabulary.index("\n"), settings.seed)
    return Streams(part, settings.batch_size, settings.seq_len)


def validation_batches(corpus: Corpus, part: Part | Items) -> Batches | None:
    """Return the validation part as 64 streams, whatever the batch size; None if it predicts nothing."""
    if isinstance(part, Items):
        return (
            ItemBatches(part, VALIDATION_STREAMS, corpus.vocabulary.index("\n"))
            if len(part)
            else None
        )
    return Streams(part, VALIDATION_STREAMS, CHUNK) if len(part) >= 2 else None


def _initial(
    corpus: Corpus, part: Part | Items, settings: Settings, start: Model | None
) -> Parameters:
    """Return the weights to begin with: fresh ones, or another checkpoint's with columns and rows for new characters."""
    N = len(corpus.vocabulary)
    rng = np.random.default_rng([settings.seed, 0])
    parameters = initialize(settings.model, N, rng, _frequencies(part, N, corpus), settings.dtype)
    if start is not None:
        old = len(start.vocabulary)
        for name, array in start.parameters.items():
            if name == "layers.0.V":
                parameters[name][:, :old] = array
            elif name in ("U", "b_y"):
                parameters[name][:old] = array
            else:
                parameters[name][:] = array
    return parameters


def _frequencies(part: Part | Items, N: int, corpus: Corpus) -> Array:
    """Return how often each character is to be predicted in the training part (N,)."""
    if isinstance(part, Items):
        return np.bincount(_symbols(part, corpus), minlength=N)
    counts = np.zeros(N)
    for start in range(0, len(part), 1 << 22):
        counts += np.bincount(part.read(start, min(start + (1 << 22), len(part))), minlength=N)
    return counts


def _floor(parts: tuple[Part, Part] | tuple[Items, Items], corpus: Corpus) -> Floor | None:
    """Return what n-grams reach on the validation part; None for no validation and for very long texts."""
    training, validation = parts
    if _size(training) + _size(validation) > FLOOR_LIMIT or not len(validation):
        return None
    train, val, N = _symbols(training, corpus), _symbols(validation, corpus), len(corpus.vocabulary)
    if isinstance(training, Items):
        newline = corpus.vocabulary.index("\n")
        return floor(np.insert(train, 0, newline), val, N, boundary=newline)
    return floor(train, val, N)


def _symbols(part: Part | Items, corpus: Corpus) -> Array:
    """Return a whole part, of items each with its newline."""
    return (
        part.joined(corpus.vocabulary.index("\n"))
        if isinstance(part, Items)
        else part.read(0, len(part))
    )


def _notes(settings: Settings, training: Batches, validation: Batches | None) -> list[str]:
    """Return what is worth saying about a short text."""
    notes = []
    if training.batch_size < settings.batch_size or (
        training.seq_len < settings.seq_len and not settings.lines
    ):
        streams = f"{training.batch_size} stream{'s' * (training.batch_size != 1)} of up to {training.seq_len} characters a step"
        notes.append(
            f"the text is short: {streams} instead of {settings.batch_size} of {settings.seq_len}"
        )
    if validation is None and settings.val_fraction:
        notes.append("the validation part is too short to predict anything: no validation")
    elif validation is not None and validation.predictions < RELIABLE:
        notes.append(
            f"the validation part has {validation.predictions} characters to predict: its loss is a rough guide, not reliable"
        )
    return notes


def _chosen(config: TrainConfig, settings: Settings) -> str:
    """Return one line on what the budget chose; what was asked for isn't named."""
    offered = ("hidden", "batch_size", *(() if settings.lines else ("seq_len",)), "dropout", "lr")
    names = [name for name in offered if getattr(config, name) is None]
    options = " ".join(f"--{name.replace('_', '-')} {getattr(settings, name):g}" for name in names)
    return (
        f"chosen for {settings.budget:.10g} s on this machine and this text: {options}"
        if options
        else "nothing was left to choose"
    )


def _shape_of(start: Model, config: TrainConfig) -> TrainConfig:
    """Return the options with the shape of the checkpoint to start from. Raises CheckpointError if others were asked for."""
    for name in ("cell", "hidden", "layers"):
        asked, has = getattr(config, name), getattr(start.config, name)
        if asked not in (None, has) and not (
            name == "cell" and asked == "lstm" and name not in config.explicit
        ):
            raise CheckpointError(
                f"{config.init_from}: --{name} {asked} was asked for, but this checkpoint has {has}; leave it out"
            )
    return replace(
        config, cell=start.config.cell, hidden=start.config.hidden, layers=start.config.layers
    )
