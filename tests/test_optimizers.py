"""Optimizers beside their textbook formulas, one number at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from charrnn.config import OPTIMIZERS
from charrnn.training.optimizers import OPTIMIZER_CLASSES, clip, sum_of_squares

PER_STEP = 3_000  # characters
BETA2 = 0.5 ** (PER_STEP / 236_000)


def textbook(name, gradients, lr):
    """Return θ from 1.0 on after one update for each gradient."""
    theta, m, v = 1.0, 0.0, 0.0
    for step, g in enumerate(gradients, 1):
        if name == "adam":
            m, v = 0.9 * m + 0.1 * g, BETA2 * v + (1 - BETA2) * g * g
            theta -= lr * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - BETA2**step)) + 1e-8)
        elif name == "rmsprop":
            v = 0.95 * v + 0.05 * g * g
            theta -= lr * g / (math.sqrt(v) + 1e-8)
        elif name == "adagrad":
            v += g * g
            theta -= lr * g / (math.sqrt(v) + 1e-8)
        else:
            m = 0.9 * m + g
            theta -= lr * m
    return theta


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_follow_the_formula(name):
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((12, 5))
    theta, optimizer = np.ones(5), OPTIMIZER_CLASSES[name](PER_STEP)
    moments = np.zeros((len(optimizer.names), 5))
    for step, g in enumerate(gradients, 1):
        theta -= optimizer.change(0.05, step, g.copy(), *moments)
    expected = [textbook(name, list(column), 0.05) for column in gradients.T]
    np.testing.assert_allclose(theta, expected, rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_the_whole_state_of_an_optimizer(name):
    rng = np.random.default_rng(1)
    gradients = rng.standard_normal((10, 4)).astype(np.float32)
    straight, optimizer = np.ones(4, np.float32), OPTIMIZER_CLASSES[name](PER_STEP)
    moments = np.zeros((len(optimizer.names), 4), np.float32)
    for step, g in enumerate(gradients, 1):
        straight -= optimizer.change(0.05, step, g.copy(), *moments)
        if step == 6:
            theta, kept = straight.copy(), moments.copy()
    for step, g in enumerate(gradients[6:], 7):
        theta -= OPTIMIZER_CLASSES[name](PER_STEP).change(0.05, step, g, *kept)
    np.testing.assert_array_equal(theta, straight)


def test_adams_second_moment_forgets_within_ten_steps_at_the_slowest():
    m, v = np.zeros((2, 1))
    OPTIMIZER_CLASSES["adam"](1e9).change(0.05, 1, np.array([3.0]), m, v)
    assert v == pytest.approx(0.1 * 9)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updating_in_parts_equals_updating_the_whole(name):
    rng = np.random.default_rng(2)
    optimizer = OPTIMIZER_CLASSES[name](PER_STEP)
    whole = rng.standard_normal((1 + len(optimizer.names), 100)).astype(np.float32) ** 2
    parts = whole.copy()
    expected = optimizer.change(0.05, 3, *whole)
    for stretch in (slice(0, 37), slice(37, 100)):
        found = optimizer.change(0.05, 3, *parts[:, stretch])
        np.testing.assert_array_equal(found, expected[stretch])
    np.testing.assert_array_equal(parts, whole)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.floats(0.01, 10))
def test_clipping_keeps_the_direction_and_bounds_the_norm(values, limit):
    g = np.array(values)
    before = g.copy()
    norm = math.sqrt(sum_of_squares(g))
    assert norm == pytest.approx(float(np.linalg.norm(before)))
    clip(g, norm, limit)
    if norm <= limit:
        np.testing.assert_array_equal(g, before)
    else:
        np.testing.assert_allclose(g, before * (limit / norm), rtol=1e-12)


def test_no_clipping_leaves_the_gradient_alone():
    g = np.array([30.0, 40.0])
    clip(g, 50.0, 0)
    assert g.tolist() == [30.0, 40.0]


def test_the_norm_of_huge_single_precision_gradients_is_finite():
    g = np.full(4, 1e30, np.float32)
    assert math.sqrt(sum_of_squares(g)) == pytest.approx(2e30)
