"""Setting up a run, new or resumed: texts into batches, a resolved configuration, weights."""

from __future__ import annotations

import codecs
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import cores, free_memory
from charrnn.checkpoint.model import Model, load, load_resume
from charrnn.config import LENGTHS, OPTIONS, Stream, TrainConfig, flag
from charrnn.errors import CharRNNError, CheckpointError, CorpusError, UsageError
from charrnn.network.network import zero_state
from charrnn.network.parameters import Parameters, initialize
from charrnn.text.batches import Batches, ItemBatches, Items, Streams, read_items
from charrnn.text.corpus import Corpus, Part, default_corpus, read_corpus
from charrnn.text.ngram import Floor, floor
from charrnn.training.defaults import (
    VALIDATION_CHUNK,
    VALIDATION_STREAMS,
    Facts,
    auto_workers,
    memory_bytes,
    resolve,
)
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.progress import Progress
from charrnn.training.schedule import decay_start

Array = NDArray[Any]
Sources = tuple[str | Path, ...]
Parts = tuple[Part, Part] | tuple[Items, Items]  # training, validation
RELIABLE = 500  # characters to predict below which a validation loss says little
FLOOR_LIMIT = 20_000_000  # characters of text beyond which no n-grams are counted
DEFAULT_CONFIG = TrainConfig()


@dataclass(frozen=True)
class Run:
    """All that a run is made of. Only `progress`, the arrays and `best`'s contents change."""

    config: TrainConfig  # resolved
    sources: Sources
    read_at: float  # when the sources were read, as time.time() counts
    corpus: Corpus
    training: Batches
    validation: Batches | None
    floor_nats: float | None  # what n-grams reach on the validation part, if they were counted
    floor_order: int | None
    ranks: int  # of MPI, each with one worker; 1: a run without MPI
    progress: Progress
    best: Parameters  # what the checkpoint's named arrays hold
    start: Mapping[str, Array]  # theta, average, moments, state: rank 0's replica takes them over
    notes: tuple[str, ...]

    @property
    def N(self) -> int:
        """The size of the vocabulary."""
        return len(self.corpus.vocabulary)

    @property
    def workers(self) -> int:
        """The processes that share each batch, no more than there are streams."""
        return min(int(self.config.workers), self.training.batch_size)

    def packed(self) -> Array:
        """Return as bytes of JSON what resuming reads of a run beside its arrays."""
        kept = {
            "config": self.config.as_dict(),
            "sources": [str(Path(s).absolute()) if s != "-" else s for s in self.sources],
            "progress": self.progress.as_dict(),
        }
        return np.frombuffer(json.dumps(kept).encode(), np.uint8)


def prepare(
    sources: Sequence[str | Path],
    config: TrainConfig,
    *,
    default_workers: int | Literal["auto"] = 1,
    ranks: int = 1,
) -> Run:
    """Return a run ready to start, or to go on. Raises CharRNNError for what doesn't fit."""
    if config.resume:
        return _resumed(tuple(sources), config, ranks)
    return _new(tuple(sources), config, default_workers, ranks)


def _new(
    sources: Sources, config: TrainConfig, default_workers: int | Literal["auto"], ranks: int
) -> Run:
    if config.batch_size is not None:
        _check_ranks(ranks, config.batch_size)  # before a large text is read
    origin = None if config.init_from is None else load(config.init_from)
    if origin is not None:
        config = _shape_of(origin, config)
    sources, read_at = sources or (default_corpus(),), time.time()
    base = None if origin is None else origin.vocabulary
    corpus = read_corpus(sources, encoding=config.encoding or "utf-8", base=base)
    parts = parts_of(corpus, config)
    asked, validation = config, validation_batches(corpus, parts[1])
    facts = Facts(
        characters=_size(parts[0]),
        validation=validation.predictions if validation else 0,
        N=len(corpus.vocabulary),
        processors=cores() if ranks == 1 else ranks,
        ranks=ranks,
        item=parts[0].transitions / len(parts[0]) if isinstance(parts[0], Items) else None,
        default_workers=default_workers,
    )
    config = resolve(asked, facts)
    training = training_batches(corpus, parts[0], config)
    _check_ranks(ranks, training.batch_size)
    if config.epochs is not None:
        config = replace(config, steps=_steps_of(config.epochs, training), epochs=None)
    best = _initial(corpus, parts[0], config, origin)
    counted = _floor(parts, corpus)
    start = {
        "theta": best.flat.copy(),
        "average": best.flat.copy(),
        "state": zero_state(config.model, training.batch_size, config.dtype),
    }
    return Run(
        config=config,
        sources=sources,
        read_at=read_at,
        corpus=corpus,
        training=training,
        validation=validation,
        floor_nats=counted.nats if counted else None,
        floor_order=counted.order if counted else None,
        ranks=ranks,
        progress=Progress(steps=config.steps, ranks=ranks),
        best=best,
        start=start,
        notes=(
            *corpus.notes,
            *_notes(asked, config, training, validation),
            *_memory_note(config, training, len(corpus.vocabulary), ranks),
        ),
    )


def _resumed(sources: Sources, asked: TrainConfig, ranks: int) -> Run:
    out = asked.out
    assert out is not None  # TrainConfig sees to that
    model, arrays = load_resume(out)
    config, progress, came_from = _kept(model, arrays, out)
    _check_asked(asked, config)
    _check_ranks(ranks, config.batch_size)
    sources, read_at = sources or _still_there(came_from, out), time.time()
    corpus = read_corpus(sources, encoding=config.encoding, base=model.vocabulary)
    _check_text(corpus, model, out)
    parts = parts_of(corpus, config)
    training = training_batches(corpus, parts[0], config)
    _check_ranks(ranks, training.batch_size)
    _check_arrays(arrays, model, config, training, out)
    notes = [*corpus.notes, *_extend(asked, config, progress, training)]
    if not progress.finished:
        config = _changed(asked, config, progress, ranks)
    best = model.parameters
    if config.dtype != "float32":
        best = Parameters(model.config, len(corpus.vocabulary), flat=arrays["best"])
    notes += _memory_note(config, training, len(corpus.vocabulary), ranks)
    return Run(
        config=replace(config, out=out),
        sources=sources,
        read_at=read_at,
        corpus=corpus,
        training=training,
        validation=validation_batches(corpus, parts[1]),
        floor_nats=model.meta.get("floor_nats"),
        floor_order=model.meta.get("floor_order"),
        ranks=ranks,
        progress=progress,
        best=best,
        start=arrays,
        notes=tuple(notes),
    )


# The text


def parts_of(corpus: Corpus, config: TrainConfig) -> Parts:
    """Return the training and the validation part: of the text, or of its distinct lines."""
    fraction = 0.1 if config.val_fraction is None else config.val_fraction
    parts: Parts
    parts = read_items(corpus).split(fraction) if config.lines else corpus.split(fraction)
    if _size(parts[0]) < 2:
        raise CorpusError(
            f"--val-fraction {fraction:g} leaves nothing to train on of {corpus.characters} "
            "characters; give a smaller one"
        )
    return parts


def _size(part: Part | Items) -> int:
    """Return the characters of a part, of items each with its newline."""
    return part.transitions if isinstance(part, Items) else len(part)


def training_batches(corpus: Corpus, part: Part | Items, config: TrainConfig) -> Batches:
    if isinstance(part, Items):
        newline = corpus.vocabulary.index("\n")
        return ItemBatches(part, config.batch_size, newline, config.seed)
    return Streams(part, config.batch_size, config.seq_len)


def validation_batches(corpus: Corpus, part: Part | Items) -> Batches | None:
    """Return the validation part as 64 streams, None if it predicts nothing."""
    if isinstance(part, Items):
        newline = corpus.vocabulary.index("\n")
        return ItemBatches(part, VALIDATION_STREAMS, newline) if len(part) else None
    return Streams(part, VALIDATION_STREAMS, VALIDATION_CHUNK) if len(part) >= 2 else None


def _symbols(part: Part | Items, corpus: Corpus) -> Array:
    """Return a whole part, of items each with its newline."""
    if isinstance(part, Items):
        return part.joined(corpus.vocabulary.index("\n"))
    return part.read(0, len(part))


def _floor(parts: Parts, corpus: Corpus) -> Floor | None:
    """Return what n-grams reach on the validation part; None for none and for very long texts."""
    training, validation = parts
    if _size(training) + _size(validation) > FLOOR_LIMIT or not len(validation):
        return None
    train, val = _symbols(training, corpus), _symbols(validation, corpus)
    N = len(corpus.vocabulary)
    if isinstance(training, Items):
        newline = corpus.vocabulary.index("\n")
        return floor(np.insert(train, 0, newline), val, N, boundary=newline)
    return floor(train, val, N)


def _frequencies(part: Part | Items, N: int, corpus: Corpus) -> Array:
    """Return how often each character is to be predicted in the training part (N,)."""
    if isinstance(part, Items):
        return np.bincount(_symbols(part, corpus), minlength=N)
    counts, block = np.zeros(N), 1 << 22
    for start in range(0, len(part), block):
        counts += np.bincount(part.read(start, min(start + block, len(part))), minlength=N)
    return counts


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
    for name in ("cell", "hidden", "layers"):
        asked, has = getattr(config, name), getattr(origin.config, name)
        if asked not in (None, has):
            raise CheckpointError(
                f"{config.init_from}: {flag(name)} {asked} was asked for, but this checkpoint has "
                f"{has}; leave it out"
            )
    shape = origin.config
    return replace(config, cell=shape.cell, hidden=shape.hidden, layers=shape.layers)


def _initial(
    corpus: Corpus, part: Part | Items, config: TrainConfig, origin: Model | None
) -> Parameters:
    """Return fresh weights, or another checkpoint's with rows and columns for new characters."""
    N = len(corpus.vocabulary)
    rng = np.random.default_rng([config.seed, Stream.WEIGHTS])
    frequencies = _frequencies(part, N, corpus)
    parameters = initialize(config.model, N, rng, frequencies, config.dtype)
    for name, array in origin.parameters.items() if origin is not None else ():
        known = tuple(slice(size) for size in array.shape)  # the first ones, as indices are kept
        parameters[name][known] = array
    return parameters


def _notes(
    asked: TrainConfig, config: TrainConfig, training: Batches, validation: Batches | None
) -> list[str]:
    """Return what is worth saying about the text and what was chosen for it."""
    B, T, notes = training.batch_size, training.seq_len, []
    if B < config.batch_size or (T < config.seq_len and not config.lines):
        streams = f"{B} stream{'s' * (B != 1)} of up to {T} characters a step"
        usual = f"{config.batch_size} of {config.seq_len}"
        notes.append(f"the text is short: {streams} instead of {usual}")
    if validation is None and config.val_fraction:
        notes.append("the validation part is too short to predict anything: no validation")
    elif validation is not None and validation.predictions < RELIABLE:
        count = validation.predictions
        notes.append(
            f"the validation part has {count} characters to predict: its loss is a rough guide"
        )
    names = ("hidden", "batch_size", *(() if config.lines else ("seq_len",)), "dropout", "lr")
    chosen = [name for name in names if getattr(asked, name) is None]
    if config.budget is not None and chosen:
        options = " ".join(f"{flag(name)} {getattr(config, name):g}" for name in chosen)
        notes.append(f"chosen for {config.budget:.10g} s on this machine and this text: {options}")
    return notes


def _memory_note(config: TrainConfig, training: Batches, N: int, ranks: int) -> list[str]:
    """Return what to say where training takes more memory than is free; ranks may be elsewhere."""
    used = replace(config, batch_size=training.batch_size, seq_len=training.seq_len)
    needed, free = memory_bytes(used, N, int(config.workers)), free_memory()
    if ranks > 1 or free is None or needed <= free:
        return []
    return [
        f"training takes about {needed / 1e6:,.0f} MB of memory and {free / 1e6:,.0f} MB are free; "
        "a smaller --hidden, --batch-size, --seq-len or --workers takes less"
    ]


# A resumed run


def _unfit(out: str | Path, why: str) -> CheckpointError:
    return CheckpointError(f"{out}: {why}; use --init-from {out} with another --out")


def _kept(
    model: Model, arrays: dict[str, Array], out: str | Path
) -> tuple[TrainConfig, Progress, list[str]]:
    """Return the configuration, progress and sources that the checkpoint has of its run."""
    if "record" in arrays:
        raise _unfit(out, f"charrnn {model.meta['version']} made this run; it can't be resumed now")
    if "run" not in arrays:
        raise _unfit(out, "this checkpoint has nothing to resume from")
    try:
        kept = json.loads(arrays.pop("run").tobytes())
        seconds, speeds = float(model.meta["seconds"]), list(map(float, model.meta["speeds"]))
        config = TrainConfig.from_dict(kept["config"])
        progress = Progress(**kept["progress"], seconds=seconds, speeds=speeds)
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
                f"charrnn train PATH --resume --out {out}"
            )
    return tuple(came_from)


def _check_text(corpus: Corpus, model: Model, out: str | Path) -> None:
    """Raise CheckpointError unless the corpus is the one of the run."""
    try:
        then = model.meta["corpus"]
        digest, before, names = then["digest"], int(then["characters"]), list(then["names"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(out) from None
    if corpus.digest == digest:
        return
    now = corpus.characters
    difference = f"{now:,} characters now, {before:,} then"
    if now == before:
        difference = f"{now:,} characters as then, but other ones"
    if len(corpus.lengths) != len(names):
        texts = f"{len(corpus.lengths)} texts now, {len(names)} then"
        difference += f"; {texts}: {', '.join(names)}, and a folder is one text"
    raise CheckpointError(
        f"{out}: the corpus is not the one of this run ({difference}); "
        "resume with the same text, or use --init-from for another"
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
    moments = OPTIMIZER_CLASSES[config.optimizer](np.zeros(0)).moments
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
