"""Going on with a run: the same settings, text and state, and a longer total where one is asked for."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import cores
from charrnn.checkpoint.model import Model, load_resume
from charrnn.config import TrainConfig
from charrnn.errors import CheckpointError, CorpusError
from charrnn.network.network import zero_state
from charrnn.network.parameters import Parameters
from charrnn.text.batches import Batches
from charrnn.text.corpus import Corpus, read_corpus
from charrnn.text.ngram import Floor
from charrnn.text.vocabulary import printable
from charrnn.training.defaults import Settings, auto_workers
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.preparation import (
    Prepared,
    Record,
    check_ranks,
    parts_of,
    steps_of,
    training_batches,
    validation_batches,
)
from charrnn.training.schedule import decay_start

Array = NDArray[Any]
LENGTHS = ("steps", "epochs", "budget")
WATCHED = (
    "workers",
    "val_every",
    "sample_every",
    "save_every",
)  # may change from one part of a run to the next


def go_on(sources: Sequence[str | Path], config: TrainConfig, ranks: int = 1) -> Prepared:
    """Return the run in config.out, ready to go on. Raises CheckpointError if it isn't there, or is another run."""
    assert config.out is not None  # TrainConfig sees to that
    model, arrays = load_resume(config.out)
    if "record" not in arrays:
        raise CheckpointError(
            f"{config.out}: this checkpoint has nothing to resume from; use --init-from {config.out} with another --out"
        )
    try:
        kept = json.loads(arrays.pop("record").tobytes())
        meta = model.meta
        times: dict[str, Any] = {
            "seconds": float(meta["seconds"]),
            "speeds": [float(speed) for speed in meta["speeds"]],
        }
        settings, record = Settings(**kept["settings"]), Record(**kept["record"], **times)
        came_from, init_from = kept["sources"], kept["init_from"]
        then = {name: meta["corpus"][name] for name in ("characters", "digest", "names")}
        floor = (
            None
            if meta["floor_nats"] is None
            else Floor(meta["floor_nats"], meta["floor_order"], ())
        )
    except (KeyError, TypeError, ValueError):
        raise _unfit(config.out) from None
    _check_options(config, settings)
    check_ranks(ranks, settings.batch_size)
    sources = tuple(sources) or _sources(came_from, config.out)
    corpus = read_corpus(sources, encoding=settings.encoding, base=model.vocabulary)
    _check_text(corpus, then, config.out)
    parts = parts_of(corpus, settings.lines, settings.val_fraction)
    training = training_batches(corpus, parts[0], settings)
    check_ranks(ranks, training.batch_size)
    _check_arrays(arrays, model, settings, training, config.out)
    notes = [*corpus.notes, *_extend(config, settings, record, training)]
    if record.steps is None or record.step < record.steps:
        settings = _watched(config, settings, record, ranks)
    best = (
        model.parameters
        if settings.dtype == "float32"
        else Parameters(model.config, len(corpus.vocabulary), flat=arrays["best"])
    )
    return Prepared(
        corpus=corpus,
        sources=sources,
        init_from=init_from,
        settings=settings,
        training=training,
        validation=validation_batches(corpus, parts[1]),
        floor=floor,
        workers=min(settings.workers, training.batch_size),
        ranks=ranks,
        arrays=arrays,
        best=best,
        record=record,
        notes=notes,
    )


def packed(prepared: Prepared) -> Array:
    """Return as bytes of JSON what `go_on` reads of a run beside its arrays."""
    init_from = prepared.init_from
    kept = {
        "settings": prepared.settings.as_dict(),
        "sources": [
            str(Path(source).absolute()) if source != "-" else source for source in prepared.sources
        ],
        "init_from": None if init_from is None else str(Path(init_from).absolute()),
        "record": prepared.record.as_dict(),
    }
    return np.frombuffer(json.dumps(kept).encode(), np.uint8)


def _unfit(out: str | Path) -> CheckpointError:
    return CheckpointError(
        f"{out}: what resuming needs is damaged or of another charrnn; use --init-from {out} with another --out"
    )


def _sources(came_from: list[str], out: str | Path) -> tuple[str, ...]:
    """Return where the run's text came from, if it can be had again."""
    if "-" in came_from and sys.stdin is not None and sys.stdin.isatty():
        raise CorpusError(f"{out}: the text of this run came from standard input; pipe it in again")
    for source in came_from:
        if source != "-" and not Path(source).exists():
            raise CorpusError(
                f"{source}: the text of the run in {out} is no longer here; give its new place: charrnn train PATH --resume"
            )
    return tuple(came_from)


def _check_text(corpus: Corpus, then: dict[str, Any], out: str | Path) -> None:
    if corpus.digest == then["digest"]:
        return
    now, before = corpus.characters, then["characters"]
    difference = (
        f"{now:,} characters now, {before:,} then"
        if now != before
        else f"{now:,} characters as then, but other ones"
    )
    if len(corpus.lengths) != len(then["names"]):
        names = printable(", ".join(then["names"]))
        difference += f"; {len(corpus.lengths)} texts now, {len(then['names'])} then: {names}, and a folder is one text"
    raise CheckpointError(
        f"{out}: the corpus is not the one of this run ({difference}); resume with the same text, or use --init-from for another"
    )


def _check_arrays(
    arrays: dict[str, Array], model: Model, settings: Settings, training: Batches, out: str | Path
) -> None:
    """Raise CheckpointError unless every array that going on needs is there with its shape."""
    n = model.parameters.flat.shape
    wanted = {
        "theta": n,
        "average": n,
        "state": zero_state(model.config, training.batch_size, settings.dtype).shape,
    }
    wanted |= dict.fromkeys(OPTIMIZER_CLASSES[settings.optimizer](np.zeros(0)).moments, n)
    wanted |= {"best": n} if settings.dtype != "float32" else {}
    if any(name not in arrays or arrays[name].shape != shape for name, shape in wanted.items()):
        raise _unfit(out)


def _given(config: TrainConfig, name: str) -> bool:
    """Return whether an option was asked for: named on the command line, or other than its default."""
    return name in config.explicit or getattr(config, name) not in (
        None,
        getattr(TrainConfig(), name),
    )


def _check_options(config: TrainConfig, settings: Settings) -> None:
    """Raise CheckpointError if an option was given that would make it another run."""
    for name in sorted({f.name for f in fields(Settings)} - {*WATCHED, *LENGTHS, "averaging"}):
        asked, has = getattr(config, name), getattr(settings, name)
        if name == "encoding":
            asked, has = (codecs.lookup(encoding).name for encoding in (asked, has))
        if _given(config, name) and asked != has:
            option = f"--{name.replace('_', '-')}"
            difference = f"{option} {asked} was asked for, but the run has {has}"
            if name == "lines":
                difference = f"{option} was given, but the run is one of running text"
            raise CheckpointError(f"{config.out}: {difference}; leave it out to resume")


def _extend(
    config: TrainConfig, settings: Settings, record: Record, training: Batches
) -> list[str]:
    """Give `record` a new total of steps, epochs or time, if one was given; return what is worth saying."""
    before = record.steps
    if config.steps is not None:
        record.steps = config.steps
    elif config.epochs is not None:
        record.steps = steps_of(config.epochs, training)
    elif config.budget is not None and config.budget > (settings.budget or 0):
        record.steps = None
    if record.steps == before:
        return []
    if record.steps is None or (before is not None and record.steps > before):
        record.early, record.without_best = False, 0
    falling = before is not None and record.step > decay_start(before)
    record.extended |= falling or (
        record.steps is not None and record.step > decay_start(record.steps)
    )
    return (
        ["the learning rate had begun to fall; it rises again for the longer run"]
        if falling
        else []
    )


def _watched(config: TrainConfig, settings: Settings, record: Record, ranks: int) -> Settings:
    """Return the settings with the new length, and with what may change along the way where it was given."""
    changes = {name: getattr(config, name) for name in WATCHED if _given(config, name)}
    if (
        changes.get("workers") == "auto" and "workers" not in config.explicit
    ):  # the command line's default: the run's own stay
        del changes["workers"]
    elif changes.get("workers") == "auto":
        changes["workers"] = auto_workers(settings.hidden, settings.batch_size, cores())
    if any(getattr(config, name) is not None for name in LENGTHS):
        changes |= {
            "steps": record.steps if config.budget is None else None,
            "budget": config.budget,
        }
    new = replace(settings, **changes)
    record.changed |= (new.workers, new.val_every, ranks) != (
        settings.workers,
        settings.val_every,
        record.ranks,
    )
    record.ranks = ranks
    return new
