"""The network beside the oracle, and that neither cuts nor batches change what it computes."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings, strategies as st

from charrnn.config import CELLS, ModelConfig
from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import initialize


def losses_and_state(parameters, x, y, state):
    """Return the oracle's losses (T, B) and last state (L, S, H, B)."""
    nats, after = np.zeros(x.shape), np.zeros(state.shape)
    for b in range(x.shape[1]):
        found = oracle.steps(parameters, x[:, b], state[..., b])
        for t, (after[..., b], logits) in enumerate(found):
            nats[t, b] = oracle.surprise(logits, y[t, b])
    return nats, after


def case(cell, layers, dtype="float64", T=7, B=3, H=5, N=6, seed=0):
    rng = np.random.default_rng(seed)
    config = ModelConfig(cell, H, layers)
    parameters = initialize(config, N, rng, dtype=np.float64)
    parameters.flat[:] += 0.3 * rng.standard_normal(parameters.flat.size)
    state = 0.5 * rng.standard_normal(zero_state(config, B, np.float64).shape)
    x, y = rng.integers(0, N, (2, T, B))
    return Network(config, dtype), parameters.astype(dtype), x, y, state.astype(dtype)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_losses_and_state_equal_the_equations(cell, layers):
    network, parameters, x, y, state = case(cell, layers)
    nats, after = network.losses(parameters, x, y, state)
    expected_nats, expected_after = losses_and_state(parameters, x, y, state)
    np.testing.assert_allclose(nats, expected_nats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after, expected_after, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_single_precision_is_exact_to_its_rounding(cell):
    network, parameters, x, y, state = case(cell, 2, "float32", T=40, H=24, N=30)
    nats, _ = network.losses(parameters, x, y, state)
    assert nats.dtype == np.float32
    expected, _ = losses_and_state(parameters, x, y, state)
    np.testing.assert_allclose(nats, expected, rtol=0, atol=3e-5)


@settings(max_examples=40, deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    layers=st.integers(1, 2),
    T=st.integers(2, 9),
    cut=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_a_chunk_equals_its_two_parts_with_the_state_carried(cell, layers, T, cut, seed):
    cut = min(cut, T - 1)
    network, parameters, x, y, state = case(cell, layers, T=T, seed=seed)
    whole, last = network.losses(parameters, x, y, state)
    first, between = network.losses(parameters, x[:cut], y[:cut], state)
    second, after = network.losses(parameters, x[cut:], y[cut:], between)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_equals_its_streams_one_by_one(cell):
    network, parameters, x, y, state = case(cell, 2, B=5)
    whole, last = network.losses(parameters, x, y, state)
    for b in range(5):
        one = slice(b, b + 1)
        nats, after = network.losses(parameters, x[:, one], y[:, one], state[..., one])
        np.testing.assert_allclose(nats, whole[:, one], rtol=0, atol=1e-12)
        np.testing.assert_allclose(after, last[..., one], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_a_batch_are_the_sum_of_its_streams(cell):
    network, parameters, x, y, state = case(cell, 2, B=4)
    total, whole, part = parameters.like(), parameters.like(), parameters.like()
    network.gradient(parameters, x, y, state, out=whole, weight=0.1)
    for b in range(4):
        one = slice(b, b + 1)
        network.gradient(parameters, x[:, one], y[:, one], state[..., one], out=part, weight=0.1)
        total.flat += part.flat
    np.testing.assert_allclose(total.flat, whole.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stream_that_ends_early_counts_only_to_its_end(cell):
    network, parameters, x, y, state = case(cell, 2, T=6, B=3)
    lengths = np.array([6, 4, 0])
    ragged, expected, part = parameters.like(), parameters.like(), parameters.like()
    _, after = network.gradient(parameters, x, y, state, out=ragged, weight=1.0, lengths=lengths)
    for b, length in enumerate(lengths[:2]):
        one = slice(b, b + 1)
        _, alone = network.gradient(
            parameters, x[:length, one], y[:length, one], state[..., one], out=part, weight=1.0
        )
        expected.flat += part.flat
        np.testing.assert_allclose(after[..., one], alone, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ragged.flat, expected.flat, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(after[..., 2], state[..., 2])


@pytest.mark.parametrize("cell", CELLS)
def test_scratch_arrays_kept_from_other_sizes_change_nothing(cell):
    network, parameters, x, y, state = case(cell, 2, T=9, B=4)
    expected = Network(network.config, "float64").losses(parameters, x[:3], y[:3], state)[0]
    for T, B in ((9, 4), (2, 4), (5, 1), (9, 2), (7, 3), (9, 4)):
        network.gradient(
            parameters, x[:T, :B], y[:T, :B], state[..., :B], out=parameters.like(), weight=1.0
        )
    np.testing.assert_array_equal(network.losses(parameters, x[:3], y[:3], state)[0], expected)


def test_the_state_given_is_not_changed():
    network, parameters, x, y, state = case("lstm", 2)
    before = state.copy()
    network.gradient(parameters, x, y, state, out=parameters.like(), weight=1.0)
    np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_neither_warn_nor_give_nan(cell):
    network, parameters, x, y, state = case(cell, 1, "float32")
    parameters.flat *= 1e4
    gradient = parameters.like()
    nats, after = network.gradient(parameters, x, y, state, out=gradient, weight=1 / x.size)
    assert np.isfinite(nats).all()
    assert np.isfinite(after).all()
    assert np.isfinite(gradient.flat).all()
