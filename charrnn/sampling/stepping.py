"""The network one character at a time, for drawing: the same equations as `network.cells`, without a tape.

What a step costs for one stream is memory traffic and the number of NumPy calls (0.4 µs each), hence:
- Everything that reads h_t, the layer's own W of the next step and the V above or U, is one matrix, so one product.
- V is stored transposed with b_h added: reading a character is adding one row.
- σ(a) = ½ (1 + tanh(a/2)), in the lstm in the same call as the gate that is a tanh; the ½ of a/2 is in the weights' copy.

Sizes: S streams, H units, G gates, N symbols, R rows that go up: G·H of the layer above, or N. With one stream the
arrays are vectors, (H,) for (H, S), and the products matrix-vector ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.model import Model
from charrnn.network.cells import row_scale
from charrnn.network.parameters import Parameters

Array = NDArray[Any]
Advance = Callable[
    [Array], None
]  # advance(x): from h_{t-1} to h_t in place, x (G·H,) or (G·H, S) being V x_t + b_h, scaled


def rnn(z: Array, h: Array) -> Advance:
    """Return the step h ← tanh(x + W h); z begins with the product W h."""
    product, add, tanh = z[: len(h)], np.add, np.tanh

    def advance(x: Array) -> None:
        add(product, x, h)
        tanh(h, h)

    return advance


def gru(z: Array, h: Array) -> Advance:
    """Return the step r, z = σ(x + W h), n = tanh(x + r ⊙ W h), h ← n + z ⊙ (h − n); rows r, z, n of W h."""
    H, half = len(h), h.dtype.type(0.5)
    gates, r, keep, n = z[: 2 * H], z[:H], z[H : 2 * H], z[2 * H : 3 * H]
    add, multiply, subtract, tanh = np.add, np.multiply, np.subtract, np.tanh

    def advance(x: Array) -> None:
        add(gates, x[: 2 * H], gates)
        tanh(gates, gates)
        multiply(gates, half, gates)
        add(gates, half, gates)
        multiply(r, n, n)
        add(n, x[2 * H :], n)
        tanh(n, n)
        subtract(h, n, h)
        multiply(keep, h, h)
        add(h, n, h)

    return advance


def lstm(z: Array, h: Array) -> Advance:
    """Return the step c ← f ⊙ c + i ⊙ g, h ← o ⊙ tanh c; rows i, f, o, g of W h, and behind them c.

    i, f and g, c lie side by side, so that i ⊙ g and f ⊙ c are one call.
    """
    H, half = len(h), h.dtype.type(0.5)
    gates, i_f_o, i_f, o, g_c, c = (
        z[: 4 * H],
        z[: 3 * H],
        z[: 2 * H],
        z[2 * H : 3 * H],
        z[3 * H :],
        z[4 * H :],
    )
    terms = np.empty_like(i_f)
    new, kept = terms[:H], terms[H:]
    add, multiply, tanh = np.add, np.multiply, np.tanh

    def advance(x: Array) -> None:
        add(gates, x, gates)
        tanh(gates, gates)
        multiply(i_f_o, half, i_f_o)
        add(i_f_o, half, i_f_o)
        multiply(i_f, g_c, terms)
        add(new, kept, c)
        tanh(c, h)
        multiply(o, h, h)

    return advance


CELLS = {"rnn": rnn, "gru": gru, "lstm": lstm}


class Layer:
    """A layer's h and c and the scratch for its step; `up` (R, S) is what it tells the layer above, or U h."""

    def __init__(
        self, parameters: Parameters, layer: int, scale: Array, columns: tuple[int, ...]
    ) -> None:
        H, GH, top = parameters.config.hidden, len(scale), layer + 1 == parameters.config.layers
        up = parameters["U"] if top else parameters[f"layers.{layer + 1}.V"] * scale
        bias = parameters["b_y"] if top else parameters[f"layers.{layer + 1}.b_h"] * scale[:, 0]
        self.M = np.concatenate([up, parameters[f"layers.{layer}.W"] * scale])
        self.bias = bias.reshape(-1, *(1 for _ in columns))
        R = len(up)
        self.memory = np.zeros((R + GH + H, *columns), up.dtype)  # up, W h, c
        self.h = np.zeros((H, *columns), up.dtype)
        self.up = self.memory[:R]
        self.product = self.memory[: R + GH]
        self.advance = CELLS[parameters.config.cell](self.memory[R:], self.h)


def _columns(V: Array, streams: int) -> Callable[[Any], Array]:
    """Return the function from S indices, or one, to those columns of V, (G·H, S) in the same array each time."""
    x = np.empty((len(V), streams), V.dtype)
    return lambda indices: np.take(
        V, np.broadcast_to(indices, streams), 1, x, "wrap"
    )  # straight into x; "raise" copies


def _chain(
    read: Callable[[Any], Array], layers: list[Layer], logits: Array
) -> Callable[[Any], None]:
    """Return the function that takes a character up through the layers and leaves U h + b_y in `logits`."""
    parts = [
        (layer.advance, layer.M, layer.h, layer.product, layer.up, layer.bias) for layer in layers
    ]
    *below, (advance, M, h, product, up, bias) = parts
    add, dot = np.add, np.dot

    def feed(indices: Any) -> None:
        x = read(indices)
        for advance_below, M_below, h_below, product_below, up_below, bias_below in below:
            advance_below(x)
            dot(M_below, h_below, product_below)
            x = add(up_below, bias_below, up_below)
        advance(x)
        dot(M, h, product)
        add(up, bias, logits)

    return feed


class Sampler:
    """S copies of a network, each with a state of its own (zero at first), that read characters and predict the next.

    `logits`, (N,) with one stream, else (N, S), are U h_t + b_y after the last `feed`; each feed overwrites them. `read` is
    `feed` for whoever is `without_float_warnings` already.
    """

    def __init__(self, model: Model, streams: int = 1) -> None:
        self.model, self.streams = model, streams
        self.without_float_warnings = copy_context().run  # without_float_warnings(function, *arguments): an infinite argument only saturates its tanh
        self.without_float_warnings(
            np.seterr, over="ignore", under="ignore", invalid="ignore"
        )  # at temp > 0 logits of NaN are refused in the draw
        self.without_float_warnings(self._build)

    def _build(self) -> None:
        parameters, config, S = self.model.parameters, self.model.config, self.streams
        dtype, columns = parameters.flat.dtype, () if S == 1 else (S,)
        scale = row_scale(config.cell, config.hidden, dtype)
        self.logits: Array = np.zeros((parameters.N, *columns), dtype)
        self._layers = [Layer(parameters, layer, scale, columns) for layer in range(config.layers)]
        V = (parameters["layers.0.V"] + parameters["layers.0.b_h"][:, None]) * scale
        read = (
            _columns(V, S) if columns else list(V.T.copy()).__getitem__
        )  # a list gives a row faster than an array
        self.read = _chain(read, self._layers, self.logits)

    def feed(self, indices: int | Array) -> None:
        """Every stream reads one character: `indices` is (S,), or one for all."""
        self.without_float_warnings(self.read, indices)

    def spread(self, streams: int) -> Sampler:
        """Return a sampler of as many streams that all go on from the state of this one, which has one stream."""
        wide = Sampler(self.model, streams)
        ours = [
            self.logits,
            *(array for layer in self._layers for array in (layer.memory, layer.h)),
        ]
        theirs = [
            wide.logits,
            *(array for layer in wide._layers for array in (layer.memory, layer.h)),
        ]
        for one, many in zip(ours, theirs, strict=True):
            many[:] = one if streams == 1 else one[:, None]
        return wide
