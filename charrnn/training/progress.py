"""How far a run has come: plain data that a checkpoint keeps in its meta."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from charrnn.training.schedule import decay_start

MOST_POINTS = 1000  # of the learning curve, and of speeds


@dataclass
class Progress:
    """The steps that a run has taken, and their results."""

    steps: int | None = None  # in total; None until a budget has been turned into steps
    floor_nats: float | None = None  # what n-grams reach on the validation part
    floor_order: int | None = None
    step: int = 0  # optimizer steps done
    seconds: float = 0.0  # wall time of the parts before this one
    ending: Literal["finished", "early"] = "finished"  # early: validation stopped improving
    repeatable: bool = True  # the rate followed one schedule, and no option changed on resume
    recent_sum: float = 0.0  # of the training losses since the last validation
    val_loss: float | None = None  # the lowest
    best_step: int | None = None
    without_best: int = 0  # validations since the best
    curve: list[tuple[int, float | None, float | None]] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)  # characters/s of every stride-th step
    stride: int = 1

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.steps is not None and self.step >= self.steps

    @property
    def decaying(self) -> bool:
        """Whether the learning rate has begun to fall."""
        return self.steps is not None and self.step > decay_start(self.steps)

    @property
    def unvalidated(self) -> int:
        """The number of steps since the last validation."""
        return self.step - (self.curve[-1][0] if self.curve else 0)

    def validation_due(self, every: int) -> bool:
        """Whether a validation is due at this step; one that was interrupted is still due."""
        return self.unvalidated > 0 and (self.finished or self.step % every == 0)

    def set_total(self, steps: int | None) -> bool:
        """Set the total; return whether the rate had begun to fall and now rises again."""
        before, fell = self.steps, self.decaying
        if steps == before:
            return False
        self.steps = steps
        longer = before is not None and (steps is None or steps > before)
        if longer:
            self.ending, self.without_best = "finished", 0
        self.repeatable &= not (fell or self.decaying)
        return fell and longer and not self.finished

    def mean_recent(self) -> float | None:
        """Return the mean training loss since the last validation.

        If there was no step since then, it is the mean between the last two validations.
        """
        if self.unvalidated:
            return self.recent_sum / self.unvalidated
        return self.curve[-1][1] if self.curve else None

    def add_step(self, loss: float, speed: float) -> None:
        """Count a step with its loss and its speed in characters/s.

        In a long run, every second speed is dropped whenever there are too many.
        """
        self.step += 1
        self.recent_sum += loss
        if self.step % self.stride == 0:
            self.speeds.append(round(speed, 1))
        if len(self.speeds) > MOST_POINTS:
            del self.speeds[::2]
            self.stride *= 2

    def add_point(self, val_loss: float | None) -> bool:
        """Add a point to the learning curve and return whether its validation loss is the best.

        If there are too many points, every second one is dropped.
        """
        self.curve.append((self.step, self.mean_recent(), val_loss))
        self.recent_sum = 0.0
        if len(self.curve) > MOST_POINTS:
            del self.curve[1:-1:2]
        if val_loss is None:
            return False
        self.without_best += 1
        best = val_loss < (math.inf if self.val_loss is None else self.val_loss)
        if best:
            self.val_loss, self.best_step, self.without_best = val_loss, self.step, 0
        return best

    def speed(self) -> float | None:
        """Return the median speed of the run's steps in characters/s."""
        return round(median(self.speeds), 1) if self.speeds else None
