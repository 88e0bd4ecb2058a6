"""All parameters of a network in one flat array, with named views into it.

With one array, the optimizer's update, clipping, the sum over replicas and a copy need no loop over
names. Its twins (gradient, Adam's moments, the average) have the same layout. Write into the views;
rebinding a name detaches it.
"""

from __future__ import annotations

from collections.abc import ItemsView
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array
from charrnn.config import ModelConfig
from charrnn.network.cells import CELL_CLASSES


def shapes(config: ModelConfig, N: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array by name, in the order of the flat array.

    V (G·H, N or H), W (G·H, H) and b_h (G·H,) of each layer, then U (N, H) and b_y (N,).
    """
    H, GH = config.hidden, len(CELL_CLASSES[config.cell].gates) * config.hidden
    sizes: dict[str, tuple[int, ...]] = {}
    for layer in range(config.layers):
        sizes[f"layers.{layer}.V"] = (GH, H if layer else N)
        sizes[f"layers.{layer}.W"] = (GH, H)
        sizes[f"layers.{layer}.b_h"] = (GH,)
    return {**sizes, "U": (N, H), "b_y": (N,)}


def parameter_count(config: ModelConfig, N: int) -> int:
    """Return the number of parameters."""
    return sum(map(prod, shapes(config, N).values()))


class Parameters:
    """A flat array and its named views; a given `flat` may lie in shared memory."""

    def __init__(
        self, config: ModelConfig, N: int, dtype: DTypeLike = np.float32, flat: Array | None = None
    ) -> None:
        self.config, self.N = config, N
        self.flat: Array = np.zeros(parameter_count(config, N), dtype) if flat is None else flat
        self._views: dict[str, Array] = {}
        stop = 0
        for name, shape in shapes(config, N).items():
            start, stop = stop, stop + prod(shape)
            self._views[name] = self.flat[start:stop].reshape(shape)
        assert stop == self.flat.size

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def items(self) -> ItemsView[str, Array]:
        """Return the pairs (name, view) in the order of the flat array."""
        return self._views.items()

    def like(self) -> Parameters:
        """Return zeros in the same layout."""
        return Parameters(self.config, self.N, self.flat.dtype)

    def astype(self, dtype: DTypeLike) -> Parameters:
        """Return a copy in this precision, which shares no memory."""
        return Parameters(self.config, self.N, flat=self.flat.astype(dtype))


def orthogonal(rng: np.random.Generator, H: int) -> Array:
    """Return a uniformly drawn orthogonal (H, H) matrix: all its singular values are 1."""
    q, r = np.linalg.qr(rng.standard_normal((H, H)))
    return np.asarray(q * np.sign(np.diag(r)))


def initialize(
    config: ModelConfig,
    N: int,
    rng: np.random.Generator,
    frequencies: Array | None = None,
    dtype: DTypeLike = np.float32,
) -> Parameters:
    """Return parameters to start training from.

    W is orthogonal in each gate's block, so that the gradient neither fades nor explodes at first.
    b_h is 0 except for the lstm's forget gate, where it is 1: remember until taught otherwise (Gers
    et al. 2000). U is small and b_y is the log of the characters' `frequencies`, so that the first
    loss is the unigram entropy; without them b_y is 0, and the first loss is ln N.
    """
    parameters = Parameters(config, N, dtype)
    H, gates = config.hidden, CELL_CLASSES[config.cell].gates
    for layer in range(config.layers):
        V, W, b_h = (parameters[f"layers.{layer}.{name}"] for name in ("V", "W", "b_h"))
        V[:] = rng.standard_normal(V.shape) * (0.1 if layer == 0 else 1 / np.sqrt(H))
        W[:] = np.vstack([orthogonal(rng, H) for _ in gates])
        b_h[:] = np.repeat([float(gate == "f") for gate in gates], H)
    parameters["U"][:] = rng.standard_normal((N, H)) * 0.02 / np.sqrt(H / 128)
    if frequencies is not None:
        seen = np.maximum(frequencies, 0.1)  # one found only in validation is rare, not impossible
        parameters["b_y"][:] = np.log(seen / seen.sum())
    return parameters
