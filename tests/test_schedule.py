"""The learning rate and how a budget becomes a number of steps."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from charrnn.training.schedule import FINAL, WARM_UP, decay_start, learning_rate, total_steps


def test_the_rate_warms_up_stays_and_lands_at_the_end():
    rates = [learning_rate(step, 2.0, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / WARM_UP)
    assert rates[WARM_UP] == rates[decay_start(1000) - 1] == 2.0
    assert rates[decay_start(1000)] < 2.0
    assert rates[999] == pytest.approx(2.0 * FINAL)


@given(st.integers(1, 5000))
def test_the_rate_never_rises_after_the_warm_up(steps):
    rates = [learning_rate(step, 1.0, steps) for step in range(min(WARM_UP, steps), steps)]
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert all(0 < rate <= 1 for rate in rates)


@given(st.integers(1, 100_000))
def test_a_total_fixed_when_decay_begins_gives_the_rates_of_that_many_steps(done):
    steps = total_steps(done)
    assert decay_start(steps) == done
    for step in {0, done // 2, done - 1}:
        assert learning_rate(step, 1.0, None) == learning_rate(step, 1.0, steps)


@given(st.floats(0.01, 1.0), st.floats(1, 100))
def test_a_budget_ends_when_it_should(seconds_per_step, budget):
    done = 1
    while total_steps(done) < budget / seconds_per_step:
        done += 1
    steps = total_steps(done)
    assert steps * seconds_per_step == pytest.approx(budget, abs=4 * seconds_per_step)
