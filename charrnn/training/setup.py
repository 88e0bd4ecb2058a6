"""Setting up a run, new or resumed: texts into batches, a resolved configuration, weights."""

from __future__ import annotations

import codecs
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import cores, free_memory
from charrnn.checkpoint.model import Model, load, load_resume
from charrnn.config import LENGTHS, OPTIONS, Stream, TrainConfig, flag
from charrnn.errors import CharRNNError, CheckpointError, CorpusError, UsageError
from charrnn.network.network import zero_state
from charrnn.network.parameters import Parameters, initialize, parameter_count
from charrnn.text.batches import Batches, ItemBatches, Items, Streams, read_items
from charrnn.text.corpus import Corpus, Part, default_corpus, read_corpus
from charrnn.text.ngram import floor
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.defaults import (
    VALIDATION_CHUNK,
    VALIDATION_STREAMS,
    Facts,
    auto_workers,
    memory_bytes,
    resolve,
    with_defaults,
)
from charrnn.training.events import Start
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.progress import Progress
from charrnn.training.reproduce import joined
from charrnn.training.schedule import decay_start

Array = NDArray[Any]
Sources = tuple[str | Path, ...]
Workers = int | Literal["auto"]
RELIABLE = 500  # characters to predict below which a validation loss says little
SCANTY = 8  # mean characters of a text's validation part below which it says nothing
CHOSEN = ("hidden", "batch_size", "seq_len", "dropout", "lr", "val_characters")  # worth saying


@dataclass(frozen=True)
class Run:
    """All that a run is made of. Only `progress` and the contents of arrays change."""

    config: TrainConfig  # resolved
    text: Text
    training: Batches
    validation: Batches | None
    floor_nats: float | None  # what n-grams reach on the validation part, if they were counted
    floor_order: int | None
    ranks: int  # of MPI, each with one worker; 1: a run without MPI
    progress: Progress
    initial: Callable[[], Parameters]  # a wide network's orthogonal W takes minutes
    resumed: Mapping[str, Array] | None  # theta, average, moments, state; None: a new run
    notes: tuple[str, ...]

    @cached_property
    def best(self) -> Parameters:
        """What the checkpoint's named arrays hold."""
        return self.initial()

    @cached_property
    def start(self) -> Mapping[str, Array]:
        """theta, average, moments and state, which rank 0's replica takes over."""
        if self.resumed is not None:
            return self.resumed
        state = zero_state(self.config.model, self.training.batch_size, self.config.dtype)
        return {"theta": self.best.flat.copy(), "average": self.best.flat.copy(), "state": state}

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters of the text, and those of the checkpoint that it started from."""
        return self.text.corpus.vocabulary

    @property
    def workers(self) -> int:
        """The processes that share each batch, no more than there are streams."""
        return min(int(self.config.workers), self.training.batch_size)

    def start_event(self) -> Start:
        """Return the event that says what begins, or goes on."""
        return Start(
            corpus_characters=self.text.corpus.characters,
            vocabulary_size=len(self.vocabulary),
            params=parameter_count(self.config.model, len(self.vocabulary)),
            cell=self.config.cell,
            hidden=self.config.hidden,
            layers=self.config.layers,
            batch_size=self.training.batch_size,
            seq_len=self.training.seq_len,
            workers=self.workers,
            ranks=self.ranks,
            seed=self.config.seed,
            floor_nats=self.floor_nats,
            floor_order=self.floor_order,
            first_step=self.progress.step,
        )

    def packed(self) -> Array:
        """Return as bytes of JSON what resuming reads of a run beside its arrays."""
        sources = [str(Path(s).absolute()) if s != "-" else s for s in self.text.sources]
        kept = {
            "config": self.config.as_dict(),
            "sources": sources,
            "progress": self.progress.as_dict(),
        }
        return np.frombuffer(json.dumps(kept).encode(), np.uint8)


class Text:
    """A corpus and its training and validation parts: of its text, or of its distinct lines."""

    def __init__(self, sources: Sources, config: TrainConfig, base: Model | None) -> None:
        self.sources, self.read_at = sources, time.time()
        self.corpus = read_corpus(
            sources,
            encoding=config.encoding,
            base=base.vocabulary if base else None,
            lines=bool(config.lines),
        )
        fraction = with_defaults(config).val_fraction
        cut = read_items(self.corpus) if config.lines else self.corpus
        self.notes = cut.notes
        self.parts: tuple[Part, Part] | tuple[Items, Items] = cut.split(fraction)
        if self.parts[0].characters < 2:
            raise CorpusError(
                f"--val-fraction {fraction:g} leaves nothing to train on of "
                f"{self.corpus.characters} characters; give a smaller one"
            )

    def training(self, config: TrainConfig) -> Batches:
        """Return the training part in batches."""
        part = self.parts[0]
        if isinstance(part, Items):
            return ItemBatches(part, config.batch_size, config.seed)
        return Streams(part, config.batch_size, config.seq_len)

    def validation(self, most: int | None = None) -> Batches | None:
        """Return `most` characters of the validation part as 64 streams, None if there are none."""
        part = self.parts[1]
        if isinstance(part, Items):
            return ItemBatches(part.first(most), VALIDATION_STREAMS) if len(part) else None
        if part.characters < 2 or self.scanty:
            return None
        return Streams(part, VALIDATION_STREAMS, VALIDATION_CHUNK, most)

    @property
    def scanty(self) -> bool:
        """Whether there are several texts so short that their last characters say nothing."""
        part = self.parts[1]
        texts = 0 if isinstance(part, Items) else len(part.extents)
        return texts > 1 and part.characters < SCANTY * texts

    def counts(self) -> Array:
        """Return how often each character is to be predicted in the training part (N,)."""
        part, N, block = self.parts[0], len(self.corpus.vocabulary), 1 << 22
        counts = np.zeros(N)
        for at in range(0, part.characters, block):
            counts += np.bincount(part.read(at, min(at + block, part.characters)), minlength=N)
        return counts


def prepare(
    sources: Sequence[str | Path],
    config: TrainConfig,
    *,
    default_workers: Workers = 1,
    ranks: int = 1,
) -> Run:
    """Return a run ready to start, or to go on. Raises CharRNNError for what doesn't fit."""
    if config.resume:
        run = _resumed(tuple(sources), config, ranks)
    else:
        run = _new(tuple(sources), config, default_workers, ranks)
    return replace(run, notes=(*run.text.notes, *run.notes, *_memory_note(run)))


def _new(sources: Sources, asked: TrainConfig, default_workers: Workers, ranks: int) -> Run:
    if asked.batch_size is not None:
        _check_ranks(ranks, asked.batch_size)  # before a large text is read
    origin = None if asked.init_from is None else load(asked.init_from)
    config = asked if origin is None else _shape_of(origin, asked)
    text = Text(sources or (default_corpus(),), config, origin)
    part, validation = text.parts[0], text.validation()
    facts = Facts(
        characters=part.characters,
        validation=validation.predictions if validation else 0,
        N=len(text.corpus.vocabulary),
        processors=cores() if ranks == 1 else ranks,
        ranks=ranks,
        item=part.characters / len(part) if isinstance(part, Items) else None,
        default_workers=default_workers,
    )
    config = resolve(config, facts)
    training, validation = text.training(config), text.validation(config.val_characters)
    _check_ranks(ranks, training.batch_size)
    if config.epochs is not None:
        config = replace(config, steps=_steps_of(config.epochs, training), epochs=None)
    counted = floor(part, text.parts[1], facts.N)
    return Run(
        config,
        text,
        training,
        validation,
        counted.nats if counted else None,
        counted.order if counted else None,
        ranks,
        Progress(steps=config.steps, ranks=ranks),
        partial(_initial, config, text, origin),
        None,
        (*_notes(asked, config, text, training, validation), *(counted.notes if counted else ())),
    )


def _resumed(sources: Sources, asked: TrainConfig, ranks: int) -> Run:
    out = asked.out
    assert out is not None  # TrainConfig sees to that
    model, arrays = load_resume(out)
    config, progress, came_from = _kept(model, arrays, out)
    _check_asked(asked, config)
    _check_ranks(ranks, config.batch_size)
    text = Text(sources or _still_there(came_from, out), config, model)
    _check_text(text.corpus, model, out)
    training = text.training(config)
    _check_ranks(ranks, training.batch_size)
    _check_arrays(arrays, model, config, training, out)
    notes = _extend(asked, config, progress, training)
    if not progress.finished:
        config = _changed(asked, config, progress, ranks)
    best = model.parameters
    if config.dtype != "float32":
        best = Parameters(model.config, best.N, flat=arrays["best"])
    return Run(
        replace(config, out=out),
        text,
        training,
        text.validation(config.val_characters),
        model.floor_nats,
        model.floor_order,
        ranks,
        progress,
        lambda: best,
        arrays,
        tuple(notes),
    )


# A new run


def _check_ranks(ranks: int, columns: int) -> None:
    """Raise UsageError if some ranks would get none of a batch's columns."""
    if ranks > columns:
        raise UsageError(
            f"{ranks} ranks share a batch of {columns} streams, and some would get none; "
            "use fewer ranks or a larger --batch-size"
        )


def _steps_of(epochs: float, training: Batches) -> int:
    """Return the steps of so many passes over the training part, the last one rounded up."""
    return max(1, math.ceil(epochs * training.steps_per_epoch - 1e-9))


def _shape_of(origin: Model, config: TrainConfig) -> TrainConfig:
    """Return the options with the shape of the checkpoint to start from. Raises CheckpointError."""
    shape = asdict(origin.config)
    for name, has in shape.items():
        asked = getattr(config, name)
        if asked not in (None, has):
            raise CheckpointError(
                f"{config.init_from}: {flag(name)} {asked} was asked for, but this checkpoint has "
                f"{has}; leave it out"
            )
    return replace(config, **shape)


def _initial(config: TrainConfig, text: Text, origin: Model | None) -> Parameters:
    """Return fresh weights, or another checkpoint's with rows and columns for new characters."""
    rng = np.random.default_rng([config.seed, Stream.WEIGHTS])
    counts = text.counts()
    parameters = initialize(config.model, len(counts), rng, counts, config.dtype)
    for name, array in origin.parameters.items() if origin is not None else ():
        # new characters have the last rows and columns
        parameters[name][tuple(map(slice, array.shape))] = array
    return parameters


def _notes(
    asked: TrainConfig,
    config: TrainConfig,
    text: Text,
    training: Batches,
    validation: Batches | None,
) -> list[str]:
    """Return what is worth saying about the text and what was chosen for it."""
    B, T, notes = training.batch_size, training.seq_len, []
    if config.batch_size > B or (config.seq_len > T and not config.lines):
        streams = f"{B} stream{'s' * (B != 1)} of up to {T} characters a step"
        notes.append(
            f"the text is short: {streams} instead of {config.batch_size} of {config.seq_len}"
        )
    if text.scanty:
        notes.append(
            "the texts are so short that the last characters of each say nothing: no validation; "
            "give them as a folder, or as a file with --lines"
        )
    elif validation is None and config.val_fraction:
        notes.append("the validation part is too short to predict anything: no validation")
    elif validation is not None and validation.predictions < RELIABLE:
        notes.append(
            f"the validation part has {validation.predictions} characters to predict: "
            "its loss is a rough guide"
        )
    offered = {"seq_len"} if config.lines else set()
    chosen = [name for name in CHOSEN if name not in offered and getattr(asked, name) is None]
    options = [
        f"{flag(n)} {getattr(config, n):g}" for n in chosen if getattr(config, n) is not None
    ]
    if config.budget is not None and options:
        budget = f"{config.budget:.10g} s on this machine and this text"
        notes.append(f"chosen for {budget}: {' '.join(options)}")
    return notes


def _memory_note(run: Run) -> list[str]:
    """Return what to say where training takes more memory than is free; ranks may be elsewhere."""
    B, T = run.training.batch_size, run.training.seq_len
    used = replace(run.config, batch_size=B, seq_len=T)
    needed, free = memory_bytes(used, len(run.vocabulary), run.workers), free_memory()
    if run.ranks > 1 or free is None or needed <= free:
        return []
    return [
        f"training takes about {needed / 1e6:,.0f} MB of memory and {free / 1e6:,.0f} MB are free; "
        "a smaller --hidden, --batch-size, --seq-len or --workers takes less"
    ]


# A resumed run


def _unfit(out: str | Path, why: str) -> CheckpointError:
    return CheckpointError(f"{out}: {why}; use --init-from {joined([str(out)])} with another --out")


def _kept(
    model: Model, arrays: dict[str, Array], out: str | Path
) -> tuple[TrainConfig, Progress, list[str]]:
    """Return the configuration, progress and sources that the checkpoint has of its run."""
    if "record" in arrays:
        raise _unfit(out, f"charrnn {model.version} made this run; it can't be resumed now")
    if "run" not in arrays:
        raise _unfit(out, "this checkpoint has nothing to resume from")
    if model.seconds is None:
        raise _damaged(out)
    try:
        kept = json.loads(arrays.pop("run").tobytes())
        config = TrainConfig.from_dict(kept["config"])
        progress = Progress(**kept["progress"], seconds=model.seconds, speeds=model.speeds)
        return config, progress, kept["sources"]
    except (KeyError, TypeError, ValueError, CharRNNError):
        raise _damaged(out) from None


def _damaged(out: str | Path) -> CheckpointError:
    return _unfit(out, "what resuming needs is damaged or of another charrnn")


def _check_asked(asked: TrainConfig, config: TrainConfig) -> None:
    """Raise CheckpointError if an option was given that would make it another run."""
    for option in OPTIONS:
        name = option.name
        ours, has = getattr(asked, name), getattr(config, name)
        if ours is None or name in LENGTHS or option.metadata.get("changes"):
            continue
        if ours == has or (name == "encoding" and codecs.lookup(ours) == codecs.lookup(has)):
            continue
        difference = f"{flag(name)} {ours} was asked for, but the run has {has}"
        if name == "lines":
            difference = f"{flag(name)} was given, but the run is one of running text"
        raise CheckpointError(f"{asked.out}: {difference}; leave it out to resume")


def _still_there(came_from: list[str], out: str | Path) -> Sources:
    """Return where the run's text came from. Raises CorpusError if it can't be had again."""
    if "-" in came_from and sys.stdin is not None and sys.stdin.isatty():
        raise CorpusError(f"{out}: the text of this run came from standard input; pipe it in again")
    for source in came_from:
        if source != "-" and not Path(source).exists():
            raise CorpusError(
                f"{source}: the text of the run in {out} is no longer here; give its new place: "
                f"charrnn train PATH --resume --out {joined([str(out)])}"
            )
    return tuple(came_from)


def _check_text(corpus: Corpus, model: Model, out: str | Path) -> None:
    """Raise CheckpointError unless the corpus is the one of the run."""
    if corpus.digest == model.corpus_digest:
        return
    if model.corpus_characters is None:
        raise _damaged(out)
    texts, names = len(corpus.lengths), model.corpus_names
    raise CheckpointError(
        f"{out}: the corpus is not the one of this run: {corpus.characters:,} characters in "
        f"{texts} text{'s' * (texts > 1)} now, {model.corpus_characters:,} in {len(names)} then "
        f"({', '.join(names)}); "
        "resume with the same texts (a folder is one), or use --init-from"
    )


def _check_arrays(
    arrays: Mapping[str, Array],
    model: Model,
    config: TrainConfig,
    training: Batches,
    out: str | Path,
) -> None:
    """Raise CheckpointError unless every array that going on needs is there with its shape."""
    n = model.parameters.flat.shape
    state = zero_state(model.config, training.batch_size, config.dtype).shape
    moments = OPTIMIZER_CLASSES[config.optimizer].names
    wanted = {"theta": n, "average": n, "state": state, **dict.fromkeys(moments, n)}
    if config.dtype != "float32":
        wanted["best"] = n
    if config.model != model.config or any(
        name not in arrays or arrays[name].shape != shape for name, shape in wanted.items()
    ):
        raise _damaged(out)


def _extend(
    asked: TrainConfig, config: TrainConfig, progress: Progress, training: Batches
) -> list[str]:
    """Give `progress` a new total, if one was asked for; return what is worth saying."""
    before, step = progress.steps, progress.step
    if asked.steps is not None:
        progress.steps = asked.steps
    elif asked.epochs is not None:
        progress.steps = _steps_of(asked.epochs, training)
    elif asked.budget is not None and asked.budget > (config.budget or 0):
        progress.steps = None
    if progress.steps == before:
        return []
    longer = progress.steps is None or (before is not None and progress.steps > before)
    if longer:
        progress.early, progress.without_best = False, 0
    falling = before is not None and step > decay_start(before)
    beyond = progress.steps is not None and step > decay_start(progress.steps)
    progress.extended |= (falling and longer) or beyond
    rises = falling and longer and not progress.finished
    return ["the learning rate had begun to fall; it rises again for the longer run"] * rises


def _changed(
    asked: TrainConfig, config: TrainConfig, progress: Progress, ranks: int
) -> TrainConfig:
    """Return the configuration with the new length and what may change along the way."""
    names = [option.name for option in OPTIONS if option.metadata.get("changes")]
    changes = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    if changes.get("workers") == "auto":
        changes["workers"] = auto_workers(config.hidden, config.batch_size, cores())
    if ranks > 1:
        changes["workers"] = 1
    if any(getattr(asked, name) is not None for name in LENGTHS):
        steps = progress.steps if asked.budget is None else None
        changes |= {"steps": steps, "budget": asked.budget}
    new = replace(config, **changes)
    one_command = (new.workers, new.val_every, ranks)
    progress.changed |= one_command != (config.workers, config.val_every, progress.ranks)
    progress.ranks = ranks
    return new
