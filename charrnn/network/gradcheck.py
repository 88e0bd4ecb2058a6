"""The gradient check: backpropagation through time compared with central differences.

∂L/∂θ_i ≈ (L(θ_i + ε) − L(θ_i − ε)) / 2ε in float64, whose error is of order ε² (and 1e-16 / ε from
rounding). The network checked here is the one that is trained, in another precision. A check sees
only what its input exercises, so we use several steps and streams, repeated symbols, a state that
isn't zero, and streams of unequal length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from charrnn.arrays import Array
from charrnn.config import CELLS, CellName, TrainConfig, check
from charrnn.network.dropout import Masks, draw_masks
from charrnn.network.network import NOTHING_DROPPED, Network, zero_state
from charrnn.network.parameters import Parameters, initialize

Loss = Callable[[], float]
EPSILON = 1e-5


@dataclass(frozen=True)
class ArrayCheck:
    """One parameter array: its error, and the element where the two gradients differ most."""

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
        """The largest error of any array or direction; NaN counts as infinite."""
        errors = [*(array.error for array in self.arrays), self.direction_error]
        return float(np.max(np.nan_to_num(errors, nan=np.inf)))


def central_difference(loss: Loss, theta: Array, direction: Array | float = 1.0) -> float:
    """Return the derivative of `loss` by theta along `direction`; theta is changed and restored."""
    here = theta.copy()
    theta[:] = here + EPSILON * direction
    above = loss()
    theta[:] = here - EPSILON * direction
    below = loss()
    theta[:] = here
    return (above - below) / (2 * EPSILON)


def check_array(loss: Loss, name: str, theta: Array, analytic: Array, chosen: Array) -> ArrayCheck:
    """Return the check of the `chosen` elements of one array, numbered as they lie in memory."""
    flat = theta.reshape(-1)  # a view
    numeric = np.array([central_difference(loss, flat[i : i + 1]) for i in chosen])
    distance = np.abs(analytic.ravel()[chosen] - numeric)
    worst = int(np.argmax(distance))
    index = tuple(map(int, np.unravel_index(chosen[worst], analytic.shape)))
    # If the true gradient is zero, as for N = 1, 1e-8 lets rounding errors pass.
    error = float(distance[worst]) / max(float(np.abs(analytic).max()), 1e-8)
    return ArrayCheck(
        name, error, index, float(analytic[index]), float(numeric[worst]), len(chosen)
    )


def check_direction(loss: Loss, theta: Array, analytic: Array, rng: np.random.Generator) -> float:
    """Return the relative error along a random direction through all parameters at once."""
    direction = rng.standard_normal(theta.size)
    direction /= np.linalg.norm(direction)
    # It is nearly orthogonal to the gradient; adding the gradient keeps their product large.
    direction += analytic / max(float(np.linalg.norm(analytic)), 1e-30)
    product = float(analytic @ direction)
    return abs(product - central_difference(loss, theta, direction)) / max(abs(product), 1e-8)


def check_gradient(
    parameters: Parameters,
    x: Array,
    y: Array,
    state: Array,
    rng: np.random.Generator,
    *,
    lengths: Array | None = None,
    masks: Masks = NOTHING_DROPPED,
    elements: int | None = None,
    directions: int = 4,
) -> Check:
    """Return the check of one chunk, on at most `elements` random elements of each array."""
    config, gradient = parameters.config, parameters.like()
    network = Network(config, np.float64)
    inside = np.arange(len(x))[:, None] < (len(x) if lengths is None else lengths)

    def loss() -> float:
        nats, _ = network.losses(parameters, x, y, state, lengths, masks)
        return float((nats * inside).sum()) / x.size

    network.gradient(
        parameters, x, y, state, out=gradient, weight=1 / x.size, lengths=lengths, masks=masks
    )
    arrays = [
        check_array(loss, name, theta, gradient[name], rng.permutation(theta.size)[:elements])
        for name, theta in parameters.items()
    ]
    errors = [check_direction(loss, parameters.flat, gradient.flat, rng) for _ in range(directions)]
    worst = float(np.max(errors))  # NaN if any is
    return Check(config.cell, config.layers, bool(masks.h), tuple(arrays), worst)


def random_text(rng: np.random.Generator, N: int, T: int, B: int) -> tuple[Array, Array]:
    """Return random symbols and targets (T, B); one symbol occurs several times, whatever N is."""
    x, y = rng.integers(0, N, (2, T, B))
    x[:3, 0] = x[0, 0]
    return x, y


def check_network(
    cell: CellName, layers: int, *, dropout: bool, hidden: int = 5, seq_len: int = 6, seed: int = 0
) -> Check:
    """Return the check of a small network with random weights, state, text and fixed masks."""
    N, T, B = 4, seq_len, 3
    rng = np.random.default_rng([seed, layers, dropout])
    training = TrainConfig(
        cell=cell,
        hidden=hidden,
        layers=layers,
        dropout=0.25 * dropout,
        seed=seed,
        dtype="float64",
    )
    config = training.model
    parameters = initialize(config, N, rng, dtype=np.float64)
    parameters.flat[:] += 0.3 * rng.standard_normal(parameters.flat.size)
    x, y = random_text(rng, N, T, B)
    state = 0.5 * rng.standard_normal(zero_state(config, B, np.float64).shape)
    lengths = np.array([T, T - 1, T]) if dropout else None
    masks = draw_masks(training, N, 0, T, slice(0, B))
    return check_gradient(parameters, x, y, state, rng, lengths=lengths, masks=masks)


def gradcheck(
    cells: Sequence[CellName] = CELLS, *, hidden: int = 5, seq_len: int = 6, seed: int = 0
) -> Iterator[Check]:
    """Yield a check for each cell with 1 and 2 layers, with and without dropout."""
    check("--hidden", hidden, least=1, most=64)  # every parameter costs two passes over the text
    check("--seq-len", seq_len, least=3, most=64)  # a shorter text doesn't show most bugs
    for cell, layers, dropout in product(cells, (1, 2), (False, True)):
        yield check_network(
            cell, layers, dropout=dropout, hidden=hidden, seq_len=seq_len, seed=seed
        )


def check_trained(trained: Parameters, *, seq_len: int = 8, seed: int = 0) -> Check:
    """Return the check at trained weights: 32 elements of each array and 8 directions."""
    check("--seq-len", seq_len, least=3, most=64)
    rng, N, B = np.random.default_rng(seed), trained.N, 2
    parameters, state = trained.astype(np.float64), zero_state(trained.config, B, np.float64)
    network = Network(trained.config, np.float64)
    _, state = network.losses(parameters, *random_text(rng, N, seq_len, B), state)
    x, y = random_text(rng, N, seq_len, B)
    return check_gradient(parameters, x, y, state, rng, elements=32, directions=8)
