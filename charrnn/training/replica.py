"""One replica of a run: its share of the batch's columns, forward, backward, and the optimizer's step.

A run has one or more replicas, the same program on other columns. In each step their gradients are summed once over
the flat array; then every replica takes the same optimizer step, so that their parameters stay equal to the last bit.
Rank 0 leads: it alone knows the clock and the schedule, and sends the orders that the others follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.network.dropout import Masks, draw_masks
from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import Parameters, parameter_count
from charrnn.text.batches import Batches
from charrnn.training.evaluation import batch_nats, total_nats
from charrnn.training.optimizers import OPTIMIZER_CLASSES, clip_by_norm

Array = NDArray[Any]
DROPOUT_STREAM = (
    1  # the streams of random numbers under the seed: 0 weights, 1 dropout, 2 the order of items
)


def share(B: int, rank: int, size: int) -> slice:
    """Return the columns of B that are `rank`'s."""
    return slice(rank * B // size, (rank + 1) * B // size)


class Transport(Protocol):
    """What replicas say to each other. Every call is made by all of them, in the same order."""

    rank: int
    size: int

    def buffer(self, size: int, dtype: Any) -> Array:
        """Return the array (size,) whose contents `all_reduce` sums."""

    def all_reduce(self) -> None:
        """Replace the buffer of every rank by the sum over ranks, always added in the same order."""

    def broadcast(self, order: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """Return rank 0's order on every rank."""

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, in the order of ranks; elsewhere an empty list."""


class Alone:
    """The transport of a run with one replica."""

    rank, size = 0, 1

    def buffer(self, size: int, dtype: Any) -> Array:
        return np.zeros(size, dtype)

    def all_reduce(self) -> None:
        pass

    def broadcast(self, order: tuple[Any, ...] | None) -> tuple[Any, ...]:
        assert order is not None
        return order

    def gather(self, value: Any) -> list[Any]:
        return [value]


@dataclass(frozen=True)
class Plan:
    """What every replica knows of a run."""

    model: ModelConfig
    N: int
    dtype: str
    optimizer: str
    clip: float
    dropout: float
    averaging: float  # share of the old average kept in a step, 0: no average
    seed: int


class Replica:
    """Parameters, their average, the optimizer and the carried state of this rank's columns."""

    def __init__(
        self,
        plan: Plan,
        transport: Transport,
        training: Batches,
        validation: Batches | None,
        arrays: dict[str, Array],
    ) -> None:
        """`arrays` holds what rank 0 starts from: theta, average, the optimizer's moments, state (L, S, H, B)."""
        self.plan, self.transport, self.training, self.validation = (
            plan,
            transport,
            training,
            validation,
        )
        n = parameter_count(plan.model, plan.N)
        self.message = transport.buffer(
            n + 1, plan.dtype
        )  # the gradient, then this rank's share of the loss
        self.gradient = Parameters(plan.model, plan.N, flat=self.message[:n])
        self.parameters = Parameters(plan.model, plan.N, flat=arrays["theta"].copy())
        self.average = Parameters(plan.model, plan.N, flat=arrays["average"].copy())
        self.optimizer = OPTIMIZER_CLASSES[plan.optimizer](self.parameters.flat)
        for name, moment in self.optimizer.moments.items():
            moment[:] = arrays.get(name, 0)
        self.network = Network(plan.model, plan.N, plan.dtype)
        self.columns = share(training.batch_size, transport.rank, transport.size)
        self.state = arrays["state"][..., self.columns].copy()
        self._spare = np.empty_like(self.parameters.flat)

    def step(self, step: int, lr: float) -> tuple[float, float]:
        """Take optimizer step `step` (from 0); return the loss in nats per character and the gradient's norm before clipping."""
        batch = self.training.batch(step, self.columns)
        B = batch.x.shape[1]
        self.message[:] = 0
        if B and batch.predictions:
            state = (
                zero_state(self.plan.model, B, self.plan.dtype)
                if self.training.fresh
                else self.state
            )
            weight = 1 / batch.predictions
            masks = self._masks(step, len(batch.x))
            nats, after = self.network.gradient(
                self.parameters,
                batch.x,
                batch.y,
                state,
                out=self.gradient,
                weight=weight,
                lengths=batch.lengths,
                masks=masks,
            )
            self.message[-1] = batch_nats(batch, nats) * weight
            if not self.training.fresh:
                self.state = after
        self.transport.all_reduce()
        loss, g = float(self.message[-1]), self.gradient.flat
        norm = clip_by_norm(g, self.plan.clip)
        if np.isfinite(loss) and np.isfinite(norm):
            self.optimizer.update(self.parameters.flat, g, lr, step + 1)
            self._keep_average(step)
        return loss, norm

    def _masks(self, step: int, T: int) -> Masks | None:
        """Return the dropout masks of this step, a function of seed and step alone."""
        p = self.plan.dropout
        if not p:
            return None
        rng = np.random.Generator(np.random.SFC64([self.plan.seed, DROPOUT_STREAM, step]))
        B = self.training.batch_size
        return draw_masks(
            self.plan.model,
            self.plan.N,
            T=T,
            B=B,
            p=p,
            rng=rng,
            dtype=self.plan.dtype,
            own=self.columns,
        )

    def _keep_average(self, step: int) -> None:
        """average ← average + (1 − k)(θ − average); k grows with the step, so that the beginning is soon forgotten."""
        k = min(self.plan.averaging, (step + 1) / (step + 10))
        np.subtract(self.parameters.flat, self.average.flat, out=self._spare)
        self._spare *= 1 - k
        self.average.flat += self._spare

    def validate(self, averaged: bool) -> float:
        """Return the loss in nats per character over the validation part (on rank 0; elsewhere nothing that counts)."""
        assert self.validation is not None
        parameters = self.average if averaged else self.parameters
        columns = share(self.validation.batch_size, self.transport.rank, self.transport.size)
        own = total_nats(self.network, parameters, self.validation, columns)
        return float(sum(self.transport.gather(own)) / self.validation.predictions)

    def gather_state(self) -> Array:
        """Return the carried state of all columns (on rank 0; elsewhere nothing that counts)."""
        states = self.transport.gather(self.state)
        return np.concatenate(states, axis=-1) if states else self.state

    def follow(self) -> None:
        """Do what rank 0 orders, until it says stop."""
        while (order := self.transport.broadcast(None))[0] != "stop":
            getattr(self, order[0])(*order[1:])


class Leader:
    """Rank 0's view of all replicas: each call is sent to the others and done here too."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    def _order(self, name: str, *arguments: Any) -> Any:
        self.replica.transport.broadcast((name, *arguments))
        return getattr(self.replica, name)(*arguments)

    def step(self, step: int, lr: float) -> tuple[float, float]:
        """See Replica.step."""
        loss, norm = self._order("step", step, lr)
        return loss, norm

    def validate(self, averaged: bool) -> float:
        """See Replica.validate."""
        return float(self._order("validate", averaged))

    def gather_state(self) -> Array:
        """See Replica.gather_state."""
        state: Array = self._order("gather_state")
        return state
