"""One replica of a run: its share of the batch's columns, forward, backward, the optimizer's step.

A run has one or more replicas, the same program on other columns. In each step every replica gets
the sum of their gradients for its share of the flat array, updates that share of the parameters, of
their average and of the moments (Rajbhandari et al. 2020, stage 1), and gathers the parameters of
all. Rank 0 leads: it alone knows the clock and the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charrnn.config import TrainConfig
from charrnn.network.dropout import draw_masks
from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import Parameters
from charrnn.text.batches import Batch, Batches
from charrnn.training.optimizers import OPTIMIZER_CLASSES, clip, sum_of_squares

Array = NDArray[Any]
Order = tuple[Any, ...]  # a method's name and its arguments; empty: the run is over
# What every replica is made of, on rank 0 as on the others: the resolved configuration, the size N
# of the vocabulary, the batches of training and of validation, the arrays to start from.
Parts = tuple[TrainConfig, int, Batches, Batches | None, Mapping[str, Array]]
P = ParamSpec("P")
R = TypeVar("R")
AVERAGING = 0.98  # share of the old average of the weights kept in a step
BLOCK = 1 << 14  # parameters updated at a time: all that belongs to them stays in the cache


def share(n: int, rank: int, size: int) -> slice:
    """Return which of n columns, or of n parameters, are `rank`'s."""
    return slice(rank * n // size, (rank + 1) * n // size)


class Transport(Protocol):
    """What replicas say to each other. All of them make the same calls in the same order."""

    rank: int
    size: int

    def gradient(self, n: int, dtype: Any) -> Array:
        """Return this rank's array (n,) for `reduce_scatter`."""

    def common(self, array: Array) -> Array:
        """Return the array, where ranks share memory moved there.

        Each rank writes its share of it, and `all_gather` shows it to the others.
        """

    def reduce_scatter(self) -> Array:
        """Return this rank's share of the sum of all gradients, always added in one order."""

    def all_gather(self, common: Array) -> None:
        """Complete a common array by the shares of all ranks, before rank 0's next order."""

    def all_reduce(self, numbers: Array) -> Array:
        """Return the sum over ranks of a few numbers, the same bits on every rank."""

    def broadcast(self, order: Order | None) -> Order:
        """Return rank 0's order on every rank; the others pass None."""

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, in the order of ranks; elsewhere an empty list."""


class Alone:
    """The transport of a run with one replica."""

    rank, size = 0, 1

    def gradient(self, n: int, dtype: Any) -> Array:
        self._gradient: Array = np.zeros(n, dtype)
        return self._gradient

    def common(self, array: Array) -> Array:
        return array

    def reduce_scatter(self) -> Array:
        return self._gradient

    def all_gather(self, common: Array) -> None:
        pass

    def all_reduce(self, numbers: Array) -> Array:
        return numbers

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
        self.optimizer = OPTIMIZER_CLASSES[config.optimizer](
            training.predictions / training.steps_per_epoch
        )
        theta = start["theta"]
        self.arrays = {
            name: transport.common(start.get(name, np.zeros_like(theta)))
            for name in ("theta", "average", *self.optimizer.names)
        }
        self.parameters = Parameters(config.model, N, flat=self.arrays["theta"])
        self.average = Parameters(config.model, N, flat=self.arrays["average"])
        gradient = transport.gradient(theta.size, theta.dtype)
        self.gradient = Parameters(config.model, N, flat=gradient)
        self.network = Network(config.model, N, config.dtype)
        self.columns = share(training.batch_size, transport.rank, transport.size)
        self.state = start["state"][..., self.columns].copy()

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
            own_loss = batch_nats(batch, nats) * weight
            self.state[..., :B] = after
        else:
            own_loss, self.gradient.flat[:] = 0.0, 0
        g = self.transport.reduce_scatter()
        loss, squares = self.transport.all_reduce(np.array([own_loss, sum_of_squares(g)])).tolist()
        norm = math.sqrt(squares)
        if math.isfinite(loss + norm):
            clip(g, norm, config.clip)
            self._update(g, step, lr)
        self.transport.all_gather(self.parameters.flat)
        return loss, norm

    def _update(self, g: Array, step: int, lr: float) -> None:
        """Update this rank's share of θ, then average ← average + (1 − k)(θ − average).

        k grows with the step up to AVERAGING, so that the first weights are soon forgotten.
        """
        k = min(AVERAGING, (step + 1) / (step + 10))
        own = share(self.parameters.flat.size, self.transport.rank, self.transport.size)
        for start in range(0, g.size, BLOCK):
            block = slice(start, start + BLOCK)
            theta, average, *moments = (array[own][block] for array in self.arrays.values())
            theta *= 1 - lr * self.config.weight_decay  # Loshchilov & Hutter 2019
            self.optimizer.update(theta, g[block], moments, lr, step + 1)
            average += (1 - k) * (theta - average)

    def validate(self, averaged: bool) -> float:
        """Return the loss in nats per character over the validation part, on rank 0.

        On the other ranks the returned number means nothing.
        """
        assert self.validation is not None
        parameters = self.gather_average() if averaged else self.parameters
        columns = share(self.validation.batch_size, self.transport.rank, self.transport.size)
        own = total_nats(self.network, parameters, self.validation, columns)
        return float(sum(self.transport.gather(own)) / self.validation.predictions)

    def gather_average(self) -> Parameters:
        """Return the averaged parameters of all ranks."""
        self.transport.all_gather(self.average.flat)
        return self.average

    def gather(self) -> dict[str, Array]:
        """Return on rank 0 what `start` was, as it is now: theta, average, moments and state."""
        for array in self.arrays.values():
            self.transport.all_gather(array)
        states = self.transport.gather(self.state)
        return {**self.arrays, "state": np.concatenate(states or [self.state], axis=-1)}


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
