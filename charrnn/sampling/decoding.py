"""From logits to an index: temperature, top-k, top-p, min-p, then inverse transform sampling.

Probabilities and their sums are float64, whatever the precision of the network. They need not sum
to 1, because a draw is scaled by their sum. To forbid characters, set their logits to −∞ first.
Sizes: N symbols, S streams.
"""

from __future__ import annotations

from collections.abc import Callable
from math import nextafter
from typing import Any

import numpy as np

from charrnn.arrays import Array
from charrnn.config import SampleConfig
from charrnn.errors import CharRNNError

FAR = 600.0  # up to this |largest logit| / temp, exp of the logits that matter fits in float64


def unnormalized_probabilities(logits: Array, config: SampleConfig) -> Array:
    """Return unnormalized probabilities, float64, for logits (N,) or (N, S).

    They are proportional to softmax(logits / temp); at temp 0 the first of the greatest logits has
    all the probability. Then the filters apply: keep the top_k most probable characters (of equal
    ones, those of lower index), of these the fewest whose probabilities sum to at least top_p, and
    of these the ones with at least min_p times the greatest probability. The result is (N,) or
    (S, N), because sums along rows are fastest.
    """
    p = np.array(logits.T, np.float64, order="C")
    if config.temp == 0:
        return np.asarray(np.arange(len(logits)) == p.argmax(axis=-1)[..., None], np.float64)
    peak = p.max(axis=-1, keepdims=True)
    p -= np.where(np.abs(peak) <= FAR * config.temp, 0, peak)
    p /= config.temp  # a tiny temp gives −∞, probability 0
    np.exp(p, out=p)
    if config.top_k or config.top_p:
        order = np.argsort(-logits.T, axis=-1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=-1)
        ranked[..., config.top_k or len(logits) :] = 0
        sums, top_p = np.cumsum(ranked, axis=-1), config.top_p or 1
        if top_p < 1:
            ranked[..., 1:][sums[..., :-1] >= top_p * sums[..., -1:]] = 0
        np.put_along_axis(p, order, ranked, axis=-1)
    if config.min_p:
        p[p < config.min_p * p.max(axis=-1, keepdims=True)] = 0
    return p


def distribution(logits: Array, config: SampleConfig) -> Array:
    """Return the probabilities to draw with, float64, (N,) or (N, S) like the logits.

    Each column sums to 1.
    """
    with np.errstate(over="ignore", under="ignore"):
        p = unnormalized_probabilities(logits, config)
        p /= p.sum(axis=-1, keepdims=True)
    return p.T


def draw(p: Array, uniform: Array | float) -> Any:
    """Return an index for each row of p (..., N) in float64, given its uniform number in [0, 1).

    It is the first index whose cumulative sum exceeds uniform · total, so that an index of
    probability 0 is never drawn, whatever the rounding. p is overwritten with its cumulative sums.
    """
    sums = np.cumsum(p, axis=-1, out=p)
    total = sums[..., -1]
    if not np.isfinite(total).all():
        raise CharRNNError(
            "the model's logits are not finite: its weights are too large to compute with; "
            "train it again with a smaller --lr"
        )
    point = np.minimum(uniform * total, np.nextafter(total, 0))  # the product may round to total
    return np.argmin(sums <= point[..., None], axis=-1)  # the first False


def drawer(logits: Array, config: SampleConfig) -> Callable[[float], int]:
    """Return a function that takes a uniform number and draws an index from `logits` (N,).

    It reads `logits` anew at each call. The plain softmax has its own code, with scratch arrays,
    which takes half the time of unnormalized_probabilities and draw. It doesn't subtract the
    maximum, so it falls back to them if the sum nears the limits of float64, as it does at
    temperatures below about 0.02.
    """

    def index(uniform: float) -> int:
        return int(draw(unnormalized_probabilities(logits, config), uniform))

    if config.temp == 0 or config.top_k or config.top_p or config.min_p:
        return index
    p, sums, temp = np.empty(len(logits)), np.empty(len(logits)), np.array(config.temp, np.float64)
    divide, exp, accumulate, search = np.divide, np.exp, np.add.accumulate, sums.searchsorted

    def plain_index(uniform: float) -> int:
        divide(logits, temp, p)
        exp(p, p)
        accumulate(p, 0, None, sums)
        total = sums.item(-1)
        if not 1e-250 < total < 1e250:  # inside this range the largest logit is within FAR
            return index(uniform)
        point = uniform * total
        return int(search(point if point < total else nextafter(total, 0), "right"))

    return plain_index
