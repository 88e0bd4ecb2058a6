"""The cells by the checkpoint's equations, gate by gate and one step at a time in float64: what the
package's own results are compared with.
"""

import numpy as np

STATES = {"rnn": 1, "gru": 1, "lstm": 2}


def sigmoid(a):
    return 0.5 * (1 + np.tanh(a / 2))


def step(cell, x, W, b_h, state):
    """Return the state (S, H), h first, after a step of one stream; x (G·H,) is its V x_t."""
    h = state[0]
    G = len(W) // len(h)
    a, Wh = np.split(x + b_h, G), np.split(W @ h, G)
    if cell == "rnn":
        return np.tanh([a[0] + Wh[0]])
    if cell == "gru":
        r, z = sigmoid(a[0] + Wh[0]), sigmoid(a[1] + Wh[1])
        n = np.tanh(a[2] + r * Wh[2])
        return np.array([(1 - z) * n + z * h])
    i, f, o = (sigmoid(a[k] + Wh[k]) for k in range(3))
    c = f * state[1] + i * np.tanh(a[3] + Wh[3])
    return np.array([o * np.tanh(c), c])


def steps(parameters, indices, state=None):
    """Yield the state (L, S, H) and the logits (N,) after each character of one stream."""
    p = {name: array.astype(np.float64) for name, array in parameters.items()}
    cell, H, L = (getattr(parameters.config, name) for name in ("cell", "hidden", "layers"))
    state = np.zeros((L, STATES[cell], H)) if state is None else state.astype(np.float64)
    for index in indices:
        for layer in range(L):
            V, W, b_h = (p[f"layers.{layer}.{name}"] for name in ("V", "W", "b_h"))
            x = V[:, index] if layer == 0 else V @ state[layer - 1, 0]
            state[layer] = step(cell, x, W, b_h, state[layer])
        yield state.copy(), p["U"] @ state[-1, 0] + p["b_y"]


def surprise(logits, y):
    """Return −ln ŷ[y] in nats."""
    return np.logaddexp.reduce(logits) - logits[y]


def nats(model, text):
    """Return the surprise of every character of a text but the first."""
    x = model.vocabulary.encode(text)
    found = zip(steps(model.parameters, x[:-1]), x[1:], strict=True)
    return np.array([surprise(logits, y) for (_, logits), y in found])


def differences(function, at):
    """Return the Jacobian of a function of a vector, or its gradient, by central differences."""
    return np.transpose(
        [(function(at + e) - function(at - e)) / 2e-6 for e in 1e-6 * np.eye(len(at))]
    )
