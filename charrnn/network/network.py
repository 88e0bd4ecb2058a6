"""The network over a chunk of text: layers forward, the loss, layers backward.

Each sum over time is one product over all positions (T·B columns), here; the loop over t is in
`cells`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array
from charrnn.config import ModelConfig
from charrnn.network.cells import CELL_CLASSES, Cell, Input
from charrnn.network.dropout import Masks
from charrnn.network.loss import losses, losses_backward
from charrnn.network.matmul import step_product, sum_of_outer_products
from charrnn.network.parameters import Parameters

FEW = 96  # vocabulary size up to which ∂L/∂V is a one-hot product; above, sums over sorted symbols
ONEHOT = 512  # positions per one-hot product
MANY = 256  # vocabulary size from which scaling only the columns of V that are read is cheaper
NOTHING_DROPPED = Masks()


def flat_columns(a: Array) -> Array:
    """Return a view of (rows, T, B) as (rows, T·B): one column per position."""
    return a.reshape(a.shape[0], -1)


def zero_state(config: ModelConfig, B: int, dtype: DTypeLike) -> Array:
    """Return the state before the first character: zeros (L, S, H, B)."""
    return np.zeros(
        (config.layers, len(CELL_CLASSES[config.cell].state_names), config.hidden, B), dtype
    )


def symbol_input(V: Array, b_h: Array, scale: Array, x: Array) -> Input:
    """Return the function that writes scale · (V x_t + b_h) for symbols x (T, B): columns of V."""
    if V.shape[1] >= MANY:
        seen, x = np.unique(x, return_inverse=True)
        V = V.take(seen, axis=1)
    by_symbol = (V + b_h[:, None]) * scale
    # mode="wrap" writes straight into out; "raise" and "clip" go through a copy
    return lambda t, out: np.take(by_symbol, x[t], axis=1, out=out, mode="wrap")


def symbol_input_backward(dA: Array, x: Array, *, dV: Array) -> None:
    """dV ← Σ dA_t onehot(x_t)ᵀ for dA (G·H, P), x (P,): the columns of a repeated symbol add up.

    In a small vocabulary this is a product; in a large one, only the columns of symbols that occur
    are summed.
    """
    N, P = dV.shape[1], x.size
    dV[:] = 0
    if N <= FEW:
        part = np.empty_like(dV)
        for start in range(0, P, ONEHOT):
            positions = slice(start, start + ONEHOT)
            step_product(dA[:, positions], part)(np.eye(N, dtype=dA.dtype)[x[positions]])
            dV += part
        return
    # of small integers, a stable sort is a radix sort
    order = np.argsort(x.astype(np.min_scalar_type(N)), kind="stable")
    counts = np.bincount(x)
    symbols = np.flatnonzero(counts)
    starts = np.cumsum(counts)[symbols] - counts[symbols]
    sorted_dA = np.empty((32, P), dA.dtype)
    for row in range(0, len(dA), 32):  # a few rows at a time stay in the cache
        rows = dA[row : row + 32]
        some = sorted_dA[: len(rows)]
        np.take(rows, order, axis=1, out=some, mode="wrap")
        dV[row : row + 32, symbols] = np.add.reduceat(some, starts, axis=1)


def layer_input(V: Array, b_h: Array, scale: Array, below: Array) -> Input:
    """Return the function that writes scale · (V x_t + b_h) where x is the h below, (H, T, B)."""
    A = V @ flat_columns(below)
    A += b_h[:, None]
    A *= scale
    steps = A.reshape(len(A), *below.shape[1:])
    return lambda t, out: np.copyto(out, steps[:, t])


def layer_input_backward(dA: Array, V: Array, below: Array, *, dV: Array, dx: Array) -> None:
    """dV ← Σ dA_t x_tᵀ and dx_t ← Vᵀ dA_t for dA (G·H, T·B), where x is the h below, (H, T, B)."""
    sum_of_outer_products(dA, flat_columns(below), dV)
    np.matmul(V.T, dA, out=flat_columns(dx))


class Network:
    """Runs chunks through the layers: parameters and state come in, results go out.

    It owns only scratch memory. Symbols x and targets y are (T, B), a state (L, S, H, B).
    `lengths` (B,) says after how many steps a column's text ends: its state is taken there, and its
    later losses are meaningless.
    """

    def __init__(self, config: ModelConfig, dtype: DTypeLike = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        self._tapes: dict[int, list[Cell]] = {}  # by B: a cell for each layer

    def losses(
        self,
        parameters: Parameters,
        x: Array,
        y: Array,
        state: Array,
        lengths: Array | None = None,
        masks: Masks = NOTHING_DROPPED,
    ) -> tuple[Array, Array]:
        """Return −ln ŷ_t[y_t] in nats (T, B) and the state after the chunk."""
        h, after = self.hidden(parameters, x, state, lengths, masks)
        nats = losses(parameters["U"], parameters["b_y"], flat_columns(h), y.ravel())
        return nats.reshape(x.shape), after

    def hidden(
        self,
        parameters: Parameters,
        x: Array,
        state: Array,
        lengths: Array | None = None,
        masks: Masks = NOTHING_DROPPED,
    ) -> tuple[Array, Array]:
        """Return the last layer's h_t (H, T, B), valid until the next call, and the new state."""
        h = self._forward(masks.drop_weights(parameters), x, state, masks)[-1]
        return h, self._state_after(x.shape, lengths)

    def gradient(
        self,
        parameters: Parameters,
        x: Array,
        y: Array,
        state: Array,
        *,
        out: Parameters,
        weight: float,
        lengths: Array | None = None,
        masks: Masks = NOTHING_DROPPED,
    ) -> tuple[Array, Array]:
        """Return the same as `losses`, and overwrite `out` with the gradient of Σ weight · losses.

        After `lengths`, the weight is 0.
        """
        T, B = x.shape
        arrays = masks.drop_weights(parameters)
        hs = self._forward(arrays, x, state, masks)
        weights = np.full((T, B), weight, self.dtype)
        if lengths is not None:
            weights *= np.arange(T)[:, None] < lengths
        dh = np.empty((self.config.hidden, T, B), self.dtype)
        nats = losses_backward(
            arrays["U"],
            arrays["b_y"],
            flat_columns(hs[-1]),
            y.ravel(),
            weights.ravel(),
            dU=out["U"],
            db_y=out["b_y"],
            dh=flat_columns(dh),
        )
        after = self._state_after(x.shape, lengths)
        self._backward(arrays, x, hs, dh, masks, out)
        return nats.reshape(T, B), after

    def _forward(
        self, arrays: dict[str, Array], x: Array, state: Array, masks: Masks
    ) -> list[Array]:
        """Fill the tapes and return each layer's h (H, T, B) as the layer above reads it."""
        T, hs = len(x), list[Array]()
        with np.errstate(over="ignore", under="ignore"):  # an infinite A only saturates its tanh
            for layer, cell in enumerate(self._cells(*x.shape)):
                V, W, b_h = (arrays[f"layers.{layer}.{name}"] for name in ("V", "W", "b_h"))
                read, source = (layer_input, hs[-1]) if layer else (symbol_input, x)
                cell.forward(read(V, b_h, cell.scale, source), W, state[layer], T)
                h = cell.h[:, 1 : T + 1]
                hs.append(h * masks.h[layer] if masks.h else h)
        return hs

    def _backward(
        self,
        arrays: dict[str, Array],
        x: Array,
        hs: list[Array],
        dh: Array,
        masks: Masks,
        out: Parameters,
    ) -> None:
        """Overwrite `out` with the layers' gradients, computed from dh at the last layer's h.

        dh (H, T, B) is overwritten too.
        """
        T = len(x)
        with np.errstate(under="ignore"):
            for layer, cell in reversed([*enumerate(self._cells(*x.shape))]):
                V, W, b_h = (f"layers.{layer}.{name}" for name in ("V", "W", "b_h"))
                if masks.h:
                    dh *= masks.h[layer]
                cell.backward(dh, arrays[W])
                dA, before = flat_columns(cell.dA[:, :T]), flat_columns(cell.h[:, :T])
                for rows, dC in cell.dC:
                    sum_of_outer_products(flat_columns(dC[:, :T]), before, out[W][rows])
                np.matmul(dA, np.ones(x.size, self.dtype), out=out[b_h])
                if layer:
                    layer_input_backward(dA, arrays[V], hs[layer - 1], dV=out[V], dx=dh)
                else:
                    symbol_input_backward(dA, x.ravel(), dV=out[V])
            for name, mask in masks.weights.items():
                out[name][:] *= mask

    def _cells(self, T: int, B: int) -> list[Cell]:
        """Return a cell for each layer with tapes for at least T steps of B streams."""
        cells = self._tapes.pop(B, [])
        if not cells or len(cells[0].steps) < T:
            make, H = CELL_CLASSES[self.config.cell], self.config.hidden
            cells = [make(H, T, B, self.dtype) for _ in range(self.config.layers)]
        self._tapes[B] = cells
        if len(self._tapes) > 3:  # enough for training, validation and a smaller last batch
            del self._tapes[next(iter(self._tapes))]
        return cells

    def _state_after(self, shape: tuple[int, ...], lengths: Array | None) -> Array:
        """Return the state after the chunk on the tapes, or each column's after `lengths` steps."""
        T, B = shape
        at = T if lengths is None else (lengths, np.arange(B))
        return np.stack([cell.state(at) for cell in self._cells(T, B)])
