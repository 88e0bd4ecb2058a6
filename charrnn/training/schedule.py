"""The learning rate: warm-up, constant, decay; and how many steps a run has.

A budget in time becomes a number of steps when decay begins: until then the rate doesn't depend on the total.
"""

from __future__ import annotations

from dataclasses import dataclass

WARM_UP = 50  # steps from 0 to the peak rate; Adam's moments are noise before
DECAY_SHARE = 0.5  # of all steps, the last ones
FINAL = 0.01  # of the peak rate, at the last step


@dataclass(frozen=True)
class Schedule:
    """The rate at each step of a run of `steps` (None: not known yet, so decay hasn't begun)."""

    peak: float
    steps: int | None = None

    def rate(self, step: int) -> float:
        """Return the rate of step `step`, counted from 0.

        (1) warm-up: in proportion to the step; (2) constant; (3) decay: linear to FINAL times the peak at the last step.
        """
        warm = min(1.0, (step + 1) / WARM_UP)
        if self.steps is None or step < decay_start(self.steps):
            return self.peak * warm
        left = (self.steps - step - 1) / max(1, self.steps - decay_start(self.steps))
        return self.peak * warm * (FINAL + (1 - FINAL) * left)


def decay_start(steps: int) -> int:
    """Return after how many of `steps` the decay begins."""
    return steps - round(DECAY_SHARE * steps)


def total_steps(done: int) -> int:
    """Return the total of a run whose decay begins now, after `done` steps: the inverse of `decay_start`."""
    total = max(1, int(done / (1 - DECAY_SHARE)) - 1)
    while decay_start(total) < done:
        total += 1
    return total


def begins_decay(done: int, seconds_per_step: float, seconds_left: float) -> int | None:
    """Return the total of steps if the time left is no more than the decay after `done` steps takes, else None."""
    total = total_steps(done)
    return total if (total - done) * seconds_per_step >= seconds_left else None
