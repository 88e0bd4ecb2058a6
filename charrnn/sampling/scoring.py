"""How surprising a text is to a model: −ln ŷ_t[y_t] of each character, in nats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.model import Model
from charrnn.config import check
from charrnn.errors import CorpusError
from charrnn.network.network import Network, zero_state
from charrnn.text.batches import ItemBatches, Items

Array = NDArray[Any]
STREAMS, CHUNK = 64, 64  # where a text is cut into streams


@dataclass(frozen=True)
class Score:
    """The surprise of each character of a text after its first: −ln ŷ_t[y_t] in nats."""

    nats: Array  # (len − 1,)

    @property
    def mean(self) -> float:
        """Return nats per predicted character."""
        return float(self.nats.mean(dtype=np.float64))

    @property
    def bpc(self) -> float:
        """Return bits per predicted character."""
        return self.mean / math.log(2)

    @property
    def perplexity(self) -> float:
        """Return e to the nats: the number of equally likely characters that would be as surprising."""
        return math.exp(min(self.mean, 700.0))


def score(model: Model, text: str) -> Score:
    """Return the surprise of each character of `text` after its first, read as one stream from a zero state.

    Raises VocabularyError for a character that the model has never seen, CorpusError for fewer than two characters.
    """
    indices = model.vocabulary.encode(text)
    return Score(score_indices(model, indices))


def score_indices(model: Model, indices: Array, chunk: int = 256) -> Array:
    """Return −ln ŷ_t[y_t] (len − 1,) in nats of encoded text, read from a zero state."""
    if indices.size < 2:
        raise CorpusError(
            "the text has fewer than two characters, so nothing is predicted; give a longer one"
        )
    ids = indices.astype(np.intp)[:, None]
    network = Network(model.config, len(model.vocabulary), model.parameters.flat.dtype)
    state = zero_state(model.config, 1, network.dtype)
    nats = []
    for start in range(0, len(ids) - 1, chunk):
        stop = min(start + chunk, len(ids) - 1)
        losses, state = network.losses(
            model.parameters, ids[start:stop], ids[start + 1 : stop + 1], state
        )
        nats.append(losses[:, 0])
    return np.concatenate(nats)


def score_streams(model: Model, indices: Array, streams: int, chunk: int = CHUNK) -> Array:
    """Return −ln ŷ_t[y_t] (len,) in nats of encoded text cut into `streams`, NaN for the first character of each.

    Stream b covers b·len//S … (b+1)·len//S and begins with a zero state; there are fewer where each would have but one character.
    """
    n = indices.size
    S = min(streams, max(1, n // 2))
    borders = np.arange(S + 1) * n // S
    starts, lengths = borders[:-1], np.diff(borders) - 1
    network = Network(model.config, len(model.vocabulary), model.parameters.flat.dtype)
    state = zero_state(model.config, S, network.dtype)
    result = np.full(n, np.nan)
    for first in range(0, int(lengths.max()), chunk):
        steps = np.arange(first, min(first + chunk, int(lengths.max())))[:, None]
        at = starts + np.minimum(steps, lengths)  # (T, S); a stream that has ended stands still
        following = starts + np.minimum(steps + 1, lengths)
        losses, state = network.losses(
            model.parameters, indices[at].astype(np.intp), indices[following].astype(np.intp), state
        )
        inside = steps < lengths
        result[following[inside]] = losses[inside]
    return result


def score_items(model: Model, items: Items, batch_size: int = STREAMS) -> Array:
    """Return −ln ŷ_t[y_t] (characters,) in nats: each item's characters and the newline behind, in the items' order."""
    batches = ItemBatches(items, batch_size)
    network = Network(model.config, len(model.vocabulary), model.parameters.flat.dtype)
    result = np.empty(items.characters)
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        state = zero_state(model.config, batch.x.shape[1], network.dtype)
        losses, _ = network.losses(model.parameters, batch.x, batch.y, state, batch.lengths)
        rows = np.arange(len(losses))[:, None]
        inside = np.broadcast_to(
            rows < (len(losses) if batch.lengths is None else batch.lengths), losses.shape
        )
        result[(batches.positions(step) + rows)[inside]] = losses[inside]
    return result


def activations(model: Model, indices: Array, unit: int, chunk: int = 256) -> Array:
    """Return the activation of the last layer's hidden unit after each character of encoded text (len,), from a zero state.

    Raises UsageError unless 0 <= unit < H.
    """
    check("--unit", unit, least=0, most=model.config.hidden - 1)
    ids = indices.astype(np.intp)[:, None]
    network = Network(model.config, len(model.vocabulary), model.parameters.flat.dtype)
    state = zero_state(model.config, 1, network.dtype)
    values = np.empty(len(ids))
    for start in range(0, len(ids), chunk):
        h, state = network.hidden(model.parameters, ids[start : start + chunk], state)
        values[start : start + chunk] = h[unit, :, 0]
    return values
