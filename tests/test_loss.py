"""The output layer: loss, probabilities and gradients at ordinary and extreme logits."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from charrnn.config import CELLS, ModelConfig
from charrnn.network import loss, network
from charrnn.network.network import Network, symbol_input_backward, zero_state
from charrnn.network.parameters import initialize


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 40),
    P=st.integers(1, 30),
    scale=st.sampled_from([1.0, 100.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_losses_are_right_for_any_logits(N, P, scale, seed):
    rng = np.random.default_rng(seed)
    U, b_y, h = (
        rng.standard_normal((N, 3)) * scale,
        rng.standard_normal(N),
        rng.uniform(-1, 1, (3, P)),
    )
    y = rng.integers(0, N, P)
    logits = U @ h + b_y[:, None]
    expected = np.logaddexp.reduce(logits, axis=0) - logits[y, np.arange(P)]
    np.testing.assert_allclose(loss.losses(U, b_y, h, y), expected, rtol=1e-12, atol=1e-9)


def test_blocks_of_positions_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    U, b_y, h, y = (
        rng.standard_normal((7, 4)),
        rng.standard_normal(7),
        rng.standard_normal((4, 23)),
        rng.integers(0, 7, 23),
    )
    weight = rng.random(23)

    def run():
        out = [np.empty_like(U), np.empty_like(b_y), np.empty_like(h)]
        return [loss.losses_backward(U, b_y, h, y, weight, dU=out[0], db_y=out[1], dh=out[2]), *out]

    whole = run()
    monkeypatch.setattr(loss, "BLOCK", 7 * 5)
    for expected, actual in zip(whole, run(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 300),
    P=st.integers(1, 80),
    at_once=st.sampled_from([7, 512]),
    seed=st.integers(0, 99),
)
def test_columns_of_repeated_symbols_add_up_with_few_and_with_many(N, P, at_once, seed):
    rng = np.random.default_rng(seed)
    dA, x, dV = rng.standard_normal((40, P)), rng.integers(0, N, P), rng.standard_normal((40, N))
    expected = np.zeros((40, N))
    for p in range(P):
        expected[:, x[p]] += dA[:, p]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "ONEHOT", at_once)
        symbol_input_backward(dA, x, dV=dV)
    np.testing.assert_allclose(dV, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("N", [1, 2, 50])
def test_the_first_loss_is_uniform_or_the_unigram_entropy(cell, N):
    rng = np.random.default_rng(1)
    config = ModelConfig(cell, 64, 1)
    frequencies = rng.integers(1, 1000, N).astype(float)
    share = frequencies / frequencies.sum()
    x = rng.choice(N, (65, 200), p=share)
    for given_frequencies, expected in (
        (None, np.log(N)),
        (frequencies, -(share * np.log(share)).sum()),
    ):
        parameters = initialize(config, N, rng, given_frequencies)
        nats, _ = Network(config).losses(
            parameters, x[:-1], x[1:], zero_state(config, 200, "float32")
        )
        assert float(nats.mean()) == pytest.approx(expected, rel=0.01, abs=1e-6)


def test_a_character_that_training_never_saw_is_improbable_but_possible():
    parameters = initialize(
        ModelConfig("rnn", 8), 3, np.random.default_rng(0), np.array([10.0, 5.0, 0.0])
    )
    assert np.isfinite(parameters["b_y"]).all()
    assert parameters["b_y"].argmin() == 2


@pytest.mark.parametrize(("N", "P"), [(1, 10), (7, 1000), (1000, 3), (10**5, 4)])
def test_blocks_cover_all_positions_and_hold_no_more_than_they_may(N, P, monkeypatch):
    monkeypatch.setattr(loss, "BLOCK", 4096)
    found = [*loss._blocks(np.zeros((N, 1)), np.zeros(N), np.zeros((1, P)), np.zeros(P, int))]
    assert [i for block, _, _ in found for i in range(P)[block]] == list(range(P))
    assert max(y_hat.shape[1] for _, y_hat, _ in found) == min(P, max(1, 4096 // N))
