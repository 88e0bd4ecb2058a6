"""A training run as a generator of events: the caller logs, shows and stops.

Truncated backpropagation through time: B streams of contiguous text, T characters a step, the state carried on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.atomic_write import check_writable, exclusive_lock, part_of
from charrnn.checkpoint.model import Model, save
from charrnn.config import TrainConfig
from charrnn.errors import UsageError
from charrnn.network.parameters import Parameters
from charrnn.sampling.sampling import sample
from charrnn.training.events import (
    Done,
    Event,
    Notice,
    Sampled,
    Saved,
    Start,
    Step,
    Stopped,
    Validated,
)
from charrnn.training.preparation import Prepared, begin
from charrnn.training.replica import Leader, Plan, Replica
from charrnn.training.reproduce import command
from charrnn.training.resumption import go_on, packed
from charrnn.training.schedule import Schedule, begins_decay, total_steps
from charrnn.training.workers import replicas

if TYPE_CHECKING:
    from charrnn.training.mpi import MPIEnd

Array = NDArray[Any]
PATIENCE = 8  # validations without a new best after which a budget's decay begins early
SPARE = 0.015  # of a budget, kept back: saves at every new best come faster while the rate falls, and machines slow down
LATE = 1.25  # a total so many times what the time left allows is cut to it
GOOD_EVERY = 25  # steps between copies of weights that are known to be good
SHOWN_CHARACTERS = 40_000  # characters between steps that the JSON shows


def train(
    sources: str | Path | Sequence[str | Path] = (),
    config: TrainConfig | None = None,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
    started: float | None = None,
    ranks: MPIEnd | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of a run on `sources` (files, folders, archives, "-"; none: the corpus that ships).

    The last event is Done, whose `model` is what the checkpoint holds. `interrupted` is asked after each step; when it
    says so the run is saved and ends. `started` is when the budget's time began, by `clock`. `ranks`: this is rank 0 of an
    MPI run, and the other ranks follow. Raises CharRNNError.
    """
    config = config or TrainConfig()
    sources = (sources,) if isinstance(sources, str | Path) else tuple(sources)
    started = clock() if started is None else started
    with contextlib.ExitStack() as stack:
        if config.out is not None:
            stack.enter_context(exclusive_lock(config.out))
        check_out(sources, config)
        prepared = prepare(sources, config, ranks.size if ranks is not None else 1)
        yield from (Notice(note) for note in prepared.notes)
        yield from Run(config, prepared, interrupted, clock, started, ranks).events()


def check_out(sources: Sequence[str | Path], config: TrainConfig) -> None:
    """Raise CharRNNError unless a checkpoint can be written to `config.out`, if anywhere, and is none of the texts."""
    if config.out is None:
        return
    source = part_of(config.out, sources)
    if source is not None and not Path(source).is_dir():
        raise UsageError(f"--out {config.out} is a text to train on; choose another name")
    check_writable(config.out, overwrite=config.overwrite or config.resume)


def prepare(sources: Sequence[str | Path], config: TrainConfig, ranks: int = 1) -> Prepared:
    """Return a run ready to start, or to go on with. Raises CharRNNError for a text, option or checkpoint that doesn't fit."""
    return go_on(sources, config, ranks) if config.resume else begin(sources, config, ranks)


class Run:
    """Rank 0's side of a run: the clock, the schedule, the best weights so far, and what is saved."""

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        interrupted: Callable[[], bool],
        clock: Callable[[], float],
        started: float,
        ranks: MPIEnd | None = None,
    ) -> None:
        self.ranks = ranks
        self.config, self.prepared, self.settings = config, prepared, prepared.settings
        self.interrupted, self.clock, self.started = interrupted, clock, started
        self.record = prepared.record
        self.saved_at = clock()
        self.validation_seconds = 0.0

    def events(self) -> Iterator[Event]:
        """Yield all events from Start to Done."""
        p, s = self.prepared, self.settings
        floor_nats, floor_order = self._floor()
        yield Start(
            corpus_characters=p.corpus.characters,
            vocabulary_size=len(p.corpus.vocabulary),
            params=p.best.flat.size,
            cell=s.cell,
            hidden=s.hidden,
            layers=s.layers,
            batch_size=p.training.batch_size,
            seq_len=p.training.seq_len,
            workers=p.workers,
            ranks=p.ranks,
            seed=s.seed,
            floor_nats=floor_nats,
            floor_order=floor_order,
            first_step=self.record.step,
        )
        if self.finished and not self._validation_due:
            yield Notice(f"the run already has its {self.record.step:,} steps: nothing left to do")
            yield self._done("early" if self.record.early else "finished", None)
            return
        plan = Plan(
            s.model,
            len(p.corpus.vocabulary),
            s.dtype,
            s.optimizer,
            s.clip,
            s.dropout,
            s.averaging,
            s.seed,
        )
        with self._replicas(plan) as replica:
            self.replica, self.leader = replica, Leader(replica)
            self.good, self.untried = replica.parameters.flat.copy(), replica.parameters.flat.copy()
            p.arrays.clear()  # every replica has its own by now
            stopped = yield from self._steps()
            if stopped in ("finished", "early"):
                yield from self._validate(last=True)
            yield from self._save(None if stopped == "diverged" else self._resume_arrays())
            yield self._done(stopped, replica.parameters)

    def _replicas(self, plan: Plan) -> AbstractContextManager[Replica]:
        """Return rank 0's replica, as a context in which the others follow: ranks of MPI, or workers of this machine."""
        p = self.prepared
        if self.ranks is not None:
            return self.ranks.lead(plan, p.training, p.validation, p.arrays)
        descriptors = p.corpus.store.share()[0] if p.workers > 1 else ()
        return replicas(p.workers, plan, p.training, p.validation, p.arrays, descriptors)

    def _floor(self) -> tuple[float | None, int | None]:
        """Return what n-grams reach on the validation part, and the best order; None where they weren't counted."""
        floor = self.prepared.floor
        return (floor.nats, floor.order) if floor else (None, None)

    @property
    def finished(self) -> bool:
        """Return whether all steps are done."""
        return self.record.steps is not None and self.record.step >= self.record.steps

    @property
    def _validation_due(self) -> bool:
        """Return whether these steps want a validation that hasn't been: one that is interrupted is made up for on resuming."""
        record = self.record
        validated = bool(record.curve) and record.curve[-1][0] == record.step
        return (
            record.step > 0
            and not validated
            and (self.finished or record.step % self.settings.val_every == 0)
        )

    def _steps(self) -> Generator[Event, None, Stopped]:
        """Yield the events of all steps and return why they ended."""
        self.loop_started = self.clock()
        if self._validation_due:
            yield from self._between_steps()
        while not self.finished:
            step = self._step()
            if self._diverged(step):
                return "diverged"
            yield step
            if self.interrupted():
                return "interrupted"
            yield from self._between_steps()
        return "early" if self.record.early else "finished"

    def _between_steps(self) -> Iterator[Event]:
        """Yield what is due after these steps, but for what the end of the run does anyway."""
        record, s = self.record, self.settings
        if not self.finished and self._validation_due:
            yield from self._validate()
        self._fix_total()
        if not self.finished:
            if s.sample_every and record.step % s.sample_every == 0:
                yield Sampled(record.step, self._sample())
            if self.clock() - self.saved_at >= s.save_every:
                yield from self._save(self._resume_arrays())

    def _step(self) -> Step:
        """Take one step and return its event."""
        record, training = self.record, self.prepared.training
        lr = Schedule(self.settings.lr, record.steps).rate(record.step)
        before = self.clock()
        loss, norm = self.leader.step(record.step, lr)
        seconds = self.clock() - before
        record.step += 1
        speed = training.predictions / training.steps_per_epoch / max(seconds, 1e-9)
        record.add_speed(speed)
        record.recent_sum, record.recent_count = record.recent_sum + loss, record.recent_count + 1
        every = max(1, round(SHOWN_CHARACTERS / (training.batch_size * training.seq_len)))
        return Step(
            record.step,
            record.steps,
            record.step / training.steps_per_epoch,
            loss,
            norm,
            lr,
            speed,
            *self._progress(),
            shown=record.step % every == 0 or record.step == record.steps,
        )

    def _progress(self) -> tuple[float, float]:
        """Return the share of the run that is done and the seconds left."""
        record = self.record
        if record.steps is None:
            elapsed, budget = self._elapsed(), self.settings.budget or 1.0
            return min(1.0, elapsed / budget), max(0.0, budget - elapsed)
        return record.step / record.steps, (record.steps - record.step) * self._seconds_per_step()

    def _elapsed(self) -> float:
        """Return the wall time of the whole run so far, earlier parts of it included."""
        return self.record.seconds + self.clock() - self.started

    def _seconds_per_step(self) -> float:
        """Return the time that a step of the run has taken, earlier parts of it, validation and saving included."""
        return (self.record.seconds + self.clock() - self.loop_started) / max(1, self.record.step)

    def _diverged(self, step: Step) -> bool:
        """Return whether the loss is beyond hope; else keep a copy of the weights now and then, good once the next loss is."""
        limit = 10 + 5 * math.log(len(self.prepared.corpus.vocabulary))
        if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm) and step.loss < limit):
            return True
        if step.step % GOOD_EVERY == 0:
            self.untried[:] = self.replica.parameters.flat
        elif step.step % GOOD_EVERY == 1:
            self.good, self.untried = self.untried, self.good
        return False

    def _fix_total(self) -> None:
        """Turn the budget into a total of steps when decay must begin: for want of time, or early, for want of progress."""
        record, budget = self.record, self.settings.budget
        if record.steps is not None or budget is None:
            return
        if record.without_best >= PATIENCE:
            record.steps, record.early = total_steps(record.step), True
            return
        left = (
            (1 - SPARE) * budget - self._elapsed() - 2 * self.validation_seconds - 0.2
        )  # what is to be done at the end
        record.steps = begins_decay(record.step, self._seconds_per_step(), left)
        if record.steps is not None:
            possible = record.step + max(1, int(left / self._seconds_per_step()))
            if (
                record.extended or record.steps > LATE * possible
            ):  # after an extension or a stall, less than a whole decay is left
                record.steps, record.extended = min(record.steps, possible), True

    def _validate(self, last: bool = False) -> Iterator[Event]:
        """Validate the averaged weights, at the end the current ones too, and keep the better."""
        record = self.record
        if self.prepared.validation is None:
            record.add_point(None)
            return
        before = self.clock()
        losses = {True: self.leader.validate(True)}
        if last:
            losses[False] = self.leader.validate(False)
        loss = min(losses.values())
        averaged = losses[True] == loss
        self.validation_seconds = self.clock() - before
        best = record.best is None or loss < record.best
        record.add_point(loss)
        record.without_best = 0 if best else record.without_best + 1
        if best:
            record.best, record.best_step = loss, record.step
            self.prepared.best.flat[:] = (
                self.replica.average if averaged else self.replica.parameters
            ).flat
        yield Validated(record.step, loss, best)
        if best and not last:
            yield from self._save(self._resume_arrays())

    def _sample(self) -> str:
        """Return a short text by the averaged weights, at the same seed each time."""
        about = {"training": self.settings.as_dict()}
        model = Model(
            self.settings.model, self.prepared.corpus.vocabulary, self.replica.average, about
        )
        return "".join(sample(model, length=200, temp=0.8, seed=self.settings.seed))

    def _model(self, parameters: Parameters) -> Model:
        """Return `parameters` as a model that says how it was trained."""
        return Model(self.settings.model, self.prepared.corpus.vocabulary, parameters, self._meta())

    def _meta(self) -> dict[str, Any]:
        """Return what a checkpoint says of its run."""
        p, record = self.prepared, self.record
        return {
            "training": self.settings.as_dict(),
            "corpus": {
                "characters": p.corpus.characters,
                "digest": p.corpus.digest,
                "names": [Path(s).name for s in p.sources],
            },
            "step": record.step,
            "steps": record.steps,
            "best_step": record.best_step,
            "epochs": record.step / p.training.steps_per_epoch,
            "seconds": round(self._elapsed(), 3),
            "train_loss": record.mean_recent(),
            "val_loss": record.best,
            "curve": record.curve,
            "floor_nats": self._floor()[0],
            "floor_order": self._floor()[1],
            "chars_per_second": record.speed(),
            "speeds": record.speeds,
        }

    def _named(self) -> Parameters:
        """Return what the checkpoint's named arrays hold: the best on validation, else the current weights."""
        if self.record.best is not None:
            return self.prepared.best
        return self.replica.parameters

    def _resume_arrays(self) -> dict[str, Array]:
        """Return all that going on needs, bit for bit."""
        replica = self.replica
        return {
            "record": packed(self.prepared),
            "theta": replica.parameters.flat,
            "average": replica.average.flat,
            "state": self.leader.gather_state(),
            "best": self.prepared.best.flat
            if self.settings.dtype != "float32"
            else np.zeros(0, np.float32),
            **replica.optimizer.moments,
        }

    def _save(self, resume: dict[str, Array] | None) -> Iterator[Event]:
        """Write the checkpoint, where there is one to write."""
        self.saved_at = self.clock()
        if (
            resume is None and self.record.best is None
        ):  # diverged: back to the last weights that were good
            self.replica.parameters.flat[:] = self.good
        if self.config.out is None:
            return
        save(self.config.out, self._model(self._named()), resume)
        yield Saved(self.record.step, str(self.config.out))

    def _done(self, stopped: Stopped, current: Parameters | None) -> Done:
        """Return the last event."""
        p, record, s = self.prepared, self.record, self.settings
        parameters = p.best if record.best is not None or current is None else current
        return Done(
            steps=record.step,
            epochs=record.step / p.training.steps_per_epoch,
            seconds=round(self._elapsed(), 3),
            train_loss=record.mean_recent(),
            val_loss=record.best,
            val_bpc=None if record.best is None else record.best / math.log(2),
            floor_nats=self._floor()[0],
            chars_per_second=record.speed() or 0.0,
            params=p.best.flat.size,
            workers=p.workers,
            ranks=p.ranks,
            checkpoint=None if self.config.out is None else str(self.config.out),
            stopped=stopped,
            command=command(p, record.steps, self.config.out),
            repeatable=record.steps is not None and not (record.extended or record.changed),
            model=Model(s.model, p.corpus.vocabulary, parameters.copy(), self._meta()),
        )
