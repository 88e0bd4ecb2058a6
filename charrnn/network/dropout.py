"""Dropout masks: 0 with probability p, else 1 / (1 − p), so that nothing needs rescaling when they are left out.

Two kinds. On h, between layers and before the output, drawn anew for each position (Srivastava et al. 2014; Zaremba et
al. 2014). On the entries of W, and of V where it reads h, drawn once a chunk, so that the recurrent product stays one
(Merity et al. 2017). The first layer's V is left whole: its columns are what the network knows of each symbol, and on
Shakespeare an lstm of 256 with 0.1 stood at 1.527 nats after 3,000 steps with it whole, at 1.562 with its entries dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charrnn.config import ModelConfig
from charrnn.network.parameters import shapes

Array = NDArray[Any]


@dataclass(frozen=True)
class Masks:
    """Masks of one chunk: `h[l]` (H, T, B) on the output of layer l, `weights` on the arrays that it names."""

    h: tuple[Array, ...]
    weights: dict[str, Array]


def mask(rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: DTypeLike) -> Array:
    """Return an array of 0, with probability p to the nearest 1/256, and 1 / (1 − p): a byte of chance for each element."""
    dropped = min(255, round(p * 256))
    size = prod(shape)
    draws = (
        rng.bit_generator.random_raw(-(-size // 8)).astype("<u8", copy=False).view(np.uint8)[:size]
    )  # 4 times as fast as `integers`
    return np.multiply(draws.reshape(shape) >= dropped, 256 / (256 - dropped), dtype=dtype)


def draw_masks(
    config: ModelConfig,
    N: int,
    *,
    T: int,
    B: int,
    p: float,
    rng: np.random.Generator,
    dtype: DTypeLike,
    own: slice,
) -> Masks:
    """Return the masks of a chunk of B columns, cut to the columns `own`.

    Every replica draws those of the whole batch and takes its share: the run is then the same for any number of them.
    """
    names = [
        name for name in shapes(config, N) if name.endswith((".V", ".W")) and name != "layers.0.V"
    ]
    weights = {name: mask(rng, shapes(config, N)[name], p, dtype) for name in names}
    h = [mask(rng, (config.hidden, T, B), p, dtype)[:, :, own] for _ in range(config.layers)]
    return Masks(tuple(h), weights)
