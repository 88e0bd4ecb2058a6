"""The lecture's RNN, literally: its loss, and its gradient in two independent ways.

h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L = Σ_t L_t,
L_t = −ln ŷ_t[target_t], t = 0…T.

One vector per step, no batch, float64: slow and plain, as a reference for the fast cells. Sizes:
H hidden units, N symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.network.gradcheck import central_difference
from charrnn.network.parameters import orthogonal

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Example:
    """The lecture's RNN in float64, and a text for it."""

    x: Indices  # (T+1,), the symbols read
    targets: Indices  # (T+1,), the symbols to predict
    h_before: Array  # (H,), h_{−1}
    V: Array  # (H, N)
    W: Array  # (H, H)
    b_h: Array  # (H,)
    U: Array  # (N, H)
    b_y: Array  # (N,)


def random_network(rng: np.random.Generator, H: int, T: int, N: int) -> Example:
    """Return a random network and a text of T + 1 symbols; all singular values of W are 1."""
    return Example(
        V=rng.normal(0, 0.5, (H, N)),
        W=orthogonal(rng, H),
        b_h=rng.normal(0, 0.2, H),
        U=rng.normal(0, 1 / np.sqrt(H), (N, H)),
        b_y=rng.normal(0, 0.5, N),
        h_before=rng.uniform(-0.5, 0.5, H),
        x=rng.integers(N, size=T + 1),
        targets=rng.integers(N, size=T + 1),
    )


def softmax(logits: Array) -> Array:
    """Return exp(logits) over its sum along the last axis; nothing overflows."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def distance(candidate: Array, reference: Array) -> float:
    """‖candidate − reference‖ / ‖reference‖; absolute where the reference is zero."""
    size = float(np.linalg.norm(reference))
    return float(np.linalg.norm(candidate - reference)) / (size or 1.0)


def forward(net: Example) -> tuple[float, Array, Array]:
    """Return L in nats, h (T+1, H) and ŷ (T+1, N)."""
    h = np.empty((len(net.x), len(net.b_h)))
    for t, x in enumerate(net.x):
        h[t] = np.tanh(net.V[:, x] + net.W @ (h[t - 1] if t else net.h_before) + net.b_h)
    y_hat = softmax(h @ net.U.T + net.b_y)
    return -float(np.log(y_hat[np.arange(len(h)), net.targets]).sum()), h, y_hat


def numeric_gradient(net: Example, name: str) -> Array:
    """Return ∂L/∂(the array called `name`) by central differences, one element at a time."""
    array: Array = getattr(net, name)
    numeric = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        view = array[(*index, None)]
        numeric[index] = central_difference(lambda: forward(net)[0], view)
    return numeric


def bptt(net: Example) -> dict[str, Array]:
    """Return the gradients of L by backpropagation through time, which forms no Jacobian.

    The exercise changes lines of this code to reproduce known mistakes.
    """
    _, h, y_hat = forward(net)
    dV, dW, db_h = np.zeros_like(net.V), np.zeros_like(net.W), np.zeros_like(net.b_h)
    dU, db_y = np.zeros_like(net.U), np.zeros_like(net.b_y)
    carry = np.zeros_like(net.h_before)  # what reaches h_t from all later losses
    T = len(net.x)
    for t in reversed(range(T)):
        h_last = h[t - 1] if t > 0 else net.h_before
        da = y_hat[t].copy()
        da[net.targets[t]] -= 1
        dU += np.outer(da, h[t])
        db_y += da
        dh = net.U.T @ da + carry
        dA = dh * (1 - h[t] ** 2)
        dV[:, net.x[t]] += dA
        dW += np.outer(dA, h_last)
        db_h += dA
        carry = net.W.T @ dA
    return {"V": dV, "W": dW, "b_h": db_h, "U": dU, "b_y": db_y, "h_before": carry}
