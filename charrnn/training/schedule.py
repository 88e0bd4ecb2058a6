"""The learning rate: warm-up, constant, decay; and how many steps a run has.

A budget of time becomes a number of steps when decay begins: until then, the rate doesn't depend on
the total.
"""

from __future__ import annotations

WARM_UP = 50  # steps from 0 to the peak rate; before that, Adam's moments are noise
DECAY_SHARE = 0.5  # of all steps, the last ones
FINAL = 0.01  # of the peak rate, at the last step


def learning_rate(step: int, peak: float, steps: int | None) -> float:
    """Return the rate of step `step`, counted from 0, of a run of `steps`.

    (1) warm-up: in proportion to the step; (2) constant, also while `steps` isn't known (None);
    (3) decay: linear to FINAL times the peak at the last step.
    """
    warm = min(1.0, (step + 1) / WARM_UP)
    if steps is None or step < decay_start(steps):
        return peak * warm
    left = (steps - step - 1) / max(1, steps - decay_start(steps))
    return peak * warm * (FINAL + (1 - FINAL) * left)


def decay_start(steps: int) -> int:
    """Return after how many of `steps` the decay begins."""
    return steps - round(DECAY_SHARE * steps)


def total_steps(done: int) -> int:
    """Return the total of a run whose decay begins after `done` steps: decay_start's inverse."""
    return round(done / (1 - DECAY_SHARE))
