"""The network one character at a time, for drawing. Nothing is kept for a backward pass.

A step of one stream spends its time on memory traffic and NumPy calls (0.4 µs each). Hence:
- Everything that multiplies h_t is stacked into one matrix, so that one product is enough: V of the
  layer above or U, and the layer's own W, for the next step.
- V is stored transposed with b_h added, so that reading a character means taking one row.

Sizes: S streams, H units, G gates, N symbols, R rows that go up: G·H of the layer above, or N. With
one stream the arrays are vectors, (H,) instead of (H, S), and the products are matrix-vector.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple

import numpy as np

from charrnn.arrays import Array
from charrnn.checkpoint.model import Model
from charrnn.network.cells import CELL_CLASSES, Step
from charrnn.network.matmul import aligned_zeros


class Layer(NamedTuple):
    """What a step of one layer needs; all steps share the same scratch arrays."""

    step: Step
    M: Array  # (R + G·H, H), what multiplies h: V of the layer above or U, then W, scaled by gate
    h: Array  # (H, S)
    product: Array  # (R + G·H, S), M h
    up: Array  # (R, S), M's first rows times h plus the bias
    bias: Array  # (R, 1)


class Sampler:
    """S streams through a network, each with its own state, which is zero at first.

    `feed` reads a character and overwrites `logits`, U h_t + b_y: (N,) with one stream, else
    (N, S). `read` does the same, but must run inside `without_float_warnings`.
    """

    def __init__(self, model: Model, streams: int = 1) -> None:
        self.model, self.streams = model, streams
        # These warnings are needless: an infinite A only saturates tanh, and `draw` refuses NaN.
        self.without_float_warnings = copy_context().run
        self.without_float_warnings(np.seterr, over="ignore", under="ignore", invalid="ignore")
        self._memories: list[Array] = []  # of each layer
        self.read = self.without_float_warnings(self._reader)

    def _reader(self) -> Callable[[Any], None]:
        """Return a function that passes a character up through the layers."""
        p, config = self.model.parameters, self.model.config
        cell, shape = CELL_CLASSES[config.cell], () if self.streams == 1 else (self.streams,)
        scale = cell.row_scale(config.hidden, p.flat.dtype)
        V, W, b_h = (
            [p[f"layers.{i}.{name}"].reshape(len(scale), -1) * scale for i in range(config.layers)]
            for name in ("V", "W", "b_h")
        )
        layers = []
        for W_own, above, bias in zip(W, [*V[1:], p["U"]], [*b_h[1:], p["b_y"]], strict=True):
            R, H = len(above), config.hidden
            M = aligned_zeros((R + len(W_own), H), above.dtype)
            M[:R], M[R:] = above, W_own
            # Memory: M h, other state, h. The rows after M h's first R begin at a cache line.
            pad, rows = -R % 16, len(M) + len(cell.state_names) * H
            memory = aligned_zeros((pad + rows, *shape), M.dtype)[pad:]
            step = cell.stepper(memory[R : len(M)], memory[R:], memory[R:])
            bias = bias.reshape(R, *(1 for _ in shape))
            layers.append(Layer(step, M, memory[-H:], memory[: len(M)], memory[:R], bias))
            self._memories.append(memory)
        self.logits = layers[-1].up
        columns, dot, add = self._columns(V[0] + b_h[0]), np.dot, np.add

        def read(indices: Any) -> None:
            A = columns(indices)
            for step, M, h, product, up, bias in layers:
                step(A)
                dot(M, h, product)
                A = add(up, bias, up)

        return read

    def feed(self, indices: int | Array) -> None:
        """Read one character per stream: `indices` is (S,), or one index for all."""
        self.without_float_warnings(self.read, indices)

    def _columns(self, V: Array) -> Callable[[Any], Array]:
        """Return a function that takes S indices, or one, and returns those columns of V."""
        if self.streams == 1:
            return list(V.T.copy()).__getitem__  # quicker than an array's
        A = np.empty((len(V), self.streams), V.dtype)
        # mode="wrap" writes straight into A, while "raise" makes a copy
        return lambda x: np.take(V, np.broadcast_to(x, self.streams), 1, A, "wrap")

    def spread(self, streams: int) -> Sampler:
        """Return a sampler of several streams, all in the state of this one's single stream."""
        wide = Sampler(self.model, streams)
        for one, many in zip(self._memories, wide._memories, strict=True):
            many.T[:] = one
        return wide
