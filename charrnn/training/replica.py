"""One replica of a run: its share of the batch's columns, forward, backward, the optimizer's step.

A run has one or more replicas, the same program on other columns. In each step their gradients are
summed once over the flat array; then every replica takes the same optimizer step, so that their
parameters stay equal to the last bit. Rank 0 leads: it alone knows the clock and the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charrnn.config import TrainConfig
from charrnn.network.dropout import draw_masks
from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import Parameters, parameter_count
from charrnn.text.batches import Batch, Batches
from charrnn.training.optimizers import OPTIMIZER_CLASSES, clip_by_norm

Array = NDArray[Any]
Order = tuple[Any, ...]  # a method's name and its arguments; empty: the run is over
# What every replica is made of, on rank 0 as on the others: the resolved configuration, the size N
# of the vocabulary, the batches of training and of validation, the arrays to start from.
Parts = tuple[TrainConfig, int, Batches, Batches | None, Mapping[str, Array]]
P = ParamSpec("P")
R = TypeVar("R")
AVERAGING = 0.98  # share of the old average of the weights kept in a step


def share(B: int, rank: int, size: int) -> slice:
    """Return the columns of B that are `rank`'s."""
    return slice(rank * B // size, (rank + 1) * B // size)


class Transport(Protocol):
    """What replicas say to each other. All of them make the same calls in the same order."""

    rank: int
    size: int

    def buffer(self, size: int, dtype: Any) -> Array:
        """Return the array (size,) whose contents `all_reduce` sums."""

    def all_reduce(self) -> None:
        """Replace the buffer of every rank by the sum over ranks, always added in one order."""

    def broadcast(self, order: Order | None) -> Order:
        """Return rank 0's order on every rank; the others pass None."""

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, in the order of ranks; elsewhere an empty list."""


class Alone:
    """The transport of a run with one replica."""

    rank, size = 0, 1

    def buffer(self, size: int, dtype: Any) -> Array:
        return np.zeros(size, dtype)

    def all_reduce(self) -> None:
        pass

    def broadcast(self, order: Order | None) -> Order:
        return order or ()

    def gather(self, value: Any) -> list[Any]:
        return [value]


class Replica:
    """Parameters, their average, the optimizer and the carried state of this rank's columns."""

    def __init__(
        self,
        transport: Transport,
        config: TrainConfig,
        N: int,
        training: Batches,
        validation: Batches | None,
        start: Mapping[str, Array],
    ) -> None:
        """Take over the arrays of `start`: theta, average, the optimizer's moments if it has any.

        And of the state (L, S, H, B) of all columns a copy of this rank's.
        """
        self.config, self.N, self.transport = config, N, transport
        self.training, self.validation = training, validation
        n = parameter_count(config.model, N)
        self.message = transport.buffer(n + 1, config.dtype)  # the gradient, then the loss
        self.gradient = Parameters(config.model, N, flat=self.message[:n])
        self.parameters = Parameters(config.model, N, flat=start["theta"])
        self.average = Parameters(config.model, N, flat=start["average"])
        self.optimizer = OPTIMIZER_CLASSES[config.optimizer](
            self.parameters.flat, training.predictions / training.steps_per_epoch
        )
        moments = self.optimizer.moments
        moments |= {name: start[name] for name in moments.keys() & start.keys()}
        self.network = Network(config.model, N, config.dtype)
        self.columns = share(training.batch_size, transport.rank, transport.size)
        self.state = start["state"][..., self.columns].copy()
        self._spare = np.empty_like(self.parameters.flat)

    def lead(self, order: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call one of rank 0's own methods on every replica and return rank 0's result."""
        self.transport.broadcast((order.__name__, *args))
        return order(*args, **kwargs)

    def follow(self) -> None:
        """Do what rank 0 orders until the run is over."""
        while order := self.transport.broadcast(None):
            getattr(self, order[0])(*order[1:])

    def step(self, step: int, lr: float) -> tuple[float, float]:
        """Take optimizer step `step`, counted from 0.

        Return the loss in nats per character and the norm of the gradient before clipping.
        """
        config, batch = self.config, self.training.batch(step, self.columns)
        self.message[:] = 0
        B = batch.x.shape[1]
        if B and batch.predictions:
            weight, first = 1 / batch.predictions, self.columns.start
            columns = slice(first, first + B)  # the last batch may have fewer than its share
            nats, after = self.network.gradient(
                self.parameters,
                batch.x,
                batch.y,
                zero_state(config.model, B, config.dtype) if batch.fresh else self.state[..., :B],
                out=self.gradient,
                weight=weight,
                lengths=batch.lengths,
                masks=draw_masks(config, self.N, step, len(batch.x), columns),
            )
            self.message[-1] = batch_nats(batch, nats) * weight
            self.state[..., :B] = after
        self.transport.all_reduce()
        loss, g = float(self.message[-1]), self.gradient.flat
        norm = clip_by_norm(g, config.clip)
        if np.isfinite(loss) and np.isfinite(norm):
            self.parameters.flat *= 1 - lr * config.weight_decay  # Loshchilov & Hutter 2019
            self.optimizer.update(self.parameters.flat, g, lr, step + 1)
            self._keep_average(step)
        return loss, norm

    def _keep_average(self, step: int) -> None:
        """average ← average + (1 − k)(θ − average).

        k grows with the step up to AVERAGING, so that the first weights are soon forgotten.
        """
        k = min(AVERAGING, (step + 1) / (step + 10))
        np.subtract(self.parameters.flat, self.average.flat, out=self._spare)
        self._spare *= 1 - k
        self.average.flat += self._spare

    def validate(self, averaged: bool) -> float:
        """Return the loss in nats per character over the validation part, on rank 0.

        On the other ranks the returned number means nothing.
        """
        assert self.validation is not None
        parameters = self.average if averaged else self.parameters
        columns = share(self.validation.batch_size, self.transport.rank, self.transport.size)
        own = total_nats(self.network, parameters, self.validation, columns)
        return float(sum(self.transport.gather(own)) / self.validation.predictions)

    def gather_state(self) -> Array:
        """Return the carried state of all columns, on rank 0 (on others: their own)."""
        states = self.transport.gather(self.state)
        return np.concatenate(states, axis=-1) if states else self.state


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
        if state is None or batch.fresh:
            state = zero_state(network.config, B, network.dtype)
        nats, state = network.losses(parameters, batch.x, batch.y, state[..., :B], batch.lengths)
        total += batch_nats(batch, nats)
    return total


def batch_nats(batch: Batch, nats: Array) -> float:
    """Return the sum of the losses (T, B) of a batch over its real positions."""
    if batch.lengths is not None:
        nats = nats[np.arange(len(nats))[:, None] < batch.lengths]
    return float(nats.sum(dtype=np.float64))
