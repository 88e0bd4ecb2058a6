"""Setting up a run, new or resumed: texts into batches, a resolved configuration, weights."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
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
from charrnn.text.corpus import Part, default_corpus, read_corpus
from charrnn.text.ngram import floor
from charrnn.text.sources import Source
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.defaults import (
    VALIDATION_CHUNK,
    VALIDATION_STREAMS,
    Facts,
    chosen_workers,
    memory_bytes,
    resolve,
    with_defaults,
)
from charrnn.training.events import Start
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.progress import Progress
from charrnn.training.reproduce import joined

Array = NDArray[Any]
Sources = tuple[str | Path, ...]
RELIABLE = 500  # characters to predict below which a validation loss says little
SCANTY = 8  # mean characters of a text's validation part below which it says nothing
CHOSEN = ("hidden", "batch_size", "seq_len", "dropout", "lr", "val_characters")  # worth saying


class Text:
    """A corpus and its training and validation parts: of its text, or of its distinct lines."""

    def __init__(self, sources: Sources, config: TrainConfig, base: Model | None) -> None:
        self.sources = sources
        self._times = self._changed()
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
        texts = len(self.corpus.texts)  # perhaps so short that the last characters say nothing
        self.scanty = texts > 1 and not config.lines and self.parts[1].characters < SCANTY * texts

    def _changed(self) -> list[list[int]]:
        """Return when the files of each source were changed; standard input and pipes have none."""
        files = [Source(source).files() for source in self.sources]
        return [[file.stat().st_mtime_ns for file in of_source] for of_source in files]

    def stays(self) -> bool:
        """Whether the sources can be read again and have not changed since they were read."""
        return all(self._times) and self._times == self._changed()

    def training(self, config: TrainConfig) -> Batches:
        """Return the training part in batches."""
        part = self.parts[0]
        if isinstance(part, Items):
            return ItemBatches(part, config.batch_size, config.seed)
        return Streams(part, config.batch_size, config.seq_len)

    def validation(self, most: int | None = None) -> Batches | None:
        """Return `most` characters of the validation part as 64 streams, None if there are none."""
        part = self.parts[1]
        if part.characters < 2 or self.scanty:
            return None
        if isinstance(part, Items):
            return ItemBatches(part.first(most), VALIDATION_STREAMS)
        return Streams(part, VALIDATION_STREAMS, VALIDATION_CHUNK, most)

    def counts(self) -> Array:
        """Return how often each character is to be predicted in the training part (N,)."""
        part, N, block = self.parts[0], len(self.corpus.vocabulary), 1 << 22
        counts = np.zeros(N)
        for at in range(0, part.characters, block):
            counts += np.bincount(part.read(at, min(at + block, part.characters)), minlength=N)
        return counts


@dataclass(frozen=True)
class Run:
    """All that a run is made of. Only `progress`, `notes` and the contents of arrays change."""

    config: TrainConfig  # resolved
    text: Text
    ranks: int  # of MPI, each with one worker; 1: a run without MPI
    progress: Progress
    origin: Model | None  # whose weights a new run starts from; of a resumed run its best so far
    saved: Mapping[str, Array]  # of a resumed run: theta, average, moments, state
    notes: list[str]  # what is worth saying before it begins

    @cached_property
    def training(self) -> Batches:
        """The training part in batches."""
        return self.text.training(self.config)

    @cached_property
    def validation(self) -> Batches | None:
        """The validation part in batches, or what is read of it."""
        return self.text.validation(self.config.val_characters)

    @cached_property
    def best(self) -> Parameters:
        """The best weights so far; to draw the first ones takes minutes for a wide network."""
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
        """theta, average, moments and state, which rank 0's replica takes over."""
        if self.saved:
            return self.saved
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

    @property
    def memory(self) -> int:
        """About how many bytes all processes take."""
        B, T = self.training.batch_size, self.training.seq_len
        used = replace(self.config, batch_size=B, seq_len=T)
        return memory_bytes(used, len(self.vocabulary), self.workers * self.ranks)

    def start_event(self) -> Start:
        """Return the event that says what begins, or goes on."""
        return Start(
            corpus_characters=self.text.corpus.characters,
            vocabulary_size=len(self.vocabulary),
            params=parameter_count(self.config.model, len(self.vocabulary)),
            **asdict(self.config.model),
            batch_size=self.training.batch_size,
            seq_len=self.training.seq_len,
            workers=self.workers,
            ranks=self.ranks,
            seed=self.config.seed,
            floor_nats=self.progress.floor_nats,
            floor_order=self.progress.floor_order,
            first_step=self.progress.step,
        )

    def sources(self) -> Array:
        """Return where the text came from, as bytes of JSON; meta has the names alone."""
        sources = [str(Path(s).absolute()) if s != "-" else s for s in self.text.sources]
        return np.frombuffer(json.dumps(sources).encode(), np.uint8)


def prepare(
    sources: Sequence[str | Path],
    config: TrainConfig,
    *,
    default_workers: int | Literal["auto"] = 1,
    ranks: int = 1,
) -> Run:
    """Return a run ready to start, or to go on. Raises CharRNNError for what doesn't fit."""
    if config.resume:
        run = _resumed(tuple(sources), config, ranks)
    else:
        run = _new(tuple(sources), config, default_workers, ranks)
    if ranks > run.training.batch_size:
        raise UsageError(
            f"{ranks} ranks share a batch of {run.training.batch_size} streams, and some would get "
            "none; use fewer ranks or a larger --batch-size"
        )
    free = free_memory()
    if ranks == 1 and free is not None and run.memory > free:  # other ranks may be elsewhere
        run.notes.append(
            f"training takes about {run.memory / 1e6:,.0f} MB of memory and {free / 1e6:,.0f} MB "
            "are free; a smaller --hidden, --batch-size, --seq-len or --workers takes less"
        )
    return run


def _new(
    sources: Sources, asked: TrainConfig, default_workers: int | Literal["auto"], ranks: int
) -> Run:
    origin, config = None, asked
    if asked.init_from is not None:
        origin = load(asked.init_from)
        shape = asdict(origin.config)
        _check_same(asked, shape, asked.init_from)
        config = replace(asked, **shape)
    text = Text(sources or (default_corpus(),), config, origin)
    (part, validation), N = text.parts, len(text.corpus.vocabulary)
    facts = Facts(
        characters=part.characters,
        validation=validation.characters,
        N=N,
        processors=cores() if ranks == 1 else ranks,
        ranks=ranks,
        item=part.characters / len(part) if isinstance(part, Items) else None,
        default_workers=default_workers,
    )
    config, counted = resolve(config, facts), floor(part, validation, N)
    progress = Progress(ranks=ranks, floor_nats=counted.nats, floor_order=counted.order)
    run = Run(config, text, ranks, progress, origin, {}, [*text.notes])
    progress.steps = _total(config, run.training)
    run.notes.extend((*_notes(asked, run), *counted.notes))
    return run


def _resumed(sources: Sources, asked: TrainConfig, ranks: int) -> Run:
    out = asked.out
    assert out is not None  # TrainConfig sees to that
    model, arrays = load_resume(out)
    kept, progress, came_from = _kept(model, arrays, out)
    fixed = [option.name for option in OPTIONS if not option.metadata.get("changes")]
    _check_same(asked, {name: getattr(kept, name) for name in fixed}, out)
    text = Text(sources or _still_there(came_from, out), kept, model)
    _check_text(text, model, out)
    given = {f.name: v for f in OPTIONS if (v := getattr(asked, f.name)) is not None}
    new_length = given.keys() & set(LENGTHS)
    if new_length:
        given = dict.fromkeys(LENGTHS) | given
    given["workers"] = chosen_workers(
        asked.workers or ("auto" if ranks > 1 else kept.workers),
        kept.hidden,
        kept.batch_size,
        cores(),
        ranks,
    )
    config = replace(kept, out=out, **given)
    run = Run(config, text, ranks, progress, model, arrays, [*text.notes])
    _check_arrays(run, out)
    shorter = asked.budget is not None and asked.budget <= (kept.budget or 0)
    total = _total(config, run.training) if new_length and not shorter else progress.steps
    if progress.set_total(total):
        run.notes.append("the learning rate had begun to fall; it rises again for the longer run")
    one_command = (config.workers, config.val_every, ranks)
    progress.changed |= one_command != (kept.workers, kept.val_every, progress.ranks)
    progress.ranks = ranks
    return run


def _check_same(asked: TrainConfig, kept: Mapping[str, Any], path: str | Path) -> None:
    """Raise CheckpointError if an option was given of which the checkpoint has another value."""
    for name, has in kept.items():
        wanted = getattr(asked, name)
        if wanted not in (None, has):
            raise CheckpointError(
                f"{path}: {flag(name)} {wanted} was asked for, but the run has {has}; leave it out"
            )


def _total(config: TrainConfig, training: Batches) -> int | None:
    """Return the steps of a run, the last epoch rounded up; None while a budget decides."""
    if config.epochs is None:
        return config.steps
    return max(1, math.ceil(config.epochs * training.steps_per_epoch - 1e-9))


def _notes(asked: TrainConfig, run: Run) -> Iterator[str]:
    """Yield what is worth saying about the text and what was chosen for it."""
    config, validation = run.config, run.validation
    B, T = run.training.batch_size, run.training.seq_len
    if config.batch_size > B or (config.seq_len > T and not config.lines):
        yield (
            f"the text is short: {B} streams of up to {T} characters a step instead of "
            f"{config.batch_size} of {config.seq_len}"
        )
    if run.text.scanty:
        yield (
            "the texts are so short that the last characters of each say nothing: no validation; "
            "give them as a folder, or as a file with --lines"
        )
    elif validation is None and config.val_fraction:
        yield "the validation part is too short to predict anything: no validation"
    elif validation is not None and validation.predictions < RELIABLE:
        yield (
            f"the validation part has {validation.predictions} characters to predict: "
            "its loss is a rough guide"
        )
    chosen = {name: getattr(config, name) for name in CHOSEN if getattr(asked, name) is None}
    options = [f"{flag(name)} {value:g}" for name, value in chosen.items() if value is not None]
    if config.budget is not None and options:
        budget = f"{config.budget:.10g} s on this machine and this text"
        yield f"chosen for {budget}: {' '.join(options)}"


def _unfit(
    out: str | Path, why: str = "what resuming needs is damaged or of another charrnn"
) -> CheckpointError:
    return CheckpointError(f"{out}: {why}; use --init-from {joined([str(out)])} with another --out")


def _kept(
    model: Model, arrays: dict[str, Array], out: str | Path
) -> tuple[TrainConfig, Progress, list[str]]:
    """Return the configuration, progress and sources that the checkpoint has of its run."""
    if "sources" not in arrays:
        raise _unfit(out, f"charrnn {model.version} left no run in it that can be resumed")
    if model.seconds is None or model.corpus_characters is None:
        raise _unfit(out)
    try:
        progress = Progress(**{f.name: model.meta[f.name] for f in fields(Progress)})
        sources = json.loads(arrays["sources"].tobytes())
        return TrainConfig.from_dict(model.training), progress, sources
    except (KeyError, TypeError, ValueError, CharRNNError):
        raise _unfit(out) from None


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


def _check_text(text: Text, model: Model, out: str | Path) -> None:
    """Raise CheckpointError unless the corpus is the one of the run."""
    if text.corpus.digest != model.corpus_digest:
        texts, names = len(text.corpus.texts), model.corpus_names
        raise CheckpointError(
            f"{out}: the corpus is not the one of this run: {text.corpus.characters:,} characters "
            f"in {texts} text{'s' * (texts > 1)} now, {model.corpus_characters:,} in {len(names)} "
            f"then ({', '.join(names)}); resume with the same texts (a folder is one), or use "
            "--init-from"
        )


def _check_arrays(run: Run, out: str | Path) -> None:
    """Raise CheckpointError unless every array that going on needs is there with its shape."""
    config, best = run.config, run.best.flat
    state = zero_state(config.model, run.training.batch_size, config.dtype).shape
    twins = ("theta", "average", *OPTIMIZER_CLASSES[config.optimizer].names)
    wanted = {"state": state, **dict.fromkeys(twins, best.shape)}
    found = {name: array.shape for name, array in run.saved.items()}
    if config.model != run.best.config or not wanted.items() <= found.items():
        raise _unfit(out)
