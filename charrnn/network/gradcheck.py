"""Proof that the gradients are right: backpropagation through time beside central differences, in float64.

∂L/∂θ_i ≈ (L(θ_i + ε) − L(θ_i − ε)) / 2ε, whose error is of order ε² (and 1e-16 / ε from rounding). The network that
is checked is the one that trains, only in another precision. A check sees what its input exercises, so there are several
steps and streams, repeated symbols, a state that isn't zero and streams of unequal length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charrnn.config import CELLS, CellName, ModelConfig, check
from charrnn.network.dropout import draw_masks
from charrnn.network.network import Network, zero_state
from charrnn.network.parameters import Parameters, initialize

Array = NDArray[Any]
Loss = Callable[[Parameters], float]
EPSILON = 1e-5
TOLERANCE = 1e-5


@dataclass(frozen=True)
class ArrayCheck:
    """One parameter array: its error and the element where analytic and numeric gradient lie farthest apart."""

    name: str
    error: float  # max |analytic − numeric| / max |analytic| over the array
    index: tuple[int, ...]
    analytic: float
    numeric: float
    checked: int  # elements compared


@dataclass(frozen=True)
class Check:
    """One network: every array, and random directions through all parameters at once."""

    cell: CellName
    layers: int
    dropout: bool
    arrays: tuple[ArrayCheck, ...]
    direction_error: float  # max over directions v of |∇L · v − numeric| / |∇L · v|

    @property
    def error(self) -> float:
        """Return the largest error of any array or direction; nan counts as infinite."""
        errors = [*(array.error for array in self.arrays), self.direction_error]
        return max(np.inf if np.isnan(error) else error for error in errors)


def central_difference(
    loss: Loss, parameters: Parameters, direction: Array, epsilon: float = EPSILON
) -> float:
    """Return the derivative of `loss` along `direction` (a flat array); `parameters` is moved and put back exactly."""
    here = parameters.flat.copy()
    parameters.flat[:] = here + epsilon * direction
    above = loss(parameters)
    parameters.flat[:] = here - epsilon * direction
    below = loss(parameters)
    parameters.flat[:] = here
    return (above - below) / (2 * epsilon)


def _element(loss: Loss, parameters: Parameters, i: int) -> float:
    """Return ∂loss/∂flat[i] by central difference."""
    value = parameters.flat[i]
    parameters.flat[i] = value + EPSILON
    above = loss(parameters)
    parameters.flat[i] = value - EPSILON
    below = loss(parameters)
    parameters.flat[i] = value
    return float((above - below) / (2 * EPSILON))


def check_arrays(
    loss: Loss,
    parameters: Parameters,
    gradient: Parameters,
    rng: np.random.Generator,
    most: int | None,
) -> list[ArrayCheck]:
    """Return a check of each array, of at most `most` random elements of it (None: of all)."""
    checks, start = [], 0
    for name, analytic in gradient.items():
        chosen = np.arange(analytic.size)
        if most is not None and most < analytic.size:
            chosen = rng.choice(analytic.size, most, replace=False)
        numeric = np.array([_element(loss, parameters, start + int(i)) for i in chosen])
        distance = np.abs(analytic.ravel()[chosen] - numeric)
        worst = int(np.argmax(distance))
        index = np.unravel_index(chosen[worst], analytic.shape)
        # An array whose true gradient is zero throughout (N = 1, say) is compared with what rounding leaves.
        error = distance[worst] / max(float(np.abs(analytic).max()), 1e-8)
        checks.append(
            ArrayCheck(
                name,
                float(error),
                tuple(map(int, index)),
                float(analytic[index]),
                float(numeric[worst]),
                chosen.size,
            )
        )
        start += analytic.size
    return checks


def check_directions(
    loss: Loss, parameters: Parameters, gradient: Parameters, rng: np.random.Generator, count: int
) -> float:
    """Return the largest relative error along `count` random directions, each through all parameters at once."""
    worst = 0.0
    for _ in range(count):
        direction = rng.standard_normal(gradient.flat.size)
        direction /= np.linalg.norm(direction)
        # A random direction is nearly orthogonal to the gradient; half of it along the gradient keeps the product large.
        direction += gradient.flat / max(float(np.linalg.norm(gradient.flat)), 1e-30)
        analytic = float(gradient.flat @ direction)
        numeric = central_difference(loss, parameters, direction)
        worst = float(
            np.maximum(worst, abs(analytic - numeric) / max(abs(analytic), 1e-8))
        )  # NaN stays
    return worst


def check_network(
    cell: CellName, layers: int, *, dropout: bool, hidden: int = 5, seq_len: int = 6, seed: int = 0
) -> Check:
    """Return the check of a small network with random weights, state and text; with dropout its masks are held fixed."""
    N, T, B = 4, seq_len, 3
    rng = np.random.default_rng([seed, layers, dropout])
    config = ModelConfig(cell, hidden, layers)
    parameters = initialize(config, N, rng, dtype=np.float64)
    parameters.flat[:] += 0.3 * rng.standard_normal(parameters.flat.size)
    x, y = rng.integers(0, N, (2, T, B))
    x[: min(3, T), 0] = x[0, 0]  # one symbol several times, whatever was drawn
    state = 0.5 * rng.standard_normal(zero_state(config, B, np.float64).shape)
    lengths = np.array([T, max(1, T - 1), T]) if dropout else None
    masks = (
        draw_masks(config, N, T=T, columns=slice(0, B), p=0.25, seed=seed, step=0, dtype=np.float64)
        if dropout
        else None
    )
    network, gradient = Network(config, N, np.float64), parameters.like()
    weight = 1 / (T * B)

    def loss(at: Parameters) -> float:
        nats, _ = network.gradient(
            at, x, y, state, out=scratch, weight=weight, lengths=lengths, masks=masks
        )
        return (
            float(
                nats.sum() if lengths is None else (nats * (np.arange(T)[:, None] < lengths)).sum()
            )
            * weight
        )

    scratch = parameters.like()
    network.gradient(
        parameters, x, y, state, out=gradient, weight=weight, lengths=lengths, masks=masks
    )
    arrays = check_arrays(loss, parameters, gradient, rng, None)
    return Check(
        cell, layers, dropout, tuple(arrays), check_directions(loss, parameters, gradient, rng, 4)
    )


def gradcheck(
    cells: Sequence[str] = CELLS, *, hidden: int = 5, seq_len: int = 6, seed: int = 0
) -> Iterator[Check]:
    """Yield a check for each cell with 1 and 2 layers, with and without dropout: every parameter of each."""
    check("--hidden", hidden, least=1, most=64)  # every parameter costs two passes over the text
    check("--seq-len", seq_len, least=3, most=64)  # a shorter text doesn't show most bugs
    for cell in cells:
        for layers in (1, 2):
            for dropout in (False, True):
                yield check_network(
                    cast(CellName, cell),
                    layers,
                    dropout=dropout,
                    hidden=hidden,
                    seq_len=seq_len,
                    seed=seed,
                )


def check_trained(trained: Parameters, *, seq_len: int = 8, seed: int = 0) -> Check:
    """Return the check at trained weights: 32 random elements of each array and 8 random directions."""
    rng = np.random.default_rng(seed)
    config, N, T, B = trained.config, trained.N, seq_len, 2
    parameters = trained.astype(np.float64)
    network, gradient = Network(config, N, np.float64), parameters.like()
    warm, x, y = rng.integers(0, N, (3, T, B))
    x[: min(3, T), 0] = x[0, 0]
    _, state = network.losses(parameters, warm, x, zero_state(config, B, np.float64))

    def loss(at: Parameters) -> float:
        return float(network.losses(at, x, y, state)[0].mean())

    network.gradient(parameters, x, y, state, out=gradient)
    arrays = check_arrays(loss, parameters, gradient, rng, 32)
    return Check(
        config.cell,
        config.layers,
        False,
        tuple(arrays),
        check_directions(loss, parameters, gradient, rng, 8),
    )
