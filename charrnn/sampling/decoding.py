"""From logits to an index: temperature, top-k, top-p, min-p and the inverse cumulative distribution.

Probabilities and their sums are float64 whatever the network's precision; a float32 vector that sums to 1.0000001 is
as good as any, since a draw is scaled by the vector's own sum. Sizes: N symbols, S streams.
"""

from __future__ import annotations

from collections.abc import Callable
from math import nextafter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SampleConfig
from charrnn.errors import CharRNNError

Array = NDArray[Any]
FAR = 600.0  # |maximum| / temp up to which exp neither overflows nor loses anything that counts in float64


def weights(y: Array, config: SampleConfig) -> Array:
    """Return probabilities up to a factor a row, for logits y (..., N) in float64, which are overwritten."""
    if config.temp == 0:
        return np.asarray(np.arange(y.shape[-1]) == y.argmax(axis=-1)[..., None], np.float64)
    order = (
        np.argsort(-y, axis=-1, kind="stable") if config.top_k or config.top_p else None
    )  # equal ones: by index
    peak = y.max(axis=-1, keepdims=True)
    near = np.abs(peak) <= FAR * config.temp
    if not near.all():
        y -= np.where(near, 0, peak)
    y /= config.temp  # a tiny temp gives −∞, probability 0
    p = np.exp(y, out=y)
    if order is not None:
        ranked = np.take_along_axis(p, order, axis=-1)
        _cut(ranked, config.top_k, config.top_p)
        np.put_along_axis(p, order, ranked, axis=-1)
    if config.min_p:
        p[p < config.min_p * p.max(axis=-1, keepdims=True)] = 0
    return p


def _cut(ranked: Array, top_k: int | None, top_p: float | None) -> None:
    """Set to 0, in rows of falling weights, all but the first top_k, then what comes after a share top_p of these."""
    if top_k:
        ranked[..., top_k:] = 0
    if top_p and top_p < 1:
        sums = np.cumsum(ranked, axis=-1)
        ranked[..., 1:][sums[..., :-1] >= top_p * sums[..., -1:]] = 0


def distribution(logits: Array, config: SampleConfig) -> Array:
    """Return the probabilities that characters are drawn with, float64, (N,) or (N, S) like the logits.

    softmax(logits / temp), the maximum subtracted where it is large; at temp 0 all is on the first of the greatest. Of these
    the top_k most probable stay (of equal ones those of lower index), of these the fewest that hold a share top_p,
    of these the ones with at least min_p times the greatest probability. Each column sums to 1.
    """
    with np.errstate(over="ignore", under="ignore"):
        p = weights(np.array(np.transpose(logits), np.float64, order="C"), config)
        p /= p.sum(axis=-1, keepdims=True)
    return p.T


def draw_rows(p: Array, uniform: Array) -> Array:
    """Return an index for each row of weights p (S, N), uniform (S,): the first whose cumulative sum exceeds u · total."""
    sums = np.cumsum(p, axis=-1, dtype=np.float64)
    total = sums[:, -1]
    if not np.isfinite(total).all():
        raise overflowed()
    point = np.minimum(uniform * total, np.nextafter(total, 0))  # u · total may round to total
    return np.asarray(np.count_nonzero(sums <= point[:, None], axis=-1))


def draw(probabilities: Array, uniform: float) -> int:
    """Return the index at `uniform` in [0, 1) of the inverse cumulative distribution of (N,).

    The probabilities need not sum to 1. An index of probability 0 is never drawn, whatever the rounding.
    """
    return int(draw_rows(np.atleast_2d(probabilities), np.array([uniform], np.float64))[0])


def drawer(logits: Array, config: SampleConfig) -> Callable[[float], int]:
    """Return the function from a uniform number to an index under the present `logits` (N,).

    The plain softmax, the common case, is written out with scratch of its own: the arithmetic of weights and draw_rows,
    in half their time. Where its sum comes near the ends of what float64 holds, as it does for temperatures below some
    0.02, and a maximum may have to be subtracted, these do it.
    """
    if config.temp == 0:
        return lambda uniform: int(logits.argmax())

    def index(uniform: float) -> int:
        return draw(weights(logits.astype(np.float64), config), uniform)

    if config.top_k or config.top_p or config.min_p:
        return index
    p, sums, temp = np.empty(len(logits)), np.empty(len(logits)), np.array(config.temp, np.float64)
    divide, exp, accumulate, search = np.divide, np.exp, np.add.accumulate, sums.searchsorted

    def plain_index(uniform: float) -> int:
        divide(logits, temp, p)
        exp(p, p)
        accumulate(p, 0, None, sums)
        total = sums.item(-1)
        if (
            not 1e-250 < total < 1e250
        ):  # within e^±FAR for any N, so that weights would subtract nothing either
            return index(uniform)
        point = uniform * total
        return int(
            search(point if point < total else nextafter(total, 0), "right")
        )  # u · total may round to total

    return plain_index


def overflowed() -> CharRNNError:
    """Return the error for logits that are no numbers."""
    return CharRNNError(
        "the model's logits are not finite: its weights are too large to compute with; train it again, more slowly"
    )
