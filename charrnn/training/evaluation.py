"""The loss of a network over a validation part: nats per character."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import Parameters
from charrnn.text.batches import Batch, Batches

Array = NDArray[Any]
VALIDATION_STREAMS, CHUNK = 64, 64


def total_nats(
    network: Network, parameters: Parameters, batches: Batches, columns: slice = slice(None)
) -> float:
    """Return the sum of −ln ŷ_t[y_t] over an epoch of these columns, in nats, from a zero state."""
    total, state = 0.0, None
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step, columns)
        B = batch.x.shape[1]
        if B == 0:
            continue
        if state is None or batches.fresh:
            state = zero_state(network.config, B, network.dtype)
        nats, state = network.losses(parameters, batch.x, batch.y, state, batch.lengths)
        total += batch_nats(batch, nats)
    return total


def batch_nats(batch: Batch, nats: Array) -> float:
    """Return the sum of the losses (T, B) of a batch over its real positions."""
    if batch.lengths is not None:
        nats = nats[np.arange(len(nats))[:, None] < batch.lengths]
    return float(nats.sum(dtype=np.float64))
