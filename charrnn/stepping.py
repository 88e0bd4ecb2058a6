"""The network one character at a time, for drawing: the same equations as `network.cells`, without a tape.

What a step costs for one stream is memory traffic and the number of NumPy calls (0.4 µs each), hence:
- Everything that reads h_t, the layer's own W of the next step and the V above or U, is one matrix, so one product.
- V is stored transposed with b_h added: reading a character is adding one row.
- σ(a) = 1 / (1 + exp(−a)) and tanh a = 2σ(2a) − 1, the −1 and −2 being in the weights' copy.

Sizes: S streams, H units, G gates, N symbols, R rows that go up: G·H of the layer above, or N. With one stream the
arrays are vectors, (H,) for (H, S), and the products matrix-vector ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.network.model import Model
from charrnn.network.parameters import Parameters

Array = NDArray[Any]
Advance = Callable[[Array], None]  # advance(x): from h_{t-1} to h_t in place, x (G·H,) or (G·H, S) being V x_t + b_h, scaled


def rnn(z: Array, h: Array) -> Advance:
    """Return the step h ← tanh(x + z), where z = W h holds the product."""
    add, tanh = np.add, np.tanh

    def advance(x: Array) -> None:
        add(z, x, h)
        tanh(h, h)

    return advance


def gru(z: Array, h: Array) -> Advance:
    """Return the step r, z = σ(x + W h), n = tanh(x + r ⊙ W h), h ← n + z ⊙ (h − n); rows r, z, n of the product."""
    H, one = len(h), h.dtype.type(1)
    gates, r, keep, n = z[: 2 * H], z[:H], z[H : 2 * H], z[2 * H :]
    add, exp, divide, multiply, subtract, tanh = np.add, np.exp, np.divide, np.multiply, np.subtract, np.tanh

    def advance(x: Array) -> None:
        add(gates, x[: 2 * H], gates)
        exp(gates, gates)
        add(gates, one, gates)
        divide(one, gates, gates)
        multiply(r, n, n)
        add(n, x[2 * H :], n)
        tanh(n, n)
        subtract(h, n, h)
        multiply(keep, h, h)
        add(h, n, h)

    return advance


def lstm(z: Array, h: Array) -> Advance:
    """Return the step c ← f ⊙ c + i ⊙ g, h ← o ⊙ tanh c; rows i, f, o, g of the product, and c behind them in z.

    i, f and g, c lie side by side, so that i ⊙ g and f ⊙ c are one call.
    """
    H, one = len(h), h.dtype.type(1)
    gates, i_f, o, g, g_c, c = z[: 4 * H], z[: 2 * H], z[2 * H : 3 * H], z[3 * H : 4 * H], z[3 * H :], z[4 * H :]
    above = np.ones((4 * H,) + (1,) * (h.ndim - 1), h.dtype)
    above[3 * H :] = 2  # 2 / (1 + exp(−2a)) = 1 + tanh a
    terms = np.empty_like(i_f)
    new, kept = terms[:H], terms[H:]
    add, exp, divide, multiply, subtract, tanh = np.add, np.exp, np.divide, np.multiply, np.subtract, np.tanh

    def advance(x: Array) -> None:
        add(gates, x, gates)
        exp(gates, gates)
        add(gates, one, gates)
        divide(above, gates, gates)
        subtract(g, one, g)
        multiply(i_f, g_c, terms)
        add(new, kept, c)
        tanh(c, h)
        multiply(o, h, h)

    return advance


CELLS = {"rnn": rnn, "gru": gru, "lstm": lstm}
SCALES = {"rnn": (1,), "gru": (-1, -1, 1), "lstm": (-1, -1, -1, -2)}  # of each gate's rows in V, W and b_h


class Layer:
    """A layer's h and c and the scratch for its step; `up` (R, S) is what it tells the layer above, or U h."""

    def __init__(self, parameters: Parameters, layer: int, scale: Array, columns: tuple[int, ...]) -> None:
        H, GH, top = parameters.config.hidden, len(scale), layer + 1 == parameters.config.layers
        up = parameters["U"] if top else parameters[f"layers.{layer + 1}.V"] * scale
        bias = parameters["b_y"] if top else parameters[f"layers.{layer + 1}.b_h"] * scale[:, 0]
        self.M = np.concatenate([up, parameters[f"layers.{layer}.W"] * scale])
        self.bias = bias.reshape(-1, *(1 for _ in columns))
        R = len(up)
        self.memory = np.zeros((R + GH + H, *columns), up.dtype)  # up, W h, c
        self.h = np.zeros((H, *columns), up.dtype)
        self.up = self.memory[:R]
        self._product = self.memory[: R + GH]
        self._advance = CELLS[parameters.config.cell](
            self.memory[R:] if parameters.config.cell == "lstm" else self._product[R:], self.h
        )

    def step(self, x: Array) -> None:
        """Read x (G·H, S), the scaled input with its bias: h, c, W h and `up` are those of the next step."""
        self._advance(x)
        np.dot(self.M, self.h, self._product)


class Sampler:
    """S copies of a network, each with a state of its own (zero at first), that read characters and predict the next.

    `logits`, (N,) with one stream, else (N, S), are U h_t + b_y after the last `feed`; each feed overwrites them.
    """

    def __init__(self, model: Model, streams: int = 1) -> None:
        parameters, config = model.parameters, model.config
        dtype, columns = parameters.flat.dtype, () if streams == 1 else (streams,)
        scale = np.repeat(np.array(SCALES[config.cell], dtype), config.hidden)[:, None]
        self.model, self.streams = model, streams
        self.logits: Array = np.zeros((len(model.vocabulary), *columns), dtype)
        self._layers = [Layer(parameters, layer, scale, columns) for layer in range(config.layers)]
        V = (parameters["layers.0.V"] + parameters["layers.0.b_h"][:, None]) * scale
        self._V = V if columns else V.T.copy()
        self._rows = [] if columns else list(self._V)  # a list gives a row faster than an array
        self._x = np.empty((len(scale), *columns), dtype)
        self.quietly = copy_context().run  # quietly(function, *arguments): exp may overflow to ∞, which gives σ = 0 exactly
        self.quietly(np.seterr, over="ignore", under="ignore")

    def feed(self, indices: int | Array) -> None:
        """Every stream reads one character: `indices` is (S,), or one for all."""
        self.quietly(self._feed, indices)

    def _feed(self, indices: Any) -> None:
        if self._rows:
            x = self._rows[indices]
        else:
            x = np.take(self._V, np.broadcast_to(indices, self.streams), 1, self._x, "clip")  # any other mode copies
        for layer in self._layers[:-1]:
            layer.step(x)
            x = np.add(layer.up, layer.bias, layer.up)
        top = self._layers[-1]
        top.step(x)
        np.add(top.up, top.bias, self.logits)

    def spread(self, streams: int) -> Sampler:
        """Return a sampler of as many streams that all go on from the state of this one, which has one stream."""
        wide = Sampler(self.model, streams)
        ours = [self.logits, *(array for layer in self._layers for array in (layer.memory, layer.h))]
        theirs = [wide.logits, *(array for layer in wide._layers for array in (layer.memory, layer.h))]
        for one, many in zip(ours, theirs, strict=True):
            many[:] = one if streams == 1 else one[:, None]
        return wide
