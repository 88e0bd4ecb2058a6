"""The network over a chunk of text: layers forward, the loss, layers backward.

All that is summed over time is one product over all positions (T·B columns), here; the loop over t is in `cells`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charrnn.config import ModelConfig
from charrnn.network.cells import CELL_CLASSES, Cell, Input, row_scale
from charrnn.network.dropout import Masks
from charrnn.network.loss import losses, losses_backward
from charrnn.network.parameters import STATES, Parameters

Array = NDArray[Any]
FEW = (
    32  # symbols up to which ∂L/∂V is a product with one-hot columns; beyond, sums over sorted ones
)
MANY = 256  # symbols from which on looking for the columns of V that a chunk reads is cheaper than scaling them all


def flat_columns(a: Array) -> Array:
    """Return (rows, T, B) as (rows, T·B), a view: the positions of a row lie side by side."""
    return a.reshape(a.shape[0], -1)


def zero_state(config: ModelConfig, B: int, dtype: DTypeLike) -> Array:
    """Return the state before the first character: zeros (L, S, H, B)."""
    return np.zeros((config.layers, STATES[config.cell], config.hidden, B), dtype)


def input_gradient(dA: Array, x: Array, dV: Array) -> None:
    """dV ← Σ dA_t onehot(x_t)ᵀ for dA (G·H, P), x (P,): the columns of a symbol that occurs again add up.

    With few symbols one product; with many only the columns of those that occur are touched, whatever N is.
    """
    N, P = dV.shape[1], x.size
    if N <= FEW:
        onehot = np.zeros((N, P), dA.dtype)
        onehot[x, np.arange(P)] = 1
        np.matmul(dA, onehot.T, out=dV)
        return
    order = np.argsort(
        x.astype(np.min_scalar_type(N)), kind="stable"
    )  # short integers are sorted by radix
    counts = np.bincount(x)
    symbols = np.flatnonzero(counts)
    starts = np.cumsum(counts)[symbols] - counts[symbols]
    sorted_dA = np.empty((32, P), dA.dtype)
    dV[:] = 0
    for row in range(0, len(dA), 32):  # a few rows at a time stay in the cache
        rows = dA[row : row + 32]
        np.take(
            rows, order, axis=1, out=sorted_dA[: len(rows)], mode="wrap"
        )  # wrap: straight into out
        dV[row : row + 32, symbols] = np.add.reduceat(sorted_dA[: len(rows)], starts, axis=1)


class Network:
    """Runs chunks through the layers. It owns scratch arrays alone: parameters and state come in, results go out."""

    def __init__(self, config: ModelConfig, N: int, dtype: DTypeLike = np.float32) -> None:
        self.config, self.N, self.dtype = config, N, np.dtype(dtype)
        self._cells: dict[int, tuple[int, list[Cell]]] = {}  # B: (longest T, a cell for each layer)
        self._scale = row_scale(config.cell, config.hidden, dtype)

    def losses(
        self, parameters: Parameters, x: Array, y: Array, state: Array, lengths: Array | None = None
    ) -> tuple[Array, Array]:
        """Return −ln ŷ_t[y_t] in nats (T, B) and the state after the chunk; x and y (T, B), state (L, S, H, B).

        `lengths` (B,): where a column's text ends before T, its state is taken there; its losses beyond mean nothing.
        """
        h = self._forward(parameters, self._masked(parameters, None), x, state, None)
        nats = losses(parameters["U"], parameters["b_y"], flat_columns(h), y.ravel())
        return nats.reshape(x.shape), self._state_after(x.shape, lengths)

    def hidden(self, parameters: Parameters, x: Array, state: Array) -> tuple[Array, Array]:
        """Return the last layer's h_t after each symbol (H, T, B), a view of scratch, and the state after the chunk; x (T, B)."""
        return self._forward(
            parameters, self._masked(parameters, None), x, state, None
        ), self._state_after(x.shape, None)

    def gradient(
        self,
        parameters: Parameters,
        x: Array,
        y: Array,
        state: Array,
        *,
        out: Parameters,
        weight: float | None = None,
        lengths: Array | None = None,
        masks: Masks | None = None,
    ) -> tuple[Array, Array]:
        """Return the losses (T, B) and the state after the chunk, and overwrite `out` with the gradient of Σ weight · losses.

        `weight` is 1 / (T·B) unless given, so that L is the mean of full columns; positions beyond `lengths` weigh 0.
        """
        T, B = x.shape
        used = self._masked(parameters, masks)
        h = self._forward(parameters, used, x, state, masks)
        weights = np.full((T, B), 1 / (T * B) if weight is None else weight, self.dtype)
        if lengths is not None:
            weights *= np.arange(T)[:, None] < lengths
        dh = np.empty((self.config.hidden, T, B), self.dtype)
        nats = losses_backward(
            parameters["U"],
            parameters["b_y"],
            flat_columns(h),
            y.ravel(),
            weights.ravel(),
            dU=out["U"],
            db_y=out["b_y"],
            dh=flat_columns(dh),
        )
        after = self._state_after(x.shape, lengths)
        self._backward(used, x, dh, masks, out)
        return nats.reshape(T, B), after

    def _layers(self, T: int, B: int) -> list[Cell]:
        """Return a cell for each layer with tapes for at least T steps of B streams."""
        longest, cells = self._cells.get(B, (0, []))
        if longest < T:
            self._cells.pop(B, None)
            while (
                len(self._cells) > 2
            ):  # training's, evaluation's and one odd last batch: more are old ones
                del self._cells[next(iter(self._cells))]
            make = CELL_CLASSES[self.config.cell]
            cells = [make(self.config.hidden, T, B, self.dtype) for _ in range(self.config.layers)]
            self._cells[B] = (T, cells)
        return cells

    def _forward(
        self,
        parameters: Parameters,
        used: dict[str, Array],
        x: Array,
        state: Array,
        masks: Masks | None,
    ) -> Array:
        """Fill the tapes and return what the output layer reads: h (H, T, B) of the last layer, dropped out."""
        T, B = x.shape
        h: Array | None = None
        with np.errstate(
            over="ignore", under="ignore"
        ):  # an infinite argument only saturates its tanh
            for layer, cell in enumerate(self._layers(T, B)):
                V, W = (used[f"layers.{layer}.{name}"] for name in ("V", "W"))
                bias = parameters[f"layers.{layer}.b_h"][:, None]
                cell.forward(self._input(V, bias, x, h), W * self._scale, state[layer], T)
                h = cell.h[:, 1 : T + 1]
                if masks is not None:
                    h = h * masks.h[layer]
        assert h is not None
        return h

    def _masked(self, parameters: Parameters, masks: Masks | None) -> dict[str, Array]:
        """Return V and W of every layer as the chunk uses them: with the entries dropped that `masks` drops."""
        names = [
            f"layers.{layer}.{name}" for layer in range(self.config.layers) for name in ("V", "W")
        ]
        dropped = {} if masks is None else masks.weights
        return {
            name: parameters[name] * dropped[name] if name in dropped else parameters[name]
            for name in names
        }

    def _input(self, V: Array, bias: Array, x: Array, below: Array | None) -> Input:
        """Return the function that writes scale · (V x_t + b_h): columns of V for symbols, a product for the layer below."""
        if below is None:
            if V.shape[1] >= MANY:
                seen, x = np.unique(x, return_inverse=True)
                V = V.take(seen, axis=1)
            by_symbol = (V + bias) * self._scale
            return lambda t, out: np.take(
                by_symbol, x[t], axis=1, out=out, mode="wrap"
            )  # wrap: straight into out
        A = V @ flat_columns(below)
        A += bias
        A *= self._scale
        steps = A.reshape(len(A), *x.shape)
        return lambda t, out: np.copyto(out, steps[:, t])

    def _state_after(self, shape: tuple[int, ...], lengths: Array | None) -> Array:
        """Return the state (L, S, H, B) after the chunk on the tapes, or after `lengths` steps of each column."""
        T, B = shape
        cells = self._layers(T, B)
        after = np.stack([cell.state(T) for cell in cells])
        if lengths is not None:
            for length in np.unique(lengths[lengths < T]):
                ended = lengths == length
                after[..., ended] = np.stack([cell.state(length) for cell in cells])[..., ended]
        return after

    def _backward(
        self, used: dict[str, Array], x: Array, dh: Array, masks: Masks | None, out: Parameters
    ) -> None:
        """Overwrite `out` with the gradients of every layer, from dh (H, T, B) behind the last layer's dropout."""
        T, B = x.shape
        cells = self._layers(T, B)
        with np.errstate(under="ignore"):
            for layer in reversed(range(len(cells))):
                cell, name = cells[layer], f"layers.{layer}."
                if masks is not None:
                    dh *= masks.h[layer]
                cell.backward(dh, used[name + "W"])
                dA, before, row = flat_columns(cell.dA[:, :T]), flat_columns(cell.h[:, :T]), 0
                for dC in cell.dC:
                    np.matmul(
                        flat_columns(dC[:, :T]), before.T, out=out[name + "W"][row : row + len(dC)]
                    )
                    row += len(dC)
                np.matmul(dA, np.ones(T * B, self.dtype), out=out[name + "b_h"])
                if layer == 0:
                    input_gradient(dA, x.ravel(), out[name + "V"])
                else:
                    below = cells[layer - 1].h[:, 1 : T + 1]
                    below = below if masks is None else below * masks.h[layer - 1]
                    np.matmul(dA, flat_columns(below).T, out=out[name + "V"])
                    np.matmul(used[name + "V"].T, dA, out=flat_columns(dh))
            for name, mask in masks.weights.items() if masks is not None else ():
                out[name][:] *= mask
