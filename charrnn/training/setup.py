"""Setting up a run, new or resumed: texts into batches, a resolved configuration, weights."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.arrays import Array
from charrnn.blas import cores, free_memory
from charrnn.checkpoint.atomic_write import check_writable, part_of
from charrnn.checkpoint.model import Model, load, load_resume
from charrnn.config import LENGTHS, OPTIONS, Stream, TrainConfig, flag
from charrnn.errors import CharRNNError, CheckpointError, CorpusError, UsageError
from charrnn.network.network import zero_state
from charrnn.network.parameters import Parameters, initialize, parameter_count
from charrnn.text.batches import Batches, ItemBatches, Items, Streams, read_items
from charrnn.text.corpus import Part, default_corpus, read_corpus
from charrnn.text.ngram import floor
from charrnn.text.sources import Source
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.defaults import (
    VALIDATION_CHUNK,
    VALIDATION_STREAMS,
    chosen_workers,
    memory_bytes,
    resolve,
    with_defaults,
)
from charrnn.training.events import Start
from charrnn.training.progress import Progress
from charrnn.training.replica import twins
from charrnn.training.reproduce import joined

Sources = tuple[str | Path, ...]
RELIABLE = 500  # predictions that make a validation loss reliable
SCANTY = 8  # validate only if the texts' validation parts have this many characters on average
BLOCK = 1 << 22  # characters counted at a time
# reported to the user if they were chosen
CHOSEN = ("hidden", "batch_size", "seq_len", "dropout", "lr", "val_characters")


class Text:
    """A corpus with its training and validation parts: ranges of its text, or distinct lines."""

    def __init__(self, sources: Sources, config: TrainConfig, base: Model | None) -> None:
        self.sources = sources
        self._times = self._changed()
        self.corpus = read_corpus(
            sources,
            encoding=config.encoding,
            base=base.vocabulary if base else None,
            lines=bool(config.lines),
        )
        cut = read_items(self.corpus) if config.lines else self.corpus
        self.notes = cut.notes
        self.parts: tuple[Part, Part] | tuple[Items, Items] = cut.split(
            with_defaults(config).val_fraction
        )
        if self.parts[0].characters < 2:
            raise CorpusError(
                f"too few of the {self.corpus.characters} characters are left to train on; "
                "give a smaller --val-fraction, or more text"
            )
        texts = len(self.corpus.texts)
        # the last characters of very short texts, such as a word each, say nothing
        self.scanty = texts > 1 and not config.lines and self.parts[1].characters < SCANTY * texts

    def _changed(self) -> list[list[int]]:
        """Return when each source's files last changed: [] for standard input and pipes."""
        files = [Source(source).files() for source in self.sources]
        return [[file.stat().st_mtime_ns for file in of_source] for of_source in files]

    def stays(self) -> bool:
        """Whether the sources can be read again and have not changed since they were read."""
        return all(self._times) and self._times == self._changed()

    def counts(self) -> Array:
        """Return how often each character occurs as a target in the training part (N,)."""
        part, counts = self.parts[0], np.zeros(len(self.corpus.vocabulary))
        for at in range(0, part.characters, BLOCK):
            some = part.read(at, min(at + BLOCK, part.characters))
            counts += np.bincount(some, minlength=len(counts))
        return counts


@dataclass(frozen=True)
class Run:
    """Everything in a run. Only `progress`, `notes` and the contents of arrays change."""

    config: TrainConfig  # resolved
    text: Text
    progress: Progress
    origin: Model | None  # has the weights to start from or, of a resumed run, the best so far
    saved: Mapping[str, Array]  # of a resumed run: theta, average, moments, state
    notes: list[str]  # what the user should know before it begins

    @cached_property
    def training(self) -> Batches:
        """The training part in batches."""
        part, config = self.text.parts[0], self.config
        if isinstance(part, Items):
            return ItemBatches(part, config.batch_size, config.seed)
        return Streams(part, config.batch_size, config.seq_len)

    @cached_property
    def validation(self) -> Batches | None:
        """The part of the validation text that is read, as 64 streams; None: no validation."""
        part, most = self.text.parts[1], self.config.val_characters
        if part.characters < 2 or self.text.scanty:
            return None
        if isinstance(part, Items):
            return ItemBatches(part.first(most), VALIDATION_STREAMS)
        return Streams(part, VALIDATION_STREAMS, VALIDATION_CHUNK, most)

    @cached_property
    def best(self) -> Parameters:
        """The best weights so far, made on first use: initializing a wide network takes minutes."""
        if self.saved and self.origin:
            return self.origin.parameters.astype(self.config.dtype)
        rng = np.random.default_rng([self.config.seed, Stream.WEIGHTS])
        counts = self.text.counts()
        parameters = initialize(self.config.model, len(counts), rng, counts, self.config.dtype)
        for name, array in self.origin.parameters.items() if self.origin else ():
            # new characters have the last rows and columns
            parameters[name][tuple(map(slice, array.shape))] = array
        return parameters

    @cached_property
    def start(self) -> Mapping[str, Array]:
        """The arrays that rank 0's replica takes over: theta, average, moments and state."""
        config, flat = self.config, self.best.flat
        state = zero_state(config.model, self.training.batch_size, config.dtype)
        return {"theta": flat.copy(), "average": flat.copy(), "state": state, **self.saved}

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters of the text, and those of the checkpoint that it started from."""
        return self.text.corpus.vocabulary

    @property
    def workers(self) -> int:
        """The number of processes that share each batch, at most one per stream."""
        return min(int(self.config.workers), self.training.batch_size)

    @property
    def memory(self) -> int:
        """Roughly how many bytes of memory all processes take."""
        B, T = self.training.batch_size, self.training.seq_len
        used = replace(self.config, batch_size=B, seq_len=T)
        return memory_bytes(used, len(self.vocabulary), self.workers * self.config.ranks)

    def start_event(self) -> Start:
        """Return the event that describes the run as it starts or resumes."""
        config, progress, N = self.config, self.progress, len(self.vocabulary)
        return Start(
            corpus_characters=self.text.corpus.characters,
            vocabulary_size=N,
            params=parameter_count(config.model, N),
            **asdict(config.model),
            batch_size=self.training.batch_size,
            seq_len=self.training.seq_len,
            workers=self.workers,
            ranks=config.ranks,
            seed=config.seed,
            floor_nats=progress.floor_nats,
            floor_order=progress.floor_order,
            first_step=progress.step,
        )

    def repeatable(self) -> bool:
        """Return whether a command repeats the run.

        None does if an input is gone: standard input, a pipe, a file that has changed since it was
        read, a starting checkpoint that the run has replaced. Nor does one for a float64 run, as no
        option sets the dtype.
        """
        config, progress = self.config, self.progress
        replaced = config.out and config.init_from and part_of(config.out, [config.init_from])
        return (
            progress.repeatable
            and progress.steps is not None
            and self.text.stays()
            and not replaced
            and config.dtype == "float32"
        )

    def sources(self) -> Array:
        """Return the texts' paths as JSON, in bytes. They may be private: meta has only names."""
        sources = [str(Path(s).absolute()) if s != "-" else s for s in self.text.sources]
        return np.frombuffer(json.dumps(sources).encode(), np.uint8)


def prepare(sources: Sequence[str | Path], config: TrainConfig) -> Run:
    """Return a run that is ready to start or to continue. Raises CharRNNError if it can't."""
    if config.out is not None:
        texts = [source for source in sources if not Path(source).is_dir()]
        overwrite = config.overwrite or config.resume
        remedy = "--resume continues its run, --overwrite replaces it with a new run"
        check_writable(config.out, texts, overwrite=overwrite, remedy=remedy)
    if (config.ranks or 1) > 1 and config.workers not in (None, 1, "auto"):
        raise UsageError(
            f"--workers {config.workers} cannot be used with {config.ranks} ranks; "
            "leave it out and launch a rank for each core"
        )
    run = (_resumed if config.resume else _new)(tuple(sources), config)
    ranks, B = run.config.ranks, run.training.batch_size
    if ranks > B:
        raise UsageError(
            f"{ranks} ranks cannot share a batch of {B} streams, since some would get none; "
            "use fewer ranks or a larger --batch-size"
        )
    free = free_memory()
    if ranks == 1 and free is not None and run.memory > free:  # other ranks may be elsewhere
        run.notes.append(
            f"training takes about {run.memory / 1e6:,.0f} MB of memory, but only "
            f"{free / 1e6:,.0f} MB are free; a smaller --hidden, --batch-size, "
            "--seq-len or --workers takes less"
        )
    return run


def _new(sources: Sources, asked: TrainConfig) -> Run:
    """Return a new run, before its first step."""
    origin, shape = None, dict[str, Any]()
    if asked.init_from is not None:
        origin = load(asked.init_from)
        shape = asdict(origin.config)
        _check_same(asked, shape, asked.init_from)
    text = Text(sources or (default_corpus(),), asked, origin)
    part, validation = text.parts
    N = len(text.corpus.vocabulary)
    config = resolve(
        replace(asked, **shape),
        characters=part.characters,
        validation=validation.characters,
        N=N,
        processors=cores(),
        item=part.characters / len(part) if isinstance(part, Items) else None,
    )
    counted = floor(part, validation, N)
    progress = Progress(floor_nats=counted.nats, floor_order=counted.order)
    run = Run(config, text, progress, origin, {}, [*text.notes])
    progress.steps = _total(run)
    run.notes.extend((*_notes(asked, run), *counted.notes))
    return run


def _resumed(sources: Sources, asked: TrainConfig) -> Run:
    """Return the run saved in `out`, with the options that are given now."""
    out = asked.out
    assert out is not None  # TrainConfig ensures this
    model, arrays = load_resume(out)
    kept, progress, came_from = _kept(model, arrays, out)
    fixed = {f.name: getattr(kept, f.name) for f in OPTIONS if not f.metadata.get("changes")}
    _check_same(asked, fixed, out)
    text = _same_text(sources, came_from, kept, model)
    given = {f.name: v for f in OPTIONS if (v := getattr(asked, f.name)) is not None}
    if given.keys() & set(LENGTHS):
        given = dict.fromkeys(LENGTHS) | given
    config = replace(kept, **given)
    config = replace(config, workers=chosen_workers(config, cores()))
    run = Run(config, text, progress, model, arrays, [*text.notes])
    no_longer = config.budget is not None and config.budget <= (kept.budget or 0)
    if progress.set_total(progress.steps if no_longer else _total(run)):
        run.notes.append("the learning rate had begun to fall; it rises again for the longer run")
    one, other = ((c.workers, c.ranks, c.val_every) for c in (kept, config))
    progress.repeatable &= one == other
    return run


def _check_same(asked: TrainConfig, kept: Mapping[str, Any], path: str | Path) -> None:
    """Raise CheckpointError if a given option differs from the checkpoint's."""
    for name, has in kept.items():
        wanted = getattr(asked, name)
        if wanted not in (None, has):
            raise CheckpointError(
                f"{path}: {flag(name)} {wanted} was asked for, but the run has {has}; leave it out"
            )


def _total(run: Run) -> int | None:
    """Return the number of steps of a run, rounded up; None while a budget decides."""
    if run.config.epochs is None:
        return run.config.steps
    return max(1, math.ceil(run.config.epochs * run.training.steps_per_epoch - 1e-9))


def _notes(asked: TrainConfig, run: Run) -> Iterator[str]:
    """Yield what the user should know about the text and what was chosen for it."""
    config, validation = run.config, run.validation
    B, T = run.training.batch_size, run.training.seq_len
    if config.batch_size > B:
        yield (
            f"the text is short: each step reads {B} stream{'s' * (B > 1)} of {T} characters, not "
            f"{config.batch_size} of {config.seq_len}"
        )
    if run.text.corpus.characters < 5_000 and not run.origin:
        yield "a text of fewer than 5,000 characters is too short to learn spelling from"
    if validation is None and config.val_fraction:
        advice = "; if the texts are short, give them as a folder, or as a file with --lines"
        yield (
            "the validation part is too short to predict anything: no validation"
            + advice * run.text.scanty
        )
    elif validation is not None and validation.predictions < RELIABLE:
        yield (
            f"the validation part has only {validation.predictions} characters to predict: "
            "its loss is a rough guide"
        )
    chosen = [
        f"{flag(name)} {value:g}"
        for name in CHOSEN
        if getattr(asked, name) is None and (value := getattr(config, name)) is not None
    ]
    if config.budget is not None and chosen:
        budget = f"{config.budget:.10g} s on this machine and this text"
        yield f"chosen for {budget}: {' '.join(chosen)}"


def _kept(
    model: Model, arrays: dict[str, Array], out: str | Path
) -> tuple[TrainConfig, Progress, list[str]]:
    """Return the configuration, progress and sources of the run in the checkpoint.

    Raises CheckpointError unless all that resuming needs is there.
    """
    try:
        config = TrainConfig.from_dict({**model.training, "out": out})
        progress = Progress(**{f.name: model.meta[f.name] for f in fields(Progress)})
        sources = json.loads(arrays["sources"].tobytes())
        fit = {arrays[name].shape for name in twins(config)} == {model.parameters.flat.shape}
        state = zero_state(model.config, 0, config.dtype)  # of no streams
        if fit and arrays["state"].shape[:-1] == state.shape[:-1] and config.model == model.config:
            return config, progress, sources
    except (KeyError, TypeError, ValueError, CharRNNError):
        pass
    raise CheckpointError(
        f"{out}: what resuming needs is missing, damaged or from another charrnn (version "
        f"{model.version} wrote it); use --init-from {joined([str(out)])} with another --out"
    )


def _same_text(sources: Sources, came_from: list[str], kept: TrainConfig, model: Model) -> Text:
    """Return the text of the run. Raises CharRNNError if it is gone or isn't the same."""
    for source in () if sources else came_from:
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if terminal if source == "-" else not Path(source).exists():
            raise CorpusError(
                f"{source}: the text of the run in {kept.out} is no longer here; give its new "
                f"place: charrnn train PATH --resume --out {joined([str(kept.out)])}"
            )
    text = Text(sources or tuple(came_from), kept, model)
    if text.corpus.digest != model.corpus_digest:
        texts, names = len(text.corpus.texts), model.corpus_names
        raise CheckpointError(
            f"{kept.out}: the corpus is not the one of this run: it has {text.corpus.characters:,} "
            f"characters in {texts} text{'s' * (texts > 1)}, the run's had "
            f"{model.corpus_characters or 0:,} in {len(names)} ({', '.join(names)}); resume with "
            "the same texts (a folder counts as one), or use --init-from"
        )
    return text
