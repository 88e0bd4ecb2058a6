"""One replica of a run: forward, backward and the optimizer's step for its share of the columns.

A run has one or more replicas: the same program on different columns. In each step, every replica
gets the sum of all gradients for its share of the flat array, updates that share of the parameters,
of their average and of the moments (Rajbhandari et al. 2020, stage 1), and gathers all parameters.
Rank 0 leads: only it knows the clock and the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, TypeVar

import numpy as np

from charrnn.arrays import Array
from charrnn.config import TrainConfig
from charrnn.network.dropout import draw_masks
from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import Parameters
from charrnn.text.batches import Batch, Batches
from charrnn.training.optimizers import OPTIMIZER_CLASSES, clip, sum_of_squares

# What every replica is made of, on rank 0 and elsewhere: the resolved configuration, the vocabulary
# size N, the batches for training and for validation, and the arrays to start from.
Parts = tuple[TrainConfig, int, Batches, Batches | None, Mapping[str, Array]]
R = TypeVar("R")
AVERAGING = 0.02  # the least k in Replica._update, the share of θ that a step puts into the average
BLOCK = 1 << 15  # parameters updated at a time, so that all their arrays stay in the cache


def share(n: int, rank: int, size: int) -> slice:
    """Return which of n columns, or of n parameters, are `rank`'s."""
    return slice(rank * n // size, (rank + 1) * n // size)


def twins(config: TrainConfig) -> tuple[str, ...]:
    """Return the names of the arrays that all replicas update: θ, its average and the moments."""
    return ("theta", "average", *OPTIMIZER_CLASSES[config.optimizer].names)


class Transport:
    """Communication between replicas, which all make the same calls in the same order.

    This is the transport of a run with one replica; subclasses serve several.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def arrays(self, twins: Sequence[Array]) -> Sequence[Array]:
        """Return zeros for this rank's gradient, then the twins; both in shared memory, if any.

        Each rank updates its share of a twin, and `all_gather` gives it to the others.
        """
        return [np.zeros_like(twins[0]), *twins]

    def reduce_scatter(self, gradient: Array) -> Array:
        """Return this rank's share of the sum of all gradients, always added in the same order."""
        return gradient

    def all_gather(self, twin: Array) -> None:
        """Complete a twin with the shares of all ranks, before rank 0's next command."""
        self.gather(None)

    def all_reduce(self, numbers: Array) -> Array:
        """Return the sum over ranks of a few numbers, the same bits on every rank."""
        return np.asarray(self.broadcast(sum(self.gather(numbers))))

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, in the order of ranks; elsewhere an empty list."""
        return [value]


@dataclass
class Replica:
    """Parameters, their average, the optimizer and the carried state of this rank's columns.

    It takes over the arrays of `start`: theta, average and the optimizer's moments, which may be
    missing. It copies its columns of the state (L, S, H, B).
    """

    transport: Transport
    config: TrainConfig
    N: int
    training: Batches
    validation: Batches | None
    start: InitVar[Mapping[str, Array]]

    def __post_init__(self, start: Mapping[str, Array]) -> None:
        config, training, names = self.config, self.training, twins(self.config)
        self.optimizer = OPTIMIZER_CLASSES[config.optimizer](
            training.predictions / training.steps_per_epoch
        )
        begun = [start.get(name, np.zeros_like(start["theta"])) for name in names]
        flats = self.transport.arrays(begun)
        self.arrays = dict(zip(names, flats[1:], strict=True))
        self.gradient, self.parameters, self.average = (
            Parameters(config.model, self.N, flat=flat) for flat in flats[:3]
        )
        self.network = Network(config.model, config.dtype)
        self.columns = self._share(training.batch_size)
        self.state = start["state"][..., self.columns].copy()

    def _share(self, n: int) -> slice:
        """Return which of n columns, or of n parameters, are this rank's."""
        return share(n, self.transport.rank, self.transport.size)

    def lead(self, method: Callable[..., R], *args: Any) -> R:
        """Call one of rank 0's own methods on every replica and return rank 0's result."""
        self.transport.broadcast((method.__name__, *args))
        return method(*args)

    def follow(self) -> None:
        """Carry out rank 0's commands, until an empty one ends the run."""
        while command := self.transport.broadcast(None):
            getattr(self, command[0])(*command[1:])

    def step(self, step: int, lr: float) -> tuple[float, float]:
        """Take optimizer step `step`, counted from 0.

        Return the loss in nats per character and the norm of the gradient before clipping.
        """
        config, batch = self.config, self.training.batch(step, self.columns)
        B = batch.x.shape[1]
        if B and batch.predictions:
            weight, first = 1 / batch.predictions, self.columns.start
            columns = slice(first, first + B)  # the last batch may have fewer columns here
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
        g = self.transport.reduce_scatter(self.gradient.flat)
        loss, squares = self.transport.all_reduce(np.array([own_loss, sum_of_squares(g)])).tolist()
        norm = math.sqrt(squares)
        if math.isfinite(loss + norm):
            clip(g, norm, config.clip)
            self._update(g, step, lr)
        self.transport.all_gather(self.parameters.flat)
        return loss, norm

    def _update(self, g: Array, step: int, lr: float) -> None:
        """Update this rank's share of θ, then average ← average + k (θ − average).

        k falls from 0.9 to AVERAGING, so that the first weights are soon forgotten.
        """
        k = max(AVERAGING, 9 / (step + 10))
        own = self._share(self.parameters.flat.size)
        for start in range(0, g.size, BLOCK):
            block = slice(start, start + BLOCK)
            theta, average, *moments = (array[own][block] for array in self.arrays.values())
            theta *= 1 - lr * self.config.weight_decay  # Loshchilov & Hutter 2019
            theta -= self.optimizer.change(lr, step + 1, g[block], *moments)
            ahead = theta - average
            ahead *= k
            average += ahead

    def validate(self, averaged: bool) -> float:
        """Return the loss in nats per character over the validation part, on rank 0.

        On the other ranks the returned number means nothing.
        """
        assert self.validation is not None
        parameters = self.gather_average() if averaged else self.parameters
        columns = self._share(self.validation.batch_size)
        own = total_nats(self.network, parameters, self.validation, columns)
        return float(sum(self.transport.gather(own)) / self.validation.predictions)

    def gather_average(self) -> Parameters:
        """Return the averaged parameters of all ranks."""
        self.transport.all_gather(self.average.flat)
        return self.average

    def gather(self) -> dict[str, Array]:
        """Return on rank 0 the current theta, average, moments and state, in `start`'s form."""
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
