"""A training run as a generator of events: the caller logs them, shows them and stops the run.

It uses truncated backpropagation through time: B streams of contiguous text, T characters per step,
with the state carried over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.checkpoint.atomic_write import exclusive_lock
from charrnn.checkpoint.model import Model, save
from charrnn.config import TrainConfig
from charrnn.network.parameters import Parameters
from charrnn.training.defaults import VALIDATING
from charrnn.training.events import (
    Done,
    Event,
    Notice,
    Sampled,
    Saved,
    Step,
    Stopped,
    Validated,
    Validating,
)
from charrnn.training.reproduce import command
from charrnn.training.schedule import learning_rate, total_steps
from charrnn.training.setup import Run, prepare
from charrnn.training.workers import replicas

if TYPE_CHECKING:
    from charrnn.training.mpi import MPIEnd

PATIENCE = 8  # validations without a new best after which a budget's decay begins early
SPARE = 0.015  # share of a budget kept in reserve: while the rate falls, there are more saves
LATE = 1.25  # cap the total if it exceeds the feasible number by this factor
GOOD_EVERY = 25  # steps between copies of the weights to return to after divergence
SHOWN_CHARACTERS = 40_000  # characters between the steps shown in JSON
SHARED = ("epochs", "seconds", "train_loss", "val_loss", "floor_nats", "chars_per_second")


def train(
    sources: str | Path | Sequence[str | Path] = (),
    config: TrainConfig | None = None,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
    started: float | None = None,
    ranks: MPIEnd | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of a run on `sources` (files, folders, archives, "-").

    Without sources, a new run reads the corpus that ships with charrnn, and a resumed one the texts
    it began with. The last event is Done, whose `model` is what the checkpoint holds. `interrupted`
    is called after each step; once it returns True, the run is saved and ends. `started` is when
    the budget's time began, by `clock`. If `ranks` is given, this is rank 0 of an MPI run and the
    other ranks follow. Raises CharRNNError.
    """
    config = replace(config or TrainConfig(), ranks=1 if ranks is None else ranks.size)
    sources = [sources] if isinstance(sources, str | Path) else sources
    started = clock() if started is None else started
    with nullcontext() if config.out is None else exclusive_lock(config.out):
        run = prepare(sources, config)
        yield from map(Notice, run.notes)
        yield from Training(run, interrupted, clock, started, ranks).events()


@dataclass
class Training:
    """Rank 0's side of a run: the clock, the schedule, the best weights so far, and saving."""

    run: Run
    interrupted: Callable[[], bool]
    clock: Callable[[], float]
    started: float
    ranks: MPIEnd | None
    stopped: Stopped | None = None  # None: still running
    taken: int = 0  # steps since this start or resumption
    mean: float = 0.0  # seconds per step
    recent: float = 0.0  # seconds per step over about the last quarter of the steps
    validation_seconds: float | None = None  # of one pass over the validation part

    def __post_init__(self) -> None:
        self.config, self.progress = self.run.config, self.run.progress
        self.saved_at = self.clock()

    def events(self) -> Iterator[Event]:
        """Yield all events from Start to Done."""
        run, progress = self.run, self.progress
        yield run.start_event()
        if progress.finished and not progress.validation_due(self.config.val_every):
            yield Notice(f"the run already has {progress.step:,} steps: nothing left to do")
        else:
            yield from self._trained()
        yield self._done()

    def _trained(self) -> Iterator[Event]:
        """Yield the events of training, until the run is saved and other processes have ended."""
        run, config = self.run, self.config
        parts = (config, len(run.vocabulary), run.training, run.validation, run.start)
        with (
            self.ranks.lead(parts)
            if self.ranks is not None
            else replicas(run.workers, parts, run.text.corpus.store.descriptors)
        ) as self.replica:
            self.stopped = yield from self._steps()
            if self.stopped in ("finished", "early"):
                yield from self._validate(last=True)
            yield from self._save()
        budget = config.budget or math.inf
        late = self._elapsed() - budget
        if late > max(1.0, 0.03 * budget):
            yield Notice(
                f"ended {late:.0f} s after the budget: the machine slowed down after the number "
                "of steps was fixed"
            )

    def _steps(self) -> Generator[Event, None, Stopped]:
        """Yield the events of all steps and of what is due between them; return why they ended.

        Until the first validation, the weights are copied now and then; a copy becomes the best
        weights once the loss of its step shows that they are good.
        """
        progress = self.progress
        while not progress.finished:
            if progress.step:
                yield from self._between_steps()
            copied = progress.val_loss is None and progress.step % GOOD_EVERY == 0
            weights = self.replica.parameters.flat.copy() if copied else None
            step = self._step()
            hopeless = 10 + 5 * math.log(len(self.run.vocabulary))
            if not (math.isfinite(step.loss + step.grad_norm) and step.loss < hopeless):
                return "diverged"
            if weights is not None:
                self.run.best.flat[:] = weights
            yield step
            if self.interrupted():
                return "interrupted"
        return progress.ending

    def _between_steps(self) -> Iterator[Event]:
        """Yield what is due before the next step."""
        progress, config = self.progress, self.config
        if progress.validation_due(config.val_every):
            yield from self._validate()
        self._fix_total()
        if config.sample_every and progress.step % config.sample_every == 0:
            model = self._model(self.replica.lead(self.replica.gather_average))
            text = model.sample(length=200, temp=0.8, seed=config.seed)
            yield Sampled(progress.step, "".join(text))
        if self.clock() - self.saved_at >= config.save_every:
            yield from self._save()

    def _step(self) -> Step:
        """Take one step and return its event."""
        progress, training = self.progress, self.run.training
        lr = learning_rate(progress.step, self.config.lr, progress.steps)
        before = self.clock()
        loss, norm = self.replica.lead(self.replica.step, progress.step, lr)
        seconds = max(self.clock() - before, 1e-9)
        self.taken += 1
        self.mean += (seconds - self.mean) / self.taken
        self.recent += (seconds - self.recent) * min(1, 4 / self.taken)
        speed = training.predictions / training.steps_per_epoch / seconds
        progress.add_step(loss, speed)
        elapsed, left = self._elapsed(), self._seconds_left()
        every = max(1, round(SHOWN_CHARACTERS / (training.batch_size * training.seq_len)))
        return Step(
            step=progress.step,
            steps=progress.steps,
            epoch=progress.step / training.steps_per_epoch,
            loss=loss,
            grad_norm=norm,
            lr=lr,
            chars_per_second=speed,
            progress=elapsed / (elapsed + left),
            seconds_left=left,
            shown=progress.step % every == 0 or progress.finished,
        )

    def _elapsed(self) -> float:
        """Return the wall time of the whole run so far, including its parts before a resumption."""
        return self.progress.seconds + self.clock() - self.started

    def _seconds_left(self) -> float:
        """Return the seconds left in the run; until its total is known, the rest of the budget."""
        progress = self.progress
        if progress.steps is None:
            return max(0.0, (self.config.budget or 0.0) - self._elapsed())
        return (progress.steps - progress.step) * self._seconds_per_step()

    def _seconds_per_step(self) -> float:
        """Return how long a step will take, with its share of a validation.

        If recent steps were faster than the mean, another program has probably ended, and the next
        steps will be as fast. Slow recent steps don't predict what follows.
        """
        step = min(self.mean, self.recent)
        return step + (self.validation_seconds or 0.0) / self.config.val_every

    def _fix_total(self) -> None:
        """Turn the budget into a total number of steps when decay must begin.

        Decay must begin when it needs all the time left, or once validation stops improving.
        """
        progress = self.progress
        if progress.steps is not None or not self.taken:
            return
        total = total_steps(progress.step)
        left = (1 - SPARE) * (self.config.budget or 0.0) - self._elapsed() - self._end() - 0.2
        possible = progress.step + max(1, math.ceil(left / self._seconds_per_step()))
        if progress.without_best >= PATIENCE:
            progress.steps, progress.ending = total, "early"
        elif total > possible:
            lost = total > LATE * possible or not progress.repeatable  # for example after a stall
            progress.set_total(possible if lost else total)

    def _end(self) -> float:
        """Return the seconds for the two validations at the end, a guess before the first one."""
        if self.run.validation is None or self.validation_seconds is not None:
            return 2 * (self.validation_seconds or 0.0)
        return 2 * self.run.validation.predictions / (VALIDATING * (self.progress.speed() or 1e9))

    def _validate(self, last: bool = False) -> Iterator[Event]:
        """Validate the averaged weights, and at the end also the current ones; keep the better."""
        progress, replica = self.progress, self.replica
        if self.run.validation is None:
            progress.add_point(None)
            return
        yield Validating()
        before = self.clock()
        loss, weights = replica.lead(replica.validate, True), replica.average
        if last:
            other = replica.lead(replica.validate, False)
            if other < loss or math.isnan(loss):
                loss, weights = other, replica.parameters
        self.validation_seconds = (self.clock() - before) / (1 + last)
        best = progress.add_point(loss)
        if best:
            self.run.best.flat[:] = weights.flat
        yield Validated(progress.step, loss, best, self.run.validation.predictions)
        if best and not last:
            yield from self._save()

    def _model(self, parameters: Parameters) -> Model:
        """Return `parameters` as a model that says how it was trained."""
        text, progress = self.run.text, self.progress
        meta = {
            "training": self.config.as_dict(),
            "corpus": {
                "characters": text.corpus.characters,
                "training_characters": text.parts[0].characters,
                "digest": text.corpus.digest,
                "names": [Path(source).name for source in text.sources],
            },
            **vars(progress),
            "epochs": progress.step / self.run.training.steps_per_epoch,
            "seconds": round(self._elapsed(), 3),
            "train_loss": progress.mean_recent(),
            "chars_per_second": progress.speed(),
        }
        return Model(self.config.model, self.run.vocabulary, parameters, meta)

    def _named(self) -> Parameters:
        """Return the named arrays of the checkpoint: the best on validation, else the current.

        Before this start's first step, they are the run's best weights so far.
        """
        current = self.progress.val_loss is None and self.stopped != "diverged" and self.taken
        return self.replica.parameters if current else self.run.best

    def _save(self) -> Iterator[Event]:
        """Write the checkpoint, if the run has one, with all that resuming needs."""
        self.saved_at, resume = self.clock(), None
        if self.config.out is not None:
            if self.stopped != "diverged":
                resume = {"sources": self.run.sources(), **self.replica.lead(self.replica.gather)}
            save(self.config.out, self._model(self._named()), resume)
            yield Saved(self.progress.step, str(self.config.out))

    def _done(self) -> Done:
        """Return the last event."""
        run, best, out = self.run, self.progress.val_loss, self.config.out
        path = Path(out or "model.npz")
        again = str(path.with_stem(f"{path.stem}-again"))
        model = self._model(self._named().astype(self.config.dtype))
        return Done(
            steps=self.progress.step,
            **{name: model.meta[name] for name in SHARED},
            val_bpc=None if best is None else best / math.log(2),
            val_characters=run.validation.predictions if run.validation else None,
            params=model.parameters.flat.size,
            workers=run.workers,
            ranks=self.config.ranks,
            checkpoint=None if out is None else str(out),
            stopped=self.stopped or self.progress.ending,
            command=command(model, run.text.sources, "--out", again),
            repeatable=run.repeatable(),
            model=model,
        )
