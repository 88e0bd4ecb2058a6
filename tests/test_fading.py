"""The gradient by lag: Jacobians and terms against finite differences of the oracle's steps."""

from itertools import pairwise

import numpy as np
import oracle
import pytest
from hypothesis import given, settings, strategies as st

from charrnn.config import ModelConfig
from charrnn.lecture import fading as module
from charrnn.lecture.fading import fading, fading_of, step
from charrnn.network.cells import CELL_CLASSES, GRU
from charrnn.network.parameters import Parameters

CELLS = ("rnn", "gru", "lstm")
each_cell = pytest.mark.parametrize("cell", CELLS)


def oracle_step(cell, A, W, s):
    """s_t by the oracle; here h is the last part of a state, not the first."""
    H = W.shape[1]
    return oracle.step(cell, A, W, 0, s.reshape(-1, H)[::-1])[::-1].ravel()


def weights(cell, H=4, N=3, steps=6, seed=0):
    rng, G = np.random.default_rng(seed), len(CELL_CLASSES[cell].gates)
    sizes = (G * H, N), (G * H, H), (G * H,), (N, H), (N,)
    return [*(rng.normal(0, 0.7, size) for size in sizes), rng.integers(N, size=steps + 1)]


def parameters_of(cell, V, W, *others):
    parameters = Parameters(ModelConfig(cell, W.shape[1]), V.shape[1], V.dtype)
    for (_, view), array in zip(parameters.items(), (V, W, *others), strict=True):
        view[:] = array
    return parameters


def oracle_loss(cell, *arrays, x):
    found = oracle.steps(parameters_of(cell, *arrays), x[:-1])
    return sum(oracle.surprise(logits, y) for (_, logits), y in zip(found, x[1:], strict=True))


def fading_at(cell, *arrays):
    *arrays, x = arrays
    return fading_of(parameters_of(cell, *arrays), x)


def terms_at(cell, *arrays):
    """Return the terms (T+1, G·H) from which the shares come."""
    found = []
    original = module.terms_and_norms

    def kept(*arguments):
        result = original(*arguments)
        found.append(result[0])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "terms_and_norms", kept)
        fading_at(cell, *arrays)
    return found[0]


def gradient(cell, *arrays):
    """Return ∂L/∂b_h, to which the terms of all lags add up."""
    return np.asarray(terms_at(cell, *arrays).sum(axis=0))


def figures(result, name):
    """Return a figure by lag."""
    return [getattr(lag, name) for lag in result.lags]


def numeric_gradient(cell, V, W, b_h, U, b_y, x):
    return oracle.differences(lambda at: oracle_loss(cell, V, W, at, U, b_y, x=x), b_h)


def jacobians(cell, A, W, s):
    """Return ∂s_t/∂s_{t−1} and ∂s_t/∂b_h by finite differences of the contract's equations."""
    return (
        oracle.differences(lambda at: oracle_step(cell, A, W, at), s),
        oracle.differences(lambda at: oracle_step(cell, at, W, s), A),
    )


@each_cell
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), H=st.integers(1, 5))
def test_a_step_and_both_its_jacobians_are_those_of_the_contract(cell, seed, H):
    rng, G, S = np.random.default_rng(seed), len(CELL_CLASSES[cell].gates), oracle.STATES[cell]
    A, W, s = rng.normal(size=G * H), rng.normal(size=(G * H, H)), rng.normal(size=S * H)
    state, slopes = step(cell, A, W, s)
    np.testing.assert_allclose(state, oracle_step(cell, A, W, s), atol=1e-13)
    by_part = np.vstack([np.hstack([*map(np.diag, rows.T)]) for rows in slopes])  # (S·H, parts·H)
    by_state, by_b_h = by_part[:, G * H : (G + S) * H], by_part[:, (G + S) * H :]
    by_state[:, -H:] += by_part[:, : G * H] @ W
    expected_state, expected_b_h = jacobians(cell, A, W, s)
    np.testing.assert_allclose(by_state, expected_state, atol=1e-8)
    np.testing.assert_allclose(by_b_h, expected_b_h, atol=1e-8)


@each_cell
def test_the_terms_of_all_lags_sum_to_the_numeric_gradient(cell):
    arrays = weights(cell)
    np.testing.assert_allclose(
        gradient(cell, *arrays), numeric_gradient(cell, *arrays), rtol=1e-6, atol=1e-8
    )


@each_cell
def test_a_term_is_its_double_sum_of_jacobian_products(cell):
    V, W, b_h, U, b_y, x = arrays = weights(cell)
    H, S = W.shape[1], oracle.STATES[cell]
    s, steps, rows = np.zeros(S * H), [], []
    for now, then in pairwise(x):
        steps.append(jacobians(cell, V[:, now] + b_h, W, s))
        s = oracle_step(cell, V[:, now] + b_h, W, s)
        y_hat = np.exp(U @ s[-H:] + b_y) / np.exp(U @ s[-H:] + b_y).sum()
        rows.append(np.concatenate([np.zeros((S - 1) * H), (y_hat - np.eye(3)[then]) @ U]))
    for lag, term in enumerate(terms_at(cell, *arrays)):
        expected = np.zeros_like(b_h)
        for t in range(lag, len(steps)):
            product = np.eye(S * H)
            for i in range(t, t - lag, -1):
                product = product @ steps[i][0]
            expected += rows[t] @ product @ steps[t - lag][1]
        np.testing.assert_allclose(term, expected, atol=1e-8)


@each_cell
def test_a_norm_is_that_of_the_last_h_by_an_earlier_state(cell):
    V, W, b_h, U, b_y, x = weights(cell)
    H, A = W.shape[1], V[:, x[:-1]].T + b_h
    states = [np.zeros(oracle.STATES[cell] * H)]
    for A_t in A:
        states.append(oracle_step(cell, A_t, W, states[-1]))

    def last_h(s, k):
        for A_t in A[k + 1 :]:
            s = oracle_step(cell, A_t, W, s)
        return s[-H:]

    T = len(A) - 1
    for lag, norm in enumerate(figures(fading_at(cell, V, W, b_h, U, b_y, x), "norm")):
        by_earlier = oracle.differences(lambda s, k=T - lag: last_h(s, k), states[T - lag + 1])
        assert norm == pytest.approx(np.linalg.norm(by_earlier, 2), rel=1e-6, abs=1e-9)


def test_a_gru_step_without_its_r_is_found_wrong(monkeypatch):
    right = GRU.stepper

    def without_r(Wh, now, then):
        step = right(Wh, now, then)

        def wrong(A):
            Wh[:4] = 50  # r = 1
            step(A)

        return wrong

    monkeypatch.setattr(GRU, "stepper", staticmethod(without_r))
    arrays = weights("gru")
    assert not np.allclose(gradient("gru", *arrays), numeric_gradient("gru", *arrays), rtol=1e-2)


@each_cell
@pytest.mark.parametrize("gain", [0.5, 1.25])
def test_the_largest_singular_value_of_w_is_the_gain(cell, gain):
    assert fading(cell, 0, 6, 3, gain).singular == pytest.approx(gain, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gain=st.floats(0.1, 2))
def test_the_norms_of_the_rnn_never_exceed_the_gain_to_the_power_of_the_lag(seed, gain):
    for lag, norm in enumerate(figures(fading("rnn", seed, 5, 12, gain), "norm")):
        assert norm <= gain**lag * (1 + 1e-12)


def test_with_gain_one_half_the_rnns_gradient_fades():
    result = fading("rnn", 0, 16, 24, 0.5)
    assert result.lags[-1].norm <= 0.5**24
    assert result.factor <= 0.5
    assert result.lags[7].lost < 0.01
    assert result.sentence.endswith("the gradient fades.")


def test_with_gain_two_the_rnns_gradient_explodes_and_truncation_loses_it():
    result = fading("rnn", 0, 32, 32, 2.0)
    assert result.lags[-1].norm > 10
    assert result.lags[7].lost > 0.5
    assert result.sentence.endswith("the gradient explodes.")


def test_with_hardly_any_w_the_lstm_remembers_by_its_forget_gate_of_about_sigma_of_1():
    norms = figures(fading("lstm", 0, 16, 24, 1e-9), "norm")
    assert (norms[24] / norms[1]) ** (1 / 23) == pytest.approx(oracle.sigmoid(1), abs=0.1)
    assert fading("rnn", 0, 16, 24, 1e-9).lags[24].norm < 1e-200


@each_cell
def test_the_factor_taken_once_a_step_leads_to_the_last_norm(cell):
    result = fading(cell, 0, 16, 9, 1.0)
    assert result.factor**9 == pytest.approx(result.lags[9].norm, rel=1e-12)


@each_cell
def test_a_larger_gain_keeps_more_of_the_gradient_at_the_longest_lag(cell):
    norms = [fading(cell, 0, 16, 24, gain).lags[-1].norm for gain in (0.8, 1.0, 1.25)]
    assert norms == sorted(norms)


@each_cell
def test_shares_sum_to_1_and_follow_the_terms(cell):
    arrays = weights(cell)
    shares = figures(fading_at(cell, *arrays), "share")
    sizes = [float(np.sqrt((term**2).sum())) for term in terms_at(cell, *arrays)]
    assert sum(shares) == pytest.approx(1, rel=1e-12)
    assert shares == pytest.approx([size / sum(sizes) for size in sizes], rel=1e-12)


@each_cell
def test_truncation_keeps_the_lags_below_its_steps_and_all_of_them_at_the_end(cell):
    arrays = weights(cell)
    lost, terms = figures(fading_at(cell, *arrays), "lost"), terms_at(cell, *arrays)
    two, whole = terms[0] + terms[1], gradient(cell, *arrays)
    assert lost[1] == pytest.approx(np.linalg.norm(two - whole) / np.linalg.norm(whole), rel=1e-12)
    assert lost[-1] < 1e-14


def test_the_lags_run_from_0_where_the_norm_is_1_to_t():
    for cell in CELLS:
        result = fading(cell, 0, 3, 6, 1.0)
        assert figures(result, "lag") == [*range(7)]
        assert result.lags[0].norm == pytest.approx(1, rel=1e-12)


def test_float32_weights_and_small_integer_symbols_give_the_float64_figures():
    arrays = [array.astype(np.float32) for array in weights("lstm")[:5]]
    x = weights("lstm")[5]
    small = fading_at("lstm", *arrays, x.astype(np.uint8))
    large = fading_at("lstm", *(array.astype(np.float64) for array in arrays), x)
    assert small.lags == large.lags
    assert small.gain is None


def test_a_vocabulary_of_one_symbol_has_no_gradient_and_no_division_by_zero():
    result = fading_at("rnn", *weights("rnn", N=1))
    assert {(lag.share, lag.lost) for lag in result.lags} == {(0.0, 0.0)}
