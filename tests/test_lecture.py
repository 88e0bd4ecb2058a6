"""The quiz: on real networks one candidate of each list is the gradient, and the numbers
find it.
"""

import json
from dataclasses import asdict, replace

import numpy as np
import oracle
import pytest
from hypothesis import given, settings, strategies as st

from charrnn.checkpoint.model import finite_json
from charrnn.lecture import quiz as lecture, rnn as lecture_rnn
from charrnn.lecture.quiz import quiz
from charrnn.lecture.rnn import distance, random_network

SEEDS = st.integers(0, 2**32 - 1)


def network(seed=0, H=4, T=5, N=3, gain=1.0):
    net = random_network(np.random.default_rng(seed), H, T, N)
    return replace(net, W=gain * net.W)


def right(result):
    """Return the numbers of the right candidates."""
    b_y, b_h = ([n for n, c in enumerate(cs, 1) if c.right] for cs in (result.b_y, result.b_h))
    return b_y, b_h


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    H=st.integers(2, 7),
    T=st.integers(3, 8),
    N=st.integers(3, 7),
    gain=st.floats(0.1, 2),
)
def test_exactly_candidate_2_of_b_y_and_4_of_b_h_are_right(seed, H, T, N, gain):
    assert right(quiz(network(seed, H, T, N, gain))) == ([2], [4])


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS,
    W=st.lists(st.floats(-1.5, 1.5).filter(lambda w: abs(w) > 0.05), min_size=9, max_size=9),
)
def test_the_same_two_are_right_when_w_is_not_orthogonal(seed, W):
    assert right(quiz(replace(network(seed, H=3), W=np.reshape(W, (3, 3))))) == ([2], [4])


@pytest.mark.parametrize("H", [1, 2, 8, 40, 64])
@pytest.mark.parametrize("T", [3, 10, 20])
def test_the_right_candidates_are_found_at_all_sizes_that_the_command_takes(H, T):
    assert right(quiz(network(0, H, T, 6))) == ([2], [4])


def test_without_recurrence_candidates_2_and_4_of_b_h_are_the_same():
    assert right(quiz(replace(network(), W=np.zeros((4, 4))))) == ([2], [2, 4])


def test_numeric_gradient_and_bptt_agree_with_complex_steps():
    """ln(softmax) is analytic, so Im L(b + iε) / ε is the gradient to machine accuracy."""
    net = network(T=7)

    def complex_loss(b_h, b_y):
        h, total = net.h_before.astype(complex), 0j
        for x, target in zip(net.x, net.targets, strict=True):
            h = np.tanh(net.V[:, x] + net.W @ h + b_h)
            logits = net.U @ h + b_y
            total += np.log(np.exp(logits).sum()) - logits[target]
        return total

    exact = {
        "b_h": np.array(
            [complex_loss(net.b_h + 1e-30j * e, net.b_y + 0j).imag / 1e-30 for e in np.eye(4)]
        ),
        "b_y": np.array(
            [complex_loss(net.b_h + 0j, net.b_y + 1e-30j * e).imag / 1e-30 for e in np.eye(3)]
        ),
    }
    assert lecture_rnn.forward(net)[0] == pytest.approx(
        complex_loss(net.b_h, net.b_y).real, rel=1e-12
    )
    for name, expected in exact.items():
        np.testing.assert_allclose(lecture_rnn.bptt(net)[name], expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(
            lecture_rnn.numeric_gradient(net, name), expected, rtol=1e-8, atol=1e-9
        )


def test_each_jacobian_is_that_of_finite_differences():
    net = network()
    _, h, y_hat = lecture_rnn.forward(net)
    target, V_x = int(net.targets[2]), net.V[:, net.x[2]]

    def softmax(a):
        return np.exp(a) / np.exp(a).sum()

    def same(found, function, at):
        np.testing.assert_allclose(found, oracle.differences(function, at), rtol=1e-7, atol=1e-9)

    same(lecture.h_by_h_before(net.W, h[2]), lambda h_1: np.tanh(V_x + net.W @ h_1 + net.b_h), h[1])
    same(lecture.h_by_b_h(h[2]), lambda b_h: np.tanh(V_x + net.W @ h[1] + b_h), net.b_h)
    y_hat_by_a, loss_by_y_hat = (
        lecture.y_hat_by_logits(y_hat[2]),
        lecture.loss_by_y_hat(y_hat[2], target),
    )
    same(y_hat_by_a, lambda b_y: softmax(net.U @ h[2] + b_y), net.b_y)
    same(loss_by_y_hat, lambda y: -np.log(y[target]), y_hat[2])
    same(
        loss_by_y_hat @ y_hat_by_a @ net.U,
        lambda h_2: -np.log(softmax(net.U @ h_2 + net.b_y)[target]),
        h[2],
    )


def test_a_transposed_w_in_the_product_is_found_wrong(monkeypatch):
    monkeypatch.setattr(lecture, "h_by_h_before", lambda W, h: np.diag(1 - h**2) @ W.T)
    result = quiz(network(0, 4, 5, 3))
    assert right(result) == ([2], [])
    assert result.b_h[3].distance > 0.01


def test_a_product_in_the_wrong_order_is_found_wrong(monkeypatch):
    monkeypatch.setattr(lecture, "h_by_h_before", lambda W, h: W @ np.diag(1 - h**2))
    assert right(quiz(network(0, 4, 5, 3))) == ([2], [])


def test_bptt_gives_what_the_right_candidates_give():
    result = quiz(network(0, 4, 5, 3))
    found = lecture_rnn.bptt(result.net)
    assert distance(found["b_y"], result.b_y[1].value) < 1e-14
    assert distance(found["b_h"], result.b_h[3].value) < 1e-14


def test_candidates_3_to_5_of_b_y_are_zero_vectors_at_distance_1():
    for candidate in quiz(network(1, 4, 5, 3)).b_y[2:]:
        np.testing.assert_array_equal(candidate.value, np.zeros(3))
        assert candidate.distance == 1.0


def test_candidate_1_of_b_y_is_shown_at_the_t_where_it_comes_nearest():
    net = network(seed=3, T=6)
    y_hat = lecture_rnn.forward(net)[2]
    direct = y_hat - np.eye(3)[net.targets]  # ∂L_t/∂b_y
    gaps = np.linalg.norm(direct - direct.sum(axis=0), axis=1)
    assert 0 < gaps.argmin() < 6
    np.testing.assert_allclose(quiz(net).b_y[0].value, direct[gaps.argmin()], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, gain=st.floats(0.1, 2))
def test_candidate_2_of_b_h_with_the_total_derivative_is_candidate_4(seed, gain):
    result = quiz(network(seed, 3, 4, 4, gain))
    assert distance(result.b_h_total.value, result.b_h[3].value) < 1e-12
    assert result.b_h_total.right
    assert not result.b_h[1].right


def test_all_four_of_b_h_at_t_1_are_the_sums_written_out_by_hand():
    net = network(T=1)
    _, h, y_hat = lecture_rnn.forward(net)
    e = (y_hat - np.eye(3)[net.targets]) @ net.U  # ∂L_t/∂h_t
    d = 1 - h**2
    one, held, without, whole = quiz(net).b_h
    np.testing.assert_allclose(one.value, min(e * d, key=lambda term: distance(term, whole.value)))
    np.testing.assert_allclose(held.value, e[0] * d[0] + e[1] * d[1], rtol=1e-12)
    np.testing.assert_allclose(without.value, e[0] * d[0] + e[1] * (d[0] + d[1]), rtol=1e-12)
    np.testing.assert_allclose(
        whole.value, e[0] * d[0] + e[1] * d[1] + ((e[1] * d[1]) @ net.W) * d[0], rtol=1e-12
    )


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, N=st.integers(2, 9), T=st.integers(1, 6))
def test_each_y_hat_has_length_n_elements_in_0_to_1_and_sum_1(seed, N, T):
    result = quiz(network(seed, 3, T, N))
    y_hat, facts = lecture_rnn.forward(result.net)[2], result.y_hat
    assert y_hat.shape == (T + 1, N) == (facts.vectors, facts.length)
    assert 0 <= y_hat.min() == facts.least <= facts.greatest == y_hat.max() <= 1
    np.testing.assert_allclose(y_hat.sum(axis=1), 1, atol=1e-14)
    assert facts.sum_error == abs(y_hat.sum(axis=1) - 1).max()


def test_all_singular_values_of_w_are_1():
    assert np.linalg.svd(network(0, 5, 3, 4).W)[1] == pytest.approx(np.ones(5), rel=1e-12)


def test_the_same_seed_gives_the_same_quiz_and_another_seed_another():
    first, again, other = (lecture_rnn.forward(network(seed, 4, 5, 3))[0] for seed in (0, 0, 1))
    assert first == again != other


def test_every_formula_and_sentence_is_one_line_without_a_placeholder_left():
    result = quiz(network(0, 4, 5, 3))
    for candidate in (*result.b_y, *result.b_h, result.b_h_total):
        assert "\n" not in candidate.formula + candidate.sentence
        assert candidate.sentence.endswith(".")


def test_json_has_the_network_and_the_gradients():
    data = json.loads(json.dumps(finite_json(asdict(quiz(network(0, 4, 5, 3)))), allow_nan=False))
    assert data["b_y"][2]["distance"] == 1.0
    assert data["b_h_total"]["right"]
    assert data["y_hat"]["length"] == 3
    assert np.shape(data["net"]["W"]) == (4, 4)
    assert np.shape(data["b_h"][3]["value"]) == (4,)
